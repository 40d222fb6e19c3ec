/*
 * ollama_answer.c - see ollama.h: answers.
 */
#include "server/dialect/ollama.h"

#include "base/date.h"
#include "base/buffer.h"
#include "server/dialect/given.h"
#include "server/dialect/text.h"

#include <stdio.h>
#include <string.h>

#define NS_PER_US 1000
#define NS_PER_MS 1e6

static void set_now(json_t *line)
{
    char text[HYPURA_DATE_BYTES];
    json_object_set_new(line, "created_at", json_string(hypura_date_now(9, text)));
}

static json_t *begin_line(const char *model)
{
    json_t *line = json_object();
    json_object_set_new(line, "model", json_string(model));
    set_now(line);
    return line;
}

/* Text and what belongs to it, where this kind of answer has it. References to what is not NULL are taken over. */
static void set_text(ollama_kind kind, json_t *line, json_t *content, json_t *thinking, json_t *calls)
{
    json_t *to = line;
    if (kind == OLLAMA_CHAT) {
        to = json_pack("{s:s}", "role", "assistant");
        json_object_set_new(line, "message", to);
    }
    json_object_set_new(to, kind == OLLAMA_CHAT ? "content" : "response", content ? content : json_string(""));
    if (thinking) {
        json_object_set_new(to, "thinking", thinking);
    }
    if (calls && kind == OLLAMA_CHAT) {
        json_object_set_new(to, "tool_calls", calls);
    } else {
        json_decref(calls);
    }
}

bool ollama_answer_open(ollama_answer *answer, ollama_kind kind, const char *model, bool stream)
{
    *answer = (ollama_answer){.kind = kind,
                              .model = model,
                              .stream = stream,
                              .content = json_array(),
                              .thinking = json_array(),
                              .tools = json_array(),
                              .logprobs = json_array()};
    return answer->content && answer->thinking && answer->tools && answer->logprobs;
}

void ollama_answer_clear(ollama_answer *answer)
{
    json_decref(answer->content);
    json_decref(answer->thinking);
    json_decref(answer->tools);
    json_decref(answer->logprobs);
}

/* ---- events ------------------------------------------------------------------- */

/* Pieces of calls of tools: the name first, then its arguments, bit by bit. */
static void take_tools(ollama_answer *answer, const json_t *pieces)
{
    size_t i;
    const json_t *piece;
    json_array_foreach(pieces, i, piece)
    {
        const json_t *function = json_object_get(piece, "function");
        const size_t index = (size_t)json_integer_value(json_object_get(piece, "index"));
        const char *id = json_string_value(json_object_get(piece, "id"));
        const char *name = json_string_value(json_object_get(function, "name"));
        const char *more = json_string_value(json_object_get(function, "arguments"));
        if (index > json_array_size(answer->tools)) {
            continue; /* out of order: not from this server */
        }
        if (index == json_array_size(answer->tools)) {
            json_array_append_new(answer->tools, json_pack("{s:s, s:s, s:[]}", "id", id ? id : "", "name",
                                                           name ? name : "", "arguments"));
        }
        if (more) {
            json_array_append_new(json_object_get(json_array_get(answer->tools, index), "arguments"),
                                  json_string(more));
        }
    }
}

static void take_timings(ollama_answer *answer, const json_t *timings)
{
    if (!timings) {
        return;
    }
    answer->n_prompt = json_integer_value(json_object_get(timings, "prompt_n")) +
                       json_integer_value(json_object_get(timings, "cache_n"));
    answer->n_tokens = json_integer_value(json_object_get(timings, "predicted_n"));
    answer->prompt_ms = json_number_value(json_object_get(timings, "prompt_ms"));
    answer->decode_ms = json_number_value(json_object_get(timings, "predicted_ms"));
}

static void take_error(ollama_answer *answer, const json_t *error)
{
    const char *message = json_string_value(json_object_get(error, "message"));
    snprintf(answer->error, sizeof(answer->error), "%s", message ? message : "the engine reported a failure");
}

static json_t *join(const json_t *pieces)
{
    hypura_buffer text = {0};
    bool good = true;
    size_t i;
    const json_t *piece;
    json_array_foreach(pieces, i, piece)
    {
        good = good && hypura_buffer_add(&text, json_string_value(piece), json_string_length(piece));
    }
    json_t *joined = good ? json_stringn(hypura_buffer_text(&text), text.bytes) : NULL;
    hypura_buffer_clear(&text);
    return joined;
}

/* NULL when no tool is called. What a model wrote as arguments may be no JSON: then it is passed on as text. */
static json_t *make_calls(const json_t *tools)
{
    if (json_array_size(tools) == 0) {
        return NULL;
    }
    json_t *calls = json_array();
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool)
    {
        json_t *text = join(json_object_get(tool, "arguments"));
        json_t *arguments = json_loads(json_string_value(text) ? json_string_value(text) : "", JSON_ALLOW_NUL, NULL);
        if (!json_is_object(arguments)) {
            json_decref(arguments);
            arguments = json_object();
            if (json_string_length(text) > 0) {
                json_object_set(arguments, "text", text);
            }
        }
        json_decref(text);
        json_t *call = json_pack("{s:{s:i, s:O, s:o}}", "function", "index", (int)i, "name",
                                 json_object_get(tool, "name"), "arguments", arguments);
        json_t *id = json_object_get(tool, "id");
        if (json_string_length(id) > 0) {
            json_object_set(call, "id", id);
        }
        json_array_append_new(calls, call);
    }
    return calls;
}

