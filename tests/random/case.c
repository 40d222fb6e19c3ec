/* case.c - see case.h. */
#include "case.h"

#include "leases.h"
#include "play.h"

#include "backend/internal.h"
#include "base/status.h"
#include "engine/llama/adapters.h"
#include "engine/llama/kv_cache.h"
#include "engine/prepare/estimate.h"
#include "hw/modules.h"
#include "hw/store.h"
#include "hypura_measure.h"
#include "os/os.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct test_case {
    const settings *with;
    uint64_t     seed;
    rng          r;
    drawn_model  model;
    drawn_run    run;
    hypura_load_gpu gpus; /* that both sides have */
    hypura_form  form;
    play_record  record;
    play_reads   reads;
    char        *answers; /* of plain libllama, joined */
    verdict     *v;
} test_case;

static bool end_case(test_case *c, outcome what, const char *text)
{
    c->v->outcome = what;
    snprintf(c->v->text, sizeof c->v->text, "%s", text);
    return false;
}

static outcome of_status(hypura_status status)
{
    return status == HYPURA_ERR_BUDGET || status == HYPURA_ERR_USAGE || status == HYPURA_ERR_UNSUPPORTED ? REFUSED : FAILED;
}

/* By the plan without limits, in shares of what lies between the least and all. */
static bool set_limits(test_case *c)
{
    hypura_model_options *o = &c->run.options;
    hypura_preparation all;
    hypura_error error;
    hypura_model_options asked = *o;
    asked.force_paging = true;
    hypura_status status = hypura_prepare(&asked, &c->with->profile, false, &all, &error);
    if (status == HYPURA_ERR_UNSUPPORTED || status == HYPURA_ERR_USAGE) { /* no output matrix to repack, or it has no other form */
        asked.repack_output = o->repack_output = false;
        status = hypura_prepare(&asked, &c->with->profile, false, &all, &error);
    }
    if (status != HYPURA_OK) { /* libllama itself, without weights */
        return end_case(c, status == HYPURA_ERR_BACKEND ? PLAIN_FAILED : of_status(status), error.message);
    }
    const hypura_plan *p = all.plan;
    if (p->n_vram_pools > 0 && c->run.vram_percent <= 100) {
        if (c->run.each_gpu) {
            for (int g = 0; g < p->n_gpus; g++) {
                o->gpu_vram_bytes[g] =
                    p->gpus[g].floor_bytes + (p->gpus[g].full_bytes - p->gpus[g].floor_bytes) * c->run.vram_percent / 100;
            }
        } else {
            o->vram_bytes = hypura_plan_vram_at(p, c->run.vram_percent);
        }
    } else if (p->n_gpus > 0 && c->run.vram_percent <= 100) {
        o->vram_bytes = p->vram_bytes * (c->run.vram_percent + 1) / 101;
    }
    hypura_prepare_clear(&all);
    status = hypura_prepare(&asked, &c->with->profile, false, &all, &error);
    if (status != HYPURA_OK) {
        return end_case(c, of_status(status), error.message);
    }
    const uint64_t floor_bytes = all.plan->floor_weights_bytes;
    const uint64_t all_bytes = all.map->tensor_bytes + all.map->tensor_bytes / 8;
    if (c->run.weights_permille <= 1000 && !all.plan->unified) {
        o->weights_bytes = floor_bytes + (all_bytes > floor_bytes ? all_bytes - floor_bytes : 0) * c->run.weights_permille / 1000;
    }
    if (c->run.memory_permille <= 1000 || all.plan->unified) {
        const uint64_t share = c->run.memory_permille <= 1000 ? c->run.memory_permille : c->run.weights_permille;
        const uint64_t least = all.plan->floor_memory_bytes + (all.plan->unified ? all.plan->floor_vram_bytes : 0) + (UINT64_C(1) << 22);
        o->memory_bytes = least + (all.map->tensor_bytes + all.map->tensor_bytes / 8) * (share <= 1000 ? share : 1000) / 1000;
    }
    hypura_prepare_clear(&all);
    return true;
}

