/*
 * verify.c - the proof: the same tokens through plain libllama and through Hypura,
 * at every budget and with every I/O engine.
 *
 *     for each ubatch:   plain, opened once: writes a script for each prompt; closed
 *                        for each budget and engine: Hypura, opened once: follows all
 *
 * Over GPUs both compute there, plain with the same layers on each, all of them in its
 * memory, and each budget of their memory meets each budget of the host's. Layers do not
 * move with a budget as long as each GPU has the least that its own need; where they do,
 * plain writes its scripts anew.
 *
 * So the two never share memory, and all but the first prompt meet a pager that
 * already holds something. Plain holds each weight in the form in which Hypura is to
 * compute with it, as kernels of repacked weights round differently: in the file's own
 * layout, all repacked, or the output matrix alone: what a run with the same limit takes,
 * or what is asked for.
 */
#include "engine/llama/gpu.h"
#include "engine/measure/replay.h"
#include "engine/measure/unrest.h"

#include "base/status.h"
#include "hypura_measure.h"
#include "io/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows of logits kept by one group of scripts; what exceeds it is kept as hashes. */
#define ROWS_BYTES (UINT64_C(256) << 20)

enum {
    MAX_ENGINES = 4,
    MAX_DEFAULT_BUDGETS = 4,
};

static const uint32_t default_prompts[] = {1, 7, 64};
static const uint32_t default_ubatches[] = {0}; /* as a model is opened with */

/* Of one case. */
typedef struct verify_limits {
    uint64_t weights_bytes;
    uint64_t vram_bytes;
    const uint64_t *gpu_vram_bytes; /* HYPURA_MAX_GPUS of them; NULL: none */
} verify_limits;

/* What plain libllama has to have in common with a case; it writes its scripts anew for another. */
typedef struct verify_setup {
    uint32_t n_ubatch; /* asked for, or taken by itself */
    hypura_form form;
    hypura_load_gpu gpus;
} verify_setup;

typedef struct verification {
    const hypura_verify_options *options;
    hypura_model_options model; /* of every case, before what it has of its own */
    const uint32_t *prompts;
    int n_prompts;
    const uint32_t *ubatches;
    int n_ubatches;
    const char *engines[MAX_ENGINES];
    int n_engines;
    const uint64_t *budgets;
    int n_budgets;
    uint64_t default_budgets[MAX_DEFAULT_BUDGETS];
    const uint64_t *vram; /* one 0 without a GPU */
    int n_vram;
    uint64_t default_vram[MAX_DEFAULT_BUDGETS];
    uint32_t n_steps;
    uint32_t n_context;
    uint32_t longest_prompt;
    hypura_profile profile;
    hypura_script *scripts; /* one for each prompt */
    verify_setup setup;     /* of these */
    bool over_gpus;
    hypura_verify_report *report;
    uint64_t opened; /* models, for progress */
} verification;

static bool goes_on(const verification *v, uint64_t n_done)
{
    const hypura_verify_options *o = v->options;
    const uint64_t n_budgets = (uint64_t)v->n_budgets * (uint64_t)v->n_vram;
    const uint64_t n_plain = o->model.n_adapters > 0 ? 2 : 1;
    uint64_t total = (uint64_t)v->n_ubatches * (n_plain + n_budgets * (uint64_t)v->n_engines);
    total = total > n_done ? total : n_done + 1; /* plain more often than once */
    return !o->model.progress || o->model.progress(o->model.progress_user, "verifying", n_done, total);
}

static hypura_status step(verification *v, hypura_error *error)
{
    if (!goes_on(v, v->opened)) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "verification was stopped");
    }
    v->opened++;
    return HYPURA_OK;
}

/* While the model that was counted last loads, and while it computes. */
static bool loads_on(void *user, const char *what, uint64_t done, uint64_t total)
{
    const verification *v = user;
    (void)what;
    (void)done;
    (void)total;
    return goes_on(v, v->opened > 0 ? v->opened - 1 : 0);
}

static bool is_stopped(void *user)
{
    return !loads_on(user, NULL, 0, 0);
}

/* ---- what to do --------------------------------------------------------- */

/* In ascending order, each once. */
static void add_budget(uint64_t *budgets, int *n, uint64_t bytes)
{
    if (*n == 0 || bytes > budgets[*n - 1]) {
        budgets[(*n)++] = bytes;
    }
}

