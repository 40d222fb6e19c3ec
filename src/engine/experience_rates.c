/*
 * experience_rates.c - how fast this processor computes with each type of weights, and repacks
 * them: measured once, and kept. What other work on the machine disturbed is measured again in
 * later runs, a few times, and the best of it is kept. See experience.h.
 */
#include "base/status.h"
#include "engine/experience.h"
#include "engine/experience_file.h"
#include "hw/probe_compute.h"

#include <math.h>
#include <string.h>

/* A machine that is busy for good is measured so often, as each start waits for it. */
enum { MAX_STORED_RATES = 256, MOST_DISTURBED = 3 };

/* Of a prompt's product, tokens and rows of the weight; more of them change little. */
#define MOST_PROMPT_TOKENS 256
#define MOST_PROMPT_ROWS   2048

/* Of a weight with which next to nothing is to be computed; layouts of processors take groups of up to 16. */
#define FEW_ROWS 32

/* The tensor of a type that a token reads most of, as a product that stands for all
 * of that type; for a prompt not the one that makes the last token's logits. Experts have
 * one for each length of their rows, as short ones are slower (by a third with 768 columns). */
typedef struct typical {
    hypura_product_shape shape;
    double bytes;
} typical;

static int find_types(const hypura_map *map, const hypura_survey *survey, bool repack, bool in_prompt, typical *types)
{
    int n = 0;
    for (int t = 0; t < map->n_tensors; t++) {
        const hypura_tensor *tensor = &map->tensors[t];
        const uint32_t flags = survey->uses[t].flags;
        const bool experts = (flags & HYPURA_USE_MUL_MAT_ID) != 0;
        if ((!experts && (flags & HYPURA_USE_MUL_MAT) == 0) || (in_prompt && tensor->role == HYPURA_ROLE_OUTPUT)) {
            continue;
        }
        const int n_used = !experts ? 0 : map->n_experts_used > 0 ? map->n_experts_used : 1;
        const double bytes = experts ? (double)tensor->expert_bytes * n_used : (double)tensor->bytes;
        int at = 0;
        while (at < n && (types[at].shape.type != tensor->type || (types[at].shape.n_used > 0) != experts ||
                          (experts && types[at].shape.columns != tensor->ne[0]))) {
            at++;
        }
        if (at == HYPURA_MAX_RATES) {
            continue;
        }
        if (at == n) {
            types[n++].bytes = 0.0;
        }
        if (bytes > types[at].bytes) {
            types[at].bytes = bytes;
            types[at].shape = (hypura_product_shape){.type = tensor->type,
                                                     .columns = tensor->ne[0],
                                                     .rows = tensor->ne[1],
                                                     .n_used = n_used,
                                                     .n_rows = 1,
                                                     .repack = repack};
        }
    }
    return n;
}

/* Borrowed; NULL when there is none. */
static json_t *find_stored(const json_t *root, const hypura_product_shape *shape, int n_threads)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "rates"), i, entry)
    {
        if (experience_is(entry, "type", shape->type) && experience_is(entry, "columns", shape->columns) &&
            experience_is(entry, "rows", shape->rows) && experience_is(entry, "used", shape->n_used) &&
            experience_is(entry, "batch", shape->n_rows) && experience_is(entry, "threads", n_threads) &&
            experience_is(entry, "repack", shape->repack)) {
            return entry;
        }
    }
    return NULL;
}

static bool is_settled(const json_t *entry)
{
    const double n_disturbed = experience_number(entry, "disturbed");
    return n_disturbed <= 0.0 || n_disturbed >= MOST_DISTURBED;
}

/* How often it was disturbed, when it was measured once more. */
static int count_disturbed(const json_t *entry, bool disturbed)
{
    return disturbed ? (int)experience_number(entry, "disturbed") + 1 : 0;
}

static hypura_status probe(const hypura_model_options *options, const hypura_product_shape *shape, int n_threads,
                           double *bytes_per_s, bool *disturbed, hypura_error *error)
{
    if (options->progress && !options->progress(options->progress_user, "measuring the processor", 0, 0)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "measuring the processor was stopped");
    }
    return hypura_probe_products(shape, n_threads, bytes_per_s, disturbed, error);
}

static void keep_rate(json_t *entry, double bytes_per_s, bool disturbed)
{
    (void)json_object_set_new(entry, "bytes_per_s", json_real(bytes_per_s));
    (void)json_object_set_new(entry, "disturbed", json_integer(count_disturbed(entry, disturbed)));
}

