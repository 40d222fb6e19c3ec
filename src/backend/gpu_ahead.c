/*
 * gpu_ahead.c - one token over a GPU without waiting for every selection. The GPU itself
 * turns selected ids into slots with a table (pager/vram.h), so that a piece can be
 * handed over before the host knows what it will read; the host looks at the ids while
 * the GPU computes, and has the piece computed again when something was missing:
 *
 *     GPU    router | look up, experts, attention, router | look up, experts, ...
 *     host            ids? all there: next piece ........   ids? one missing:
 *                                                           upload it, same piece again
 *
 * What cannot be computed twice (gpu_pieces.c) waits for its ids.
 *
 * The ids come with a copy to pinned memory, which the host polls: a fence would cost
 * two more submissions. The copy is handed over with whatever comes next: the piece that
 * runs ahead, with its lookup in front, or, where nothing may, the lookup alone. Where that
 * would have it wait for uploads, a node behind the router brings them (pager/vram_report.c).
 *
 * What always holds:
 *  1. Pieces whose ids were looked at have computed with the experts that they selected;
 *     at most one piece is in the queue whose ids were not.
 *  2. What a piece computed with wrong experts is overwritten by its repetition before
 *     anything reads it; its ids arrive at a place that nobody looks at.
 *  3. A slot is overwritten only after the ids of the next piece to use any slot have
 *     arrived: everything before has been computed. That piece itself may run meanwhile;
 *     it is repeated then.
 */
#include "backend/gpu_internal.h"

#include "base/clock.h"
#include "base/thread.h"

#include <string.h>

/* Where uploads wait for what is computed, running ahead in vain costs about as much as
 * waiting does, and the upload starts late. */
#define LEAST_ODDS  0.45F
#define ODDS_WEIGHT 0.125F /* of the last selection */

/* Polled for this long, then waited for: a slow device, or one that was lost. */
#define POLL_US 2000
/* A device that let so many waits in a row pass is not polled any more. */
#define POLL_FAILURES 16

static uint64_t poll_us = POLL_US;

void backend_set_poll(bool on)
{
    poll_us = on ? POLL_US : 0;
}

/* CUDA's backend records each part of a piece as a graph of its own, which takes as long as
 * parts save in some fifty repetitions (docs/notes/0079). */
#define PARTS_FROM 24

#define NOT_ARRIVED (-1)

#define LINE_BYTES 64 /* of a cache, or less */

/* ---- ids ------------------------------------------------------------------------- */

/* Layers that follow each other read from different memory. */
static int turn_of(const gpu_walk *walk, const gpu_piece *piece)
{
    return (int)((piece - walk->instance->pieces.list) & 1);
}

void gpu_expect_numbers(void *numbers, size_t n)
{
    int32_t *values = numbers;
    for (size_t i = 0; i < n; i++) {
        values[i] = NOT_ARRIVED;
    }
}

/* Where the ids of a piece arrive. */
static int32_t *numbers_of(const gpu_walk *walk, const gpu_piece *piece, int place)
{
    const int bundle = piece->cut.weight->bundle;
    return piece->reports ? hypura_vram_reported(walk->vram, bundle, place) : hypura_vram_arrivals(walk->vram, bundle, place);
}

static void add_report(const gpu_walk *walk, struct ggml_tensor *node, void *numbers)
{
    gpu_pieces *pieces = &walk->instance->pieces;
    gpu_expect_numbers(numbers, (size_t)node->ne[0]);
    pieces->reports[pieces->n_reports++] = node;
}

/* Before the nodes up to a piece are handed over: what nodes bring to the host of it goes with these. A row that was
 * computed in vain may arrive in place of the one behind it: it only guesses. */
static void prepare_reports(const gpu_walk *walk, const gpu_piece *piece, int place)
{
    gpu_pieces *pieces = &walk->instance->pieces;
    const int bundle = piece->cut.weight->bundle;
    pieces->n_reports = 0;
    pieces->reported_at = piece->cut.at;
    if (piece->reports_row && gpu_asks_next(walk, piece)) {
        add_report(walk, hypura_vram_report_state(walk->vram, bundle, piece->row),
                   hypura_vram_reported_state(walk->vram, bundle));
    }
    if (piece->reports) {
        add_report(walk, hypura_vram_report(walk->vram, bundle, place, piece->cut.ids), numbers_of(walk, piece, place));
    }
}

