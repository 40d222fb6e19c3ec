#!/usr/bin/env bash
# A model without a limit in a control group, and a process beside it that takes most of the group's memory: nobody is
# killed, the model gives up what it holds, and goes on with the same text.
#
#   squeeze.sh SQUEEZE MKMODEL FOLDER CACHE       exit code 77: not possible here, as it says
set -euo pipefail
squeeze=$1
mkmodel=$2
folder=$3
export HYPURA_CACHE_DIR=$4

MIB=$((1 << 20))
# The models take 165 to 170 MiB, their buffers and the program about 100: they nearly fill the group.
limit=$((320 * MIB))
stolen=$((100 * MIB))
rate=$((40 * MIB))

. "$(dirname "$0")/group.sh"
make_group "$folder"
report=$work/report
set_limit $limit

for shape in small-moe small-dense; do
    model=$folder/$shape.gguf
    [ -e "$model" ] || "$mkmodel" shape "$shape" "$model"
    code=0
    (enter_group "$squeeze" "$model" 0 --threads 1 --tokens 12 --thief $stolen $rate 0 600) >"$report" || code=$?
    echo "$shape: exit code $code"
    sed 's/^/    /' "$report"
    [ $code -eq 0 ] || exit 1
    held=$(awk '/MiB held/ {print $4}' "$report" | sort -n)
    grep -qE 'squeeze|pressure' "$report" || { echo "nothing was given up"; exit 1; }
    awk -v most="$(tail -n 1 <<<"$held")" -v least="$(head -n 1 <<<"$held")" 'BEGIN { exit !(least < most - 10) }' ||
        { echo "hardly anything was given up"; exit 1; }
done
