/*
 * experience_rates.c - how fast this processor computes with each type of weights, and repacks
 * them: measured once, and kept. What other work on the machine disturbed is measured again in
 * later runs, a few times, and the best of it is kept. See experience.h.
 */
#include "base/clock.h"
#include "base/status.h"
#include "engine/prepare/experience.h"
#include "engine/prepare/experience_file.h"
#include "hw/probe_compute.h"

#include <math.h>
#include <string.h>
#include <time.h>

/* A machine that is busy for good is measured so often, as each start waits for it; and not again at once, as who is at work
 * now still is a moment later. */
enum { MAX_STORED_RATES = 256, MOST_DISTURBED = 3, AGAIN_S = 600 };

/* How long a measurement waits for a moment without other work; and when those of this process have waited so long in vain
 * that it goes without saying that there is none: a model has dozens of products, and who starts it waits for them all. */
#define PATIENCE_US       1000000u
#define SHORT_PATIENCE_US 30000u
#define LONG_US           2000000u

static _Atomic uint64_t waited_in_vain_us;

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
        if (bytes <= 0.0) {
            continue; /* experts that the map does not know as such */
        }
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

/* What was stored when this began, and the entries of one of its arrays that were measured since, which
 * are to be stored. */
typedef struct known {
    json_t *root;
    json_t *measured;
} known;

/* What entries are told apart by. */
static const char *const RATE_KEYS[] = {"type", "columns", "rows", "used", "batch", "threads", "repack", NULL};
static const char *const OTHERS_KEYS[] = {"model", "threads", "filled", "among", NULL};
static const char *const REPACKING_KEYS[] = {"type", NULL};

static bool open_known(const char *cache_dir, known *k)
{
    k->root = experience_load(cache_dir);
    k->measured = json_array();
    return k->root && k->measured;
}

static void close_known(known *k)
{
    json_decref(k->measured);
    json_decref(k->root);
}

static json_t *rate_key(const hypura_product_shape *shape, int n_threads)
{
    return json_pack("{s:i,s:I,s:I,s:i,s:i,s:i,s:i}", "type", shape->type, "columns", (json_int_t)shape->columns, "rows",
                     (json_int_t)shape->rows, "used", shape->n_used, "batch", shape->n_rows, "threads", n_threads,
                     "repack", (int)shape->repack);
}

static uint64_t patience_us(void)
{
    return waited_in_vain_us < LONG_US ? PATIENCE_US : SHORT_PATIENCE_US;
}

static void note_waited(bool in_vain, uint64_t begin_us)
{
    waited_in_vain_us += in_vain ? hypura_clock_us() - begin_us : 0;
}

static double count_disturbed(const json_t *entry)
{
    return fmin(fmax(experience_number(entry, "disturbed"), 0.0), MOST_DISTURBED);
}

/* Whether it is to be taken as it is. A clock may have been set back since. */
static bool is_settled(const json_t *entry)
{
    const double n = count_disturbed(entry);
    const bool lately = fabs((double)time(NULL) - experience_number(entry, "measured_unix_s")) < AGAIN_S;
    return n <= 0.0 || n >= MOST_DISTURBED || lately;
}

/* It was measured once more. */
static void note_measured(json_t *entry, bool disturbed)
{
    const double n = disturbed ? count_disturbed(entry) + 1.0 : 0.0;
    (void)json_object_set_new(entry, "disturbed", json_integer((json_int_t)n));
    (void)json_object_set_new(entry, "measured_unix_s", json_integer((json_int_t)time(NULL)));
}

/* ---- storing --------------------------------------------------------------------- */

/* Another process may have measured the same: of a rate the faster one counts, of a time the shorter. */
static void merge(json_t *array, const char *const *keys, const json_t *measured)
{
    size_t i;
    json_t *entry;
    json_array_foreach(measured, i, entry)
    {
        json_t *stored = experience_find(array, entry, keys);
        if (!stored) {
            experience_append(array, json_incref(entry), MAX_STORED_RATES);
            continue;
        }
        const double n_stored = count_disturbed(stored);
        const double n = count_disturbed(entry);
        const double seconds = experience_number(stored, "seconds");
        const double rate = experience_number(stored, "bytes_per_s");
        if (rate > experience_number(entry, "bytes_per_s")) {
            (void)json_object_set_new(entry, "bytes_per_s", json_real(rate));
        }
        if (seconds > 0.0 && seconds < experience_number(entry, "seconds")) {
            (void)json_object_set_new(entry, "seconds", json_real(seconds));
        }
        if (json_object_get(entry, "disturbed")) {
            const double least = n_stored <= 0.0 || n <= 0.0 ? 0.0 : fmax(n_stored, n);
            (void)json_object_set_new(entry, "disturbed", json_integer((json_int_t)least));
        }
        (void)json_object_update(stored, entry);
    }
}

