/*
 * split.c - cutting reads into aligned requests.
 *
 * What always holds: a piece that is read in place writes to the destination,
 * head_slack bytes before it and tail_slack bytes after it, and nowhere else.
 */
#include "io/split.h"

#include "base/size.h"

/* Memory is written page by page: a request whose first byte goes inside of one takes up
 * to a fifth longer, wherever in the file it begins. */
#define PAGE_BYTES 4096u

static hypura_io_piece cut(const hypura_io_file *file, const hypura_io_read *read, uint64_t block_bytes, uint64_t done,
                           uint64_t head_align)
{
    uint64_t end = read->offset + read->bytes;
    uint64_t begin = read->offset + done;

    hypura_io_piece piece;
    piece.dst = (char *)read->dst + done;
    piece.offset = hypura_round_down(begin, head_align);
    piece.skip = begin - piece.offset;

    uint64_t tail = 0;
    if (end - piece.offset > block_bytes) {
        piece.bytes = block_bytes;
        piece.wanted = block_bytes - piece.skip;
    } else {
        piece.bytes = hypura_round_up(end - piece.offset, file->offset_align);
        piece.wanted = end - begin;
        tail = piece.bytes - piece.skip - piece.wanted;
    }

    uintptr_t address = (uintptr_t)piece.dst - (uintptr_t)piece.skip;
    bool fits = address % file->memory_align == 0 && piece.skip <= read->head_slack && tail <= read->tail_slack;
    piece.direct = fits ? piece.dst - piece.skip : NULL;
    return piece;
}

hypura_io_piece hypura_io_cut(const hypura_io_file *file, const hypura_io_read *read, uint64_t block_bytes,
                              uint64_t done)
{
    if (done == 0 && file->direct && file->offset_align < PAGE_BYTES && block_bytes > PAGE_BYTES) {
        const hypura_io_piece piece = cut(file, read, block_bytes, 0, PAGE_BYTES);
        if (piece.direct != NULL && (uintptr_t)piece.direct % PAGE_BYTES == 0) {
            return piece;
        }
    }
    return cut(file, read, block_bytes, done, file->offset_align);
}
