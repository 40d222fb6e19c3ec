/*
 * test_verify.c - hypura_verify: it finds what differs, and nothing differs.
 */
#include "engine_fixture.h"

#include "backend/internal.h"
#include "engine/llama/llama_shim.h"
#include "engine/measure/replay.h"
#include "engine/prepare/estimate.h"
#include "hypura_measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hypura_model *open_plain(const char *path)
{
    hypura_model_options options = {
        .path = path, .plain = true, .no_repack = true, .n_threads = 1, .n_ubatch = 16, .n_context = 64};
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    return model;
}

/* One bit of one logit is found, with rows and with hashes of them. */
static void one_bit_is_found(void **state)
{
    (void)state;
    hypura_model *model = open_plain(fixture_arch("llama-dense.gguf"));
    hypura_script script;
    hypura_error error;
    uint64_t differing = 1;
    uint64_t budget = 1 << 20;
    fixture_ok(hypura_script_write(model, 20, 5, &budget, &script, &error), &error);
    assert_non_null(script.rows);
    assert_int_equal(budget, (1 << 20) - 25 * script.row_floats * sizeof(float));
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_int_equal(differing, 0);
    uint32_t bits;
    float *last = &script.rows[(script.n_rows - 1) * script.row_floats + 7];
    memcpy(&bits, last, sizeof(bits));
    bits ^= 1;
    memcpy(last, &bits, sizeof(bits));
    script.rows[3 * script.row_floats] = -script.rows[3 * script.row_floats];
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_int_equal(differing, 2);
    hypura_script_clear(&script);

    budget = 100;
    fixture_ok(hypura_script_write(model, 20, 5, &budget, &script, &error), &error);
    assert_null(script.rows);
    assert_int_equal(budget, 100);
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_int_equal(differing, 0);
    script.hashes[24] ^= 1;
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_int_equal(differing, 128); /* a whole row of this vocabulary */
    script.hashes[24] ^= 1;
    script.tokens[0] ^= 1; /* another prompt has other logits */
    fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
    assert_true(differing > 128);
    hypura_script_clear(&script);
    hypura_model_close(model);
}

static void check_report(const hypura_verify_report *report, int n_cases)
{
    assert_int_equal(report->n_cases, n_cases);
    for (int i = 0; i < n_cases; i++) {
        assert_int_equal(report->cases[i].differing, 0);
        assert_int_equal(report->cases[i].tokens, 3);
    }
}

static void mixture_at_every_ubatch(void **state)
{
    (void)state;
    const uint32_t prompts[] = {1, 37};
    const uint32_t ubatches[] = {1, 5, 64};
    const hypura_verify_options options = {.model.path = fixture_arch("olmoe-moe.gguf"),
                                           .prompt_tokens = prompts,
                                           .n_prompts = 2,
                                           .ubatches = ubatches,
                                           .n_ubatches = 3,
                                           .tokens = 3,
                                           .no_repack = true,
                                           .model.n_threads = 1};
    hypura_verify_report report = fixture_verify(options);
    assert_true(report.n_cases >= 2 * 3 * 2);
    check_report(&report, report.n_cases);
    assert_true(report.cases[0].bytes_read > 0);
    assert_int_equal(report.cases[0].ubatch, 1);
    assert_int_equal(report.cases[report.n_cases - 1].ubatch, 64);
    hypura_verify_report_clear(&report);
    hypura_verify_report_clear(&report);
}

/* The real thing, with two threads and a ragged last piece; with what is held changing
 * all the time. */
static void verify_part(const char *path, unsigned percent, bool resize, bool repack)
{
    const uint32_t prompt = 21;
    hypura_map *map = NULL;
    hypura_error error;
    fixture_ok(hypura_map_open(path, &map, &error), &error);
    const uint64_t part = map->tensor_bytes / 100 * percent;
    hypura_map_close(map);
    hypura_verify_options options = fixture_verify_options(path, repack, resize);
    options.weights_bytes = &part;
    options.n_weights = 1;
    options.prompt_tokens = &prompt;
    options.n_prompts = 1;
    hypura_verify_report report = fixture_verify(options);
    check_report(&report, 1);
    assert_string_equal(report.cases[0].io_engine, "pool");
    assert_true(report.cases[0].bytes_read > 0);
    assert_int_equal(report.cases[0].form, repack ? HYPURA_FORM_REPACKED : HYPURA_FORM_FILE);
    assert_int_equal(report.cases[0].n_resizes > 0, resize); /* how many depends on how busy the machine is */
    hypura_verify_report_clear(&report);
}

