#!/usr/bin/env bash
# ask.sh PROGRAM MODEL: the example, with the whole model in memory and with part of
# it, gives the same text; a budget that is too small and a missing file are errors.
set -euo pipefail
program=$1 model=$2
bytes=$(wc -c <"$model")
export OMP_WAIT_POLICY=passive
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

whole=$("$program" "$model" $((bytes * 4)) abcd)
part=$("$program" "$model" $((bytes * 6 / 10)) abcd)
echo "$whole"
echo "$part"
grep -q "^resident: " <<<"$whole"
grep -q "^experts: " <<<"$part"
[ "$(head -n -1 <<<"$whole")" = "$(head -n -1 <<<"$part")" ]

if "$program" "$model" 1 abcd 2>error.txt; then exit 1; fi
grep -q "floor" error.txt
if "$program" "$model.missing" 1 abcd 2>error.txt; then exit 1; fi
grep -q "$model.missing" error.txt