/* Behind them: has the ids of a piece copied to the host, with whatever is handed over next, where no node brings them. */
static enum ggml_status ask(const gpu_walk *walk, const gpu_piece *piece, int place)
{
    const bool guesses = gpu_asks_next(walk, piece);
    const size_t n = (size_t)piece->cut.ids->ne[0];
    walk->instance->pieces.n_reports = 0;
    hypura_vram_begin_fetch(walk->vram);
    if (guesses) {
        gpu_fetch_row(walk, piece);
    }
    gpu_fetch_input(walk, &piece->chain, turn_of(walk, piece));
    if (!piece->reports) {
        int32_t *numbers = numbers_of(walk, piece, place);
        gpu_expect_numbers(numbers, n);
        hypura_vram_fetch(walk->vram, piece->cut.ids, numbers, n * sizeof(*numbers));
    }
    return guesses ? gpu_ask_router(walk, piece, place) : GGML_STATUS_SUCCESS;
}

static bool have_arrived(const int32_t *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (__atomic_load_n(&numbers[i], __ATOMIC_ACQUIRE) == NOT_ARRIVED) {
            return false;
        }
    }
    return true;
}

void gpu_await_numbers(const gpu_walk *walk, const void *numbers, size_t n, void (*await)(hypura_vram *))
{
    gpu_instance *instance = walk->instance;
    const uint64_t begin_us = hypura_clock_us();
    const uint64_t most_us = instance->n_poll_failures < POLL_FAILURES ? poll_us : 0;
    bool arrived = have_arrived(numbers, n);
    for (unsigned spins = 1; !arrived && (spins % 64 != 0 || hypura_clock_us() - begin_us < most_us); spins++) {
        hypura_thread_relax();
        arrived = have_arrived(numbers, n);
    }
    if (!arrived) {
        await(walk->vram);
        instance->n_poll_failures += most_us > 0;
    } else if (most_us > 0) {
        instance->n_poll_failures = 0;
    }
}

/* The copy of the router that the host will ask, of which its caches have next to nothing: it reads that while it waits
 * anyway (docs/notes/0078). */
static void read_router(const gpu_walk *walk, const gpu_piece *piece, const int32_t *numbers)
{
    const gpu_instance  *instance = walk->instance;
    const bool           host_asks = !piece->gpu_asks && gpu_asks_next(walk, piece);
    const hypura_router *router =
        host_asks ? hypura_pager_router(instance->gpu->pager, piece->cut.weight->bundle + 1) : NULL;
    const size_t row_bytes = router ? ggml_row_size((enum ggml_type)router->type, router->n_inputs) : 0;
    for (uint32_t e = 0; router && e < router->n_experts && !have_arrived(numbers, (size_t)piece->cut.ids->ne[0]); e++) {
        const volatile char *row = (const char *)router->rows + e * row_bytes;
        for (size_t at = 0; at < row_bytes; at += LINE_BYTES) {
            (void)row[at];
        }
    }
}

static const int32_t *wait_ids(const gpu_walk *walk, const gpu_piece *piece, int place)
{
    gpu_instance *instance = walk->instance;
    const int32_t *numbers = numbers_of(walk, piece, place);
    const uint64_t begin_us = hypura_clock_us();
    read_router(walk, piece, numbers);
    gpu_await_numbers(walk, numbers, (size_t)piece->cut.ids->ne[0], hypura_vram_await_fetch);
    instance->arrived_at = place;
    instance->cut_us = hypura_clock_us();
    hypura_vram_arrived(walk->vram);
    memset(instance->stage_used, 0, sizeof(instance->stage_used));
    hypura_pager_add_readback(instance->gpu->pager, instance->cut_us - begin_us);
    gpu_done(walk, HYPURA_GPU_WAIT, &piece->cut, begin_us);
    return numbers;
}

/* Measurements: all selections of the token are known before it. */
static void give_ids(const gpu_walk *walk)
{
    const gpu_instance *instance = walk->instance;
    for (int i = 0; i < instance->pieces.n; i++) {
        const gpu_cut *cut = &instance->pieces.list[i].cut;
        const int layer = hypura_pager_map(instance->gpu->pager)->bundles[cut->weight->bundle].layer;
        int32_t *values = hypura_vram_given_values(walk->vram, cut->weight->bundle);
        instance->gpu->select(instance->gpu->select_user, layer, values, (uint32_t)cut->ids->ne[0], 1);
    }
    hypura_vram_send_given(walk->vram);
}