/* Prompts of which an expert gets many rows, a few, and a ragged number. */
static void verify_rows(const char *path)
{
    static const char *const engine = "pool";
    const uint32_t prompts[] = {9, 64, 150};
    const uint64_t weights = UINT64_C(3) << 20;
    for (int repack = 0; repack < 2; repack++) {
        const hypura_verify_options options = {.model.path = path,
                                               .weights_bytes = &weights,
                                               .n_weights = 1,
                                               .io_engines = &engine,
                                               .n_io_engines = 1,
                                               .prompt_tokens = prompts,
                                               .n_prompts = 3,
                                               .tokens = 3,
                                               .no_repack = !repack,
                                               .repack = repack,
                                               .model.n_threads = 2};
        hypura_verify_report report = fixture_verify(options);
        check_report(&report, report.n_cases);
        assert_true(report.cases[0].bytes_read > 0);
        hypura_verify_report_clear(&report);
    }
}

static void demonstration_dense(void **state)
{
    (void)state;
    /* 75: half of it is what is never streamed, nothing to give back */
    verify_part(fixture_model("smollm2-135m.gguf"), 75, true, true);
}

static void demonstration_mixture(void **state)
{
    (void)state;
    verify_part(fixture_model("smollm2-8x135m.gguf"), 50, true, true);
}

/* Types whose kernels for several rows add up in the same order, and one whose kernels do not. */
static void several_rows_of_an_expert(void **state)
{
    (void)state;
    static const char *const types[] = {"q4_0", "mxfp4", "q8_0", "q4_K"};
    const char *path = fixture_path("rows.gguf");
    uint64_t n_tried, n_rows;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char command[2048];
        snprintf(command, sizeof command, "'%s' shape qwen3-tiny '%s' --type %s", HYPURA_TEST_MKMODEL, path, types[i]);
        assert_int_equal(system(command), 0);
        verify_rows(path);
    }
    backend_count_batches(&n_tried, &n_rows);
    assert_true(n_tried > 0);
#if defined(__x86_64__)
    assert_int_equal(n_rows > 0, __builtin_cpu_supports("avx2") != 0);
#endif
}

/* True from the nth time on that somebody asks. */
static bool stop_after(void *user)
{
    int *left = user;
    *left -= *left > 0;
    return *left == 0;
}

/* What was stopped in the midst of finding out about a kind of weights has found out nothing: it is asked again. */
static void a_stopped_trial_is_made_again(void **state)
{
    (void)state;
    const char *path = fixture_path("stopped.gguf");
    char command[2048];
    snprintf(command, sizeof command, "'%s' shape qwen3-tiny '%s' --type q8_0", HYPURA_TEST_MKMODEL, path);
    assert_int_equal(system(command), 0);
    llama_token prompt[32];
    for (int i = 0; i < 32; i++) {
        prompt[i] = 1 + i % 3;
    }
    bool began_in_vain = false;
    uint64_t n_kinds = 0;
    for (int nth = 1; n_kinds == 0; nth += 3) { /* the 23rd to the 45th begin in vain, where it was seen */
        const hypura_model_options options = {.path = path,
                                              .weights_bytes = UINT64_C(8) << 20, /* all of it */
                                              .force_paging = true,
                                              .no_repack = true,
                                              .n_threads = 1,
                                              .n_ubatch = 32,
                                              .n_context = 64,
                                              .cache_dir = fixture_cache_dir()};
        uint64_t tried[3], rows[3];
        hypura_model *model = NULL;
        hypura_error error;
        int left = nth;
        fixture_ok(hypura_model_open(&options, &model, &error), &error);
        for (int i = 0; i < 32; i++) { /* one by one nothing is tried; only an expert that is there is tried with */
            fixture_ok(hypura_model_decode(model, &prompt[i], 1, false, &error), &error);
        }
        llama_memory_clear(llama_get_memory(model->ctx), true);
        backend_count_batches(&tried[0], &rows[0]);
        llama_set_abort_callback(model->ctx, stop_after, &left);
        assert_int_not_equal(hypura_model_decode(model, prompt, 32, false, &error), HYPURA_OK);
        llama_set_abort_callback(model->ctx, NULL, NULL);
        backend_count_batches(&tried[1], &rows[1]);
        llama_memory_clear(llama_get_memory(model->ctx), true);
        fixture_ok(hypura_model_decode(model, prompt, 32, false, &error), &error);
        backend_count_batches(&tried[2], &rows[2]);
        began_in_vain = began_in_vain || (rows[1] > rows[0] && tried[1] == tried[0]);
        assert_true(tried[2] > tried[0]);
        n_kinds = tried[1] - tried[0];
        hypura_model_close(model);
    }
    assert_true(began_in_vain);
}

