/*
 * test_target.c - calls of an engine that fail: why, and for those who do not ask why.
 */
#include "server/endpoint/target.h"

#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static hypura_status fails_with; /* a call of an engine */
static bool engine_ended;

hypura_status __wrap_upstream_json(const char *socket, const char *method, const char *path, const json_t *body,
                                   bool (*gone)(void *user), void *user, int *code, json_t **answer,
                                   hypura_error *error);
bool __wrap_engine_ends_within(server_engine *engine, uint64_t timeout_us);
void __wrap_engine_describe_end(server_engine *engine, char *text, size_t capacity);

hypura_status __wrap_upstream_json(const char *socket, const char *method, const char *path, const json_t *body,
                                   bool (*gone)(void *user), void *user, int *code, json_t **answer,
                                   hypura_error *error)
{
    (void)socket;
    (void)method;
    (void)path;
    (void)body;
    (void)gone;
    (void)user;
    *code = 200;
    *answer = NULL;
    return fails_with == HYPURA_OK ? HYPURA_OK : hypura_fail(error, fails_with, "the call failed");
}

bool __wrap_engine_ends_within(server_engine *engine, uint64_t timeout_us)
{
    (void)engine;
    (void)timeout_us;
    return engine_ended;
}

void __wrap_engine_describe_end(server_engine *engine, char *text, size_t capacity)
{
    (void)engine;
    snprintf(text, capacity, "was killed by signal 9");
}

bool __wrap_engine_refused(server_engine *engine, char *why, size_t capacity);
hypura_status __wrap_upstream_run(const upstream_call *call, hypura_error *error);

static bool engine_has_refused;

bool __wrap_engine_refused(server_engine *engine, char *why, size_t capacity)
{
    (void)engine;
    snprintf(why, capacity, "too much");
    return engine_has_refused;
}

hypura_status __wrap_upstream_run(const upstream_call *call, hypura_error *error)
{
    (void)call;
    return hypura_fail(error, HYPURA_ERR_IO, "the call failed");
}

static hypura_status call(hypura_error *error)
{
    static char member; /* not looked into */
    const hypura_model_entry entry = {.name = "a:latest"};
    server_target target = {.entry = &entry, .lease.member = (fleet_member *)(void *)&member};
    int code;
    json_t *answer;
    return target_json(NULL, &target, "/tokenize", NULL, &code, &answer, error);
}

static void an_engine_that_ended_is_why(void **state)
{
    (void)state;
    hypura_error error = {0};
    fails_with = HYPURA_OK;
    assert_int_equal(call(&error), HYPURA_OK);
    fails_with = HYPURA_ERR_BACKEND;
    engine_ended = true;
    assert_int_equal(call(&error), HYPURA_ERR_BACKEND);
    assert_string_equal(error.message, "a:latest: the model's engine was killed by signal 9");
    engine_ended = false;
    assert_int_equal(call(&error), HYPURA_ERR_BACKEND);
    assert_string_equal(error.message, "the call failed");
}

/* A client that has gone while its texts were cut is the end of its request, and of nothing else. */
static void nobody_has_to_ask_why(void **state)
{
    (void)state;
    static const hypura_status all[] = {HYPURA_OK, HYPURA_ERR_CANCELLED, HYPURA_ERR_BACKEND};
    engine_ended = false;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        fails_with = all[i];
        assert_int_equal(call(NULL), all[i]);
    }
}

/* Whose engine ended, and could not be started anew, has none to ask. */
static void a_lost_engine_is_not_asked(void **state)
{
    (void)state;
    const hypura_model_entry entry = {.name = "a:latest", .adapter_path = "/a.adapter.gguf"};
    server_target target = {.entry = &entry};
    hypura_error error = {0};
    int code;
    json_t *answer;
    fails_with = HYPURA_OK;
    assert_int_equal(target_json(NULL, &target, "/tokenize", NULL, &code, &answer, &error), HYPURA_ERR_CANCELLED);
    upstream_call call = {.path = "/completion"};
    assert_int_equal(target_run(NULL, &target, &call, NULL, &error), HYPURA_ERR_CANCELLED);
}

/* An engine that ended by what a request asked for gets it from nobody again. */
static void what_ended_an_engine_is_not_asked_again(void **state)
{
    (void)state;
    static char member; /* not looked into */
    const hypura_model_entry entry = {.name = "a:latest"};
    server_target target = {.entry = &entry, .lease.member = (fleet_member *)(void *)&member};
    upstream_call call = {.path = "/completion"};
    hypura_error error = {0};
    json_t *body = json_pack("{s:s}", "grammar", "root ::= \"a\"");
    engine_ended = engine_has_refused = true;
    assert_int_equal(target_run(NULL, &target, &call, body, &error), HYPURA_ERR_UNSUPPORTED);
    assert_string_equal(error.message, "too much");
    json_decref(body);
    engine_ended = engine_has_refused = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_that_ended_is_why),
        cmocka_unit_test(nobody_has_to_ask_why),
        cmocka_unit_test(a_lost_engine_is_not_asked),
        cmocka_unit_test(what_ended_an_engine_is_not_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