/* Below the least, which depends on what else there is, a limit grows. */
static bool find_setup(test_case *c)
{
    hypura_preparation prepared;
    hypura_error error;
    hypura_model_options *o = &c->run.options;
    hypura_status status = HYPURA_ERR_BUDGET;
    for (int i = 0; i < 12 && status == HYPURA_ERR_BUDGET; i++) {
        o->weights_bytes += i > 0 && o->weights_bytes > 0 ? o->weights_bytes / 4 + 4096 : 0;
        o->memory_bytes += i > 0 && o->memory_bytes > 0 ? UINT64_C(1) << 19 : 0;
        status = hypura_prepare(o, &c->with->profile, false, &prepared, &error);
    }
    if (status != HYPURA_OK) {
        return end_case(c, status == HYPURA_ERR_BACKEND ? PLAIN_FAILED : of_status(status), error.message);
    }
    c->gpus = prepared.gpus;
    c->form = prepared.plan->form;
    const size_t used = strlen(c->v->run);
    snprintf(c->v->run + used, sizeof c->v->run - used, " | %s, %d layers over GPUs", hypura_mode_name(prepared.plan->mode),
             prepared.plan->n_gpu_layers);
    hypura_prepare_clear(&prepared);
    return true;
}

static bool open_contexts(test_case *c, play *p)
{
    hypura_error error;
    hypura_adapter adapters[DRAWN_ADAPTERS];
    for (int i = 0; i < c->model.n_adapters; i++) {
        adapters[i] = (hypura_adapter){c->model.adapters[i], 1.0f};
    }
    hypura_load_lock();
    hypura_status status = hypura_adapters_load(adapters, c->model.n_adapters, p->model->llama, p->adapters, &error);
    p->n_adapters = c->model.n_adapters;
    hypura_shim_guard_begin();
    for (int i = 0; i < c->run.n_contexts && status == HYPURA_OK; i++) {
        struct llama_context_params params = c->run.contexts[i];
        params.type_k = hypura_kv_cache_type(c->run.options.kv_cache.type_k);
        params.type_v = hypura_kv_cache_type(c->run.options.kv_cache.type_v);
        p->contexts[i] = llama_init_from_model(p->model->llama, params);
        p->n_contexts++;
        if (!p->contexts[i]) {
            status = hypura_fail(&error, HYPURA_ERR_BACKEND, "no context: %s", hypura_shim_guard_message());
        }
    }
    hypura_shim_guard_end();
    hypura_load_unlock();
    return status == HYPURA_OK || end_case(c, p->plain ? PLAIN_FAILED : FAILED, error.message);
}

/* ---- answers ------------------------------------------------------------------------- */

static void append(char **text, const char *more)
{
    const size_t n = *text ? strlen(*text) : 0;
    *text = realloc(*text, n + strlen(more) + 2);
    memcpy(*text + n, more, strlen(more) + 1);
    strcat(*text, "\n");
}

/* Conversations, guessed ahead where that is asked for; the same text on both sides. */
static bool answer(test_case *c, hypura_model *model, bool plain)
{
    rng r = rng_stream(c->seed, 9, 9);
    char *said = NULL;
    bool good = true;
    char prompt[6 * 20 + 1];
    uint32_t letters = 0;
    const uint32_t n = drawn_between(&r, 1, 6); /* as many as prompt has room for */
    for (uint32_t i = 0; i < n && good; i++) {
        const uint32_t common = drawn_between(&r, 1, 26);
        letters = drawn_chance(&r, 50) ? letters : 0; /* it goes on, or is another one */
        for (const uint32_t end = letters + drawn_between(&r, 1, 20); letters < end; letters++) {
            prompt[letters] = (char)('a' + rng_below(&r, common));
        }
        prompt[letters] = '\0';
        hypura_generate_options o = {.prompt = prompt, .raw = true, .max_tokens = drawn_between(&r, 1, 24)};
        o.sampling = (hypura_sampling){.temperature = drawn_chance(&r, 50) ? 0.0f : 0.9f,
                                       .top_p = 1.0f,
                                       .seed = drawn_between(&r, 1, 99),
                                       .repeat_penalty = drawn_chance(&r, 30) ? 1.2f : 0.0f};
        const uint64_t permille = rng_below(&r, 1001);
        if (!plain && drawn_chance(&c->r, 30)) {
            const hypura_held held = hypura_model_held(model);
            (void)hypura_model_resize(model, held.least_bytes + (held.most_bytes - held.least_bytes) * permille / 1000);
        }
        hypura_result result;
        hypura_error error;
        const hypura_status status = hypura_generate(model, &o, &result, &error);
        append(&said, status == HYPURA_OK ? result.text : hypura_status_name(status));
        char counts[64];
        snprintf(counts, sizeof counts, "[%u %u %u]", result.tokens, result.n_drafted, result.n_accepted);
        append(&said, status == HYPURA_OK ? counts : error.message);
        hypura_result_clear(&result);
        if (drawn_chance(&r, 40)) {
            hypura_model_reset(model);
        }
        c->v->n_answers += !plain;
    }
    if (plain) {
        c->answers = said;
        return true;
    }
    good = strcmp(said, c->answers) == 0;
    if (!good) {
        char text[768];
        snprintf(text, sizeof text, "answers differ:\n%.300s\n--\n%.300s", said, c->answers);
        (void)end_case(c, DIFFERS, text);
    }
    free(said);
    return good;
}

