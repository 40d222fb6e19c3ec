/*
 * fetch.c - see fetch.h.
 *
 * A download is a row of tries. The file's length is what is known to be right so
 * far; each try asks for the rest, and a server that sends everything again
 * (status 200) makes it begin anew. Bytes are hashed as they are written; those of
 * an earlier run are read once.
 */
#include "server/base/fetch.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/status.h"
#include "os/os.h"
#include "server/base/digest.h"

#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    CONNECT_TIMEOUT_S = 20,
    STALL_S = 30,       /* without a byte */
    MAX_IDLE_TRIES = 5, /* that bring nothing */
    HASH_BUFFER_BYTES = 1 << 20,
};

struct hypura_fetch {
    CURL *curl;
    hypura_fetch_go_on_fn go_on;
    void *user;
    char *token;
    uint64_t pause_us;
    bool (*allows)(const struct sockaddr *address); /* NULL: all */
    bool refused;                                   /* an address, in this request */
    char why[CURL_ERROR_SIZE];
};

/* What arrives: text or a file, one of the two. */
typedef struct arrival {
    hypura_fetch *fetch;
    /* text */
    hypura_buffer text;
    size_t most;
    char *next;
    /* file */
    int fd; /* -1: text */
    uint64_t done;
    uint64_t total;
    hypura_digest *digest;
    bool began;    /* the first byte of this try was seen */
    bool unwanted; /* the body is of a status that brings no file */
    bool too_much;
    bool misplaced; /* the server sent another range than was asked for */
    int write_errno;
    uint64_t range_start; /* as Content-Range says; UINT64_MAX: it does not */
} arrival;

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void init_global(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

hypura_status hypura_fetch_open(const char *token, uint64_t pause_us, hypura_fetch_go_on_fn go_on, void *user,
                                hypura_fetch **fetch, hypura_error *error)
{
    (void)pthread_once(&global_once, init_global);
    hypura_fetch *f = calloc(1, sizeof *f);
    *fetch = f;
    if (f != NULL) {
        f->curl = curl_easy_init();
        f->token = token != NULL && token[0] != '\0' ? strdup(token) : NULL;
        f->pause_us = pause_us;
        f->go_on = go_on;
        f->user = user;
    }
    if (f == NULL || f->curl == NULL || (f->token == NULL && token != NULL && token[0] != '\0')) {
        hypura_fetch_close(f);
        *fetch = NULL;
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to fetch files");
    }
    return HYPURA_OK;
}

void hypura_fetch_close(hypura_fetch *fetch)
{
    if (fetch != NULL) {
        curl_easy_cleanup(fetch->curl);
        free(fetch->token);
        free(fetch);
    }
}

void hypura_fetch_keep_to(hypura_fetch *fetch, bool (*allows)(const struct sockaddr *address))
{
    fetch->allows = allows;
}

/* ---- callbacks --------------------------------------------------------------- */

static curl_socket_t on_connect(void *user, curlsocktype purpose, struct curl_sockaddr *to)
{
    hypura_fetch *fetch = user;
    (void)purpose;
    if (!fetch->allows(&to->addr)) {
        fetch->refused = true;
        return CURL_SOCKET_BAD;
    }
    const int fd = socket(to->family, to->socktype, to->protocol);
    if (fd >= 0) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return fd >= 0 ? fd : CURL_SOCKET_BAD;
}

/* Link: <https://.../tree/main?cursor=...>; rel="next" */
static void see_link(arrival *a, const char *value, size_t n)
{
    char line[2048];
    if (n >= sizeof line) {
        return;
    }
    memcpy(line, value, n);
    line[n] = '\0';
    char *open = strchr(line, '<');
    char *close = open != NULL ? strchr(open, '>') : NULL;
    if (close != NULL && strstr(close, "rel=\"next\"") != NULL) {
        *close = '\0';
        free(a->next);
        a->next = strdup(open + 1);
    }
}

static size_t on_header(char *data, size_t size, size_t n, void *user)
{
    arrival *a = user;
    size_t bytes = size * n;
    static const char range[] = "content-range: bytes ";
    static const char link[] = "link:";
    if (bytes >= 5 && strncmp(data, "HTTP/", 5) == 0) {
        a->range_start = UINT64_MAX; /* another answer begins, as after a redirect */
    } else if (bytes > sizeof range && strncasecmp(data, range, sizeof range - 1) == 0) {
        char number[24] = "";
        size_t digits = 0;
        for (const char *at = data + sizeof range - 1;
             at < data + bytes && isdigit((unsigned char)*at) && digits < sizeof number - 1; at++) {
            number[digits++] = *at;
        }
        a->range_start = digits > 0 ? strtoull(number, NULL, 10) : UINT64_MAX;
    } else if (bytes > sizeof link && strncasecmp(data, link, sizeof link - 1) == 0) {
        see_link(a, data + sizeof link - 1, bytes - (sizeof link - 1));
    }
    return bytes;
}

static bool take_text(arrival *a, const char *data, size_t bytes)
{
    if (bytes > a->most - a->text.bytes) {
        a->too_much = true;
        return false;
    }
    return hypura_buffer_add(&a->text, data, bytes);
}

/* Sets the file back to nothing. */
static bool begin_anew(arrival *a)
{
    hypura_digest_end(a->digest, NULL);
    a->digest = hypura_digest_begin();
    a->done = 0;
    if (a->digest == NULL || ftruncate(a->fd, 0) != 0 || lseek(a->fd, 0, SEEK_SET) < 0) {
        a->write_errno = a->digest == NULL ? ENOMEM : errno;
        return false;
    }
    return true;
}

/* Looks at the status when the first byte of a body comes. */
static bool begin_body(arrival *a)
{
    long status = 0;
    (void)curl_easy_getinfo(a->fetch->curl, CURLINFO_RESPONSE_CODE, &status);
    a->began = true;
    a->unwanted = status != 200 && status != 206;
    if (status == 206) {
        a->misplaced = a->range_start != a->done;
        return !a->misplaced;
    }
    return a->unwanted || a->done == 0 || begin_anew(a);
}

static bool take_bytes(arrival *a, const char *data, size_t bytes)
{
    if (!a->began && !begin_body(a)) {
        return false;
    }
    if (a->unwanted) {
        return true;
    }
    if (bytes > a->total - a->done) {
        a->too_much = true;
        return false;
    }
    hypura_digest_add(a->digest, data, bytes);
    while (bytes > 0) {
        ssize_t n = write(a->fd, data, bytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            a->write_errno = errno;
            return false;
        }
        data += n;
        bytes -= (size_t)n;
        a->done += (uint64_t)n;
    }
    return true;
}

static size_t on_body(char *data, size_t size, size_t n, void *user)
{
    arrival *a = user;
    bool ok = a->fd < 0 ? take_text(a, data, size * n) : take_bytes(a, data, size * n);
    return ok ? size * n : 0;
}

static int on_progress(void *user, curl_off_t dl_total, curl_off_t dl_now, curl_off_t ul_total, curl_off_t ul_now)
{
    const arrival *a = user;
    (void)dl_total;
    (void)dl_now;
    (void)ul_total;
    (void)ul_now;
    const hypura_fetch *f = a->fetch;
    return f->go_on == NULL || f->go_on(f->user, a->done) ? 0 : 1;
}

/* ---- requests ---------------------------------------------------------------- */

static CURLcode perform(hypura_fetch *fetch, const char *url, struct curl_slist *headers, arrival *a)
{
    CURL *c = fetch->curl;
    curl_easy_reset(c);
    fetch->why[0] = '\0';
    fetch->refused = false;
    (void)curl_easy_setopt(c, CURLOPT_ERRORBUFFER, fetch->why);
    (void)curl_easy_setopt(c, CURLOPT_URL, url);
    /* What is asked for with certificates checked does not come without. */
    const bool secret = strncasecmp(url, "https:", 6) == 0;
#if LIBCURL_VERSION_NUM >= 0x075500
    (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, secret ? "https" : "http,https");
#else
    (void)curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    (void)curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS, (long)(secret ? CURLPROTO_HTTPS : CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    (void)curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    (void)curl_easy_setopt(c, CURLOPT_MAXREDIRS, 8L);
    (void)curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    (void)curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    (void)curl_easy_setopt(c, CURLOPT_BUFFERSIZE, 512L << 10);
    (void)curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    char agent[64];
    (void)snprintf(agent, sizeof agent, "hypura/%s", hypura_version());
    (void)curl_easy_setopt(c, CURLOPT_USERAGENT, agent);
    if (fetch->allows != NULL) {
        (void)curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_connect);
        (void)curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, fetch);
    }
    if (fetch->token != NULL) {
        (void)curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        (void)curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, fetch->token);
    }
    (void)curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(c, CURLOPT_HEADERDATA, a);
    (void)curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(c, CURLOPT_WRITEDATA, a);
    (void)curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(c, CURLOPT_XFERINFODATA, a);
    return curl_easy_perform(c);
}

