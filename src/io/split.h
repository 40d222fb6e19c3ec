/*
 * split.h - how one read is cut into requests that the file system accepts.
 * Pure: no I/O, no state.
 */
#ifndef HYPURA_IO_SPLIT_H
#define HYPURA_IO_SPLIT_H

#include "io/io.h"

/*
 * One request and what of it was asked for:
 *
 *     offset            offset + skip          + wanted        offset + bytes
 *       |---- widened ----|------- wanted -------|---- widened ----|
 *
 * offset and bytes are multiples of the file's offset_align.
 */
typedef struct hypura_io_piece {
    uint64_t offset;
    uint64_t bytes; /* block_bytes at most */
    uint64_t skip;
    uint64_t wanted; /* at least 1 */
    char *dst;       /* where the wanted bytes belong */
    char *direct;    /* where the request may be read to at once; NULL: through a staging block */
} hypura_io_piece;

/* Cuts the piece that begins after the first `done` bytes of the read, which
 * has more than that and does not overflow. block_bytes is a multiple of the
 * file's offset_align. Only the first piece is widened at its head, to where a page
 * of memory begins if there is room, and only the last one at its tail: cuts fall on
 * aligned offsets. */
hypura_io_piece hypura_io_cut(const hypura_io_file *file, const hypura_io_read *read, uint64_t block_bytes,
                              uint64_t done);

#endif
