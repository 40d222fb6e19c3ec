/*
 * fetch.h - the one place that talks to other servers, through libcurl: http and
 * https alone, certificates checked, redirects followed, but for those from https to http.
 *
 * A fetch serves one thread and many requests, whose connections it keeps.
 */
#ifndef HYPURA_SERVER_BASE_FETCH_H
#define HYPURA_SERVER_BASE_FETCH_H

#include "hypura.h"

#include <sys/socket.h>

typedef struct hypura_fetch hypura_fetch;

/* False: stop what is under way with HYPURA_ERR_CANCELLED. */
typedef bool (*hypura_fetch_go_on_fn)(void *user, uint64_t done_bytes);

/* token: sent as a bearer to the first server of each request, not to those that it
 * leads on to; NULL: none. pause_us: before a second try, doubled before each that
 * follows one that brought nothing. go_on is called a few times a second at least. */
hypura_status hypura_fetch_open(const char *token, uint64_t pause_us, hypura_fetch_go_on_fn go_on, void *user,
                                hypura_fetch **fetch, hypura_error *error);
void          hypura_fetch_close(hypura_fetch *fetch);
/* From here on connects to addresses alone that this allows, whatever a name or a redirect leads to. */
void          hypura_fetch_keep_to(hypura_fetch *fetch, bool (*allows)(const struct sockaddr *address));

/* Gets at most `most` bytes as text with an end, to be freed. next, if not NULL, is
 * freed and set to the address of the list's next page, or NULL. */
hypura_status hypura_fetch_text(hypura_fetch *fetch, const char *url, const char *accept, size_t most, char **text,
                                size_t *bytes, char **next, hypura_error *error);

/* Fills a file that is open for reading and writing with the `bytes` bytes at url,
 * whose hash is `sha256`. What the file already holds is taken as their beginning
 * and asked for no more. Connections that break, stall or are refused for the moment
 * are tried again as long as each try brings something, and a few times when not.
 *
 * HYPURA_ERR_FORMAT: the bytes have another hash or number; the file is empty then.
 * Any other failure leaves what came, for the next call. */
hypura_status hypura_fetch_file(hypura_fetch *fetch, const char *url, uint64_t bytes, const char *sha256, int fd,
                                const char *path, hypura_error *error);

/* The text with everything but letters, digits, "-._~/" as %XX, to be freed; NULL
 * when memory is short. */
char *hypura_fetch_escape(const char *path);

#endif
