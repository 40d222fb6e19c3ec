/*
 * endpoint_embed.c - Ollama's /api/embed, and the older /api/embeddings for one text.
 */
#include "server/ollama.h"
#include "server/routes.h"
#include "server/server.h"
#include "server/target.h"

#include "base/clock.h"

#include <math.h>
#include <string.h>

/* The vectors of the server's answer in the order of the texts. NULL when it is not as expected. */
static json_t *take_vectors(const json_t *answer)
{
    const json_t *data = json_object_get(answer, "data");
    json_t *vectors = json_array();
    size_t i;
    const json_t *item;
    json_array_foreach(data, i, item)
    {
        json_array_append(vectors, json_object_get(item, "embedding"));
    }
    if (json_array_size(vectors) == 0) {
        json_decref(vectors);
        return NULL;
    }
    return vectors;
}

static void reply(http_exchange *exchange, const char *model, bool one, json_t *vectors, const json_t *answer,
                  uint64_t total_us, uint64_t load_us)
{
    if (one) {
        http_reply_json(exchange, 200, json_pack("{s:O}", "embedding", json_array_get(vectors, 0)));
        json_decref(vectors);
        return;
    }
    const json_t *n_prompt = json_object_get(json_object_get(answer, "usage"), "prompt_tokens");
    http_reply_json(exchange, 200,
                    json_pack("{s:s, s:o, s:I, s:I, s:I}", "model", model, "embeddings", vectors, "total_duration",
                              (json_int_t)(total_us * 1000), "load_duration", (json_int_t)(load_us * 1000),
                              "prompt_eval_count", json_integer_value(n_prompt)));
}

static void embed(http_exchange *exchange, const char *model, bool one, const json_t *input, server_target *target,
                  uint64_t begin_us)
{
    hypura_error error = {0};
    int code = 0;
    json_t *answer = NULL;
    json_t *body = json_pack("{s:O}", "input", input);
    if (target_json(exchange, target, "/v1/embeddings", body, &code, &answer, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
    } else if (code != 200) {
        const char *message = json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
        http_fail(exchange, code == 501 ? 400 : code, "%s", message ? message : "the engine refused the request");
    } else {
        json_t *vectors = take_vectors(answer);
        if (vectors) {
            reply(exchange, model, one, vectors, answer, hypura_clock_us() - begin_us, target->lease.load_us);
        } else {
            http_fail(exchange, 502, "the engine's answer has no embedding");
        }
    }
    json_decref(body);
    json_decref(answer);
}

static bool is_input(const json_t *input)
{
    size_t i;
    const json_t *text;
    json_array_foreach(input, i, text)
    {
        if (!json_is_string(text)) {
            return false;
        }
    }
    return json_is_string(input) || json_is_array(input);
}

static void handle(http_exchange *exchange, bool one)
{
    const uint64_t begin_us = hypura_clock_us();
    json_t *body = http_json(exchange);
    if (!body) {
        return;
    }
    const char *model = json_string_value(json_object_get(body, "model"));
    const json_t *input = json_object_get(body, one ? "prompt" : "input");
    ollama_common common;
    hypura_error error = {0};
    const hypura_model_entry *entry = NULL;
    server_target target;
    if (!model || model[0] == '\0') {
        http_fail(exchange, 400, "model is required");
    } else if (input && !is_input(input)) {
        http_fail(exchange, 400, "%s is neither a text nor an array of texts", one ? "prompt" : "input");
    } else if ((entry = target_find(exchange, model)) == NULL) {
        /* answered */
    } else if (ollama_read_common(body, entry->settings, &common, &error) != HYPURA_OK) {
        hypura_model_entry_release(entry);
        http_fail_error(exchange, &error);
    } else if (target_open(exchange, entry,
                           &(fleet_settings){.n_context = common.n_context,
                                             .n_batch = common.n_batch,
                                             .n_threads = common.n_threads,
                                             .embeddings = true},
                           &target)) {
        target.keep_alive_s = common.keep_alive_s;
        if (!input || (json_is_array(input) && json_array_size(input) == 0) ||
            (json_is_string(input) && json_string_length(input) == 0)) {
            http_reply_json(exchange, 200,
                            one ? json_pack("{s:[]}", "embedding")
                                : json_pack("{s:s, s:[]}", "model", model, "embeddings"));
        } else {
            embed(exchange, model, one, input, &target, begin_us);
        }
        target_close(exchange, &target);
    }
    json_decref(body);
}

void endpoint_ollama_embed(http_exchange *exchange)
{
    handle(exchange, false);
}

void endpoint_ollama_embeddings(http_exchange *exchange)
{
    handle(exchange, true);
}
