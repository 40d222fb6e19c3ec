/*
 * expert_batch.c - whether the rows of one expert may be computed as one product of two matrices.
 *
 * The CPU backend takes the rows of a MUL_MAT_ID through its kernels one by one, whatever the type; MUL_MAT has kernels
 * for several rows, which take the weights apart once for all of them: two to three times as fast. For some types these
 * add up in the same order and give the same bits, for others they do not. So each kind of weight is tried when it is
 * first met: real weights, made-up rows, several numbers of rows. Only what gives the same bits in all of them, and is
 * faster, is used. Bits are compared as the team computes them, time is taken of one thread: how a few rows of a narrow
 * matrix are dealt out to many threads says nothing of the kernels, and the node they would take the place of is dealt
 * out otherwise.
 */
#include "backend/experts.h"

#include "base/clock.h"
#include "ggml-cpu.h"

#include <stdatomic.h>
#include <string.h>

#define TRIAL_WIDTH    256 /* rows of the matrix at most */
#define TRIAL_ROWS     23
#define TIMED_ROWS     16
#define TIMED_REPEATS  3
#define MIN_GAIN_TENTH 12 /* tenths: as long as libllama's node takes */

static const uint32_t trial_rows[] = {2, 3, 4, 5, 7, 8, TIMED_ROWS, TRIAL_ROWS};

static atomic_uint_fast64_t tried;
static atomic_uint_fast64_t computed;

void backend_count_batches(uint64_t *n_tried, uint64_t *n_rows)
{
    *n_tried = atomic_load(&tried);
    *n_rows = atomic_load(&computed);
}

typedef struct trial {
    chain_work *work;
    const chain_node *product;
    uint32_t slot;
    float *source;
    float *by_rows;
    float *at_once;
    bool *stopped; /* out: a graph did not come to its end */
} trial;

/* ---- the two ways ------------------------------------------------------------- */

struct ggml_tensor *expert_batch_rows(backend_instance *instance, const struct ggml_tensor *rows, uint32_t first,
                                      uint32_t n)
{
    const size_t stride = rows->ne[1] == 1 ? rows->nb[2] : rows->nb[1];
    struct ggml_tensor *part =
        shadow_tensor(instance, GGML_TYPE_F32, rows->ne[0], n, 1, (char *)rows->data + first * stride);
    part->nb[1] = stride;
    part->nb[2] = part->nb[3] = stride * n;
    return part;
}

void expert_batch_product(struct ggml_tensor *node, struct ggml_tensor *weights, struct ggml_tensor *rows)
{
    atomic_fetch_add_explicit(&computed, (uint64_t)rows->ne[1], memory_order_relaxed);
    node->op = GGML_OP_MUL_MAT;
    node->src[0] = weights;
    node->src[1] = rows;
    node->src[2] = NULL;
}

static struct ggml_tensor *trial_weights(const trial *t, int64_t width)
{
    struct ggml_tensor *weights = expert_weights(t->work, t->product, t->slot, 1);
    weights->ne[1] = width;
    return weights;
}

/* The product's node with a result of this shape at data; it has no sources yet. */
static struct ggml_tensor *trial_node(const trial *t, int64_t width, int64_t n_rows, int64_t n_ids, float *data)
{
    backend_instance *instance = t->work->instance;
    struct ggml_tensor *node = shadow_copy(instance, t->product->node);
    const struct ggml_tensor *shape = shadow_tensor(instance, GGML_TYPE_F32, width, n_rows, n_ids, data);
    memcpy(node->ne, shape->ne, sizeof(node->ne));
    memcpy(node->nb, shape->nb, sizeof(node->nb));
    node->data = data;
    return node;
}

/* Where there is no memory for ids, nothing is equal. */
static bool add_by_rows(const trial *t, uint32_t n, int64_t width)
{
    backend_instance *instance = t->work->instance;
    int32_t *zeros = arena_take(&instance->indices, n * sizeof(*zeros));
    if (!zeros) {
        return false;
    }
    memset(zeros, 0, n * sizeof(*zeros));
    struct ggml_tensor *node = trial_node(t, width, 1, n, t->by_rows);
    node->src[0] = trial_weights(t, width);
    node->src[1] = shadow_tensor(instance, GGML_TYPE_F32, t->product->node->src[0]->ne[0], 1, n, t->source);
    node->src[2] = shadow_tensor(instance, GGML_TYPE_I32, 1, n, 1, zeros);
    shadow_add(instance, node);
    return true;
}

