/*
 * kv_cache.c - see kv_cache.h.
 */
#include "engine/llama/kv_cache.h"

#include "base/status.h"

#include <stdio.h>
#include <string.h>

/* Those that llama.cpp's own programs take: for others its kernels of attention are not made. */
static const enum ggml_type types[] = {GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_F32,  GGML_TYPE_Q8_0, GGML_TYPE_Q5_1,
                                       GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL};
static const char *const names[] = {"f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", NULL};

const char *const *hypura_kv_cache_types(void)
{
    return names;
}

static int find(const char *name)
{
    int i = 0;
    while (names[i] && strcmp(names[i], name) != 0) {
        i++;
    }
    return i;
}

static hypura_status check(const char *name, const char *of, hypura_error *error)
{
    if (!name || names[find(name)]) {
        return HYPURA_OK;
    }
    char known[128];
    size_t used = 0;
    for (int i = 0; names[i]; i++) {
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    return hypura_fail(error, HYPURA_ERR_USAGE, "the KV cache cannot keep %s as '%s': there are %s", of, name, known);
}

hypura_status hypura_kv_cache_check(const hypura_kv_cache *kv_cache, hypura_error *error)
{
    const hypura_status status = check(kv_cache->type_k, "keys", error);
    return status == HYPURA_OK ? check(kv_cache->type_v, "values", error) : status;
}

hypura_kv_cache hypura_kv_cache_named(const hypura_kv_cache *kv_cache)
{
    return (hypura_kv_cache){.type_k = names[kv_cache->type_k ? find(kv_cache->type_k) : 0],
                             .type_v = names[kv_cache->type_v ? find(kv_cache->type_v) : 0]};
}

enum ggml_type hypura_kv_cache_type(const char *name)
{
    return name ? types[find(name)] : GGML_TYPE_F16;
}
