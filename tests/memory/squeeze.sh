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

skip() {
    echo "SKIPPED: $*"
    exit 77
}

[ "$(uname -s)" = Linux ] || skip "control groups are Linux's"
[ "$(id -u)" -eq 0 ] || skip "making a control group needs root"
v1=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ {print $2; exit}' /proc/mounts)
v2=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
group=${v1:-$v2}/hypura-squeeze-$$
[ "$group" != "/hypura-squeeze-$$" ] && mkdir "$group" 2>/dev/null || skip "no control group can be made below ${v1:-$v2}"
mkdir -p "$folder"
report=$(mktemp "$folder/squeeze-XXXXXX")
trap 'rm -f "$report"; rmdir "$group" 2>/dev/null || { sleep 1; rmdir "$group"; }' EXIT
if [ -n "$v1" ]; then
    echo $limit >"$group/memory.limit_in_bytes" || skip "the memory of $group cannot be limited"
    echo 0 >"$group/memory.swappiness"
else
    echo $limit >"$group/memory.max" || skip "the memory of $group cannot be limited"
    echo 0 >"$group/memory.swap.max" 2>/dev/null || true
fi

for shape in small-moe small-dense; do
    model=$folder/$shape.gguf
    [ -e "$model" ] || "$mkmodel" shape "$shape" "$model"
    code=0
    (
        echo $BASHPID >"$group/cgroup.procs"
        exec "$squeeze" "$model" 0 --threads 1 --thief $stolen $rate 0 600
    ) >"$report" || code=$?
    echo "$shape: exit code $code"
    sed 's/^/    /' "$report"
    [ $code -eq 0 ] || exit 1
    held=$(awk '/MiB held/ {print $4}' "$report" | sort -n)
    grep -qE 'squeeze|pressure' "$report" || { echo "nothing was given up"; exit 1; }
    awk -v most="$(tail -n 1 <<<"$held")" -v least="$(head -n 1 <<<"$held")" 'BEGIN { exit !(least < most - 10) }' ||
        { echo "hardly anything was given up"; exit 1; }
done
