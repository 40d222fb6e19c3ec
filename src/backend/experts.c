/*
 * experts.c - computes a chain with leased slots.
 *
 * The idea. Pairs (token, selected expert) are independent, and each expert's rows
 * may be computed whenever its matrices are present, as long as all rows of one
 * expert go through the same call (kernels choose their path by the number of
 * rows). So:
 *
 *  - Everything present: libllama's nodes as they are, with the slots as weights
 *    and the ids rewritten to slot numbers. No row is copied.
 *  - Of a batch, three rows in four: the same, with the others' ids rewritten to a slot that
 *    reads as zeros. Their results are of no use; the groups below overwrite them.
 *  - Otherwise, or where several rows of an expert are computed together
 *    (expert_batch.c), in groups of experts, those present first, while the others load:
 *    the rows of the group's pairs are gathered, taken through the whole chain, and
 *    scattered to where libllama's nodes keep them. An expert of large matrices that
 *    is waited for is taken through the chain as these arrive, one after the other.
 *    Of one token, what is present while the rest loads is computed by the calling thread
 *    alone where that is soon enough (predict/alone.h), with the team asleep.
 *    Experts are leased as slots become free, so that a batch may need more experts
 *    than there are slots and still reads each one once.
 *
 * This file leases and decides; expert_rows.c computes the rows of a group.
 */
#include "backend/experts.h"

#include "ggml-cpu.h"

#include <stdatomic.h>
#include <string.h>

#define GROUP_ROWS 256 /* gathered at once, unless one expert has more */
#define MOST_SCRATCH 131072
#define WIDE_ROWS  512 /* of which most may be computed at once while the rest loads */

/* ---- what is needed -------------------------------------------------------- */

static int32_t id_at(const backend_chain *work, uint32_t pair)
{
    const uint32_t token = pair / (uint32_t)work->n_used;
    const uint32_t rank = pair % (uint32_t)work->n_used;
    return *(const int32_t *)((const char *)work->ids->data + token * work->ids->nb[1] + rank * work->ids->nb[0]);
}

static size_t experts_of_next(const chain_work *work)
{
    const hypura_map *map = hypura_pager_map(work->pager);
    return work->bundle + 1 < map->n_bundles ? (size_t)map->bundles[work->bundle + 1].n_experts : 0;
}

static bool reserve(chain_work *work)
{
    backend_instance *instance = work->instance;
    const uint32_t    n_all = (uint32_t)hypura_pager_map(work->pager)->bundles[work->bundle].n_experts;
    const size_t      n = (size_t)work->chain->n;
    const size_t      per_pair = sizeof(int32_t) * (6 + 2 * n);
    const size_t      per_expert = sizeof(expert_rows) + 7 * sizeof(uint32_t) + n * 64;
    const size_t      foreseen = experts_of_next(work) * (sizeof(uint32_t) + backend_foresee_bytes(work->chain));
    return arena_reserve(&instance->indices, work->n_pairs * per_pair + n_all * per_expert + foreseen + 64 * 1024);
}

/* Counting sort of the pairs by expert, stable: rows of an expert keep the order
 * in which the kernel itself would take them. */
static enum ggml_status sort_pairs(chain_work *work)
{
    backend_arena *arena = &work->instance->indices;
    const uint32_t n_all = (uint32_t)hypura_pager_map(work->pager)->bundles[work->bundle].n_experts;
    uint32_t      *counts = arena_take(arena, (n_all + 1) * sizeof(*counts));
    work->pairs = arena_take(arena, work->n_pairs * sizeof(*work->pairs));
    work->experts = arena_take(arena, n_all * sizeof(*work->experts));
    work->wanted = arena_take(arena, n_all * sizeof(*work->wanted));
    work->slots = arena_take(arena, n_all * sizeof(*work->slots));
    work->n_uses = arena_take(arena, n_all * sizeof(*work->n_uses));
    work->ages = arena_take(arena, n_all * sizeof(*work->ages));
    work->foreseen = arena_take(arena, experts_of_next(work) * sizeof(*work->foreseen));
    memset(counts, 0, (n_all + 1) * sizeof(*counts));
    for (uint32_t p = 0; p < work->n_pairs; p++) {
        const int32_t id = id_at(work->chain, p);
        if (id < 0 || (uint32_t)id >= n_all) {
            GGML_LOG_ERROR("hypura: expert id %d of %u\n", id, n_all);
            return GGML_STATUS_FAILED;
        }
        counts[id + 1]++;
    }
    for (uint32_t e = 0; e < n_all; e++) {
        if (counts[e + 1] > 0) {
            work->experts[work->n_experts++] =
                (expert_rows){.expert = e, .slot = UINT32_MAX, .first = counts[e], .n = counts[e + 1]};
            work->group_rows = counts[e + 1] > work->group_rows ? counts[e + 1] : work->group_rows;
        }
        counts[e + 1] += counts[e];
    }
    for (uint32_t p = 0; p < work->n_pairs; p++) {
        work->pairs[counts[id_at(work->chain, p)]++] = (int32_t)p;
    }
    return GGML_STATUS_SUCCESS;
}

