/*
 * estimate.c - see estimate.h.
 */
#include "engine/estimate.h"

#include "base/status.h"
#include "engine/llama_shim.h"
#include "engine/survey.h"
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

/* What a process with a model takes besides weights, KV, compute buffers and the
 * vocabulary: libraries, graphs, the scheduler, queues and staging of the reads. */
#define FIXED_OVERHEAD_BYTES (UINT64_C(48) << 20)

static int resolve_threads(int asked, int n_cpus)
{
    if (asked > 0) {
        return asked < GGML_MAX_N_THREADS ? asked : GGML_MAX_N_THREADS;
    }
    int n = hypura_shim_n_cores();
    if (n_cpus > 0 && n > n_cpus) {
        n = n_cpus;
    }
    return n > 0 ? n : 1;
}

/* Without a limit a plain model is held whole, whatever the machine: what stock
 * llama.cpp would do. Rates stay 0, as nothing was measured. */
static void unlimited_profile(hypura_profile *profile)
{
    memset(profile, 0, sizeof(*profile));
    profile->ram_total_bytes = profile->ram_available_bytes = profile->ram_limit_bytes = UINT64_MAX / 4;
}

hypura_status hypura_prepare(const hypura_model_options *options, const hypura_profile *given, bool all_logits,
                             hypura_preparation *prepared, hypura_error *error)
{
    hypura_error_clear(error);
    memset(prepared, 0, sizeof(*prepared));
    if (!options || !options->path || options->path[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no model was named: pass the path of a GGUF file");
    }
    if (options->plain && (options->memory_bytes > 0 || options->weights_bytes > 0 || options->force_paging)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "plain llama.cpp holds the whole model: a budget or forced paging contradicts it");
    }
    if (options->n_threads < 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%d threads: pass 1 or more, or 0 for one per core",
                           options->n_threads);
    }

    hypura_profile  measured;
    hypura_survey  *survey = NULL;
    uint64_t        vocab_bytes = 0;
    hypura_status   status = hypura_map_open(options->path, &prepared->map, error);

    prepared->context.n_context = options->n_context;
    prepared->context.n_ubatch = options->n_ubatch;
    if (status == HYPURA_OK) {
        status = hypura_load_sizes(prepared->map, &prepared->context.n_context, &prepared->context.n_ubatch, error);
    }
    if (status == HYPURA_OK) {
        prepared->context.n_outputs = all_logits ? prepared->context.n_ubatch : 1;
        prepared->context.n_threads = resolve_threads(options->n_threads, given ? given->n_cpus : 0);
        status = hypura_survey_take(prepared->map, &prepared->context, &survey, &vocab_bytes, error);
    }
    if (status == HYPURA_OK && !given) {
        if (options->plain) {
            unlimited_profile(&measured);
        } else {
            hypura_profile_options profile_options = {.cache_dir = options->cache_dir,
                                                      .storage_path = options->path,
                                                      .progress = options->progress,
                                                      .progress_user = options->progress_user};
            status = hypura_profile_get(&profile_options, &measured, error);
        }
        prepared->context.n_threads = resolve_threads(options->n_threads, status == HYPURA_OK ? measured.n_cpus : 0);
    }
    if (status == HYPURA_OK) {
        const hypura_profile *profile = given ? given : &measured;
        hypura_plan_options   plan_options = {.memory_bytes = options->memory_bytes,
                                              .weights_bytes = options->weights_bytes,
                                              .overhead_bytes = FIXED_OVERHEAD_BYTES + vocab_bytes,
                                              .force_paging = options->force_paging};
        status = hypura_plan_solve(prepared->map, survey, profile, &plan_options, &prepared->plan, error);
        snprintf(prepared->io_engine_name, sizeof(prepared->io_engine_name), "%s",
                 options->io_engine ? options->io_engine : profile->io_engine);
        prepared->io_engine = prepared->io_engine_name[0] != '\0' ? prepared->io_engine_name : NULL;
    }
    hypura_survey_free(survey);
    if (status != HYPURA_OK) {
        hypura_prepare_clear(prepared);
    }
    return status;
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
    hypura_status status = hypura_prepare(options, NULL, false, &prepared, error);
    if (status == HYPURA_OK) {
        *plan = prepared.plan;
        prepared.plan = NULL;
        hypura_prepare_clear(&prepared);
    }
    return status;
}
