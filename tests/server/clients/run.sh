#!/usr/bin/env bash
# run.sh BUILD TEST.py [ARGUMENT...]: one of the tests beside it, with the clients it needs.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
venv=$("$here/../../../scripts/venv.sh" "$here/requirements.txt")
export HYPURA_BUILD=$1 PYTHONDONTWRITEBYTECODE=1
exec "$venv/bin/python" -u -W ignore::ResourceWarning "$here/$2" "${@:3}"
