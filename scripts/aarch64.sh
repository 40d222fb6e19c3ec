#!/usr/bin/env bash
# Builds Hypura and llama.cpp for Linux on 64-bit ARM into BUILD, and runs `hypura verify` there on small models, under QEMU:
#
#   scripts/aarch64.sh BUILD
#
# The compiler and QEMU are Debian's packages, installed by scripts/deps.sh. The libraries are Debian's for arm64, fetched by
# an apt that has its own state and unpacked into $cache/sysroot-arm64, so that this system does not become one of two
# architectures. QEMU passes no io_uring on: the reads are those of the thread pool.
. "$(dirname "$0")/common.sh"

[ $# -eq 1 ] || fail "usage: scripts/aarch64.sh BUILD"
"$root/scripts/deps.sh" --aarch64
mkdir -p "$1"
build=$(cd "$1" && pwd)
sysroot=$cache/sysroot-arm64
toolchain=$(keep "$root/cmake/aarch64.toolchain.cmake")
# The packages that bring this system's own copies of what CMakeLists.txt asks for.
packages=(libc6-dev libstdc++6 libgomp1)
for name in $(sed -nE 's/^pkg_check_modules\(.* IMPORTED_TARGET ([^)]+)\)$/\1/p' "$root/CMakeLists.txt"); do
    packages+=("$(dpkg -S "$(pkg-config --variable=pcfiledir "$name")/$name.pc" | cut -d: -f1)")
done

make_sysroot() {
    local tmp deb
    tmp=$(mktemp -d "$cache/.sysroot.XXXXXX")
    mkdir -p "$tmp"/state/lists/partial "$tmp"/cache/archives/partial "$tmp/root"
    : >"$tmp/status"
    cat >"$tmp/apt.conf" <<CONF
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::State "$tmp/state";
Dir::State::status "$tmp/status";
Dir::Cache "$tmp/cache";
CONF
    say "fetching libraries for arm64"
    APT_CONFIG=$tmp/apt.conf apt-get -q -q update >&2 || fail "apt has no packages for arm64"
    APT_CONFIG=$tmp/apt.conf apt-get -q -q --download-only -y install "${packages[@]}" >&2 ||
        fail "apt could not fetch libraries for arm64"
    for deb in "$tmp"/cache/archives/*.deb; do
        dpkg-deb --extract "$deb" "$tmp/root"
    done
    printf '%s\n' "${packages[@]}" >"$tmp/root/.packages"
    rm -rf "$sysroot"
    mv "$tmp/root" "$sysroot"
    rm -rf "$tmp"
}

start=$SECONDS
lock "$cache/sysroot.lock"
if [ "$(cat "$sysroot/.packages" 2>/dev/null)" != "$(printf '%s\n' "${packages[@]}")" ]; then
    make_sysroot
fi
exec 9>&-

export PKG_CONFIG_SYSROOT_DIR=$sysroot
export PKG_CONFIG_LIBDIR=$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig:$sysroot/usr/share/pkgconfig
unset PKG_CONFIG_PATH
llama=(
    "-DCMAKE_TOOLCHAIN_FILE=$toolchain" "-DHYPURA_CROSS_SYSROOT=$sysroot"
    # With the instructions of every ARM server since 2018, which the repacked forms are for.
    -DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16
)
CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ cmake -G Ninja -S "$root" -B "$build" \
    -DCMAKE_TOOLCHAIN_FILE="$toolchain" -DHYPURA_CROSS_SYSROOT="$sysroot" \
    -DHYPURA_LLAMA_OPTIONS="$(IFS=';'; echo "${llama[*]}")" -DHYPURA_VULKAN=OFF -DHYPURA_TESTS=OFF >"$build/configure.log" ||
    fail "configuring for aarch64 failed; the log is $build/configure.log"
cmake --build "$build"
echo "built in $((SECONDS - start)) s"

emulated() { qemu-aarch64-static -L "$sysroot" "$@"; }
export HYPURA_CACHE_DIR=$build/cache
emulated "$build/mkmodel" tiny "$build/tiny"
for model in moe-f32 moe-q8_0 moe-q4_0 moe-mxfp4 moe-odd-f16 moe-lead-q4_0 dense-bf16 dense-q4_K dense-q4_0; do
    echo "== $model"
    emulated "$build/hypura" verify "$build/tiny/$model.gguf" --prompt-tokens 1,7,40 --tokens 4 --threads 2 --no-repack
done
echo "== moe-q4_0, repacked"
emulated "$build/hypura" verify "$build/tiny/moe-q4_0.gguf" --prompt-tokens 1,7,40 --tokens 4 --threads 2 --repack
echo "built and verified in $((SECONDS - start)) s"
