/*
 * load.c - see load.h.
 *
 * libllama is given the GPUs that the plan uses and the layers of each, or none: what
 * is compared bit for bit has to run on the same devices everywhere.
 */
#include "engine/llama/load.h"

#include "base/status.h"
#include "engine/llama/adapters.h"
#include "engine/llama/kv_cache.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_shim.h"
#include "io/files.h"
#include "os/os.h"
#include "pager/repack.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Defined in our build of libllama: 0 keeps llama-mmap.cpp from populating the
 * mapping and from advising the kernel to read all of it. */
extern int hypura_llama_mmap_prefetch;

#define MAPPED_STEP_BYTES (UINT64_C(16) << 20) /* looking for mappings takes a tenth of a millisecond */

enum {
    DEFAULT_CONTEXT = 4096,
    DEFAULT_UBATCH = 512,
    LINK_UBATCH = 2048, /* where each part of a prompt brings a layer's experts over a link */
    MAX_UBATCH = 65536,
};

static pthread_mutex_t load_mutex = PTHREAD_MUTEX_INITIALIZER;

void hypura_load_lock(void)
{
    hypura_log_install();
    pthread_mutex_lock(&load_mutex);
}

void hypura_load_unlock(void)
{
    pthread_mutex_unlock(&load_mutex);
}

typedef struct load_progress {
    hypura_progress_fn report;
    void *user;
    uint64_t total;
    bool cancelled;
    const hypura_map *mapped; /* give its mapped pages back on the way; NULL: keep them */
    uint64_t given_back;      /* as of this progress */
} load_progress;

/* What libllama repacks it reads through the mapping, where the pages would stay
 * beside their repacked copies until the end. */
static void give_mapped_back(load_progress *p, uint64_t done)
{
    if (p->mapped && done - p->given_back >= MAPPED_STEP_BYTES) {
        for (int i = 0; i < p->mapped->n_files; i++) {
            hypura_os_mapping_release(p->mapped->files[i]);
        }
        p->given_back = done;
    }
}

static bool on_progress(float fraction, void *user)
{
    load_progress *p = user;
    const uint64_t done = (uint64_t)((double)fraction * (double)p->total);
    give_mapped_back(p, done);
    if (p->report && !p->report(p->user, "loading", done, p->total)) {
        p->cancelled = true;
    }
    return !p->cancelled;
}

static hypura_status load_files(const hypura_map *map, hypura_load_kind kind, struct llama_model_params params,
                                const load_progress *state, struct llama_model **model, hypura_error *error)
{
    const char **paths = malloc((size_t)map->n_files * sizeof(*paths));
    if (!paths) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for the list of files", map->path);
    }
    for (int i = 0; i < map->n_files; i++) {
        paths[i] = map->files[i];
    }
    hypura_log_clear();
    hypura_shim_guard_begin();
    hypura_llama_mmap_prefetch = kind != HYPURA_LOAD_PAGED;
    *model = llama_model_load_from_splits(paths, (size_t)map->n_files, params);
    hypura_llama_mmap_prefetch = 1;
    hypura_shim_guard_end();
    free(paths);

    if (*model) {
        return HYPURA_OK;
    }
    if (state->cancelled) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "%s: loading was stopped", map->path);
    }
    return hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s: llama.cpp cannot load this model", map->path);
}

/* As many tokens as the file lists, and no tokenizer. NULL: it lists none. */
static const struct llama_model_kv_override *without_texts(const hypura_map *map, struct llama_model_kv_override keys[3])
{
    if (map->n_vocabulary == 0) {
        return NULL;
    }
    memset(keys, 0, 3 * sizeof(*keys)); /* the last one, without a name, ends them */
    keys[0].tag = LLAMA_KV_OVERRIDE_TYPE_STR;
    snprintf(keys[0].key, sizeof(keys[0].key), "tokenizer.ggml.model");
    snprintf(keys[0].val_str, sizeof(keys[0].val_str), "none");
    keys[1].tag = LLAMA_KV_OVERRIDE_TYPE_INT;
    snprintf(keys[1].key, sizeof(keys[1].key), "%s.vocab_size", map->arch);
    keys[1].val_i64 = map->n_vocabulary;
    return keys;
}

