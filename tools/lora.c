/*
 * lora.c - `mkmodel lora`: a LoRA adapter of random weights for a model, as llama.cpp reads them.
 *
 *     blk.N.attn_*, blk.N.ffn_*    A has rows of the weight's inputs, B makes the weight's outputs of them; of
 *                                  experts each its own
 *     --embeddings                 the token embedding and the output matrix too
 *
 * What B makes is a tenth of what its weight makes, more or less: enough that no logit stays what it was, too little to
 * turn the model to noise.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_out.h"
#include "mkmodel.h"
#include "rng.h"

#include "ggml.h"

enum { MAX_RANK = 1024 };

typedef struct lora {
    const char *base_path;
    const char *out_path;
    uint64_t rank;
    uint64_t seed;
    enum ggml_type type;
    bool embeddings;
    struct gguf_context *base;
    struct gguf_context *target;
    struct ggml_context *shapes;
    gguf_out out;
} lora;

/* ---- which weights ---- */

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text);
    const size_t m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_embedding(const char *name)
{
    return strcmp(name, "token_embd.weight") == 0;
}

static bool is_adapted(const lora *l, int64_t id)
{
    const char *name = gguf_get_tensor_name(l->base, id);
    const int64_t *ne = gguf_get_tensor_ne(l->base, id);
    int layer;
    int used = 0;
    if (!ends_with(name, ".weight") || ends_with(name, "norm.weight") || ne[1] == 1) {
        return false;
    }
    if (is_embedding(name) || strcmp(name, "output.weight") == 0) {
        return l->embeddings;
    }
    return sscanf(name, "blk.%d.%n", &layer, &used) == 1 && used > 0 &&
           (strncmp(name + used, "attn_", 5) == 0 || strncmp(name + used, "ffn_", 4) == 0);
}

/* ---- the header ---- */

static void add_tensor(lora *l, const char *name, const char *suffix, int64_t columns, int64_t rows, int64_t experts)
{
    char full[GGML_MAX_NAME + 16];
    struct ggml_tensor *tensor = ggml_new_tensor_3d(l->shapes, l->type, columns, rows, experts);
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    ggml_set_name(tensor, full);
    gguf_add_tensor(l->target, tensor);
}

static int add_pair(lora *l, int64_t id)
{
    const char *name = gguf_get_tensor_name(l->base, id);
    const int64_t *ne = gguf_get_tensor_ne(l->base, id);
    const int64_t rank = (int64_t)l->rank;
    if (strlen(name) + sizeof ".lora_a" > GGML_MAX_NAME) {
        return mk_fail("'%s': the name of '%s' is too long for an adapter", l->base_path, name);
    }
    if (is_embedding(name)) { /* rows of A are looked up: A and B have changed places */
        add_tensor(l, name, "lora_a", rank, ne[1], 1);
        add_tensor(l, name, "lora_b", rank, ne[0], 1);
    } else {
        add_tensor(l, name, "lora_a", ne[0], rank, ne[2]);
        add_tensor(l, name, "lora_b", rank, ne[1], ne[2]);
    }
    return MK_OK;
}

static int open_base(lora *l)
{
    l->base = gguf_init_from_file(l->base_path, (struct gguf_init_params){.no_alloc = true});
    if (!l->base) {
        return mk_fail("'%s' is not a valid GGUF file", l->base_path);
    }
    const int64_t key = gguf_find_key(l->base, "general.architecture");
    if (key < 0 || gguf_get_kv_type(l->base, key) != GGUF_TYPE_STRING) {
        return mk_fail("'%s' names no architecture", l->base_path);
    }
    return MK_OK;
}

static int plan_target(lora *l)
{
    const int64_t n = gguf_get_n_tensors(l->base);
    int64_t n_adapted = 0;
    int rc = MK_OK;
    l->shapes = ggml_init(
        (struct ggml_init_params){.mem_size = (2 * (size_t)n + 1) * ggml_tensor_overhead(), .no_alloc = true});
    l->target = gguf_init_empty();
    if (!l->shapes || !l->target) {
        return mk_fail("out of memory for the header of '%s'", l->out_path);
    }
    gguf_set_val_str(l->target, "general.type", "adapter");
    gguf_set_val_str(l->target, "general.architecture",
                     gguf_get_val_str(l->base, gguf_find_key(l->base, "general.architecture")));
    gguf_set_val_str(l->target, "adapter.type", "lora");
    gguf_set_val_f32(l->target, "adapter.lora.alpha", (float)l->rank);
    for (int64_t i = 0; rc == MK_OK && i < n; i++) {
        if (is_adapted(l, i)) {
            n_adapted++;
            rc = add_pair(l, i);
        }
    }
    return rc == MK_OK && n_adapted == 0 ? mk_fail("'%s' has no weights to adapt", l->base_path) : rc;
}

