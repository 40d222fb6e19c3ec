/*
 * test_hybrid.c - experts that the GPU's memory lacks, computed by the processor. The device that
 * stands for a GPU has the processor's own kernels, and rows do not mix: every bit has to be the
 * one of plain llama.cpp, and any row that is not written, not in time or to a wrong place shows.
 */
#include "mixture_fixture.h"

#include "../faults/refusal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static hypura_model_options computing(uint64_t vram_bytes)
{
    hypura_model_options options = options_of(mixture.path, vram_bytes);
    options.gpu_misses = HYPURA_GPU_MISSES_CPU;
    return options;
}

/* Nothing was uploaded because a token lacked it, and each row that one did lack was computed. */
static void assert_computed(const hypura_statistics *s, uint64_t expert_bytes)
{
    assert_true(s->n_cpu_rows > 0);
    assert_true(s->n_cpu_layers > 0 && s->n_cpu_layers <= s->n_cpu_rows);
    assert_int_equal(s->n_not_cpu_chain, 0);
    assert_int_equal(s->n_not_cpu_ram, 0);
    assert_true(s->beside_bytes_uploaded <= s->bytes_uploaded);
    assert_true(s->beside_bytes_uploaded <= s->n_cpu_rows * expert_bytes);
}

static void the_processor_computes_misses(void **state)
{
    (void)state;
    const hypura_foresight ways[] = {HYPURA_FORESIGHT_ON, HYPURA_FORESIGHT_AUTO, HYPURA_FORESIGHT_OFF};
    const uint64_t limits[] = {mixture.least_bytes, mixture.half_bytes};
    for (int i = 0; i < 6; i++) {
        hypura_model_options options = computing(limits[i % 2]);
        options.foresight = ways[i / 2];
        const hypura_statistics s = run_same(&options);
        assert_computed(&s, gpu_plan_of(&options).vram_pools[0].slot_bytes);
        assert_true(s.beside_bytes_uploaded > 0);
        if (options.foresight == HYPURA_FORESIGHT_ON) { /* what follows ran ahead too, some of it in vain */
            assert_true(s.n_repeated > 0 && s.n_repeated <= s.n_ahead);
        }
    }
}

/* Several tokens at once read slots through ids that the host has sent. */
static void few_tokens_are_the_same(void **state)
{
    (void)state;
    enum { N_TOKENS = 40 };
    llama_token tokens[N_TOKENS];
    float *logits[2] = {NULL, NULL};
    size_t bytes = 0;
    for (int computes = 0; computes < 2; computes++) {
        hypura_model_options options = computing(mixture.half_bytes);
        options.gpu_misses = computes ? HYPURA_GPU_MISSES_CPU : HYPURA_GPU_MISSES_UPLOAD;
        hypura_model *model = open_model(&options);
        hypura_statistics s;
        hypura_error error;
        const size_t n_vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama));
        bytes = n_vocab * sizeof(float);
        logits[computes] = malloc(N_TOKENS * bytes);
        assert_non_null(logits[computes]);
        hypura_replay_fill(tokens, N_TOKENS, n_vocab);
        for (uint32_t at = 0, n = 1; at + n <= N_TOKENS; at += n, n = n % 4 + 1) { /* 1, 2, 3, 4, 1 ... */
            fixture_ok(hypura_model_decode(model, tokens + at, n, true, &error), &error);
            for (uint32_t i = 0; i < n; i++) {
                memcpy((char *)logits[computes] + (at + i) * bytes, llama_get_logits_ith(model->ctx, (int32_t)i), bytes);
            }
        }
        hypura_model_statistics(model, &s);
        assert_int_equal(s.n_cpu_rows > 0, computes);
        if (computes) {
            assert_computed(&s, hypura_model_plan(model)->vram_pools[0].slot_bytes);
            assert_true(s.n_cpu_rows > s.n_cpu_layers);
        }
        hypura_model_close(model);
    }
    assert_memory_equal(logits[0], logits[1], N_TOKENS * bytes);
    free(logits[0]);
    free(logits[1]);
}

/* ---- routes ------------------------------------------------------------------- */

/* Which token's selections are given, and how often they were asked for from the begin. */
typedef struct route {
    uint32_t token;
    uint32_t n_begun;
} route;

/* Others in each turn, and with each token. */
static void select_them(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    route *r = user;
    for (uint32_t i = 0; i < n_used * n_tokens; i++) {
        experts[i] = (int32_t)((i % n_used * 4 + (uint32_t)layer * (r->token + 1) + i / n_used) % 16);
    }
    r->n_begun += layer == 0;
}

