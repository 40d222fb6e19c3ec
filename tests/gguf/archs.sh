#!/bin/sh
# archs.sh PROGRAM KEPT FOLDER: the tiny models that llama.cpp's test-llama-archs writes, in KEPT unless they are there, and FOLDER
# as a link to it. Nobody changes them, so one KEPT serves all clones; it appears whole.
set -eu
program=$1
kept=$2
folder=$3
[ -x "$program" ] || { echo "$program has not been built"; exit 77; }
complete() { [ "$kept/.complete" -nt "$program" ]; }
if ! complete; then
    new=$kept.$$
    trap 'rm -rf "$new"' EXIT
    mkdir "$new"
    "$program" -o "$new" > "$new/log" 2>&1 || { tail "$new/log"; exit 1; }
    touch "$new/.complete"
    # Another clone may have been first.
    complete || { rm -rf "$kept" && mv "$new" "$kept"; }
fi
[ "$kept" = "$folder" ] && exit 0
[ -L "$folder" ] || rm -rf "$folder"
ln -sfn "$kept" "$folder"
