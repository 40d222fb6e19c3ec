/*
 * embed.c - Ollama's /api/embed, and the older /api/embeddings for one text, whose vector has its own length.
 *
 * Texts that are longer than the model takes are cut at their end, unless "truncate" is false: the engine refuses them
 * and says how many tokens it takes; then they are sent once more, as tokens.
 */
#include "server/dialect/ollama.h"
#include "server/endpoint/library.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/target.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
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

/* What a request wants, besides its texts. */
typedef struct wish {
    const char *model;
    bool one;       /* /api/embeddings: one vector, as the model gives it */
    bool truncate;  /* longer texts are cut */
    size_t n_taken; /* numbers of each vector; 0: all */
} wish;

/* The first numbers of a vector, of length 1 again. */
static json_t *take_dimensions(const json_t *vector, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double value = json_number_value(json_array_get(vector, i));
        sum += value * value;
    }
    json_t *taken = json_array();
    for (size_t i = 0; i < n; i++) {
        const double value = json_number_value(json_array_get(vector, i));
        json_array_append_new(taken, json_real(sum > 0 ? value / sqrt(sum) : value));
    }
    return taken;
}

static void shorten_vectors(json_t *vectors, size_t n)
{
    for (size_t i = 0; i < json_array_size(vectors); i++) {
        const json_t *vector = json_array_get(vectors, i);
        if (n > 0 && n < json_array_size(vector)) {
            json_array_set_new(vectors, i, take_dimensions(vector, n));
        }
    }
}

static void reply(http_exchange *exchange, const wish *w, json_t *vectors, const json_t *answer, uint64_t total_us,
                  uint64_t load_us)
{
    if (w->one) {
        http_reply_json(exchange, 200, json_pack("{s:O}", "embedding", json_array_get(vectors, 0)));
        json_decref(vectors);
        return;
    }
    const json_t *n_prompt = json_object_get(json_object_get(answer, "usage"), "prompt_tokens");
    shorten_vectors(vectors, w->n_taken);
    http_reply_json(exchange, 200,
                    json_pack("{s:s, s:o, s:I, s:I, s:I}", "model", w->model, "embeddings", vectors, "total_duration",
                              (json_int_t)(total_us * 1000), "load_duration", (json_int_t)(load_us * 1000),
                              "prompt_eval_count", json_integer_value(n_prompt)));
}

/* ---- texts that are too long ------------------------------------------------------ */

/* The tokens that the engine takes of a text, by its refusal; 0 when that is not why it refused. */
static size_t limit_of(const json_t *answer)
{
    static const char batch[] = "(current batch size: ";
    const json_t *error = json_object_get(answer, "error");
    const json_int_t n_context = json_integer_value(json_object_get(error, "n_ctx"));
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *at = message ? strstr(message, batch) : NULL;
    if (n_context > 1) {
        return (size_t)n_context - 1;
    }
    return at ? strtoul(at + sizeof(batch) - 1, NULL, 10) : 0;
}

/* At most limit of the tokens; one that ends every text of this model, as that of the empty one, stays its end. */
static void cut(json_t *tokens, const json_t *of_nothing, size_t limit)
{
    const size_t n = json_array_size(tokens);
    json_t *last = n > 0 ? json_array_get(tokens, n - 1) : NULL;
    const size_t n_special = json_array_size(of_nothing);
    const bool ends = n_special > 0 && json_equal(json_array_get(of_nothing, n_special - 1), last);
    if (n <= limit) {
        return;
    }
    if (ends) {
        json_array_set(tokens, limit - 1, last);
    }
    while (json_array_size(tokens) > limit) {
        json_array_remove(tokens, json_array_size(tokens) - 1);
    }
}

/* The texts as tokens, none longer than limit; NULL when the engine does not tell them. */
static json_t *cut_input(http_exchange *exchange, server_target *target, const json_t *input, size_t limit)
{
    const size_t n = json_is_array(input) ? json_array_size(input) : 1;
    json_t *nothing = json_string("");
    json_t *of_nothing = target_tokens(exchange, target, nothing);
    json_t *all = json_array();
    for (size_t i = 0; i < n && all; i++) {
        json_t *tokens = target_tokens(exchange, target, json_is_array(input) ? json_array_get(input, i) : input);
        if (tokens) {
            cut(tokens, of_nothing, limit);
            json_array_append_new(all, tokens);
        } else {
            json_decref(all);
            all = NULL;
        }
    }
    json_decref(nothing);
    json_decref(of_nothing);
    return all;
}

