/*
 * test_gpu_faults.c - what goes wrong on a GPU ends in a message or in a smaller pool,
 * never in other text.
 */
#include "mixture_fixture.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_failed_graph_is_an_error(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    hypura_error error;
    uint64_t differing;
    for (int graph = 1; graph <= 100; graph += graph < 8 ? 1 : 7) {
        standin_set_faults(&(standin_faults){.fail_after = graph});
        fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &mixture.script, &differing, &error), &error,
                      "decode");
        standin_set_faults(&(standin_faults){0});
        assert_same(model); /* what was in flight left nothing behind */
    }
    hypura_model_close(model);
}

/* libllama logs that keys could not be shifted, and goes on. */
static void keys_that_cannot_be_shifted_are_an_error(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    hypura_error error;
    static const llama_token tokens[] = {3, 4, 5, 6, 7, 8};
    const llama_memory_t memory = llama_get_memory(model->ctx);
    for (int fails = 0; fails < 2; fails++) {
        hypura_model_reset(model);
        fixture_ok(hypura_model_decode(model, tokens, 6, false, &error), &error);
        assert_true(llama_memory_can_shift(memory) && llama_memory_seq_rm(memory, 0, 0, 2));
        llama_memory_seq_add(memory, 0, 2, -1, -2);
        standin_set_faults(&(standin_faults){.fail_after = fails});
        if (fails) {
            fixture_fails(HYPURA_ERR_BACKEND, hypura_model_decode(model, tokens, 1, false, &error), &error, "K-shift");
        } else {
            fixture_ok(hypura_model_decode(model, tokens, 1, false, &error), &error);
        }
        standin_set_faults(&(standin_faults){0});
    }
    hypura_model_reset(model);
    assert_same(model);
    hypura_model_close(model);
}

/* In the midst of what makes experts present: none counts as there whose bytes never came, and RAM has its slots back. */
static void a_copy_that_throws_is_an_error(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        hypura_model_options options = options_of(mixture.path, which == 1 ? mixture.half_bytes : mixture.least_bytes);
        if (which == 2) { /* with RAM that has the fewest slots */
            options.weights_bytes = gpu_plan_of(&options).floor_weights_bytes;
        }
        hypura_model *model = open_model(&options);
        hypura_error error;
        uint64_t differing;
        int n_failed = 0;
        for (int copy = 1; copy <= 120; copy += copy < 12 ? 1 : 9) {
            standin_set_faults(&(standin_faults){.copy_throws_after = copy});
            if (hypura_script_follow(model, &mixture.script, &differing, &error) != HYPURA_OK) {
                assert_non_null(strstr(error.message, "no memory for a copy"));
                n_failed++;
            }
            standin_set_faults(&(standin_faults){0});
            assert_same(model);
        }
        assert_true(n_failed > 10);
        hypura_model_close(model);
    }
}

/* As where memory is short for what a driver hands over then: nobody knows what has arrived, and no expert counts as there whose
 * bytes have not. What slots lack is uploaded, or computed by the processor and uploaded beside; or, without events, uploaded by the
 * instance that computes, for which libllama waits last. */
static void a_wait_that_throws_is_an_error(void **state)
{
    (void)state;
    for (int which = 0; which < 6; which++) {
        hypura_model_options options = options_of(mixture.path, which % 2 ? mixture.half_bytes : mixture.least_bytes);
        const standin_faults others = {.no_events = which / 2 == 2, .computes_late = which / 2 == 2};
        options.gpu_misses = which / 2 == 1 ? HYPURA_GPU_MISSES_CPU : HYPURA_GPU_MISSES_UPLOAD;
        standin_set_faults(&others);
        hypura_model *model = open_model(&options);
        hypura_error error;
        uint64_t differing;
        int n_failed = 0;
        for (int wait = 1; wait <= 200; wait += wait < 12 ? 1 : 7) {
            standin_faults faults = others;
            faults.wait_throws_after = wait;
            standin_set_faults(&faults);
            if (hypura_script_follow(model, &mixture.script, &differing, &error) != HYPURA_OK) {
                assert_non_null(strstr(error.message, "a wait fails on purpose"));
                n_failed++;
            } else if (wait > 12) {
                wait = 200; /* there are no more */
            }
            standin_set_faults(&others);
            assert_same(model);
        }
        assert_true(n_failed > 10);
        hypura_model_close(model);
        standin_set_faults(&(standin_faults){0});
    }
}