static void add_at_once(const trial *t, uint32_t n, int64_t width)
{
    backend_instance *instance = t->work->instance;
    struct ggml_tensor *node = trial_node(t, width, n, 1, t->at_once);
    expert_batch_product(
        node, trial_weights(t, width),
        shadow_tensor(instance, GGML_TYPE_F32, t->product->node->src[0]->ne[0], n, 1, t->source));
    shadow_add(instance, node);
}

/* ---- a trial ------------------------------------------------------------------ */

/* Rows of several magnitudes, one of them zero. */
static void fill(float *rows, size_t width, uint32_t n)
{
    uint32_t state = 2463534242u;
    for (uint32_t r = 0; r < n; r++) {
        const float scale = r == 1 ? 0.0f : (float)(1u << r % 8) / 16.0f;
        for (size_t i = 0; i < width; i++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            rows[r * width + i] = ((float)(state >> 8) / 8388608.0f - 1.0f) * scale;
        }
    }
}

static bool run_timed(const trial *t, uint64_t *least_us)
{
    const uint64_t begin_us = hypura_clock_us();
    const bool good = shadow_run(t->work->instance) == GGML_STATUS_SUCCESS;
    const uint64_t took_us = hypura_clock_us() - begin_us;
    *least_us = took_us < *least_us ? took_us : *least_us;
    *t->stopped = *t->stopped || !good;
    return good;
}

static bool run_both(const trial *t, uint32_t n, int64_t width, uint64_t *by_rows_us, uint64_t *at_once_us)
{
    backend_instance *instance = t->work->instance;
    const size_t mark = instance->indices.used;
    bool good = add_by_rows(t, n, width) && run_timed(t, by_rows_us);
    add_at_once(t, n, width);
    good = run_timed(t, at_once_us) && good;
    instance->n_tensors = 0;
    instance->indices.used = mark;
    return good;
}

static bool is_equal(const trial *t, uint32_t n, int64_t width)
{
    uint64_t by_rows_us = 0, at_once_us = 0;
    return run_both(t, n, width, &by_rows_us, &at_once_us) &&
           memcmp(t->by_rows, t->at_once, (size_t)n * (size_t)width * sizeof(float)) == 0;
}

static bool is_faster(const trial *t, int64_t width)
{
    backend_instance *instance = t->work->instance;
    uint64_t by_rows_us = UINT64_MAX, at_once_us = UINT64_MAX;
    bool good = true;
    if (instance->n_threads > 1) {
        ggml_backend_cpu_set_n_threads(instance->inner, 1);
    }
    for (int i = 0; good && i < TIMED_REPEATS; i++) {
        good = run_both(t, TIMED_ROWS, width, &by_rows_us, &at_once_us);
    }
    if (instance->n_threads > 1) {
        ggml_backend_cpu_set_n_threads(instance->inner, instance->n_threads);
    }
    return good && by_rows_us * 10 >= at_once_us * MIN_GAIN_TENTH;
}

static int64_t trial_width(const struct ggml_tensor *weights)
{
    return weights->ne[1] < TRIAL_WIDTH ? weights->ne[1] : TRIAL_WIDTH;
}

static bool reserve_trial(chain_work *work, const struct ggml_tensor *weights)
{
    const size_t n_floats = (size_t)(weights->ne[0] + 2 * trial_width(weights)) * TRIAL_ROWS;
    return arena_reserve(&work->instance->rows, n_floats * sizeof(float) + 1024);
}

