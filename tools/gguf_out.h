/*
 * gguf_out.h - writes one GGUF file, tensors streamed in the order of its header.
 *
 *     open -> (begin -> write ... -> end) for every tensor -> commit
 *        \________________ abort at any point _______________/
 *
 * What always holds: the name asked for appears only by commit, complete and on
 * the drive; until then the bytes live in NAME.part-PID, which abort removes. Every
 * failure is printed by mk_fail, and leaves abort as the only legal call.
 */
#ifndef HYPURA_TOOLS_GGUF_OUT_H
#define HYPURA_TOOLS_GGUF_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gguf.h"

typedef struct gguf_out {
    const struct gguf_context *meta; /* not owned; must outlive the writer */
    char *path;
    char *part_path;
    uint8_t *buffer;
    size_t buffered_bytes;
    int fd;
    int64_t tensor; /* the one being written, or next to be */
    uint64_t left_bytes;
    uint64_t done_bytes; /* of the whole file, buffered ones included */
    uint64_t total_bytes;
    bool direct; /* writes bypass the page cache */
    bool progress;
    int shown_permille;
} gguf_out;

/* Exit codes of mkmodel.h throughout. `path` may exist only as a regular file.
 * After a failed open nothing need be aborted. */
int gguf_out_open(gguf_out *out, const char *path, const struct gguf_context *meta, bool progress);
/* The next tensor must have this name: writer and header cannot drift apart. */
int gguf_out_begin(gguf_out *out, const char *tensor_name);
int gguf_out_write(gguf_out *out, const void *data, size_t bytes);
int gguf_out_end(gguf_out *out);
int gguf_out_commit(gguf_out *out);
/* Safe after commit and after abort. */
void gguf_out_abort(gguf_out *out);

#endif
