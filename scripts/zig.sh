# Sourced: a compiler for macOS on Linux, from the Python package ziglang: clang with the headers and the linkable interface of
# macOS's libSystem, which Zig may redistribute. Kept in $cache/zig-VERSION.

zig_version=0.15.2

# zig_tools TARGET: sets `tools` to a folder with cc, c++, ar and ranlib for it, such as aarch64-macos.13.0.
zig_tools() {
    local target=$1 home=$cache/zig-$zig_version wheel sum tool
    case $(uname -s)-$(uname -m) in
    Linux-x86_64)
        wheel=ziglang-$zig_version-py3-none-manylinux_2_12_x86_64.manylinux2010_x86_64.musllinux_1_1_x86_64.whl
        sum=806316453d1ede7174ed3fefb8e5348154629089c3bb5fe812dfd0e172fac130
        ;;
    Linux-aarch64)
        wheel=ziglang-$zig_version-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl
        sum=edc0aa60ec964a4cf462d40f68d7de242ddf37fd9a80f2afaee6397059463230
        ;;
    *) fail "no pinned Zig for $(uname -s) on $(uname -m)" ;;
    esac
    tools=$home/$target
    [ -e "$tools/.complete" ] && return

    lock "$cache/zig.lock"
    if [ ! -x "$home/ziglang/zig" ]; then
        fetch ziglang==$zig_version "$wheel" $sum "$cache"
        rm -rf "$home"
        mkdir -p "$home/unpack"
        python3 -m zipfile -e "$cache/$wheel" "$home/unpack"
        chmod +x "$home/unpack/ziglang/zig"
        mv "$home/unpack/ziglang" "$home/ziglang"
        rm -rf "$home/unpack" "${cache:?}/$wheel"
    fi
    mkdir -p "$tools"
    # Zig keeps what it compiled by content: in the cache what is made once (its own libraries), in the build folder
    # everything else, unless that is named from outside.
    for tool in cc c++ ar ranlib; do
        {
            echo '#!/bin/sh'
            echo "export ZIG_GLOBAL_CACHE_DIR='$home/global'"
            case $tool in
            cc | c++)
                # Its linker makes no bundles; a dynamic library has the same symbols.
                echo 'for a; do shift; [ "$a" = -bundle ] && a=-dynamiclib; set -- "$@" "$a"; done'
                echo "exec '$home/ziglang/zig' $tool -target $target \"\$@\""
                ;;
            *) echo "exec '$home/ziglang/zig' $tool \"\$@\"" ;;
            esac
        } >"$tools/$tool"
        chmod +x "$tools/$tool"
    done
    : >"$tools/.complete"
    # Released: what is built next takes a lock of its own.
    exec 9>&-
}