static bool try(chain_work *work, const chain_node *product, uint32_t slot, bool *stopped)
{
    backend_arena *arena = &work->instance->rows;
    const struct ggml_tensor *weights = product->node->src[0];
    const int64_t width = trial_width(weights);
    const size_t n_source = (size_t)weights->ne[0] * TRIAL_ROWS;
    const size_t n_result = (size_t)width * TRIAL_ROWS;
    arena->used = 0;
    const trial t = {.work = work,
                     .product = product,
                     .slot = slot,
                     .source = arena_take(arena, n_source * sizeof(float)),
                     .by_rows = arena_take(arena, n_result * sizeof(float)),
                     .at_once = arena_take(arena, n_result * sizeof(float)),
                     .stopped = stopped};
    bool equal = true;
    fill(t.source, (size_t)weights->ne[0], TRIAL_ROWS);
    for (size_t i = 0; equal && i < sizeof trial_rows / sizeof *trial_rows; i++) {
        equal = is_equal(&t, trial_rows[i], width);
    }
    const bool pays = equal && is_faster(&t, width);
    arena->used = 0;
    return pays;
}

/* ---- what is known ------------------------------------------------------------ */

static const backend_batch *find(const backend_instance *instance, const backend_batch *kind)
{
    for (int i = 0; i < instance->n_batches; i++) {
        const backend_batch *known = &instance->batches[i];
        if (known->type == kind->type && known->traits == kind->traits && known->width == kind->width) {
            return known;
        }
    }
    return NULL;
}

/* A kind of weight is its type, its form, and the length of its rows. */
static bool pays(chain_work *work, const chain_node *product, uint32_t slot)
{
    backend_instance *instance = work->instance;
    const hypura_map *map = hypura_pager_map(work->pager);
    const int tensor = map->bundles[work->bundle].tensors[product->matrix];
    const hypura_repack *repack = hypura_pager_repack(work->pager, tensor);
    backend_batch kind = {.type = product->node->src[0]->type,
                          .traits = repack ? repack->traits : NULL,
                          .width = product->node->src[0]->ne[0]};
    const backend_batch *known = find(instance, &kind);
    /* Memory is taken when a kind is first met, though an expert to try may be there only later. */
    const bool unknown = !known && instance->n_batches < BACKEND_MAX_BATCHES;
    if (unknown && reserve_trial(work, product->node->src[0]) && slot != UINT32_MAX) {
        bool stopped = false;
        kind.pays = try(work, product, slot, &stopped);
        if (stopped) {
            return false; /* by who ends the graph: nothing was found out */
        }
        atomic_fetch_add(&tried, 1);
        known = &instance->batches[instance->n_batches];
        instance->batches[instance->n_batches++] = kind;
    }
    return known && known->pays;
}

uint32_t expert_batch_size(const chain_work *work, int index, uint32_t n)
{
    if (!(work->batched & 1u << index)) {
        return 0;
    }
    const hypura_map *map = hypura_pager_map(work->pager);
    const chain_node *product = &work->chain->nodes[index];
    if (!hypura_pager_repack(work->pager, map->bundles[work->bundle].tensors[product->matrix])) {
        return n > 1 ? n : 0;
    }
    /* The kernels of repacked weights take four rows together, and take those that are left one by one: two of these
     * cost more than four together. */
    const uint32_t size = n % EXPERT_BATCH_ROWS > 1 ? n + EXPERT_BATCH_ROWS - n % EXPERT_BATCH_ROWS : n;
    return size >= EXPERT_BATCH_ROWS ? size : 0;
}

/* Most rows belong to experts that have several. */
static bool has_batches(const chain_work *work)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < work->n_experts; i++) {
        n += work->experts[i].n > 1 ? work->experts[i].n : 0;
    }
    return n >= work->n_pairs / 2;
}

void expert_batch_decide(chain_work *work)
{
    uint32_t slot = UINT32_MAX;
    work->batched = 0;
    if (work->chain->n_tokens == 1 || !has_batches(work)) {
        return;
    }
    for (uint32_t i = 0; slot == UINT32_MAX && i < work->n_experts; i++) {
        const expert_rows *expert = &work->experts[i];
        slot = expert->slot != UINT32_MAX && expert_ready(work, expert) ? expert->slot : slot;
    }
    for (int i = 0; i < work->chain->n; i++) {
        const chain_node *entry = &work->chain->nodes[i];
        work->batched |= entry->kind == CHAIN_PRODUCT && pays(work, entry, slot) ? 1u << i : 0;
    }
}
