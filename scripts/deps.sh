#!/usr/bin/env bash
# Makes sure that what the build needs is there: tells at once when it is, installs it with apt where that is possible
# (as root or through sudo), and elsewhere lists what is missing and exits 1.
#
#   scripts/deps.sh [--aarch64] [--browser] [-DOPTION=VALUE...]
#
# --aarch64 adds what scripts/aarch64.sh needs. --browser is for Chromium alone, which the test of the server's page drives:
# where it is not there and Debian's apt cannot install it, that test is skipped, and this is no failure; nor is it where
# ccache cannot be had. The options are those that CMake will get: HYPURA_VULKAN=OFF, HYPURA_TESTS=OFF and HYPURA_CCACHE=OFF
# need less.
set -euo pipefail

system=$(uname -s)
missing=() debian=() brew=()

# apt_install SUDO PACKAGE...
apt_install() {
    local apt=(${1:+"$1"} env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
    shift
    echo "installing $*" >&2
    "${apt[@]}" update >&2 && "${apt[@]}" install --no-install-recommends "$@" >&2
}

# apt_try PACKAGE: the same where nobody has to be asked for a password
apt_try() {
    local as_root=
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=sudo
    fi
    apt_install "$as_root" "$1"
}

if [[ " $* " == *" --browser "* ]]; then
    if command -v chromium || command -v chromium-browser; then
        exit 0
    fi >/dev/null
    # Elsewhere the package of that name is another program's installer.
    if ! grep -qs '^ID=debian' /etc/os-release || ! apt_try chromium; then
        echo "no Chromium: the test server_browser will be skipped" >&2
    fi
    exit 0
fi

# need WHAT DEBIAN BREW TEST...: one requirement, the packages that bring it, and a command that succeeds when it is met.
need() {
    local what=$1 deb=$2 formula=$3
    shift 3
    if ! "$@" >/dev/null 2>&1; then
        missing+=("$what") debian+=($deb) brew+=($formula)
    fi
}
library() { command -v pkg-config && pkg-config --exists "$1"; }
# A bare compiler driver without libc headers is not enough; Debian's g++ pulls in both.
compiles() { echo 'int main(void) { return 0; }' | "$1" -x "$2" -o /dev/null -; }
header() { echo "#include <$1>" | "${CXX:-c++}" -x c++ -fsyntax-only -; }
lavapipe() { compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' || compgen -G '/usr/local/share/vulkan/icd.d/lvp_icd*.json'; }

need "a C compiler" "gcc libc6-dev" "" compiles "${CC:-cc}" c
need "a C++ compiler" "g++" "" compiles "${CXX:-c++}" c++
need "CMake 3.21 or newer" "cmake" "cmake" command -v cmake
need "Ninja" "ninja-build" "ninja" command -v ninja
need "pkg-config" "pkg-config" "pkg-config" command -v pkg-config
need "Python 3 with pip" "python3 python3-pip ca-certificates" "python3" python3 -m pip --version
need "Python virtual environments" "python3-venv" "" python3 -c "import ensurepip"
need "jansson" "libjansson-dev" "jansson" library jansson
need "libcurl" "libcurl4-openssl-dev" "curl" library libcurl
need "libmicrohttpd" "libmicrohttpd-dev" "libmicrohttpd" library libmicrohttpd
need "OpenSSL" "libssl-dev" "openssl@3" library libcrypto
need "cmocka" "libcmocka-dev" "cmocka" library cmocka
if [ "$system" = Linux ]; then
    need "liburing" "liburing-dev" "" library liburing
    if [[ " $* " != *" -DHYPURA_VULKAN=OFF "* ]]; then
        need "the Vulkan loader (or -DHYPURA_VULKAN=OFF)" "libvulkan-dev" "" library vulkan
        need "glslc (or -DHYPURA_VULKAN=OFF)" "glslc" "" command -v glslc
        need "SPIR-V headers (or -DHYPURA_VULKAN=OFF)" "spirv-headers" "" header spirv/unified1/spirv.hpp
        if [[ " $* " != *" -DHYPURA_TESTS=OFF "* ]]; then
            need "lavapipe, Vulkan without a GPU" "mesa-vulkan-drivers" "" lavapipe
        fi
    fi
fi
if [[ " $* " == *" --aarch64 "* ]]; then
    need "a compiler for arm64" "gcc-aarch64-linux-gnu g++-aarch64-linux-gnu" "" command -v aarch64-linux-gnu-g++
    need "QEMU for arm64 programs" "qemu-user-static" "" command -v qemu-aarch64-static
fi

# Not a need: without it each clone compiles everything.
ccache=
if [[ " $* " != *" -DHYPURA_CCACHE=OFF "* ]] && ! command -v ccache >/dev/null; then
    ccache=ccache
fi
if [ ${#missing[@]} -eq 0 ]; then
    [ -z "$ccache" ] || apt_try ccache || echo "no ccache: each clone will compile everything" >&2
    exit 0
fi

if [ "$system" = Linux ] && command -v apt-get >/dev/null; then
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        # -n: a build must not stop at a password prompt that nobody sees.
        if sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
            as_root=sudo
        else
            echo "error: missing:$(printf ' %s,' "${missing[@]}" | sed 's/,$//')" >&2
            echo "install it as root: apt-get install ${debian[*]}" >&2
            exit 1
        fi
    fi
    apt_install "$as_root" "${debian[@]}" $ccache
    exit 0
fi

{
    echo "error: the build needs what is missing here:"
    printf '  %s\n' "${missing[@]}"
    if [ "$system" = Darwin ]; then
        echo "install it with: xcode-select --install; brew install ${brew[*]-}"
    else
        echo "Debian calls it: ${debian[*]}"
    fi
} >&2
exit 1