/* ---- both sides ------------------------------------------------------------------------ */

/* libllama ends the process for others: there is no such kernel, or none where they lie. */
static bool turns_keys(const test_case *c)
{
    const enum ggml_type type = hypura_kv_cache_type(c->run.options.kv_cache.type_k);
    return type == GGML_TYPE_F16 || type == GGML_TYPE_F32 || (type != GGML_TYPE_BF16 && c->gpus.n == 0);
}

static bool play_side(test_case *c, hypura_model *model, bool plain)
{
    play p = {.seed = c->seed,
              .n_ops = (int)drawn_between(&(rng){c->seed}, 4, (uint32_t)c->with->n_ops),
              .plain = plain,
              .over_standins = c->gpus.n > 0 && !c->with->gpus,
              .verbose = c->with->verbose,
              .can_shift = turns_keys(c),
              .model = model,
              .faults = c->run.faults,
              .reads = plain ? NULL : &c->reads,
              .record = &c->record};
    const bool answers = c->model.has_text && c->seed % 3 == 0;
    bool good = open_contexts(c, &p) && play_all(&p);
    if (good && answers) {
        good = answer(c, model, plain);
    } else if (!good && c->v->text[0] == '\0') {
        (void)end_case(c, plain ? PLAIN_FAILED : p.result.n_differing > 0 ? DIFFERS : FAILED,
                       p.result.failure[0] != '\0' ? p.result.failure : p.result.first_text);
    }
    if (!plain) {
        c->v->n_values = p.result.n_values;
        c->v->n_decodes = p.result.n_decodes;
        c->v->n_errors = p.result.n_errors;
        c->v->n_cancelled = p.result.n_cancelled;
    }
    for (int i = 0; i < p.n_contexts; i++) {
        llama_free(p.contexts[i]);
    }
    return good;
}

static bool play_plain(test_case *c)
{
    hypura_model *model = NULL;
    hypura_error error;
    hypura_model_options options = c->run.options;
    options.plain = true;
    options.force_paging = false;
    options.memory_bytes = options.weights_bytes = options.vram_bytes = 0;
    memset(options.gpu_vram_bytes, 0, sizeof options.gpu_vram_bytes);
    hypura_prepare_in_form(&options, c->form);
    const hypura_model_extras extras = {.profile = &c->with->profile, .gpus = &c->gpus};
    c->v->in_plain = true;
    if (hypura_model_open_with(&options, &extras, &model, &error) != HYPURA_OK) {
        return end_case(c, PLAIN_FAILED, error.message);
    }
    if (!llama_get_memory(model->ctx) || llama_model_has_encoder(model->llama)) {
        hypura_model_close(model);
        return end_case(c, REFUSED, "no decoder");
    }
    const bool good = play_side(c, model, true);
    hypura_model_close(model);
    c->v->in_plain = false;
    return good;
}

static bool play_paged(test_case *c)
{
    hypura_model *model = NULL;
    hypura_error error;
    hypura_model_options options = c->run.options;
    char kept[DRAWN_PATH_BYTES];
    if (c->run.keeps && options.no_repack) {
        snprintf(kept, sizeof kept, "%s", c->with->files.folder);
        options.cache_dir = kept;
    }
    hypura_prepare_in_form(&options, c->form);
    const hypura_model_extras extras = {
        .profile = &c->with->profile, .io_hook = play_on_read, .io_hook_user = &c->reads};
    const hypura_status status = hypura_model_open_with(&options, &extras, &model, &error);
    if (status != HYPURA_OK) {
        return end_case(c, of_status(status), error.message);
    }
    bool same = model->prepared.gpus.n == c->gpus.n && model->prepared.gpus.n_layers == c->gpus.n_layers;
    for (int g = 0; same && g < c->gpus.n; g++) {
        same = model->prepared.gpus.devices[g] == c->gpus.devices[g] && model->prepared.gpus.layers[g] == c->gpus.layers[g];
    }
    if (!same || model->prepared.plan->form != c->form) {
        char text[160];
        snprintf(text, sizeof text, "is not planned as it was prepared: %d GPUs, %d layers on them, %s; was %d, %d, %s",
                 model->prepared.gpus.n, model->prepared.gpus.n_layers, hypura_form_name(model->prepared.plan->form),
                 c->gpus.n, c->gpus.n_layers, hypura_form_name(c->form));
        hypura_model_close(model);
        return end_case(c, c->run.keeps ? REFUSED : FAILED, text); /* by what was learned */
    }
    const bool good = play_side(c, model, false);
    hypura_statistics s;
    hypura_model_statistics(model, &s);
    c->v->bytes_read += s.bytes_read;
    c->v->bytes_uploaded += s.bytes_uploaded;
    c->v->bytes_landed += s.bytes_landed;
    c->v->n_ahead += s.n_ahead;
    c->v->n_repeated += s.n_repeated;
    c->v->n_cpu_rows += s.n_cpu_rows;
    c->v->n_resizes += s.n_resizes;
    c->v->foreseen_useful += s.foreseen_bytes_useful + s.ahead_bytes_useful;
    hypura_model_close(model);
    return good;
}

