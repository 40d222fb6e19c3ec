/*
 * trace_replay.c - a recorded route through the pager's cache, without any model.
 *
 * A key is an expert of a layer, as in the pager; layers that the route does not
 * name, dense ones, have none. A line of the route is a step: its experts are
 * needed at once. One that stands on a line twice is needed once.
 */
#include "cache/trace.h"
#include "engine/measure/route.h"
#include "engine/measure/trace_guess.h"

#include "base/status.h"
#include "hypura_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 1 << 24 }; /* a few GB of caches */

static const hypura_slot_count default_slots[] = {{.percent = 5},  {.percent = 10}, {.percent = 15},
                                                  {.percent = 20}, {.percent = 30}, {.percent = 40},
                                                  {.percent = 50}, {.percent = 60}, {.percent = 80}};

/* The route as uses of keys. */
typedef struct trace_build {
    uint32_t n_tokens;
    uint32_t n_layers; /* from 0 to the largest */
    uint32_t n_experts;
    uint32_t n_distinct;
    uint32_t *group_of;  /* by layer; UINT32_MAX: the route does not name it */
    uint32_t *last_step; /* by key: the step that used it last, + 1 */
    uint32_t *uses;
    hypura_cache_step *steps;
    hypura_cache_trace trace;
} trace_build;

static void build_clear(trace_build *b)
{
    free(b->group_of);
    free(b->last_step);
    free(b->uses);
    free(b->steps);
}

/* Numbers the layers that have experts, and counts what there is room needed for. */
static hypura_status build_open(trace_build *b, const hypura_route *route, const char *path, hypura_error *error)
{
    uint64_t n_uses = 0;
    uint64_t n_steps = 0;
    hypura_route_sizes(route, &b->n_tokens, &b->n_layers, &b->n_experts);
    b->group_of = malloc(b->n_layers * sizeof(*b->group_of));
    for (uint32_t layer = 0; b->group_of && layer < b->n_layers; layer++) {
        b->group_of[layer] = UINT32_MAX;
        for (uint32_t token = 0; token < b->n_tokens; token++) {
            uint32_t n;
            (void)hypura_route_row(route, token, layer, &n);
            n_uses += n;
            n_steps += n > 0;
            if (n > 0 && b->group_of[layer] == UINT32_MAX) {
                b->group_of[layer] = b->trace.n_groups++;
            }
        }
    }
    const uint64_t n_keys = (uint64_t)b->trace.n_groups * b->n_experts;
    if (n_keys > MAX_KEYS || n_uses >= UINT32_MAX) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: %u layers of %u experts are more than can be replayed",
                           path, b->trace.n_groups, b->n_experts);
    }
    b->trace.n_keys = (uint32_t)n_keys;
    b->last_step = calloc(n_keys, sizeof(*b->last_step));
    b->uses = malloc(n_uses * sizeof(*b->uses));
    b->steps = malloc(n_steps * sizeof(*b->steps));
    if (!b->group_of || !b->last_step || !b->uses || !b->steps) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for %llu uses of experts", path,
                           (unsigned long long)n_uses);
    }
    return HYPURA_OK;
}

static void add_step(trace_build *b, const uint32_t *row, uint32_t n, uint32_t group)
{
    hypura_cache_trace *t = &b->trace;
    const uint32_t first = t->n_uses;
    const uint32_t step = ++t->n_steps;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t key = group * b->n_experts + row[i];
        if (b->last_step[key] != step) {
            b->n_distinct += b->last_step[key] == 0;
            b->last_step[key] = step;
            b->uses[t->n_uses++] = key;
        }
    }
    b->steps[step - 1] = (hypura_cache_step){.first = first, .n = t->n_uses - first, .group = group};
}

static hypura_status build(trace_build *b, const hypura_route *route, const char *path, hypura_error *error)
{
    hypura_status status = build_open(b, route, path, error);
    for (uint32_t token = 0; status == HYPURA_OK && token < b->n_tokens; token++) {
        for (uint32_t layer = 0; layer < b->n_layers; layer++) {
            uint32_t n;
            const uint32_t *row = hypura_route_row(route, token, layer, &n);
            if (n > 0) {
                add_step(b, row, n, b->group_of[layer]);
            }
        }
    }
    b->trace.uses = b->uses;
    b->trace.steps = b->steps;
    return status;
}

/* ---- rows ------------------------------------------------------------------ */

