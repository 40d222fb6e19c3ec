/*
 * test_remote.c - layers held by another machine: the same bits as plain llama.cpp with the same layers there, and a server
 * that is not there, is another one, or vanishes at any time, is an error that names it.
 */
#include "../engine/engine_fixture.h"
#include "../gpu/standin.h"
#include "server_fixture.h"

#include "engine/measure/replay.h"
#include "engine/prepare/estimate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIXTURE (HYPURA_TINY "/moe-deep-q8_0.gguf") /* 12 layers of 16 experts */
#define DENSE   (HYPURA_TINY "/dense-q8_0.gguf")

static uint16_t server_port; /* the server's own, */
static uint16_t way_port;    /* and that of a way to it that can be cut */
static char     server_name[32];
static char     way_name[32];

static int setup(void **state)
{
    const int result = fixture_setup(state);
    server_port = server_free_port();
    way_port = server_free_port();
    snprintf(server_name, sizeof(server_name), "127.0.0.1:%u", server_port);
    snprintf(way_name, sizeof(way_name), "127.0.0.1:%u", way_port);
    server_start(server_port, "512M"); /* less than what is left free of a GPU */
    standin_register();
    return result;
}

static int teardown(void **state)
{
    server_kill();
    return fixture_teardown(state);
}

static hypura_model_options options_of(const char *path, const char *server, uint64_t rpc_bytes)
{
    return (hypura_model_options){.path = path,
                                  .gpu = "none",
                                  .rpc = server,
                                  .rpc_bytes = rpc_bytes,
                                  .force_paging = true,
                                  .n_context = 64,
                                  .n_ubatch = 32,
                                  .n_threads = 1,
                                  .no_repack = true,
                                  .cache_dir = fixture_cache_dir()};
}

static hypura_plan plan_of(const hypura_model_options *options)
{
    hypura_preparation prepared;
    hypura_error error;
    fixture_ok(hypura_prepare(options, NULL, true, &prepared, &error), &error);
    hypura_plan plan = *prepared.plan;
    hypura_prepare_clear(&prepared);
    plan.placements = NULL;
    plan.order = NULL;
    return plan;
}

/* With which the other machine has about half of the layers. */
static uint64_t half_of(const char *path)
{
    hypura_model_options options = options_of(path, server_name, 0);
    const hypura_plan plan = plan_of(&options);
    assert_true(plan.gpus[0].remote);
    assert_string_equal(plan.gpu, server_name);
    return plan.vram_compute_bytes + (plan.vram_bytes - plan.vram_compute_bytes) * 6 / 10;
}

/* ---- bits ---------------------------------------------------------------------------- */

static void no_bit_differs(void **state)
{
    (void)state;
    static const char *const paths[] = {MIXTURE, DENSE, HYPURA_TINY "/moe-lead-q4_0.gguf", HYPURA_TINY "/dense-tied-q8_0.gguf"};
    for (size_t i = 0; i < 2 * sizeof(paths) / sizeof(*paths); i++) {
        hypura_verify_options options = fixture_verify_options(paths[i / 2], false, false);
        options.model.gpu = "none";
        options.model.rpc = server_name;
        options.model.rpc_bytes = i % 2 ? 0 : half_of(paths[i / 2]); /* or all there */
        hypura_verify_report report = fixture_verify(options);
        assert_true(report.n_cases > 0);
        assert_non_null(strstr(report.cases[0].gpus, server_name));
        hypura_verify_report_clear(&report);
    }
}

/* A GPU here pages the experts of the layers that the other machine has no room for. */
static void no_bit_differs_behind_a_gpu(void **state)
{
    (void)state;
    hypura_verify_options options = fixture_verify_options(MIXTURE, false, false);
    options.model.gpu = STANDIN_NAME;
    options.model.rpc = server_name;
    options.model.rpc_bytes = half_of(MIXTURE);
    hypura_verify_report report = fixture_verify(options);
    assert_true(report.n_cases > 0);
    for (int i = 0; i < report.n_cases; i++) {
        const char *here = strstr(report.cases[i].gpus, STANDIN_NAME);
        assert_ptr_equal(here, report.cases[i].gpus);
        assert_non_null(strstr(here, server_name));
        assert_true(report.cases[i].bytes_uploaded > 0 || i > 0);
    }
    hypura_verify_report_clear(&report);
}

