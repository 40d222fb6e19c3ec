/*
 * adapters.c - see adapters.h.
 *
 * What always holds: the same adapters in the same order give the same bits, however memory lies. llama.cpp goes through
 * them in the order of a table by address; where that is not the one it mostly has, an adapter is loaded once more, to
 * another address.
 */
#include "engine/llama/adapters.h"

#include "base/status.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_shim.h"
#include "gguf/adapter.h"

#include <math.h>

enum { MOST_TRIES = 16 };

hypura_status hypura_adapters_check(const hypura_adapter *adapters, int n, hypura_error *error)
{
    if (n < 0 || n > HYPURA_MAX_ADAPTERS) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%d adapters: there may be %d at most", n, HYPURA_MAX_ADAPTERS);
    }
    for (int i = 0; i < n; i++) {
        if (!adapters[i].path || adapters[i].path[0] == '\0') {
            return hypura_fail(error, HYPURA_ERR_USAGE, "an adapter without a path: name its GGUF file");
        }
        if (!isfinite(adapters[i].scale)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s: a scale has to be a number", adapters[i].path);
        }
    }
    return HYPURA_OK;
}

hypura_status hypura_adapters_check_files(const hypura_adapter *adapters, int n, const hypura_map *map, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < n && status == HYPURA_OK; i++) {
        status = hypura_adapter_check_file(adapters[i].path, map, error);
    }
    return status;
}

static struct llama_adapter_lora *load(const char *path, struct llama_model *model, hypura_error *error)
{
    hypura_log_clear();
    hypura_shim_guard_begin();
    struct llama_adapter_lora *adapter = llama_adapter_lora_init(model, path);
    hypura_shim_guard_end();
    if (!adapter) {
        (void)hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s: llama.cpp cannot load this adapter", path);
    }
    return adapter;
}

/* The one added last is where it has to be, or is put elsewhere: each try keeps its place taken, so that the next gets
 * another. */
static hypura_status load_in_order(const char *path, struct llama_model *model, struct llama_adapter_lora **loaded, int n,
                                   hypura_error *error)
{
    struct llama_adapter_lora *refused[MOST_TRIES];
    int n_refused = 0;
    hypura_status status = HYPURA_OK;
    for (;;) {
        loaded[n] = load(path, model, error);
        if (!loaded[n]) {
            status = error ? error->status : HYPURA_ERR_BACKEND;
            break;
        }
        if (hypura_shim_adapters_in_order(loaded, n + 1)) {
            break;
        }
        if (n_refused == MOST_TRIES) {
            status = hypura_fail(error, HYPURA_ERR_BACKEND, "%s: llama.cpp puts the adapters into no order that lasts: "
                                                            "merge some of them into one", path);
            break;
        }
        refused[n_refused++] = loaded[n];
    }
    for (int i = 0; i < n_refused; i++) {
        llama_adapter_lora_free(refused[i]);
    }
    return status;
}

hypura_status hypura_adapters_load(const hypura_adapter *adapters, int n, struct llama_model *model,
                                   struct llama_adapter_lora **loaded, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < n && status == HYPURA_OK; i++) {
        status = load_in_order(adapters[i].path, model, loaded, i, error);
    }
    return status;
}

hypura_status hypura_adapters_apply(const hypura_adapter *adapters, int n, struct llama_adapter_lora **loaded,
                                    struct llama_context *ctx, hypura_error *error)
{
    float scales[HYPURA_MAX_ADAPTERS];
    if (n == 0) {
        return HYPURA_OK;
    }
    for (int i = 0; i < n; i++) {
        scales[i] = adapters[i].scale;
    }
    hypura_log_clear();
    return hypura_shim_apply_adapters(ctx, loaded, n, scales)
               ? HYPURA_OK
               : hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s: llama.cpp cannot compute with this adapter", adapters[0].path);
}
