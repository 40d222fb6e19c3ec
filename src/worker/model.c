/*
 * model.c - see model.h.
 */
#include "worker/model.h"

#include "base/status.h"
#include "engine/llama/kv_cache.h"
#include "engine/llama/llama_log.h"
#include "engine/model/paged.h"
#include "engine/model/trunk.h"
#include "engine/prepare/speculation.h"
#include "worker/lost.h"

#include "llama.h"

#include <string.h>

static hypura_worker_model *offered;

/* ---- planning ---------------------------------------------------------------- */

/* The caches of conversations may take this part of the memory at most, beyond one conversation. */
#define KV_SHARE 4

static uint32_t modest_sequences(const hypura_plan *plan, uint32_t n)
{
    const uint64_t limit = plan->memory_bytes / KV_SHARE;
    const uint64_t each = plan->kv_bytes / n;
    if (plan->memory_bytes == 0 || each == 0 || plan->kv_bytes <= limit) {
        return n;
    }
    return limit / each > 1 ? (uint32_t)(limit / each) : 1;
}

hypura_status hypura_worker_model_prepare(const hypura_worker_arguments *arguments, hypura_worker_model *model,
                                          hypura_error *error)
{
    *model = (hypura_worker_model){.arguments = arguments};
    if (arguments->context_shift && hypura_kv_cache_type(arguments->model.kv_cache.type_k) == GGML_TYPE_BF16) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "llama.cpp cannot shift keys of bf16, as --context-shift does: choose another --cache-type-k");
    }
    for (uint32_t n = arguments->n_sequences;;) {
        hypura_status status =
            hypura_prepare_shared(&arguments->model, n, arguments->reserve_bytes, &arguments->shares, &model->prepared, error);
        if (n == 1 || (status != HYPURA_OK && status != HYPURA_ERR_BUDGET)) {
            return status;
        }
        const uint32_t fewer = status != HYPURA_OK   ? n / 2
                               : arguments->estimate ? modest_sequences(model->prepared.plan, n)
                                                     : n; /* chosen when it was estimated */
        if (fewer == n) {
            return HYPURA_OK;
        }
        hypura_prepare_clear(&model->prepared);
        n = fewer;
    }
}

bool hypura_worker_model_takes_draft(hypura_worker_arguments *arguments, hypura_error *error)
{
    hypura_speculation *speculation = &arguments->model.speculation;
    hypura_speculation_needs needs;
    hypura_map *map = NULL;
    hypura_context_options context = {
        .n_context = arguments->model.n_context, .n_ubatch = 1, .n_sequences = 1, .n_threads = 1};
    hypura_status status = hypura_speculation_check(speculation, arguments->model.path, error);
    if (status == HYPURA_OK) {
        status = hypura_map_open(arguments->model.path, &map, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_load_sizes(map, false, &context.n_context, &context.n_ubatch, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_speculation_plan(speculation, map, &context, &needs, error);
    }
    hypura_map_close(map);
    if (status != HYPURA_OK) {
        speculation->draft = NULL;
    }
    return status == HYPURA_OK;
}

void hypura_worker_model_offer(hypura_worker_model *model)
{
    offered = model;
}

/* Once: counts are added to those that are there. */
static void save_hot(void *user)
{
    hypura_worker_model *model = user;
    if (atomic_exchange(&model->saved, true)) {
        return;
    }
    hypura_paged_save(&model->prepared, model->pager, model->arguments->model.cache_dir);
}

void hypura_worker_model_close(hypura_worker_model *model)
{
    offered = NULL;
    hypura_pulse_keep(model->pulse, NULL, NULL);
    hypura_lost_keep(NULL, NULL);
    save_hot(model);
    hypura_pulse_begin("for the model to be closed");
    llama_model_free(model->draft);
    model->draft = NULL;
    hypura_gpus_close(&model->gpus);
    hypura_pager_close(model->pager);
    model->pager = NULL;
    hypura_pulse_close(model->pulse, false);
    model->pulse = NULL;
    hypura_pulse_end();
    hypura_prepare_clear(&model->prepared);
}

/* ---- loading ----------------------------------------------------------------- */

static hypura_status load_paged(hypura_worker_model *model, struct llama_model **llama, hypura_error *error)
{
    const hypura_preparation *p = &model->prepared;
    hypura_model_options options = model->arguments->model;
    hypura_pager *pager = NULL;
    uint64_t trunk_bytes;
    options.progress = model->progress;
    options.progress_user = model->progress_user;
    const hypura_pager_options pager_options = hypura_paged_options(p, &options);
    hypura_status status = hypura_pager_open(&pager_options, &pager, error);
    if (status == HYPURA_OK) {
        status = hypura_paged_load(p, &options, pager, &model->gpus, llama, &trunk_bytes, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_paged_begin(p, &options, pager, error);
    }
    if (status != HYPURA_OK) {
        llama_model_free(*llama);
        *llama = NULL;
        hypura_gpus_close(&model->gpus);
        hypura_pager_close(pager);
        return status;
    }
    model->pager = pager;
    return HYPURA_OK;
}

static struct llama_model *load_offered(hypura_worker_model *model)
{
    const hypura_preparation *p = &model->prepared;
    const bool resident = p->plan->mode == HYPURA_MODE_RESIDENT;
    const char *draft = model->arguments->model.speculation.draft;
    struct llama_model *llama = NULL;
    hypura_load_lock();
    hypura_log_share();
    hypura_status status = hypura_pulse_open(&p->gpus, p->context.n_ubatch, hypura_held_token_s(p, resident), &model->pulse,
                                             &model->error);
    hypura_pulse_begin("for the model to be loaded");
    if (status == HYPURA_OK && draft) {
        status = hypura_speculation_load(draft, &model->draft, &model->error);
    }
    if (status == HYPURA_OK) {
        status = resident ? hypura_load_model(p->map, HYPURA_LOAD_RESIDENT, &p->gpus, p->plan->form, model->progress,
                                              model->progress_user, &llama, &model->error)
                          : load_paged(model, &llama, &model->error);
    }
    if (status == HYPURA_OK && resident) {
        hypura_trunk_collapse(llama);
    }
    hypura_pulse_end();
    hypura_load_unlock();
    hypura_pulse_keep(model->pulse, save_hot, model);
    hypura_lost_keep(save_hot, model);
    atomic_store(&model->loaded, status == HYPURA_OK);
    if (model->on_loaded) {
        model->on_loaded(model->progress_user);
    }
    return status == HYPURA_OK ? llama : NULL;
}

/* In place of libllama's function of this name, see model.h. */
__attribute__((visibility("default"))) struct llama_model *llama_model_load_from_file(const char *path,
                                                                                      struct llama_model_params params)
{
    if (offered && strcmp(path, offered->arguments->model.path) == 0) {
        return load_offered(offered);
    }
    if (offered && offered->draft && strcmp(path, offered->arguments->model.speculation.draft) == 0) {
        struct llama_model *draft = offered->draft;
        offered->draft = NULL;
        return draft;
    }
    return llama_model_load_from_splits(&path, 1, params);
}