static void choose_host_budgets(verification *v, const hypura_preparation *prepared)
{
    v->budgets = v->default_budgets;
    if (prepared->gpus.n > 0) {
        add_budget(v->default_budgets, &v->n_budgets, 0);
        return;
    }
    const uint64_t all = prepared->map->tensor_bytes;
    const uint64_t budgets[] = {prepared->plan->floor_weights_bytes, all / 4, all / 2, all};
    for (int i = 0; i < MAX_DEFAULT_BUDGETS; i++) {
        add_budget(v->default_budgets, &v->n_budgets, budgets[i]);
    }
}

static void choose_vram_budgets(verification *v, const hypura_preparation *prepared)
{
    static const uint32_t percents[MAX_DEFAULT_BUDGETS] = {0, 25, 50, 100};
    v->vram = v->default_vram;
    for (int i = 0; i < MAX_DEFAULT_BUDGETS; i++) {
        const bool over_gpus = prepared->gpus.n_here > 0;
        const uint64_t bytes = over_gpus ? hypura_plan_vram_at(prepared->plan, percents[i]) : 0;
        if (bytes > 0 || !over_gpus) {
            add_budget(v->default_vram, &v->n_vram, bytes);
        }
    }
}

static hypura_model_options model_of(const verification *v, uint32_t n_ubatch)
{
    hypura_model_options model = v->model;
    model.n_context = v->n_context;
    model.n_ubatch = n_ubatch;
    return model;
}

/* As wanted, but in no form that was chosen by rates, and with nothing that each case has of its own. */
static void take_model(verification *v)
{
    v->model = v->options->model;
    v->model.cache_dir = NULL;
    v->model.memory_bytes = v->model.weights_bytes = v->model.vram_bytes = 0;
    memset(v->model.gpu_vram_bytes, 0, sizeof(v->model.gpu_vram_bytes));
    v->model.io_engine = NULL;
    v->model.no_repack = v->model.repack_output = v->model.plain = false;
    v->model.progress = v->model.progress ? loads_on : NULL;
    v->model.progress_user = v;
}

static hypura_status choose_budgets(verification *v, hypura_error *error)
{
    const hypura_verify_options *o = v->options;
    hypura_model_options wanted = model_of(v, v->ubatches[0]);
    wanted.force_paging = true;
    hypura_preparation prepared;
    hypura_status status = hypura_prepare(&wanted, &v->profile, true, &prepared, error);
    if (status != HYPURA_OK) {
        return status;
    }
    v->over_gpus = prepared.gpus.n > 0;
    v->budgets = o->weights_bytes;
    v->n_budgets = o->n_weights;
    if (!o->weights_bytes) {
        v->n_budgets = 0;
        choose_host_budgets(v, &prepared);
    }
    v->vram = o->vram_bytes;
    v->n_vram = o->n_vram;
    if (!o->vram_bytes) {
        v->n_vram = 0;
        choose_vram_budgets(v, &prepared);
    }
    hypura_prepare_clear(&prepared);
    if (o->vram_bytes && !v->over_gpus) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a limit on GPU memory, and no GPU computes here");
    }
    return HYPURA_OK;
}

static hypura_status choose_engines(verification *v, hypura_error *error)
{
    static const char *const all[] = {"uring", "pool"};
    const hypura_verify_options *o = v->options;
    if (o->io_engines && o->n_io_engines > MAX_ENGINES) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%d I/O engines: there are at most %d", o->n_io_engines,
                           MAX_ENGINES);
    }
    const char *const *from = o->io_engines ? o->io_engines : all;
    const int n = o->io_engines ? o->n_io_engines : (int)(sizeof(all) / sizeof(all[0]));
    for (int i = 0; i < n; i++) {
        /* One that was asked for by name fails when it is opened, and says why. */
        if (o->io_engines || hypura_io_engine_available(from[i])) {
            v->engines[v->n_engines++] = from[i];
        }
    }
    return HYPURA_OK;
}

