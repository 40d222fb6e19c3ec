/*
 * source.h - where the bytes of a GGUF come from: a file, or memory in tests
 * and in the fuzzer. The reader knows nothing else.
 */
#ifndef HYPURA_GGUF_SOURCE_H
#define HYPURA_GGUF_SOURCE_H

#include "hypura.h"

typedef struct hypura_source {
    const char *path;    /* for messages; the opener's caller owns it */
    uint64_t bytes;      /* size when opened */
    int64_t modified_ns; /* when the file was last written to; 0 for memory */
    const uint8_t *data; /* memory, or NULL for a file */
    int fd;              /* file, or -1 */
} hypura_source;

/* Opens the source of that path. A missing one is HYPURA_ERR_IO. */
typedef hypura_status (*hypura_source_open_fn)(void *user, const char *path, hypura_source *source,
                                               hypura_error *error);

/* Opens a regular file, read-only; a hypura_source_open_fn that ignores user. */
hypura_status hypura_source_open_file(void *user, const char *path, hypura_source *source, hypura_error *error);

/* A source over memory, which has to outlive it. */
void hypura_source_open_memory(hypura_source *source, const char *path, const void *data, size_t bytes);

/* Reads exactly bytes bytes at offset; the caller keeps within source->bytes. */
hypura_status hypura_source_read(const hypura_source *source, uint64_t offset, void *dst, size_t bytes,
                                 hypura_error *error);

void hypura_source_close(hypura_source *source);

#endif
