/*
 * experience.c - see experience.h.
 *
 *     {"version":3, "cpu":"..", "rates":[{"type","columns","rows","used","batch","threads","repack","bytes_per_s"}],
 *      "others":[{"model","filled","threads","seconds"}], "repacking":[{"type","bytes_per_s"}],
 *      "models":[{"model":"..","threads","repack","lessons":[{..}]}]}
 */
#include "engine/experience.h"

#include "base/status.h"
#include "hw/probe_compute.h"
#include "os/os.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { VERSION = 3, MAX_MODELS = 64, MAX_STORED_RATES = 256, PATH_BYTES = 4096 };

/* Runs that held shares of the weights this near to each other are one lesson. */
#define SAME_SHARE 0.02

/* ---- the file ---------------------------------------------------------------- */

static bool file_path(const char *cache_dir, char *path, size_t capacity)
{
    const int n = cache_dir ? snprintf(path, capacity, "%s/experience.json", cache_dir) : -1;
    return n > 0 && (size_t)n < capacity;
}

/* A new reference, of an empty one where there is none; NULL when memory is short. */
static json_t *load(const char *cache_dir)
{
    char path[PATH_BYTES];
    char cpu[128];
    hypura_os_cpu_name(cpu, sizeof cpu);
    json_t *root = file_path(cache_dir, path, sizeof path) ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *of = json_string_value(json_object_get(root, "cpu"));
    const bool fits = json_integer_value(json_object_get(root, "version")) == VERSION && of && strcmp(of, cpu) == 0 &&
                      json_is_array(json_object_get(root, "rates")) && json_is_array(json_object_get(root, "others")) &&
                      json_is_array(json_object_get(root, "models"));
    if (!fits) {
        json_decref(root);
        root = json_pack("{s:i,s:s,s:[],s:[],s:[]}", "version", VERSION, "cpu", cpu, "rates", "others", "models");
    }
    return root;
}

static void save(const char *cache_dir, const json_t *root)
{
    char path[PATH_BYTES];
    char temporary[PATH_BYTES + 32];
    if (!file_path(cache_dir, path, sizeof path)) {
        return;
    }
    (void)snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    if (json_dump_file(root, temporary, JSON_INDENT(1)) != 0 || rename(temporary, path) != 0) {
        (void)unlink(temporary);
    }
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static bool is(const json_t *object, const char *key, int64_t value)
{
    const json_t *stored = json_object_get(object, key);
    return json_is_integer(stored) && json_integer_value(stored) == value;
}

/* The oldest leaves when there are too many. */
static void append(json_t *array, json_t *value, size_t most)
{
    if (json_array_size(array) >= most) {
        (void)json_array_remove(array, 0);
    }
    (void)json_array_append_new(array, value);
}

static void name_model(const hypura_map *map, char *name, size_t capacity)
{
    (void)snprintf(name, capacity, "%s %s %llu", map->arch, map->name, (unsigned long long)map->tensor_bytes);
}

/* ---- rates -------------------------------------------------------------------- */

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
        if (is(entry, "type", shape->type) && is(entry, "columns", shape->columns) && is(entry, "rows", shape->rows) &&
            is(entry, "used", shape->n_used) && is(entry, "batch", shape->n_rows) && is(entry, "threads", n_threads) &&
            is(entry, "repack", shape->repack)) {
            return entry;
        }
    }
    return NULL;
}

static hypura_status find_rate(json_t *root, const hypura_product_shape *shape, int n_threads, bool measure,
                               double *bytes_per_s, bool *changed, hypura_error *error)
{
    *bytes_per_s = number(find_stored(root, shape, n_threads), "bytes_per_s");
    if (*bytes_per_s > 0.0 || !measure) {
        return HYPURA_OK;
    }
    hypura_status status = hypura_probe_products(shape, n_threads, bytes_per_s, error);
    if (status == HYPURA_OK) {
        *changed = true;
        append(json_object_get(root, "rates"),
               json_pack("{s:i,s:I,s:I,s:i,s:i,s:i,s:i,s:f}", "type", shape->type, "columns",
                         (json_int_t)shape->columns, "rows", (json_int_t)shape->rows, "used", shape->n_used, "batch",
                         shape->n_rows, "threads", n_threads, "repack", (int)shape->repack, "bytes_per_s",
                         *bytes_per_s),
               MAX_STORED_RATES);
    }
    return status;
}