static hypura_status prepare(verification *v, hypura_error *error)
{
    const hypura_verify_options *o = v->options;
    v->prompts = o->prompt_tokens ? o->prompt_tokens : default_prompts;
    v->n_prompts = o->prompt_tokens ? o->n_prompts : (int)(sizeof(default_prompts) / sizeof(default_prompts[0]));
    v->ubatches = o->ubatches ? o->ubatches : default_ubatches;
    v->n_ubatches = o->ubatches ? o->n_ubatches : (int)(sizeof(default_ubatches) / sizeof(default_ubatches[0]));
    v->n_steps = o->tokens > 0 ? o->tokens : 16;
    for (int i = 0; i < v->n_prompts; i++) {
        if (v->prompts[i] == 0) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "a prompt of 0 tokens: pass 1 or more");
        }
        v->longest_prompt = v->prompts[i] > v->longest_prompt ? v->prompts[i] : v->longest_prompt;
    }
    if (v->n_prompts <= 0 || v->n_ubatches <= 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is nothing to verify: no prompt or no ubatch was given");
    }
    if (v->longest_prompt > INT32_MAX || v->n_steps > INT32_MAX - v->longest_prompt) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%u tokens after a prompt of %u are too many", v->n_steps,
                           v->longest_prompt);
    }
    v->n_context = v->longest_prompt + v->n_steps;

    const hypura_profile_options wanted = {.cache_dir = o->model.cache_dir,
                                           .storage_path = o->model.path,
                                           .gpu = o->model.gpu,
                                           .progress = o->model.progress,
                                           .progress_user = o->model.progress_user};
    hypura_status status = hypura_profile_get(&wanted, &v->profile, error);
    if (status == HYPURA_OK) {
        status = choose_engines(v, error);
    }
    if (status == HYPURA_OK) {
        status = choose_budgets(v, error);
    }
    if (status == HYPURA_OK && (v->n_budgets <= 0 || v->n_vram <= 0 || v->n_engines == 0)) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "there is nothing to verify: no budget or no I/O engine");
    }
    return status;
}

/* ---- doing it ----------------------------------------------------------- */

/* engine: NULL for plain. */
static hypura_model_options options_of(const verification *v, uint32_t n_ubatch, const verify_limits *limits,
                                       const char *engine)
{
    /* either guess is compared, each with one of the engines */
    const bool by_coactivation = engine && strcmp(engine, "pool") == 0;
    hypura_model_options options = model_of(v, n_ubatch);
    options.weights_bytes = limits->weights_bytes;
    options.vram_bytes = limits->vram_bytes;
    options.force_paging = engine != NULL;
    options.plain = engine == NULL;
    options.io_engine = engine;
    options.foresight = by_coactivation ? HYPURA_FORESIGHT_COACTIVATION : HYPURA_FORESIGHT_ON;
    hypura_prepare_in_form(&options, v->setup.form);
    if (limits->gpu_vram_bytes) {
        memcpy(options.gpu_vram_bytes, limits->gpu_vram_bytes, sizeof(options.gpu_vram_bytes));
    }
    return options;
}

static hypura_status open_with(verification *v, const hypura_model_options *options, hypura_model **model,
                               hypura_error *error)
{
    const hypura_model_extras extras = {
        .profile = &v->profile, .all_logits = true, .gpus = v->over_gpus ? &v->setup.gpus : NULL};
    hypura_status status = step(v, error);
    if (status == HYPURA_OK) {
        status = hypura_model_open_with(options, &extras, model, error);
    }
    if (status == HYPURA_OK && options->progress) {
        llama_set_abort_callback((*model)->ctx, is_stopped, v);
    }
    return status;
}

static hypura_status open_model(verification *v, uint32_t n_ubatch, const verify_limits *limits, const char *engine,
                                hypura_model **model, hypura_error *error)
{
    const hypura_model_options options = options_of(v, n_ubatch, limits, engine);
    return open_with(v, &options, model, error);
}

/* Plain libllama without the adapters puts out something else, or nothing would be compared that has to do with them. */
static hypura_status check_adapters(verification *v, uint32_t n_ubatch, hypura_error *error)
{
    const verify_limits none = {.weights_bytes = 0};
    hypura_model_options options = options_of(v, n_ubatch, &none, NULL);
    hypura_model *model = NULL;
    uint64_t differing = 0;
    options.n_adapters = 0;
    hypura_status status = open_with(v, &options, &model, error);
    if (status == HYPURA_OK) {
        status = hypura_script_follow(model, &v->scripts[0], &differing, error);
    }
    hypura_model_close(model);
    if (status == HYPURA_OK && differing == 0) {
        status = hypura_fail(error, HYPURA_ERR_USAGE,
                             "no logit of a prompt of %u tokens changes with %s: there is nothing of it to verify",
                             v->prompts[0], v->options->model.adapters[0].path);
    }
    return status;
}

/* Opens plain libllama and writes the scripts. *n_ubatch grows where the model
 * cannot read a prompt in pieces. */
