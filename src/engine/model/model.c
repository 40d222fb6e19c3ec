/*
 * model.c - opening and closing a model, and decoding with it.
 *
 * Owned by hypura_model: everything below. Opened from left to right, closed from
 * right to left; the pager outlives the weights that point into it.
 *
 *     map -> survey -> profile -> plan -> pager -> weights -> trunk -> context
 *     '------ hypura_prepare ---------'   '-- under the load lock, attached --'
 *
 * What always holds: in mode RESIDENT, and with `plain`, there is no pager and
 * Hypura's device was not attached: the path is libllama's own.
 */
#include "engine/model/model.h"

#include "base/status.h"
#include "engine/answer/conversation.h"
#include "engine/llama/end.h"
#include "engine/llama/gpu.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/media_shim.h"
#include "engine/model/paged.h"
#include "engine/model/trunk.h"
#include "hw/remote.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

static hypura_status open_unpaged(hypura_model *model, const hypura_model_options *options, hypura_error *error)
{
    const hypura_load_kind kind = options->plain ? HYPURA_LOAD_PLAIN : HYPURA_LOAD_RESIDENT;
    hypura_load_lock();
    hypura_status status = hypura_load_model(model->prepared.map, kind, &model->prepared.gpus,
                                             model->prepared.plan->form, options->progress, options->progress_user,
                                             &model->llama, error);
    if (status == HYPURA_OK && !options->plain) {
        hypura_trunk_collapse(model->llama);
    }
    if (status == HYPURA_OK) {
        status = hypura_load_context(model->llama, &model->prepared.context, &model->ctx, error);
    }
    hypura_load_unlock();
    return status;
}

static hypura_status open_paged(hypura_model *model, const hypura_model_options *options,
                                const hypura_model_extras *extras, hypura_error *error)
{
    const hypura_preparation *p = &model->prepared;
    hypura_pager_options pager_options = hypura_paged_options(p, options);
    pager_options.hook = extras->io_hook;
    pager_options.hook_user = extras->io_hook_user;
    pager_options.foretell = extras->foretell;
    pager_options.foretell_user = extras->foretell_user;
    if (model->trace && hypura_trace_is_paged(p->map, p->plan)) {
        pager_options.on_selection = hypura_trace_on_selection;
        pager_options.on_selection_user = model->trace;
    }
    hypura_status status = hypura_pager_open(&pager_options, &model->pager, error);
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_load_lock();
    status = hypura_paged_load(p, options, model->pager, &model->gpus, &model->llama, &model->trunk_bytes, error);
    if (status == HYPURA_OK) {
        status = hypura_load_context(model->llama, &p->context, &model->ctx, error);
    }
    hypura_load_unlock();
    return status == HYPURA_OK ? hypura_paged_begin(p, options, model->pager, error) : status;
}

static hypura_status attach_threads(hypura_model *model, hypura_error *error)
{
    struct ggml_threadpool_params params = ggml_threadpool_params_default(model->prepared.context.n_threads);
    model->threadpool = ggml_threadpool_new(&params);
    if (!model->threadpool) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%d threads could not be started", params.n_threads);
    }
    llama_attach_threadpool(model->ctx, model->threadpool, model->threadpool);
    return HYPURA_OK;
}

static hypura_status open_media(hypura_model *model, const char *projector, hypura_error *error)
{
    const hypura_preparation *p = &model->prepared;
    if (!projector) {
        return HYPURA_OK;
    }
    hypura_load_lock();
    const hypura_status status = hypura_media_open(projector, model->llama, p->gpus.n_here > 0 ? p->gpus.devices[0] : NULL,
                                                   p->context.n_threads, true, &model->media, error);
    hypura_load_unlock();
    return status;
}

/* For batches, once: decoding allocates nothing. */
static hypura_status make_rows(hypura_model *model, hypura_error *error)
{
    const uint32_t n_ubatch = model->prepared.context.n_ubatch;
    model->every_token = malloc(n_ubatch);
    model->places = malloc(n_ubatch * sizeof(*model->places));
    model->next_place = -1;
    if (!model->every_token || !model->places) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a batch of %u tokens", n_ubatch);
    }
    memset(model->every_token, 1, n_ubatch);
    return HYPURA_OK;
}