/* The node that looks up the slots of a piece, alone or as what leads it; *ids is what the
 * products read them from. */
static struct ggml_tensor *lookup_of(const gpu_walk *walk, const gpu_piece *piece, hypura_vram_leads leads,
                                     struct ggml_tensor **ids)
{
    const int bundle = piece->cut.weight->bundle;
    struct ggml_tensor *lookup = hypura_vram_lookup(walk->vram, bundle, leads, ids);
    lookup->src[1] = walk->instance->gpu->select ? hypura_vram_given(walk->vram, bundle) : piece->cut.ids;
    return lookup;
}

static enum ggml_status look_up(const gpu_walk *walk, struct ggml_tensor *lookup)
{
    struct ggml_cgraph graph = ggml_graph_view(walk->graph, 0, 1);
    graph.nodes = &lookup;
    return ggml_backend_graph_compute_async(walk->instance->inner, &graph);
}

/* ---- one piece ------------------------------------------------------------------- */

/* *n_missing of the experts selected were in no slot, and are on their way now; or, with *computes, the processor
 * has them in RAM. */
static enum ggml_status make_present(const gpu_walk *walk, const gpu_piece *piece, const int32_t *ids,
                                     uint32_t *n_missing, bool *computes)
{
    gpu_instance *instance = walk->instance;
    const uint64_t begin_us = gpu_begin(walk);
    const int bundle = piece->cut.weight->bundle;
    const uint32_t n_experts = (uint32_t)hypura_pager_map(instance->gpu->pager)->bundles[bundle].n_experts;
    const int32_t *selected = instance->gpu->select ? hypura_vram_given_values(walk->vram, bundle) : ids;
    const int n = gpu_find_distinct(instance, selected, (size_t)piece->cut.ids->ne[0], n_experts);
    *computes = n >= 0 && gpu_take_missing(walk, &piece->chain, &piece->cut, (uint32_t)n, selected);
    if (*computes) {
        *n_missing = gpu_n_missing(walk);
    } else if (n < 0 || hypura_vram_load(walk->vram, bundle, 1, instance->experts, (uint32_t)n, instance->slots,
                                         n_missing) != HYPURA_OK) {
        return GGML_STATUS_FAILED;
    }
    gpu_note_selection(walk, &piece->cut, selected);
    float *odds = &instance->odds[bundle];
    *odds += ODDS_WEIGHT * ((*n_missing == 0 ? 1.0F : 0.0F) - *odds);
    gpu_done(walk, HYPURA_GPU_PRESENT, &piece->cut, begin_us);
    return GGML_STATUS_SUCCESS;
}

/* With a known chain the GPU has work in either case: more of it, which may be in vain. */
static bool pays(const gpu_walk *walk, const gpu_piece *piece)
{
    const gpu_instance *instance = walk->instance;
    const bool is_idle = !piece->chain.known && hypura_vram_uploads_beside(walk->vram);
    return piece->repeatable && (!piece->chain.known || piece->rest_repeatable) &&
           (instance->gpu->foresight != HYPURA_FORESIGHT_AUTO || is_idle ||
            instance->odds[piece->cut.weight->bundle] >= LEAST_ODDS);
}

/* Whether what is uploaded for a piece comes in two parts, of which the first is computed while the
 * second is on its way. On: the ways that a piece may take are all taken. */
static bool comes_in_parts(const gpu_walk *walk, const gpu_piece *piece)
{
    const gpu_instance *instance = walk->instance;
    return instance->gpu->foresight == HYPURA_FORESIGHT_ON ||
           (instance->n_late && instance->n_late[piece->cut.weight->bundle] >= PARTS_FROM);
}

static void note_late(const gpu_walk *walk, const gpu_piece *piece, uint32_t n_uploaded)
{
    if (n_uploaded > 1 && walk->instance->n_late) {
        walk->instance->n_late[piece->cut.weight->bundle]++;
    }
}

/* How a piece reaches the GPU: before its ids are known, after, or a second time. */
typedef enum run_when { RUN_AHEAD, RUN_KNOWN, RUN_AGAIN } run_when;

/* Up to the last product while the matrix that it reads is uploaded, then the rest. */
static enum ggml_status run_in_parts(const gpu_walk *walk, const gpu_piece *piece)
{
    struct ggml_tensor *slots;
    struct ggml_tensor *lookup = lookup_of(walk, piece, HYPURA_LEADS_PART, &slots);
    const enum ggml_status status = gpu_run(walk, lookup, piece->cut.at, piece->middle, piece->first_uid);
    hypura_vram_join(walk->vram);
    return status == GGML_STATUS_SUCCESS ? gpu_run(walk, NULL, piece->middle, piece->end, piece->rest_uid) : status;
}