static hypura_status write_scripts(verification *v, uint32_t *n_ubatch, hypura_error *error)
{
    hypura_model *model = NULL;
    uint64_t budget = ROWS_BYTES;
    const verify_limits none = {.weights_bytes = 0};
    hypura_status status = open_model(v, *n_ubatch, &none, NULL, &model, error);
    if (status == HYPURA_OK && hypura_replay_needs_whole_prompt(model) && *n_ubatch < v->longest_prompt) {
        *n_ubatch = v->longest_prompt;
        hypura_model_close(model);
        model = NULL;
        v->opened--;
        status = open_model(v, *n_ubatch, &none, NULL, &model, error);
    }
    for (int i = 0; i < v->n_prompts && status == HYPURA_OK; i++) {
        status = hypura_script_write(model, v->prompts[i], v->n_steps, &budget, &v->scripts[i], error);
    }
    hypura_model_close(model);
    if (status == HYPURA_OK && v->options->model.n_adapters > 0) {
        status = check_adapters(v, *n_ubatch, error);
    }
    if (status != HYPURA_OK && status != HYPURA_ERR_CANCELLED) {
        hypura_fail_prefix(error, "plain llama.cpp");
    }
    return status;
}

/* ---- what both sides have in common ------------------------------------- */

static bool same_gpus(const hypura_load_gpu *a, const hypura_load_gpu *b)
{
    bool same = a->n == b->n && a->n_layers == b->n_layers;
    for (int g = 0; same && g < a->n; g++) {
        same = a->devices[g] == b->devices[g] && a->layers[g] == b->layers[g];
    }
    return same;
}

static bool same_setup(const verify_setup *a, const verify_setup *b)
{
    return a->n_ubatch == b->n_ubatch && a->form == b->form && same_gpus(&a->gpus, &b->gpus);
}

/* With these limits. asked: a ubatch, or 0 for the one that is taken by itself. */
static hypura_status find_setup(const verification *v, uint32_t asked, const verify_limits *limits, verify_setup *setup,
                                hypura_error *error)
{
    hypura_model_options options = options_of(v, asked, limits, v->engines[0]);
    options.no_repack = v->options->no_repack || v->options->repack_output;
    options.repack_output = v->options->repack_output;
    if (!v->over_gpus && !v->options->repack) {
        options.cache_dir = v->options->model.cache_dir; /* of the rates by which a form is chosen */
    }
    hypura_preparation prepared;
    hypura_status status = hypura_prepare(&options, &v->profile, true, &prepared, error);
    if (status == HYPURA_OK) {
        *setup = (verify_setup){.n_ubatch = asked > 0 ? asked : prepared.context.n_ubatch, .form = prepared.plan->form};
        if (v->over_gpus) {
            setup->gpus = prepared.gpus;
        }
        hypura_prepare_clear(&prepared);
    }
    return status;
}

static void clear_scripts(verification *v)
{
    for (int i = 0; i < v->n_prompts; i++) {
        hypura_script_clear(&v->scripts[i]);
    }
}

/* Plain once, and again where a budget moves layers from one device to another, has no room
 * for parts of a prompt that are as large, or is computed with in another form. asked: a ubatch,
 * or 0; *n_ubatch: what it came to. */
static hypura_status prepare_scripts(verification *v, uint32_t asked, const verify_limits *limits, uint32_t *n_ubatch,
                                     hypura_error *error)
{
    verify_setup setup;
    hypura_status status = find_setup(v, asked, limits, &setup, error);
    if (status != HYPURA_OK || (v->scripts[0].n_rows > 0 && same_setup(&setup, &v->setup))) {
        return status;
    }
    clear_scripts(v);
    v->setup = setup;
    *n_ubatch = setup.n_ubatch;
    return write_scripts(v, n_ubatch, error);
}

static uint64_t vram_of(const verify_limits *limits)
{
    uint64_t bytes = limits->vram_bytes;
    for (int g = 0; limits->gpu_vram_bytes && g < HYPURA_MAX_GPUS; g++) {
        bytes += limits->gpu_vram_bytes[g];
    }
    return bytes;
}

