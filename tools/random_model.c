/*
 * random_model.c - see random_model.h.
 *
 * A model is planned as a list of tensors in file order, from which headers and
 * weights of all parts are then written.
 */
#include "random_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "filler.h"
#include "gguf_out.h"
#include "mkmodel.h"
#include "rng.h"
#include "vocab.h"

enum { MAX_LAYER_TENSORS = 20, MAX_PARTS = 99, OUT_PATH_BYTES = 4096 };

typedef enum qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_ALL } qk_norm;

/* What tells the architectures apart as far as their tensors go. */
typedef struct arch_traits {
    const char *name;
    qk_norm norm;
    bool ff_is_expert_ff; /* feed_forward_length gives the expert's size as well */
    bool shared_is_count; /* shared experts are counted in units of the expert's size */
} arch_traits;

static const arch_traits archs[] = {
    {"llama", QK_NORM_NONE, true, false},         {"qwen3", QK_NORM_HEAD, false, false},
    {"qwen3moe", QK_NORM_HEAD, false, false},     {"olmoe", QK_NORM_ALL, true, false},
    {"ernie4_5-moe", QK_NORM_NONE, false, false}, {"deepseek2-ocr", QK_NORM_NONE, false, true},
};

typedef struct planned {
    char name[GGML_MAX_NAME];
    enum ggml_type type;
    int n_dims;
    int64_t ne[3];
    float deviation; /* 0: all ones */
} planned;

typedef struct model {
    const model_shape *shape;
    const random_model_options *options;
    const arch_traits *traits;
    const char *out_path;
    uint32_t n_layers;
    uint32_t n_vocab;
    struct gguf_context *metadata;
    planned *tensors;
    size_t n_tensors;
    filler *weights;
} model;

/* ---- tensors ---- */

static float input_deviation(uint32_t n_in)
{
    return 1.0f / sqrtf((float)n_in);
}

/* By the name, so that one matrix more or less changes no other one's. */
static enum ggml_type wanted_type(const model *m, const char *name)
{
    uint64_t tag = 0;
    for (const char *c = name; *c; c++) {
        tag = tag * 31 + (unsigned char)*c;
    }
    rng drawn = rng_stream(m->options->seed, tag, 0);
    return m->options->mixed && rng_below(&drawn, 2) == 1 ? m->options->other_type : m->options->type;
}

/* Rows that are no whole blocks get the nearest type that can hold them. */
static enum ggml_type fitting_type(const model *m, const char *name, uint32_t n_in)
{
    enum ggml_type type = wanted_type(m, name);
    if (n_in % (uint64_t)ggml_blck_size(type) == 0) {
        return type;
    }
    enum ggml_type other = n_in % (uint64_t)ggml_blck_size(GGML_TYPE_Q8_0) == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
    /* once, not for each layer */
    bool said = strncmp(name, "blk.", 4) == 0 && atoi(name + 4) != (int)m->n_layers - 1;
    if (!said && !m->options->quiet) {
        fprintf(stderr, "mkmodel: %s: rows of %" PRIu32 " values are no whole %s blocks; %s instead\n", name, n_in,
                ggml_type_name(type), ggml_type_name(other));
    }
    return other;
}

static planned *append(model *m, int layer, const char *name)
{
    planned *t = &m->tensors[m->n_tensors++];
    if (layer < 0) {
        snprintf(t->name, sizeof t->name, "%s.weight", name);
    } else {
        snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", layer, name);
    }
    return t;
}

static void add_norm(model *m, int layer, const char *name, uint32_t n)
{
    planned *t = append(m, layer, name);
    t->type = GGML_TYPE_F32;
    t->n_dims = 1;
    t->ne[0] = n;
    t->ne[1] = t->ne[2] = 1;
}

static planned *add_matrix(model *m, int layer, const char *name, uint32_t n_in, uint32_t n_out)
{
    planned *t = append(m, layer, name);
    t->type = fitting_type(m, t->name, n_in);
    t->n_dims = 2;
    t->ne[0] = n_in;
    t->ne[1] = n_out;
    t->ne[2] = 1;
    t->deviation = input_deviation(n_in);
    return t;
}

static void add_experts(model *m, int layer, const char *name, uint32_t n_in, uint32_t n_out)
{
    planned *t = add_matrix(m, layer, name, n_in, n_out);
    t->n_dims = 3;
    t->ne[2] = m->shape->n_experts;
}

