/*
 * gguf_file.c - the writer: append, remember places, patch.
 */
#include "gguf_file.h"

#include "base/status.h"

#include <stdlib.h>
#include <string.h>

static void append(gguf_file *file, const void *bytes, size_t n)
{
    if (file->bytes + n > file->capacity) {
        file->capacity = (file->bytes + n) * 2;
        file->data = realloc(file->data, file->capacity);
        if (file->data == NULL) {
            abort();
        }
    }
    if (n > 0) {
        memcpy(file->data + file->bytes, bytes, n);
    }
    file->bytes += n;
}

static size_t append_number(gguf_file *file, uint64_t value, size_t bytes)
{
    size_t at = file->bytes;
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++) {
        raw[i] = (uint8_t)(value >> (8 * i));
    }
    append(file, raw, bytes);
    return at;
}

static void append_text(gguf_file *file, const char *text)
{
    append_number(file, strlen(text), 8);
    append(file, text, strlen(text));
}

static void append_padding(gguf_file *file)
{
    while (file->bytes % file->alignment != 0) {
        append_number(file, 0, 1);
    }
}

void gguf_patch(gguf_file *file, size_t at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        file->data[at + i] = (uint8_t)(value >> (8 * i));
    }
}

void gguf_begin(gguf_file *file, uint32_t version)
{
    *file = (gguf_file){.alignment = 32};
    append(file, "GGUF", 4);
    append_number(file, version, 4);
    append_number(file, 0, 8);
    append_number(file, 0, 8);
}

static void begin_key(gguf_file *file, const char *name, uint32_t type)
{
    file->n_keys++;
    append_text(file, name);
    append_number(file, type, 4);
}

size_t gguf_key_raw(gguf_file *file, const char *name, uint32_t type, uint64_t value, size_t bytes)
{
    begin_key(file, name, type);
    return append_number(file, value, bytes);
}

size_t gguf_key_u32(gguf_file *file, const char *name, uint32_t value)
{
    if (strcmp(name, "general.alignment") == 0) {
        file->alignment = value;
    }
    return gguf_key_raw(file, name, 4, value, 4);
}

size_t gguf_key_text(gguf_file *file, const char *name, const char *text)
{
    begin_key(file, name, 8);
    size_t at = file->bytes;
    append_text(file, text);
    return at;
}

static size_t begin_array(gguf_file *file, const char *name, uint32_t type, size_t n)
{
    begin_key(file, name, 9);
    size_t at = append_number(file, type, 4);
    append_number(file, n, 8);
    return at;
}

size_t gguf_key_u32s(gguf_file *file, const char *name, const uint32_t *values, size_t n)
{
    size_t at = begin_array(file, name, 4, n);
    for (size_t i = 0; i < n; i++) {
        append_number(file, values[i], 4);
    }
    return at;
}

size_t gguf_key_texts(gguf_file *file, const char *name, const char *const *texts, size_t n)
{
    size_t at = begin_array(file, name, 8, n);
    for (size_t i = 0; i < n; i++) {
        append_text(file, texts[i]);
    }
    return at;
}

gguf_tensor_at gguf_tensor(gguf_file *file, const char *name, uint32_t type, const int64_t *ne)
{
    gguf_tensor_at at;
    at.name_bytes = file->bytes;
    append_text(file, name);
    at.name = at.name_bytes + 8;
    uint32_t n_dims = 0;
    size_t bytes = type == GGUF_FILE_Q4_0 ? 18 : type == GGUF_FILE_Q8_0 ? 34 : 4;
    size_t block = type == GGUF_FILE_F32 ? 1 : 32;
    while (n_dims < 4 && ne[n_dims] != 0) {
        bytes *= (size_t)ne[n_dims++];
    }
    at.n_dims = append_number(file, n_dims, 4);
    at.ne = file->bytes;
    for (uint32_t i = 0; i < n_dims; i++) {
        append_number(file, (uint64_t)ne[i], 8);
    }
    at.type = append_number(file, type, 4);
    at.offset = append_number(file, file->data_bytes, 8);
    file->data_bytes += (bytes / block + file->alignment - 1) / file->alignment * file->alignment;
    file->n_tensors++;
    return at;
}

void gguf_end(gguf_file *file)
{
    gguf_patch(file, 8, file->n_tensors, 8);
    gguf_patch(file, 16, file->n_keys, 8);
    append_padding(file);
    for (size_t i = 0; i < file->data_bytes; i++) {
        append_number(file, i % 251, 1);
    }
}

void gguf_file_free(gguf_file *file)
{
    free(file->data);
    *file = (gguf_file){0};
}

hypura_status gguf_folder_open(void *user, const char *path, hypura_source *source, hypura_error *error)
{
    const gguf_folder *folder = user;
    for (const gguf_folder_entry *entry = folder->entries; entry->path != NULL; entry++) {
        if (strcmp(entry->path, path) == 0) {
            hypura_source_open_memory(source, path, entry->file->data, entry->file->bytes);
            return HYPURA_OK;
        }
    }
    return hypura_fail(error, HYPURA_ERR_IO, "%s: cannot open: No such file", path);
}
