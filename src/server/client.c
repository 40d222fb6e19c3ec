/*
 * client.c - asking a running server, for `hypura run --server`. A conversation is kept here and sent whole each time,
 * as OpenAI's API has it; the server finds by itself what it has computed already.
 */
#include "hypura_server.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/status.h"
#include "base/utf8.h"
#include "engine/answer/thinking.h"
#include "server/dialect/pictures.h"
#include "server/dialect/sse.h"

#include <curl/curl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hypura_client {
    CURL *curl;
    struct curl_slist *headers;
    char *url; /* without a slash at its end */
    char *model;
    json_t *messages;
    bool may_think; /* it was asked, and nothing speaks against it */
};

typedef struct answering {
    hypura_text_fn on_text;
    hypura_text_fn on_thought;
    void *user;
    hypura_progress_fn progress;
    void *progress_user;
    sse_reader events;
    hypura_result *result;
    hypura_buffer text;
    hypura_buffer thought;
    hypura_buffer refusal; /* the body, where the status is not 200 */
    CURL *curl;
    uint64_t begin_us;
    uint64_t first_us; /* when the first text came */
    bool stopped;
    bool done;
    bool no_memory;
    char error[384];
} answering;

/* ---- the answer ---------------------------------------------------------------- */

static bool take(answering *to, const json_t *text, hypura_buffer *all, hypura_text_fn tell)
{
    const size_t n = json_string_length(text);
    if (n == 0) {
        return true;
    }
    if (to->first_us == 0) {
        to->first_us = hypura_clock_us();
    }
    if (!hypura_buffer_add(all, json_string_value(text), n)) {
        to->no_memory = true;
        return false;
    }
    if (tell && !tell(to->user, json_string_value(text), n)) {
        to->stopped = true;
        return false;
    }
    return true;
}

static bool on_event(void *user, const char *data, size_t bytes)
{
    answering *to = user;
    json_t *event = json_loadb(data, bytes, JSON_ALLOW_NUL, NULL); /* the last one, [DONE], is none */
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *usage = json_object_get(event, "usage");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    const char *error = json_string_value(json_object_get(json_object_get(event, "error"), "message"));
    if (error) {
        snprintf(to->error, sizeof(to->error), "%s", error);
    }
    if (finish) {
        to->done = true;
    }
    if (usage) {
        to->result->prompt_tokens = (uint32_t)json_integer_value(json_object_get(usage, "prompt_tokens"));
        to->result->tokens = (uint32_t)json_integer_value(json_object_get(usage, "completion_tokens"));
    }
    const json_t *text = delta ? json_object_get(delta, "content") : json_object_get(choice, "text");
    const bool go_on = take(to, json_object_get(delta, "reasoning_content"), &to->thought, to->on_thought) &&
                       take(to, text, &to->text, to->on_text);
    json_decref(event);
    return go_on;
}

static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    answering *to = user;
    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    to->stopped = to->stopped || (to->progress && !to->progress(to->progress_user, "waiting for the server", 0, 0));
    return to->stopped;
}

static size_t on_data(char *data, size_t size, size_t n, void *user)
{
    answering *to = user;
    long code = 0;
    curl_easy_getinfo(to->curl, CURLINFO_RESPONSE_CODE, &code);
    const bool taken = code == 200 ? sse_feed(&to->events, data, size * n, on_event, to)
                                   : hypura_buffer_add(&to->refusal, data, size * n);
    return taken ? size * n : 0;
}

/* ---- the request ------------------------------------------------------------------ */

/* As the engine does it without a server. */
static json_t *template_arguments(const hypura_generate_options *options)
{
    const hypura_thinking thinking = hypura_thinking_of(options);
    const char *effort = hypura_thinking_effort(thinking);
    json_t *arguments = json_object();
    if (thinking != HYPURA_THINKING_AUTO) {
        json_object_set_new(arguments, "enable_thinking", json_boolean(thinking != HYPURA_THINKING_OFF));
    }
    if (effort) {
        json_object_set_new(arguments, "reasoning_effort", json_string(effort));
    }
    return arguments;
}