static void drop_cache(const char *path)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        (void)fdatasync(file);
        (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
        close(file);
    }
}

static bool optimize(test_case *c)
{
    hypura_optimize_report report;
    hypura_error error;
    const hypura_optimize_options options = {.path = c->model.path, .force = true, .cache_dir = c->with->cache_dir};
    return hypura_optimize(&options, &report, &error) == HYPURA_OK || end_case(c, FAILED, error.message);
}

void run_case(const settings *with, uint64_t seed, verdict *v)
{
    test_case one = {.with = with, .seed = seed, .r = rng_stream(seed, 1, 2), .v = v};
    test_case *c = &one;
    if (c->with->gpus) {
        (void)hypura_modules_load(HYPURA_MODULES);
    } else {
        standin_register();
        backend_set_poll(false); /* the stand-ins copy when they are waited for */
    }
    if (!drawn_make_model(&c->r, &c->with->files, &c->model)) {
        (void)end_case(c, FAILED, "no model");
        return;
    }
    drawn_choose_run(&c->r, &c->model, c->with->gpus, &c->run);
    for (int i = 0; i < c->with->n_changes; i++) {
        char name[32];
        unsigned value;
        if (sscanf(c->with->changes[i], "%31[^=]=%u", name, &value) != 2 || !drawn_change(&c->run, name, value)) {
            (void)end_case(c, FAILED, "--with: no such name");
            return;
        }
    }
    snprintf(c->v->model, sizeof c->v->model, "%s%s%s", c->model.text, c->model.n_adapters > 0 ? " +adapters" : "",
             c->model.optimized ? " +records" : "");
    snprintf(c->v->run, sizeof c->v->run, "%s", c->run.text);
    c->reads.fails_after = -1;
    c->reads.short_percent = c->run.short_percent;
    c->reads.sleep_percent = c->run.sleep_percent;
    c->run.options.speculation = c->run.speculation;
    standin_set_faults(&c->run.faults);
    backend_set_single_groups(c->run.single_groups);
    backend_set_wide(c->run.always_wide);
    if (c->run.keeps) {
        hypura_os_drive drive;
        hypura_error error;
        if (hypura_os_drive_read(c->model.path, &drive, &error) == HYPURA_OK) {
            (void)hypura_store_save(c->with->files.folder, drive.id, &c->with->profile, &error);
        }
    }
    if ((!c->model.optimized || optimize(c)) && set_limits(c) && find_setup(c) && play_plain(c)) {
        if (c->run.drops_cache) {
            drop_cache(c->model.path);
        }
        bool good = play_paged(c);
        if (good && c->run.keeps) { /* with what the first one learned */
            c->run.options.foresight = (hypura_foresight)rng_below(&c->r, 4);
            good = play_paged(c);
        }
        if (good) {
            c->v->outcome = IDENTICAL;
        }
    }
    const uint64_t left = standin_read_counts().bytes_used;
    if (c->v->outcome == IDENTICAL && left > 0) {
        char text[96];
        snprintf(text, sizeof text, "%llu bytes of the stand-ins' memory are not given back", (unsigned long long)left);
        (void)end_case(c, FAILED, text);
    }
    if (c->v->outcome == IDENTICAL && leases_n_early() > 0) {
        char text[96];
        snprintf(text, sizeof text, "%llu leases were given back while copies read of them", (unsigned long long)leases_n_early());
        (void)end_case(c, FAILED, text);
    }
    play_record_clear(&c->record);
    free(c->answers);
}
