#!/usr/bin/env bash
# Runs models twice as large as their budget in a control group that has no memory for more, and looks at what the
# process and the page cache took. docs/notes/0005-memory-limit.md has the figures behind the constants.
#
#   cgroup.sh HYPURA MKMODEL PAGE_CACHE FOLDER CACHE       exit code 77: not possible here, as it says
set -euo pipefail
hypura=$1
mkmodel=$2
page_cache=$3
folder=$4
export HYPURA_CACHE_DIR=$5

MIB=$((1 << 20))
budget=$((80 * MIB))
# What a process takes besides weights, KV cache and compute buffers: code, vocabulary, queues and staging.
fixed=$((24 * MIB))
shared_code=$((10 * MIB))
# The model's file may leave this much in the page cache: its header, which the map is read from.
cached_at_most=$((1 * MIB))
# --memory is everything: the group gets that and not a byte more.
memory=$((140 * MIB))

. "$(dirname "$0")/group.sh"
make_group "$folder"

cached_in_group() {
    awk -v key="$([ -n "$v1" ] && echo total_cache || echo file)" '$1 == key {print $2}' "$group/memory.stat"
}

# ---- runs ------------------------------------------------------------------------

failures=0
check() { # DESCRIPTION CONDITION...
    local what=$1
    shift
    if [ "$@" ]; then
        echo "    ok: $what"
    else
        echo "    FAILED: $what: $*"
        failures=$((failures + 1))
    fi
}

number() { # KEY FILE: a number of a JSON object
    sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$2" | head -n 1
}

# One prompt that fills most of the context, so that compute buffers and KV cache are really used.
prompt=$(for i in 1 2 3 4 5 6 7 8; do printf 'w%d w%d ' $((i * 7)) $((i * 3)); done)
options=(--raw --temp 0 --threads 1 --context 128 --max-tokens 4 --prompt "$prompt")

# run_in_group MODEL OPTION...: sets code
run_in_group() {
    code=0
    (enter_group "$hypura" run "$@" "${options[@]}" --stats-json "$work/stats.json" >"$work/text" 2>"$work/messages") || code=$?
    [ $code -eq 0 ] || sed 's/^/    /' "$work/messages"
}

same_text() {
    cmp -s "$work/text" "$work/expected" && echo yes || echo no
}

for shape in small-moe small-dense; do
    model=$folder/$shape.gguf
    [ -e "$model" ] || "$mkmodel" shape "$shape" "$model"
    "$hypura" estimate "$model" --weights $budget --context 128 --threads 1 --json >"$work/plan.json"
    buffers=$(($(number kv_bytes "$work/plan.json") + $(number compute_bytes "$work/plan.json")))
    file_bytes=$(stat -c %s "$model")
    echo "$shape: $((file_bytes / MIB)) MiB, budget $((budget / MIB)) MiB, KV cache and compute $((buffers / MIB)) MiB"
    check "the model is twice as large as its budget" "$file_bytes" -ge $((2 * budget))
    "$hypura" run "$model" --weights $budget "${options[@]}" >"$work/expected" 2>"$work/messages"

    limit=$((budget + budget * 15 / 100 + buffers + fixed))
    "$page_cache" drop "$model"
    set_limit $limit
    run_in_group "$model" --weights $budget
    echo "  --weights $((budget / MIB))M in a group of $((limit / MIB)) MiB"
    check "it completes" $code -eq 0
    check "the text is that without a limit" "$(same_text)" = yes
    peak=$(number peak_rss_bytes "$work/stats.json")
    # The process is counted with pages of the file that were mapped for a moment while loading; how many depends on the
    # kernel's read-ahead and on what else the machine does. The group's limit holds for those as well. Code that other
    # processes share counts in RSS, and no group is charged for it again.
    check "peak RSS of $((peak / MIB)) MiB is within the limit and shared code" "$peak" -le $((limit + shared_code))
    check "the page cache has none of the model" "$("$page_cache" bytes "$model")" -le $cached_at_most
    check "nor has the group any other" "$(cached_in_group)" -le $((4 * MIB))

    "$page_cache" drop "$model"
    set_limit $memory
    run_in_group "$model" --memory $memory
    echo "  --memory $((memory / MIB))M in a group of as much"
    check "it completes" $code -eq 0
    check "the text is that without a limit" "$(same_text)" = yes
    peak=$(number peak_rss_bytes "$work/stats.json")
    check "peak RSS of $((peak / MIB)) MiB is within the limit and shared code" "$peak" -le $((memory + shared_code))
    check "the page cache has none of the model" "$("$page_cache" bytes "$model")" -le $cached_at_most

done

# That the group has a limit at all: a process that holds as much as the model is ended in it. llama.cpp with the model mapped
# would not do: the kernel can always drop a page of the file, and read it again.
code=0
(enter_group bash -c "head -c $file_bytes /dev/zero | tail -c $file_bytes | wc -c; exit \${PIPESTATUS[1]}") >/dev/null 2>&1 || code=$?
check "what holds as much as the model is killed there" $code -eq 137

[ $failures -eq 0 ]