/* prompt: that of a request for raw text, which it takes over; NULL: the conversation. */
static json_t *make_body(const hypura_client *client, const hypura_generate_options *options, json_t *prompt)
{
    const hypura_sampling *sampling = &options->sampling;
    json_t *body =
        json_pack("{s:s, s:b, s:{s:b}, s:f, s:f, s:f, s:i, s:I}", "model", client->model, "stream", 1, "stream_options",
                  "include_usage", 1, "temperature", (double)sampling->temperature, "top_p", (double)sampling->top_p,
                  "min_p", (double)sampling->min_p, "top_k", sampling->top_k, "seed", (json_int_t)sampling->seed);
    if (options->max_tokens > 0) {
        json_object_set_new(body, "max_tokens", json_integer(options->max_tokens));
    }
    if (sampling->repeat_penalty > 0.0f) {
        json_object_set_new(body, "repeat_penalty", json_real((double)sampling->repeat_penalty));
    }
    if (fabsf(sampling->frequency_penalty) > 0.0f) {
        json_object_set_new(body, "frequency_penalty", json_real((double)sampling->frequency_penalty));
    }
    if (fabsf(sampling->presence_penalty) > 0.0f) {
        json_object_set_new(body, "presence_penalty", json_real((double)sampling->presence_penalty));
    }
    if (options->grammar) {
        json_object_set_new(body, "grammar", json_string(options->grammar));
    }
    if (options->json_schema) {
        json_object_set_new(body, "json_schema", json_loads(options->json_schema, 0, NULL));
    }
    if (options->n_stop > 0) {
        json_t *stop = json_array();
        for (int i = 0; i < options->n_stop; i++) {
            json_array_append_new(stop, json_string(options->stop[i]));
        }
        json_object_set_new(body, "stop", stop);
    }
    if (prompt) {
        json_object_set_new(body, "prompt", prompt);
    } else {
        json_object_set(body, "messages", client->messages);
        json_object_set_new(body, "chat_template_kwargs", template_arguments(options));
    }
    return body;
}

static hypura_status tell(const answering *a, const hypura_client *client, CURLcode code, hypura_error *error)
{
    long status = 0;
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
    if (a->stopped) {
        return HYPURA_OK;
    }
    if (a->no_memory) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the answer");
    }
    if (a->error[0] != '\0') {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "%s: %s", client->url, a->error);
    }
    if (code != CURLE_OK && status != 200) {
        return hypura_fail(error, HYPURA_ERR_IO, "%s: %s%s", client->url, curl_easy_strerror(code),
                           code == CURLE_COULDNT_CONNECT ? " (hypura serve starts one)" : "");
    }
    if (status != 200) {
        json_t *body = json_loadb(hypura_buffer_text(&a->refusal), a->refusal.bytes, 0, NULL);
        const json_t *refused = json_object_get(body, "error"); /* a text where Ollama's API was asked */
        const char *message = json_string_value(json_is_object(refused) ? json_object_get(refused, "message") : refused);
        const hypura_status kind = status < 500 ? HYPURA_ERR_USAGE : HYPURA_ERR_BACKEND;
        (void)hypura_fail(error, kind, "%s: %s (%ld)", client->url, message ? message : "the request was refused",
                          status);
        json_decref(body);
        return kind;
    }
    return a->done ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_BACKEND, "%s broke off its answer", client->url);
}