static void add_attention(model *m, int layer)
{
    const model_shape *s = m->shape;
    uint32_t n_q = s->n_heads * s->head_size;
    uint32_t n_kv = s->n_heads_kv * s->head_size;
    add_norm(m, layer, "attn_norm", s->n_embd);
    add_matrix(m, layer, "attn_q", s->n_embd, n_q);
    add_matrix(m, layer, "attn_k", s->n_embd, n_kv);
    add_matrix(m, layer, "attn_v", s->n_embd, n_kv);
    add_matrix(m, layer, "attn_output", n_q, s->n_embd);
    if (m->traits->norm != QK_NORM_NONE) {
        bool all = m->traits->norm == QK_NORM_ALL;
        add_norm(m, layer, "attn_q_norm", all ? n_q : s->head_size);
        add_norm(m, layer, "attn_k_norm", all ? n_kv : s->head_size);
    }
}

static void add_moe(model *m, int layer)
{
    const model_shape *s = m->shape;
    planned *router = append(m, layer, "ffn_gate_inp");
    router->type = GGML_TYPE_F32;
    router->n_dims = 2;
    router->ne[0] = s->n_embd;
    router->ne[1] = s->n_experts;
    router->ne[2] = 1;
    router->deviation = 2.0f * input_deviation(s->n_embd);
    if (s->fused_gate_up) {
        add_experts(m, layer, "ffn_gate_up_exps", s->n_embd, 2 * s->n_ff_expert);
    } else {
        add_experts(m, layer, "ffn_gate_exps", s->n_embd, s->n_ff_expert);
        add_experts(m, layer, "ffn_up_exps", s->n_embd, s->n_ff_expert);
    }
    add_experts(m, layer, "ffn_down_exps", s->n_ff_expert, s->n_embd);
    if (s->n_ff_shared > 0) {
        add_matrix(m, layer, "ffn_gate_shexp", s->n_embd, s->n_ff_shared);
        add_matrix(m, layer, "ffn_up_shexp", s->n_embd, s->n_ff_shared);
        add_matrix(m, layer, "ffn_down_shexp", s->n_ff_shared, s->n_embd);
    }
}

static void add_ffn(model *m, int layer)
{
    add_matrix(m, layer, "ffn_gate", m->shape->n_embd, m->shape->n_ff);
    add_matrix(m, layer, "ffn_up", m->shape->n_embd, m->shape->n_ff);
    add_matrix(m, layer, "ffn_down", m->shape->n_ff, m->shape->n_embd);
}

static int plan_tensors(model *m)
{
    const model_shape *s = m->shape;
    m->tensors = calloc((size_t)m->n_layers * MAX_LAYER_TENSORS + 3, sizeof *m->tensors);
    if (!m->tensors) {
        return mk_fail("out of memory for the tensors of %" PRIu32 " layers", m->n_layers);
    }
    /* rows of the embedding are states, not weights of a sum */
    add_matrix(m, -1, "token_embd", s->n_embd, m->n_vocab)->deviation = 1.0f;
    for (uint32_t i = 0; i < m->n_layers; i++) {
        add_attention(m, (int)i);
        add_norm(m, (int)i, "ffn_norm", s->n_embd);
        if (s->n_experts > 0 && i >= s->n_dense_lead) {
            add_moe(m, (int)i);
        } else {
            add_ffn(m, (int)i);
        }
    }
    add_norm(m, -1, "output_norm", s->n_embd);
    if (!s->tied) {
        add_matrix(m, -1, "output", s->n_embd, m->n_vocab);
    }
    return MK_OK;
}

static uint64_t slice_bytes(const planned *t)
{
    return (uint64_t)ggml_row_size(t->type, t->ne[0]) * (uint64_t)t->ne[1];
}

static int reserve_weights(model *m)
{
    m->weights = filler_open(m->options->seed);
    int rc = m->weights ? MK_OK : MK_FAILURE;
    for (size_t i = 0; rc == MK_OK && i < m->n_tensors; i++) {
        const planned *t = &m->tensors[i];
        if (t->deviation > 0.0f) {
            rc = filler_reserve(m->weights, t->type, t->deviation, slice_bytes(t), (uint64_t)t->ne[2]);
        }
    }
    return rc;
}

/* ---- metadata ---- */

static void set_u32(const model *m, const char *key, uint32_t value)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", m->shape->arch, key);
    gguf_set_val_u32(m->metadata, name, value);
}

static void set_f32(const model *m, const char *key, float value)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", m->shape->arch, key);
    gguf_set_val_f32(m->metadata, name, value);
}