/* Puts it away, or passes it on. calls: taken over; NULL: none. */
static json_t *pass_text(ollama_answer *answer, const json_t *content, const json_t *thinking, const json_t *logprobs,
                         json_t *calls)
{
    const bool has_content = json_string_length(content) > 0;
    const bool has_thinking = json_string_length(thinking) > 0;
    if (!has_content && !has_thinking && !calls) {
        return NULL;
    }
    if (has_content && (!answer->stream || answer->kind == OLLAMA_GENERATE)) {
        json_array_append(answer->content, (json_t *)(uintptr_t)content);
    }
    if (!answer->stream) {
        if (has_thinking) {
            json_array_append(answer->thinking, (json_t *)(uintptr_t)thinking);
        }
        json_array_extend(answer->logprobs, (json_t *)(uintptr_t)logprobs);
        return NULL;
    }
    json_t *line = begin_line(answer->model);
    set_text(answer->kind, line, has_content ? json_deep_copy(content) : NULL,
             has_thinking ? json_deep_copy(thinking) : NULL, calls);
    if (json_array_size(logprobs) > 0) {
        json_object_set_new(line, "logprobs", json_deep_copy(logprobs));
    }
    json_object_set_new(line, "done", json_false());
    return line;
}

/* Without what the client gave the answer to begin with (given.h). A new reference. */
static json_t *without_given(const json_t **given, const json_t *text)
{
    const json_t *begin = json_string_length(text) > 0 ? *given : NULL;
    *given = begin ? NULL : *given;
    return given_skip(begin, text);
}

/* An event of /v1/chat/completions. */
static json_t *take_chat(ollama_answer *answer, const json_t *event)
{
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    json_t *calls = NULL;
    take_tools(answer, json_object_get(delta, "tool_calls"));
    if (finish) {
        answer->done = true;
        /* Now they are whole: one line has all of them. */
        calls = answer->stream && answer->kind == OLLAMA_CHAT ? make_calls(answer->tools) : NULL;
        snprintf(answer->done_reason, sizeof(answer->done_reason), "%s",
                 strcmp(finish, "length") == 0 ? "length" : "stop");
    }
    json_t *content = without_given(&answer->given, json_object_get(delta, "content"));
    json_t *thought = without_given(&answer->given_thought, json_object_get(delta, "reasoning_content"));
    json_t *line =
        pass_text(answer, content, thought, json_object_get(json_object_get(choice, "logprobs"), "content"), calls);
    json_decref(thought);
    json_decref(content);
    return line;
}

/* An event of /completion and /infill. */
static json_t *take_completion(ollama_answer *answer, const json_t *event)
{
    if (json_is_true(json_object_get(event, "stop"))) {
        answer->done = true;
        snprintf(answer->done_reason, sizeof(answer->done_reason), "%s",
                 text_is(event, "stop_type", "limit") ? "length" : "stop");
    }
    return pass_text(answer, json_object_get(event, "content"), NULL,
                     json_object_get(event, "completion_probabilities"), NULL);
}

void ollama_answer_take(ollama_answer *answer, const char *event, size_t bytes, json_t **line)
{
    *line = NULL;
    json_t *value = json_loadb(event, bytes, JSON_ALLOW_NUL, NULL); /* the last one, [DONE], is none */
    if (!json_is_object(value)) {
        json_decref(value);
        return;
    }
    const json_t *error = json_object_get(value, "error");
    if (error) {
        take_error(answer, error);
    } else if (json_object_get(value, "choices")) {
        *line = take_chat(answer, value);
    } else {
        *line = take_completion(answer, value);
    }
    take_timings(answer, json_object_get(value, "timings"));
    json_decref(value);
}

json_t *ollama_answer_wait(const ollama_answer *answer)
{
    json_t *line = begin_line(answer->model);
    set_text(answer->kind, line, NULL, NULL, NULL);
    json_object_set_new(line, "done", json_false());
    return line;
}

/* ---- the end --------------------------------------------------------------------- */

void ollama_answer_cut(ollama_answer *answer)
{
    answer->done = true;
    snprintf(answer->done_reason, sizeof(answer->done_reason), "length");
}

json_t *ollama_answer_end(const ollama_answer *answer, uint64_t total_us, uint64_t load_us)
{
    json_t *line = begin_line(answer->model);
    const bool has_thinking = json_array_size(answer->thinking) > 0;
    set_text(answer->kind, line, answer->stream ? NULL : join(answer->content),
             has_thinking ? join(answer->thinking) : NULL, answer->stream ? NULL : make_calls(answer->tools));
    if (json_array_size(answer->logprobs) > 0) {
        json_object_set(line, "logprobs", answer->logprobs);
    }
    json_object_set_new(line, "done", json_true());
    json_object_set_new(line, "done_reason", json_string(answer->done_reason[0] ? answer->done_reason : "stop"));
    json_object_set_new(line, "total_duration", json_integer((json_int_t)(total_us * NS_PER_US)));
    json_object_set_new(line, "load_duration", json_integer((json_int_t)(load_us * NS_PER_US)));
    json_object_set_new(line, "prompt_eval_count", json_integer(answer->n_prompt));
    json_object_set_new(line, "prompt_eval_duration", json_integer((json_int_t)(answer->prompt_ms * NS_PER_MS)));
    json_object_set_new(line, "eval_count", json_integer(answer->n_tokens));
    json_object_set_new(line, "eval_duration", json_integer((json_int_t)(answer->decode_ms * NS_PER_MS)));
    return line;
}

json_t *ollama_answer_text(const ollama_answer *answer)
{
    return join(answer->content);
}

json_t *ollama_answer_nothing(ollama_kind kind, const char *model, const char *reason)
{
    json_t *line = begin_line(model);
    set_text(kind, line, NULL, NULL, NULL);
    json_object_set_new(line, "done", json_true());
    json_object_set_new(line, "done_reason", json_string(reason));
    return line;
}