/* body NULL: GET. CURLE_OUT_OF_MEMORY also where there is none for the address. */
static CURLcode perform(hypura_client *client, const char *path, const char *body, curl_write_callback on_bytes, answering *a)
{
    const size_t room = strlen(client->url) + strlen(path) + 1;
    char *url = malloc(room);
    if (!url) {
        return CURLE_OUT_OF_MEMORY;
    }
    snprintf(url, room, "%s%s", client->url, path);
    curl_easy_setopt(client->curl, CURLOPT_URL, url);
    curl_easy_setopt(client->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, client->headers);
    if (body) {
        curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body);
    } else {
        curl_easy_setopt(client->curl, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(client->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(client->curl, CURLOPT_XFERINFODATA, a);
    curl_easy_setopt(client->curl, CURLOPT_NOPROGRESS, 0L);
    a->curl = client->curl;
    a->begin_us = hypura_clock_us();
    const CURLcode code = curl_easy_perform(client->curl);
    free(url);
    return code;
}

static hypura_status run(hypura_client *client, const char *path, const char *body, answering *a, hypura_error *error)
{
    const CURLcode code = perform(client, path, body, on_data, a);
    return tell(a, client, code, error);
}

static size_t on_description(char *data, size_t size, size_t n, void *user)
{
    answering *to = user;
    return hypura_buffer_add(&to->refusal, data, size * n) ? size * n : 0;
}

hypura_status hypura_client_request(hypura_client *client, const char *path, const char *body, char **answer,
                                    hypura_error *error)
{
    answering a = {.done = false};
    *answer = NULL;
    hypura_error_clear(error);
    const CURLcode code = perform(client, path, body, on_description, &a);
    a.done = code == CURLE_OK;
    hypura_status status = tell(&a, client, code, error);
    if (status == HYPURA_OK && !hypura_buffer_add(&a.refusal, NULL, 0)) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the answer");
    }
    if (status == HYPURA_OK) {
        *answer = a.refusal.data;
    } else {
        hypura_buffer_clear(&a.refusal);
    }
    return status;
}

/* Its server would leave the wish out without a word. One that does not tell what the model can is asked all the same. */
static hypura_status check_thinking(hypura_client *client, const hypura_generate_options *options, hypura_error *error)
{
    if (options->raw || client->may_think || options->thinking == HYPURA_THINKING_AUTO ||
        options->thinking == HYPURA_THINKING_OFF) {
        return HYPURA_OK;
    }
    if (options->grammar || options->json_schema) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "what has a grammar or a schema has no thoughts before it");
    }
    answering a = {.progress = options->progress, .progress_user = options->progress_user};
    json_t *body = json_pack("{s:s}", "model", client->model);
    char *text = json_dumps(body, JSON_COMPACT);
    json_t *shown = NULL;
    if (text && perform(client, "/api/show", text, on_description, &a) == CURLE_OK) {
        shown = json_loadb(hypura_buffer_text(&a.refusal), a.refusal.bytes, 0, NULL);
    }
    const json_t *capabilities = json_object_get(shown, "capabilities");
    bool may = !json_is_array(capabilities);
    size_t i;
    const json_t *capability;
    json_array_foreach(capabilities, i, capability)
    {
        may = may || (json_is_string(capability) && strcmp(json_string_value(capability), "thinking") == 0);
    }
    client->may_think = may;
    hypura_buffer_clear(&a.refusal);
    json_decref(shown);
    json_decref(body);
    free(text);
    return may ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "the chat template of %s knows no thoughts: leave --think out (/set nothink)",
                             client->model);
}

/* NULL is. */
static bool is_utf8(const char *text)
{
    int n = 1;
    for (size_t left = text ? strlen(text) : 0; left > 0 && n > 0; text += n, left -= (size_t)n) {
        n = hypura_utf8_character(text, left);
        n = n > 0 ? n : 0;
    }
    return n > 0;
}