static void store_rates(json_t *root, void *user)
{
    merge(json_object_get(root, "rates"), RATE_KEYS, user);
}

static void store_others(json_t *root, void *user)
{
    merge(json_object_get(root, "others"), OTHERS_KEYS, user);
}

static void store_repacking(json_t *root, void *user)
{
    if (!json_is_array(json_object_get(root, "repacking"))) {
        (void)json_object_set_new(root, "repacking", json_array());
    }
    merge(json_object_get(root, "repacking"), REPACKING_KEYS, user);
}

static void store_measured(const known *k, const char *cache_dir, experience_change store)
{
    if (json_array_size(k->measured) > 0) {
        experience_update(cache_dir, store, k->measured);
    }
}

/* ---- products --------------------------------------------------------------------- */

static hypura_status probe(const hypura_model_options *options, const hypura_product_shape *shape, int n_threads,
                           double *bytes_per_s, bool *disturbed, hypura_error *error)
{
    if (options->progress && !options->progress(options->progress_user, "measuring the processor", 0, 0)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "measuring the processor was stopped");
    }
    const uint64_t begin_us = hypura_clock_us();
    const hypura_status status = hypura_probe_products(shape, n_threads, patience_us(), bytes_per_s, disturbed, error);
    note_waited(*disturbed, begin_us);
    return status;
}

/* *is_new: it was measured now. */
static hypura_status find_rate(known *k, const hypura_model_options *options, const hypura_product_shape *shape,
                               int n_threads, bool measure, double *bytes_per_s, bool *is_new, hypura_error *error)
{
    json_t *rates = json_object_get(k->root, "rates");
    json_t *key = rate_key(shape, n_threads);
    json_t *entry = experience_find(rates, key, RATE_KEYS);
    const double stored = experience_number(entry, "bytes_per_s");
    double now = 0.0;
    bool disturbed = false;
    hypura_status status = HYPURA_OK;
    *bytes_per_s = stored;
    *is_new = measure && (stored <= 0.0 || !is_settled(entry));
    if (*is_new) {
        status = probe(options, shape, n_threads, &now, &disturbed, error);
    }
    if (*is_new && status == HYPURA_OK) {
        *bytes_per_s = fmax(stored, now);
        if (!entry) {
            entry = key;
            experience_append(rates, json_incref(key), MAX_STORED_RATES);
        }
        (void)json_object_set_new(entry, "bytes_per_s", json_real(*bytes_per_s));
        note_measured(entry, disturbed);
        (void)json_array_append(k->measured, entry);
    }
    json_decref(key);
    return status;
}

/* What a product takes beside its bytes: that of a weight of a few rows does little else. */
static hypura_status find_start(known *k, const hypura_model_options *options, const hypura_product_shape *shape,
                                int n_threads, bool measure, double bytes_per_s, double *seconds, hypura_error *error)
{
    hypura_product_shape small = *shape;
    double rate = 0.0;
    bool is_new;
    small.rows = FEW_ROWS;
    *seconds = 0.0;
    const hypura_status status =
        shape->rows > FEW_ROWS ? find_rate(k, options, &small, n_threads, measure, &rate, &is_new, error) : HYPURA_OK;
    if (status == HYPURA_OK && rate > 0.0) {
        const double bytes = hypura_product_bytes(&small);
        *seconds = fmax(bytes / rate - bytes / bytes_per_s, 0.0);
    }
    return status;
}

/* A second look a moment later, as what disturbs a machine may outlast a measurement; the
 * faster one counts. */
static hypura_status look_again(known *k, const hypura_model_options *options, const hypura_product_shape *shape,
                                int n_threads, double *bytes_per_s, hypura_error *error)
{
    double again = 0.0;
    bool disturbed = false;
    json_t *key = rate_key(shape, n_threads);
    json_t *entry = experience_find(k->measured, key, RATE_KEYS);
    const hypura_status status = probe(options, shape, n_threads, &again, &disturbed, error);
    if (status == HYPURA_OK) {
        *bytes_per_s = fmax(*bytes_per_s, again);
    }
    if (status == HYPURA_OK && (!disturbed || count_disturbed(entry) > 0.0)) {
        (void)json_object_set_new(entry, "bytes_per_s", json_real(*bytes_per_s));
    }
    if (status == HYPURA_OK && !disturbed) {
        note_measured(entry, false);
    }
    json_decref(key);
    return status;
}

static hypura_status no_memory(hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the rates of this processor");
}

