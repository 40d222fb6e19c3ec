/*
 * media.c - see media.h.
 */
#include "engine/answer/media.h"

#include "base/status.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_shim.h"
#include "engine/llama/media_shim.h"

#include "mtmd-helper.h"

#include <stdlib.h>
#include <string.h>

struct hypura_media {
    mtmd_context *context;
    char *path;
};

static struct mtmd_context_params params_of(ggml_backend_dev_t gpu, int n_threads, bool warm)
{
    struct mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = gpu != NULL;
    params.device = gpu;
    params.print_timings = false;
    params.n_threads = n_threads;
    params.warmup = warm;
    return params;
}

static hypura_status load(const char *path, const struct llama_model *model, struct mtmd_context_params params,
                          mtmd_context **context, hypura_error *error)
{
    hypura_log_clear();
    hypura_shim_guard_begin();
    *context = mtmd_init_from_file(path, model, params);
    hypura_shim_guard_end();
    return *context ? HYPURA_OK
                    : hypura_log_fail(error, HYPURA_ERR_UNSUPPORTED, "%s cannot be the model's projector", path);
}

hypura_status hypura_media_plan(const char *path, ggml_backend_dev_t gpu, int n_threads, hypura_media_needs *needs,
                                hypura_error *error)
{
    *needs = (hypura_media_needs){.host_bytes = 0};
    hypura_log_clear();
    return hypura_shim_media_bytes(path, params_of(gpu, n_threads, false), &needs->host_bytes, &needs->device_bytes)
               ? HYPURA_OK
               : hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s: llama.cpp does not tell what it takes", path);
}

hypura_status hypura_media_open(const char *path, const struct llama_model *model, ggml_backend_dev_t gpu, int n_threads,
                                bool warm, hypura_media **out, hypura_error *error)
{
    hypura_media *media = calloc(1, sizeof(*media));
    *out = NULL;
    if (media) {
        media->path = strdup(path);
    }
    if (!media || !media->path) {
        hypura_media_close(media);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a projector");
    }
    const hypura_status status = load(path, model, params_of(gpu, n_threads, warm), &media->context, error);
    if (status != HYPURA_OK) {
        hypura_media_close(media);
        return status;
    }
    *out = media;
    return HYPURA_OK;
}

void hypura_media_close(hypura_media *media)
{
    if (media) {
        mtmd_free(media->context);
        free(media->path);
        free(media);
    }
}

mtmd_context *hypura_media_context(hypura_media *media)
{
    return media->context;
}

/* ---- a prompt ------------------------------------------------------------------ */

static bool is_sound(const hypura_medium *medium)
{
    const unsigned char *data = medium->data;
    if (medium->bytes < 12) {
        return false;
    }
    return (memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WAVE", 4) == 0) || memcmp(data, "ID3", 3) == 0 ||
           memcmp(data, "fLaC", 4) == 0 || (data[0] == 0xff && (data[1] & 0xe0) == 0xe0);
}

static bool is_webp(const hypura_medium *medium)
{
    const char *data = medium->data;
    return medium->bytes >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0;
}

static hypura_status read_medium(const hypura_media *media, const hypura_medium *medium, mtmd_bitmap **bitmap,
                                 hypura_error *error)
{
    const bool sound = is_sound(medium);
    if (sound ? !mtmd_support_audio(media->context) : !mtmd_support_vision(media->context)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is a %s, and the model's projector %s is for %s", medium->name,
                           sound ? "sound" : "picture", media->path, sound ? "pictures" : "sound");
    }
    hypura_log_clear();
    const struct mtmd_helper_bitmap_wrapper made = mtmd_helper_bitmap_init_from_buf(
        media->context, medium->data, medium->bytes, false, mtmd_helper_init_opt_default());
    if (made.video_ctx) {
        mtmd_helper_video_free(made.video_ctx);
    }
    if (made.video_ctx && made.bitmap) {
        mtmd_bitmap_free(made.bitmap);
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s is a film: pictures and sound can be shown", medium->name);
    }
    if (!made.bitmap && is_webp(medium)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%s is a WebP picture, for which llama.cpp needs the program ffmpeg: install it, or make it a "
                           "PNG or JPEG", medium->name);
    }
    if (!made.bitmap) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no picture and no sound that can be read (PNG, JPEG, BMP, GIF; "
                                                    "WAV, MP3, FLAC)", medium->name);
    }
    *bitmap = made.bitmap;
    return HYPURA_OK;
}