/* What a product takes beside its bytes: that of a weight of a few rows does little else. */
static hypura_status find_start(json_t *root, const hypura_product_shape *shape, int n_threads, bool measure,
                                double bytes_per_s, double *seconds, bool *changed, hypura_error *error)
{
    hypura_product_shape small = *shape;
    double rate = 0.0;
    small.rows = FEW_ROWS;
    *seconds = 0.0;
    const hypura_status status =
        shape->rows > FEW_ROWS ? find_rate(root, &small, n_threads, measure, &rate, changed, error) : HYPURA_OK;
    if (status == HYPURA_OK && rate > 0.0) {
        const double bytes = hypura_product_bytes(&small);
        *seconds = fmax(bytes / rate - bytes / bytes_per_s, 0.0);
    }
    return status;
}

/* A second look a moment later, as what disturbs a machine may outlast a measurement; the
 * faster one counts. */
static hypura_status look_again(json_t *root, const hypura_product_shape *shape, int n_threads, double *bytes_per_s,
                                hypura_error *error)
{
    double again = 0.0;
    const hypura_status status = hypura_probe_products(shape, n_threads, &again, error);
    if (status == HYPURA_OK && again > *bytes_per_s) {
        *bytes_per_s = again;
        (void)json_object_set_new(find_stored(root, shape, n_threads), "bytes_per_s", json_real(again));
    }
    return status;
}

hypura_status hypura_experience_rates(const char *cache_dir, const hypura_map *map, const hypura_survey *survey,
                                      int n_threads, bool repack, bool measure, hypura_rates *rates,
                                      hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, repack, false, types);
    bool changed = false;
    memset(rates, 0, sizeof(*rates));
    json_t *root = load(cache_dir);
    if (!root) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the rates of this processor");
    }
    hypura_status status = HYPURA_OK;
    double found[HYPURA_MAX_RATES] = {0};
    bool is_new[HYPURA_MAX_RATES] = {false};
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        status = find_rate(root, &types[i].shape, n_threads, measure, &found[i], &is_new[i], error);
        changed = changed || is_new[i];
    }
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        const hypura_product_shape *shape = &types[i].shape;
        if (is_new[i]) {
            status = look_again(root, shape, n_threads, &found[i], error);
        }
        if (status == HYPURA_OK && found[i] > 0.0) {
            status = find_start(root, shape, n_threads, measure, found[i], &rates->by_type[rates->n].product_s, &changed,
                                error);
            rates->by_type[rates->n].type = shape->type;
            rates->by_type[rates->n].experts = shape->n_used > 0;
            rates->by_type[rates->n].columns = shape->n_used > 0 ? shape->columns : 0;
            rates->by_type[rates->n++].bytes_per_s = found[i];
        }
    }
    if (changed) {
        save(cache_dir, root);
    }
    json_decref(root);
    return status;
}

static double stored_others(const json_t *root, const char *model, uint32_t n_filled, int n_threads)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "others"), i, entry)
    {
        const char *of = json_string_value(json_object_get(entry, "model"));
        if (of && strcmp(of, model) == 0 && is(entry, "filled", n_filled) && is(entry, "threads", n_threads)) {
            return number(entry, "seconds");
        }
    }
    return 0.0;
}