static hypura_status find_rate(json_t *root, const hypura_model_options *options, const hypura_product_shape *shape,
                               int n_threads, bool measure, double *bytes_per_s, bool *changed, hypura_error *error)
{
    json_t *entry = find_stored(root, shape, n_threads);
    const double stored = experience_number(entry, "bytes_per_s");
    double now = 0.0;
    bool disturbed = false;
    *bytes_per_s = stored;
    if (!measure || (stored > 0.0 && is_settled(entry))) {
        return HYPURA_OK;
    }
    const hypura_status status = probe(options, shape, n_threads, &now, &disturbed, error);
    if (status != HYPURA_OK) {
        return status;
    }
    *changed = true;
    *bytes_per_s = fmax(stored, now);
    if (stored > 0.0) {
        keep_rate(entry, *bytes_per_s, disturbed);
        return HYPURA_OK;
    }
    experience_append(json_object_get(root, "rates"),
                      json_pack("{s:i,s:I,s:I,s:i,s:i,s:i,s:i,s:f,s:i}", "type", shape->type, "columns",
                                (json_int_t)shape->columns, "rows", (json_int_t)shape->rows, "used", shape->n_used,
                                "batch", shape->n_rows, "threads", n_threads, "repack", (int)shape->repack,
                                "bytes_per_s", now, "disturbed", (int)disturbed),
                      MAX_STORED_RATES);
    return HYPURA_OK;
}

/* What a product takes beside its bytes: that of a weight of a few rows does little else. */
static hypura_status find_start(json_t *root, const hypura_model_options *options, const hypura_product_shape *shape,
                                int n_threads, bool measure, double bytes_per_s, double *seconds, bool *changed,
                                hypura_error *error)
{
    hypura_product_shape small = *shape;
    double rate = 0.0;
    small.rows = FEW_ROWS;
    *seconds = 0.0;
    const hypura_status status =
        shape->rows > FEW_ROWS ? find_rate(root, options, &small, n_threads, measure, &rate, changed, error) : HYPURA_OK;
    if (status == HYPURA_OK && rate > 0.0) {
        const double bytes = hypura_product_bytes(&small);
        *seconds = fmax(bytes / rate - bytes / bytes_per_s, 0.0);
    }
    return status;
}

/* A second look a moment later, as what disturbs a machine may outlast a measurement; the
 * faster one counts. */
static hypura_status look_again(json_t *root, const hypura_model_options *options, const hypura_product_shape *shape,
                                int n_threads, double *bytes_per_s, hypura_error *error)
{
    double again = 0.0;
    bool disturbed = false;
    json_t *entry = find_stored(root, shape, n_threads);
    const hypura_status status = probe(options, shape, n_threads, &again, &disturbed, error);
    if (status == HYPURA_OK) {
        *bytes_per_s = fmax(*bytes_per_s, again);
        if (!disturbed || !is_settled(entry)) {
            keep_rate(entry, *bytes_per_s, disturbed);
        }
    }
    return status;
}

hypura_status hypura_experience_rates(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                      int n_threads, bool repack, bool measure, hypura_rates *rates,
                                      hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, repack, false, types);
    bool changed = false;
    memset(rates, 0, sizeof(*rates));
    json_t *root = experience_load(options->cache_dir);
    if (!root) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the rates of this processor");
    }
    hypura_status status = HYPURA_OK;
    double found[HYPURA_MAX_RATES] = {0};
    bool is_new[HYPURA_MAX_RATES] = {false};
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        status = find_rate(root, options, &types[i].shape, n_threads, measure, &found[i], &is_new[i], error);
        changed = changed || is_new[i];
    }
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        const hypura_product_shape *shape = &types[i].shape;
        if (is_new[i]) {
            status = look_again(root, options, shape, n_threads, &found[i], error);
        }
        if (status == HYPURA_OK && found[i] > 0.0) {
            status = find_start(root, options, shape, n_threads, measure, found[i], &rates->by_type[rates->n].product_s,
                                &changed, error);
            rates->by_type[rates->n].type = shape->type;
            rates->by_type[rates->n].experts = shape->n_used > 0;
            rates->by_type[rates->n].columns = shape->n_used > 0 ? shape->columns : 0;
            rates->by_type[rates->n++].bytes_per_s = found[i];
        }
    }
    if (changed) {
        experience_save(options->cache_dir, root);
    }
    json_decref(root);
    return status;
}