/* Some experts often, others once in a while: of a layer that lacks the former, the latter lie in slots. */
static void select_unevenly(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    route   *r = user;
    uint32_t drawn = (r->token * 97 + (uint32_t)layer * 31) * 2654435761u;
    for (uint32_t i = 0; i < n_used * n_tokens; i++) {
        bool taken = true;
        while (taken) {
            drawn = drawn * 1664525u + 1013904223u;
            experts[i] = (int32_t)((drawn >> 16) % ((drawn >> 28) > 3 ? n_used + 2 : 16));
            taken = false;
            for (uint32_t k = i - i % n_used; k < i && !taken; k++) {
                taken = experts[k] == experts[i];
            }
        }
    }
    r->n_begun += layer == 0;
}

/* The logits of so many tokens along a route; free() them. */
static float *follow_route(const hypura_model_options *options, uint32_t n_tokens, hypura_gpu_select_fn select,
                           hypura_statistics *s, size_t *bytes)
{
    hypura_model *model = open_model(options);
    hypura_error  error;
    route         r = {.token = 0};
    *bytes = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)) * sizeof(float);
    float *logits = malloc(n_tokens * *bytes);
    assert_non_null(logits);
    hypura_gpu_set_select(model->gpus.list[0], select, &r);
    for (; r.token < n_tokens; r.token++) {
        const llama_token token = (llama_token)r.token;
        fixture_ok(hypura_model_decode(model, &token, 1, false, &error), &error);
        memcpy((char *)logits + r.token * *bytes, llama_get_logits_ith(model->ctx, -1), *bytes);
    }
    assert_int_equal(r.n_begun, n_tokens);
    hypura_model_statistics(model, s);
    hypura_model_close(model);
    return logits;
}

/* The same with uploads alone, and, with this fault, with a processor that computes what is missing: its statistics. */
static hypura_statistics compare_routes(hypura_model_options options, uint32_t n_tokens, hypura_gpu_select_fn select,
                                        const standin_faults *fault)
{
    hypura_statistics s;
    size_t bytes;
    options.gpu_misses = HYPURA_GPU_MISSES_UPLOAD;
    float *uploaded = follow_route(&options, n_tokens, select, &s, &bytes);
    assert_int_equal(s.n_cpu_rows, 0);
    options.gpu_misses = HYPURA_GPU_MISSES_CPU;
    standin_set_faults(fault);
    float *computed = follow_route(&options, n_tokens, select, &s, &bytes);
    assert_memory_equal(uploaded, computed, n_tokens * bytes);
    free(uploaded);
    free(computed);
    return s;
}

/* Those of a recorded route are computed, not what a router selected; with as many threads as there are. */
static void a_route_is_followed(void **state)
{
    (void)state;
    hypura_model_options options = computing(mixture.half_bytes);
    options.n_threads = 2;
    const hypura_statistics s = compare_routes(options, 24, select_them, &(standin_faults){0});
    assert_true(s.n_cpu_rows > 24);
}

/* A device that computes as late as it may, and copies as soon as it may: what is uploaded for later tokens, and rows
 * that the processor computes, would change what a layer still reads. */
static void what_is_read_later_stays(void **state)
{
    (void)state;
    hypura_model_options options = computing(mixture.half_bytes);
    options.foresight = HYPURA_FORESIGHT_ON;
    const hypura_statistics s = compare_routes(options, 120, select_unevenly, &(standin_faults){.computes_late = true});
    assert_true(s.beside_bytes_uploaded > 0);
}

/* Where copies to the device wait for nothing by themselves, rows that the processor computed would come before the junk that
 * they replace. */
static void rows_do_not_overtake_what_they_replace(void **state)
{
    (void)state;
    hypura_model_options options = computing(mixture.half_bytes);
    options.foresight = HYPURA_FORESIGHT_OFF; /* nothing is computed twice, which would send them again */
    const standin_faults late = {.computes_late = true, .copies_overtake = true};
    const hypura_statistics s = compare_routes(options, 24, select_them, &late);
    assert_true(s.n_cpu_rows > 24);
}

/* ---- what is kept ----------------------------------------------------------- */

/* What was missing is there for later tokens: the same token again lacks nothing. */
static void what_was_computed_is_kept(void **state)
{
    (void)state;
    hypura_model_options options = computing(mixture.half_bytes);
    options.foresight = HYPURA_FORESIGHT_OFF; /* nor do guesses take their slots */
    hypura_model *model = open_model(&options);
    hypura_statistics s;
    hypura_error error;
    const llama_token token = 7;
    uint64_t n_rows = 0;
    for (int i = 0; i < 8; i++) { /* the same token in the same place: the same experts */
        hypura_model_reset_statistics(model);
        llama_memory_clear(llama_get_memory(model->ctx), true);
        fixture_ok(hypura_model_decode(model, &token, 1, false, &error), &error);
        hypura_model_statistics(model, &s);
        n_rows = i == 0 ? s.n_cpu_rows : n_rows;
    }
    assert_true(n_rows > 0);
    assert_int_equal(s.n_cpu_rows, 0);
    assert_int_equal(s.vram_bytes_hit, s.vram_bytes_needed);
    hypura_model_close(model);
}