/* Wherever a graph is stopped, in the midst of leases, reads and guesses: what follows has every bit. */
static void what_follows_a_stop_is_the_same(void **state)
{
    (void)state;
    static const char *const archs[] = {"olmoe-moe.gguf", "llama-dense.gguf"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        const char *path = fixture_arch(archs[i]);
        hypura_model *plain = open_plain(path);
        hypura_script script;
        hypura_error error;
        uint64_t budget = 1 << 22;
        fixture_ok(hypura_script_write(plain, 18, 2, &budget, &script, &error), &error); /* two parts, two tokens */
        hypura_model_close(plain);
        hypura_model_options options = {.path = path,
                                        .force_paging = true,
                                        .no_repack = true,
                                        .foresight = HYPURA_FORESIGHT_ON,
                                        .n_threads = 1,
                                        .n_ubatch = 16,
                                        .n_context = 64,
                                        .cache_dir = fixture_cache_dir()};
        options.weights_bytes = fixture_floor(&options);
        hypura_model *model = NULL;
        fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
        int n_stopped = 0;
        bool stopped = true;
        for (int nth = 1; stopped; nth += 1 + nth / 4) {
            int left = nth;
            uint64_t differing = 1;
            llama_set_abort_callback(model->ctx, stop_after, &left);
            stopped = hypura_script_follow(model, &script, &differing, &error) != HYPURA_OK;
            llama_set_abort_callback(model->ctx, NULL, NULL);
            n_stopped += stopped;
            fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
            assert_int_equal(differing, 0);
        }
        assert_true(n_stopped > 20);
        hypura_model_close(model);
        hypura_script_clear(&script);
    }
}

/* Most rows of a batch at once, through libllama's nodes, while others are waited for; and all of them. */
static void most_rows_of_a_batch(void **state)
{
    (void)state;
    const char *path = fixture_path("most.gguf");
    char command[2048];
    snprintf(command, sizeof command, "'%s' shape qwen3-tiny '%s' --type q4_K", HYPURA_TEST_MKMODEL, path);
    assert_int_equal(system(command), 0);
    const uint64_t before = backend_count_most();
    backend_set_wide(true);
    for (unsigned percent = 60; percent <= 95; percent += 5) {
        verify_part(path, percent, percent == 80, false);
    }
    verify_part(path, 75, false, true);
    verify_part(fixture_arch("olmoe-moe.gguf"), 75, false, false);
    backend_set_wide(false);
    assert_true(backend_count_most() > before);
}

/* ---- the output matrix alone repacked ---------------------------------------- */

static hypura_model *open_in_form(const char *path, uint64_t weights_bytes, bool plain, bool repack_output)
{
    const hypura_model_options options = {.path = path,
                                          .weights_bytes = weights_bytes,
                                          .plain = plain,
                                          .force_paging = !plain && weights_bytes > 0,
                                          .no_repack = true,
                                          .repack_output = repack_output,
                                          .n_threads = 2,
                                          .n_ubatch = 16,
                                          .n_context = 64,
                                          .cache_dir = plain ? NULL : fixture_cache_dir()};
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    return model;
}

typedef struct held_weights {
    const char *output;  /* name of the buffer that it lies in */
    int n_repacked;      /* others that lie in its type of buffer */
} held_weights;

static bool note_weight(void *user, const char *name, struct ggml_tensor *tensor)
{
    held_weights *held = user;
    const char *buffer = tensor->buffer ? ggml_backend_buffer_name(tensor->buffer) : "none";
    if (strcmp(name, "output.weight") == 0) {
        held->output = buffer;
    } else {
        held->n_repacked += strcmp(buffer, "CPU_REPACK") == 0;
    }
    return true;
}

