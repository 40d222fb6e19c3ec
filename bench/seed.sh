#!/usr/bin/env bash
# The two models and the machine that first showed weights streamed from a drive: Mixtral 8x7B at 2.2 tokens a second and
# Llama 70B at 0.3, with 32 GB of memory and a drive of 5.09 GB/s. Random weights in these shapes, 24 GiB, that drive emulated.
#
#   bench/seed.sh BUILD OUT [LAYERS OF MIXTRAL] [LAYERS OF LLAMA]
#
# The model lies in FOLDER (default: a tmpfs, so that the emulated drive and not the real one sets the rate) and goes when it is
# measured: 32 GB and 40 GB with all layers. With fewer layers memory shrinks alike, what is outside of layers apart; with 0
# the model is left out. OUT receives a JSON file for each. THREADS and RUNS are passed on. A tmpfs is read by copying: the
# pool's threads do so together, where one would be slower than the drive that is emulated (ENGINE: uring, pool).
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: bench/seed.sh BUILD OUT [LAYERS OF MIXTRAL] [LAYERS OF LLAMA]" >&2; exit 2; }
build=$1
out=$2
folder=${FOLDER:-/dev/shm}/hypura-seed
mkdir -p "$out" "$folder"
trap 'rm -rf "$folder"' EXIT

measure() { # shape, type, all layers, layers, tokens, GiB of the whole file
    local model=$folder/$1.gguf memory
    if [ "$4" -eq 0 ]; then return; fi
    "$build/mkmodel" shape "$1" "$model" --type "$2" --layers "$4"
    # 24 GiB for all layers; of fewer, the same share of the file
    memory=$(($(stat -c %s "$model") * 24 / $6))
    if [ "$4" -eq "$3" ]; then memory=24G; fi
    echo "== $1, $2, $4 of $3 layers, $(stat -c %s "$model") bytes, memory $memory"
    "$build/hypura" bench "$model" --memory "$memory" --io-limit 5.09e9 --io-engine "${ENGINE:-pool}" --prompt-tokens 32 --tokens "$5" \
        --runs "${RUNS:-1}" --threads "${THREADS:-8}" --json > "$out/$1.json"
    rm "$model"
    python3 - "$out/$1.json" "$3" "$4" <<'P'
import json, sys
print(json.dumps(json.load(open(sys.argv[1])), indent=1)[:2500])
P
}

measure mixtral-8x7b Q5_K 32 "${3:-32}" 24 30
measure llama-70b Q4_K 80 "${4:-80}" 6 37
