# Sourced, after scripts/common.sh: a server and a hub for a test, and $tmp, a folder that goes with them at the end.

tmp=$(mktemp -d)
trap end_all EXIT

# Ours alone: the server, and the hub, which ends with its standard input.
end_all() {
    [ -z "${server:-}" ] || kill "$server" 2>/dev/null || true
    [ -z "${server:-}" ] || wait "$server" 2>/dev/null || true
    exec 8>&- || true
    rm -rf "$tmp"
}

# wait_for_port: waits until a program has written its port to $tmp/port; prints its address
wait_for_port() {
    until [ -s "$tmp/port" ]; do sleep 0.1; done
    echo "http://127.0.0.1:$(cat "$tmp/port")"
}

# start_hub FOLDER: serves the repositories in FOLDER; sets hub, its address
start_hub() {
    mkfifo "$tmp/input"
    python3 "$root/tests/server/fake_hub.py" "$1" <"$tmp/input" >"$tmp/port" &
    exec 8>"$tmp/input"
    hub=$(wait_for_port)
}

# start_server BUILD OPTION...: sets server and url; what it says is in $tmp/log
start_server() {
    OMP_WAIT_POLICY=passive "$1/hypura" serve --port 0 --no-ollama --threads 2 "${@:2}" 2>"$tmp/log" &
    server=$!
    until url=$(grep -o 'http://[0-9.:]*' "$tmp/log" 2>/dev/null | head -1) && [ -n "$url" ]; do
        kill -0 "$server"
        sleep 0.1
    done
}
