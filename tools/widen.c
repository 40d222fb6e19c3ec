/*
 * widen.c - `mkmodel widen`: a dense llama model with more hidden units, that says what its source says.
 *
 *     gate, up   the source's rows, then the same rows again until there are enough
 *     down       the source's columns, then zeros
 *
 * What the added units come to is multiplied by zero: the state of each layer, and so every logit, is that of the source (in
 * the type asked for), while all of the bytes are read and computed with as in any model of that size. With the source as
 * draft model nearly every guess is right: what speculation gives at best, on a model as large as one likes.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dense_source.h"
#include "filler.h"
#include "gguf_out.h"
#include "mkmodel.h"

#include "ggml.h"

enum { MAX_HIDDEN = 1 << 22 };

typedef enum part_kind { PART_COPY, PART_ROWS, PART_COLUMNS } part_kind;

typedef struct widen {
    dense_source source;
    const char *out_path;
    uint64_t n_hidden;
    bool progress;
    struct gguf_context *target;
    gguf_out out;
} widen;

static part_kind kind_of(const char *name)
{
    int layer;
    char matrix[8] = "";
    int used = 0;
    if (sscanf(name, "blk.%d.ffn_%7[a-z].weight%n", &layer, matrix, &used) != 2 || used == 0 || name[used] != '\0') {
        return PART_COPY;
    }
    return strcmp(matrix, "gate") == 0 || strcmp(matrix, "up") == 0 ? PART_ROWS
           : strcmp(matrix, "down") == 0                            ? PART_COLUMNS
                                                                    : PART_COPY;
}

/* ---- the header of the result ---- */

static int plan_tensor(widen *w, struct ggml_context *shapes, int64_t id)
{
    const char *name = gguf_get_tensor_name(w->source.gguf, id);
    const enum ggml_type type = dense_source_type(&w->source, id);
    int64_t ne[GGML_MAX_DIMS];
    memcpy(ne, gguf_get_tensor_ne(w->source.gguf, id), sizeof ne);
    const part_kind kind = kind_of(name);
    const int axis = kind == PART_COLUMNS ? 0 : 1;
    if (kind != PART_COPY) {
        if ((uint64_t)ne[axis] > w->n_hidden) {
            return mk_fail("'%s' has %" PRId64 " hidden units already", w->source.path, ne[axis]);
        }
        if (ne[0] % ggml_blck_size(type) != 0) {
            return mk_fail("'%s': rows of %" PRId64 " values are not whole %s blocks of %" PRId64, w->source.path, ne[0],
                           ggml_type_name(type), ggml_blck_size(type));
        }
        if ((int64_t)w->n_hidden % ggml_blck_size(type) != 0) {
            return mk_fail("--hidden %" PRIu64 " is not a whole number of %s blocks of %" PRId64, w->n_hidden,
                           ggml_type_name(type), ggml_blck_size(type));
        }
        ne[axis] = (int64_t)w->n_hidden;
    }
    int n_dims = GGML_MAX_DIMS;
    while (n_dims > 1 && ne[n_dims - 1] == 1) {
        n_dims--;
    }
    struct ggml_tensor *tensor = ggml_new_tensor(shapes, type, n_dims, ne);
    ggml_set_name(tensor, name);
    gguf_add_tensor(w->target, tensor);
    return MK_OK;
}

static int plan_target(widen *w)
{
    const int64_t n = gguf_get_n_tensors(w->source.gguf);
    uint32_t n_hidden = 0;
    int rc = dense_source_u32(&w->source, "llama.feed_forward_length", &n_hidden);
    struct ggml_context *shapes =
        ggml_init((struct ggml_init_params){.mem_size = ((size_t)n + 1) * ggml_tensor_overhead(), .no_alloc = true});
    w->target = gguf_init_empty();
    if (!shapes || !w->target) {
        rc = mk_fail("out of memory for the header of '%s'", w->out_path);
    } else if (rc == MK_OK) {
        gguf_set_kv(w->target, w->source.gguf);
        /* the result is laid out with the default alignment */
        gguf_remove_key(w->target, GGUF_KEY_GENERAL_ALIGNMENT);
        gguf_set_val_u32(w->target, "llama.feed_forward_length", (uint32_t)w->n_hidden);
        for (int64_t i = 0; rc == MK_OK && i < n; i++) {
            rc = plan_tensor(w, shapes, i);
        }
    }
    ggml_free(shapes);
    return rc;
}