static enum ggml_status run_piece(const gpu_walk *walk, const gpu_piece *piece, struct ggml_tensor *lookup,
                                  run_when when, int next_place)
{
    const uint64_t begin_us = gpu_begin(walk);
    enum ggml_status status;
    const bool in_parts = lookup && hypura_vram_has_deferred(walk->vram) && !piece->chain.known;
    if (!in_parts) {
        hypura_vram_join(walk->vram);
    }
    if (piece->end < walk->graph->n_nodes) {
        prepare_reports(walk, piece + 1, next_place);
    }
    if (in_parts) {
        status = run_in_parts(walk, piece);
    } else if (when == RUN_AHEAD) {
        gpu_forget_portions(walk);
        status = gpu_run(walk, lookup, piece->cut.at, piece->end, piece->uid);
    } else {
        status = gpu_run_cut(walk, lookup, piece->cut.at, piece->end, lookup ? piece->uid : 0, true);
    }
    if (status == GGML_STATUS_SUCCESS && piece->end < walk->graph->n_nodes) {
        status = ask(walk, piece + 1, next_place);
    }
    gpu_done(walk, when == RUN_AGAIN ? HYPURA_GPU_REPEAT : HYPURA_GPU_HAND_OVER, &piece->cut, begin_us);
    return status;
}

/* What follows the chain, and with it the ids of the next piece. */
static enum ggml_status run_rest(const gpu_walk *walk, const gpu_piece *piece, int next_place)
{
    const uint64_t begin_us = gpu_begin(walk);
    gpu_forget_portions(walk);
    if (piece->end < walk->graph->n_nodes) {
        prepare_reports(walk, piece + 1, next_place);
    }
    enum ggml_status status = gpu_run(walk, NULL, piece->middle, piece->end, piece->rest_uid);
    if (status == GGML_STATUS_SUCCESS && piece->end < walk->graph->n_nodes) {
        status = ask(walk, piece + 1, next_place);
    }
    gpu_done(walk, HYPURA_GPU_HAND_OVER, &piece->cut, begin_us);
    return status;
}

/* Alone, where what follows waits for the ids. */
static enum ggml_status run_chain(const gpu_walk *walk, const gpu_piece *piece)
{
    const uint64_t begin_us = gpu_begin(walk);
    struct ggml_tensor *slots;
    struct ggml_tensor *lookup = lookup_of(walk, piece, HYPURA_LEADS_PART, &slots);
    hypura_vram_join(walk->vram);
    gpu_forget_portions(walk);
    const enum ggml_status status = gpu_run(walk, lookup, piece->cut.at, piece->middle, piece->first_uid);
    gpu_done(walk, HYPURA_GPU_HAND_OVER, &piece->cut, begin_us);
    return status;
}

/* A piece of which the processor may compute what slots lack: its chain is handed over in any
 * case, and with it what follows where that is hardly in vain. */
static enum ggml_status compute_known_piece(const gpu_walk *walk, const gpu_piece *piece, int *place)
{
    gpu_instance *instance = walk->instance;
    struct ggml_tensor *slots;
    struct ggml_tensor *lookup = lookup_of(walk, piece, HYPURA_LEADS_WHOLE, &slots);
    const bool ahead = pays(walk, piece);
    uint32_t n_missing = 0;
    bool computes = false;
    enum ggml_status status = gpu_swap_products(walk, &piece->cut, piece->end, slots, -1);
    if (status == GGML_STATUS_SUCCESS) {
        status = ahead ? run_piece(walk, piece, lookup, RUN_AHEAD, 0) : run_chain(walk, piece);
    }
    hypura_vram_tell(walk->vram);
    const int32_t *ids = wait_ids(walk, piece, *place);
    if (status == GGML_STATUS_SUCCESS) {
        status = make_present(walk, piece, ids, &n_missing, &computes);
    }
    if (ahead) {
        hypura_pager_add_ahead(instance->gpu->pager, n_missing > 0);
    }
    *place = ahead && n_missing > 0;
    if (status != GGML_STATUS_SUCCESS) {
        return status;
    }
    if (n_missing == 0) {
        instance->cut_us = ahead ? 0 : instance->cut_us;
        return ahead ? status : run_rest(walk, piece, 0);
    }
    if (!computes) { /* they are uploaded */
        lookup = lookup_of(walk, piece, HYPURA_LEADS_WHOLE, &slots);
        return run_piece(walk, piece, lookup, RUN_AGAIN, *place);
    }
    status = gpu_compute_missing(walk, &piece->chain, &piece->cut, turn_of(walk, piece));
    status = status == GGML_STATUS_SUCCESS ? run_rest(walk, piece, *place) : status;
    return status == GGML_STATUS_SUCCESS ? gpu_send_missing(walk, &piece->cut) : status;
}