hypura_status hypura_experience_others(const char *cache_dir, const hypura_map *map, uint32_t n_filled, int n_threads,
                                       hypura_nodes *others, hypura_rates *rates, hypura_error *error)
{
    char name[512];
    experience_name(map, name, sizeof name);
    json_t *root = experience_load(cache_dir);
    json_t *entry = experience_of_model(json_object_get(root, "others"), name, n_threads, "filled", n_filled);
    const double stored = experience_number(entry, "seconds");
    double now = 0.0;
    bool disturbed = false;
    hypura_status status = HYPURA_OK;
    const bool measure = others && (stored <= 0.0 || !is_settled(entry));
    if (measure) {
        status = hypura_probe_nodes(others, n_threads, &now, &disturbed, error);
    }
    rates->others_s = now <= 0.0 || (stored > 0.0 && stored < now) ? stored : now;
    if (measure && status == HYPURA_OK && now > 0.0 && root) {
        json_t *kept = json_pack("{s:s,s:I,s:i,s:f,s:i}", "model", name, "filled", (json_int_t)n_filled, "threads",
                                 n_threads, "seconds", rates->others_s, "disturbed", count_disturbed(entry, disturbed));
        if (entry && kept) {
            (void)json_object_update(entry, kept);
            json_decref(kept);
        } else {
            experience_append(json_object_get(root, "others"), kept, MAX_STORED_RATES);
        }
        experience_save(cache_dir, root);
    }
    json_decref(root);
    return status;
}

/* What a prompt makes of a typical product: a batch of it, of which each expert has its part. */
static hypura_product_shape prompt_shape(const hypura_product_shape *shape, const hypura_map *map, uint32_t n_ubatch)
{
    hypura_product_shape prompt = *shape;
    int64_t n_rows = n_ubatch;
    if (shape->n_used > 0) {
        n_rows = n_rows * shape->n_used / (map->n_experts > 0 ? map->n_experts : 1);
        prompt.n_used = shape->n_used > 1 ? shape->n_used : 2;
    }
    prompt.n_rows = n_rows < 1 ? 1 : n_rows < MOST_PROMPT_TOKENS ? (int)n_rows : MOST_PROMPT_TOKENS;
    prompt.rows = shape->rows < MOST_PROMPT_ROWS ? shape->rows : MOST_PROMPT_ROWS;
    return prompt;
}

hypura_status hypura_experience_prompt_rates(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                             int n_threads, bool repack, hypura_rates *rates, hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, repack, true, types);
    bool changed = false;
    json_t *root = experience_load(options->cache_dir);
    if (!root) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the rates of this processor");
    }
    hypura_status status = HYPURA_OK;
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        const hypura_product_shape prompt = prompt_shape(&types[i].shape, map, survey->n_ubatch);
        double rate;
        status = find_rate(root, options, &prompt, n_threads, true, &rate, &changed, error);
        for (int r = 0; status == HYPURA_OK && r < rates->n; r++) {
            if (rates->by_type[r].type == prompt.type && rates->by_type[r].experts == (prompt.n_used > 0) &&
                (rates->by_type[r].columns == 0 || rates->by_type[r].columns == prompt.columns)) {
                rates->by_type[r].prompt_bytes_per_s = rate;
            }
        }
    }
    if (changed) {
        experience_save(options->cache_dir, root);
    }
    json_decref(root);
    return status;
}

static const json_t *stored_repack(const json_t *root, int type)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "repacking"), i, entry)
    {
        if (experience_is(entry, "type", type)) {
            return entry;
        }
    }
    return NULL;
}

hypura_status hypura_experience_repack_rate(const char *cache_dir, const hypura_map *map, const hypura_survey *survey,
                                            double *bytes_per_s, hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, true, false, types);
    int most = 0;
    *bytes_per_s = 0.0;
    for (int i = 1; i < n; i++) {
        most = types[i].bytes > types[most].bytes ? i : most;
    }
    json_t *root = n > 0 ? experience_load(cache_dir) : NULL;
    if (!root) {
        return HYPURA_OK;
    }
    const json_t *stored = stored_repack(root, types[most].shape.type);
    hypura_status status = HYPURA_OK;
    if (stored) {
        *bytes_per_s = experience_number(stored, "bytes_per_s");
    } else {
        status = hypura_probe_repack(&types[most].shape, bytes_per_s, error);
    }
    if (status == HYPURA_OK && !stored) {
        if (!json_object_get(root, "repacking")) {
            (void)json_object_set_new(root, "repacking", json_array());
        }
        experience_append(json_object_get(root, "repacking"),
                          json_pack("{s:i,s:f}", "type", types[most].shape.type, "bytes_per_s", *bytes_per_s),
                          MAX_STORED_RATES);
        experience_save(cache_dir, root);
    }
    json_decref(root);
    return status;
}