static uint64_t differing_from(const hypura_script *script, hypura_model *model)
{
    uint64_t differing = 0;
    hypura_error error;
    fixture_ok(hypura_script_follow(model, script, &differing, &error), &error);
    return differing;
}

static int output_of(const hypura_model *model)
{
    const int output = hypura_map_find(hypura_model_map(model), "output.weight");
    assert_true(output >= 0);
    return output;
}

/* Written by plain llama.cpp with the output repacked: the same bits where it stays and where it streams, at every
 * budget; other ones where it is held as in the file. */
static void check_output_form(const char *path, uint64_t weights_bytes, bool streams)
{
    hypura_script script;
    hypura_error error;
    uint64_t budget = 1 << 24;
    hypura_model *model = open_in_form(path, 0, true, true);
    held_weights held = {.n_repacked = 0};
    hypura_shim_weights(model->llama, note_weight, &held);
    assert_string_equal(held.output, "CPU_REPACK");
    assert_int_equal(held.n_repacked, 0);
    fixture_ok(hypura_script_write(model, 21, 5, &budget, &script, &error), &error);
    assert_int_equal(differing_from(&script, model), 0);
    hypura_model_close(model);

    model = open_in_form(path, weights_bytes, false, true);
    assert_int_equal(hypura_model_plan(model)->form, HYPURA_FORM_OUTPUT);
    assert_int_equal(hypura_model_plan(model)->placements[output_of(model)].place,
                     streams ? HYPURA_PLACE_DENSE : HYPURA_PLACE_RESIDENT);
    held = (held_weights){.n_repacked = 0};
    hypura_shim_weights(model->llama, note_weight, &held);
    assert_int_equal(strcmp(held.output, "CPU_REPACK") == 0, !streams);
    assert_int_equal(held.n_repacked, 0);
    assert_int_equal(model->pager && hypura_pager_repack(model->pager, output_of(model)), streams);
    assert_int_equal(differing_from(&script, model), 0);
    hypura_model_close(model);

    model = open_in_form(path, weights_bytes, false, false);
    assert_int_equal(hypura_model_plan(model)->form, HYPURA_FORM_FILE);
    assert_true(differing_from(&script, model) > 0);
    hypura_model_close(model);
    hypura_script_clear(&script);
}

static void the_output_alone_is_repacked(void **state)
{
    (void)state;
    static const struct {
        const char *shape;
        unsigned percent; /* 0: all of it, resident; 1: the floor */
        bool streams;
    } cases[] = {{"qwen3-tiny", 0, false},  {"qwen3-tiny", 50, false}, {"qwen3-tiny", 1, true},
                 {"llama-tiny", 90, false}, {"llama-tiny", 1, true}};
    const char *path = fixture_path("output.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[2048];
        snprintf(command, sizeof command, "'%s' shape %s '%s' --type q4_K", HYPURA_TEST_MKMODEL, cases[i].shape, path);
        assert_int_equal(system(command), 0);
        hypura_map *map = NULL;
        hypura_error error;
        fixture_ok(hypura_map_open(path, &map, &error), &error);
        uint64_t weights = map->tensor_bytes / 100 * cases[i].percent;
        const bool has_form = hypura_repack_has_form(&map->tensors[hypura_map_find(map, "output.weight")]);
        hypura_map_close(map);
        if (!has_form) {
#if defined(__x86_64__)
            assert_false(__builtin_cpu_supports("avx2"));
#endif
            skip();
        }
        if (cases[i].percent == 1) {
            const hypura_model_options wanted = {.path = path,
                                                 .n_threads = 2,
                                                 .n_ubatch = 16,
                                                 .n_context = 64,
                                                 .force_paging = true,
                                                 .no_repack = true,
                                                 .cache_dir = fixture_cache_dir()};
            weights = fixture_floor(&wanted);
        }
        print_message("%s at %llu bytes\n", cases[i].shape, (unsigned long long)weights);
        check_output_form(path, weights, cases[i].streams);
    }
}

