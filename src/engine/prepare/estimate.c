/*
 * estimate.c - see estimate.h.
 */
#include "engine/prepare/estimate.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "engine/answer/beforehand.h"
#include "engine/answer/media.h"
#include "engine/llama/adapters.h"
#include "engine/llama/gpu.h"
#include "engine/llama/kv_cache.h"
#include "engine/llama/llama_shim.h"
#include "engine/prepare/experience.h"
#include "engine/prepare/form_choice.h"
#include "engine/prepare/speculation.h"
#include "engine/prepare/survey.h"
#include "gguf/projector.h"
#include "os/os.h"
#include "pager/pager.h"
#include "plan/plan.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* For each tensor its share of the graphs and of the scheduler's tables. Measured on a model of 272 tensors: 9 MB before it
 * is opened, 16 KB a tensor; the rest of HYPURA_PREPARE_LEAST_BYTES is for the reads, which stage a window of 16 MiB at most
 * and a request. */
#define TENSOR_OVERHEAD_BYTES (UINT64_C(16) << 10)
/* Graphs' scratch memory, of which llama.cpp takes half a MiB for each thread: that of libllama's layers, of streamed
 * weights, and of a prompt's experts in one node. */
#define THREAD_OVERHEAD_BYTES (UINT64_C(3) << 19)

static int resolve_threads(int asked, int n_cpus)
{
    if (asked > 0) {
        return asked;
    }
    int n = hypura_shim_n_cores();
    if (n_cpus > 0 && n > n_cpus) {
        n = n_cpus;
    }
    return n <= 0 ? 1 : n < GGML_MAX_N_THREADS ? n : GGML_MAX_N_THREADS;
}

/* Without a limit a plain model is held whole, whatever the machine: what stock
 * llama.cpp would do. Rates stay 0, as nothing was measured. */
static void unlimited_profile(hypura_profile *profile)
{
    memset(profile, 0, sizeof(*profile));
    profile->ram_total_bytes = profile->ram_available_bytes = profile->ram_limit_bytes = UINT64_MAX / 4;
}

static hypura_status check_options(const hypura_model_options *options, hypura_error *error)
{
    if (!options || !options->path || options->path[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no model was named: pass the path of a GGUF file");
    }
    if (options->plain && (options->memory_bytes > 0 || options->weights_bytes > 0 || options->force_paging)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "plain llama.cpp holds the whole model: a budget or forced paging contradicts it");
    }
    if (options->n_threads < 0 || options->n_threads > GGML_MAX_N_THREADS) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%d threads: pass 1 to %d, or 0 for one per core",
                           options->n_threads, GGML_MAX_N_THREADS);
    }
    hypura_status status = hypura_adapters_check(options->adapters, options->n_adapters, error);
    if (status == HYPURA_OK) {
        status = hypura_kv_cache_check(&options->kv_cache, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    if (options->projector && hypura_speculation_wanted(&options->speculation)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "a model that is shown pictures or sound is run without speculation: leave out the projector or "
                           "what guesses");
    }
    return hypura_speculation_wanted(&options->speculation)
               ? hypura_speculation_check(&options->speculation, options->path, error)
               : HYPURA_OK;
}

static hypura_status get_profile(const hypura_model_options *options, const hypura_profile *given,
                                 hypura_profile *profile, hypura_error *error)
{
    if (options->plain) {
        unlimited_profile(profile);
        return HYPURA_OK;
    }
    if (given) {
        *profile = *given;
        return HYPURA_OK;
    }
    const hypura_profile_options wanted = {.cache_dir = options->cache_dir,
                                           .storage_path = options->path,
                                           .gpu = options->gpu,
                                           .progress = options->progress,
                                           .progress_user = options->progress_user};
    return hypura_profile_get(&wanted, profile, error);
}

/* What is asked for, beside the options. */
typedef struct demand {
    const hypura_model_options *options;
    hypura_profile profile;
    bool has_profile;
    hypura_gpus_found found;
    uint64_t reserve_bytes;
    hypura_speculation_needs speculation; /* beside reserve_bytes */
    hypura_media_needs media;             /* the same */
    bool looked; /* what is asked of the model and its projector once was asked */
    bool serves; /* for a server, see hypura_prepare_shared */
    const hypura_gpu_shares *shares; /* NULL: none */
    bool measure;
    hypura_nodes *others; /* where it is to be measured */
} demand;

