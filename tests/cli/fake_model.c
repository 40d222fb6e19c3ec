/*
 * fake_model.c - the fake library's models: how one opens is chosen by the name of
 * its file, what it answers by the prompt.
 */
#include "fake_library.h"

#include "base/status.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hypura_model {
    hypura_map map;
    hypura_plan *plan;
    const char *file;
    uint64_t file_bytes;
    hypura_speculation speculation;
    int n_turns;
};

/* As those of a model that computes alone do, or of a CPU that computes misses, and no others, unless a user says how. */
static hypura_status check_waits(const hypura_model_options *options, hypura_error *error)
{
#ifdef __linux__
    const char *looks = getenv("GOMP_SPINCOUNT");
    const bool longer = looks && strcmp(looks, "40009") == 0;
    const bool wanted = hypura_computes_alone(options) || options->gpu_misses == HYPURA_GPU_MISSES_CPU;
    if (!getenv("OMP_WAIT_POLICY") && (!looks || longer != wanted)) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "threads look %s times", looks ? looks : "any number of");
    }
#endif
    (void)options, (void)error;
    return HYPURA_OK;
}

hypura_status hypura_model_open(const hypura_model_options *options, hypura_model **model, hypura_error *error)
{
    hypura_map *map = NULL;
    hypura_plan *plan = NULL;
    hypura_status status = check_waits(options, error);
    status = status == HYPURA_OK ? hypura_map_open(options->path, &map, error) : status;
    if (status == HYPURA_OK) {
        status = hypura_estimate(options, &plan, error);
    }
    const bool endless = fake_named(options->path, "endless.gguf");
    const int n_steps = endless ? INT_MAX : fake_named(options->path, "slow.gguf") ? 24 : 0;
    for (int i = 0; status == HYPURA_OK && i < n_steps; i++) {
        fake_wait_ms(50);
        if (!options->progress(options->progress_user, "reading weights", (uint64_t)i, (uint64_t)n_steps)) {
            status = hypura_fail(error, HYPURA_ERR_CANCELLED, "interrupted");
        }
    }
    if (status == HYPURA_OK) {
        *model = calloc(1, sizeof **model);
        (*model)->map = *map;
        (*model)->plan = plan;
        (*model)->speculation = options->speculation;
        free(map); /* what it points to is the model's now */
    } else {
        hypura_plan_free(plan);
        hypura_map_close(map);
    }
    return status;
}

void hypura_model_close(hypura_model *model)
{
    if (model) {
        free((void *)(uintptr_t)model->map.files);
        free(model->plan);
    }
    free(model);
}

const hypura_map *hypura_model_map(const hypura_model *model)
{
    return &model->map;
}

const hypura_plan *hypura_model_plan(const hypura_model *model)
{
    return model->plan;
}

void hypura_model_statistics(const hypura_model *model, hypura_statistics *statistics)
{
    (void)model;
    *statistics = (hypura_statistics){.bytes_read = 8000,
                                      .bytes_needed = 10000,
                                      .bytes_hit = 2500,
                                      .n_reads = 8,
                                      .device_busy_s = 0.5,
                                      .io_engine = "uring",
                                      .direct_io = true,
                                      .peak_rss_bytes = 1000000};
}

typedef struct writer {
    const hypura_generate_options *options;
    hypura_result *result;
    size_t used;
} writer;

/* One token: told to the caller, kept in the result. */
static bool emit(writer *to, const char *piece)
{
    size_t length = strlen(piece);
    to->result->text = realloc(to->result->text, to->used + length + 1);
    memcpy(to->result->text + to->used, piece, length + 1);
    to->used += length;
    to->result->tokens++;
    return to->options->on_text(to->options->on_text_user, piece, length);
}

/* What is shown, as text. */
static bool emit_media(writer *to, const hypura_medium *media, int n)
{
    char text[512];
    bool more = true;
    for (int i = 0; i < n && more; i++) {
        snprintf(text, sizeof text, "<%s:%.*s>", media[i].name, (int)media[i].bytes, (const char *)media[i].data);
        more = emit(to, text);
    }
    return more;
}

