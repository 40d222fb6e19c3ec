/*
 * upcycle.c - `mkmodel upcycle`: a mixture of experts out of a dense llama model.
 *
 * Sparse upcycling (Komatsuzaki et al., "Sparse Upcycling: Training
 * Mixture-of-Experts from Dense Checkpoints", 2022) without the training: the
 * feed-forward network of each layer becomes N experts behind a random router.
 * Each expert has the hidden units in an order of its own:
 *
 *     gate, up   rows in groups of B      expert's group b = dense group order[b]
 *     down       columns in blocks of B   expert's block b = dense block order[b]
 *
 * B is the block size of down's type, so bytes only move and nothing is quantised
 * again, unless --type asks for another type of the layers' matrices. Every expert
 * is then different bytes and, but for the order of a sum, the same function; and as
 * llama.cpp normalises the weights of the chosen experts, so is their mix. The model
 * talks like its source, as long as the gate, up and down slices of one expert really
 * meet: swap any two, and it talks nonsense.
 *
 * Orders depend on (seed, layer, expert) alone and differ within a layer.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dense_source.h"
#include "filler.h"
#include "gguf_out.h"
#include "mkmodel.h"
#include "rng.h"

enum { MAX_EXPERTS = 1024 /* LLAMA_MAX_EXPERTS */ };

/* Deviation of the router's logits on a white input: at 2 the first of eight
 * experts gets about half of the softmax. */
static const float router_deviation = 2.0f;

/* Streams of random numbers; see rng_stream. */
enum { STREAM_ORDER = 1, STREAM_ROUTER = 2 };

typedef enum part_kind { PART_COPY, PART_ROUTER, PART_ROWS, PART_COLUMNS } part_kind;

/* One tensor of the result. */
typedef struct part {
    part_kind kind;
    int layer;
    int64_t source; /* tensor it is made of; the layer's norm for a router */
    char name[GGML_MAX_NAME];
} part;

typedef struct upcycle {
    const char *out_path;
    uint64_t n_experts;
    uint64_t top_k;
    uint64_t seed;
    bool progress;
    dense_source source;
    struct gguf_context *target;
    part *parts;
    size_t n_parts;
    uint32_t *orders; /* [n_experts][n_blocks] of orders_layer */
    int orders_layer;
    uint64_t n_blocks;
    uint64_t block_rows; /* B */
    gguf_out out;
} upcycle;

/* ---- the header of the result ---- */

static int check_layer(const upcycle *u, int layer)
{
    int64_t gate = dense_source_layer_tensor(&u->source, layer, "ffn_gate.weight");
    int64_t up = dense_source_layer_tensor(&u->source, layer, "ffn_up.weight");
    int64_t down = dense_source_layer_tensor(&u->source, layer, "ffn_down.weight");
    int64_t norm = dense_source_layer_tensor(&u->source, layer, "ffn_norm.weight");
    if (gate < 0 || up < 0 || down < 0 || norm < 0) {
        return MK_FAILURE;
    }
    int64_t n_ff = gguf_get_tensor_ne(u->source.gguf, down)[0];
    int64_t n_embd = gguf_get_tensor_ne(u->source.gguf, down)[1];
    enum ggml_type down_type = dense_source_type(&u->source, down);
    if (u->source.type != GGML_TYPE_COUNT && n_embd % ggml_blck_size(u->source.type) != 0) {
        return mk_fail("'%s': rows of %" PRId64 " values are not whole %s blocks of %" PRId64, u->source.path, n_embd,
                       ggml_type_name(u->source.type), ggml_blck_size(u->source.type));
    }
    if (n_ff % ggml_blck_size(down_type) != 0) {
        return mk_fail("'%s': %" PRId64 " hidden units of layer %d are not whole %s blocks of %" PRId64, u->source.path,
                       n_ff, layer, ggml_type_name(down_type), ggml_blck_size(down_type));
    }
    const int64_t *gate_ne = gguf_get_tensor_ne(u->source.gguf, gate);
    const int64_t *up_ne = gguf_get_tensor_ne(u->source.gguf, up);
    if (gate_ne[0] != n_embd || up_ne[0] != n_embd || gate_ne[1] != n_ff || up_ne[1] != n_ff) {
        return mk_fail("'%s': gate, up and down of layer %d do not fit each other", u->source.path, layer);
    }
    if (gguf_get_tensor_type(u->source.gguf, norm) != GGML_TYPE_F32 || gguf_get_tensor_ne(u->source.gguf, norm)[0] != n_embd) {
        return mk_fail("'%s': ffn_norm of layer %d is not %" PRId64 " values of F32", u->source.path, layer, n_embd);
    }
    static const char *const biases[] = {"ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"};
    for (size_t i = 0; i < sizeof biases / sizeof biases[0]; i++) {
        char name[GGML_MAX_NAME];
        snprintf(name, sizeof name, "blk.%d.%s", layer, biases[i]);
        if (gguf_find_tensor(u->source.gguf, name) >= 0) {
            return mk_fail("'%s': tensor '%s' has no counterpart among experts", u->source.path, name);
        }
    }
    return MK_OK;
}

