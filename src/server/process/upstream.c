/*
 * upstream.c - see upstream.h. One libcurl handle for each thread.
 */
#include "server/process/upstream.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/status.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEALTH_US (UINT64_C(2000) * 1000) /* an engine that has not said in that time how it is hangs */

static pthread_key_t handle_key;

static void close_handle(void *handle)
{
    curl_easy_cleanup(handle);
}

hypura_status upstream_begin(hypura_error *error)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "libcurl cannot be started");
    }
    pthread_key_create(&handle_key, close_handle);
    return HYPURA_OK;
}

void upstream_end(void)
{
    CURL *own = pthread_getspecific(handle_key);
    if (own) {
        pthread_setspecific(handle_key, NULL);
        curl_easy_cleanup(own);
    }
    pthread_key_delete(handle_key);
    curl_global_cleanup();
}

static CURL *take_handle(void)
{
    CURL *handle = pthread_getspecific(handle_key);
    if (handle) {
        curl_easy_reset(handle); /* connections stay */
    } else {
        handle = curl_easy_init();
        if (handle) {
            pthread_setspecific(handle_key, handle);
        }
    }
    return handle;
}

typedef struct progress {
    const upstream_call *call;
    CURL *handle;
    bool head_given;
    bool broken_off;
} progress;

static bool give_head(progress *p)
{
    if (!p->head_given) {
        long code = 0;
        const char *type = NULL;
        curl_easy_getinfo(p->handle, CURLINFO_RESPONSE_CODE, &code);
        curl_easy_getinfo(p->handle, CURLINFO_CONTENT_TYPE, &type);
        p->head_given = true;
        p->broken_off = !p->call->on_head(p->call->user, (int)code, type ? type : "application/octet-stream");
    }
    return !p->broken_off;
}

static size_t on_data(char *data, size_t size, size_t n, void *user)
{
    progress *p = user;
    if (give_head(p) && !p->call->on_data(p->call->user, data, size * n)) {
        p->broken_off = true;
    }
    return p->broken_off ? 0 : size * n;
}

static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    progress *p = user;
    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    p->broken_off = p->broken_off || (p->call->gone && p->call->gone(p->call->user));
    return p->broken_off;
}

hypura_status upstream_run(const upstream_call *call, hypura_error *error)
{
    CURL *handle = take_handle();
    if (!handle) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a request to an engine");
    }
    static const char base[] = "http://engine";
    char type[192];
    const size_t room = sizeof(base) + strlen(call->path);
    char *url = malloc(room);
    progress state = {.call = call, .handle = handle};
    if (!url) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a request to an engine");
    }
    snprintf(url, room, "%s%s", base, call->path);
    snprintf(type, sizeof type, "Content-Type: %s", call->content_type ? call->content_type : "application/json");
    struct curl_slist *headers = curl_slist_append(NULL, type);
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(handle, CURLOPT_URL, url);
    curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, call->socket);
    curl_easy_setopt(handle, CURLOPT_PROXY, "");
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http");
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_MAXCONNECTS, 1L); /* or those to engines that have ended would be kept beside it */
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &state);
    curl_easy_setopt(handle, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(handle, CURLOPT_XFERINFODATA, &state);
    curl_easy_setopt(handle, CURLOPT_NOPROGRESS, 0L);
    if (strcmp(call->method, "POST") == 0) {
        curl_easy_setopt(handle, CURLOPT_POST, 1L);
        curl_easy_setopt(handle, CURLOPT_POSTFIELDS, call->body ? call->body : "");
        curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes);
    }
    const CURLcode code = curl_easy_perform(handle);
    curl_slist_free_all(headers);
    free(url);
    if (code == CURLE_OK && give_head(&state)) {
        return HYPURA_OK;
    }
    if (state.broken_off) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "the client has gone away");
    }
    if (!state.head_given) {
        return hypura_fail(error, HYPURA_ERR_IO, "the model's engine does not answer: %s", curl_easy_strerror(code));
    }
    return hypura_fail(error, HYPURA_ERR_BACKEND, "the model's engine broke off: %s", curl_easy_strerror(code));
}

/* ---- JSON ------------------------------------------------------------------------ */

typedef struct whole {
    int code;
    hypura_buffer body;
    bool (*gone)(void *user);
    void *user;
} whole;

static bool keep_head(void *user, int code, const char *content_type)
{
    (void)content_type;
    ((whole *)user)->code = code;
    return true;
}

static bool keep_data(void *user, const char *data, size_t bytes)
{
    return hypura_buffer_add(&((whole *)user)->body, data, bytes);
}

static bool ask_gone(void *user)
{
    whole *to = user;
    return to->gone && to->gone(to->user);
}

hypura_status upstream_json(const char *socket, const char *method, const char *path, const json_t *body,
                            bool (*gone)(void *user), void *user, int *code, json_t **answer, hypura_error *error)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    whole kept = {.gone = gone, .user = user};
    *answer = NULL;
    *code = 0;
    if (body && !text) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a request to an engine");
    }
    const upstream_call call = {.socket = socket,
                                .method = method,
                                .path = path,
                                .body = text,
                                .body_bytes = text ? strlen(text) : 0,
                                .on_head = keep_head,
                                .on_data = keep_data,
                                .gone = ask_gone,
                                .user = &kept};
    const hypura_status status = upstream_run(&call, error);
    if (status == HYPURA_OK) {
        *code = kept.code;
        *answer = json_loadb(hypura_buffer_text(&kept.body), kept.body.bytes, JSON_DECODE_ANY, NULL);
    }
    hypura_buffer_clear(&kept.body);
    free(text);
    return status;
}

bool upstream_is_late(void *end_us)
{
    return hypura_clock_us() > *(const uint64_t *)end_us;
}

bool upstream_healthy(const char *socket)
{
    int code = 0;
    json_t *answer = NULL;
    uint64_t end_us = hypura_clock_us() + HEALTH_US;
    const hypura_status status =
        upstream_json(socket, "GET", "/health", NULL, upstream_is_late, &end_us, &code, &answer, NULL);
    json_decref(answer);
    return status == HYPURA_OK && code == 200;
}