/* A selection may reach us as several chains. They belong to one visit of the layer
 * as long as no product of it comes a second time. */
static bool begins_visit(const chain_work *work)
{
    backend_instance *instance = work->instance;
    uint32_t          matrices = 0;
    for (int i = 0; i < work->chain->n; i++) {
        matrices |= work->chain->nodes[i].kind == CHAIN_PRODUCT ? 1u << work->chain->nodes[i].matrix : 0;
    }
    const bool same = instance->visited_pager == work->pager && instance->visited_bundle == work->bundle &&
                      (instance->visited_matrices & matrices) == 0;
    instance->visited_pager = work->pager;
    instance->visited_bundle = work->bundle;
    instance->visited_matrices = same ? instance->visited_matrices | matrices : matrices;
    return !same;
}

static void tell_visit(chain_work *work)
{
    const uint32_t n_used = (uint32_t)work->chain->n_used;
    const uint32_t n_tokens = (uint32_t)work->chain->n_tokens;
    for (uint32_t i = 0; i < work->n_experts; i++) {
        const expert_rows *expert = &work->experts[i];
        const uint32_t     last = (uint32_t)work->pairs[expert->first + expert->n - 1] / n_used;
        work->wanted[i] = expert->expert;
        work->n_uses[i] = expert->n;
        work->ages[i] = n_tokens - 1 - last;
    }
    hypura_pager_begin_layer(work->pager, work->bundle, n_tokens);
    hypura_pager_visit_experts(work->pager, work->bundle, n_tokens, work->wanted, work->n_experts, work->n_uses,
                               work->ages);
}

/* ---- leases ---------------------------------------------------------------- */

static uint32_t lease_more(chain_work *work)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < work->n_experts; i++) {
        if (!work->experts[i].done && work->experts[i].slot == UINT32_MAX) {
            work->wanted[n++] = work->experts[i].expert;
        }
    }
    if (n == 0) {
        return 0;
    }
    const uint32_t leased = hypura_pager_lease_experts(work->pager, work->bundle, work->wanted, n, work->slots);
    for (uint32_t i = 0, at = 0; i < work->n_experts; i++) {
        if (!work->experts[i].done && work->experts[i].slot == UINT32_MAX) {
            work->experts[i].slot = work->slots[at++];
        }
    }
    return leased;
}

static void release(chain_work *work, expert_rows *expert)
{
    hypura_pager_release_expert(work->pager, work->bundle, expert->slot);
    expert->slot = UINT32_MAX;
}

static void release_all(chain_work *work)
{
    for (uint32_t i = 0; i < work->n_experts; i++) {
        if (work->experts[i].slot != UINT32_MAX) {
            release(work, &work->experts[i]);
        }
    }
}

/* ---- libllama's nodes as they are -------------------------------------------- */

bool experts_single_groups;
uint64_t experts_most_scratch = MOST_SCRATCH;

static uint32_t wide_rows = WIDE_ROWS;
static atomic_uint_fast64_t most_at_once;

void backend_set_single_groups(bool on)
{
    experts_single_groups = on;
}

void backend_set_wide(bool always)
{
    experts_most_scratch = always ? 0 : MOST_SCRATCH;
    wide_rows = always ? 1 : WIDE_ROWS;
}

uint64_t backend_count_most(void)
{
    return atomic_load(&most_at_once);
}

/* Finds out which experts are present: their number, of rows too. */
static uint32_t find_present(chain_work *work, uint32_t *n_rows)
{
    uint32_t n = 0;
    *n_rows = 0;
    for (uint32_t i = 0; i < work->n_experts; i++) {
        expert_rows *expert = &work->experts[i];
        expert->present = expert->slot != UINT32_MAX && expert_ready(work, expert);
        n += expert->present;
        *n_rows += expert->present ? expert->n : 0;
    }
    return n;
}

/* Rows of experts that are absent go to the blank slot; what comes of them is overwritten later. False, with nothing
 * computed, where memory is short. */
