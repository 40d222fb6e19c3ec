#!/usr/bin/env bash
# plugin.sh LLAMA_BENCH PLUGIN MODEL: llama.cpp's own benchmark, unchanged, pages the
# model's experts when the plug-in is given a budget, and runs as ever without one.
set -euo pipefail
bench=$1 plugin=$2 model=$3
bytes=$(wc -c <"$model")
stats=$(mktemp)
pipe=$stats.pipe
trap 'rm -f "$stats" "$pipe"' EXIT
export OMP_WAIT_POLICY=passive GGML_BACKEND_PATH=$plugin HYPURA_STATS=$stats
# Under a sanitizer its runtime comes first; what llama.cpp's own program leaks is not looked at.
preload=()
if [ -n "${HYPURA_PRELOAD:-}" ]; then
    # A plug-in is not told when its program ends: the pager's threads end with it.
    preload=(env LD_PRELOAD="$HYPURA_PRELOAD" ASAN_OPTIONS=detect_leaks=0
        TSAN_OPTIONS="${TSAN_OPTIONS:-}:report_thread_leaks=0")
fi
run() { "${preload[@]}" "$bench" -m "$model" -p 16 -n 4 -r 1 -t 2 "$@"; }

# Standard input that somebody else reads, as a terminal is: the plug-in finds the model without a look at it.
mkfifo "$pipe"
exec 7<>"$pipe"
echo "for somebody else" >&7
HYPURA_MEMORY=$((bytes * 6 / 10)) run <&7
read -r -t 10 line <&7
[ "$line" = "for somebody else" ]
cat "$stats"
grep -q '"mode":"experts"' "$stats"
grep -Eq '"bytes_read":[1-9]' "$stats"

: >"$stats"
run
[ ! -s "$stats" ]

HYPURA_MEMORY=nonsense run -v >"$stats" 2>&1
grep -q "HYPURA_MEMORY=nonsense is not a size.* Nothing is paged" "$stats"
HYPURA_MEMORY=0 run -v >"$stats" 2>&1
grep -q "HYPURA_MEMORY=0 is not a size" "$stats"
HYPURA_MEMORY=1K run -v >"$stats" 2>&1
grep -q "below the floor.* Nothing is paged" "$stats"