/* What libcurl says of a request that went wrong on its way. */
static hypura_status fail_transfer(const hypura_fetch *fetch, const char *url, CURLcode code, hypura_error *error)
{
    if (code == CURLE_UNSUPPORTED_PROTOCOL && strncasecmp(url, "https:", 6) == 0) {
        return hypura_fail(error, HYPURA_ERR_IO, "%s: leads from https on to http, which is not followed", url);
    }
    return hypura_fail(error, HYPURA_ERR_IO, "%s: %s", url, fetch->why[0] != '\0' ? fetch->why : curl_easy_strerror(code));
}

static hypura_status fail_cancelled(hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_CANCELLED, "stopped; what was fetched is kept for the next time");
}

/* The message of a status that is no success; retrying is of no use. */
static hypura_status fail_status(const char *url, long status, hypura_error *error)
{
    switch (status) {
    case 401:
    case 403:
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%s: status %ld: there is no such repository, or it is private or gated and needs a token "
                           "(HF_TOKEN)",
                           url, status);
    case 404:
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s: status 404: there is no such model", url);
    default:
        return hypura_fail(error, HYPURA_ERR_IO, "%s: status %ld", url, status);
    }
}

hypura_status hypura_fetch_text(hypura_fetch *fetch, const char *url, const char *accept, size_t most, char **text,
                                size_t *bytes, char **next, hypura_error *error)
{
    arrival a = {.fetch = fetch, .fd = -1, .most = most};
    char line[256];
    (void)snprintf(line, sizeof line, "Accept: %s", accept);
    struct curl_slist *headers = curl_slist_append(NULL, line);
    CURLcode code = perform(fetch, url, headers, &a);
    curl_slist_free_all(headers);
    long status = 0;
    (void)curl_easy_getinfo(fetch->curl, CURLINFO_RESPONSE_CODE, &status);
    hypura_status result = HYPURA_OK;
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        result = fail_cancelled(error);
    } else if (code != CURLE_OK && fetch->refused) {
        result = hypura_fail(error, HYPURA_ERR_USAGE, "%s: is no address of the open network", url);
    } else if (a.too_much) {
        result = hypura_fail(error, HYPURA_ERR_FORMAT, "%s: answers with more than %zu bytes", url, most);
    } else if (code != CURLE_OK) {
        result = fail_transfer(fetch, url, code, error);
    } else if (status != 200) {
        result = fail_status(url, status, error);
    } else if (!hypura_buffer_add(&a.text, NULL, 0)) {
        result = hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for the answer", url);
    }
    if (result != HYPURA_OK) {
        hypura_buffer_clear(&a.text);
        free(a.next);
        return result;
    }
    *text = a.text.data;
    *bytes = a.text.bytes;
    if (next != NULL) {
        free(*next);
        *next = a.next;
    } else {
        free(a.next);
    }
    return HYPURA_OK;
}

