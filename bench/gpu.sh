#!/usr/bin/env bash
# gpu.sh MODEL TRACE: experts in a GPU's memory against plain llama.cpp, in one run on one machine. Prints a short table.
#
#   BIN      folder of hypura and llama-bench (default: build)
#   GPU      one or several, as `hypura profile` lists them: "CUDA0,CUDA1" (default: as many as the model takes)
#   STEPS    in this order (default: "hypura fit ncmoe resident verify")
#              hypura     each of VARIANTS at each limit of VRAM
#              fit        plain llama.cpp with as much of the GPU's memory as each limit of VRAM gives Hypura: --fit
#              ncmoe      plain llama.cpp with the experts of its first NCMOE layers left to the CPU
#              resident   plain llama.cpp and Hypura with everything on the GPU
#              verify     bits, at floor, 25, 50, 100 % of the experts
#   VRAM     limits, as `hypura bench --vram` takes them (default: 50%,25%,75%)
#   MEMORY   limit on the host's memory too, as `hypura bench --memory` takes it: misses are then read from the drive
#   NCMOE    (default: 24,12,36,48)   TOKENS decoded in each window (default: 64)   PROMPT (default: 2048)
#   UBATCH   tokens of the prompt computed together, on both sides (default: what Hypura takes by itself, and for plain
#            llama.cpp 2048 and 512, a row for each)
#   THREADS  that compute on the processor, on both sides (default: one for each core)
#   RUNS     (default: 3)   PLAIN_RUNS of fit and ncmoe (default: as RUNS)
#   VARIANTS how Hypura runs (default: auto). FORESIGHT as `hypura bench` takes it; FORESIGHT/compute: copies by the queue
#            that computes instead of the GPU's copy engine, of Vulkan; FORESIGHT/0.85: emulates a guess of the next layer
#            of which so much comes true; FORESIGHT/own: without the route, what the model's routers select;
#            FORESIGHT/cpu: the processor computes what the GPU's memory lacks
#
# llama.cpp reads a prompt of PROMPT tokens behind nothing, and decodes behind PROMPT + TOKENS, as Hypura's second window does.
# Its model is mapped and in the page cache; Hypura reads past it: on a slow drive most of the time is that, and a MODEL in
# memory (mount -t tmpfs) spares it where none is to be limited. What all put out is kept in OUT.
set -u
model=${1:?gpu.sh MODEL TRACE} trace=${2:?gpu.sh MODEL TRACE}
bin=${BIN:-build} vram=${VRAM:-50%,25%,75%} ncmoe=${NCMOE:-24,12,36,48} tokens=${TOKENS:-64} prompt=${PROMPT:-2048}
runs=${RUNS:-3} plain_runs=${PLAIN_RUNS:-${RUNS:-3}}
steps=${STEPS:-hypura fit ncmoe resident verify} variants=${VARIANTS:-auto}
out=${OUT:-$(mktemp -d)}
context=$((prompt + 2 * tokens))
gpu=(${GPU:+--gpu "$GPU"})
ubatch=(${UBATCH:+--ubatch "$UBATCH"})
threads=(${THREADS:+--threads "$THREADS"})
dev=(${GPU:+-dev "${GPU//,//}"}) # llama.cpp divides by layers over these

# The module that llama-bench loads: hypura finds it by itself.
for module in cuda hip vulkan; do
    if [ -z "${GGML_BACKEND_PATH:-}" ] && [ -f "$bin/libggml-$module.so" ]; then
        export GGML_BACKEND_PATH="$bin/libggml-$module.so"
    fi
done

# Without the GPU llama.cpp would compute on the processor, and say nothing.
devices=$("$bin/llama-bench" --list-devices 2>&1)
if ! grep -q "${GPU:+$(printf '%s' "${GPU%%,*}"):.*}MiB free" <<<"$devices"; then
    printf 'no GPU %s: %s\n' "${GPU:-}" "$devices" >&2
    exit 1
fi

row() { printf '%-48s %17s %19s  %s\n' "$@"; }

# "ubatch|median (least-most)" of each test of one llama-bench; without its first sample, in which CUDA's backend records its
# graph, as Hypura's second warm-up has it
plain_rates() {
    "$bin/llama-bench" -m "$model" "${dev[@]}" ${THREADS:+-t "$THREADS"} -ngl 99 -r "$((plain_runs + 1))" -o json "$@" \
        2>>"$out/llama-bench.log" | tee -a "$out/llama-bench.json" |
        python3 -c 'import json,statistics,sys
for test in json.load(sys.stdin):
    rates = sorted(test["samples_ts"][1:])
    print("%d|%.1f (%.1f-%.1f)" % (test["n_ubatch"], statistics.median(rates), rates[0], rates[-1]))'
}
plain_row() {
    local name=$1 ub rate decode
    shift
    decode=$(plain_rates -p 0 -n "$tokens" -d $((prompt + tokens)) "$@")
    while IFS='|' read -r ub rate; do
        row "$name, ubatch $ub" "$rate" "${decode#*|}" ""
        decode=-
    done < <(plain_rates -p "$prompt" -n 0 -b "$((${UBATCH:-0} > 2048 ? UBATCH : 2048))" -ub "${UBATCH:-2048,512}" "$@")
}