static uint32_t forecast_tokens(const hypura_survey *survey)
{
    return survey->n_context < HYPURA_FORECAST_TOKENS ? survey->n_context : HYPURA_FORECAST_TOKENS;
}

/* ggml's RPC copies a weight to send it. */
static uint64_t sending_bytes(const hypura_map *map, const hypura_gpus_found *found)
{
    uint64_t largest = 0;
    for (int t = 0; found->n > found->n_here && t < map->n_tensors; t++) {
        largest = map->tensors[t].bytes > largest ? map->tensors[t].bytes : largest;
    }
    return largest;
}

static uint64_t overhead_of(const demand *asked, const hypura_map *map, int n_threads, uint64_t more_bytes)
{
    const bool counts_pairs = asked->options->foresight != HYPURA_FORESIGHT_OFF;
    return HYPURA_PREPARE_LEAST_BYTES + more_bytes + TENSOR_OVERHEAD_BYTES * (uint64_t)map->n_tensors +
           THREAD_OVERHEAD_BYTES * (uint64_t)n_threads + hypura_pager_router_bytes(map) +
           sending_bytes(map, &asked->found) + (counts_pairs ? hypura_pager_coactivation_bytes(map) : 0);
}

/* What was measured, or is now, and what runs before have taught. */
static hypura_status recall(const demand *asked, const hypura_map *map, const hypura_survey *survey, int n_threads,
                            hypura_rates *rates, hypura_lessons *lessons, hypura_error *error)
{
    const hypura_model_options *options = asked->options;
    const hypura_form form = hypura_form_asked(options, asked->found.n > 0);
    hypura_status status = hypura_experience_rates(options, map, survey, n_threads, form == HYPURA_FORM_REPACKED,
                                                   asked->measure, rates, error);
    if (status == HYPURA_OK) {
        status = hypura_experience_others(options->cache_dir, map, forecast_tokens(survey), n_threads, asked->others, rates,
                                          error);
    }
    if (status == HYPURA_OK) {
        hypura_experience_lessons(options->cache_dir, map, n_threads, form, lessons);
    }
    return status;
}

/* The GPUs of the plan, as they are loaded. */
static void take_gpus(const demand *asked, const hypura_survey *survey, const hypura_plan_gpus *gpus,
                      hypura_preparation *prepared)
{
    const hypura_model_options *options = asked->options;
    if (options->plain) {
        const uint64_t bytes = prepared->map->tensor_bytes + survey->device_kv_bytes + survey->device_compute_bytes;
        hypura_gpus_take_plain(&asked->found, bytes, &prepared->gpus);
        prepared->gpus.n_layers = options->n_gpu_layers > 0 ? options->n_gpu_layers : INT_MAX;
    } else {
        hypura_gpus_take(&asked->found, prepared->plan, &prepared->gpus);
        hypura_gpus_tell_left_out(gpus, prepared->plan);
    }
}

static hypura_status solve(const demand *asked, const hypura_survey *survey, uint64_t more_bytes,
                           hypura_preparation *prepared, hypura_error *error)
{
    const hypura_model_options *options = asked->options;
    const hypura_profile *profile = &asked->profile;
    const int n_threads = resolve_threads(options->n_threads, profile->n_cpus);
    hypura_rates rates;
    hypura_lessons lessons;
    hypura_plan_gpus gpus = {.n = 0};
    hypura_plan_options wanted = {.memory_bytes = options->memory_bytes,
                                  .weights_bytes = options->weights_bytes,
                                  .overhead_bytes = overhead_of(asked, prepared->map, n_threads, more_bytes),
                                  .force_paging = options->force_paging};
    hypura_status status = hypura_form_check(options, prepared->map, survey, asked->found.n > 0, error);
    if (status == HYPURA_OK && !options->plain) {
        status = hypura_gpus_describe(&asked->found, profile, options, asked->shares, &gpus, error);
        wanted.gpus = gpus.n > 0 ? &gpus : NULL;
    }
    prepared->context.n_threads = n_threads;
    prepared->direct_bytes_per_s = profile->direct_bytes_per_s;
    if (status == HYPURA_OK && !options->plain && (asked->measure || options->cache_dir)) {
        status = recall(asked, prepared->map, survey, n_threads, &rates, &lessons, error);
        wanted.rates = &rates;
        wanted.lessons = &lessons;
    }
    snprintf(prepared->io_engine, sizeof(prepared->io_engine), "%s",
             options->io_engine ? options->io_engine : profile->io_engine);
    if (status == HYPURA_OK) {
        status = hypura_plan_solve(prepared->map, survey, profile, &wanted, &prepared->plan, error);
    }
    if (status == HYPURA_OK) {
        const hypura_form_question question = {.options = options,
                                               .map = prepared->map,
                                               .survey = survey,
                                               .profile = profile,
                                               .wanted = &wanted,
                                               .n_threads = n_threads};
        status = hypura_form_choose(&question, &prepared->plan, error);
    }
    if (status == HYPURA_OK) {
        prepared->plan->n_threads = n_threads;
        prepared->plan->kv_cache = hypura_kv_cache_named(&options->kv_cache);
        prepared->plan->adapter_bytes = survey->adapter_bytes;
        take_gpus(asked, survey, &gpus, prepared);
    }
    return status;
}