/* What the drive has to read is waited for, and computed then; where RAM has too few slots for it all, the GPU
 * gets it as ever. */
static void ram_may_be_short(void **state)
{
    (void)state;
    hypura_model_options options = computing(mixture.least_bytes);
    const hypura_plan all = gpu_plan_of(&options);
    options.weights_bytes = all.floor_weights_bytes + (all.weights_bytes - all.floor_weights_bytes) / 2;
    hypura_statistics s = run_same(&options);
    assert_true(s.n_cpu_rows > 0 && s.bytes_read > 0);
    options.weights_bytes = all.floor_weights_bytes;
    s = run_same(&options);
    assert_true(s.n_cpu_rows > 0 && s.bytes_read > 0);
}

/* Experts with a scale each are not taken through their products at once: the processor does not know such a layer,
 * and says so. */
static void a_chain_that_is_not_known_is_uploaded(void **state)
{
    (void)state;
    hypura_model_options options = options_of(fixture_arch("qwen3moe-moe.gguf"), 0);
    const hypura_plan plan = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&plan, 10);
    options.gpu_misses = HYPURA_GPU_MISSES_CPU;
    hypura_model *model = open_model(&options);
    hypura_statistics s;
    hypura_error error;
    for (llama_token token = 1; token < 9; token++) {
        fixture_ok(hypura_model_decode(model, &token, 1, false, &error), &error);
    }
    hypura_model_statistics(model, &s);
    assert_int_equal(s.n_cpu_rows, 0);
    assert_true(s.n_not_cpu_chain > 0);
    assert_true(s.bytes_uploaded > 0);
    assert_int_equal(s.beside_bytes_uploaded, 0);
    hypura_model_close(model);
}

/* Without an instance for copies, or without events for all layers, fewer are uploaded, and no bit changes. */
static void a_device_without_events_will_do(void **state)
{
    (void)state;
    const hypura_model_options options = computing(mixture.half_bytes);
    for (int nth = 0; nth < 30; nth += nth < 8 ? 1 : 5) {
        standin_set_faults(&(standin_faults){.no_events = nth == 0, .event_fails = nth});
        const hypura_statistics s = run_same(&options);
        assert_computed(&s, gpu_plan_of(&options).vram_pools[0].slot_bytes);
        assert_true(s.beside_bytes_uploaded > 0);
    }
}

static void memory_that_is_not_pinned_will_do(void **state)
{
    (void)state;
    const hypura_model_options options = computing(mixture.least_bytes);
    standin_set_faults(&(standin_faults){.no_pinned = true});
    const hypura_statistics s = run_same(&options);
    assert_int_equal(s.locked_bytes, 0);
    assert_computed(&s, gpu_plan_of(&options).vram_pools[0].slot_bytes);
}

/* ---- faults -------------------------------------------------------------------- */

/* Graphs, copies and a device that is lost, in the midst of everything: an error, and what follows is right. */
static void what_fails_on_the_gpu_is_an_error(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        hypura_model_options options = computing(which == 1 ? mixture.half_bytes : mixture.least_bytes);
        if (which == 2) {
            options.weights_bytes = gpu_plan_of(&options).floor_weights_bytes;
        }
        hypura_model *model = open_model(&options);
        hypura_error error;
        uint64_t differing;
        int n_failed = 0;
        for (int nth = 1; nth <= 130; nth += nth < 12 ? 1 : 11) {
            const standin_faults faults[] = {{.copy_throws_after = nth}, {.fail_after = nth}, {.lose_after = nth}};
            for (int f = 0; f < 3; f++) {
                standin_set_faults(&faults[f]);
                n_failed += hypura_script_follow(model, &mixture.script, &differing, &error) != HYPURA_OK;
                standin_set_faults(&(standin_faults){0});
                assert_same(model);
            }
        }
        assert_true(n_failed > 50);
        hypura_model_close(model);
    }
}

typedef struct broken {
    atomic_int left; /* reads until one fails; negative: none */
} broken;

static int64_t break_read(void *user, uint64_t nth, int64_t result)
{
    (void)nth;
    broken *b = user;
    return atomic_fetch_sub(&b->left, 1) == 0 ? -EIO : result;
}

