#!/usr/bin/env bash
# The page in headless Chromium, on a server with real models: drive.py tells what is looked at.
#
#   tests/browser/run.sh BUILD MODELS OUT      MODELS: a folder with smollm2-135m.gguf and smollm2-8x135m.gguf, such as
#                                              BUILD/models after `make models`
#   tests/browser/run.sh --fake OUT            the page alone, on a server that invents its figures
#
# Debian: apt-get install chromium. Playwright goes into the user's cache, pinned. Exit status 77: no Chromium here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/common.sh"
export CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || true)}
if [ -z "$CHROMIUM" ]; then
    say "no chromium"
    exit 77
fi
venv=$("$root/scripts/venv.sh" "$here/requirements.txt")
. "$root/tests/server/started.sh"
if [ "$1" = --fake ]; then
    python3 "$here/fake_server.py" "$root/src/server/endpoint/page/index.html" >"$tmp/port" &
    server=$!
    "$venv/bin/python" "$here/drive.py" "$(wait_for_port)/" "$2" --expect Paris \
        --gpu --second SmolLM2-135M-Instruct-Q8_0:latest --pull hf.co/user/repo:Q4_K_M
    exit
fi
build=$(realpath "$1")
mkdir -p "$tmp/models" "$tmp/hub/user/repo"
cp -L "$2/smollm2-135m.gguf" "$2/smollm2-8x135m.gguf" "$tmp/models"
cp -L "$2/smollm2-135m.gguf" "$tmp/hub/user/repo/model-Q8_0.gguf"
start_hub "$tmp/hub"
start_server "$build" --models "$tmp/models" --memory 1500M --weights 60% --hub "$hub"
"$venv/bin/python" "$here/drive.py" "$url/" "$3" --message "What is the capital of France? Answer with one word." \
    --second smollm2-135m:latest --pull hf.co/user/repo:Q8_0 --timeout-s 300
