#!/usr/bin/env bash
# gpu.sh MODEL TRACE: experts in a GPU's memory against plain llama.cpp, in one run on one machine. Prints a short table.
#
#   BIN      folder of hypura and llama-bench (default: build)
#   VRAM     limits, as `hypura bench --vram` takes them (default: 25%,50%,75%)
#   NCMOE    how many layers' experts plain llama.cpp leaves to the CPU, each a run (default: 12,24,36,48)
#   TOKENS   decoded in each window (default: 64)     PROMPT   tokens of the prompt (default: 2048)
#   STEPS    which of "plain hypura verify" (default: all)
#
# Plain llama.cpp is llama-bench with everything on the GPU (-ngl 99) but the experts of the first NCMOE layers. Its model is
# mapped and in the page cache; Hypura reads past it. Everything Hypura puts out is kept in OUT/*.json.
set -u
model=${1:?gpu.sh MODEL TRACE} trace=${2:?gpu.sh MODEL TRACE}
bin=${BIN:-build} vram=${VRAM:-25%,50%,75%} ncmoe=${NCMOE:-12,24,36,48} tokens=${TOKENS:-64} prompt=${PROMPT:-2048}
steps=${STEPS:-plain hypura verify}
out=${OUT:-$(mktemp -d)}

# "prefill decode" of one llama-bench run
plain() {
    "$bin/llama-bench" -m "$model" -ngl 99 -p "$prompt" -n "$tokens" -r 2 -o json "$@" 2>>"$out/llama-bench.log" |
        python3 -c 'import json,sys
rows=json.load(sys.stdin)
print(*("%.1f" % next((r["avg_ts"] for r in rows if bool(r["n_gen"])==gen), float("nan")) for gen in (False, True)))'
}

row() { printf '%-34s %10s %10s  %s\n' "$@"; }

row "" "prefill/s" "decode/s" ""
if [[ $steps == *plain* ]]; then
    row "llama.cpp, all on the GPU" $(plain)
    for n in ${ncmoe//,/ }; do
        row "llama.cpp, -ncmoe $n" $(plain -ncmoe "$n")
    done
fi
if [[ $steps == *hypura* ]]; then
    "$bin/hypura" bench "$model" --vram "$vram" --route "$trace" --tokens "$tokens" --prompt-tokens "$prompt" --runs 1 \
        --json >"$out/bench.json" 2>"$out/bench.log" || cat "$out/bench.log"
    python3 - "$out/bench.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
for cell in report["cells"]:
    m = lambda name: cell["hypura"].get(name) or 0.0
    n = m("readbacks_per_token") or 1
    print("%-34s %10.1f %10.1f  hit %.3f, %.1f MB uploaded/token, %d cuts: waiting %.0f us each, submitting %.0f us"
          % ("hypura, %.2f GB of GPU memory" % (cell.get("vram_bytes", 0) / 1e9), m("prefill_tok_s"), m("decode_tok_s"),
             m("vram_hit_rate_bytes"), m("uploaded_bytes_per_token") / 1e6, m("readbacks_per_token"),
             1e6 * m("readback_s") / n, 1e6 * m("submit_s") / n))
PY
fi
if [[ $steps == *verify* ]]; then
    "$bin/hypura" verify "$model" --tokens 8 --prompt-tokens 7,600 --vram "${VERIFY:-25%,50%}" --io-engine pool 2>&1
fi