/* An expert that the processor waits for, and never comes. */
static void a_read_that_fails_is_an_error(void **state)
{
    (void)state;
    broken b = {.left = -1};
    hypura_model_options options = computing(mixture.least_bytes);
    options.weights_bytes = gpu_plan_of(&options).floor_weights_bytes;
    hypura_model *model = NULL;
    hypura_error error;
    uint64_t differing;
    int n_failed = 0;
    const hypura_model_extras extras = {.all_logits = true, .io_hook = break_read, .io_hook_user = &b};
    fixture_ok(hypura_model_open_with(&options, &extras, &model, &error), &error);
    assert_same(model);
    for (int nth = 0; nth < 400; nth += 13) {
        atomic_store(&b.left, nth);
        if (hypura_script_follow(model, &mixture.script, &differing, &error) != HYPURA_OK) {
            assert_int_equal(error.status, HYPURA_ERR_IO);
            assert_non_null(strstr(error.message, "moe-deep"));
            n_failed++;
        }
        atomic_store(&b.left, -1);
        assert_same(model);
    }
    assert_true(n_failed > 10);
    hypura_model_close(model);
}

/* ---- memory --------------------------------------------------------------------- */

typedef struct followed {
    const hypura_model_options *options;
    const hypura_script *script;
} followed;

/* Opened, and followed without a bit that differs. */
static hypura_status try_to_follow(const void *what, hypura_error *error)
{
    const followed *f = what;
    const hypura_model_extras extras = {.all_logits = true};
    hypura_model *model = NULL;
    const hypura_status status = hypura_model_open_with(f->options, &extras, &model, error);
    if (status == HYPURA_OK) {
        uint64_t differing = 1;
        (void)refusal_end();
        fixture_ok(hypura_script_follow(model, f->script, &differing, error), error);
        assert_int_equal(differing, 0);
        hypura_model_close(model);
    }
    return status;
}

/* Of a model with few layers, as each layer asks for the same. */
static void memory_that_is_refused_is_an_error(void **state)
{
    (void)state;
    hypura_model_options options = options_of(HYPURA_TINY "/moe-q8_0.gguf", 0);
    const hypura_plan plan = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&plan, 10);
    options.gpu_misses = HYPURA_GPU_MISSES_CPU;
    hypura_script script;
    hypura_error error;
    uint64_t budget = 1 << 22;
    uint64_t n_calls;
    hypura_model *model = open_model(&options);
    hypura_statistics s;
    fixture_ok(hypura_script_write(model, 20, 4, &budget, &script, &error), &error);
    hypura_model_statistics(model, &s);
    assert_true(s.n_cpu_rows > 0);
    hypura_model_close(model);
    const uint64_t n_failed = refusal_each(try_to_follow, &(followed){&options, &script}, NULL, &n_calls);
    assert_true(n_failed > 60);
    hypura_script_clear(&script);
}

static void decoding_asks_for_none(void **state)
{
    (void)state;
    const hypura_model_options options = computing(mixture.least_bytes);
    hypura_model *model = open_model(&options);
    hypura_error error;
    llama_token token = 1;
    fixture_ok(hypura_model_decode(model, &token, 1, false, &error), &error);
    refusal_begin(0);
    for (token = 2; token < 40; token++) {
        fixture_ok(hypura_model_decode(model, &token, 1, false, &error), &error);
    }
    assert_int_equal(refusal_end(), 0);
    hypura_statistics s;
    hypura_model_statistics(model, &s);
    assert_computed(&s, hypura_model_plan(model)->vram_pools[0].slot_bytes);
    hypura_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MIXTURE_TEST(the_processor_computes_misses),
        MIXTURE_TEST(what_is_read_later_stays),
        MIXTURE_TEST(rows_do_not_overtake_what_they_replace),
        MIXTURE_TEST(few_tokens_are_the_same),
        MIXTURE_TEST(a_route_is_followed),
        MIXTURE_TEST(what_was_computed_is_kept),
        MIXTURE_TEST(ram_may_be_short),
        MIXTURE_TEST(a_chain_that_is_not_known_is_uploaded),
        MIXTURE_TEST(a_device_without_events_will_do),
        MIXTURE_TEST(memory_that_is_not_pinned_will_do),
        MIXTURE_TEST(what_fails_on_the_gpu_is_an_error),
        MIXTURE_TEST(a_read_that_fails_is_an_error),
        MIXTURE_TEST(memory_that_is_refused_is_an_error),
        MIXTURE_TEST(decoding_asks_for_none),
    };
    return cmocka_run_group_tests(tests, gpu_setup, teardown);
}
