/*
 * media_shim.cpp - see media_shim.h.
 */
#include "engine/llama/media_shim.h"

#include "engine/llama/llama_shim.h"
#include "engine/llama/pulse.h"

#include "ggml-impl.h"
#include "mtmd-helper.h"

#include <exception>

namespace
{

/* Assertions of the calling thread that fail become exceptions as long as it lives. */
struct guard {
    guard() { hypura_shim_guard_begin(); }
    ~guard() { hypura_shim_guard_end(); }
    guard(const guard &) = delete;
    guard &operator=(const guard &) = delete;
};

struct reading {
    mtmd_context *media;
    struct llama_context *ctx;
    const mtmd_input_chunk *chunk;
    float *encoded;
    llama_pos first;
    int32_t n_batch;
};

int read(void *user)
{
    const reading *r = static_cast<const reading *>(user);
    llama_pos next = r->first;
    return mtmd_helper_decode_image_chunk(r->media, r->ctx, r->chunk, r->encoded, r->first, 0, r->n_batch, &next, nullptr,
                                          nullptr);
}

} // namespace

bool hypura_shim_media_bytes(const char *path, struct mtmd_context_params params, uint64_t *host_bytes,
                             uint64_t *device_bytes)
{
    *host_bytes = 0;
    *device_bytes = 0;
    const guard guarded;
    try {
        const mtmd_memory_usage usage = mtmd_get_memory_usage(path, params);
        for (const auto &[device, bytes] : usage.backend_mem_usage) {
            const bool host = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
            *(host ? host_bytes : device_bytes) += bytes;
        }
        return !usage.backend_mem_usage.empty();
    } catch (const std::exception &e) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s\n", e.what());
        return false;
    }
}

int hypura_shim_media_encode(mtmd_context *media, const mtmd_input_chunk *chunk)
{
    const hypura_pulse_call now("for a picture or sound to be encoded");
    const guard guarded;
    try {
        return mtmd_encode_chunk(media, chunk);
    } catch (const std::exception &e) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s\n", e.what());
        return GGML_STATUS_FAILED;
    }
}

int hypura_shim_media_decode(mtmd_context *media, struct llama_context *ctx, const mtmd_input_chunk *chunk, float *encoded,
                             llama_pos first, int32_t n_batch)
{
    reading r = {media, ctx, chunk, encoded, first, n_batch};
    return hypura_shim_compute(ctx, read, &r);
}