static bool run_nodes(chain_work *work, uint32_t first_slot, uint32_t n_slots, uint32_t n_present, enum ggml_status *status)
{
    backend_instance *instance = work->instance;
    const backend_chain *chain = work->chain;
    const uint32_t    blank = hypura_pager_blank_slot(work->pager, work->bundle);
    int32_t          *ids = arena_take(&instance->indices, work->n_pairs * sizeof(*ids));
    for (uint32_t i = 0; i < work->n_experts; i++) {
        const expert_rows *expert = &work->experts[i];
        const uint32_t slot = expert->present ? expert->slot : blank;
        for (uint32_t r = 0; r < expert->n; r++) {
            ids[work->pairs[expert->first + r]] = (int32_t)(slot - first_slot);
        }
    }
    struct ggml_tensor *slot_ids =
        shadow_tensor(instance, GGML_TYPE_I32, chain->n_used, chain->n_tokens, 1, ids);
    for (int i = 0; i < chain->n; i++) {
        struct ggml_tensor *node = chain->nodes[i].node;
        if (chain->nodes[i].kind == CHAIN_PRODUCT) {
            struct ggml_tensor *copy = shadow_copy(instance, node);
            copy->src[0] = expert_weights(work, &chain->nodes[i], first_slot, n_slots);
            copy->src[2] = slot_ids;
            node = copy;
        }
        shadow_add(instance, node);
    }
    if ((uint64_t)n_slots * work->n_pairs > experts_most_scratch) {
        return shadow_run_sparse(instance, n_present, status);
    }
    *status = shadow_run(instance);
    return true;
}

static bool can_run_nodes(const chain_work *work)
{
    /* Group by group takes several rows of an expert together. */
    return !work->batched && !experts_single_groups;
}

/* Everything is present. False: nothing was computed. */
static bool run_whole(chain_work *work, enum ggml_status *status)
{
    uint32_t first_slot, n_slots, n_rows;
    if (!can_run_nodes(work) || find_present(work, &n_rows) < work->n_experts) {
        return false;
    }
    expert_slot_range(work, NULL, work->n_experts, &first_slot, &n_slots);
    return run_nodes(work, first_slot, n_slots, work->n_experts, status);
}

/* ---- in groups ---------------------------------------------------------------- */

static void join(chain_work *work, row_group *group, uint32_t index)
{
    group->members[group->n++] = index;
    group->n_rows += work->experts[index].n;
}

/* Those ready join; when none is, the one leased longest is taken as it arrives. */
static void pick_group(chain_work *work, row_group *group)
{
    for (;;) {
        uint32_t waited = UINT32_MAX;
        for (uint32_t i = 0; i < work->n_experts; i++) {
            const expert_rows *expert = &work->experts[i];
            if (expert->done || expert->slot == UINT32_MAX) {
                continue;
            }
            if (!expert_ready(work, expert)) {
                waited = waited == UINT32_MAX ? i : waited;
                continue;
            }
            const bool fits = group->n == 0 || (!experts_single_groups && group->n_rows + expert->n <= work->group_rows);
            if (fits && shadow_has_room(work->instance, (int)(group->n + 1) * 4 * work->chain->n + 64)) {
                join(work, group, i);
            }
        }
        if (group->n == 0 && waited != UINT32_MAX) {
            join(work, group, waited);
            group->waits = true;
        }
        if (group->n > 0) {
            return;
        }
        hypura_pager_wait_slot(work->pager, work->bundle);
        lease_more(work);
    }
}

static bool is_one_absent(const chain_work *work)
{
    for (uint32_t i = 0; i < work->n_experts; i++) {
        const expert_rows *expert = &work->experts[i];
        if (!expert->done && (expert->slot == UINT32_MAX || !expert_ready(work, expert))) {
            return true;
        }
    }
    return false;
}

/* Of one token, what is present while the rest is read: by this thread, if it is done with it in time. Where
 * all look for what they wait for they are awake soon, and all compute it. */
static bool is_for_one_thread(chain_work *work, const row_group *group, uint64_t bytes)
{
    return work->chain->n_tokens == 1 && !group->waits && work->instance->n_threads > 1 &&
           !hypura_pager_is_looked_for(work->pager) && is_one_absent(work) &&
           hypura_alone_fits(&work->instance->alone, bytes, hypura_pager_pending_us(work->pager));
}

