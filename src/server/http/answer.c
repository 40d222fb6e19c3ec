/*
 * answer.c - an answer on its way from a handler to libmicrohttpd.
 *
 *     begun --> queued with libmicrohttpd --> (streamed) given piece by piece, connection set aside while there is none
 *
 * Only libmicrohttpd's thread comes here. What always holds: it has no lock of ours when it calls libmicrohttpd about
 * an answer, as libmicrohttpd holds the answer's own lock when it asks for a piece. Setting a connection aside and
 * taking it up again are allowed under ours: the lock that they take is held over none of our callbacks.
 */
#include "server/http/internal.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (32 * 1024)

/* libmicrohttpd asks for the next piece of an answer whose length is not known. */
static ssize_t give_answer(void *user, uint64_t position, char *buffer, size_t max)
{
    (void)position;
    http_exchange *exchange = user;
    ssize_t given = 0;
    pthread_mutex_lock(&exchange->lock);
    if (exchange->give_up) {
        given = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (exchange->out.bytes > 0) {
        const size_t n = exchange->out.bytes < max ? exchange->out.bytes : max;
        memcpy(buffer, exchange->out.data, n);
        hypura_buffer_drop(&exchange->out, n);
        exchange->n_sent += n;
        pthread_cond_signal(&exchange->room);
        given = (ssize_t)n;
    } else if (exchange->ended) {
        given = exchange->whole ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
    } else {
        exchange->suspended = true;
        MHD_suspend_connection(exchange->connection);
    }
    pthread_mutex_unlock(&exchange->lock);
    return given;
}

static void add_headers(const http_exchange *exchange, struct MHD_Response *response)
{
    for (size_t i = 0; i < exchange->answer_headers.n; i++) {
        MHD_add_response_header(response, exchange->answer_headers.items[i].name,
                                exchange->answer_headers.items[i].value);
    }
    if (exchange->content_type[0] != '\0') {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, exchange->content_type);
    }
    if (exchange->allowed_origin) {
        MHD_add_response_header(response, "Access-Control-Allow-Origin", exchange->allowed_origin);
        MHD_add_response_header(response, "Vary", "Origin");
    }
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (http_is_draining(exchange->daemon)) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    }
}

/* body: of an answer that is not streamed; taken over. */
static enum MHD_Result queue_answer(http_exchange *exchange, char *body, size_t bytes)
{
    struct MHD_Response *response =
        exchange->streamed
            ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE_BYTES, give_answer, exchange, NULL)
            : MHD_create_response_from_buffer(bytes, body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    add_headers(exchange, response);
    const enum MHD_Result queued = MHD_queue_response(exchange->connection, (unsigned)exchange->code, response);
    MHD_destroy_response(response);
    return queued;
}

enum MHD_Result http_answer(http_exchange *exchange)
{
    char *body = NULL;
    size_t bytes = 0;
    pthread_mutex_lock(&exchange->lock);
    const bool broken_off = exchange->give_up && !exchange->begun;
    const bool to_queue = !broken_off && exchange->begun && !exchange->queued;
    if (to_queue) {
        exchange->queued = true;
        if (!exchange->streamed) {
            body = exchange->out.data;
            bytes = exchange->n_sent = exchange->out.bytes;
            exchange->out = (hypura_buffer){0};
        }
    }
    pthread_mutex_unlock(&exchange->lock);
    if (to_queue) {
        return queue_answer(exchange, body, bytes); /* what it reads is unchanged once an answer has begun */
    }
    return broken_off ? MHD_NO : MHD_YES;
}
