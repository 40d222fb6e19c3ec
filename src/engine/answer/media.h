/*
 * media.h - pictures and sound in a prompt, by llama.cpp's libmtmd: a projector, a model of its own in a second GGUF,
 * makes of each what the language model reads in place of tokens. It is held whole, on the GPU where the model uses one.
 */
#ifndef HYPURA_ENGINE_ANSWER_MEDIA_H
#define HYPURA_ENGINE_ANSWER_MEDIA_H

#include "engine/answer/prompt.h"

/* What a projector takes. */
typedef struct hypura_media_needs {
    uint64_t host_bytes;
    uint64_t device_bytes;
} hypura_media_needs;

/* gpu: the device that it would be on; NULL: the host's. With the load lock held. */
hypura_status hypura_media_plan(const char *path, ggml_backend_dev_t gpu, int n_threads, hypura_media_needs *needs,
                                hypura_error *error);

typedef struct hypura_media hypura_media;

/* Of a model that was loaded, if without its weights, and outlives it. warm: it will compute, and does so once. With the
 * load lock held. */
hypura_status hypura_media_open(const char *path, const struct llama_model *model, ggml_backend_dev_t gpu, int n_threads,
                                bool warm, hypura_media **media, hypura_error *error);
void hypura_media_close(hypura_media *media);

/* text holds marker for each of the n media, in their order. Fails naming one that is no picture and no sound, or that
 * the projector has no use for. */
hypura_status hypura_media_prompt(const hypura_media *media, const char *text, const char *marker,
                                  const hypura_medium *const *shown, size_t n, hypura_prompt *prompt,
                                  hypura_error *error);

/* What the model is to read of one; valid until the next call. n_batch: tokens that it reads at once at most. */
hypura_status hypura_media_encode(hypura_media *media, const hypura_shown *shown, uint32_t n_batch, float **encoded,
                                  hypura_error *error);

/* libmtmd's own, for the shim. */
mtmd_context *hypura_media_context(hypura_media *media);

#endif