static hypura_status open_trace(hypura_model *model, const hypura_model_options *options, hypura_error *error)
{
    hypura_preparation *p = &model->prepared;
    hypura_status status = hypura_trace_open(options->trace, p->map, p->context.n_ubatch, &model->trace, error);
    if (status == HYPURA_OK && !hypura_trace_is_paged(p->map, p->plan)) {
        p->context.on_node = hypura_trace_on_node;
        p->context.on_node_user = model->trace;
    }
    return status;
}

static void save_hot(void *user)
{
    const hypura_model *model = user;
    hypura_paged_save(&model->prepared, model->pager, model->cache_dir);
}

/* From here on statistics count. */
static void begin_traffic(hypura_model *model)
{
    for (int g = model->prepared.gpus.n_here; g < model->prepared.gpus.n; g++) {
        hypura_remote_traffic(model->prepared.gpus.devices[g], &model->traffic[g]);
    }
}

hypura_status hypura_model_open_with(const hypura_model_options *options, const hypura_model_extras *extras,
                                     hypura_model **out, hypura_error *error)
{
    *out = NULL;
    hypura_model *model = calloc(1, sizeof(*model));
    if (!model) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a model");
    }
    hypura_preparation *prepared = &model->prepared;
    hypura_status status =
        extras->n_sequences > 1 ? hypura_prepare_sequences(options, extras->profile, extras->n_sequences, prepared, error)
                                : hypura_prepare(options, extras->profile, extras->all_logits, prepared, error);
    if (status == HYPURA_OK && options->plain && extras->gpus) {
        model->prepared.gpus = *extras->gpus;
    }
    if (status == HYPURA_OK) {
        hypura_end_name(prepared->plan->gpu);
        const bool whole = options->plain || prepared->plan->mode == HYPURA_MODE_RESIDENT;
        status = hypura_pulse_open(&prepared->gpus, prepared->context.n_ubatch, hypura_held_token_s(prepared, whole),
                                   &model->pulse, error);
    }
    hypura_pulse_begin("for the model to be loaded");
    if (status == HYPURA_OK && model->prepared.gpus.n > 0) {
        /* Where nothing streams this is libllama's own way; references for what streams do without. */
        const hypura_preparation *p = &model->prepared;
        model->prepared.context.sends_weights =
            options->plain ? !extras->gpus : p->plan->mode == HYPURA_MODE_RESIDENT && p->map->n_bundles == 0;
    }
    model->prepared.context.on_node = extras->on_node;
    model->prepared.context.on_node_user = extras->on_node_user;
    if (status == HYPURA_OK && options->cache_dir && !options->plain) {
        model->cache_dir = strdup(options->cache_dir);
        status = model->cache_dir ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a path");
    }
    if (status == HYPURA_OK && options->trace) {
        status = open_trace(model, options, error);
    }
    if (status == HYPURA_OK && model->prepared.n_guessed > 0) {
        status = hypura_drafting_open(&options->speculation, model->prepared.n_guessed, &model->drafting, error);
    }
    if (status == HYPURA_OK) {
        const bool resident = options->plain || model->prepared.plan->mode == HYPURA_MODE_RESIDENT;
        status = resident ? open_unpaged(model, options, error) : open_paged(model, options, extras, error);
    }
    hypura_error lost;
    if (status != HYPURA_ERR_CANCELLED && hypura_gpus_check(&model->prepared.gpus, &lost) != HYPURA_OK) {
        status = hypura_fail(error, lost.status, "%s", lost.message); /* of which all else that failed comes */
    }
    if (status == HYPURA_OK) {
        status = attach_threads(model, error);
    }
    if (status == HYPURA_OK && model->drafting) {
        status = hypura_drafting_attach(model->drafting, model, error);
    }
    if (status == HYPURA_OK) {
        status = open_media(model, options->projector, error);
    }
    if (status == HYPURA_OK) {
        status = make_rows(model, error);
    }
    if (status == HYPURA_OK) {
        hypura_pulse_keep(model->pulse, save_hot, model);
    } else {
        hypura_model_close(model);
    }
    hypura_pulse_end();
    if (status != HYPURA_OK) {
        return status;
    }
    begin_traffic(model);
    *out = model;
    return HYPURA_OK;
}