static enum ggml_status run_group(chain_work *work, row_group *group)
{
    backend_instance *instance = work->instance;
    const uint64_t    bytes = group->n_rows * hypura_pager_map(work->pager)->bundles[work->bundle].expert_bytes;
    if (!is_for_one_thread(work, group, bytes)) {
        return expert_rows_run(work, group);
    }
    const uint64_t         begun_us = shadow_begin_alone(instance);
    const enum ggml_status status = expert_rows_run(work, group);
    shadow_end_alone(instance, begun_us, &instance->alone, bytes);
    return status;
}

static void end_expert(chain_work *work, uint32_t index)
{
    work->experts[index].done = true;
    release(work, &work->experts[index]);
}

/* How many experts are present, where a batch has three rows in four of those; else 0. */
static uint32_t find_most(chain_work *work)
{
    uint32_t n_rows;
    if (work->n_pairs < wide_rows || !can_run_nodes(work) ||
        hypura_pager_blank_slot(work->pager, work->bundle) == UINT32_MAX) {
        return 0;
    }
    const uint32_t n = find_present(work, &n_rows);
    return n_rows >= work->n_pairs / 4 * 3 ? n : 0;
}

/* Those at once. False: nothing was computed. */
static bool run_most(chain_work *work, uint32_t n_present, enum ggml_status *status)
{
    const uint32_t blank = hypura_pager_blank_slot(work->pager, work->bundle);
    uint32_t       first_slot = blank;
    for (uint32_t i = 0; i < work->n_experts; i++) {
        const expert_rows *expert = &work->experts[i];
        first_slot = expert->present && expert->slot < first_slot ? expert->slot : first_slot;
    }
    if (!run_nodes(work, first_slot, blank - first_slot + 1, n_present, status)) {
        return false;
    }
    atomic_fetch_add_explicit(&most_at_once, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < work->n_experts; i++) {
        if (work->experts[i].present) {
            end_expert(work, i);
        }
    }
    lease_more(work);
    return true;
}

static enum ggml_status run_groups(chain_work *work)
{
    backend_instance *instance = work->instance;
    uint32_t         *members = arena_take(&instance->indices, work->n_experts * sizeof(*members));
    const uint32_t    n_most = find_most(work);
    enum ggml_status  status = GGML_STATUS_SUCCESS;
    if (!members || !expert_rows_begin(work, n_most > 0)) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    uint32_t n_done = n_most > 0 && run_most(work, n_most, &status) ? n_most : 0;
    const size_t indices_mark = instance->indices.used;
    const size_t rows_mark = instance->rows.used;
    while (status == GGML_STATUS_SUCCESS && n_done < work->n_experts) {
        instance->n_tensors = 0;
        instance->rows.used = rows_mark;
        instance->indices.used = indices_mark;
        row_group group = {.members = members};
        pick_group(work, &group);
        status = run_group(work, &group);
        for (uint32_t i = 0; status == GGML_STATUS_SUCCESS && i < group.n; i++) {
            end_expert(work, members[i]);
        }
        n_done += group.n;
        if (status == GGML_STATUS_SUCCESS) {
            lease_more(work);
        }
    }
    return status;
}

static void note_selection(const chain_work *work)
{
    const struct ggml_tensor *ids = work->chain->ids;
    const hypura_selection selection = {.bundle = work->bundle,
                                        .selected = {.n_used = (uint32_t)work->chain->n_used,
                                                     .n_tokens = (uint32_t)work->chain->n_tokens,
                                                     .ids = ids->data,
                                                     .rank_stride_bytes = ids->nb[0],
                                                     .token_stride_bytes = ids->nb[1]}};
    hypura_pager_note_selection(work->pager, &selection);
}

enum ggml_status backend_run_chain(backend_instance *instance, const backend_chain *chain)
{
    chain_work work = {
        .instance = instance,
        .chain = chain,
        .pager = chain->weight->pager,
        .bundle = chain->weight->bundle,
        .n_pairs = (uint32_t)(chain->n_used * chain->n_tokens),
        .group_rows = GROUP_ROWS,
    };
    shadow_begin(instance);
    if (work.n_pairs == 0) {
        return GGML_STATUS_SUCCESS;
    }
    if (!reserve(&work)) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    enum ggml_status status = sort_pairs(&work);
    if (status != GGML_STATUS_SUCCESS) {
        return status;
    }
    note_selection(&work);
    const bool begins = begins_visit(&work);
    bool told = !begins;
    if (begins) {
        tell_visit(&work);
        told = backend_foresee_batch(instance, chain, work.foreseen);
    }
    lease_more(&work);
    if (!told) {
        backend_foresee(instance, chain, work.foreseen);
    }
    expert_batch_decide(&work);
    if (!run_whole(&work, &status)) {
        status = run_groups(&work);
    }
    release_all(&work);
    return status;
}
