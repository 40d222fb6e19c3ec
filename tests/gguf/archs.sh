#!/bin/sh
# archs.sh PROGRAM FOLDER: fills FOLDER with the tiny models that llama.cpp's test-llama-archs writes, unless it has them.
set -eu
program=$1
folder=$2
[ -x "$program" ] || { echo "$program has not been built"; exit 77; }
[ -e "$folder/.complete" ] && [ "$folder/.complete" -nt "$program" ] && exit 0
rm -rf "$folder"
mkdir -p "$folder"
"$program" -o "$folder" > "$folder/log" 2>&1 || { tail "$folder/log"; exit 1; }
touch "$folder/.complete"
