/*
 * amend_responses.c - see amend.h: answers of OpenAI's /v1/responses.
 *
 * llama.cpp's server calls every answer completed, and does not say why it ended. It was cut where it has as many tokens
 * as it may have, or fills the context; one whose own end is exactly there counts as cut. The events that end items come
 * before the one that counts tokens: they are held until that is there.
 *
 * Which part of the tokens were thoughts is not told either: "reasoning_tokens" is their share of the text.
 */
#include "server/dialect/amend_internal.h"

#include <stdint.h>
#include <string.h>
#include <time.h>

static json_int_t count_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* ---- the answer ------------------------------------------------------------------------------ */

static json_int_t limit_of(const server_amendment *amendment)
{
    static const char *const keys[] = {"n_predict", "max_output_tokens", "max_tokens", "max_completion_tokens"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(amendment->sent, keys[i]);
        if (json_is_number(value)) {
            const double limit = json_number_value(value);
            return limit > INT32_MAX ? INT32_MAX : limit >= 0 ? (json_int_t)limit : 0;
        }
    }
    return amendment->about.n_predict;
}

static bool was_cut(const server_amendment *amendment, const json_t *usage)
{
    const json_int_t limit = limit_of(amendment);
    const json_int_t n_output = count_of(usage, "output_tokens");
    const json_int_t n_all = n_output + count_of(usage, "input_tokens");
    return (limit > 0 && n_output >= limit) || (amendment->about.n_context > 0 && n_all >= amendment->about.n_context);
}

/* Text of an item, of its parts, or of its call. */
static size_t text_of(const json_t *item)
{
    size_t bytes = json_string_length(json_object_get(item, "arguments"));
    size_t i;
    const json_t *part;
    json_array_foreach(json_object_get(item, "content"), i, part)
    {
        bytes += json_string_length(json_object_get(part, "text"));
    }
    return bytes;
}

static void add_thoughts(const json_t *output, json_t *usage)
{
    size_t all = 0;
    size_t thoughts = 0;
    size_t i;
    const json_t *item;
    json_array_foreach(output, i, item)
    {
        all += text_of(item);
        thoughts += text_is(item, "type", "reasoning") ? text_of(item) : 0;
    }
    const double share = all > 0 ? (double)thoughts / (double)all : 0;
    json_object_set_new(usage, "output_tokens_details",
                        json_pack("{s:I}", "reasoning_tokens",
                                  (json_int_t)(share * (double)count_of(usage, "output_tokens"))));
}

static void skip_in_item(const server_amendment *amendment, json_t *item)
{
    const bool is_thought = text_is(item, "type", "reasoning");
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(item, "content"), i, part)
    {
        amend_skip(is_thought ? amendment->given.thought : amendment->given.text, part, "text");
    }
}

/* What the request says, as the answer repeats it. */
static void add_echo(const server_amendment *amendment, json_t *response)
{
    static const struct {
        const char *key;
        const char *otherwise; /* JSON */
    } echoes[] = {{"instructions", "null"},  {"max_output_tokens", "null"},      {"metadata", "{}"},
                  {"reasoning", "null"},     {"parallel_tool_calls", "true"},    {"temperature", "null"},
                  {"text", "{\"format\":{\"type\":\"text\"}}"},
                  {"previous_response_id", "null"},                              {"tool_choice", "\"auto\""},
                  {"tools", "[]"},           {"top_p", "null"}};
    for (size_t i = 0; i < sizeof echoes / sizeof *echoes; i++) {
        json_t *said = json_object_get(amendment->asked, echoes[i].key);
        json_object_set_new(response, echoes[i].key,
                            said && !json_is_null(said) ? json_incref(said)
                                                        : json_loads(echoes[i].otherwise, JSON_DECODE_ANY, NULL));
    }
}

/* Of an answer that has ended. */
static bool finish(const server_amendment *amendment, json_t *response)
{
    json_t *output = json_object_get(response, "output");
    json_t *usage = json_object_get(response, "usage");
    const bool cut = was_cut(amendment, usage);
    size_t i;
    json_t *item;
    json_array_foreach(output, i, item)
    {
        skip_in_item(amendment, item);
        const bool last = i + 1 == json_array_size(output);
        json_object_set_new(item, "status", json_string(cut && last ? "incomplete" : "completed"));
    }
    json_object_set_new(response, "status", json_string(cut ? "incomplete" : "completed"));
    json_object_set_new(response, "error", json_null());
    json_object_set_new(response, "incomplete_details",
                        cut ? json_pack("{s:s}", "reason", "max_output_tokens") : json_null());
    if (cut) {
        json_object_del(response, "completed_at");
    }
    add_thoughts(output, usage);
    add_echo(amendment, response);
    return cut;
}

