/*
 * paged.c - see paged.h.
 */
#include "engine/model/paged.h"

#include "backend/backend.h"
#include "engine/model/hot.h"
#include "engine/model/trunk.h"

hypura_pager_options hypura_paged_options(const hypura_preparation *prepared, const hypura_model_options *options)
{
    const int n_threads = prepared->context.n_threads;
    return (hypura_pager_options){
        .map = prepared->map,
        .plan = prepared->plan,
        .io_engine = prepared->io_engine[0] != '\0' ? prepared->io_engine : NULL,
        .form = prepared->plan->form,
        .n_gpus = prepared->plan->n_vram_pools > 0 ? prepared->gpus.n_here : 0,
        .gpus = prepared->gpus.devices,
        .gpu_misses = options->gpu_misses,
        .n_repack_threads = hypura_pager_repack_threads(n_threads),
        .gives_way = hypura_pager_gives_way(n_threads),
        .n_compute = n_threads,
        .looks = hypura_pager_looks(n_threads, prepared->plan->form),
        .io_limit_bytes_per_s = options->io_limit_bytes_per_s,
        .foresight = options->foresight,
    };
}

hypura_status hypura_paged_load(const hypura_preparation *prepared, const hypura_model_options *options, hypura_pager *pager,
                                hypura_gpus *gpus, struct llama_model **llama, uint64_t *trunk_bytes, hypura_error *error)
{
    hypura_status status = hypura_backend_attach(pager, error);
    if (status != HYPURA_OK) {
        return status;
    }
    status = hypura_gpus_load_paged(prepared, pager, options, gpus, llama, error);
    if (status == HYPURA_OK) {
        status = hypura_trunk_load(*llama, prepared->map, prepared->plan, pager, options->progress, options->progress_user,
                                   trunk_bytes, error);
    }
    if (status == HYPURA_OK) {
        hypura_trunk_collapse(*llama);
    }
    hypura_backend_detach();
    return status;
}

hypura_status hypura_paged_begin(const hypura_preparation *prepared, const hypura_model_options *options,
                                 hypura_pager *pager, hypura_error *error)
{
    hypura_status status = hypura_pager_check_files(pager, true, error);
    if (status == HYPURA_OK && options->cache_dir) {
        status = hypura_hot_load(options->cache_dir, prepared->map, pager, error);
    }
    if (status == HYPURA_OK && prepared->plan->n_vram_pools > 0) {
        hypura_pager_fill(pager);
    }
    if (status == HYPURA_OK && options->memory_bytes == 0 && options->weights_bytes == 0) {
        status = hypura_prepare_keep(prepared, pager, error);
    }
    return status;
}

void hypura_paged_save(const hypura_preparation *prepared, hypura_pager *pager, const char *cache_dir)
{
    hypura_error unsaved;
    if (pager && cache_dir) {
        (void)hypura_hot_save(cache_dir, prepared->map, pager, &unsaved);
    }
}

double hypura_held_token_s(const hypura_preparation *prepared, bool whole)
{
    return whole && prepared->plan->decode_tok_s > 0.0 ? 1.0 / prepared->plan->decode_tok_s : 0.0;
}
