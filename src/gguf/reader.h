/*
 * reader.h - the header of one GGUF file: its keys and its tensors, checked.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2
 * and 3, little endian. What llama.cpp's loader refuses is refused here as well,
 * with a message that says where and why.
 */
#ifndef HYPURA_GGUF_READER_H
#define HYPURA_GGUF_READER_H

#include "gguf/arena.h"
#include "gguf/source.h"

typedef enum hypura_gguf_type {
    HYPURA_GGUF_UINT8 = 0,
    HYPURA_GGUF_INT8,
    HYPURA_GGUF_UINT16,
    HYPURA_GGUF_INT16,
    HYPURA_GGUF_UINT32,
    HYPURA_GGUF_INT32,
    HYPURA_GGUF_FLOAT32,
    HYPURA_GGUF_BOOL,
    HYPURA_GGUF_STRING,
    HYPURA_GGUF_ARRAY,
    HYPURA_GGUF_UINT64,
    HYPURA_GGUF_INT64,
    HYPURA_GGUF_FLOAT64,
    HYPURA_GGUF_TYPES,
} hypura_gguf_type;

/* A key with what a map may ask of it: integers, the greatest of an array of
 * integers, short strings. Vocabularies are walked over and dropped. */
typedef struct hypura_gguf_key {
    const char *name;
    hypura_gguf_type type;
    hypura_gguf_type element_type; /* of an array, else as type */
    uint64_t n;                    /* elements of an array, bytes of a string, else 1 */
    bool has_integer;              /* integer holds the value, or an array's greatest */
    bool negative;                 /* the value, or one of the array, is below zero */
    uint64_t integer;
    const char *text; /* short strings, else NULL */
} hypura_gguf_key;

typedef struct hypura_gguf {
    const char *path; /* the source's */
    uint32_t version;
    uint32_t alignment;
    uint64_t data_offset; /* first byte of tensor data */
    int n_keys;
    hypura_gguf_key *keys; /* by name */
    int n_tensors;
    hypura_tensor *tensors; /* as in the file: name .. bytes, row_bytes filled */
    hypura_arena arena;     /* keys and their texts */
} hypura_gguf;

/* Reads and checks the header. Tensor names go to `names`, everything else is
 * freed by hypura_gguf_clear; nothing is held after a failure. */
hypura_status hypura_gguf_read(const hypura_source *source, hypura_arena *names, hypura_gguf *gguf,
                               hypura_error *error);
void hypura_gguf_clear(hypura_gguf *gguf);

const char *hypura_gguf_type_name(hypura_gguf_type type);

/* ---- keys.c ---- */

/* Puts the keys in order and refuses duplicates. */
hypura_status hypura_gguf_sort_keys(hypura_gguf *gguf, hypura_error *error);

/* The value of an integer key, fallback when it is missing. Fails on another
 * type, below zero, and above max. */
hypura_status hypura_gguf_integer(const hypura_gguf *gguf, const char *name, uint64_t fallback, uint64_t max,
                                  uint64_t *value, hypura_error *error);

/* The same for keys that may be given for each layer: the greatest of an array
 * of integers then. */
hypura_status hypura_gguf_greatest(const hypura_gguf *gguf, const char *name, uint64_t fallback, uint64_t max,
                                   uint64_t *value, hypura_error *error);

/* Elements of an array, 0 when there is none of that name. */
uint64_t hypura_gguf_count(const hypura_gguf *gguf, const char *name);

/* The text of a string key, NULL when missing. Fails on another type and when it
 * is longer than any name should be. */
hypura_status hypura_gguf_text(const hypura_gguf *gguf, const char *name, const char **text, hypura_error *error);

/* True when the n bytes are UTF-8 (RFC 3629) without control characters: safe
 * to print and to hand on as a C string. */
bool hypura_gguf_is_printable(const char *text, size_t n);

#endif
