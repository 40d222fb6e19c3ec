#!/usr/bin/env bash
# The program in a conversation whose model file changes between the first answer and the second prompt. What comes
# after the change is the whole right answer, or no text at all, exit code 1 and a message that names the file.
#
#   program.sh HYPURA TINY CACHE
set -euo pipefail
hypura=$1
tiny=$2
export HYPURA_CACHE_DIR=$3
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

failures=0
fail() {
    echo "FAILED: $*"
    sed 's/^/    stderr: /' err
    failures=$((failures + 1))
}

# converse MODEL CHANGE OPTION... sets code; text is in out, messages in err
converse() {
    local model=$1 change=$2
    shift 2
    cp "$tiny/$model" model.gguf
    : >out
    code=0
    {
        echo abc
        until [ "$(tail -c 1 out | od -An -tx1)" = " 0a" ] || ! kill -0 $$; do sleep 0.02; done
        eval "$change"
        echo abc
    } | timeout 60 "$hypura" run model.gguf --interactive --raw --temp 0 --max-tokens 8 --threads 1 "$@" >out 2>err || code=$?
}

expect_both() {
    cat once once >twice
    [ $code -eq 0 ] && cmp -s out twice || fail "$* changed the answer or ended the program (exit code $code)"
}

expect_failure() {
    [ $code -eq 1 ] || fail "$*: exit code $code"
    cmp -s out once || fail "$*: there is text after the failure"
    grep -q 'hypura: .*model\.gguf' err || fail "$*: no message names the file"
}

for case in moe-q4_0.gguf:70K dense-q8_0.gguf:80K; do
    model=${case%:*}
    limit=--weights=${case#*:}
    cp "$tiny/$model" model.gguf
    "$hypura" run model.gguf --raw --temp 0 --max-tokens 8 --threads 1 --prompt abc --plain >once 2>err
    [ "$(wc -c <once)" -gt 8 ] || fail "$model: no answer to compare with"

    converse $model : "$limit"
    expect_both "$model: nothing"
    for bytes in 0 4096 60000; do
        converse $model "truncate -s $bytes model.gguf" "$limit"
        expect_failure "$model: cut to $bytes bytes"
    done
    converse $model 'dd if=/dev/zero of=model.gguf bs=4096 count=16 conv=notrunc status=none' "$limit"
    expect_failure "$model: overwritten"
    converse $model 'head -c 200000 /dev/zero >new; mv new model.gguf' "$limit"
    expect_both "$model: replaced"
    converse $model 'rm model.gguf' "$limit"
    expect_both "$model: deleted"
    converse $model 'truncate -s 0 model.gguf'
    expect_both "$model: held whole and cut to nothing"
    converse $model 'truncate -s 0 model.gguf' --plain
    expect_failure "$model: mapped by llama.cpp and cut to nothing"
done

[ $failures -eq 0 ] && echo "all as it has to be"
