#!/usr/bin/env bash
# gpu.sh MODEL TRACE: experts in a GPU's memory against plain llama.cpp, in one run on one machine. Prints a short table.
#
#   BIN      folder of hypura and llama-bench (default: build)
#   VRAM     limits, as `hypura bench --vram` takes them (default: 25%,50%,75%)
#   NCMOE    how many layers' experts plain llama.cpp leaves to the CPU, each a run (default: 12,24,36,48)
#   TOKENS   decoded in each window (default: 64)     PROMPT   tokens of the prompt (default: 2048)
#   STEPS    which of "plain hypura verify" (default: all)
#   VARIANTS how Hypura runs, each a line of the table for each limit (default: auto). FORESIGHT as `hypura bench` takes it,
#            or FORESIGHT/compute: copies by the queue that computes instead of the GPU's copy engine
#
# Plain llama.cpp is llama-bench with everything on the GPU (-ngl 99) but the experts of the first NCMOE layers. Both decode
# behind a prompt of PROMPT tokens; llama-bench behind none too, in brackets. Its model is mapped and in the page cache;
# Hypura reads past it. Everything Hypura puts out is kept in OUT/*.json.
set -u
model=${1:?gpu.sh MODEL TRACE} trace=${2:?gpu.sh MODEL TRACE}
bin=${BIN:-build} vram=${VRAM:-25%,50%,75%} ncmoe=${NCMOE:-12,24,36,48} tokens=${TOKENS:-64} prompt=${PROMPT:-2048}
steps=${STEPS:-plain hypura verify} variants=${VARIANTS:-auto}
out=${OUT:-$(mktemp -d)}

# "prefill decode" of one llama-bench run
plain() {
    "$bin/llama-bench" -m "$model" -ngl 99 -p "$prompt" -n "$tokens" -d "0,$prompt" -r "${REPEAT:-2}" -o json "$@" \
        2>>"$out/llama-bench.log" |
        python3 -c 'import json,sys
rate={(bool(r["n_gen"]), bool(r["n_depth"])): r["avg_ts"] for r in json.load(sys.stdin)}
print("%.1f %.1f (%.1f)" % tuple(rate.get(k, float("nan")) for k in ((False, False), (True, True), (True, False))))'
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
    for variant in $variants; do
        json=$out/bench-${variant/\//-}.json transfers=1
        [[ $variant == */compute ]] && transfers=0
        GGML_VK_ASYNC_USE_TRANSFER_QUEUE=$transfers "$bin/hypura" bench "$model" --vram "$vram" --route "$trace" \
            --tokens "$tokens" --prompt-tokens "$prompt" --runs 1 --foresight "${variant%%/*}" \
            --json >"$json" 2>"$out/bench.log" || cat "$out/bench.log"
        python3 - "$json" "$variant" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
for cell in report["cells"]:
    m = lambda name: cell["hypura"].get(name) or 0.0
    n = m("readbacks_per_token") or 1
    print("%-34s %10.1f %10.1f  hit %.3f, %.1f MB uploaded/token, %d cuts (%.1f ahead, %.1f again): "
          "waiting %.0f us each, submitting %.0f us"
          % ("hypura %s, %.2f GB" % (sys.argv[2], cell.get("vram_bytes", 0) / 1e9), m("prefill_tok_s"),
             m("decode_tok_s"), m("vram_hit_rate_bytes"), m("uploaded_bytes_per_token") / 1e6, m("readbacks_per_token"),
             m("ahead_per_token"), m("repeated_per_token"), 1e6 * m("readback_s") / n, 1e6 * m("submit_s") / n))
PY
    done
fi
if [[ $steps == *verify* ]]; then
    "$bin/hypura" verify "$model" --tokens 8 --prompt-tokens 7,600 --vram "${VERIFY:-25%,50%}" --io-engine pool 2>&1
fi