static void outputs_that_cannot_be_repacked(void **state)
{
    (void)state;
    const char *path = fixture_path("output.gguf");
    char command[2048];
    hypura_verify_report report;
    hypura_error error;
    snprintf(command, sizeof command, "'%s' shape llama-tiny '%s' --type f16", HYPURA_TEST_MKMODEL, path);
    assert_int_equal(system(command), 0);
    hypura_verify_options options = {
        .model.path = path, .tokens = 1, .repack_output = true, .model.n_threads = 1, .model.cache_dir = fixture_cache_dir()};
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_verify(&options, &report, &error), &error, "no output matrix to repack");
    options.repack = true;
    fixture_fails(HYPURA_ERR_USAGE, hypura_verify(&options, &report, &error), &error, "ask for one of them");
    options.repack = false;
    options.model.path = fixture_model("smollm2-135m.gguf"); /* its embedding is the output too */
    fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_verify(&options, &report, &error), &error, "none of its own");
}

static bool refuse(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    assert_true(done < total || total == 0);
    return ++*(int *)user < 3;
}

/* Stops once the second model has been opened and computes. */
static bool refuse_in_the_middle(void *user, const char *what, uint64_t done, uint64_t total)
{
    int *n = user;
    (void)what;
    (void)total;
    *n += done == 1;
    return *n < 3;
}

static void what_cannot_be_verified(void **state)
{
    (void)state;
    const uint64_t one = 1;
    const uint32_t none = 0;
    int calls = 0;
    hypura_verify_report report;
    hypura_error error;
    hypura_verify_options options = {
        .model.path = fixture_arch("olmoe-moe.gguf"), .tokens = 1, .model.n_threads = 1, .model.cache_dir = fixture_cache_dir()};

    hypura_verify_options budget = options;
    budget.weights_bytes = &one;
    budget.n_weights = 1;
    fixture_fails(HYPURA_ERR_BUDGET, hypura_verify(&budget, &report, &error), &error, "");
    assert_null(report.cases);
    hypura_verify_options prompt = options;
    prompt.prompt_tokens = &none;
    prompt.n_prompts = 1;
    fixture_fails(HYPURA_ERR_USAGE, hypura_verify(&prompt, &report, &error), &error, "0 tokens");
    hypura_verify_options ubatch = options;
    ubatch.ubatches = &none;
    ubatch.n_ubatches = 1;
    fixture_fails(HYPURA_ERR_USAGE, hypura_verify(&ubatch, &report, &error), &error, "0 tokens");
    const uint64_t vram[] = {UINT64_C(1) << 30};
    hypura_verify_options no_gpu = {
        .model.path = ubatch.model.path, .model.gpu = "none", .vram_bytes = vram, .n_vram = 1, .model.cache_dir = fixture_cache_dir()};
    fixture_fails(HYPURA_ERR_USAGE, hypura_verify(&no_gpu, &report, &error), &error, "no GPU");
    hypura_verify_options stopped = options;
    stopped.model.progress = refuse;
    stopped.model.progress_user = &calls;
    fixture_fails(HYPURA_ERR_CANCELLED, hypura_verify(&stopped, &report, &error), &error, "stopped");
    calls = 0;
    stopped.model.progress = refuse_in_the_middle;
    fixture_fails(HYPURA_ERR_CANCELLED, hypura_verify(&stopped, &report, &error), &error, "stopped");
    assert_int_equal(report.n_cases, 0);
    hypura_verify_options engine = options;
    const char *const name = "telepathy";
    engine.io_engines = &name;
    engine.n_io_engines = 1;
    assert_int_not_equal(hypura_verify(&engine, &report, &error), HYPURA_OK);
    assert_non_null(strstr(error.message, "telepathy"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bit_is_found),        cmocka_unit_test(mixture_at_every_ubatch),
        cmocka_unit_test(most_rows_of_a_batch),
        cmocka_unit_test(several_rows_of_an_expert),
        cmocka_unit_test(a_stopped_trial_is_made_again),
        cmocka_unit_test(what_follows_a_stop_is_the_same),
        cmocka_unit_test(the_output_alone_is_repacked), cmocka_unit_test(outputs_that_cannot_be_repacked),
        cmocka_unit_test(demonstration_dense),     cmocka_unit_test(demonstration_mixture),
        cmocka_unit_test(what_cannot_be_verified),
    };
    return cmocka_run_group_tests_name("engine verify", tests, fixture_setup, fixture_teardown);
}
