/*
 * survey.c - see survey.h.
 *
 * What always holds: a tensor whose use the executor could not page has the flag
 * OTHER; a tensor that no graph reads (an encoder's, say) has no flags at all.
 * Names are the key: tied embeddings are two ggml tensors of one name, and their
 * uses are joined.
 */
#include "engine/prepare/survey.h"

#include "base/status.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_shim.h"
#include "engine/prepare/computable.h"
#include "hw/patience.h"

#include "ggml-impl.h"

#include <stdlib.h>

#define PLANNED "for the model to be planned" /* hypura_patience: each step that returns is a sign of life */

/* Weight tensors of libllama -> index in the map; open addressing. */
typedef struct weight_index {
    const struct ggml_tensor **keys;
    int *values;
    size_t capacity; /* power of two, at most half full */
    size_t count;
    const hypura_map *map;
    bool on_host;        /* the CPU computes with all of them */
    enum ggml_op bad_op; /* which it cannot compute, for the type of this weight; NONE: it can compute all */
    int bad_weight;
} weight_index;

static size_t slot_of(const weight_index *index, const struct ggml_tensor *tensor)
{
    size_t i = (size_t)(((uintptr_t)tensor >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (index->capacity - 1);
    while (index->keys[i] && index->keys[i] != tensor) {
        i = (i + 1) & (index->capacity - 1);
    }
    return i;
}

static bool add_weight(void *user, const char *name, struct ggml_tensor *tensor)
{
    weight_index *index = user;
    int at = hypura_map_find(index->map, name);
    if (at < 0) {
        return true; /* made by libllama itself, such as rope factors */
    }
    if (2 * (index->count + 1) > index->capacity) {
        return false;
    }
    size_t slot = slot_of(index, tensor);
    if (!index->keys[slot]) {
        index->keys[slot] = tensor;
        index->values[slot] = at;
        index->count++;
    }
    return true;
}

static bool count_weight(void *user, const char *name, struct ggml_tensor *tensor)
{
    (void)name;
    (void)tensor;
    (*(size_t *)user)++;
    return true;
}

static void index_close(weight_index *index)
{
    free(index->keys);
    free(index->values);
}

static bool index_open(weight_index *index, const hypura_map *map, const struct llama_model *model, bool on_host)
{
    size_t n = 0;
    hypura_shim_weights(model, count_weight, &n);
    *index = (weight_index){.map = map, .on_host = on_host, .capacity = 16};
    while (index->capacity < 2 * (n + 1)) {
        index->capacity *= 2;
    }
    index->keys = calloc(index->capacity, sizeof(*index->keys));
    index->values = calloc(index->capacity, sizeof(*index->values));
    if (!index->keys || !index->values) {
        index_close(index);
        return false;
    }
    hypura_shim_weights(model, add_weight, index);
    return true;
}

static uint32_t use_of(const struct ggml_tensor *node, int src, bool through_view)
{
    const struct ggml_tensor *weight = node->src[src];
    if (through_view || src != 0 || !ggml_is_contiguous(weight)) {
        return HYPURA_USE_OTHER;
    }
    switch (node->op) {
    case GGML_OP_MUL_MAT:
        return weight->ne[2] == 1 && weight->ne[3] == 1 ? HYPURA_USE_MUL_MAT : HYPURA_USE_OTHER;
    case GGML_OP_MUL_MAT_ID:
        return HYPURA_USE_MUL_MAT_ID;
    case GGML_OP_GET_ROWS:
        return HYPURA_USE_GET_ROWS;
    default:
        return HYPURA_USE_OTHER;
    }
}

static bool computes(const struct ggml_tensor *node)
{
    return !ggml_op_is_empty(node->op) && (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
}

static bool is_product(const weight_index *index, const struct ggml_tensor *node)
{
    const bool reads = node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_MUL_MAT_ID || node->op == GGML_OP_GET_ROWS;
    const struct ggml_tensor *read = reads ? node->src[0] : NULL;
    return read && index->keys[slot_of(index, read->view_src ? read->view_src : read)];
}

/* A token's row of embeddings is neither: it may be read from the drive. */
static void add_node(hypura_nodes *others, const weight_index *index, const struct ggml_tensor *node)
{
    if (!is_product(index, node)) {
        hypura_nodes_add(others, node);
    } else if (node->op != GGML_OP_GET_ROWS) {
        hypura_nodes_add_product(others, node);
    }
}

static hypura_status refuse_type(const hypura_map *map, int weight, const char *use, hypura_error *error)
{
    const hypura_tensor *tensor = &map->tensors[weight];
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                       "%s: tensor '%s' is of type %s, with which llama.cpp cannot compute (%s): convert the model again",
                       map->files[tensor->file], tensor->name, tensor->type_name, use);
}

/* Rows of integers are fine for a table of experts, and not for what every layer goes on with: no graph is built of them. */
static hypura_status check_embeddings(const hypura_map *map, hypura_error *error)
{
    for (int t = 0; t < map->n_tensors; t++) {
        const hypura_role role = map->tensors[t].role;
        const bool embeds = role == HYPURA_ROLE_EMBEDDING || role == HYPURA_ROLE_LAYER_EMBEDDING;
        if (embeds && map->tensors[t].type == GGML_TYPE_I32) {
            return refuse_type(map, t, "embedding", error);
        }
    }
    return HYPURA_OK;
}

/* Remembers the first weight that is of a type for something else. */
static void note_bad(weight_index *index, const struct ggml_tensor *node, int src, int weight)
{
    if (index->on_host && index->bad_op == GGML_OP_NONE && !hypura_computable(node, src)) {
        index->bad_op = node->op;
        index->bad_weight = weight;
    }
}

/* Graphs hold branches that a given batch does not compute: their uses count for
 * what may be paged, since another batch computes them, not for order.
 * decode: this is the graph of one token of each sequence, from which order and counts come. */
static void walk(weight_index *index, struct ggml_cgraph *graph, bool decode, hypura_nodes *others,
                 hypura_survey *survey)
{
    uint32_t n_products = 0;
    const int n_nodes = ggml_graph_n_nodes(graph);
    for (int i = 0; i < n_nodes; i++) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        if (others && computes(node)) {
            add_node(others, index, node);
        }
        for (int src = 0; src < GGML_MAX_SRC; src++) {
            const struct ggml_tensor *read = node->src[src];
            if (!read) {
                continue;
            }
            const struct ggml_tensor *weight = read->view_src ? read->view_src : read;
            size_t slot = slot_of(index, weight);
            if (!index->keys[slot]) {
                continue;
            }
            note_bad(index, node, src, index->values[slot]);
            hypura_use *use = &survey->uses[index->values[slot]];
            uint32_t flag = use_of(node, src, weight != read);
            use->flags |= flag;
            if (decode && flag == HYPURA_USE_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE)) {
                use->n_mul_mat++;
                if (use->order == UINT32_MAX) {
                    use->order = n_products;
                }
                n_products++;
            }
        }
    }
}

