/*
 * pull_fixture.h - a hub and a registry on loopback (fake_hub.py) for each test, and what is asked of them.
 */
#ifndef HYPURA_TESTS_PULL_FIXTURE_H
#define HYPURA_TESTS_PULL_FIXTURE_H

#include "store_fixture.h"

#include "server/models/pull.h"
#include "server/models/store_internal.h"

#include <signal.h>
#include <sys/wait.h>

#ifndef FAKE_HUB
#error "the build says where fake_hub.py is"
#endif

static pid_t hub_pid;
static int hub_input;
static char hub_url[64];
static hypura_models *models;

static inline int pull_make(void **state)
{
    int in[2];
    int out[2];
    if (fixture_make(state) != 0 || pipe(in) != 0 || pipe(out) != 0) {
        return -1;
    }
    assert_int_equal(mkdir(fixture_path("hub"), 0755), 0);
    hub_pid = fork();
    if (hub_pid == 0) {
        (void)dup2(in[0], 0);
        (void)dup2(out[1], 1);
        (void)close(in[1]);
        execlp("python3", "python3", FAKE_HUB, fixture_path("hub"), (char *)NULL);
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    hub_input = in[1];
    FILE *from = fdopen(out[0], "r");
    int port = 0;
    assert_int_equal(fscanf(from, "%d", &port), 1);
    (void)fclose(from);
    snprintf(hub_url, sizeof hub_url, "http://127.0.0.1:%d", port);
    models = fixture_open();
    return 0;
}

static inline int pull_remove(void **state)
{
    hypura_models_close(models);
    (void)close(hub_input);
    (void)kill(hub_pid, SIGKILL);
    (void)waitpid(hub_pid, NULL, 0);
    return fixture_remove(state);
}

#define PULLS(test) cmocka_unit_test_setup_teardown(test, pull_make, pull_remove)

/* What was reported; stops when `completed` of the file under way reaches stop_at. */
typedef struct reports {
    char statuses[2048]; /* each once, in order, "|" behind it */
    uint64_t completed;
    uint64_t total;
    uint64_t stop_at;
    int n_files;
} reports;

static inline bool on_step(void *user, const hypura_pull_step *step)
{
    reports *r = user;
    char again[128];
    snprintf(again, sizeof again, "%s|", step->status);
    if (strstr(r->statuses, again) == NULL) {
        strncat(r->statuses, again, sizeof r->statuses - strlen(r->statuses) - 1);
        r->n_files += step->digest != NULL;
        r->completed = 0;
    }
    if (step->digest != NULL) {
        assert_int_equal(strncmp(step->digest, "sha256:", 7), 0);
        assert_int_equal(strncmp(step->status, "pulling ", 8), 0);
        assert_int_equal(strncmp(step->status + 8, step->digest + 7, 12), 0);
        assert_true(step->completed_bytes <= step->total_bytes);
        r->completed = step->completed_bytes;
        r->total = step->total_bytes;
    }
    return r->stop_at == 0 || r->completed < r->stop_at;
}

static inline hypura_status pull_as(const char *name, const char *token, reports *r, hypura_error *error)
{
    reports own = {.statuses = ""};
    hypura_pull_options options = {.name = name,
                                   .hub_url = hub_url,
                                   .hub_token = token,
                                   .registry_url = hub_url,
                                   .pause_us = 1000,
                                   .report = on_step,
                                   .user = r != NULL ? r : &own};
    return hypura_models_pull(models, &options, error);
}

static inline void check_pull(const char *name, reports *r)
{
    hypura_error error = {0};
    if (pull_as(name, NULL, r, &error) != HYPURA_OK) {
        fail_msg("%s: %s", name, error.message);
    }
}

static inline void check_failure(const char *name, hypura_status expected, const char *part)
{
    hypura_error error = {0};
    assert_int_equal(pull_as(name, NULL, NULL, &error), expected);
    if (strstr(error.message, part) == NULL) {
        fail_msg("'%s' does not say '%s'", error.message, part);
    }
}

static inline int n_requests(const char *part)
{
    size_t bytes;
    char *log = hypura_store_read_text(fixture_path("hub/log"), 1 << 20, &bytes);
    int n = 0;
    for (char *at = log; at != NULL && (at = strstr(at, part)) != NULL; at++) {
        n++;
    }
    free(log);
    return n;
}

static inline void check_same(const char *a, const char *b)
{
    size_t n;
    size_t m;
    char *left = hypura_store_read_text(fixture_path(a), 64 << 20, &n);
    char *right = hypura_store_read_text(fixture_path(b), 64 << 20, &m);
    assert_non_null(left);
    assert_non_null(right);
    assert_int_equal(n, m);
    assert_memory_equal(left, right, n);
    free(left);
    free(right);
}

static const fixture_gguf large = {.width = 1 << 14}; /* 1.6 MB */

#endif