void amend_responses_whole(server_amendment *amendment, json_t *answer)
{
    if (json_object_get(answer, "output")) {
        (void)finish(amendment, answer);
    }
}

/* ---- its events --------------------------------------------------------------------------------- */

static void send(server_amendment *amendment, json_t *event, json_t *to)
{
    json_object_set_new(event, "sequence_number", json_integer(amendment->n_events++));
    json_array_append(to, event);
}

static void send_new(server_amendment *amendment, json_t *event, json_t *to)
{
    send(amendment, event, to);
    json_decref(event);
}

/* The place of an item among those that have begun; below 0: it has not. */
static json_int_t place_of(const server_amendment *amendment, const json_t *id)
{
    size_t i;
    const json_t *known;
    json_array_foreach(amendment->items, i, known)
    {
        if (json_equal(known, id)) {
            return (json_int_t)i;
        }
    }
    return -1;
}

static const json_t *id_of(const json_t *event)
{
    const json_t *id = json_object_get(event, "item_id");
    return id ? id : json_object_get(json_object_get(event, "item"), "id");
}

static void begin_item(server_amendment *amendment, json_t *event, json_t *to)
{
    json_object_set_new(event, "output_index", json_integer((json_int_t)json_array_size(amendment->items)));
    json_array_append(amendment->items, (json_t *)(uintptr_t)id_of(event));
    send(amendment, event, to);
}

/* The held event that ends an item; NULL: there is none. */
static const json_t *end_of(const server_amendment *amendment, const json_t *id)
{
    size_t i;
    const json_t *event;
    json_array_foreach(amendment->held, i, event)
    {
        if (json_equal(json_object_get(json_object_get(event, "item"), "id"), id)) {
            return event;
        }
    }
    return NULL;
}

/* An item whose beginning did not come. Returns its place. */
static json_int_t begin_late(server_amendment *amendment, const json_t *id, json_t *to)
{
    const json_t *ended = end_of(amendment, id);
    if (!ended) {
        return 0;
    }
    json_t *item = json_copy(json_object_get(ended, "item"));
    const bool is_call = json_object_get(item, "arguments") != NULL;
    json_object_set_new(item, "status", json_string("in_progress"));
    json_object_set_new(item, is_call ? "arguments" : "content", is_call ? json_string("") : json_array());
    json_t *event = json_pack("{s:s, s:O}", "type", "response.output_item.added", "item", item);
    begin_item(amendment, event, to);
    json_decref(event);
    const json_int_t place = place_of(amendment, id);
    if (text_is(item, "type", "message")) {
        send_new(amendment,
                 json_pack("{s:s, s:O, s:I, s:i, s:{s:s, s:s, s:[]}}", "type", "response.content_part.added", "item_id", id,
                           "output_index", place, "content_index", 0, "part", "type", "output_text", "text", "",
                           "annotations"),
                 to);
    }
    json_decref(item);
    return place;
}

/* What ends the text of a thought or the arguments of a call, before its item ends. */
static void end_inside(server_amendment *amendment, const json_t *ended, json_int_t place, json_t *to)
{
    json_t *item = json_object_get(ended, "item");
    json_t *text = json_object_get(json_array_get(json_object_get(item, "content"), 0), "text");
    if (text_is(item, "type", "function_call")) {
        send_new(amendment,
                 json_pack("{s:s, s:O, s:I, s:O, s:O}", "type", "response.function_call_arguments.done", "item_id",
                           json_object_get(item, "id"), "output_index", place, "name", json_object_get(item, "name"),
                           "arguments", json_object_get(item, "arguments")),
                 to);
    } else if (text_is(item, "type", "reasoning") && text) {
        send_new(amendment,
                 json_pack("{s:s, s:O, s:I, s:i, s:O}", "type", "response.reasoning_text.done", "item_id",
                           json_object_get(item, "id"), "output_index", place, "content_index", 0, "text", text),
                 to);
    }
}

/* The rest of a text whose end was not in its pieces. */
static void send_rest(server_amendment *amendment, const json_t *ended, json_int_t place, json_t *to)
{
    const json_t *text = json_object_get(ended, "text");
    if (json_string_length(text) > amendment->text_bytes) {
        send_new(amendment,
                 json_pack("{s:s, s:O, s:I, s:i, s:[], s:s}", "type", "response.output_text.delta", "item_id",
                           json_object_get(ended, "item_id"), "output_index", place, "content_index", 0, "logprobs",
                           "delta", json_string_value(text) + amendment->text_bytes),
                 to);
    }
}