/* Token texts, their table and the merge ranks, as libllama keeps them: measured
 * 312 bytes a token (byte-pair encoding, 49152 tokens), rounded up for longer texts. */
static uint64_t estimate_vocab_bytes(const struct llama_model *model)
{
    return (uint64_t)llama_vocab_n_tokens(llama_model_get_vocab(model)) * 400;
}

static hypura_status take(const hypura_map *map, const hypura_context_options *options, bool on_host,
                          struct llama_model *model, struct llama_context *ctx, hypura_nodes *others,
                          hypura_survey *survey, hypura_error *error)
{
    weight_index index;
    if (!index_open(&index, map, model, on_host)) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to survey %d tensors", map->path, map->n_tensors);
    }
    survey->n_context = options->n_context;
    survey->n_ubatch = options->n_ubatch;

    hypura_status status = HYPURA_OK;
    struct ggml_cgraph *graph = NULL;
    const uint32_t n_outputs = options->n_outputs < options->n_ubatch ? options->n_outputs : options->n_ubatch;
    const uint32_t n_sequences = options->n_sequences > 0 ? options->n_sequences : 1;
    const uint32_t n_whole = (options->n_ubatch + n_sequences - 1) / n_sequences * n_sequences;
    hypura_log_clear();
    hypura_shim_guard_begin();
    hypura_shim_bytes bytes;
    bool ok = hypura_shim_context_bytes(ctx, &bytes);
    survey->kv_bytes = bytes.kv;
    survey->compute_bytes = bytes.compute;
    survey->checkpoint_bytes = bytes.checkpoint;
    survey->device_kv_bytes = bytes.device_kv;
    uint64_t host_bytes;
    uint64_t device_bytes;
    hypura_shim_adapter_bytes(model, &host_bytes, &device_bytes);
    survey->adapter_bytes = host_bytes + device_bytes;
    survey->device_compute_bytes = bytes.device_compute + device_bytes;
    if (ok && (graph = hypura_shim_graph(ctx, n_sequences, n_sequences, n_sequences)) != NULL) {
        walk(&index, graph, true, others, survey);
    }
    if (graph && (graph = hypura_shim_graph(ctx, n_whole, n_sequences, n_outputs)) != NULL) {
        walk(&index, graph, false, NULL, survey);
    }
    hypura_shim_guard_end();
    if (!graph) {
        status = hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s: llama.cpp cannot build this model's graph", map->path);
    }
    if (index.bad_op != GGML_OP_NONE) {
        status = refuse_type(map, index.bad_weight, ggml_op_name(index.bad_op), error);
    }
    index_close(&index);
    return status;
}