/* Its ids arrive at *place, and those of the next piece at what it is set to. */
static enum ggml_status compute_piece(const gpu_walk *walk, const gpu_piece *piece, int *place)
{
    gpu_instance *instance = walk->instance;
    struct ggml_tensor *slots;
    struct ggml_tensor *lookup = lookup_of(walk, piece, HYPURA_LEADS_WHOLE, &slots);
    uint32_t n_missing = 0;
    bool computes = false;
    const bool ahead = pays(walk, piece);
    hypura_vram_settle_beside(walk->vram, piece->cut.weight->bundle);
    hypura_vram_defer(walk->vram, comes_in_parts(walk, piece) ? piece->late_matrix : -1);
    if (gpu_foresee(walk, piece, *place > 0 ? 2 : 1) != HYPURA_OK) {
        return GGML_STATUS_FAILED;
    }
    if (piece->chain.known) {
        return compute_known_piece(walk, piece, place);
    }
    note_late(walk, piece, hypura_vram_n_expected(walk->vram, piece->cut.weight->bundle));
    enum ggml_status status = gpu_swap_products(walk, &piece->cut, piece->end, slots, -1);
    if (status == GGML_STATUS_SUCCESS) {
        status = ahead            ? run_piece(walk, piece, lookup, RUN_AHEAD, 0)
                 : piece->reports ? GGML_STATUS_SUCCESS
                                  : look_up(walk, lookup_of(walk, piece, HYPURA_LEADS_NONE, &slots));
    }
    hypura_vram_tell(walk->vram);
    if (status == GGML_STATUS_SUCCESS) {
        status = make_present(walk, piece, wait_ids(walk, piece, *place), &n_missing, &computes);
    }
    note_late(walk, piece, n_missing);
    if (ahead) {
        hypura_pager_add_ahead(instance->gpu->pager, n_missing > 0);
    }
    *place = ahead && n_missing > 0;
    if (ahead && n_missing == 0) {
        instance->cut_us = 0;
        return status;
    }
    if (status != GGML_STATUS_SUCCESS) {
        return status;
    }
    const bool looks_up = n_missing > 0 || piece->reports;
    return run_piece(walk, piece, looks_up ? lookup : NULL, ahead ? RUN_AGAIN : RUN_KNOWN, *place);
}

bool gpu_runs_ahead(const gpu_walk *walk)
{
    const gpu_instance *instance = walk->instance;
    const hypura_gpu *gpu = instance->gpu;
    if (gpu->foresight == HYPURA_FORESIGHT_OFF || !gpu->can_look_up || !instance->odds) {
        return false;
    }
    return gpu_find_pieces(walk);
}

enum ggml_status gpu_walk_ahead(const gpu_walk *walk)
{
    const gpu_pieces *pieces = &walk->instance->pieces;
    int place = 0;
    if (hypura_vram_has_batches(walk->vram)) { /* the prompt's last layers: the first ids come after them anyway */
        ggml_backend_synchronize(walk->instance->inner);
        hypura_vram_settled(walk->vram);
        if (hypura_vram_keep_all(walk->vram) != HYPURA_OK) {
            return GGML_STATUS_FAILED;
        }
    }
    walk->instance->guesser = gpu_find_guesser(walk);
    if (walk->instance->gpu->select) {
        give_ids(walk);
    }
    prepare_reports(walk, &pieces->list[0], place);
    enum ggml_status status = gpu_run(walk, NULL, 0, pieces->list[0].cut.at, 0);
    if (status == GGML_STATUS_SUCCESS) {
        status = ask(walk, &pieces->list[0], place);
    }
    for (int i = 0; i < pieces->n && status == GGML_STATUS_SUCCESS; i++) {
        status = compute_piece(walk, &pieces->list[i], &place);
    }
    hypura_vram_defer(walk->vram, -1);
    return status;
}