hypura_status hypura_model_open(const hypura_model_options *options, hypura_model **model, hypura_error *error)
{
    return hypura_model_open_with(options, &(hypura_model_extras){0}, model, error);
}

void hypura_model_close(hypura_model *model)
{
    if (!model) {
        return;
    }
    hypura_pulse_keep(model->pulse, NULL, NULL);
    save_hot(model);
    if (model->lost || (model->ctx && model->prepared.gpus.n > 0 && !hypura_shim_answers(model->ctx))) {
        hypura_pulse_close(model->pulse, true);
        return; /* CUDA's backend ends the process where it cannot free: the process is to tell why first */
    }
    hypura_pulse_begin("for the model to be closed");
    hypura_drafting_close(model->drafting);
    hypura_conversation_close(model->conversation);
    hypura_media_close(model->media);
    llama_free(model->ctx);
    llama_model_free(model->llama);
    ggml_threadpool_free(model->threadpool);
    hypura_gpus_close(&model->gpus);
    hypura_pager_close(model->pager);
    hypura_pulse_close(model->pulse, false);
    hypura_pulse_end();
    hypura_trace_close(model->trace);
    hypura_prepare_clear(&model->prepared);
    free(model->every_token);
    free(model->places);
    free(model->cache_dir);
    free(model);
}

const hypura_map *hypura_model_map(const hypura_model *model)
{
    return model->prepared.map;
}

const hypura_plan *hypura_model_plan(const hypura_model *model)
{
    return model->prepared.plan;
}

void hypura_model_statistics(const hypura_model *model, hypura_statistics *statistics)
{
    memset(statistics, 0, sizeof(*statistics));
    if (model->pager) {
        hypura_pager_statistics(model->pager, statistics);
    }
    statistics->peak_rss_bytes = hypura_os_peak_rss_bytes();
    for (int g = model->prepared.gpus.n_here; g < model->prepared.gpus.n; g++) {
        hypura_gpu_statistics *gpu = &statistics->gpus[g];
        hypura_remote_traffic(model->prepared.gpus.devices[g], gpu);
        gpu->link_bytes_sent -= model->traffic[g].link_bytes_sent;
        gpu->link_bytes_received -= model->traffic[g].link_bytes_received;
        gpu->n_link_answers -= model->traffic[g].n_link_answers;
    }
}

void hypura_model_layer_hits(const hypura_model *model, hypura_layer_hits *layers, int n)
{
    memset(layers, 0, (size_t)n * sizeof(*layers));
    if (model->pager) {
        hypura_pager_layer_hits(model->pager, layers, n);
    }
}

void hypura_model_reset_statistics(hypura_model *model)
{
    if (model->pager) {
        hypura_pager_reset_statistics(model->pager);
    }
    begin_traffic(model);
}

hypura_held hypura_model_held(const hypura_model *model)
{
    return model->pager ? hypura_pager_held(model->pager) : (hypura_held){0};
}

uint64_t hypura_model_resize(hypura_model *model, uint64_t held_bytes)
{
    return model->pager ? hypura_pager_resize(model->pager, held_bytes) : 0;
}

enum { ABORTED = 2 }; /* libllama's code for what the abort callback ended */

/* The pager knows best why a graph failed: the file, the offset, the reason. */
static hypura_status why_failed(const hypura_model *model, int code, const char *what, uint32_t n, hypura_error *error)
{
    if (model->pager) {
        hypura_status status = hypura_pager_take_error(model->pager, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    if (code == ABORTED) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "computing %u token%s was stopped", n, n == 1 ? "" : "s");
    }
    if (code == 1) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the context of %u tokens has no room for %u more: give it a larger one",
                           model->prepared.context.n_context, n);
    }
    return hypura_log_fail(error, code == GGML_STATUS_ALLOC_FAILED ? HYPURA_ERR_MEMORY : HYPURA_ERR_BACKEND,
                           "llama.cpp failed to %s %u tokens (%d)", what, n, code);
}