hypura_status hypura_survey_take(const hypura_map *map, const hypura_context_options *options,
                                 const hypura_load_gpu *gpu, hypura_nodes *others, hypura_survey_look_fn look,
                                 void *look_user, hypura_survey **out, uint64_t *vocab_bytes, hypura_error *error)
{
    *out = NULL;
    *vocab_bytes = 0;
    if (check_embeddings(map, error) != HYPURA_OK) {
        return HYPURA_ERR_UNSUPPORTED;
    }
    hypura_survey *survey = calloc(1, sizeof(*survey));
    if (survey) {
        survey->n_uses = map->n_tensors;
        survey->uses = calloc((size_t)map->n_tensors + 1, sizeof(*survey->uses));
    }
    if (!survey || !survey->uses) {
        hypura_survey_free(survey);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to survey %d tensors", map->path, map->n_tensors);
    }
    for (int i = 0; i < survey->n_uses; i++) {
        survey->uses[i].order = UINT32_MAX;
    }

    struct llama_model *model = NULL;
    struct llama_context *ctx = NULL;
    hypura_patience patience;
    hypura_load_lock();
    const char *here = gpu->n_here > 0 ? ggml_backend_dev_name(gpu->devices[0]) : NULL;
    hypura_status status = hypura_patience_open(&patience, here != NULL, here, PLANNED, error);
    if (status == HYPURA_OK) {
        status = hypura_load_model(map, look ? HYPURA_LOAD_SURVEY : HYPURA_LOAD_SHAPES, gpu, HYPURA_FORM_FILE, NULL, NULL,
                                   &model, error);
    }
    if (status == HYPURA_OK && look) {
        status = look(look_user, model, error);
    }
    if (status == HYPURA_OK) {
        hypura_patience_turn(&patience, here, PLANNED);
        *vocab_bytes = estimate_vocab_bytes(model);
        status = hypura_load_context(model, options, &ctx, error);
    }
    if (status == HYPURA_OK) {
        hypura_patience_turn(&patience, here, PLANNED);
        status = take(map, options, gpu->n == 0, model, ctx, others, survey, error);
    }
    llama_free(ctx);
    llama_model_free(model);
    hypura_patience_close(&patience);
    hypura_load_unlock();

    if (status != HYPURA_OK) {
        hypura_survey_free(survey);
        return status;
    }
    *out = survey;
    return HYPURA_OK;
}

void hypura_survey_free(hypura_survey *survey)
{
    if (survey) {
        free(survey->uses);
        free(survey);
    }
}