hypura_status hypura_generate(hypura_model *model, const hypura_generate_options *options, hypura_result *result,
                              hypura_error *error)
{
    const hypura_sampling *sampling = &options->sampling;
    const char *prompt = options->prompt;
    writer to = {options, result, 0};
    char text[512];
    *result = (hypura_result){.prompt_tokens = 3, .prompt_s = 0.5, .decode_s = 2.0};
    model->n_turns++;
    if (strcmp(prompt, "too long") == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the prompt has 9999 tokens, the context 4096");
    }
    if (strcmp(prompt, "fail") == 0) {
        emit(&to, "half an ans");
        return hypura_fail(error, HYPURA_ERR_IO, "reading expert 3 of layer 1 failed");
    }
    if (strcmp(prompt, "options") == 0) {
        if (options->system || options->grammar || options->json_schema || options->chat_template) {
            snprintf(text, sizeof text, "system %s grammar %s schema %s template %s ", options->system, options->grammar,
                     options->json_schema, options->chat_template);
            emit(&to, text);
        }
        for (int i = 0; i < options->n_history; i++) {
            emit_media(&to, options->history[i].media, options->history[i].n_media);
            const char *thought = options->history[i].thought;
            snprintf(text, sizeof text, "%s: %s%s%s; ", options->history[i].role, thought ? thought : "", thought ? "-> " : "",
                     options->history[i].text);
            emit(&to, text);
        }
        if (sampling->frequency_penalty < 0.0f || sampling->presence_penalty > 0.0f) {
            snprintf(text, sizeof text, "frequency %.2f presence %.2f ", (double)sampling->frequency_penalty,
                     (double)sampling->presence_penalty);
            emit(&to, text);
        }
        for (int i = 0; i < options->n_stop; i++) {
            snprintf(text, sizeof text, "stop '%s' ", options->stop[i]);
            emit(&to, text);
        }
        const hypura_speculation *guesses = &model->speculation;
        if (guesses->draft || guesses->types) {
            snprintf(text, sizeof text, "guesses %s %s %u %.2f ", guesses->draft, guesses->types, guesses->n_max,
                     (double)guesses->p_min);
            emit(&to, text);
        }
        snprintf(text, sizeof text, "temp %.2f top_p %.2f min_p %.2f top_k %d seed %s max %u raw %d",
                 (double)sampling->temperature, (double)sampling->top_p, (double)sampling->min_p, sampling->top_k,
                 sampling->seed == 7 ? "7" : "other", options->max_tokens, options->raw);
        emit(&to, text);
    } else if (strcmp(prompt, "seed") == 0) {
        snprintf(text, sizeof text, "%u", sampling->seed);
        emit(&to, text);
    } else if (strcmp(prompt, "bytes") == 0) {
        emit(&to, "caf\xc3\xa9 \xff\xed\xa0\x80.\n");
    } else if (strcmp(prompt, "think") == 0) {
        result->thought = strdup("Hm, so.");
        (void)(options->on_thought(options->on_text_user, "Hm,", 3) && options->on_thought(options->on_text_user, " so.", 4));
        snprintf(text, sizeof text, "thinking %d", options->thinking);
        emit(&to, text);
    } else if (strcmp(prompt, "long") == 0) {
        for (uint32_t i = 0; i < options->max_tokens; i++) {
            fake_wait_ms(10);
            if (!emit(&to, "word ")) {
                result->stopped_by_user = true;
                break;
            }
        }
    } else {
        snprintf(text, sizeof text, "[%d] ", model->n_turns);
        (void)(emit(&to, text) && emit_media(&to, options->media, options->n_media) && emit(&to, prompt));
    }
    return HYPURA_OK;
}

void hypura_model_reset(hypura_model *model)
{
    model->n_turns = 0;
}

void hypura_result_clear(hypura_result *result)
{
    free(result->text);
    free(result->thought);
    *result = (hypura_result){.text = NULL};
}