static void set_expert_metadata(const model *m)
{
    const model_shape *s = m->shape;
    set_u32(m, "expert_count", s->n_experts);
    set_u32(m, "expert_used_count", s->top_k);
    if (!m->traits->ff_is_expert_ff) {
        set_u32(m, "expert_feed_forward_length", s->n_ff_expert);
    }
    if (m->traits->shared_is_count) {
        set_u32(m, "expert_shared_count", s->n_ff_shared / s->n_ff_expert);
    } else if (s->n_ff_shared > 0) {
        set_u32(m, "expert_shared_feed_forward_length", s->n_ff_shared);
    }
    if (s->n_dense_lead > 0) {
        set_u32(m, "leading_dense_block_count", s->n_dense_lead);
    }
    if (strcmp(s->arch, "ernie4_5-moe") == 0) {
        set_u32(m, "interleave_moe_layer_step", 1);
    }
}

static int set_metadata(model *m)
{
    const model_shape *s = m->shape;
    bool expert_ff = s->n_experts > 0 && m->traits->ff_is_expert_ff;
    m->metadata = gguf_init_empty();
    if (!m->metadata) {
        return mk_fail("out of memory for the header of '%s'", m->out_path);
    }
    gguf_set_val_str(m->metadata, "general.architecture", s->arch);
    gguf_set_val_str(m->metadata, "general.type", "model");
    gguf_set_val_str(m->metadata, "general.name", s->name);
    gguf_set_val_u32(m->metadata, "general.quantization_version", GGML_QNT_VERSION);
    set_u32(m, "block_count", m->n_layers);
    set_u32(m, "context_length", s->n_context);
    set_u32(m, "embedding_length", s->n_embd);
    set_u32(m, "feed_forward_length", expert_ff ? s->n_ff_expert : s->n_ff);
    set_u32(m, "attention.head_count", s->n_heads);
    set_u32(m, "attention.head_count_kv", s->n_heads_kv);
    set_u32(m, "attention.key_length", s->head_size);
    set_u32(m, "attention.value_length", s->head_size);
    set_f32(m, "attention.layer_norm_rms_epsilon", 1e-5f);
    set_u32(m, "rope.dimension_count", s->head_size);
    set_f32(m, "rope.freq_base", s->rope_base);
    if (s->n_experts > 0) {
        set_expert_metadata(m);
    }
    int rc = MK_OK;
    m->n_vocab = s->n_vocab;
    if (m->options->vocab_from) {
        rc = vocab_copy(m->metadata, m->options->vocab_from, &m->n_vocab);
    } else if (m->options->no_vocab) {
        vocab_none(m->metadata);
    } else {
        rc = vocab_bytes(m->metadata, s->n_vocab);
    }
    set_u32(m, "vocab_size", m->n_vocab);
    return rc;
}

/* ---- files ---- */

static int part_path(const model *m, uint32_t part, char *path)
{
    size_t length = strlen(m->out_path);
    int used = 0;
    if (m->options->n_parts < 2) {
        used = snprintf(path, OUT_PATH_BYTES, "%s", m->out_path);
    } else {
        if (length >= 5 && strcmp(m->out_path + length - 5, ".gguf") == 0) {
            length -= 5;
        }
        used = snprintf(path, OUT_PATH_BYTES, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)length, m->out_path,
                        part + 1, m->options->n_parts);
    }
    return used < OUT_PATH_BYTES ? MK_OK : mk_fail("name '%s' is too long", m->out_path);
}

/* The header of one part: the first alone has the model's metadata. */
static struct gguf_context *part_header(const model *m, uint32_t part, size_t first, size_t end)
{
    struct gguf_context *header = gguf_init_empty();
    struct ggml_context *shapes =
        ggml_init((struct ggml_init_params){.mem_size = (end - first + 1) * ggml_tensor_overhead(), .no_alloc = true});
    if (!header || !shapes) {
        mk_fail("out of memory for the header of '%s'", m->out_path);
        ggml_free(shapes);
        gguf_free(header);
        return NULL;
    }
    if (part == 0) {
        gguf_set_kv(header, m->metadata);
    }
    if (m->options->n_parts > 1) {
        gguf_set_val_u16(header, "split.no", (uint16_t)part);
        gguf_set_val_u16(header, "split.count", (uint16_t)m->options->n_parts);
        gguf_set_val_i32(header, "split.tensors.count", (int32_t)m->n_tensors);
    }
    for (size_t i = first; i < end; i++) {
        const planned *t = &m->tensors[i];
        struct ggml_tensor *tensor = ggml_new_tensor(shapes, t->type, t->n_dims, t->ne);
        ggml_set_name(tensor, t->name);
        gguf_add_tensor(header, tensor);
    }
    ggml_free(shapes);
    return header;
}