/* What of the file is read, and how. textless: room for what without_texts makes. */
static void choose_way(hypura_load_kind kind, const hypura_map *map, bool repack, struct llama_model_kv_override *textless,
                       struct llama_model_params *params)
{
    switch (kind) {
    case HYPURA_LOAD_SHAPES:
        params->kv_overrides = without_texts(map, textless);
        /* fall through */
    case HYPURA_LOAD_SURVEY:
        params->load_mode = LLAMA_LOAD_MODE_NONE; /* libllama refuses to map without allocating */
        params->lazy_mode = LLAMA_LAZY_MODE_OFF;
        params->no_alloc = true;
        params->use_extra_bufts = false;
        break;
    case HYPURA_LOAD_VOCAB:
        params->load_mode = LLAMA_LOAD_MODE_NONE;
        params->lazy_mode = LLAMA_LAZY_MODE_OFF;
        params->vocab_only = true;
        break;
    case HYPURA_LOAD_PLAIN:
        params->use_extra_bufts = repack;
        break;
    case HYPURA_LOAD_RESIDENT:
        params->load_mode = LLAMA_LOAD_MODE_DIRECT_IO;
        params->lazy_mode = LLAMA_LAZY_MODE_OFF;
        params->use_extra_bufts = repack;
        break;
    case HYPURA_LOAD_PAGED:
        params->load_mode = LLAMA_LOAD_MODE_MMAP;
        params->lazy_mode = LLAMA_LAZY_MODE_OFF; /* rows are read on demand by the pager, not by page faults */
        params->use_extra_bufts = repack;        /* as the pager does with what streams */
        break;
    }
}

hypura_status hypura_load_model(const hypura_map *map, hypura_load_kind kind, const hypura_load_gpu *gpu,
                                hypura_form form, hypura_progress_fn progress, void *progress_user,
                                struct llama_model **model, hypura_error *error)
{
    /* What any caller of libllama can ask for: the run that is compared with is made so too. */
    const struct llama_model_tensor_buft_override output[] = {{"^output\\.weight$", hypura_repack_type()}, {NULL, NULL}};
    load_progress state = {.report = progress,
                           .user = progress_user,
                           .total = map->tensor_bytes,
                           .mapped = kind == HYPURA_LOAD_PAGED ? map : NULL};
    ggml_backend_dev_t devices[HYPURA_MAX_GPUS + 1] = {NULL};
    float split[HYPURA_MAX_GPUS] = {0.0f}; /* llama_max_devices(); all 0: by the memory that is free */
    for (int g = 0; g < gpu->n; g++) {
        devices[g] = gpu->devices[g];
        split[g] = gpu->n == 1 ? 1.0f : (float)gpu->layers[g]; /* sums of layers: libllama finds these very bounds */
    }

    struct llama_model_params params = llama_model_default_params();
    params.devices = devices;
    params.tensor_split = split;
    params.n_gpu_layers = gpu->n > 0 ? gpu->n_layers : 0;
    params.tensor_buft_overrides = form == HYPURA_FORM_OUTPUT ? output : gpu->overrides;
    params.progress_callback = on_progress;
    params.progress_callback_user_data = &state;
    struct llama_model_kv_override textless[3];
    choose_way(kind, map, form == HYPURA_FORM_REPACKED, textless, &params);

    /* libllama reads what stays itself: nobody else would notice a file that is written to meanwhile, or was since
     * the map was read, by which the plan was made. */
    hypura_io_table files;
    hypura_status status = hypura_io_files_open(&files, map->files, map->n_files, false, error);
    if (status == HYPURA_OK) {
        status = hypura_io_files_check_known(files.files, files.n, map->file_bytes, map->file_modified_ns, error);
    }
    if (status == HYPURA_OK) {
        status = load_files(map, kind, params, &state, model, error);
        hypura_error changed;
        if (status != HYPURA_ERR_CANCELLED && hypura_io_files_check_paths(&files, &changed) != HYPURA_OK) {
            llama_model_free(*model);
            *model = NULL;
            status = hypura_fail(error, changed.status, "%s", changed.message);
        }
    }
    hypura_io_files_close(&files);
    return status;
}