static int add_part(upcycle *u, struct ggml_context *shapes, part p, enum ggml_type type, int n_dims, const int64_t *ne)
{
    if (gguf_find_tensor(u->target, p.name) >= 0) {
        return mk_fail("'%s' has a tensor '%s', which is a mixture of experts' own", u->source.path, p.name);
    }
    struct ggml_tensor *tensor = ggml_new_tensor(shapes, type, n_dims, ne);
    ggml_set_name(tensor, p.name);
    gguf_add_tensor(u->target, tensor);
    u->parts[u->n_parts++] = p;
    return MK_OK;
}

/* The source's tensor, or what stands in its place, at the end of the header. */
static int plan_tensor(upcycle *u, struct ggml_context *shapes, int64_t id, uint32_t n_layers)
{
    const char *name = gguf_get_tensor_name(u->source.gguf, id);
    const int64_t *from = gguf_get_tensor_ne(u->source.gguf, id);
    enum ggml_type type = dense_source_type(&u->source, id);
    int64_t n_experts = (int64_t)u->n_experts;
    int layer = -1;
    char matrix[8] = "";
    int used = 0;
    if (sscanf(name, "blk.%d.ffn_%7[a-z].weight%n", &layer, matrix, &used) != 2 || name[used] != '\0' || used == 0 ||
        layer < 0 || (uint32_t)layer >= n_layers) {
        layer = -1;
    }
    bool is_gate = layer >= 0 && strcmp(matrix, "gate") == 0;
    bool is_up = layer >= 0 && strcmp(matrix, "up") == 0;
    bool is_down = layer >= 0 && strcmp(matrix, "down") == 0;
    part p = {.kind = PART_COPY, .layer = layer, .source = id};
    if (!is_gate && !is_up && !is_down) {
        int n_dims = GGML_MAX_DIMS;
        while (n_dims > 1 && from[n_dims - 1] == 1) {
            n_dims--;
        }
        snprintf(p.name, sizeof p.name, "%s", name);
        return add_part(u, shapes, p, type, n_dims, from);
    }
    if (is_gate) {
        part router = {.kind = PART_ROUTER, .layer = layer};
        int64_t ne[2] = {from[0], n_experts};
        router.source = dense_source_layer_tensor(&u->source, layer, "ffn_norm.weight");
        snprintf(router.name, sizeof router.name, "blk.%d.ffn_gate_inp.weight", layer);
        int rc = add_part(u, shapes, router, GGML_TYPE_F32, 2, ne);
        if (rc != MK_OK) {
            return rc;
        }
    }
    int64_t ne[3] = {from[0], from[1], n_experts};
    p.kind = is_down ? PART_COLUMNS : PART_ROWS;
    snprintf(p.name, sizeof p.name, "blk.%d.ffn_%s_exps.weight", layer, matrix);
    return add_part(u, shapes, p, type, 3, ne);
}

static void set_metadata(upcycle *u)
{
    gguf_set_kv(u->target, u->source.gguf);
    /* the result is laid out with the default alignment */
    gguf_remove_key(u->target, GGUF_KEY_GENERAL_ALIGNMENT);
    gguf_set_val_u32(u->target, "llama.expert_count", (uint32_t)u->n_experts);
    gguf_set_val_u32(u->target, "llama.expert_used_count", (uint32_t)u->top_k);
    int64_t id = gguf_find_key(u->source.gguf, "general.name");
    if (id >= 0 && gguf_get_kv_type(u->source.gguf, id) == GGUF_TYPE_STRING) {
        char name[256];
        snprintf(name, sizeof name, "%.200s upcycled to %" PRIu64 " experts", gguf_get_val_str(u->source.gguf, id),
                 u->n_experts);
        gguf_set_val_str(u->target, "general.name", name);
    }
}

