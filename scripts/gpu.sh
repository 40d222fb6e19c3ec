#!/usr/bin/env bash
# Builds one of ggml's GPU backends as a module that a running program loads, once into the user's cache, and prints where
# it is:
#
#   scripts/gpu.sh --source DIR [--where] [-DOPTION=VALUE...] vulkan|cuda|hip|metal
#   module=FILE
#
# DIR is the source tree of llama.cpp that the CPU side was built from; OPTION is one of llama.cpp's own. With --where
# nothing is built.
#
# llama.cpp's own build makes the module (GGML_BACKEND_DL). It brings a ggml-base of its own, which only the build sees: in
# a process, the one that libllama already loaded has the same name, and the same sources.
#
# $cache/llama-b11434/BACKEND-KEY/       one build for each compiler, set of options and source tree
# $cache/vulkan-headers-VERSION/         where the system's are too old
. "$(dirname "$0")/common.sh"

# Vulkan's headers are plain text for every system and processor; they are taken from the package of Debian 13.
headers_version=1.4.309
headers_deb=libvulkan-dev_$headers_version.0-1_amd64.deb
headers_sha256=8d329d465e16168afff58b1bd0dd6db46aac2cc3f56054a481b25a04e90b345a

source= where= extra=()
while [ $# -gt 0 ]; do
    case $1 in
    --source)
        source=$(cd "$2" && pwd) || fail "no llama.cpp source tree in $2"
        shift 2
        ;;
    --where)
        where=1
        shift
        ;;
    -DCMAKE_CUDA_ARCHITECTURES=*) # separated by commas: CMake's own lists end at a semicolon on their way here
        extra+=("${1//,/;}")
        shift
        ;;
    -D*)
        extra+=("$1")
        shift
        ;;
    -*) fail "unknown option $1" ;;
    *) break ;;
    esac
done
[ $# -eq 1 ] && [ -n "$source" ] || fail "usage: scripts/gpu.sh --source DIR [--where] [-DOPTION=VALUE...] BACKEND"
backend=$1
case $backend in vulkan | cuda | hip | metal) ;; *) fail "no GPU backend $backend" ;; esac
upper=$(tr '[:lower:]' '[:upper:]' <<<"$backend")

cc=${CC:-cc} cxx=${CXX:-c++}
unset CFLAGS CXXFLAGS CPPFLAGS LDFLAGS
options=(
    -DCMAKE_BUILD_TYPE=Release
    -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON
    -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON
    -DGGML_CPU=OFF -DGGML_NATIVE=OFF -DGGML_CCACHE=OFF
    -DGGML_METAL=OFF "-DGGML_$upper=ON"
    -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
    -DGIT_EXE=
    ${extra[@]+"${extra[@]}"}
)
# Without NCCL, which only splitting one tensor over several GPUs would use: the module would not load where it is missing.
nvcc=
if [ "$backend" = cuda ]; then
    nvcc=$(command -v "${CUDACXX:-nvcc}" || command -v /usr/local/cuda/bin/nvcc) ||
        fail "CUDA's compiler nvcc is neither on the PATH nor in /usr/local/cuda/bin;" \
            "install CUDA's toolkit, set CUDACXX, or build with -DHYPURA_CUDA=OFF"
    options+=("-DCMAKE_CUDA_COMPILER=$nvcc" -DGGML_CUDA_NCCL=OFF)
fi
key=$({
    printf '%s\n' "${options[@]}" "$source" $headers_version
    [ -z "$nvcc" ] || "$nvcc" --version
    for compiler in "$cc" "$cxx"; do
        "$compiler" --version | sed '1s/^[^ ]* //'
    done
} | sha256 | cut -c1-12)
build=$cache/llama-b$llama_release/$backend-$key
module=$build/bin/libggml-$backend.so

# Only the pinned release stays as it is; Ninja looks at every other tree.
built() { [ "$source" = "$cache/llama-b$llama_release/src" ] && [ -e "$build/.built" ]; }

if [ -n "$where" ] || built; then
    echo "module=$module"
    exit 0
fi
lock "$build.lock"
if built; then
    echo "module=$module"
    exit 0
fi

# The first name that is younger than Debian 12's headers, which ggml uses.
new_enough() {
    "$cxx" -std=c++17 -fsyntax-only "$@" -x c++ - <<<$'#include <vulkan/vulkan.hpp>\nvk::LayerSettingEXT setting;' 2>/dev/null
}

# Debian's pools keep packages of every release side by side, so the mirror that apt uses for this one has it too.
fetch_vulkan_headers() {
    local folder=$1 deb=$cache/$headers_deb tmp mirror
    if [ ! -f "$deb" ] || [ "$(sha256 "$deb")" != $headers_sha256 ]; then
        say "fetching $headers_deb"
        for mirror in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | sort -u) \
            http://deb.debian.org/debian; do
            if /usr/lib/apt/apt-helper -q -o APT::Sandbox::User=root download-file \
                "${mirror%/}/pool/main/v/vulkan-loader/$headers_deb" "$deb" SHA256:$headers_sha256 >&2; then
                break
            fi
        done
        [ -f "$deb" ] && [ "$(sha256 "$deb")" = $headers_sha256 ] ||
            fail "this system's Vulkan headers are too old, and $headers_deb could not be downloaded;" \
                "put it (SHA-256 $headers_sha256) into $cache by hand, or build with -DHYPURA_VULKAN=OFF"
    fi
    tmp=$(mktemp -d "$cache/.headers.XXXXXX")
    dpkg-deb --extract "$deb" "$tmp"
    # Two backends' builds may both come here; the content is the same.
    mkdir -p "$folder"
    cp -r "$tmp/usr/include" "$folder/"
    rm -rf "$tmp" "$deb"
}

if [ "$backend" = vulkan ] && ! new_enough; then
    headers=$cache/vulkan-headers-$headers_version
    new_enough -I "$headers/include" || fetch_vulkan_headers "$headers"
    new_enough -I "$headers/include" || fail "$headers/include is damaged: remove it"
    options+=("-DVulkan_INCLUDE_DIR=$headers/include")
fi

mkdir -p "$build"
if [ ! -e "$build/build.ninja" ]; then
    if ! cmake -G Ninja -S "$source" -B "$build" -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" \
        "${options[@]}" >"$build/configure.log" 2>&1; then
        tail -n 30 "$build/configure.log" >&2
        rm -f "$build/build.ninja"
        fail "ggml's $backend backend could not be configured; the whole log is $build/configure.log; -DHYPURA_$upper=OFF builds without it"
    fi
fi
say "building ggml's $backend backend (once, into $build)"
cmake --build "$build" --parallel "$(cores)" --target "ggml-$backend" >"$build/build.log" 2>&1 || {
    tail -n 30 "$build/build.log" >&2
    fail "ggml's $backend backend could not be built; the whole log is $build/build.log"
}
: >"$build/.built"
echo "module=$module"
