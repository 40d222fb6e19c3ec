#!/usr/bin/env bash
# Python packages that a test needs, in a virtual environment of the user's cache; prints the environment's folder:
#
#   scripts/venv.sh REQUIREMENTS
#
# REQUIREMENTS pins every package. Another list is another environment; one that is complete costs a few milliseconds.
. "$(dirname "$0")/common.sh"

[ $# -eq 1 ] || fail "usage: scripts/venv.sh REQUIREMENTS"
key=$({ cat "$1"; python3 --version; } | sha256 | cut -c1-12)
home=$cache/python-$key
if [ ! -e "$home/.complete" ]; then
    lock "$cache/python.lock"
    if [ ! -e "$home/.complete" ]; then
        say "installing the packages of $1 (once, into $home)"
        rm -rf "$home"
        python3 -m venv "$home" >&2 || fail "no virtual environment can be made; Debian has it in python3-venv"
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
            --requirement "$1" >&2 || fail "the packages of $1 could not be installed"
        : >"$home/.complete"
    fi
fi
echo "$home"