static void a_lost_device_is_an_error(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    hypura_error error;
    uint64_t differing;
    for (int graph = 1; graph <= 100; graph += graph < 8 ? 1 : 7) { /* pieces, stages, copies, the lookup alone */
        standin_set_faults(&(standin_faults){.lose_after = graph});
        fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &mixture.script, &differing, &error), &error,
                      "device lost");
        standin_set_faults(&(standin_faults){0});
        assert_same(model);
    }
    hypura_model_close(model);
}

/* CUDA's backend ends the process also where something is freed on a device that is lost:
 * what was wrong is told all the same. */
static void a_device_that_stays_lost_is_an_error(void **state)
{
    (void)state;
    for (int resident = 0; resident < 2; resident++) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            hypura_model_options options = options_of(mixture.path, resident ? 0 : mixture.least_bytes);
            options.force_paging = !resident;
            hypura_model *model = open_model(&options);
            hypura_error error;
            uint64_t differing;
            standin_set_faults(&(standin_faults){.lose_after = 1, .stays_lost = true});
            const hypura_status status = hypura_script_follow(model, &mixture.script, &differing, &error);
            hypura_model_close(model);
            const bool tells = strncmp(error.message, STANDIN_NAME " is lost", strlen(STANDIN_NAME " is lost")) == 0;
            _exit(status == HYPURA_ERR_BACKEND && tells && strstr(error.message, "device lost") ? 0 : 1);
        }
        int ended;
        assert_int_equal(waitpid(child, &ended, 0), child);
        assert_true(WIFEXITED(ended));
        assert_int_equal(WEXITSTATUS(ended), 0);
    }
}

/* CUDA's backend ends the process where its memory runs out; also of a model that is there whole. */
static void an_abort_is_an_error(void **state)
{
    (void)state;
    for (int resident = 0; resident < 2; resident++) {
        hypura_model_options options = options_of(mixture.path, resident ? 0 : mixture.least_bytes);
        options.force_paging = !resident;
        hypura_model *model = open_model(&options);
        hypura_error error;
        uint64_t differing;
        for (int graph = 1; graph <= (resident ? 1 : 4); graph++) {
            standin_set_faults(&(standin_faults){.abort_after = graph});
            fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &mixture.script, &differing, &error), &error,
                          "out of memory on purpose");
            assert_non_null(strstr(error.message, STANDIN_NAME " has no memory left, which another program"));
            standin_set_faults(&(standin_faults){0});
        }
        assert_same(model);
        hypura_model_close(model);
    }
}

/* Somebody else took the memory between the plan and the pools. */
static void memory_that_is_gone_is_an_error(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
    hypura_model *model = NULL;
    hypura_error error;
    standin_set_faults(&(standin_faults){.memory_bytes = gpu_plan_of(&options).vram_slot_bytes / 2});
    fixture_fails(HYPURA_ERR_MEMORY, hypura_model_open(&options, &model, &error), &error, STANDIN_NAME);
    assert_null(model);
    standin_set_faults(&(standin_faults){0});
    assert_int_equal(standin_read_counts().bytes_used, 0);
}

/* Each part of it in turn: what a model cannot do without is an error. Routers are asked by the host where the GPU has no
 * room for copies of them. */
