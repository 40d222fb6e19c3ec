#!/usr/bin/env bash
# make demo: each of the two models answers a question with half of its weights in memory, then with all of them through
# plain llama.cpp; the two answers and, in a second pass, every bit behind them are compared.
. "$(dirname "$0")/common.sh"

[ $# -eq 1 ] || fail "usage: scripts/demo.sh BUILD"
hypura=$1/hypura
question="Tell me about the capital of France."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# show COMMAND...: prints the command, then runs it.
show() {
    printf '\n$'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

for name in smollm2-135m smollm2-8x135m; do
    model=$1/models/$name.gguf
    [ -f "$model" ] || fail "$model is not there; make models makes it"
    printf '\n==== %s, %d MB, half of it in memory\n' "$name" $(($(wc -c <"$model") / 1000000))
    answer=(--prompt "$question" --max-tokens 64 --temp 0)
    show "$hypura" run "$model" "${answer[@]}" --weights 50% --stats-json "$tmp/half.json"
    "$hypura" run "$model" "${answer[@]}" --plain --stats-json "$tmp/whole.json" >/dev/null 2>"$tmp/errors" || {
        cat "$tmp/errors" >&2
        fail "plain llama.cpp could not run $model"
    }
    python3 - "$tmp/half.json" "$tmp/whole.json" <<'PYTHON'
import json, sys

half, whole = (json.load(open(name)) for name in sys.argv[1:])
print()
print(f"{'':24}{'half in memory':>16}{'all in memory':>16}")
for label, key, scale, form in (
    ("weights held, MB", "weights_bytes", 1e-6, ".1f"),
    ("peak memory, MB", "peak_rss_bytes", 1e-6, ".1f"),
    ("read, MB", "bytes_read", 1e-6, ".1f"),
    ("hit rate, %", "hit_rate_bytes", 100, ".1f"),
    ("tokens a second", "decode_tok_s", 1, ".1f"),
):
    print(f"{label:24}{half[key] * scale:>16{form}}{whole[key] * scale:>16{form}}")
if half["text"] != whole["text"]:
    sys.exit(f"error: with all weights in memory the answer was: {whole['text']}")
print("The two answers are the same.")
PYTHON
    show "$hypura" verify "$model" --weights 50% --tokens 16
done