static hypura_status check(const hypura_generate_options *options, hypura_error *error)
{
    json_error_t reason;
    json_t *schema = options->json_schema ? json_loads(options->json_schema, 0, &reason) : json_null();
    hypura_status status = HYPURA_OK;
    if (!schema) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the JSON schema cannot be used: %s", reason.text);
    }
    json_decref(schema);
    if (!is_utf8(options->system) || !is_utf8(options->grammar)) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the %s is no UTF-8",
                             is_utf8(options->system) ? "grammar" : "system text");
    }
    for (int i = 0; i < options->n_stop; i++) {
        if (!is_utf8(options->stop[i])) {
            status = hypura_fail(error, HYPURA_ERR_USAGE, "a text that ends the answer is no UTF-8");
        }
    }
    for (int i = 0; i < options->n_history && !options->raw; i++) {
        const hypura_message *said = &options->history[i];
        if (!is_utf8(said->role) || !is_utf8(said->text) || !is_utf8(said->thought)) {
            status = hypura_fail(error, HYPURA_ERR_USAGE, "message %d of what was said before is no UTF-8", i + 1);
        }
    }
    return status;
}

/* Takes content over. thought: NULL or "", there is none. */
static bool add_message(hypura_client *client, const char *role, json_t *content, const char *thought)
{
    json_t *message = json_pack("{s:s, s:o}", "role", role, "content", content);
    if (message && thought && thought[0] != '\0') {
        json_object_set_new(message, "reasoning_content", json_string(thought));
    }
    return message && json_array_append_new(client->messages, message) == 0;
}

static json_t *shown_part(const hypura_medium *medium)
{
    const unsigned char *data = medium->data;
    const bool wav = medium->bytes >= 12 && memcmp(data + 8, "WAVE", 4) == 0;
    const bool jpeg = medium->bytes >= 2 && data[0] == 0xff && data[1] == 0xd8;
    const bool mp3 = medium->bytes >= 3 && (memcmp(data, "ID3", 3) == 0 || (!jpeg && data[0] == 0xff && data[1] >= 0xe0));
    char *base64 = pictures_base64(data, medium->bytes);
    json_t *part = NULL;
    if (base64 && (wav || mp3)) {
        part = json_pack("{s:s, s:{s:s, s:s}}", "type", "input_audio", "input_audio", "data", base64, "format", wav ? "wav" : "mp3");
    } else if (base64) {
        part = json_pack("{s:s, s:{s:o}}", "type", "image_url", "image_url", "url", pictures_address(base64));
    }
    free(base64);
    return part;
}

/* What a message says, and shows before; takes text over. NULL: memory is short. */
static json_t *content_of(json_t *text, const hypura_medium *media, int n_media)
{
    if (n_media == 0) {
        return text;
    }
    json_t *parts = json_array();
    bool added = true;
    for (int i = 0; i < n_media && added; i++) {
        added = json_array_append_new(parts, shown_part(&media[i])) == 0;
    }
    if (json_array_append_new(parts, json_pack("{s:s, s:o}", "type", "text", "text", text)) != 0 || !added) {
        json_decref(parts);
        return NULL;
    }
    return parts;
}

/* What comes before the first prompt. */
static bool begin(hypura_client *client, const hypura_generate_options *options)
{
    bool added = true;
    for (int i = 0; i < options->n_history && added; i++) {
        const hypura_message *said = &options->history[i];
        added = add_message(client, said->role, content_of(json_string(said->text), said->media, said->n_media), said->thought);
    }
    return added && (options->n_history > 0 || !options->system ||
                     add_message(client, "system", json_string(options->system), NULL));
}

static void drop_messages(hypura_client *client, size_t n_left)
{
    while (json_array_size(client->messages) > n_left) {
        json_array_remove(client->messages, json_array_size(client->messages) - 1);
    }
}

void hypura_client_reset(hypura_client *client)
{
    json_array_clear(client->messages);
}