/* Hashes what an earlier run left. */
static hypura_status hash_beginning(arrival *a, const char *path, hypura_error *error)
{
    off_t length = lseek(a->fd, 0, SEEK_END);
    char *buffer = malloc(HASH_BUFFER_BYTES);
    if (buffer == NULL || length < 0 || lseek(a->fd, 0, SEEK_SET) < 0) {
        free(buffer);
        return hypura_fail_errno(error, errno, "cannot read %s", path);
    }
    bool go_on = true;
    while (a->done < (uint64_t)length && go_on) {
        ssize_t n = read(a->fd, buffer, HASH_BUFFER_BYTES);
        if (n <= 0) {
            break;
        }
        hypura_digest_add(a->digest, buffer, (size_t)n);
        a->done += (uint64_t)n;
        go_on = a->fetch->go_on == NULL || a->fetch->go_on(a->fetch->user, a->done);
    }
    free(buffer);
    if (!go_on) {
        return fail_cancelled(error);
    }
    if ((a->done != (uint64_t)length || a->done > a->total) && !begin_anew(a)) {
        return hypura_fail_errno(error, a->write_errno, "cannot empty %s", path);
    }
    return HYPURA_OK;
}

/* Waits before another try; false when it is to stop. */
static bool pause_between(const arrival *a, uint64_t span_us)
{
    uint64_t until = hypura_clock_us() + span_us;
    while (hypura_clock_us() < until) {
        if (a->fetch->go_on != NULL && !a->fetch->go_on(a->fetch->user, a->done)) {
            return false;
        }
        (void)usleep(50000);
    }
    return true;
}