static void each_memory_that_is_gone_is_told(void **state)
{
    (void)state;
    hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
    options.foresight = HYPURA_FORESIGHT_ON;
    int n_refused = 0;
    int n_host_asks = 0;
    for (int buffer = 1;; buffer++) {
        hypura_model *model = NULL;
        hypura_statistics s;
        hypura_error error;
        standin_set_faults(&(standin_faults){.refuses_buffer = buffer});
        const hypura_status status = hypura_model_open_with(&options, &(hypura_model_extras){.all_logits = true}, &model, &error);
        standin_set_faults(&(standin_faults){0});
        if (status != HYPURA_OK) {
            fixture_fails(status, status, &error, STANDIN_NAME);
            assert_int_equal(standin_read_counts().bytes_used, 0);
            n_refused++;
            continue;
        }
        assert_same(model);
        hypura_model_statistics(model, &s);
        hypura_model_close(model);
        if (s.n_asked_by_gpu > 0) { /* there are no more buffers than that */
            assert_int_equal(s.n_asked_by_host, 0);
            break;
        }
        assert_true(s.n_asked_by_host > 0);
        n_host_asks++;
    }
    assert_true(n_refused > 2);
    assert_int_equal(n_host_asks, 1);
}

/* Somebody else takes all that is left during the run: nothing more is needed. */
static void memory_taken_later_changes_nothing(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    standin_set_faults(&(standin_faults){.memory_bytes = 1});
    assert_same(model);
    hypura_model_close(model);
}

/* Without a limit the plan fits what is free. */
static void less_memory_is_a_smaller_pool(void **state)
{
    (void)state;
    const uint64_t margin = UINT64_C(768) << 20; /* left to the driver */
    standin_set_faults(&(standin_faults){.memory_bytes = margin + mixture.least_bytes});
    const hypura_model_options options = options_of(mixture.path, 0);
    const hypura_plan plan = gpu_plan_of(&options);
    assert_true(plan.n_vram_pools > 0);
    assert_true(plan.vram_bytes <= mixture.least_bytes);
    (void)run_same(&options);
}

/* Nor is it silent where nothing fits. */
static void too_little_memory_is_told(void **state)
{
    (void)state;
    const uint64_t margin = UINT64_C(768) << 20;
    hypura_model_options options = options_of(mixture.path, 0);
    standin_set_faults(&(standin_faults){.memory_bytes = margin + 4096});
    const hypura_plan plan = gpu_plan_of(&options);
    assert_int_equal(plan.n_gpus, 0);
    assert_string_equal(plan.gpus_left_out, STANDIN_NAME " (4 KiB)");
    standin_set_faults(&(standin_faults){0});
    assert_string_equal(gpu_plan_of(&options).gpus_left_out, "");
}

static void memory_that_is_not_pinned_will_do(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    standin_set_faults(&(standin_faults){.no_pinned = true});
    const hypura_statistics s = run_same(&options);
    assert_int_equal(s.locked_bytes, 0);
    assert_true(s.bytes_uploaded > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MIXTURE_TEST(a_failed_graph_is_an_error),
        MIXTURE_TEST(keys_that_cannot_be_shifted_are_an_error),
        MIXTURE_TEST(a_copy_that_throws_is_an_error),
        MIXTURE_TEST(a_wait_that_throws_is_an_error),
        MIXTURE_TEST(a_lost_device_is_an_error),
        MIXTURE_TEST(a_device_that_stays_lost_is_an_error),
        MIXTURE_TEST(an_abort_is_an_error),
        MIXTURE_TEST(memory_that_is_gone_is_an_error),
        MIXTURE_TEST(each_memory_that_is_gone_is_told),
        MIXTURE_TEST(memory_taken_later_changes_nothing),
        MIXTURE_TEST(less_memory_is_a_smaller_pool),
        MIXTURE_TEST(too_little_memory_is_told),
        MIXTURE_TEST(memory_that_is_not_pinned_will_do),
    };
    return cmocka_run_group_tests(tests, gpu_setup, teardown);
}
