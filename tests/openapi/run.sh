#!/usr/bin/env bash
# schemathesis against docs/openapi.yaml, on tiny models and a hub on loopback: no answer may be a 5xx, none of a form that the
# description does not have.
#
#   tests/openapi/run.sh BUILD [EXAMPLES]       EXAMPLES of each route (100)
#
# schemathesis goes into the user's cache, pinned.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$(realpath "$1") examples=${2:-100}
. "$here/../../scripts/common.sh"
venv=$("$root/scripts/venv.sh" "$here/requirements.txt")
. "$root/tests/server/started.sh"
mkdir -p "$tmp/models" "$tmp/hub/library/name"
"$build/mkmodel" shape llama-tiny "$tmp/models/llama-tiny.gguf"
"$build/mkmodel" shape qwen3-tiny "$tmp/models/qwen3-tiny.gguf"
start_hub "$tmp/hub"
start_server "$build" --models "$tmp/models" --memory 1G --context 256 --import "$tmp/models" --hub "$hub" --registry "$hub"
cd "$tmp"
failed=0
SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$here "$venv/bin/schemathesis" run "$here/../../docs/openapi.yaml" --url "$url" \
    --max-examples "$examples" --request-timeout 120 --suppress-health-check all --generation-deterministic --no-color \
    --checks not_a_server_error,content_type_conformance,response_schema_conformance,status_code_conformance,unsupported_method \
    >"$tmp/report" 2>&1 || failed=$?
sed -n '/FAILURES/,/WARNINGS/p' "$tmp/report" | head -200
sed -n '/= SUMMARY =/,$p' "$tmp/report"
# It is still there, and so are its models.
[ "$(curl -sf "$url/api/tags" | grep -o '"qwen3-tiny:latest"' | head -1)" = '"qwen3-tiny:latest"' ]
grep -E ' (warn|error) ' "$tmp/log" | grep -vE 'slot|pull: ' | head -20 || true
exit $failed