/* One try. *again tells whether another may succeed. */
static hypura_status try_once(arrival *a, const char *url, const char *path, bool *again, hypura_error *error)
{
    char line[64];
    uint64_t asked_from = a->done;
    a->began = false;
    a->unwanted = false;
    a->range_start = UINT64_MAX;
    (void)snprintf(line, sizeof line, "Range: bytes=%llu-", (unsigned long long)asked_from);
    struct curl_slist *headers = asked_from > 0 ? curl_slist_append(NULL, line) : NULL;
    CURLcode code = perform(a->fetch, url, headers, a);
    curl_slist_free_all(headers);
    long status = 0;
    (void)curl_easy_getinfo(a->fetch->curl, CURLINFO_RESPONSE_CODE, &status);
    *again = false;
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        return fail_cancelled(error);
    }
    if (a->write_errno != 0) {
        return hypura_os_fail_write(a->write_errno, path, a->total, error);
    }
    if (a->too_much) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: sends more than the %llu bytes that the file has", url,
                           (unsigned long long)a->total);
    }
    if (a->misplaced || status == 416) {
        a->misplaced = false;
        *again = begin_anew(a);
        return hypura_fail(error, HYPURA_ERR_IO, "%s: does not send the part that was asked for", url);
    }
    if (code != CURLE_OK) {
        *again = code != CURLE_UNSUPPORTED_PROTOCOL;
        return fail_transfer(a->fetch, url, code, error);
    }
    if (status != 200 && status != 206) {
        *again = status >= 500 || status == 429 || status == 408;
        return fail_status(url, status, error);
    }
    *again = a->done < a->total;
    return *again ? hypura_fail(error, HYPURA_ERR_IO, "%s: ends after %llu of %llu bytes", url,
                                (unsigned long long)a->done, (unsigned long long)a->total)
                  : HYPURA_OK;
}

static hypura_status try_often(arrival *a, const char *url, const char *path, hypura_error *error)
{
    uint64_t pause_us = a->fetch->pause_us;
    int n_idle = 0;
    hypura_status status = HYPURA_OK;
    while (a->done < a->total) {
        uint64_t before = a->done;
        bool again = false;
        status = try_once(a, url, path, &again, error);
        if (status == HYPURA_OK || !again) {
            return status;
        }
        bool idle = a->done <= before;
        n_idle = idle ? n_idle + 1 : 0;
        pause_us = idle ? pause_us * 2 : a->fetch->pause_us;
        if (n_idle >= MAX_IDLE_TRIES) {
            hypura_fail_prefix(error, "given up after %d tries; what came is kept for the next time", n_idle);
            return status;
        }
        if (!pause_between(a, pause_us)) {
            return fail_cancelled(error);
        }
    }
    return HYPURA_OK;
}

hypura_status hypura_fetch_file(hypura_fetch *fetch, const char *url, uint64_t bytes, const char *sha256, int fd,
                                const char *path, hypura_error *error)
{
    char hex[HYPURA_DIGEST_BYTES] = "";
    arrival a = {.fetch = fetch, .fd = fd, .total = bytes, .digest = hypura_digest_begin()};
    if (a.digest == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to fetch files");
    }
    hypura_status status = hash_beginning(&a, path, error);
    status = status == HYPURA_OK ? try_often(&a, url, path, error) : status;
    hypura_digest_end(a.digest, hex);
    if (status == HYPURA_OK && strcmp(hex, sha256) != 0) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT,
                             "digest mismatch, file must be downloaded again: %s should be sha256:%s, but is sha256:%s",
                             url, sha256, hex);
    }
    if (status == HYPURA_OK && fsync(fd) != 0) {
        status = hypura_os_fail_write(errno, path, bytes, error);
    }
    if (status == HYPURA_ERR_FORMAT) {
        (void)!ftruncate(fd, 0);
    }
    return status;
}

char *hypura_fetch_escape(const char *path)
{
    char *text = malloc(3 * strlen(path) + 1);
    char *out = text;
    for (; text != NULL && *path != '\0'; path++) {
        if (isalnum((unsigned char)*path) || strchr("-._~/", *path) != NULL) {
            *out++ = *path;
        } else {
            out += sprintf(out, "%%%02X", (unsigned)(unsigned char)*path);
        }
    }
    if (text != NULL) {
        *out = '\0';
    }
    return text;
}