hypura_status hypura_experience_others(const char *cache_dir, const hypura_map *map, uint32_t n_filled, int n_threads,
                                       hypura_nodes *others, hypura_rates *rates, hypura_error *error)
{
    char name[512];
    name_model(map, name, sizeof name);
    json_t *root = load(cache_dir);
    rates->others_s = stored_others(root, name, n_filled, n_threads);
    hypura_status status = HYPURA_OK;
    if (rates->others_s <= 0.0 && others) {
        status = hypura_probe_nodes(others, n_threads, &rates->others_s, error);
        if (status == HYPURA_OK && rates->others_s > 0.0 && root) {
            append(json_object_get(root, "others"),
                   json_pack("{s:s,s:I,s:i,s:f}", "model", name, "filled", (json_int_t)n_filled, "threads", n_threads,
                             "seconds", rates->others_s),
                   MAX_STORED_RATES);
            save(cache_dir, root);
        }
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

hypura_status hypura_experience_prompt_rates(const char *cache_dir, const hypura_map *map, const hypura_survey *survey,
                                             int n_threads, bool repack, hypura_rates *rates, hypura_error *error)
{
    typical types[HYPURA_MAX_RATES];
    const int n = find_types(map, survey, repack, true, types);
    bool changed = false;
    json_t *root = load(cache_dir);
    if (!root) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the rates of this processor");
    }
    hypura_status status = HYPURA_OK;
    for (int i = 0; status == HYPURA_OK && i < n; i++) {
        const hypura_product_shape prompt = prompt_shape(&types[i].shape, map, survey->n_ubatch);
        double rate;
        status = find_rate(root, &prompt, n_threads, true, &rate, &changed, error);
        for (int r = 0; status == HYPURA_OK && r < rates->n; r++) {
            if (rates->by_type[r].type == prompt.type && rates->by_type[r].experts == (prompt.n_used > 0) &&
                (rates->by_type[r].columns == 0 || rates->by_type[r].columns == prompt.columns)) {
                rates->by_type[r].prompt_bytes_per_s = rate;
            }
        }
    }
    if (changed) {
        save(cache_dir, root);
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
        if (is(entry, "type", type)) {
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
    json_t *root = n > 0 ? load(cache_dir) : NULL;
    if (!root) {
        return HYPURA_OK;
    }
    const json_t *stored = stored_repack(root, types[most].shape.type);
    hypura_status status = HYPURA_OK;
    if (stored) {
        *bytes_per_s = number(stored, "bytes_per_s");
    } else {
        status = hypura_probe_repack(&types[most].shape, bytes_per_s, error);
    }
    if (status == HYPURA_OK && !stored) {
        if (!json_object_get(root, "repacking")) {
            (void)json_object_set_new(root, "repacking", json_array());
        }
        append(json_object_get(root, "repacking"),
               json_pack("{s:i,s:f}", "type", types[most].shape.type, "bytes_per_s", *bytes_per_s), MAX_STORED_RATES);
        save(cache_dir, root);
    }
    json_decref(root);
    return status;
}

/* ---- lessons -------------------------------------------------------------------- */

/* The entry of a model, borrowed; NULL when there is none. */
static json_t *find_model(const json_t *root, const char *name, int n_threads, bool repack)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "models"), i, entry)
    {
        const char *of = json_string_value(json_object_get(entry, "model"));
        if (of && strcmp(of, name) == 0 && is(entry, "threads", n_threads) && is(entry, "repack", repack)) {
            return entry;
        }
    }
    return NULL;
}

static bool read_lesson(const json_t *entry, hypura_lesson *lesson)
{
    *lesson = (hypura_lesson){.held = number(entry, "held"),
                              .compute_s = number(entry, "compute_s"),
                              .read_bytes = number(entry, "read_bytes"),
                              .hit_rate = number(entry, "hit_rate"),
                              .read_factor = number(entry, "read_factor")};
    return lesson->held > 0.0 && lesson->held <= 1.0 && lesson->compute_s > 0.0 && lesson->read_bytes >= 0.0 &&
           lesson->hit_rate >= 0.0 && lesson->hit_rate <= 1.0 && lesson->read_factor >= 0.0;
}