/* ---- writing ---- */

static int write_tensor(lora *l, int64_t id)
{
    const char *name = gguf_get_tensor_name(l->target, id);
    const int64_t *ne = gguf_get_tensor_ne(l->target, id);
    const int64_t n = ne[0] * ne[1] * ne[2];
    const size_t bytes = ggml_row_size(l->type, ne[0]);
    /* rows of A keep the size of what they read, B makes a tenth of it */
    const float deviation = (ends_with(name, ".lora_b") ? 0.1F : 1.0F) / sqrtf((float)ne[0]);
    float *row = malloc((size_t)ne[0] * sizeof *row);
    ggml_fp16_t *half = malloc((size_t)ne[0] * sizeof *half);
    rng random = rng_stream(l->seed, (uint64_t)id, 0);
    int rc = row && half ? gguf_out_begin(&l->out, name) : mk_fail("out of memory for '%s'", name);
    for (int64_t i = 0; rc == MK_OK && i < n / ne[0]; i++) {
        for (int64_t k = 0; k < ne[0]; k++) {
            row[k] = deviation * rng_normal(&random);
        }
        if (l->type == GGML_TYPE_F16) {
            ggml_fp32_to_fp16_row(row, half, ne[0]);
        }
        rc = gguf_out_write(&l->out, l->type == GGML_TYPE_F16 ? (const void *)half : row, bytes);
    }
    free(row);
    free(half);
    return rc == MK_OK ? gguf_out_end(&l->out) : rc;
}

static int write_target(lora *l)
{
    int rc = gguf_out_open(&l->out, l->out_path, l->target, false);
    if (rc != MK_OK) {
        return rc;
    }
    for (int64_t i = 0; rc == MK_OK && i < gguf_get_n_tensors(l->target); i++) {
        rc = write_tensor(l, i);
    }
    if (rc == MK_OK) {
        rc = gguf_out_commit(&l->out);
    }
    gguf_out_abort(&l->out);
    return rc;
}

/* ---- the command ---- */

static int parse_type(lora *l, const char *text)
{
    l->type = strcmp(text, "f16") == 0 ? GGML_TYPE_F16 : GGML_TYPE_F32;
    return l->type == GGML_TYPE_F16 || strcmp(text, "f32") == 0 ? MK_OK
                                                                : mk_usage_error("--type: '%s' is not f32 or f16", text);
}

static int take(void *user, int option, const char *text)
{
    lora *l = user;
    switch (option) {
    case 'r':
        return mk_parse_u64("--rank", text, 1, MAX_RANK, &l->rank);
    case 's':
        return mk_parse_u64("--seed", text, 0, UINT64_MAX, &l->seed);
    case 't':
        return parse_type(l, text);
    default:
        l->embeddings = true;
        return MK_OK;
    }
}

static int parse(lora *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"rank", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'},
        {"type", required_argument, NULL, 't'},
        {"embeddings", no_argument, NULL, 'e'},
        {NULL, 0, NULL, 0},
    };
    const mk_words words = {.options = options, .take = take, .user = l, .names = {"BASE", "OUT"}};
    const char *found[2] = {NULL, NULL};
    const int rc = mk_parse_words(&words, argc, argv, found);
    l->base_path = found[0];
    l->out_path = found[1];
    return rc;
}

int mk_lora(int argc, char **argv)
{
    lora l = {.rank = 8, .type = GGML_TYPE_F32};
    int rc = parse(&l, argc, argv);
    if (rc == MK_OK) {
        rc = open_base(&l);
    }
    if (rc == MK_OK) {
        rc = plan_target(&l);
    }
    if (rc == MK_OK) {
        rc = write_target(&l);
    }
    gguf_free(l.base);
    gguf_free(l.target);
    ggml_free(l.shapes);
    return rc;
}