static hypura_status compute_failed(hypura_model *model, int code, const char *what, uint32_t n, hypura_error *error)
{
    const hypura_status status = why_failed(model, code, what, n, error);
    if (model->prepared.gpus.n > 0) {
        model->lost = !hypura_shim_answers(model->ctx);
        hypura_gpus_explain(model->prepared.plan->gpu, model->lost, error);
    }
    return status;
}

/* What was computed counts only where it was computed from the file that was
 * opened: one that was written to meanwhile gave no read a reason to fail. */
static hypura_status compute_ended(hypura_model *model, int code, const char *what, uint32_t n, hypura_error *error)
{
    if (hypura_gpus_check(&model->prepared.gpus, error) != HYPURA_OK) {
        return HYPURA_ERR_BACKEND;
    }
    if (code != 0) {
        return compute_failed(model, code, what, n, error);
    }
    return model->pager ? hypura_pager_check_files(model->pager, false, error) : HYPURA_OK;
}

static struct llama_batch batch_of(const hypura_model *model, const llama_token *tokens, uint32_t n, bool all_logits)
{
    /* Positions left out follow what the memory holds; logits left out are those
     * of the last token. libllama does not write to either array. */
    for (uint32_t i = 0; model->next_place >= 0 && i < n; i++) {
        model->places[i] = model->next_place + (llama_pos)i;
    }
    return (struct llama_batch){.n_tokens = (int32_t)n,
                                .token = (llama_token *)(uintptr_t)tokens,
                                .pos = model->next_place >= 0 ? model->places : NULL,
                                .logits = all_logits ? model->every_token : NULL};
}

static hypura_status decode(hypura_model *model, const struct llama_batch *batch, bool more, hypura_error *error)
{
    const uint32_t n = (uint32_t)batch->n_tokens;
    hypura_log_clear();
    hypura_trace_begin(model->trace, n);
    int code = hypura_shim_decode(model->ctx, *batch, more);
    hypura_status status = compute_ended(model, code, "decode", n, error);
    hypura_status traced = hypura_trace_end(model->trace, status == HYPURA_OK, status == HYPURA_OK ? error : NULL);
    return status == HYPURA_OK ? traced : status;
}

hypura_status hypura_model_decode(hypura_model *model, const llama_token *tokens, uint32_t n, bool all_logits,
                                  hypura_error *error)
{
    const struct llama_batch batch = batch_of(model, tokens, n, all_logits);
    return decode(model, &batch, false, error);
}

hypura_status hypura_model_decode_part(hypura_model *model, const llama_token *tokens, uint32_t n, bool last,
                                       hypura_error *error)
{
    const struct llama_batch batch = batch_of(model, tokens, n, false);
    return decode(model, &batch, !last, error);
}

hypura_status hypura_model_decode_batch(hypura_model *model, const struct llama_batch *batch, bool last,
                                        hypura_error *error)
{
    return decode(model, batch, !last, error);
}

hypura_status hypura_model_show(hypura_model *model, const hypura_shown *shown, hypura_error *error)
{
    const uint32_t n_ubatch = model->prepared.context.n_ubatch;
    const llama_pos first = model->next_place >= 0 ? model->next_place : (llama_pos)shown->begin;
    float *encoded = NULL;
    const hypura_status status = hypura_media_encode(model->media, shown, n_ubatch, &encoded, error);
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_log_clear();
    const int code = hypura_shim_media_decode(hypura_media_context(model->media), model->ctx, shown->chunk, encoded, first,
                                              (int32_t)n_ubatch);
    return compute_ended(model, code, "decode", shown->n_tokens, error);
}

hypura_status hypura_model_encode(hypura_model *model, const llama_token *tokens, uint32_t n, hypura_error *error)
{
    hypura_log_clear();
    int code = hypura_shim_encode(model->ctx, batch_of(model, tokens, n, true));
    return compute_ended(model, code, "encode", n, error);
}