/* Keeps the order; one too many replaces its neighbour. */
static void insert(hypura_lessons *lessons, const hypura_lesson *lesson)
{
    int at = lessons->n;
    if (lessons->n == HYPURA_MAX_LESSONS) {
        at = 0;
        while (at < lessons->n - 1 && lessons->items[at].held < lesson->held) {
            at++;
        }
        lessons->items[at] = *lesson;
        return;
    }
    while (at > 0 && lessons->items[at - 1].held > lesson->held) {
        lessons->items[at] = lessons->items[at - 1];
        at--;
    }
    lessons->items[at] = *lesson;
    lessons->n++;
}

static void read_lessons(const json_t *model, hypura_lessons *lessons)
{
    size_t i;
    json_t *entry;
    memset(lessons, 0, sizeof(*lessons));
    json_array_foreach(json_object_get(model, "lessons"), i, entry)
    {
        hypura_lesson lesson;
        if (read_lesson(entry, &lesson)) {
            insert(lessons, &lesson);
        }
    }
}

void hypura_experience_lessons(const char *cache_dir, const hypura_map *map, int n_threads, bool repack,
                               hypura_lessons *lessons)
{
    char name[512];
    name_model(map, name, sizeof name);
    json_t *root = load(cache_dir);
    read_lessons(find_model(root, name, n_threads, repack), lessons);
    json_decref(root);
}

static void learn(hypura_lessons *lessons, const hypura_lesson *lesson)
{
    for (int i = 0; i < lessons->n; i++) {
        hypura_lesson *known = &lessons->items[i];
        if (fabs(known->held - lesson->held) <= SAME_SHARE) {
            known->compute_s = (known->compute_s + lesson->compute_s) / 2.0;
            known->read_bytes = (known->read_bytes + lesson->read_bytes) / 2.0;
            known->hit_rate = (known->hit_rate + lesson->hit_rate) / 2.0;
            known->read_factor = hypura_plan_mix_factors(known->read_factor, lesson->read_factor, 0.5);
            return;
        }
    }
    insert(lessons, lesson);
}

static json_t *lessons_json(const hypura_lessons *lessons)
{
    json_t *array = json_array();
    for (int i = 0; i < lessons->n; i++) {
        const hypura_lesson *l = &lessons->items[i];
        (void)json_array_append_new(array, json_pack("{s:f,s:f,s:f,s:f,s:f}", "held", l->held, "compute_s",
                                                     l->compute_s, "read_bytes", l->read_bytes, "hit_rate", l->hit_rate,
                                                     "read_factor", l->read_factor));
    }
    return array;
}

void hypura_experience_add(const char *cache_dir, const hypura_map *map, const hypura_plan *plan, int n_threads,
                           bool repack, double direct_bytes_per_s, const hypura_run_costs *costs)
{
    char name[512];
    hypura_lessons lessons;
    json_t *root = cache_dir ? load(cache_dir) : NULL;
    if (!root || map->tensor_bytes == 0 || plan->gpu[0] || !(costs->seconds > 0.0)) {
        json_decref(root);
        return;
    }
    const double storage_s = direct_bytes_per_s > 0.0 ? costs->read_bytes / direct_bytes_per_s : 0.0;
    const double held = (double)plan->weights_bytes / (double)map->tensor_bytes;
    const double compute_s = fmax(costs->seconds - costs->read_wait_s, 1e-9);
    const hypura_lesson lesson = {.held = fmin(held, 1.0),
                                  .compute_s = compute_s,
                                  .read_bytes = costs->read_bytes,
                                  .hit_rate = costs->hit_rate,
                                  .read_factor =
                                      hypura_plan_read_factor(plan, costs->seconds, compute_s, storage_s)};
    name_model(map, name, sizeof name);
    json_t *model = find_model(root, name, n_threads, repack);
    read_lessons(model, &lessons);
    learn(&lessons, &lesson);
    if (model) {
        (void)json_object_set_new(model, "lessons", lessons_json(&lessons));
    } else {
        append(json_object_get(root, "models"),
               json_pack("{s:s,s:i,s:i,s:o}", "model", name, "threads", n_threads, "repack", (int)repack, "lessons",
                         lessons_json(&lessons)),
               MAX_MODELS);
    }
    save(cache_dir, root);
    json_decref(root);
}
