#!/usr/bin/env bash
# llama.cpp's own server tests, from the pinned source, through stock llama-server and through hypura serve.
#
#   tests/upstream/run.sh BUILD MODEL.gguf OUT [PYTEST-ARGUMENT...]
#
# Leaves OUT/stock.xml, OUT/front.xml, of what stock passes, and OUT/table.md. A stock.xml that is there is not made again.
# HYPURA_UPSTREAM_OPTIONS: further options of hypura serve, such as "--weights 50%" for a model that is paged. The Python packages
# go into the user's cache, pinned as upstream pins them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(realpath "$1") model=$(realpath "$2")
mkdir -p "$3"
out=$(realpath "$3")
shift 3
. "$here/../../scripts/common.sh"
places=$("$here/../../scripts/llama.sh" llama-server)
source=$(sed -n 's/^source=//p' <<<"$places") stock=$(sed -n 's/^build=//p' <<<"$places")/bin/llama-server

venv=$("$root/scripts/venv.sh" "$here/requirements.txt")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HYPURA=$build/hypura HYPURA_BUILD=$build HYPURA_UPSTREAM_MODEL=$model HYPURA_UPSTREAM_PROJECTOR=$work/random.mmproj.gguf
export HYPURA_UPSTREAM_DRAFT=$work/draft.gguf
export OMP_WAIT_POLICY=passive PORT=${PORT:-18490} PYTHONPATH=$here:$here/../server/clients:$work/tools/server/tests
mkdir -p "$work/tools/server"
ln -s "$source/models" "$work/models" # templates that the tests name by "../../../models"
cp --reflink=auto "$model" "$HYPURA_UPSTREAM_DRAFT" # no model is its own draft
# As wide as SmolLM2-135M and its mixture.
"$venv/bin/python" -c 'import harness, sys; harness.write_projector(sys.argv[1], 576)' "$HYPURA_UPSTREAM_PROJECTOR"
for server in stock front; do
    [ $server = front ] || [ ! -e "$out/stock.xml" ] || continue
    rm -rf "$work/tools/server/tests"
    cp -r "$source/tools/server/tests" "$work/tools/server/tests"
    cd "$work/tools/server/tests"
    [ $server = stock ] || export HYPURA_UPSTREAM_STOCK=$out/stock.xml
    LLAMA_SERVER_BIN_PATH=$([ $server = stock ] && echo "$stock" || echo "$here/front.py") \
        "$venv/bin/pytest" -q -p local_models --timeout 180 --junit-xml "$out/$server.xml" -o junit_logging=all "$@" \
        >"$out/$server.log" 2>&1 || true
    tail -1 "$out/$server.log"
done
"$here/compare.py" "$out/stock.xml" "$out/front.xml" | tee "$out/table.md"
