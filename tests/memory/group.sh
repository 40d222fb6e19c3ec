# Sourced: skip, and a control group of this script's own with a limit on its memory. Exit code 77 where there can be none, as
# it says. What is in `$work`, a folder below the first argument of make_group, is gone at the end, as is the group.

skip() {
    echo "SKIPPED: $*"
    exit 77
}

# make_group FOLDER: sets group and work
make_group() {
    mkdir -p "$1"
    [ "$(uname -s)" = Linux ] || skip "control groups are Linux's"
    [ "$(id -u)" -eq 0 ] || skip "making a control group needs root"
    v1=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ {print $2; exit}' /proc/mounts)
    v2=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
    [ -n "$v1$v2" ] && mkdir "${v1:-$v2}/hypura-test-$$" 2>/dev/null || skip "no control group can be made below ${v1:-$v2}"
    group=${v1:-$v2}/hypura-test-$$
    work=$(mktemp -d "$1/run-XXXXXX")
    trap remove_group EXIT
    set_limit $((1 << 30)) 2>/dev/null || skip "the memory of $group cannot be limited"
}

remove_group() {
    rm -rf "$work"
    rmdir "$group" 2>/dev/null || { sleep 1; rmdir "$group"; } # the kernel may need a moment for the last process
}

set_limit() {
    if [ -n "$v1" ]; then
        echo -1 >"$group/memory.memsw.limit_in_bytes" 2>/dev/null || true
        echo "$1" >"$group/memory.limit_in_bytes"
        echo "$1" >"$group/memory.memsw.limit_in_bytes" 2>/dev/null || echo 0 >"$group/memory.swappiness"
    else
        echo "$1" >"$group/memory.max"
        echo 0 >"$group/memory.swap.max" 2>/dev/null || true
    fi
}

# enter_group COMMAND...: in the group, in place of this shell
enter_group() {
    echo "$BASHPID" >"$group/cgroup.procs"
    exec "$@"
}
