#!/usr/bin/env bash
# The official Python clients that the server's tests use, in a virtual environment of the user's cache; prints its Python:
#
#   scripts/clients.sh REQUIREMENTS
#
# REQUIREMENTS pins every package. Another list is another environment; one that is complete costs a few milliseconds.
. "$(dirname "$0")/common.sh"

[ $# -eq 1 ] || fail "usage: scripts/clients.sh REQUIREMENTS"
key=$({ cat "$1"; python3 --version; } | sha256 | cut -c1-12)
home=$cache/clients-$key
if [ ! -e "$home/.complete" ]; then
    lock "$cache/clients.lock"
    if [ ! -e "$home/.complete" ]; then
        say "installing the clients of $1 (once, into $home)"
        rm -rf "$home"
        python3 -m venv "$home" >&2 || fail "no virtual environment can be made; Debian has it in python3-venv"
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
            --requirement "$1" >&2 || fail "the clients could not be installed"
        : >"$home/.complete"
    fi
fi
echo "$home/bin/python"