# Hypura's rows, one for each cell of the options. A route is for where experts are paged: it would cut every graph else.
hypura_rows() {
    local name=$1 json
    shift
    json=$(mktemp "$out/bench-XXXXXX.json")
    "$bin/hypura" bench "$model" "${gpu[@]}" --tokens "$tokens" --prompt-tokens "$prompt" "${ubatch[@]}" --runs "$runs" "$@" \
        --json >"$json" 2>>"$out/bench.log" || tail -n 3 "$out/bench.log"
    python3 - "$json" "$name" <<'PY'
import json, sys
for cell in json.load(open(sys.argv[1]))["cells"]:
    h = cell["hypura"]
    m = lambda name: h.get(name) or 0.0
    spread = lambda name: "%.1f (%.1f-%.1f)" % (m(name), h["min"].get(name) or 0.0, h["max"].get(name) or 0.0)
    n = m("readbacks_per_token") or 1
    computed = "; %.1f rows by the CPU in %.1f layers, %.0f us each, %.1f layers uploaded, %.1f MB beside" % (
        m("cpu_rows_per_token"), m("cpu_layers_per_token"), 1e6 * m("cpu_rows_s") / (m("cpu_layers_per_token") or 1),
        m("not_cpu_layers_per_token"), m("beside_bytes_per_token") / 1e6) if m("cpu_rows_per_token") else ""
    print("%-48s %17s %19s  behind the prompt %.1f; hit %.3f, up %.1f MB, the link %.0f %% busy (%.1f foreseen, %.2f right), "
          "read %.1f MB, cpu %.1f ms; %d cuts (%.1f ahead, %.1f again): wait %.0f us, submit %.0f us%s"
          % ("%s, %.2f GB, ubatch %d" % (sys.argv[2], cell.get("vram_bytes", 0) / 1e9, cell["ubatch"]),
             spread("prefill_tok_s"), spread("decode_tok_s"), m("decode_cold_tok_s"),
             m("vram_hit_rate_bytes"), m("uploaded_bytes_per_token") / 1e6, 100 * m("link_busy"),
             m("foreseen_bytes_per_token") / 1e6, m("foreseen_useful"), m("bytes_per_token") / 1e6, 1e3 * m("cpu_s"),
             m("readbacks_per_token"), m("ahead_per_token"), m("repeated_per_token"),
             1e6 * m("readback_s") / n, 1e6 * m("submit_s") / n, computed))
PY
}

# What --fit has to leave free so that llama.cpp takes what a limit gives Hypura, MiB; of several GPUs, which have to have as
# much free, the same on each
margin_of() {
    local free bytes
    free=$("$bin/llama-bench" --list-devices 2>/dev/null | sed -n 's/.*, \([0-9]*\) MiB free.*/\1/p' | head -n 1)
    bytes=$("$bin/hypura" estimate "$model" "${gpu[@]}" --vram "$1" --context "$context" "${ubatch[@]}" --json 2>>"$out/bench.log" |
        python3 -c 'import json,sys; plan = json.load(sys.stdin); print(plan["vram_bytes"] // max(1, len(plan["gpus"])))')
    echo $((free - bytes / 1048576))
}

row "" "prefill tok/s" "decode tok/s" "median (least-most) of $runs"
for step in $steps; do
    case $step in
    hypura)
        for variant in $variants; do
            transfers=1
            recall=()
            misses=()
            route=(--route "$trace")
            case $variant in
            */compute) transfers=0 ;;
            */own) route=() ;;
            */cpu) misses=(--gpu-misses cpu) ;;
            */*) recall=(--route-recall "${variant#*/}") ;;
            esac
            export GGML_VK_ASYNC_USE_TRANSFER_QUEUE=$transfers
            hypura_rows "hypura $variant" "${threads[@]}" "${route[@]}" --vram "$vram" ${MEMORY:+--memory "$MEMORY"} \
                --foresight "${variant%%/*}" "${recall[@]}" "${misses[@]}" --timeline "$out/timeline-${variant/\//-}.txt"
            unset GGML_VK_ASYNC_USE_TRANSFER_QUEUE
        done
        ;;
    fit)
        for limit in ${vram//,/ }; do
            plain_row "llama.cpp --fit, as $limit" -fitt "$(margin_of "$limit")" -fitc "$context"
        done
        ;;
    ncmoe)
        for n in ${ncmoe//,/ }; do
            plain_row "llama.cpp -ncmoe $n" -ncmoe "$n"
        done
        ;;
    resident)
        plain_runs=$runs
        plain_row "llama.cpp, all on the GPU"
        hypura_rows "hypura, all on the GPU"
        ;;
    verify)
        "$bin/hypura" verify "$model" "${gpu[@]}" "${ubatch[@]}" --tokens 8 --prompt-tokens "${VERIFY:-1,7,600}" --io-engine pool --json \
            >"$out/verify.json" 2>>"$out/bench.log"
        python3 - "$out/verify.json" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
for c in report["cases"]:
    print("verify %.2f GB, prompt %d + %d, ubatch %d: %d differing; %d layers ahead, %d again"
          % (c["vram_bytes"] / 1e9, c["prompt_tokens"], c["tokens"], c["ubatch"], c["differing"], c["ahead"], c["repeated"]))
print("verify:", "identical" if report["identical"] else "DIFFERS")
PY
        ;;
    esac
done