hypura_status hypura_experience_rates(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                      int n_threads, bool repack, bool measure, hypura_rates *rates,
                                      hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, repack, false, types);
    known k;
    memset(rates, 0, sizeof(*rates));
    hypura_status status = open_known(options->cache_dir, &k) ? HYPURA_OK : no_memory(error);
    double found[HYPURA_MAX_RATES] = {0};
    bool is_new[HYPURA_MAX_RATES] = {false};
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        status = find_rate(&k, options, &types[i].shape, n_threads, measure, &found[i], &is_new[i], error);
    }
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        const hypura_product_shape *shape = &types[i].shape;
        if (is_new[i]) {
            status = look_again(&k, options, shape, n_threads, &found[i], error);
        }
        if (status == HYPURA_OK && found[i] > 0.0) {
            status = find_start(&k, options, shape, n_threads, measure, found[i], &rates->by_type[rates->n].product_s, error);
            rates->by_type[rates->n].type = shape->type;
            rates->by_type[rates->n].experts = shape->n_used > 0;
            rates->by_type[rates->n].columns = shape->n_used > 0 ? shape->columns : 0;
            rates->by_type[rates->n++].bytes_per_s = found[i];
        }
    }
    store_measured(&k, options->cache_dir, store_rates);
    close_known(&k);
    return status;
}

hypura_status hypura_experience_others(const char *cache_dir, const hypura_map *map, uint32_t n_filled, int n_threads,
                                       hypura_nodes *others, hypura_rates *rates, hypura_error *error)
{
    known k;
    json_t *key = json_pack("{s:o,s:i,s:I,s:s}", "model", experience_name(map), "threads", n_threads, "filled",
                            (json_int_t)n_filled, "among", "products");
    hypura_status status = open_known(cache_dir, &k) && key ? HYPURA_OK : no_memory(error);
    const json_t *entry = experience_find(json_object_get(k.root, "others"), key, OTHERS_KEYS);
    const double stored = experience_number(entry, "seconds");
    double now = 0.0;
    bool disturbed = false;
    if (status == HYPURA_OK && others && (stored <= 0.0 || !is_settled(entry))) {
        const uint64_t begin_us = hypura_clock_us();
        status = hypura_probe_nodes(others, n_threads, patience_us(), &now, &disturbed, error);
        note_waited(disturbed, begin_us);
    }
    rates->others_s = now <= 0.0 || (stored > 0.0 && stored < now) ? stored : now;
    if (status == HYPURA_OK && now > 0.0) {
        (void)json_object_set_new(key, "seconds", json_real(rates->others_s));
        (void)json_object_set(key, "disturbed", json_object_get(entry, "disturbed"));
        note_measured(key, disturbed);
        (void)json_array_append(k.measured, key);
        store_measured(&k, cache_dir, store_others);
    }
    json_decref(key);
    close_known(&k);
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
    known k;
    hypura_status status = open_known(options->cache_dir, &k) ? HYPURA_OK : no_memory(error);
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        const hypura_product_shape prompt = prompt_shape(&types[i].shape, map, survey->n_ubatch);
        double rate;
        bool is_new;
        status = find_rate(&k, options, &prompt, n_threads, true, &rate, &is_new, error);
        for (int r = 0; status == HYPURA_OK && r < rates->n; r++) {
            if (rates->by_type[r].type == prompt.type && rates->by_type[r].experts == (prompt.n_used > 0) &&
                (rates->by_type[r].columns == 0 || rates->by_type[r].columns == prompt.columns)) {
                rates->by_type[r].prompt_bytes_per_s = rate;
            }
        }
    }
    store_measured(&k, options->cache_dir, store_rates);
    close_known(&k);
    return status;
}

hypura_status hypura_experience_repack_rate(const char *cache_dir, const hypura_map *map, const hypura_survey *survey,
                                            double *bytes_per_s, hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, true, false, types);
    int most = 0;
    *bytes_per_s = 0.0;
    if (n == 0) {
        return HYPURA_OK;
    }
    for (int i = 1; i < n; i++) {
        most = types[i].bytes > types[most].bytes ? i : most;
    }
    known k;
    json_t *key = json_pack("{s:i}", "type", types[most].shape.type);
    hypura_status status = open_known(cache_dir, &k) && key ? HYPURA_OK : no_memory(error);
    const json_t *stored = experience_find(json_object_get(k.root, "repacking"), key, REPACKING_KEYS);
    *bytes_per_s = experience_number(stored, "bytes_per_s");
    if (status == HYPURA_OK && !stored) {
        status = hypura_probe_repack(&types[most].shape, bytes_per_s, error);
        if (status == HYPURA_OK) {
            (void)json_object_set_new(key, "bytes_per_s", json_real(*bytes_per_s));
            (void)json_array_append(k.measured, key);
            store_measured(&k, cache_dir, store_repacking);
        }
    }
    json_decref(key);
    close_known(&k);
    return status;
}
