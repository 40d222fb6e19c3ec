#!/usr/bin/env bash
# Compiles and links Hypura for macOS on Apple silicon, on Linux, into BUILD:
#
#   scripts/macos.sh [--whole] BUILD
#
# It shows that the code for macOS is C that its headers accept, and that every symbol is there; nothing of
# it is run. Zig's clang, headers and libSystem stand in for a Mac. Other libraries are stubs: the headers of this system's,
# and empty libraries with the names that they export. llama.cpp is a stub like that as well, whose C++ functions (the chat
# templates) link unchecked, as their names differ between C++ libraries; with --whole it is built from source, for the CPU,
# once into the user's cache, and nothing links unchecked. Nothing is optimized. Not covered: Metal, Accelerate, signing.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/zig.sh"

whole=
if [ "${1:-}" = --whole ]; then
    whole=1
    shift
fi
[ $# -eq 1 ] || fail "usage: scripts/macos.sh [--whole] BUILD"
target=aarch64-macos.13.0
zig_tools $target
mkdir -p "$1"
# What Zig compiled it keeps by content and paths, unless it is to write what a file depends on; so it is not asked to, and each
# build asks it for everything anew. For all checkouts the paths are the same: by links, of one at a time.
paths=$(dirname "$tools")/paths
mkdir -p "$paths"
lock "$paths/.lock"
ln -sfn "$root" "$paths/source"
ln -sfn "$(cd "$1" && pwd)" "$paths/build"
build=$paths/build
sysroot=$build/sysroot
toolchain=$(keep "$root/cmake/macos.toolchain.cmake")
export ZIG_LOCAL_CACHE_DIR=$(dirname "$tools")/objects

# stub LIBRARY OUT: a dynamic library OUT for the target with the names that LIBRARY of this system exports.
stub() {
    mkdir -p "$(dirname "$2")"
    nm -D --defined-only "$1" | awk '$2 ~ /^[TDBRVWu]$/ { sub(/@.*/, "", $3); if ($3 !~ /^_/ || $3 ~ /^_Z/) print "char " $3 ";" }' |
        sort -u >"$2.c"
    [ -s "$2.c" ] || fail "$1 exports nothing"
    "$tools/cc" -fno-builtin -w -dynamiclib "-Wl,-install_name,@rpath/$(basename "$2")" -o "$2" "$2.c"
}

# package NAME: a stub of an installed library, the headers of the Debian package that it is from, and what pkg-config says.
package() {
    local name=$1 folder library header
    folder=$(pkg-config --variable=libdir "$name")
    library=$(pkg-config --libs-only-l "$name" | sed 's/^-l\([^ ]*\).*/\1/')
    stub "$folder/lib$library.so" "$sysroot/lib/lib$library.dylib"
    # What depends on the processor lies apart, and says the same on every 64-bit one.
    while read -r header; do
        install -D -m 644 "$header" "$sysroot/include/$(sed -E 's|^/usr/include/([^/]*-linux-gnu/)?||' <<<"$header")"
    done < <(dpkg -L "$(dpkg -S "$folder/pkgconfig/$name.pc" | cut -d: -f1)" | grep -E '^/usr/include/.*\.h$')
    mkdir -p "$sysroot/lib/pkgconfig"
    printf '%s\n' "Name: $name" "Description: stub" "Version: $(pkg-config --modversion "$name")" \
        "Cflags: -I$sysroot/include" "Libs: -L$sysroot/lib -l$library" >"$sysroot/lib/pkgconfig/$name.pc"
}

start=$SECONDS
packages=$(sed -nE 's/^pkg_check_modules\([A-Z0-9_]+ REQUIRED IMPORTED_TARGET ([^)]+)\)$/\1/p' "$root/CMakeLists.txt")
if [ "$(cat "$sysroot/.packages" 2>/dev/null)" != "$packages" ]; then
    rm -rf "$build/sysroot"
    mkdir "$build/sysroot"
    for name in $packages; do
        package "$name"
    done
    echo "$packages" >"$sysroot/.packages"
fi

if [ -n "$whole" ]; then
    options=(
        "-DCMAKE_TOOLCHAIN_FILE=$toolchain" "-DHYPURA_CROSS_TOOLS=$tools"
        -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O0 -DCMAKE_CXX_FLAGS=-O0
        -DGGML_NATIVE=OFF -DGGML_METAL=OFF -DGGML_ACCELERATE=OFF -DGGML_BLAS=OFF -DGGML_OPENMP=OFF
    )
    llama=("-DHYPURA_LLAMA_OPTIONS=$(IFS=';'; echo "${options[*]}")")
else
    places=$("$root/scripts/llama.sh" llama llama-common)
    native=$(sed -n 's/^build=//p' <<<"$places")
    for library in "$native"/bin/lib*.so; do
        out=$build/llama/bin/$(basename "$library" .so).dylib
        [ "$out" -nt "$library" ] && [ "$out" -nt "$0" ] || stub "$library" "$out"
    done
    llama=("-DHYPURA_LLAMA_DIR=$(sed -n 's/^source=//p' <<<"$places")" "-DHYPURA_LLAMA_BUILD=$build/llama"
        -DCMAKE_SHARED_LINKER_FLAGS=-Wl,-undefined,dynamic_lookup -DCMAKE_EXE_LINKER_FLAGS=-Wl,-undefined,dynamic_lookup)
fi
export PKG_CONFIG_LIBDIR=$sysroot/lib/pkgconfig
unset PKG_CONFIG_PATH
flags='-O0 -g0 -fno-sanitize=all' # without optimization Zig adds checks
CC=$tools/cc CXX=$tools/c++ cmake -G Ninja -S "$paths/source" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$toolchain" \
    -DHYPURA_CROSS_TOOLS="$tools" -DHYPURA_CROSS_SYSROOT="$sysroot" \
    -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" "${llama[@]}" \
    -DCMAKE_USER_MAKE_RULES_OVERRIDE="$(keep "$root/cmake/no-depfiles.cmake")" \
    -DHYPURA_METAL=OFF -DHYPURA_TESTS=OFF >"$build/configure.log" ||
    fail "configuring for macOS failed; the log is $build/configure.log"
cmake --build "$build" --clean-first
for file in hypura hypura-engine libhypura.dylib libggml-hypura.so mkmodel; do
    [ "$(od -An -tx4 -N8 "$build/$file" | tr -d ' ')" = feedfacf0100000c ] || fail "$build/$file is no program for arm64 macOS"
done
(cd "$build" && python3 "$root/scripts/macho_unlinked.py" hypura hypura-engine libhypura.dylib libggml-hypura.so mkmodel) ||
    fail "$build does not link: the names above are used, and nothing defines them"
echo "built for $target in $((SECONDS - start)) s: $build"
