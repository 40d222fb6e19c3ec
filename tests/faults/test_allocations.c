/*
 * test_allocations.c - every allocation, mapping and thread that our code asks for
 * is refused in turn: always a clean error, nothing left behind (the sanitizers
 * watch), and the next attempt works. And decoding asks for none.
 */
#include "faults_fixture.h"
#include "refusal.h"

#include <string.h>

/* ---- each in turn ----------------------------------------------------------- */

/* Memory is named as what is missing, or the thread; what libllama asked of our
 * backend, it reports in its own words. */
static void expect_clean(const hypura_error *error, uint64_t nth)
{
    if (error->status != HYPURA_ERR_MEMORY && !strstr(error->message, "thread") && !strstr(error->message, "Hypura b")) {
        fail_msg("call %d: %s: %s", (int)nth, hypura_status_name(error->status), error->message);
    }
}

/* `least` is how many calls there have to be at least. */
static void refuse_each(refusal_attempt try, const void *what, uint64_t least)
{
    uint64_t n_calls;
    (void)refusal_each(try, what, expect_clean, &n_calls);
    assert_true(n_calls >= least);
}

static hypura_status try_map(const void *path, hypura_error *error)
{
    hypura_map *map = NULL;
    const hypura_status status = hypura_map_open(path, &map, error);
    assert_int_equal(map != NULL, status == HYPURA_OK);
    hypura_map_close(map);
    return status;
}

static void opening_a_map(void **state)
{
    (void)state;
    refuse_each(try_map, faults_model("dense-split-q8_0-00001-of-00002.gguf"), 10);
}

static hypura_status try_profile(const void *unused, hypura_error *error)
{
    (void)unused;
    hypura_profile profile;
    const hypura_profile_options options = {.cache_dir = faults_cache_dir()};
    return hypura_profile_get(&options, &profile, error);
}

static void getting_a_stored_profile(void **state)
{
    (void)state;
    hypura_error error;
    assert_int_equal(try_profile(NULL, &error), HYPURA_OK); /* measured when it is not there */
    refuse_each(try_profile, NULL, 0);
}

static hypura_status try_estimate(const void *what, hypura_error *error)
{
    const fault_case *c = what;
    hypura_plan *plan = NULL;
    const hypura_model_options options = {.path = faults_model(c->file),
                                          .weights_bytes = c->weights_bytes,
                                          .n_context = 64,
                                          .n_ubatch = 16,
                                          .n_threads = 1,
                                          .cache_dir = faults_cache_dir()};
    const hypura_status status = hypura_estimate(&options, &plan, error);
    assert_int_equal(plan != NULL, status == HYPURA_OK);
    if (plan) {
        assert_int_equal(plan->mode, c->mode);
    }
    hypura_plan_free(plan);
    return status;
}

static void estimating(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        refuse_each(try_estimate, &fault_cases[i], 20);
    }
}

typedef struct run {
    const fault_case *c;
    const char *engine;
    hypura_script script;
} run;

static hypura_status try_run(const void *what, hypura_error *error)
{
    const run *r = what;
    hypura_model *model = NULL;
    hypura_status status = faults_try_open(r->c, faults_model(r->c->file), r->engine, NULL, NULL, &model, error);
    assert_int_equal(model != NULL, status == HYPURA_OK);
    if (status == HYPURA_OK) {
        uint64_t differing = 0;
        status = hypura_script_follow(model, &r->script, &differing, error);
        assert_int_equal(differing, 0);
        (void)refusal_end();
        faults_expect_right(model, &r->script);
    }
    hypura_model_close(model);
    return status;
}

static void opening_and_decoding(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        for (int e = 0; e < 2; e++) {
            if (hypura_io_engine_available(fault_engines[e])) {
                run r = {.c = &fault_cases[i], .engine = fault_engines[e]};
                faults_script(r.c, &r.script);
                refuse_each(try_run, &r, 40);
                hypura_script_clear(&r.script);
            }
        }
    }
}

/* ---- an answer -------------------------------------------------------------- */

typedef struct question {
    hypura_model *model;
    char *text; /* the answer, once it is known */
} question;

static hypura_status try_generate(const void *what, hypura_error *error)
{
    const question *q = what;
    const hypura_generate_options options = {.prompt = "ab", .raw = true, .max_tokens = 4};
    hypura_result result;
    const hypura_status status = hypura_generate(q->model, &options, &result, error);
    if (status == HYPURA_OK && q->text) {
        assert_string_equal(result.text, q->text);
    }
    hypura_result_clear(&result);
    return status;
}

static void answering(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        question q = {.model = faults_open(&fault_cases[i], faults_model(fault_cases[i].file), NULL, NULL, NULL)};
        const hypura_generate_options options = {.prompt = "ab", .raw = true, .max_tokens = 4};
        hypura_result result;
        hypura_error error;
        assert_int_equal(hypura_generate(q.model, &options, &result, &error), HYPURA_OK);
        q.text = result.text;
        refuse_each(try_generate, &q, 2);
        hypura_result_clear(&result);
        hypura_model_close(q.model);
    }
}

/* ---- none -------------------------------------------------------------------- */

static void decoding_asks_for_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        for (int e = 0; e < 2; e++) {
            if (!hypura_io_engine_available(fault_engines[e])) {
                continue;
            }
            hypura_script script;
            faults_script(&fault_cases[i], &script);
            hypura_model *model =
                faults_open(&fault_cases[i], faults_model(fault_cases[i].file), fault_engines[e], NULL, NULL);
            faults_expect_right(model, &script);
            refusal_begin(0);
            for (int round = 0; round < 10; round++) {
                faults_expect_right(model, &script); /* a prompt of one piece, and one token */
            }
            assert_int_equal(refusal_end(), 0);
            hypura_model_close(model);
            hypura_script_clear(&script);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening_a_map), cmocka_unit_test(getting_a_stored_profile),
        cmocka_unit_test(estimating),    cmocka_unit_test(opening_and_decoding),
        cmocka_unit_test(answering),     cmocka_unit_test(decoding_asks_for_nothing),
    };
    return cmocka_run_group_tests_name("faults allocations", tests, faults_setup, faults_teardown);
}