static hypura_status follow_scripts(verification *v, uint32_t n_ubatch, const verify_limits *limits,
                                    const char *engine, hypura_error *error)
{
    hypura_model *model = NULL;
    hypura_status status = open_model(v, n_ubatch, limits, engine, &model, error);
    if (status == HYPURA_OK && v->over_gpus && !same_gpus(&model->prepared.gpus, &v->setup.gpus)) {
        status = hypura_fail(error, HYPURA_ERR_BACKEND,
                             "what is free on the GPUs changed meanwhile, and layers with it: try again");
    }
    for (int i = 0; i < v->n_prompts && status == HYPURA_OK; i++) {
        const hypura_script *script = &v->scripts[i];
        hypura_verify_case *c = &v->report->cases[v->report->n_cases];
        hypura_statistics statistics;
        *c = (hypura_verify_case){.weights_bytes = limits->weights_bytes,
                                  .vram_bytes = vram_of(limits),
                                  .prompt_tokens = script->n_prompt,
                                  .tokens = script->n_steps,
                                  .ubatch = n_ubatch,
                                  .form = v->setup.form};
        hypura_gpus_name(&model->prepared.gpus, model->prepared.map, c->gpus, sizeof(c->gpus));
        hypura_model_reset_statistics(model);
        hypura_unrest *unrest = NULL;
        if (v->options->resize) {
            status = hypura_unrest_begin(model, &unrest, error);
        }
        if (status == HYPURA_OK) {
            hypura_difference difference;
            status = hypura_script_compare(model, script, &difference, error);
            c->differing = difference.differing;
            c->most_differing = difference.largest;
        }
        c->n_resizes = hypura_unrest_end(unrest);
        if (status == HYPURA_OK) {
            hypura_model_statistics(model, &statistics);
            c->bytes_read = statistics.bytes_read;
            c->bytes_uploaded = statistics.bytes_uploaded;
            c->n_ahead = statistics.n_ahead;
            c->n_repeated = statistics.n_repeated;
            c->n_cpu_rows = statistics.n_cpu_rows;
            snprintf(c->io_engine, sizeof(c->io_engine), "%s", model->pager ? statistics.io_engine : "none");
            v->report->identical = v->report->identical && c->differing == 0;
            v->report->n_cases++;
        }
    }
    hypura_model_close(model);
    if (status != HYPURA_OK && status != HYPURA_ERR_CANCELLED) {
        hypura_fail_prefix(error, "%llu bytes of weights, %llu of GPU memory, engine %s, ubatch %u",
                           (unsigned long long)limits->weights_bytes, (unsigned long long)vram_of(limits), engine, n_ubatch);
    }
    return status;
}

static hypura_status verify_ubatch(verification *v, uint32_t asked, hypura_error *error)
{
    if (asked == 0 && v->options->ubatches) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a ubatch of 0 tokens: pass 1 or more");
    }
    uint32_t n_ubatch = asked;
    hypura_status status = HYPURA_OK;
    const int n_budgets = v->n_budgets * v->n_vram;
    for (int b = 0; b < n_budgets && status == HYPURA_OK; b++) {
        const uint64_t (*each)[HYPURA_MAX_GPUS] = v->options->vram_bytes ? v->options->gpu_vram_bytes : NULL;
        const verify_limits limits = {.weights_bytes = v->budgets[b / v->n_vram],
                                      .vram_bytes = v->vram[b % v->n_vram],
                                      .gpu_vram_bytes = each ? each[b % v->n_vram] : NULL};
        status = prepare_scripts(v, asked, &limits, &n_ubatch, error);
        for (int e = 0; e < v->n_engines && status == HYPURA_OK; e++) {
            status = follow_scripts(v, n_ubatch, &limits, v->engines[e], error);
        }
    }
    clear_scripts(v);
    return status;
}

hypura_status hypura_verify(const hypura_verify_options *options, hypura_verify_report *report, hypura_error *error)
{
    verification v = {.options = options, .report = report};
    memset(report, 0, sizeof(*report));
    hypura_error_clear(error);
    if (!options->model.path) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no model was named: pass the path of a GGUF file");
    }
    if (options->repack + options->repack_output + options->no_repack > 1) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "all weights repacked, the output alone, or none: ask for one of them");
    }
    take_model(&v);
    hypura_status status = prepare(&v, error);
    if (status == HYPURA_OK) {
        const size_t n_budgets = (size_t)v.n_budgets * (size_t)v.n_vram;
        const size_t n = (size_t)v.n_prompts * (size_t)v.n_ubatches * n_budgets * (size_t)v.n_engines;
        report->identical = true;
        report->cases = calloc(n, sizeof(*report->cases));
        v.scripts = calloc((size_t)v.n_prompts, sizeof(*v.scripts));
        if (!report->cases || !v.scripts) {
            status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %zu comparisons", n);
        }
    }
    for (int i = 0; i < v.n_ubatches && status == HYPURA_OK; i++) {
        status = verify_ubatch(&v, v.ubatches[i], error);
    }
    free(v.scripts);
    if (status != HYPURA_OK) {
        hypura_verify_report_clear(report);
    }
    return status;
}

void hypura_verify_report_clear(hypura_verify_report *report)
{
    free(report->cases);
    memset(report, 0, sizeof(*report));
}