/* ---- requests ----------------------------------------------------------------------- */

static hypura_status ask(http_exchange *exchange, server_target *target, const wish *w, json_t *input, int *code,
                         json_t **answer, hypura_error *error)
{
    json_t *body = json_pack("{s:O}", "input", input);
    if (w->one) {
        json_object_set_new(body, "embd_normalize", json_integer(-1));
    }
    const hypura_status status = target_json(exchange, target, "/v1/embeddings", body, code, answer, error);
    json_decref(body);
    return status;
}

/* What is too long is refused as a whole: no part of it was computed. */
static void embed(http_exchange *exchange, const wish *w, json_t *input, server_target *target, uint64_t begin_us)
{
    hypura_error error = {0};
    int code = 0;
    json_t *answer = NULL;
    hypura_status status = ask(exchange, target, w, input, &code, &answer, &error);
    const size_t limit = status == HYPURA_OK && code != 200 ? limit_of(answer) : 0;
    json_t *shorter = limit > 0 && w->truncate ? cut_input(exchange, target, input, limit) : NULL;
    if (shorter) {
        json_decref(answer);
        answer = NULL;
        status = ask(exchange, target, w, shorter, &code, &answer, &error);
        json_decref(shorter);
    }
    if (status != HYPURA_OK) {
        http_fail_error(exchange, &error);
    } else if (code != 200) {
        const char *message = json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
        http_fail(exchange, limit > 0 || code == 501 ? 400 : code, "%s",
                  message ? message : "the engine refused the request");
    } else {
        json_t *vectors = take_vectors(answer);
        if (vectors) {
            reply(exchange, w, vectors, answer, hypura_clock_us() - begin_us, target->lease.load_us);
        } else {
            http_fail(exchange, 502, "the engine's answer has no embedding");
        }
    }
    json_decref(answer);
}

static bool is_empty(const json_t *input)
{
    return !input || (json_is_array(input) && json_array_size(input) == 0) ||
           (json_is_string(input) && json_string_length(input) == 0);
}

/* Takes the entry over. */
static void serve(http_exchange *exchange, const wish *w, json_t *input, const hypura_model_entry *entry,
                  const ollama_common *common, uint64_t begin_us)
{
    server_target target;
    fleet_settings settings = target_settings(common);
    settings.embeddings = true;
    if (!target_open(exchange, entry, &settings, &target)) {
        return;
    }
    target.keep_alive_s = common->keep_alive_s;
    if (!is_empty(input)) {
        embed(exchange, w, input, &target, begin_us);
    } else if (w->one) {
        http_reply_json(exchange, 200, json_pack("{s:[]}", "embedding"));
    } else {
        http_reply_json(exchange, 200, json_pack("{s:s, s:[]}", "model", w->model, "embeddings"));
    }
    target_close(exchange, &target);
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
    const char *model = library_need_name(exchange, body, "model", "model");
    json_t *input = json_object_get(body, one ? "prompt" : "input");
    const json_t *dimensions = json_object_get(body, "dimensions");
    const wish w = {.model = model,
                    .one = one,
                    .truncate = !json_is_false(json_object_get(body, "truncate")),
                    .n_taken = json_integer_value(dimensions) > 0 ? (size_t)json_integer_value(dimensions) : 0};
    ollama_common common;
    hypura_error error = {0};
    const hypura_model_entry *entry = NULL;
    if (!model) {
        /* answered */
    } else if (input && !is_input(input)) {
        http_fail(exchange, 400, "%s is neither a text nor an array of texts", one ? "prompt" : "input");
    } else if (dimensions && !json_is_integer(dimensions) && !json_is_null(dimensions)) {
        http_fail(exchange, 400, "dimensions is no integer");
    } else if ((entry = target_find(exchange, model)) == NULL) {
        /* answered */
    } else if (ollama_read_common(body, entry->settings, &common, &error) != HYPURA_OK) {
        hypura_model_entry_release(entry);
        http_fail_error(exchange, &error);
    } else {
        serve(exchange, &w, input, entry, &common, begin_us);
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
