/*
 * adapter_scale.h - how much of a model's LoRA adapters applies to a request of its engine.
 *
 * Each applies wholly: its scale is 1. POST /lora-adapters changes that until the model is
 * unloaded, and "lora" of a request for that request. llama.cpp's server goes on from what a slot, or a prompt it put aside,
 * has computed with whatever scale. So the first use of another scale waits until nothing is computed, and from then on all
 * prompts are computed from their beginning, each with its own scale, and no state of a conversation is kept or put back.
 *
 * What always holds: as long as no other scale was used, requests go as they are. One for each engine; any thread.
 */
#ifndef HYPURA_SERVER_PROCESS_ADAPTER_SCALE_H
#define HYPURA_SERVER_PROCESS_ADAPTER_SCALE_H

#include "hypura.h"

#include <jansson.h>

typedef struct adapter_scale adapter_scale;

/* Of all adapters of a model, in their order. */
typedef struct adapter_scales {
    int   n;
    float of[HYPURA_MAX_ADAPTERS];
} adapter_scales;

adapter_scales adapter_scales_whole(int n);
bool           adapter_scales_are_whole(const adapter_scales *scales);

adapter_scale *adapter_scale_open(int n_adapters); /* NULL: memory is short */
void           adapter_scale_close(adapter_scale *scale);

/* Before a request of the engine, with that path (and query) and body, NULL when it is no JSON; end follows where this is OK.
 * *made: a new reference, what goes in place of the body; NULL: it goes as it is. HYPURA_ERR_UNSUPPORTED: another scale was
 * used, and llama.cpp's server has no way to be told one by this route. */
hypura_status adapter_scale_begin(adapter_scale *scale, const char *path, const json_t *body, json_t **made,
                                  hypura_error *error);
void          adapter_scale_end(adapter_scale *scale);

/* Of requests that say nothing. */
adapter_scales adapter_scale_get(adapter_scale *scale);
/* With no request of this thread under way. */
void adapter_scale_set(adapter_scale *scale, const adapter_scales *scales);

/* Of llama.cpp's "lora": [{"id": 0, "scale": 0.5}], for so many adapters. False: it says nothing. */
bool adapter_scale_of(const json_t *lora, int n_adapters, adapter_scales *scales);

#endif
