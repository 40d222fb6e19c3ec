/*
 * pictures_fetch.c - see pictures_fetch.h.
 */
#include "server/endpoint/pictures_fetch.h"

#include "base/host.h"
#include "base/status.h"
#include "server/base/fetch.h"
#include "server/dialect/pictures.h"

#include <stdlib.h>

#define MOST_BYTES    ((size_t)64 << 20) /* of all */
#define MOST_PICTURES 64

typedef struct fetching {
    hypura_fetch *fetch; /* NULL: none was needed yet */
    int n;
    size_t bytes; /* so far */
    bool outside;
    bool (*gone)(void *user);
    void *user;
    hypura_error *error;
} fetching;

static bool go_on(void *user, uint64_t done_bytes)
{
    const fetching *f = user;
    (void)done_bytes;
    return !f->gone(f->user);
}

/* *base64: to be freed. */
static hypura_status fetch_one(void *user, const char *address, char **base64)
{
    fetching *f = user;
    hypura_error why = {0};
    char *bytes = NULL;
    size_t n = 0;
    *base64 = NULL;
    if (f->n++ >= MOST_PICTURES) {
        return hypura_fail(f->error, HYPURA_ERR_USAGE, "more than %d pictures are named", MOST_PICTURES);
    }
    hypura_status status = f->fetch ? HYPURA_OK : hypura_fetch_open(NULL, 0, go_on, f, &f->fetch, &why);
    if (status == HYPURA_OK) {
        hypura_fetch_keep_to(f->fetch, f->outside ? hypura_host_is_outside : NULL);
        status = hypura_fetch_text(f->fetch, address, "image/*", MOST_BYTES - f->bytes, &bytes, &n, NULL, &why);
    }
    if (status == HYPURA_ERR_CANCELLED || status == HYPURA_ERR_MEMORY) {
        return hypura_fail(f->error, status, "%s", why.message);
    }
    if (status != HYPURA_OK) {
        return hypura_fail(f->error, HYPURA_ERR_USAGE, "a picture cannot be fetched: %s", why.message);
    }
    f->bytes += n;
    *base64 = pictures_base64(bytes, n);
    free(bytes);
    return *base64 ? HYPURA_OK : hypura_fail(f->error, HYPURA_ERR_MEMORY, "no memory for a picture");
}

hypura_status pictures_fetch(const json_t *body, bool outside, bool (*gone)(void *user), void *user, json_t **made,
                             hypura_error *error)
{
    fetching f = {.outside = outside, .gone = gone, .user = user, .error = error};
    const hypura_status status = pictures_replace(body, fetch_one, &f, made);
    hypura_fetch_close(f.fetch);
    return status;
}