hypura_status hypura_load_context(struct llama_model *model, const hypura_context_options *options,
                                  struct llama_context **ctx, hypura_error *error)
{
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = options->n_context;
    params.n_batch = options->n_ubatch;
    params.n_ubatch = options->n_ubatch;
    params.n_seq_max = options->n_sequences > 0 ? options->n_sequences : 1;
    params.kv_unified = options->one_cache;
    params.type_k = hypura_kv_cache_type(options->kv_cache.type_k);
    params.type_v = hypura_kv_cache_type(options->kv_cache.type_v);
    /* Every token that an encoder reads is an output. */
    params.n_outputs_max = llama_model_has_encoder(model) ? options->n_ubatch : options->n_outputs;
    params.n_threads = options->n_threads;
    params.n_threads_batch = options->n_threads; /* kernels may split sums by thread: one count, one result */
    params.pooling_type = LLAMA_POOLING_TYPE_NONE;
    params.swa_full = false;
    params.op_offload = options->sends_weights;
    params.no_perf = true;
    params.cb_eval = options->on_node;
    params.cb_eval_user_data = options->on_node_user;

    struct llama_adapter_lora *loaded[HYPURA_MAX_ADAPTERS];
    hypura_status status = hypura_adapters_load(options->adapters, options->n_adapters, model, loaded, error);
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_log_clear();
    hypura_shim_guard_begin();
    *ctx = llama_init_from_model(model, params);
    hypura_shim_guard_end();
    if (!*ctx) {
        return hypura_log_fail(error, HYPURA_ERR_BACKEND,
                               "llama.cpp cannot create a context of %u tokens in pieces of %u", options->n_context,
                               options->n_ubatch);
    }
    status = hypura_adapters_apply(options->adapters, options->n_adapters, loaded, *ctx, error);
    if (status != HYPURA_OK) {
        llama_free(*ctx);
        *ctx = NULL;
    }
    return status;
}

/* By the kinds of model and device alone: sums of a prompt are rounded in other places where its parts are others, and
 * must not depend on how much is held. */
static uint32_t default_ubatch(const hypura_map *map, bool over_gpus)
{
    return over_gpus && map->n_bundles > 0 ? LINK_UBATCH : DEFAULT_UBATCH;
}

hypura_status hypura_load_sizes(const hypura_map *map, bool over_gpus, uint32_t *n_context, uint32_t *n_ubatch,
                                hypura_error *error)
{
    if (*n_context == 0) {
        *n_context = map->context_length > 0 && map->context_length < DEFAULT_CONTEXT ? (uint32_t)map->context_length
                                                                                      : DEFAULT_CONTEXT;
    }
    /* Learned positions end there, and llama.cpp ends the process beyond them. */
    const int64_t most = map->context_length > 0 ? map->context_length : INT32_MAX;
    if (*n_context > most) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s: a context of %u tokens is more than the %lld it was made for",
                           map->path, *n_context, (long long)most);
    }
    if (*n_ubatch == 0) {
        *n_ubatch = default_ubatch(map, over_gpus);
    }
    if (*n_ubatch > MAX_UBATCH) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a ubatch of %u tokens is out of range: pass 1 to %d", *n_ubatch,
                           MAX_UBATCH);
    }
    if (*n_ubatch > *n_context) {
        *n_ubatch = *n_context;
    }
    return HYPURA_OK;
}

uint32_t hypura_load_smaller_ubatch(uint32_t n_ubatch)
{
    const uint32_t half = n_ubatch / 2;
    return n_ubatch <= DEFAULT_UBATCH ? 0 : half > DEFAULT_UBATCH ? half : DEFAULT_UBATCH;
}
