/*
 * gguf_file.h - little GGUFs written byte by byte, independent of the reader
 * and of ggml, and a memory file system to open them from.
 *
 *     gguf_begin, keys, tensors, gguf_end; gguf_file_free
 */
#ifndef HYPURA_TESTS_GGUF_FILE_H
#define HYPURA_TESTS_GGUF_FILE_H

#include "gguf/source.h"

enum { GGUF_FILE_F32 = 0, GGUF_FILE_Q4_0 = 2, GGUF_FILE_Q8_0 = 8 };

typedef struct gguf_file {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
    size_t data_bytes; /* of tensors, written by gguf_end */
    uint32_t alignment;
    uint64_t n_keys;
    uint64_t n_tensors;
} gguf_file;

/* Where the fields of a tensor lie. */
typedef struct gguf_tensor_at {
    size_t name_bytes;
    size_t name;
    size_t n_dims;
    size_t ne;
    size_t type;
    size_t offset;
} gguf_tensor_at;

void gguf_begin(gguf_file *file, uint32_t version);
/* Each returns the place of the value; its type stands in the four bytes before. */
size_t gguf_key_u32(gguf_file *file, const char *name, uint32_t value);
size_t gguf_key_text(gguf_file *file, const char *name, const char *text);
/* These return the place of the element type; the count follows it. */
size_t gguf_key_u32s(gguf_file *file, const char *name, const uint32_t *values, size_t n);
size_t gguf_key_texts(gguf_file *file, const char *name, const char *const *texts, size_t n);
/* Any other scalar: `bytes` low bytes of value. */
size_t gguf_key_raw(gguf_file *file, const char *name, uint32_t type, uint64_t value, size_t bytes);
/* ne ends with 0 unless it has four. */
gguf_tensor_at gguf_tensor(gguf_file *file, const char *name, uint32_t type, const int64_t *ne);
#define GGUF_SHAPE(...) ((const int64_t[5]){__VA_ARGS__})
/* Patches the counts and appends padding and data. */
void gguf_end(gguf_file *file);
void gguf_file_free(gguf_file *file);

/* Overwrites a little endian number. */
void gguf_patch(gguf_file *file, size_t at, uint64_t value, size_t bytes);

typedef struct gguf_folder_entry {
    const char *path;
    const gguf_file *file;
} gguf_folder_entry;

/* Ends with a NULL path. */
typedef struct gguf_folder {
    const gguf_folder_entry *entries;
} gguf_folder;

/* A hypura_source_open_fn whose user is a gguf_folder. */
hypura_status gguf_folder_open(void *user, const char *path, hypura_source *source, hypura_error *error);

#endif
