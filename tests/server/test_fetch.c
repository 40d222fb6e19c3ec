/* Where redirects may lead: from https to https alone. A server on loopback has a certificate of its own, which every
 * request is told to trust here. */
#define CURL_DISABLE_TYPECHECK
#include "server/base/fetch.h"

#include <curl/curl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef SERVER
#error "the build says where redirecting.py and its certificate are"
#endif

CURLcode __real_curl_easy_setopt(CURL *curl, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *curl, CURLoption option, ...);

/* Numbers and pointers are passed alike. */
CURLcode __wrap_curl_easy_setopt(CURL *curl, CURLoption option, ...)
{
    va_list arguments;
    va_start(arguments, option);
    void *value = va_arg(arguments, void *);
    va_end(arguments);
    if (option == CURLOPT_URL) {
        (void)__real_curl_easy_setopt(curl, CURLOPT_CAINFO, CERTIFICATE);
    }
    return __real_curl_easy_setopt(curl, option, value);
}

static pid_t server;
static int input;
static int ports[2]; /* https, http */

static int start(void **state)
{
    (void)state;
    int in[2];
    int out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    server = fork();
    if (server == 0) {
        (void)dup2(in[0], 0);
        (void)dup2(out[1], 1);
        (void)close(in[1]);
        execlp("python3", "python3", SERVER, CERTIFICATE, (char *)NULL);
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    input = in[1];
    FILE *from = fdopen(out[0], "r");
    const int n = fscanf(from, "%d %d", &ports[0], &ports[1]);
    (void)fclose(from);
    return n == 2 ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    (void)close(input);
    (void)kill(server, SIGKILL);
    return waitpid(server, NULL, 0) == server ? 0 : -1;
}

static hypura_status get(bool secret, const char *path, hypura_error *error)
{
    hypura_fetch *fetch = NULL;
    char url[128];
    char *text = NULL;
    size_t bytes = 0;
    snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", secret ? "https" : "http", ports[secret ? 0 : 1], path);
    assert_int_equal(hypura_fetch_open(NULL, 1000, NULL, NULL, &fetch, error), HYPURA_OK);
    const hypura_status status = hypura_fetch_text(fetch, url, "*/*", 100, &text, &bytes, NULL, error);
    assert_true(status != HYPURA_OK || strcmp(text, "the text") == 0);
    free(text);
    hypura_fetch_close(fetch);
    return status;
}

static void redirects_do_not_lead_from_https_to_http(void **state)
{
    (void)state;
    static const struct {
        bool secret;
        const char *path;
        hypura_status status;
    } cases[] = {{true, "/text", HYPURA_OK},
                 {false, "/text", HYPURA_OK},
                 {false, "/to/http/text", HYPURA_OK},
                 {false, "/to/https/text", HYPURA_OK},
                 {true, "/to/https/text", HYPURA_OK},
                 {true, "/to/http/text", HYPURA_ERR_IO},
                 {true, "/to/https/to/http/text", HYPURA_ERR_IO}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_error error = {0};
        const hypura_status status = get(cases[i].secret, cases[i].path, &error);
        if (status != cases[i].status) {
            fail_msg("%s: %s", cases[i].path, error.message);
        }
        assert_true(status == HYPURA_OK || strstr(error.message, "leads from https on to http, which is not followed"));
    }
}

/* Nor is it tried again and again. */
static void nor_for_files(void **state)
{
    (void)state;
    hypura_fetch *fetch = NULL;
    hypura_error error = {0};
    char url[128];
    char path[] = "/tmp/hypura-fetch-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)unlink(path);
    snprintf(url, sizeof url, "https://127.0.0.1:%d/to/http/text", ports[0]);
    assert_int_equal(hypura_fetch_open(NULL, 60000000, NULL, NULL, &fetch, &error), HYPURA_OK);
    assert_int_equal(hypura_fetch_file(fetch, url, 8, "", fd, path, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "leads from https on to http"));
    hypura_fetch_close(fetch);
    (void)close(fd);
}

int main(void)
{
    (void)setenv("no_proxy", "127.0.0.1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redirects_do_not_lead_from_https_to_http),
        cmocka_unit_test(nor_for_files),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
