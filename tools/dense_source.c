/*
 * dense_source.c - see dense_source.h.
 */
#include "dense_source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filler.h"
#include "mkmodel.h"

static int open_file(dense_source *s)
{
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        return mk_fail("cannot open '%s': %s", s->path, strerror(errno));
    }
    struct stat file;
    if (fstat(s->fd, &file) != 0 || !S_ISREG(file.st_mode)) {
        return mk_fail("'%s' is not a regular file", s->path);
    }
    s->gguf = gguf_init_from_file(s->path, (struct gguf_init_params){.no_alloc = true});
    if (!s->gguf) {
        return mk_fail("'%s' is not a valid GGUF file", s->path);
    }
    for (int64_t i = 0; i < gguf_get_n_tensors(s->gguf); i++) {
        uint64_t end =
            gguf_get_data_offset(s->gguf) + gguf_get_tensor_offset(s->gguf, i) + gguf_get_tensor_size(s->gguf, i);
        if (end > (uint64_t)file.st_size) {
            return mk_fail("'%s' is truncated: tensor '%s' ends at byte %" PRIu64 " of %" PRIu64, s->path,
                           gguf_get_tensor_name(s->gguf, i), end, (uint64_t)file.st_size);
        }
    }
    return MK_OK;
}

static int check(const dense_source *s)
{
    int64_t id = gguf_find_key(s->gguf, "general.architecture");
    if (id < 0 || gguf_get_kv_type(s->gguf, id) != GGUF_TYPE_STRING ||
        strcmp(gguf_get_val_str(s->gguf, id), "llama") != 0) {
        return mk_fail("'%s' is not of the llama architecture", s->path);
    }
    if (gguf_find_key(s->gguf, "llama.expert_count") >= 0) {
        return mk_fail("'%s' is a mixture of experts already", s->path);
    }
    if (gguf_find_key(s->gguf, "split.count") >= 0) {
        return mk_fail("'%s' is one part of a split model; merge it first", s->path);
    }
    return MK_OK;
}

int dense_source_parse_type(dense_source *source, const char *text)
{
    source->type = filler_parse_type(text);
    return source->type == GGML_TYPE_COUNT || ggml_quantize_requires_imatrix(source->type)
               ? mk_usage_error("--type: '%s' is no type that matrices can be converted to, such as q4_0", text)
               : MK_OK;
}

int dense_source_open(dense_source *s)
{
    const int rc = open_file(s);
    return rc == MK_OK ? check(s) : rc;
}

void dense_source_close(dense_source *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
    gguf_free(s->gguf);
}

int dense_source_u32(const dense_source *s, const char *key, uint32_t *value)
{
    int64_t id = gguf_find_key(s->gguf, key);
    if (id < 0 || gguf_get_kv_type(s->gguf, id) != GGUF_TYPE_UINT32) {
        return mk_fail("'%s' has no 32-bit number %s", s->path, key);
    }
    *value = gguf_get_val_u32(s->gguf, id);
    return MK_OK;
}

int64_t dense_source_layer_tensor(const dense_source *s, int layer, const char *suffix)
{
    char name[GGML_MAX_NAME];
    snprintf(name, sizeof name, "blk.%d.%s", layer, suffix);
    int64_t id = gguf_find_tensor(s->gguf, name);
    if (id < 0) {
        mk_fail("'%s' has no tensor '%s'", s->path, name);
    }
    return id;
}

/* As it is in the file. */
static uint8_t *read_own(const dense_source *s, int64_t id)
{
    size_t bytes = gguf_get_tensor_size(s->gguf, id);
    uint64_t offset = gguf_get_data_offset(s->gguf) + gguf_get_tensor_offset(s->gguf, id);
    uint8_t *data = malloc(bytes > 0 ? bytes : 1);
    if (!data) {
        mk_fail("out of memory (%zu bytes for tensor '%s')", bytes, gguf_get_tensor_name(s->gguf, id));
        return NULL;
    }
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(s->fd, data + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            mk_fail("cannot read tensor '%s' of '%s': %s", gguf_get_tensor_name(s->gguf, id), s->path,
                    n == 0 ? "the file ended" : strerror(errno));
            free(data);
            return NULL;
        }
        done += (size_t)n;
    }
    return data;
}

/* The matrices of layers get the type asked for; embeddings, and what is in full precision, keep theirs. */
enum ggml_type dense_source_type(const dense_source *s, int64_t id)
{
    const enum ggml_type own = gguf_get_tensor_type(s->gguf, id);
    const bool is_layers = strncmp(gguf_get_tensor_name(s->gguf, id), "blk.", 4) == 0;
    return s->type != GGML_TYPE_COUNT && is_layers && own != GGML_TYPE_F32 ? s->type : own;
}

size_t dense_source_bytes(const dense_source *s, int64_t id)
{
    const int64_t *ne = gguf_get_tensor_ne(s->gguf, id);
    return ggml_row_size(dense_source_type(s, id), ne[0]) * (size_t)(ne[1] * ne[2] * ne[3]);
}

uint8_t *dense_source_read(const dense_source *s, int64_t id)
{
    const enum ggml_type own = gguf_get_tensor_type(s->gguf, id);
    const enum ggml_type type = dense_source_type(s, id);
    const int64_t *ne = gguf_get_tensor_ne(s->gguf, id);
    uint8_t *data = read_own(s, id);
    if (!data || type == own) {
        return data;
    }
    const size_t n = (size_t)(ne[0] * ne[1] * ne[2] * ne[3]);
    float *values = malloc(n * sizeof *values);
    uint8_t *converted = malloc(dense_source_bytes(s, id));
    if (values && converted) {
        ggml_get_type_traits(own)->to_float(data, values, (int64_t)n);
        ggml_quantize_chunk(type, values, converted, 0, ne[1] * ne[2] * ne[3], ne[0], NULL);
    } else {
        free(converted);
        converted = NULL;
        mk_fail("out of memory (%zu values of tensor '%s')", n, gguf_get_tensor_name(s->gguf, id));
    }
    free(values);
    free(data);
    return converted;
}