static hypura_status count_slots(const hypura_slot_count *wanted, uint32_t n_keys, uint32_t *n_slots,
                                 hypura_error *error)
{
    if (!(wanted->percent >= 0.0) || (wanted->percent == 0.0 && wanted->count == 0)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a number of slots has to be at least 1, or a per cent above 0");
    }
    const double part = round((double)n_keys * wanted->percent / 100.0);
    *n_slots = wanted->percent == 0.0 ? wanted->count : part < 1.0 ? 1 : part > n_keys ? n_keys : (uint32_t)part;
    return HYPURA_OK;
}

static hypura_status fill_row(const hypura_cache_trace *trace, hypura_replay_row *row, hypura_error *error)
{
    const double n_uses = trace->n_uses;
    /* Slots beyond all experts stay empty. */
    const uint32_t n_slots = row->n_slots < trace->n_keys ? row->n_slots : trace->n_keys;
    /* The textbook's two take uses one by one. */
    hypura_cache_trace singles = *trace;
    singles.n_steps = 0;
    uint64_t lru = 0;
    uint64_t ours = 0;
    uint64_t belady = 0;
    hypura_status status = hypura_cache_replay(&singles, "lru", n_slots, NULL, NULL, &lru, error);
    trace_guess guess = {0};
    if (status == HYPURA_OK) {
        status = trace_guess_open(&guess, trace, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_cache_replay(trace, NULL, n_slots, trace_guess_watch, &guess, &ours, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_cache_belady(&singles, n_slots, &belady, error);
    }
    row->lru = (double)lru / n_uses;
    row->ours = (double)ours / n_uses;
    row->belady = (double)belady / n_uses;
    row->foreseen = guess.n_missed > 0 ? (double)guess.n_foreseen / (double)guess.n_missed : 0.0;
    row->foreseen_right = guess.n_named > 0 ? (double)guess.n_foreseen / (double)guess.n_named : 0.0;
    trace_guess_close(&guess);
    return status;
}

static hypura_status fill_rows(const hypura_replay_options *options, const hypura_cache_trace *trace,
                               hypura_replay_report *report, hypura_error *error)
{
    const bool given = options->slots != NULL && options->n_slots > 0;
    const hypura_slot_count *slots = given ? options->slots : default_slots;
    const int n = given ? options->n_slots : (int)(sizeof(default_slots) / sizeof(*default_slots));
    report->rows = calloc((size_t)n, sizeof(*report->rows));
    if (!report->rows) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d rows", n);
    }
    for (int i = 0; i < n; i++) {
        if (options->progress && !options->progress(options->progress_user, "replaying", (uint64_t)i, (uint64_t)n)) {
            return hypura_fail(error, HYPURA_ERR_CANCELLED, "replaying %s was stopped", options->path);
        }
        hypura_status status = count_slots(&slots[i], trace->n_keys, &report->rows[report->n_rows].n_slots, error);
        /* Of few experts several per cents are the same number of slots. */
        hypura_replay_row *row = &report->rows[report->n_rows];
        const bool twice = !given && report->n_rows > 0 && row[-1].n_slots == row->n_slots;
        if (status == HYPURA_OK && !twice) {
            status = fill_row(trace, row, error);
        }
        if (status != HYPURA_OK) {
            return status;
        }
        report->n_rows += !twice;
    }
    return HYPURA_OK;
}

hypura_status hypura_replay(const hypura_replay_options *options, hypura_replay_report *report, hypura_error *error)
{
    memset(report, 0, sizeof(*report));
    if (!options->path || options->path[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no route was named");
    }
    hypura_route *route = NULL;
    trace_build built = {0};
    hypura_status status = hypura_route_open(options->path, &route, error);
    if (status == HYPURA_OK) {
        status = build(&built, route, options->path, error);
    }
    if (status == HYPURA_OK) {
        report->n_tokens = built.n_tokens;
        report->n_layers = built.trace.n_groups;
        report->n_experts = built.n_experts;
        report->n_uses = built.trace.n_uses;
        report->n_distinct = built.n_distinct;
        status = fill_rows(options, &built.trace, report, error);
    }
    build_clear(&built);
    hypura_route_close(route);
    if (status != HYPURA_OK) {
        hypura_replay_report_clear(report);
    }
    return status;
}

void hypura_replay_report_clear(hypura_replay_report *report)
{
    free(report->rows);
    memset(report, 0, sizeof(*report));
}
