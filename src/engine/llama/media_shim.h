/*
 * media_shim.h - the parts of llama.cpp's libmtmd that throw, or have no C interface, behind C. Everything else of it is
 * used through mtmd.h.
 */
#ifndef HYPURA_ENGINE_LLAMA_MEDIA_SHIM_H
#define HYPURA_ENGINE_LLAMA_MEDIA_SHIM_H

#include "llama.h"
#include "mtmd.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a projector takes at most, weights and the largest picture: in the host's memory, and in that of devices. False
 * where it cannot be loaded; the log tells why. */
bool hypura_shim_media_bytes(const char *path, struct mtmd_context_params params, uint64_t *host_bytes,
                             uint64_t *device_bytes);

/* The projector computes what the model will read of one that is shown. 0, or the log tells. */
int hypura_shim_media_encode(mtmd_context *media, const mtmd_input_chunk *chunk);
/* The model reads it, from position first on, n_batch tokens at once; what llama_decode returned. */
int hypura_shim_media_decode(mtmd_context *media, struct llama_context *ctx, const mtmd_input_chunk *chunk, float *encoded,
                             llama_pos first, int32_t n_batch);

#ifdef __cplusplus
}
#endif

#endif
