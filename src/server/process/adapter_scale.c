/*
 * adapter_scale.c - see adapter_scale.h.
 */
#include "server/process/adapter_scale.h"

#include "base/status.h"
#include "base/thread.h"
#include "server/dialect/call.h"

#include <stdlib.h>
#include <string.h>

struct adapter_scale {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    adapter_scales value;
    bool mixed;    /* another one than 1 was used */
    bool entering; /* somebody waits to use one */
    uint32_t n_running;
};

adapter_scales adapter_scales_whole(int n)
{
    adapter_scales scales = {.n = n};
    for (int i = 0; i < n; i++) {
        scales.of[i] = 1.0f;
    }
    return scales;
}

bool adapter_scales_are_whole(const adapter_scales *scales)
{
    bool whole = true;
    for (int i = 0; i < scales->n; i++) {
        whole = whole && scales->of[i] == 1.0f;
    }
    return whole;
}

adapter_scale *adapter_scale_open(int n_adapters)
{
    adapter_scale *scale = calloc(1, sizeof(*scale));
    if (scale) {
        scale->value = adapter_scales_whole(n_adapters);
        pthread_mutex_init(&scale->lock, NULL);
        hypura_cond_init(&scale->changed);
    }
    return scale;
}

void adapter_scale_close(adapter_scale *scale)
{
    if (scale) {
        pthread_cond_destroy(&scale->changed);
        pthread_mutex_destroy(&scale->lock);
        free(scale);
    }
}

bool adapter_scale_of(const json_t *lora, int n_adapters, adapter_scales *scales)
{
    size_t i;
    const json_t *one;
    *scales = (adapter_scales){.n = n_adapters}; /* those that a list does not name do not apply */
    json_array_foreach(lora, i, one)
    {
        const json_t *id = json_object_get(one, "id");
        if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < n_adapters) {
            scales->of[json_integer_value(id)] = (float)json_number_value(json_object_get(one, "scale"));
        }
    }
    return json_array_size(lora) > 0;
}

/* With the lock held. */
static void wait_turn(adapter_scale *scale, bool other)
{
    while (scale->entering) {
        (void)hypura_cond_wait(&scale->changed, &scale->lock, UINT64_MAX);
    }
    if (!other || scale->mixed) {
        return;
    }
    scale->entering = true;
    while (scale->n_running > 0) {
        (void)hypura_cond_wait(&scale->changed, &scale->lock, UINT64_MAX);
    }
    scale->entering = false;
    scale->mixed = true;
    pthread_cond_broadcast(&scale->changed);
}

static json_t *with_scale(const json_t *body, bool own, const adapter_scales *value)
{
    json_t *made = json_copy((json_t *)(uintptr_t)body);
    json_t *lora = own ? NULL : json_array();
    for (int i = 0; lora && i < value->n; i++) {
        json_array_append_new(lora, json_pack("{s:i, s:f}", "id", i, "scale", (double)value->of[i]));
    }
    if (!made || (!own && json_object_set_new(made, "lora", lora) != 0) ||
        json_object_set_new(made, "cache_prompt", json_false()) != 0) {
        json_decref(made);
        return NULL;
    }
    return made;
}

hypura_status adapter_scale_begin(adapter_scale *scale, const char *path, const json_t *body, json_t **made,
                                  hypura_error *error)
{
    const call_lora lora = call_of(path)->lora;
    const bool tells = lora == LORA_TOLD && json_is_object(body);
    adapter_scales own;
    const bool says = adapter_scale_of(tells ? json_object_get(body, "lora") : NULL, scale->value.n, &own);
    *made = NULL;
    pthread_mutex_lock(&scale->lock);
    wait_turn(scale, says && !adapter_scales_are_whole(&own));
    const bool mixed = scale->mixed;
    const adapter_scales value = scale->value;
    const bool refused = mixed && lora == LORA_NOT_TOLD;
    scale->n_running += !refused;
    pthread_mutex_unlock(&scale->lock);
    if (refused) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "the model's adapters were used with another scale since the model was loaded, and this route "
                           "cannot tell one: unload the model first, or ask /v1/chat/completions");
    }
    if (mixed && tells) {
        *made = with_scale(body, says, &value);
        if (!*made) {
            adapter_scale_end(scale);
            return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a request");
        }
    }
    return HYPURA_OK;
}

void adapter_scale_end(adapter_scale *scale)
{
    pthread_mutex_lock(&scale->lock);
    scale->n_running--;
    pthread_cond_broadcast(&scale->changed);
    pthread_mutex_unlock(&scale->lock);
}

adapter_scales adapter_scale_get(adapter_scale *scale)
{
    pthread_mutex_lock(&scale->lock);
    const adapter_scales value = scale->value;
    pthread_mutex_unlock(&scale->lock);
    return value;
}

void adapter_scale_set(adapter_scale *scale, const adapter_scales *scales)
{
    pthread_mutex_lock(&scale->lock);
    wait_turn(scale, !adapter_scales_are_whole(scales));
    scale->value = *scales;
    pthread_mutex_unlock(&scale->lock);
}