static int plan_target(upcycle *u)
{
    uint32_t n_layers = 0;
    int rc = dense_source_u32(&u->source, "llama.block_count", &n_layers);
    if (rc == MK_OK && (int64_t)n_layers > gguf_get_n_tensors(u->source.gguf)) {
        rc = mk_fail("'%s' names %" PRIu32 " layers and has fewer tensors", u->source.path, n_layers);
    }
    for (uint32_t i = 0; rc == MK_OK && i < n_layers; i++) {
        rc = check_layer(u, (int)i);
    }
    if (rc != MK_OK) {
        return rc;
    }
    size_t n_max = (size_t)gguf_get_n_tensors(u->source.gguf) + n_layers;
    struct ggml_context *shapes =
        ggml_init((struct ggml_init_params){.mem_size = (n_max + 1) * ggml_tensor_overhead(), .no_alloc = true});
    u->target = gguf_init_empty();
    u->parts = calloc(n_max, sizeof *u->parts);
    if (!shapes || !u->target || !u->parts) {
        rc = mk_fail("out of memory for the header of '%s'", u->out_path);
    } else {
        set_metadata(u);
        for (int64_t i = 0; rc == MK_OK && i < gguf_get_n_tensors(u->source.gguf); i++) {
            rc = plan_tensor(u, shapes, i, n_layers);
        }
    }
    ggml_free(shapes);
    return rc;
}

/* ---- the orders of the experts ---- */

static bool is_repeated(const upcycle *u, uint64_t expert)
{
    size_t bytes = u->n_blocks * sizeof *u->orders;
    const uint32_t *order = u->orders + expert * u->n_blocks;
    for (uint64_t e = 0; e < expert; e++) {
        if (memcmp(u->orders + e * u->n_blocks, order, bytes) == 0) {
            return true;
        }
    }
    return false;
}

static void shuffle(uint32_t *order, uint64_t n, rng *r)
{
    for (uint64_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
    }
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = rng_below(r, i);
        uint32_t swapped = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swapped;
    }
}

/* Draws the orders of a layer unless they are at hand. */
static int draw_orders(upcycle *u, int layer)
{
    if (u->orders_layer == layer) {
        return MK_OK;
    }
    int64_t down = dense_source_layer_tensor(&u->source, layer, "ffn_down.weight");
    u->orders_layer = -1;
    u->block_rows = (uint64_t)ggml_blck_size(dense_source_type(&u->source, down));
    u->n_blocks = (uint64_t)gguf_get_tensor_ne(u->source.gguf, down)[0] / u->block_rows;
    uint64_t n_orders = 1;
    for (uint64_t i = 2; i <= u->n_blocks && n_orders < u->n_experts; i++) {
        n_orders *= i;
    }
    if (n_orders < u->n_experts) {
        return mk_fail("'%s': %" PRIu64 " blocks in layer %d can be put in %" PRIu64 " orders only, not %" PRIu64,
                       u->source.path, u->n_blocks, layer, n_orders, u->n_experts);
    }
    free(u->orders);
    u->orders = calloc((size_t)u->n_experts, (size_t)u->n_blocks * sizeof *u->orders);
    if (!u->orders) {
        return mk_fail("out of memory for %" PRIu64 " orders of %" PRIu64 " blocks", u->n_experts, u->n_blocks);
    }
    for (uint64_t e = 0; e < u->n_experts; e++) {
        rng r = rng_stream(u->seed, STREAM_ORDER, ((uint64_t)layer << 32) | e);
        do {
            shuffle(u->orders + e * u->n_blocks, u->n_blocks, &r);
        } while (is_repeated(u, e));
    }
    u->orders_layer = layer;
    return MK_OK;
}

/* ---- writing ---- */

static int write_rows(upcycle *u, const part *p, const uint8_t *dense)
{
    size_t group_bytes = dense_source_bytes(&u->source, p->source) / u->n_blocks;
    for (uint64_t i = 0; i < u->n_experts * u->n_blocks; i++) {
        int rc = gguf_out_write(&u->out, dense + u->orders[i] * group_bytes, group_bytes);
        if (rc != MK_OK) {
            return rc;
        }
    }
    return MK_OK;
}

static int write_columns(upcycle *u, const part *p, const uint8_t *dense)
{
    size_t block_bytes = ggml_type_size(dense_source_type(&u->source, p->source));
    size_t row_bytes = u->n_blocks * block_bytes;
    size_t n_rows = dense_source_bytes(&u->source, p->source) / row_bytes;
    uint8_t *row = malloc(row_bytes);
    if (!row) {
        return mk_fail("out of memory (%zu bytes)", row_bytes);
    }
    int rc = MK_OK;
    for (uint64_t e = 0; rc == MK_OK && e < u->n_experts; e++) {
        const uint32_t *order = u->orders + e * u->n_blocks;
        for (size_t i = 0; rc == MK_OK && i < n_rows; i++) {
            for (uint64_t b = 0; b < u->n_blocks; b++) {
                memcpy(row + b * block_bytes, dense + i * row_bytes + order[b] * block_bytes, block_bytes);
            }
            rc = gguf_out_write(&u->out, row, row_bytes);
        }
    }
    free(row);
    return rc;
}

/* The router sees the normalised state times the norm's weights: dividing by the
 * length of those gives logits of the wanted deviation. */