static void it_is_planned_and_told(void **state)
{
    (void)state;
    hypura_model_options options = options_of(MIXTURE, server_name, half_of(MIXTURE));
    const hypura_plan plan = plan_of(&options);
    assert_int_equal(plan.n_gpus, 1);
    assert_true(plan.n_gpu_layers > 2 && plan.n_gpu_layers < 12);
    assert_true(plan.gpus[0].vram_bytes <= options.rpc_bytes);
    assert_true(plan.gpus[0].round_trip_us > 0.0 && plan.gpus[0].link_bytes_per_s > 0.0);
    assert_int_equal(plan.mode, HYPURA_MODE_EXPERTS);
    hypura_model *model = NULL;
    hypura_error error;
    hypura_statistics statistics;
    uint64_t budget = 1 << 22;
    hypura_script script = {0};
    fixture_ok(hypura_model_open(&options, &model, &error), &error);
    hypura_model_statistics(model, &statistics);
    assert_int_equal(statistics.gpus[0].link_bytes_sent, 0); /* what was loaded does not count */
    hypura_model_close(model);
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    fixture_ok(hypura_script_write(model, 4, 4, &budget, &script, &error), &error);
    hypura_model_statistics(model, &statistics);
    assert_true(statistics.gpus[0].n_link_answers >= 5); /* one for the prompt, and for each token */
    assert_true(statistics.gpus[0].link_bytes_received > 8 * 4 * 64);
    assert_true(statistics.bytes_needed > 0);
    hypura_script_clear(&script);
    hypura_model_close(model);
}

static void what_it_offers_is_used_or_told(void **state)
{
    (void)state;
    hypura_model_options options = options_of(MIXTURE, server_name, 0);
    hypura_plan plan = plan_of(&options); /* all but a tenth, which holds the model */
    assert_int_equal(plan.n_gpus, 1);
    assert_int_equal(plan.mode, HYPURA_MODE_RESIDENT);
    assert_string_equal(plan.remotes_left_out, "");
    options.rpc_bytes = 4096;
    plan = plan_of(&options);
    assert_int_equal(plan.n_gpus, 0);
    char told[64];
    snprintf(told, sizeof(told), "%s (4 KiB)", server_name);
    assert_string_equal(plan.remotes_left_out, told);
}

/* ---- losses -------------------------------------------------------------------------- */

static hypura_script reference;

/* Opens, computes and closes: OK with the reference's bits, or what went wrong. */
static hypura_status attempt(const char *server, uint64_t rpc_bytes, hypura_error *error)
{
    const hypura_model_options options = options_of(MIXTURE, server, rpc_bytes);
    hypura_model *model = NULL;
    uint64_t differing = 0;
    hypura_status status = hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, error);
    if (status == HYPURA_OK && reference.n_rows == 0) {
        uint64_t budget = 1 << 22;
        status = hypura_script_write(model, 20, 4, &budget, &reference, error);
    } else if (status == HYPURA_OK) {
        status = hypura_script_follow(model, &reference, &differing, error);
    }
    hypura_model_close(model);
    assert_true(status != HYPURA_OK || differing == 0);
    return status;
}

/* From the first byte of the first connection to the last of what is computed. */
static void a_way_that_is_cut_anywhere_is_an_error(void **state)
{
    (void)state;
    const uint64_t rpc_bytes = half_of(MIXTURE);
    hypura_error error;
    int n_early = 0;
    way_open(way_port, server_port);
    fixture_ok(attempt(way_name, rpc_bytes, &error), &error); /* measures the link as well, once */
    (void)way_cut_after(UINT64_MAX);
    fixture_ok(attempt(way_name, rpc_bytes, &error), &error);
    const uint64_t all = way_cut_after(UINT64_MAX);
    assert_true(all > 100000);
    for (int i = 0; i < CUTS; i++) {
        /* close to each other where connections begin and where tokens are computed, which is at the end */
        const double part = (double)i / CUTS;
        const uint64_t after = i % 2 ? (uint64_t)((double)all * part * part * part) : (uint64_t)((double)all * (1.0 - part * part * part));
        (void)way_cut_after(after);
        const hypura_status status = attempt(way_name, rpc_bytes, &error);
        if (status == HYPURA_OK) { /* the last bytes are those of closing */
            assert_true((double)after > 0.8 * (double)all);
        } else {
            fixture_fails(HYPURA_ERR_BACKEND, status, &error, way_name);
            n_early++;
        }
    }
    assert_true(n_early > CUTS * 3 / 4);
    (void)way_cut_after(UINT64_MAX);
    fixture_ok(attempt(way_name, rpc_bytes, &error), &error); /* and when it is there again, it is used again */
    way_close();
}