static int write_ones(gguf_out *out, int64_t n)
{
    const float one = 1.0f;
    int rc = MK_OK;
    for (int64_t i = 0; rc == MK_OK && i < n; i++) {
        rc = gguf_out_write(out, &one, sizeof one);
    }
    return rc;
}

/* Rows of the output that are 0 have a logit of 0, and the largest of many others is above that. */
static uint64_t silent_bytes(const model *m, const planned *t)
{
    return m->options->words && strcmp(t->name, "output.weight") == 0
               ? (uint64_t)ggml_row_size(t->type, t->ne[0]) * VOCAB_BYTES_TOKENS
               : 0;
}

static int write_weights(const model *m, gguf_out *out, const planned *t)
{
    const uint64_t n_silent = silent_bytes(m, t);
    int rc = MK_OK;
    for (uint64_t i = 0; rc == MK_OK && i < n_silent; i++) {
        rc = gguf_out_write(out, "", 1);
    }
    return rc == MK_OK ? filler_write(m->weights, out, t->type, t->deviation, slice_bytes(t) - n_silent, (uint64_t)t->ne[2]) : rc;
}

static int write_part(const model *m, uint32_t part)
{
    uint32_t n_parts = m->options->n_parts > 1 ? m->options->n_parts : 1;
    size_t first = m->n_tensors * part / n_parts;
    size_t end = m->n_tensors * (part + 1) / n_parts;
    char path[OUT_PATH_BYTES];
    int rc = part_path(m, part, path);
    if (rc != MK_OK) {
        return rc;
    }
    struct gguf_context *header = part_header(m, part, first, end);
    if (!header) {
        return MK_FAILURE;
    }
    gguf_out out;
    rc = gguf_out_open(&out, path, header, m->options->progress);
    if (rc == MK_OK) {
        for (size_t i = first; rc == MK_OK && i < end; i++) {
            const planned *t = &m->tensors[i];
            rc = gguf_out_begin(&out, t->name);
            if (rc == MK_OK) {
                rc = t->deviation > 0.0f ? write_weights(m, &out, t) : write_ones(&out, t->ne[0]);
            }
            if (rc == MK_OK) {
                rc = gguf_out_end(&out);
            }
        }
        if (rc == MK_OK) {
            rc = gguf_out_commit(&out);
        }
        gguf_out_abort(&out);
    }
    gguf_free(header);
    return rc;
}

static int write_parts(const model *m)
{
    uint32_t n_parts = m->options->n_parts > 1 ? m->options->n_parts : 1;
    int rc = MK_OK;
    uint32_t part = 0;
    while (part < n_parts && (rc = write_part(m, part)) == MK_OK) {
        part++;
    }
    /* some parts of a model are of no use */
    while (rc != MK_OK && part > 0) {
        char path[OUT_PATH_BYTES];
        if (part_path(m, --part, path) == MK_OK) {
            unlink(path);
        }
    }
    return rc;
}

int random_model_write(const model_shape *shape, const random_model_options *options, const char *out_path)
{
    model m = {.shape = shape, .options = options, .out_path = out_path};
    m.n_layers = options->n_layers > 0 ? options->n_layers : shape->n_layers;
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (strcmp(archs[i].name, shape->arch) == 0) {
            m.traits = &archs[i];
        }
    }
    if (!m.traits) {
        return mk_fail("shape '%s' is of an unknown architecture '%s'", shape->name, shape->arch);
    }
    if (options->words && shape->tied) {
        return mk_fail("shape '%s' has no output of its own that could leave tokens out", shape->name);
    }
    if (options->n_parts > MAX_PARTS) {
        return mk_fail("%" PRIu32 " parts are more than %d", options->n_parts, MAX_PARTS);
    }
    int rc = set_metadata(&m);
    if (rc == MK_OK) {
        rc = plan_tensors(&m);
    }
    if (rc == MK_OK) {
        rc = reserve_weights(&m);
    }
    if (rc == MK_OK) {
        rc = write_parts(&m);
    }
    filler_close(m.weights);
    free(m.tensors);
    gguf_free(m.metadata);
    return rc;
}