/* The text is cut at the markers; between its parts stand the media. */
static int tokenise(const hypura_media *media, const char *text, const char *marker, mtmd_bitmap *const *bitmaps,
                    size_t n, mtmd_input_chunks *chunks)
{
    struct mtmd_input_text *texts = calloc(n + 1, sizeof(*texts));
    struct mtmd_input_part *parts = calloc(2 * n + 1, sizeof(*parts));
    const struct mtmd_input_part **list = calloc(2 * n + 1, sizeof(*list));
    int code = -1;
    size_t n_parts = 0;
    if (texts && parts && list) {
        code = 1;
        for (size_t i = 0; text && i <= n; i++) {
            const char *end = i < n ? strstr(text, marker) : text + strlen(text);
            if (!end) {
                break;
            }
            texts[i] = (struct mtmd_input_text){
                .text = text, .text_len = (size_t)(end - text), .add_special = false, .parse_special = true};
            parts[n_parts].text = &texts[i];
            list[n_parts] = &parts[n_parts];
            n_parts++;
            if (i < n) {
                parts[n_parts].bitmap = bitmaps[i];
                list[n_parts] = &parts[n_parts];
                n_parts++;
            }
            text = i < n ? end + strlen(marker) : NULL;
        }
        hypura_log_clear();
        hypura_shim_guard_begin();
        code = n_parts == 2 * n + 1 ? mtmd_tokenize_from_parts(media->context, chunks, list, n_parts, true) : 1;
        hypura_shim_guard_end();
    }
    free(texts);
    free(parts);
    free(list);
    return code;
}

/* Joins the chunks to tokens. */
static hypura_status take_chunks(hypura_prompt *prompt, hypura_error *error)
{
    const size_t n_chunks = mtmd_input_chunks_size(prompt->chunks);
    size_t n = 0;
    for (size_t i = 0; i < n_chunks; i++) {
        n += mtmd_input_chunk_get_n_tokens(mtmd_input_chunks_get(prompt->chunks, i));
    }
    if (n > INT32_MAX) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a prompt of %zu tokens is too long", n);
    }
    prompt->tokens = malloc((n + 1) * sizeof(*prompt->tokens));
    prompt->shown = calloc(n_chunks + 1, sizeof(*prompt->shown));
    if (!prompt->tokens || !prompt->shown) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt of %zu tokens", n);
    }
    for (size_t i = 0; i < n_chunks; i++) {
        const mtmd_input_chunk *chunk = mtmd_input_chunks_get(prompt->chunks, i);
        if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
            size_t n_text = 0;
            const llama_token *tokens = mtmd_input_chunk_get_tokens_text(chunk, &n_text);
            memcpy(prompt->tokens + prompt->n, tokens, n_text * sizeof(*tokens));
            prompt->n += (uint32_t)n_text;
            continue;
        }
        const char *id = mtmd_input_chunk_get_id(chunk);
        hypura_shown *shown = &prompt->shown[prompt->n_shown++];
        *shown = (hypura_shown){.begin = prompt->n,
                                .n_tokens = (uint32_t)mtmd_input_chunk_get_n_tokens(chunk),
                                .n_places = (uint32_t)mtmd_input_chunk_get_n_pos(chunk),
                                .chunk = chunk};
        if (!id || strlen(id) >= sizeof(shown->id)) {
            return hypura_fail(error, HYPURA_ERR_BACKEND, "llama.cpp gives a picture no name");
        }
        memcpy(shown->id, id, strlen(id) + 1);
        for (uint32_t t = 0; t < shown->n_tokens; t++) {
            prompt->tokens[prompt->n++] = LLAMA_TOKEN_NULL;
        }
    }
    return prompt->n > 0 && prompt->tokens[prompt->n - 1] != LLAMA_TOKEN_NULL
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_USAGE, "the prompt ends with what is shown: there is nothing to continue");
}

hypura_status hypura_media_prompt(const hypura_media *media, const char *text, const char *marker,
                                  const hypura_medium *const *shown, size_t n, hypura_prompt *prompt,
                                  hypura_error *error)
{
    mtmd_bitmap **bitmaps = calloc(n + 1, sizeof(*bitmaps));
    prompt->chunks = mtmd_input_chunks_init();
    hypura_status status = bitmaps && prompt->chunks
                               ? HYPURA_OK
                               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %zu pictures", n);
    for (size_t i = 0; i < n && status == HYPURA_OK; i++) {
        status = read_medium(media, shown[i], &bitmaps[i], error);
    }
    const int code = status == HYPURA_OK ? tokenise(media, text, marker, bitmaps, n, prompt->chunks) : 0;
    if (code == 1) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "the chat template does not take over what is shown in a message");
    } else if (code != 0) {
        status = hypura_log_fail(error, HYPURA_ERR_BACKEND, "llama.cpp cannot prepare what is shown");
    }
    for (size_t i = 0; bitmaps && i < n && bitmaps[i]; i++) {
        mtmd_bitmap_free(bitmaps[i]);
    }
    free(bitmaps);
    return status == HYPURA_OK ? take_chunks(prompt, error) : status;
}

hypura_status hypura_media_encode(hypura_media *media, const hypura_shown *shown, uint32_t n_batch, float **encoded,
                                  hypura_error *error)
{
    *encoded = NULL;
    if (shown->n_tokens > n_batch && mtmd_decode_use_non_causal(media->context, shown->chunk)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "a picture takes %u tokens, which this model has to read at once, and a ubatch holds %u: give a "
                           "larger one (--ubatch %u)", shown->n_tokens, n_batch, shown->n_tokens);
    }
    hypura_log_clear();
    if (hypura_shim_media_encode(media->context, shown->chunk) != 0) {
        return hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s: the projector cannot compute a picture of %u tokens",
                               media->path, shown->n_tokens);
    }
    *encoded = mtmd_get_output_embd(media->context);
    return HYPURA_OK;
}