static bool is_of_text(const json_t *event)
{
    return text_is(event, "type", "response.output_text.delta") || text_is(event, "type", "response.output_text.done");
}

static void send_of_item(server_amendment *amendment, json_t *event, json_t *to)
{
    const bool item_ends = text_is(event, "type", "response.output_item.done");
    json_t *part = json_object_get(event, "part");
    const json_int_t known = place_of(amendment, id_of(event));
    const json_int_t place = known >= 0 ? known : begin_late(amendment, id_of(event), to);
    json_object_set_new(event, "output_index", json_integer(place));
    if (is_of_text(event)) {
        json_object_set_new(event, "logprobs", json_array());
    }
    if (part && !json_object_get(part, "annotations")) {
        json_object_set_new(part, "annotations", json_array());
    }
    if (part || is_of_text(event) || text_is(event, "type", "response.reasoning_text.delta")) {
        json_object_set_new(event, "content_index", json_integer(0));
    }
    if (text_is(event, "type", "response.output_text.done")) {
        send_rest(amendment, event, place, to);
    } else if (item_ends) {
        end_inside(amendment, event, place, to);
    }
    send(amendment, event, to);
}

static void send_held(server_amendment *amendment, bool cut, json_t *to)
{
    const size_t n = json_array_size(amendment->held);
    for (size_t i = 0; i < n; i++) {
        json_t *event = json_array_get(amendment->held, i);
        json_t *item = json_object_get(event, "item");
        if (item) {
            json_object_set_new(item, "status", json_string(cut && i + 1 == n ? "incomplete" : "completed"));
        }
        send_of_item(amendment, event, to);
    }
    json_array_clear(amendment->held);
}

/* The beginning of an answer comes once, and with it what is known then. */
static void begin(server_amendment *amendment, json_t *event, json_t *to)
{
    json_t *response = json_object_get(event, "response");
    const bool is_created = text_is(event, "type", "response.created");
    if (amendment->begun && (is_created || !json_object_get(event, "prompt_progress"))) {
        return;
    }
    amendment->begun = !is_created;
    amendment->created_s = amendment->created_s ? amendment->created_s : (json_int_t)time(NULL);
    json_object_set_new(response, "created_at", json_integer(amendment->created_s));
    json_object_set_new(response, "model", json_string(amendment->about.model));
    json_object_set_new(response, "output", json_array());
    json_object_set_new(response, "error", json_null());
    json_object_set_new(response, "incomplete_details", json_null());
    add_echo(amendment, response);
    send(amendment, event, to);
}

static void end(server_amendment *amendment, json_t *event, json_t *to)
{
    json_t *response = json_object_get(event, "response");
    const bool cut = finish(amendment, response);
    json_object_set_new(response, "created_at", json_integer(amendment->created_s));
    send_held(amendment, cut, to);
    json_object_set_new(event, "type", json_string(cut ? "response.incomplete" : "response.completed"));
    send(amendment, event, to);
}

void amend_responses_event(server_amendment *amendment, json_t *event, json_t *to)
{
    const char *type = json_string_value(json_object_get(event, "type"));
    const size_t n = type ? strlen(type) : 0;
    if (json_object_get(event, "response")) {
        if (text_is(event, "type", "response.completed")) {
            end(amendment, event, to);
        } else {
            begin(amendment, event, to);
        }
    } else if (!type || !id_of(event)) { /* an error: there is no end */
        send_held(amendment, true, to);
        json_array_append(to, event);
    } else if (text_is(event, "type", "response.output_item.added")) {
        begin_item(amendment, event, to);
    } else if (n > 5 && strcmp(type + n - 5, ".done") == 0) {
        amend_skip(amendment->given.text, event, "text");
        amend_skip(amendment->given.text, json_object_get(event, "part"), "text");
        skip_in_item(amendment, json_object_get(event, "item"));
        json_array_append(amendment->held, event);
    } else {
        const bool is_thought = text_is(event, "type", "response.reasoning_text.delta");
        amend_skip_first(is_thought ? amendment->given.thought : amendment->given.text,
                         is_thought ? &amendment->thought_begun : &amendment->text_begun, 0, event, "delta");
        if (is_of_text(event)) {
            amendment->text_bytes += json_string_length(json_object_get(event, "delta"));
        }
        send_of_item(amendment, event, to);
    }
}
