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

# The man page knows every command, and completion asks the program.
man=$tmp/moved/share/man/man1/hypura.1
if [ -e "$man" ]; then
    for command in $("$tmp/moved/bin/hypura" help | awk '/^commands:/{on=1;next} /^$/{on=0} on{print $1}'); do
        grep -qF "SS \"hypura $command\"" "$man" || fail "the man page lacks $command"
    done
    grep -qF '\-\-keep\-alive' "$man" || fail "the man page lacks options"
fi
complete_line() {
    PATH=$tmp/moved/bin:$PATH HYPURA_MODELS=$tmp/models bash -c '
        source "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _hypura; printf "%s\n" "${COMPREPLY[@]}"' - \
        "$tmp/moved/share/bash-completion/completions/hypura" "$@"
}
mkdir -p "$tmp/models/a"
touch "$tmp/models/a/tiny.gguf"
complete_line hypura ser | grep -qx serve || fail "completion knows no commands"
complete_line hypura serve --keep | grep -qx -- --keep-alive || fail "completion knows no options"
complete_line hypura run a/t | grep -qx a/tiny || fail "completion knows no models"
complete_line hypura run a/tiny --gpu-misses c | grep -qx cpu || fail "completion knows no choices"
touch "$tmp/models/a/note.txt"
for command in run serve bench; do
    for option in $("$tmp/moved/bin/hypura" "$command" --help | awk '/^  --[a-z-]+ FILE /{print $1}'); do
        complete_line hypura "$command" "$option" "$tmp/models/a/no" | grep -qx "$tmp/models/a/note.txt" ||
            fail "completion knows no files for $command $option"
    done
done
if [ "$(uname -s)" = Linux ]; then
    unit=$tmp/moved/lib/systemd/user/hypura.service
    grep -qx "ExecStart=$tmp/first/bin/hypura serve \$HYPURA_OPTIONS" "$unit" || fail "the service starts something else"
fi
