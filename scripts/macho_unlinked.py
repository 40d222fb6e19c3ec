#!/usr/bin/env python3
"""macho_unlinked.py FILE...: C symbols that 64-bit Mach-O files use and no library they are linked with has.

For links with -undefined dynamic_lookup, which takes every name; those of C++ are let through. Ends with 1 where there are any.
The layout is that of Apple's mach-o/loader.h and mach-o/nlist.h.
"""
import struct
import sys

LC_SYMTAB = 2
N_TYPE, N_UNDF, N_EXT = 0x0E, 0x00, 0x01
UNKNOWN_LIBRARIES = (0x00, 0xFE)  # SELF_LIBRARY_ORDINAL, as Zig's linker says it, and DYNAMIC_LOOKUP_ORDINAL


def symbol_table(data):
    (n_commands,) = struct.unpack_from("<I", data, 16)
    at = 32
    for _ in range(n_commands):
        command, size = struct.unpack_from("<II", data, at)
        if command == LC_SYMTAB:
            return struct.unpack_from("<III", data, at + 8)
        at += size
    raise ValueError("no symbol table")


def unlinked(data):
    symbols_at, n_symbols, names_at = symbol_table(data)
    for i in range(n_symbols):
        name_at, kind, _, description, _ = struct.unpack_from("<IBBHQ", data, symbols_at + 16 * i)
        if kind & N_TYPE == N_UNDF and kind & N_EXT and description >> 8 in UNKNOWN_LIBRARIES:
            begin = names_at + name_at
            yield data[begin:data.index(b"\0", begin)].decode()


found = False
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        for name in unlinked(file.read()):
            if not name.startswith("__Z"):
                print(f"{path}: {name} is nowhere")
                found = True
sys.exit(found)