/* Copies of a conversation's windows and recurrent state: enough for the turns that people go back to. */
#define MAX_CHECKPOINTS  4
#define CHECKPOINT_SHARE 16

static uint32_t count_checkpoints(const hypura_survey *survey, uint64_t memory_bytes)
{
    const uint64_t most = memory_bytes / CHECKPOINT_SHARE;
    if (survey->checkpoint_bytes == 0 || memory_bytes == 0 || MAX_CHECKPOINTS * survey->checkpoint_bytes <= most) {
        return MAX_CHECKPOINTS;
    }
    return (uint32_t)(most / survey->checkpoint_bytes);
}

/* What is asked of the model while it is surveyed, once. */
typedef struct looking {
    demand *wanted;
    const hypura_preparation *prepared;
} looking;

static hypura_status look(void *user, const struct llama_model *model, hypura_error *error)
{
    const looking *l = user;
    const hypura_model_options *options = l->wanted->options;
    const ggml_backend_dev_t gpu = l->wanted->found.n_here > 0 ? l->wanted->found.devices[0] : NULL;
    const int n_threads = resolve_threads(options->n_threads, 0);
    hypura_media *media = NULL;
    hypura_status status = HYPURA_OK;
    /* The model that is opened later loads it again, from the page cache then: libmtmd points into the vocabulary of the
     * model that it is opened for, which is here one without weights and ends with the survey, and loads no projector without
     * its own weights. One kept until then would take from a GPU what the plan is about to see as free there. */
    if (options->projector) {
        status = hypura_media_open(options->projector, model, gpu, n_threads, false, &media, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_beforehand_check(options->first, model, media, l->prepared->context.n_context, error);
    }
    hypura_media_close(media);
    return status;
}

static hypura_status plan_media(demand *wanted, hypura_error *error)
{
    const ggml_backend_dev_t gpu = wanted->found.n_here > 0 ? wanted->found.devices[0] : NULL;
    hypura_load_lock();
    hypura_status status = hypura_media_plan(wanted->options->projector, gpu, resolve_threads(wanted->options->n_threads, 0),
                                             &wanted->media, error);
    hypura_load_unlock();
    return status;
}

/* The survey on one GPU, which all others could stand for. */
static hypura_status take_survey(demand *wanted, hypura_preparation *prepared, hypura_survey **survey,
                                 uint64_t *vocab_bytes, hypura_error *error)
{
    const uint32_t n_context = prepared->context.n_context;
    hypura_nodes_close(wanted->others);
    const int n_threads = resolve_threads(wanted->options->n_threads, wanted->profile.n_cpus);
    wanted->others = wanted->measure ? hypura_nodes_open(n_context, HYPURA_FORECAST_TOKENS, n_threads) : NULL;
    const hypura_load_gpu gpu = {
        .n = wanted->found.n > 0, .n_here = wanted->found.n_here > 0, .devices = {wanted->found.devices[0]}, .n_layers = INT_MAX};
    looking user = {wanted, prepared};
    /* A server tells by itself, when it loads, what a model cannot do. */
    const bool looks = wanted->options->first && !wanted->looked;
    hypura_status status = hypura_survey_take(prepared->map, &prepared->context, &gpu, wanted->others, looks ? look : NULL,
                                              &user, survey, vocab_bytes, error);
    if (status == HYPURA_OK && wanted->options->projector && !wanted->looked) {
        status = plan_media(wanted, error);
        if (status != HYPURA_OK) {
            hypura_survey_free(*survey);
            *survey = NULL;
        }
    }
    wanted->looked = true;
    hypura_error lost;
    if (status != HYPURA_ERR_CANCELLED && hypura_gpus_check(&gpu, &lost) != HYPURA_OK) {
        hypura_survey_free(*survey);
        *survey = NULL;
        return hypura_fail(error, lost.status, "%s", lost.message);
    }
    if (status == HYPURA_OK && gpu.n_here > 0 && wanted->options->foresight != HYPURA_FORESIGHT_OFF) {
        (*survey)->device_compute_bytes += hypura_vram_router_bytes(prepared->map);
    }
    if (status == HYPURA_OK) {
        (*survey)->device_compute_bytes += wanted->media.device_bytes;
    }
    return status;
}

static hypura_status solve_survey(const demand *wanted, const hypura_survey *survey, uint64_t vocab_bytes,
                                  hypura_preparation *prepared, hypura_error *error)
{
    uint64_t more_bytes = vocab_bytes + wanted->reserve_bytes + wanted->speculation.bytes + wanted->media.host_bytes +
                          survey->adapter_bytes;
    if (wanted->serves) {
        prepared->n_checkpoints = count_checkpoints(survey, wanted->options->memory_bytes);
        more_bytes += prepared->n_checkpoints * survey->checkpoint_bytes;
        /* One of each conversation before what is guessed. */
        more_bytes += wanted->speculation.n_most > 0 ? prepared->context.n_sequences * survey->checkpoint_bytes : 0;
    }
    return solve(wanted, survey, more_bytes, prepared, error);
}

/* Conversations of a model that is paged share one cache, so that a batch is one piece and reads weights once; that
 * takes a little more memory. */
static hypura_status share_cache(demand *wanted, hypura_preparation *prepared, hypura_error *error)
{
    hypura_survey *survey = NULL;
    uint64_t vocab_bytes = 0;
    hypura_plan_free(prepared->plan);
    prepared->plan = NULL;
    prepared->context.one_cache = true;
    hypura_status status = take_survey(wanted, prepared, &survey, &vocab_bytes, error);
    if (status == HYPURA_OK) {
        status = solve_survey(wanted, survey, vocab_bytes, prepared, error);
    }
    hypura_survey_free(survey);
    return status;
}

/* Where solving took its time to measure the processor, others may have taken what was free
 * when it began: two models that are started together would both count on it. What was
 * measured is stored now. */
#define MEASURED_US 500000u

static hypura_status solve_for_now(demand *wanted, bool by_given, const hypura_survey *survey, uint64_t vocab_bytes,
                                   hypura_preparation *prepared, hypura_error *error)
{
    const hypura_model_options *options = wanted->options;
    const uint64_t begin_us = hypura_clock_us();
    hypura_os_memory memory;
    hypura_status status = solve_survey(wanted, survey, vocab_bytes, prepared, error);
    if (status != HYPURA_OK || by_given || options->plain || !options->cache_dir ||
        hypura_clock_us() - begin_us < MEASURED_US) {
        return status;
    }
    status = hypura_os_memory_read(&memory, error);
    if (status == HYPURA_OK) {
        wanted->profile.ram_available_bytes = memory.available_bytes;
        wanted->profile.ram_limit_bytes = memory.limit_bytes;
        hypura_nodes_close(wanted->others);
        wanted->others = NULL;
        hypura_plan_free(prepared->plan);
        prepared->plan = NULL;
        status = solve_survey(wanted, survey, vocab_bytes, prepared, error);
    }
    return status;
}

static hypura_status find_profile(demand *wanted, const hypura_profile *given, hypura_error *error)
{
    const hypura_model_options *options = wanted->options;
    const double limit = (double)options->io_limit_bytes_per_s;
    hypura_status status = get_profile(options, given, &wanted->profile, error);
    if (status == HYPURA_OK && limit > 0 && limit < wanted->profile.direct_bytes_per_s) {
        wanted->profile.direct_bytes_per_s = limit;
    }
    return status;
}

/* With the sizes of prepared->context. */
static hypura_status prepare_sizes(demand *wanted, const hypura_profile *given, uint32_t n_outputs,
                                   hypura_preparation *prepared, hypura_error *error)
{
    hypura_context_options *context = &prepared->context;
    hypura_survey *survey = NULL;
    uint64_t vocab_bytes = 0;
    context->n_outputs = n_outputs < context->n_ubatch ? n_outputs : context->n_ubatch;
    context->one_cache = false;
    hypura_status status = take_survey(wanted, prepared, &survey, &vocab_bytes, error);
    if (status == HYPURA_OK && !wanted->has_profile) {
        status = find_profile(wanted, given, error);
        wanted->has_profile = status == HYPURA_OK;
    }
    if (status == HYPURA_OK) {
        status = solve_for_now(wanted, given != NULL, survey, vocab_bytes, prepared, error);
    }
    hypura_survey_free(survey);
    if (status == HYPURA_OK && context->n_sequences > 1 && prepared->plan->mode != HYPURA_MODE_RESIDENT) {
        status = share_cache(wanted, prepared, error);
    }
    return status;
}

static bool all_on_gpus(const hypura_preparation *prepared)
{
    return prepared->plan->n_gpu_layers == prepared->map->n_layers + 1;
}

/* Large parts of a prompt take more memory while they are computed: where that keeps layers from the GPU, or the host
 * has none for it, smaller ones are taken. */
static hypura_status prepare_ubatch(demand *wanted, const hypura_profile *given, uint32_t n_outputs,
                                    hypura_preparation *prepared, hypura_error *error)
{
    hypura_context_options *context = &prepared->context;
    const bool chosen = wanted->options->n_ubatch == 0 && !wanted->options->plain;
    const uint32_t best = context->n_ubatch;
    hypura_status status = prepare_sizes(wanted, given, n_outputs, prepared, error);
    while (chosen && (status == HYPURA_ERR_BUDGET || (status == HYPURA_OK && !all_on_gpus(prepared)))) {
        const uint32_t smaller = hypura_load_smaller_ubatch(context->n_ubatch);
        if (smaller == 0) {
            break;
        }
        hypura_plan_free(prepared->plan);
        prepared->plan = NULL;
        hypura_error_clear(error);
        context->n_ubatch = smaller;
        status = prepare_sizes(wanted, given, n_outputs, prepared, error);
    }
    if (status == HYPURA_OK) {
        prepared->plan->n_ubatch = context->n_ubatch;
        prepared->plan->best_ubatch = prepared->plan->n_gpus > 0 ? best : context->n_ubatch;
    }
    return status;
}

static hypura_status plan_speculation(demand *wanted, uint32_t *n_outputs, hypura_preparation *prepared,
                                      hypura_error *error)
{
    const hypura_speculation *speculation = &wanted->options->speculation;
    if (!hypura_speculation_wanted(speculation)) {
        return HYPURA_OK;
    }
    const hypura_status status =
        hypura_speculation_plan(speculation, prepared->map, &prepared->context, &wanted->speculation, error);
    prepared->n_guessed = wanted->speculation.n_most;
    if (*n_outputs < UINT32_MAX / (1 + prepared->n_guessed)) {
        *n_outputs *= 1 + prepared->n_guessed; /* a row for each */
    }
    return status;
}

static void blame_draft(const demand *wanted, hypura_error *error)
{
    char bytes[HYPURA_SIZE_TEXT];
    if (error && error->status == HYPURA_ERR_BUDGET && wanted->speculation.draft_bytes > 0) {
        hypura_fail_prefix(error, "with %s as draft, which takes %s", wanted->options->speculation.draft,
                           hypura_size_format(wanted->speculation.draft_bytes, bytes, sizeof(bytes)));
    }
}

/* Map, GPUs and the sizes of the context: what headers tell. */
static hypura_status read_headers(demand *wanted, uint32_t n_sequences, hypura_preparation *prepared, hypura_error *error)
{
    const hypura_model_options *options = wanted->options;
    hypura_context_options *context = &prepared->context;
    *context = (hypura_context_options){
        .n_context = options->n_context,
        .n_ubatch = options->n_ubatch,
        .kv_cache = options->kv_cache,
        .n_threads = 1 /* until the profile tells */,
        .adapters = options->adapters,
        .n_adapters = options->n_adapters};
    hypura_status status = hypura_map_open(options->path, &prepared->map, error);
    if (status == HYPURA_OK) {
        status = hypura_adapters_check_files(options->adapters, options->n_adapters, prepared->map, error);
    }
    if (status == HYPURA_OK && options->projector) {
        status = hypura_projector_check_file(options->projector, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_gpus_find(options->gpu, &wanted->found, error);
    }
    if (status == HYPURA_OK && options->rpc) {
        status = hypura_gpus_find_remote(options->rpc, &wanted->found, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_load_sizes(prepared->map, wanted->found.discrete, &context->n_context,
                                   &context->n_ubatch, error);
    }
    if (status == HYPURA_OK && (uint64_t)context->n_context * n_sequences > INT32_MAX) {
        status = hypura_fail(error, HYPURA_ERR_USAGE,
                             "%u conversations of %u tokens are more than can be counted: ask for fewer, or a shorter context",
                             n_sequences, context->n_context);
    }
    if (status == HYPURA_OK) {
        context->n_sequences = n_sequences;
        context->n_context *= n_sequences;
        /* A batch has room for a token of each. */
        context->n_ubatch = context->n_ubatch < n_sequences ? n_sequences : context->n_ubatch;
    }
    return status;
}

static hypura_status prepare(demand *wanted, const hypura_profile *given, uint32_t n_sequences, uint32_t n_outputs,
                             hypura_preparation *prepared, hypura_error *error)
{
    hypura_error_clear(error);
    memset(prepared, 0, sizeof(*prepared));
    hypura_status status = check_options(wanted->options, error);
    if (status == HYPURA_OK) {
        status = read_headers(wanted, n_sequences, prepared, error);
    }
    if (status == HYPURA_OK) {
        status = plan_speculation(wanted, &n_outputs, prepared, error);
    }
    if (status == HYPURA_OK) {
        status = prepare_ubatch(wanted, given, n_outputs, prepared, error);
        blame_draft(wanted, error);
    }
    if (status == HYPURA_OK) {
        prepared->plan->draft_bytes = wanted->speculation.draft_bytes;
        prepared->plan->projector_bytes = wanted->media.host_bytes;
        prepared->plan->ram_limit_bytes = wanted->profile.ram_limit_bytes;
        memcpy(prepared->plan->not_stored, wanted->profile.not_stored, sizeof(prepared->plan->not_stored));
    }
    hypura_nodes_close(wanted->others);
    wanted->others = NULL;
    if (status != HYPURA_OK) {
        hypura_prepare_clear(prepared);
    }
    return status;
}

hypura_status hypura_prepare(const hypura_model_options *options, const hypura_profile *given, bool all_logits,
                             hypura_preparation *prepared, hypura_error *error)
{
    demand wanted = {.options = options};
    return prepare(&wanted, given, 1, all_logits ? UINT32_MAX : 1, prepared, error);
}

hypura_status hypura_prepare_sequences(const hypura_model_options *options, const hypura_profile *given,
                                       uint32_t n_sequences, hypura_preparation *prepared, hypura_error *error)
{
    demand wanted = {.options = options};
    return prepare(&wanted, given, n_sequences, n_sequences, prepared, error);
}

hypura_status hypura_prepare_shared(const hypura_model_options *options, uint32_t n_sequences, uint64_t reserve_bytes,
                                    const hypura_gpu_shares *shares, hypura_preparation *prepared, hypura_error *error)
{
    demand wanted = {.options = options, .reserve_bytes = reserve_bytes, .shares = shares, .serves = true};
    return prepare(&wanted, NULL, n_sequences, n_sequences, prepared, error);
}

hypura_status hypura_prepare_keep(const hypura_preparation *prepared, hypura_pager *pager, hypura_error *error)
{
    /* What overhead is for was touched by now, or never is, but for a draft's contexts and a projector. */
    const hypura_plan *plan = prepared->plan;
    return hypura_pager_keep(pager,
                             plan->resident_bytes + plan->ring_bytes + plan->kv_bytes + plan->compute_bytes +
                                 plan->draft_bytes + plan->projector_bytes,
                             error);
}

void hypura_prepare_in_form(hypura_model_options *options, hypura_form form)
{
    options->no_repack = form != HYPURA_FORM_REPACKED;
    options->repack_output = form == HYPURA_FORM_OUTPUT;
}

void hypura_prepare_clear(hypura_preparation *prepared)
{
    hypura_plan_free(prepared->plan);
    hypura_map_close(prepared->map);
    memset(prepared, 0, sizeof(*prepared));
}

hypura_status hypura_estimate(const hypura_model_options *options, hypura_plan **plan, hypura_error *error)
{
    hypura_preparation prepared;
    *plan = NULL;
    demand wanted = {.options = options, .measure = !options->plain};
    hypura_status status = prepare(&wanted, NULL, 1, 1, &prepared, error);
    if (status == HYPURA_OK) {
        *plan = prepared.plan;
        prepared.plan = NULL;
        hypura_prepare_clear(&prepared);
    }
    return status;
}
