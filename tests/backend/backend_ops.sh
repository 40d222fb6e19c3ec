#!/usr/bin/env bash
# backend_ops.sh PROGRAM OP PLUGIN [CASES]: llama.cpp's test-backend-ops for one
# operation on the Hypura device, for the cases that the expression selects. Passes when all claimed cases agree with the CPU backend and
# at least some were claimed and paged.
set -euo pipefail
program=$1 op=$2 plugin=$3 cases=${4:-.}
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# Under a sanitizer its runtime comes first; what llama.cpp's own program leaks is not looked at.
environment=(GGML_BACKEND_PATH="$plugin")
if [ -n "${HYPURA_PRELOAD:-}" ]; then
    environment+=(LD_PRELOAD="$HYPURA_PRELOAD" ASAN_OPTIONS=detect_leaks=0)
fi
env "${environment[@]}" "$program" test -b Hypura -o "$op" -p "$cases" >"$out" 2>&1 || { tail -40 "$out"; exit 1; }
claimed=$(sed 's/\x1b\[[0-9;]*m//g' "$out" | grep -c "^  $op(.*: *OK" || true)
grep -E "tests passed|hypura-selftest" "$out" | sed 's/\x1b\[[0-9;]*m//g' || true
echo "$op: $claimed cases claimed and equal"
[ "$claimed" -ge 10 ] || { echo "too few cases were claimed"; tail -40 "$out"; exit 1; }