hypura_status hypura_client_generate(hypura_client *client, const hypura_generate_options *options,
                                     hypura_result *result, hypura_error *error)
{
    answering a = {.on_text = options->on_text,
                   .on_thought = options->on_thought,
                   .user = options->on_text_user,
                   .progress = options->progress,
                   .progress_user = options->progress_user,
                   .result = result};
    memset(result, 0, sizeof(*result));
    hypura_error_clear(error);
    hypura_status checked = check(options, error);
    checked = checked == HYPURA_OK ? check_thinking(client, options, error) : checked;
    const size_t n_before = json_array_size(client->messages);
    json_t *prompt = json_string(options->prompt);
    if (checked != HYPURA_OK || !prompt) {
        json_decref(prompt);
        return checked != HYPURA_OK ? checked : hypura_fail(error, HYPURA_ERR_USAGE, "the prompt is no UTF-8");
    }
    if (!options->raw) {
        const bool added = (n_before > 0 || begin(client, options)) &&
                           add_message(client, "user", content_of(prompt, options->media, options->n_media), NULL);
        if (!added) {
            drop_messages(client, n_before);
            return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for another message");
        }
    }
    json_t *body = make_body(client, options, options->raw ? prompt : NULL);
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    hypura_status status = text
                               ? run(client, options->raw ? "/v1/completions" : "/v1/chat/completions", text, &a, error)
                               : hypura_fail(error, HYPURA_ERR_USAGE, "the name of the model is no UTF-8");
    free(text);
    sse_clear(&a.events);
    hypura_buffer_clear(&a.refusal);
    const uint64_t end_us = hypura_clock_us();
    const uint64_t first_us = a.first_us ? a.first_us : end_us;
    result->prompt_s = (double)(first_us - a.begin_us) / 1e6;
    result->decode_s = (double)(end_us - first_us) / 1e6;
    result->stopped_by_user = a.stopped;
    if (status == HYPURA_OK && !hypura_buffer_add(&a.text, NULL, 0)) { /* an answer without text is text, too */
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the answer");
    }
    result->text = a.text.data;
    result->thought = a.thought.data;
    const bool answered = status == HYPURA_OK && (!a.stopped || a.text.bytes > 0 || a.thought.bytes > 0);
    if (!options->raw && !(answered && add_message(client, "assistant", json_string(result->text), result->thought))) {
        drop_messages(client, n_before);
    }
    return status;
}

/* ---- opening and closing ------------------------------------------------------------- */

/* Whether the text ended so: it does no more. */
static bool cut_end(char *text, const char *end)
{
    const size_t bytes = strlen(end);
    bool cut = false;
    for (size_t n = strlen(text); n >= bytes && strcmp(text + n - bytes, end) == 0; n -= bytes) {
        text[n - bytes] = '\0';
        cut = true;
    }
    return cut;
}

hypura_status hypura_client_open(const char *url, const char *api_key, const char *model, hypura_client **opened,
                                 hypura_error *error)
{
    hypura_client *client = calloc(1, sizeof(*client));
    *opened = NULL;
    hypura_error_clear(error);
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) {
        free(client);
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is no address of a server: write http://127.0.0.1:8080", url);
    }
    char key[1024];
    const int length = snprintf(key, sizeof key, "Authorization: Bearer %s", api_key ? api_key : "");
    if (length < 0 || (size_t)length >= sizeof key) {
        free(client);
        return hypura_fail(error, HYPURA_ERR_USAGE, "a key of %zu bytes is too long", strlen(api_key));
    }
    if (client) {
        client->curl = curl_easy_init();
        client->url = strdup(url);
        client->model = strdup(model);
        client->messages = json_array();
        client->headers = curl_slist_append(NULL, "Content-Type: application/json");
        if (api_key) {
            client->headers = curl_slist_append(client->headers, key);
        }
    }
    if (!client || !client->curl || !client->url || !client->model || !client->messages || !client->headers) {
        hypura_client_close(client);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a client");
    }
    cut_end(client->url, "/");
    if (cut_end(client->url, "/v1")) { /* as clients of OpenAI write it */
        cut_end(client->url, "/");
    }
    *opened = client;
    return HYPURA_OK;
}

void hypura_client_close(hypura_client *client)
{
    if (client) {
        curl_easy_cleanup(client->curl);
        curl_slist_free_all(client->headers);
        json_decref(client->messages);
        free(client->url);
        free(client->model);
        free(client);
    }
}