/* While a model is loaded, between two tokens. */
static void a_server_that_dies_is_an_error(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(MIXTURE, server_name, half_of(MIXTURE));
    hypura_model *model = NULL;
    hypura_error error;
    uint64_t differing;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    fixture_ok(hypura_script_follow(model, &reference, &differing, &error), &error);
    server_kill();
    for (int again = 0; again < 2; again++) {
        fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &reference, &differing, &error), &error, server_name);
    }
    hypura_model_close(model);
    fixture_fails(HYPURA_ERR_BACKEND, hypura_model_open(&options, &model, &error), &error, server_name);
    server_start(server_port, "1G");
    fixture_ok(attempt(server_name, options.rpc_bytes, &error), &error);
}

/* ---- refusals ------------------------------------------------------------------------ */

static void refuse(const char *servers, uint64_t rpc_bytes, hypura_status status, const char *text)
{
    const hypura_model_options options = options_of(MIXTURE, servers, rpc_bytes);
    hypura_plan *plan = NULL;
    hypura_error error;
    fixture_fails(status, hypura_estimate(&options, &plan, &error), &error, text);
    assert_null(plan);
}

static void what_is_no_server_is_told(void **state)
{
    (void)state;
    char text[128];
    const uint16_t port = server_free_port();
    refuse("", 0, HYPURA_ERR_USAGE, "HOST:PORT");
    refuse("here", 0, HYPURA_ERR_USAGE, "here is not HOST:PORT");
    refuse("here:", 0, HYPURA_ERR_USAGE, "HOST:PORT");
    refuse("here:70000", 0, HYPURA_ERR_USAGE, "HOST:PORT");
    refuse("no-such-host.invalid:50052", 0, HYPURA_ERR_BACKEND, "no-such-host.invalid:50052");
    snprintf(text, sizeof(text), "%s,%s", server_name, server_name);
    refuse(text, 0, HYPURA_ERR_USAGE, "named twice");
    refuse(server_name, UINT64_C(1) << 50, HYPURA_ERR_USAGE, "--rpc-memory");
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    refuse(text, 0, HYPURA_ERR_BACKEND, "Connection refused");
}

static void another_version_is_told(void **state)
{
    (void)state;
    uint8_t greeting[8 + 28] = {28, 0, 0, 0, 0, 0, 0, 0, 9, 1, 2};
    char text[32];
    uint16_t port = server_free_port();
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    answer_open(port, greeting, sizeof(greeting));
    refuse(text, 0, HYPURA_ERR_BACKEND, "version 9.1.2");
    answer_close();
    greeting[0] = 3; /* as one of long ago */
    port = server_free_port();
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    answer_open(port, greeting, sizeof(greeting));
    refuse(text, 0, HYPURA_ERR_BACKEND, "answers with 3 bytes");
    answer_close();
}

static void one_that_serves_somebody_else_is_told(void **state)
{
    (void)state;
    char text[32];
    const uint16_t port = server_free_port();
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    answer_open(port, NULL, 0);
    refuse(text, 0, HYPURA_ERR_BACKEND, "one client at a time");
    answer_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_bit_differs),
        cmocka_unit_test(no_bit_differs_behind_a_gpu),
        cmocka_unit_test(it_is_planned_and_told),
        cmocka_unit_test(what_it_offers_is_used_or_told),
        cmocka_unit_test(a_way_that_is_cut_anywhere_is_an_error),
        cmocka_unit_test(a_server_that_dies_is_an_error),
        cmocka_unit_test(what_is_no_server_is_told),
        cmocka_unit_test(another_version_is_told),
        cmocka_unit_test(one_that_serves_somebody_else_is_told),
    };
    const int failed = cmocka_run_group_tests(tests, setup, teardown);
    hypura_script_clear(&reference);
    return failed;
}