/* ---- writing ---- */

/* The source's bytes over and over, up to that many. */
static int write_again(widen *w, const uint8_t *data, size_t bytes, uint64_t wanted)
{
    int rc = MK_OK;
    for (uint64_t done = 0; rc == MK_OK && done < wanted;) {
        const size_t n = wanted - done < bytes ? (size_t)(wanted - done) : bytes;
        rc = gguf_out_write(&w->out, data, n);
        done += n;
    }
    return rc;
}

/* In every type a block of zero bytes is a block of zeros. */
static int write_columns(widen *w, const uint8_t *data, size_t row_bytes, size_t wide_bytes, int64_t n_rows)
{
    uint8_t *row = calloc(1, wide_bytes);
    int rc = row ? MK_OK : mk_fail("out of memory (%zu bytes)", wide_bytes);
    for (int64_t i = 0; rc == MK_OK && i < n_rows; i++) {
        memcpy(row, data + (size_t)i * row_bytes, row_bytes);
        rc = gguf_out_write(&w->out, row, wide_bytes);
    }
    free(row);
    return rc;
}

static int write_tensor(widen *w, int64_t id)
{
    const char *name = gguf_get_tensor_name(w->source.gguf, id);
    const int64_t *ne = gguf_get_tensor_ne(w->source.gguf, id);
    const enum ggml_type type = dense_source_type(&w->source, id);
    const size_t bytes = dense_source_bytes(&w->source, id);
    const part_kind kind = kind_of(name);
    uint8_t *data = dense_source_read(&w->source, id);
    if (!data) {
        return MK_FAILURE;
    }
    int rc = gguf_out_begin(&w->out, name);
    if (rc == MK_OK) {
        rc = kind == PART_COLUMNS
                 ? write_columns(w, data, ggml_row_size(type, ne[0]), ggml_row_size(type, (int64_t)w->n_hidden), ne[1])
                 : write_again(w, data, bytes, kind == PART_ROWS ? ggml_row_size(type, ne[0]) * w->n_hidden : bytes);
    }
    free(data);
    return rc == MK_OK ? gguf_out_end(&w->out) : rc;
}

static int write_target(widen *w)
{
    int rc = gguf_out_open(&w->out, w->out_path, w->target, w->progress);
    if (rc != MK_OK) {
        return rc;
    }
    for (int64_t i = 0; rc == MK_OK && i < gguf_get_n_tensors(w->source.gguf); i++) {
        rc = write_tensor(w, i);
    }
    if (rc == MK_OK) {
        rc = gguf_out_commit(&w->out);
    }
    gguf_out_abort(&w->out);
    return rc;
}

/* ---- the command ---- */

static int take(void *user, int option, const char *text)
{
    widen *w = user;
    switch (option) {
    case 'h':
        return mk_parse_u64("--hidden", text, 1, MAX_HIDDEN, &w->n_hidden);
    case 't':
        return dense_source_parse_type(&w->source, text);
    default:
        w->progress = true;
        return MK_OK;
    }
}

static int parse(widen *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"hidden", required_argument, NULL, 'h'},
        {"type", required_argument, NULL, 't'},
        {"progress", no_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    const mk_words words = {.options = options, .take = take, .user = w, .names = {"SRC", "OUT"}};
    const char *found[2] = {NULL, NULL};
    const int rc = mk_parse_words(&words, argc, argv, found);
    w->source.path = found[0];
    w->out_path = found[1];
    return rc == MK_OK && w->n_hidden == 0 ? mk_usage_error("widen: --hidden is needed") : rc;
}

int mk_widen(int argc, char **argv)
{
    widen w = {.source = {.fd = -1, .type = GGML_TYPE_COUNT}};
    int rc = parse(&w, argc, argv);
    if (rc == MK_OK) {
        rc = dense_source_open(&w.source);
    }
    if (rc == MK_OK) {
        rc = plan_target(&w);
    }
    if (rc == MK_OK) {
        rc = write_target(&w);
    }
    dense_source_close(&w.source);
    gguf_free(w.target);
    return rc;
}