static int write_router(upcycle *u, const part *p, const uint8_t *norm)
{
    size_t n_embd = (size_t)gguf_get_tensor_ne(u->source.gguf, p->source)[0];
    double length = 0.0;
    for (size_t i = 0; i < n_embd; i++) {
        float weight = 0.0f;
        memcpy(&weight, norm + i * sizeof weight, sizeof weight);
        length += (double)weight * (double)weight;
    }
    float scale = length > 0.0 ? router_deviation / (float)sqrt(length) : 0.0f;
    float *row = malloc(n_embd * sizeof *row);
    if (!row) {
        return mk_fail("out of memory (%zu values)", n_embd);
    }
    int rc = MK_OK;
    for (uint64_t e = 0; rc == MK_OK && e < u->n_experts; e++) {
        rng r = rng_stream(u->seed, STREAM_ROUTER, ((uint64_t)p->layer << 32) | e);
        for (size_t i = 0; i < n_embd; i++) {
            row[i] = rng_normal(&r) * scale;
        }
        rc = gguf_out_write(&u->out, row, n_embd * sizeof *row);
    }
    free(row);
    return rc;
}

static int write_part(upcycle *u, const part *p)
{
    if (p->kind == PART_ROWS || p->kind == PART_COLUMNS) {
        int rc = draw_orders(u, p->layer);
        if (rc != MK_OK) {
            return rc;
        }
    }
    uint8_t *data = dense_source_read(&u->source, p->source);
    if (!data) {
        return MK_FAILURE;
    }
    int rc = gguf_out_begin(&u->out, p->name);
    if (rc == MK_OK) {
        switch (p->kind) {
        case PART_COPY:
            rc = gguf_out_write(&u->out, data, dense_source_bytes(&u->source, p->source));
            break;
        case PART_ROUTER:
            rc = write_router(u, p, data);
            break;
        case PART_ROWS:
            rc = write_rows(u, p, data);
            break;
        case PART_COLUMNS:
            rc = write_columns(u, p, data);
            break;
        }
    }
    free(data);
    return rc == MK_OK ? gguf_out_end(&u->out) : rc;
}

static int write_target(upcycle *u)
{
    int rc = gguf_out_open(&u->out, u->out_path, u->target, u->progress);
    if (rc != MK_OK) {
        return rc;
    }
    for (size_t i = 0; rc == MK_OK && i < u->n_parts; i++) {
        rc = write_part(u, &u->parts[i]);
    }
    if (rc == MK_OK) {
        rc = gguf_out_commit(&u->out);
    }
    gguf_out_abort(&u->out);
    return rc;
}

/* ---- the command ---- */

static int take(void *user, int option, const char *text)
{
    upcycle *u = user;
    switch (option) {
    case 'e':
        return mk_parse_u64("--experts", text, 1, MAX_EXPERTS, &u->n_experts);
    case 'k':
        return mk_parse_u64("--top-k", text, 1, MAX_EXPERTS, &u->top_k);
    case 's':
        return mk_parse_u64("--seed", text, 0, UINT64_MAX, &u->seed);
    case 't':
        return dense_source_parse_type(&u->source, text);
    default:
        u->progress = true;
        return MK_OK;
    }
}

static int parse(upcycle *u, int argc, char **argv)
{
    static const struct option options[] = {
        {"experts", required_argument, NULL, 'e'},
        {"top-k", required_argument, NULL, 'k'},
        {"seed", required_argument, NULL, 's'},
        {"type", required_argument, NULL, 't'},
        {"progress", no_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    const mk_words words = {.options = options, .take = take, .user = u, .names = {"SRC", "OUT"}};
    const char *found[2] = {NULL, NULL};
    const int rc = mk_parse_words(&words, argc, argv, found);
    u->source.path = found[0];
    u->out_path = found[1];
    if (rc == MK_OK && (u->n_experts == 0 || u->top_k == 0)) {
        return mk_usage_error("upcycle: --experts and --top-k are needed");
    }
    if (rc == MK_OK && u->top_k > u->n_experts) {
        return mk_usage_error("upcycle: --top-k %" PRIu64 " of --experts %" PRIu64, u->top_k, u->n_experts);
    }
    return rc;
}

int mk_upcycle(int argc, char **argv)
{
    upcycle u = {.source = {.fd = -1, .type = GGML_TYPE_COUNT}, .orders_layer = -1, .seed = 1};
    int rc = parse(&u, argc, argv);
    if (rc == MK_OK) {
        rc = dense_source_open(&u.source);
    }
    if (rc == MK_OK) {
        rc = plan_target(&u);
    }
    if (rc == MK_OK) {
        rc = write_target(&u);
    }
    free(u.orders);
    free(u.parts);
    dense_source_close(&u.source);
    gguf_free(u.target);
    return rc;
}
