#!/usr/bin/env bash
# Installs a build, moves the result, and uses it: the program starts, the plugin is complete, and another program builds
# against the library, all without the build folder and the cache in which llama.cpp was built.
#
#   run.sh BUILD VERSION COMPILER [FLAG...]
set -euo pipefail

build=$1 version=$2 compiler=("${@:3}")
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cmake --install "$build" --prefix "$tmp/first" >/dev/null
mv "$tmp/first" "$tmp/moved"

fail() {
    echo "error: $*" >&2
    exit 1
}

"$tmp/moved/bin/hypura" --version | grep -qF "$version" || fail "the installed program does not give its version"

PKG_CONFIG_PATH=$tmp/moved/lib/pkgconfig
export PKG_CONFIG_PATH
read -ra flags < <(pkg-config --cflags --libs hypura)
"${compiler[@]}" -std=c11 -o "$tmp/consumer" "$here/consumer.c" "${flags[@]}"
[ "$("$tmp/consumer")" = "$version" ] || fail "a program built against the installed library does not run"

# Where the loader finds each library; nothing of llama.cpp or Hypura may come from elsewhere.
if command -v ldd >/dev/null; then
    for file in "$tmp/moved/bin/hypura" "$tmp"/moved/lib/hypura/lib*.so; do
        strays=$(ldd "$file" | grep -E 'not found|lib(hypura|llama|ggml)' | grep -v "=> $tmp/moved/" || true)
        [ -z "$strays" ] || fail "${file##*/} depends on what is not installed with it: $strays"
    done
fi
