/*
 * test_order.c - what a GPU is given waits for what it reads, and what it reads stays until it has been read: over
 * stand-ins whose instances are behind what they were asked for, so that a wait, or a lease, too few shows.
 */
#include "mixture_fixture.h"

#include "pager/vram_internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_EXPERTS = 16, LAST_MATRIX = 2, WHENEVER_WAITED_FOR = 1 << 20 };

/* Ids come as soon as they were computed, what is computed in vain a little later, and what is computed again later still:
 * what is looked at is the latter's. */
static void ids_of_what_is_computed_in_vain_are_not_looked_at(void **state)
{
    (void)state;
    for (uint32_t lags = 1; lags <= 3; lags++) {
        for (int way = 0; way < 3; way++) {
            hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
            options.foresight = HYPURA_FORESIGHT_ON;
            options.gpu_misses = way == 2 ? HYPURA_GPU_MISSES_CPU : HYPURA_GPU_MISSES_UPLOAD;
            standin_set_faults(&(standin_faults){.lags = lags, .copies_overtake = way == 1});
            const hypura_statistics s = run_same(&options);
            assert_true(s.n_repeated > 0);
        }
    }
}

/* Room for two stages. */
static uint64_t two_stages_bytes(void)
{
    const hypura_model_options options = options_of(mixture.path, 0);
    const hypura_plan plan = gpu_plan_of(&options);
    return hypura_plan_vram_at(&plan, 75);
}

/* Nothing is done before it is waited for, by a prompt whose layers take turns on two stages, all experts each: leases of one
 * stage do not end with those of the other, which gpu_no_faults sees. */
static void what_goes_to_a_stage_is_leased_until_it_is_there(void **state)
{
    (void)state;
    enum { N_PROMPT = 32 };
    const hypura_model_options options = options_of(mixture.path, two_stages_bytes());
    hypura_model *model = open_model(&options);
    hypura_error  error;
    llama_token   tokens[N_PROMPT];
    hypura_replay_fill(tokens, N_PROMPT, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
    assert_int_equal(hypura_model_plan(model)->gpus[0].n_stages, 2);
    assert_same(model); /* slots hold something of each layer */
    llama_memory_clear(llama_get_memory(model->ctx), true);
    standin_set_faults(&(standin_faults){.lags = WHENEVER_WAITED_FOR});
    fixture_ok(hypura_model_decode_part(model, tokens, N_PROMPT, true, &error), &error);
    standin_set_faults(&(standin_faults){0});
    hypura_model_close(model);
}

/* A matrix of an expert as the file has it; free() it. */
static void *matrix_in_file(const hypura_pager *pager, int bundle, int matrix, uint32_t expert)
{
    const hypura_tensor *tensor = pager_matrix(pager, bundle, matrix);
    void                *bytes = malloc(tensor->expert_bytes);
    const int            file = open(pager->map->files[tensor->file], O_RDONLY | O_CLOEXEC);
    assert_non_null(bytes);
    assert_true(file >= 0);
    assert_int_equal(pread(file, bytes, tensor->expert_bytes, (off_t)(tensor->offset + expert * tensor->expert_bytes)),
                     (ssize_t)tensor->expert_bytes);
    close(file);
    return bytes;
}

static void assert_staged(hypura_vram *vram, int bundle, int set)
{
    for (uint32_t i = 0; i < (LAST_MATRIX + 1) * N_EXPERTS; i++) {
        const int      matrix = (int)(i / N_EXPERTS);
        const uint32_t expert = i % N_EXPERTS;
        const struct ggml_tensor *stage = hypura_vram_stage(vram, bundle, matrix, set);
        void *bytes = malloc(stage->nb[2]);
        void *expected = matrix_in_file(vram->pager, bundle, matrix, expert);
        assert_non_null(bytes);
        ggml_backend_tensor_get(stage, bytes, expert * stage->nb[2], stage->nb[2]);
        assert_memory_equal(bytes, expected, stage->nb[2]);
        free(bytes);
        free(expected);
    }
}

typedef struct stage_test {
    hypura_model  *model;
    hypura_vram   *vram;
    ggml_backend_t backend;
    uint32_t       experts[N_EXPERTS];
} stage_test;

/* Slots that lie in stages are closed: nothing else is waited for when a stage is filled. */
static void begin_stages(stage_test *t, hypura_gpu_misses misses)
{
    hypura_model_options options = options_of(mixture.path, two_stages_bytes());
    options.gpu_misses = misses;
    t->model = open_model(&options);
    t->vram = t->model->pager->vrams[0];
    t->backend = ggml_backend_dev_init(t->vram->device, NULL);
    assert_non_null(t->backend);
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        t->experts[e] = e;
    }
    hypura_pager_enter(t->model->pager);
    hypura_vram_begin(t->vram, t->backend);
    assert_int_equal(hypura_vram_fill_stage(t->vram, 0, 0, t->experts, N_EXPERTS), HYPURA_OK);
    hypura_vram_settle(t->vram);
}

/* Of a layer with all its experts, after what was sent to slots of it; what copies goes as far as it may by itself. */
static void fill_and_compare(stage_test *t, int bundle)
{
    assert_int_equal(hypura_vram_fill_stage(t->vram, bundle, 1, t->experts, N_EXPERTS), HYPURA_OK);
    ggml_backend_synchronize(t->vram->reader);
    ggml_backend_synchronize(t->backend);
    standin_set_faults(&(standin_faults){0});
    assert_staged(t->vram, bundle, 1);
    hypura_vram_settle(t->vram);
}

static void end_stages(stage_test *t)
{
    hypura_vram_forget(t->vram, t->backend);
    hypura_pager_leave(t->model->pager);
    ggml_backend_free(t->backend);
    hypura_model_close(t->model);
}

/* A layer's experts come to slots, all of them or some, with the last matrix of each behind the others or not, and go on to a
 * stage. */
static void stages_wait_for_all_of_what_slots_get(void **state)
{
    (void)state;
    stage_test t;
    uint32_t   slots[N_EXPERTS], n_missing;
    begin_stages(&t, HYPURA_GPU_MISSES_UPLOAD);
    for (int way = 0; way < 4; way++) {
        const int      bundle = 1 + way;
        const uint32_t n = way % 2 > 0 ? N_EXPERTS / 2 : N_EXPERTS;
        const bool     defers = way < 2;
        standin_set_faults(&(standin_faults){.lags = WHENEVER_WAITED_FOR});
        hypura_vram_defer(t.vram, defers ? LAST_MATRIX : -1);
        assert_int_equal(hypura_vram_load(t.vram, bundle, 1, t.experts, n, slots, &n_missing), HYPURA_OK);
        assert_true(n_missing > 1 && hypura_vram_has_deferred(t.vram) == defers);
        hypura_vram_defer(t.vram, -1);
        fill_and_compare(&t, bundle);
    }
    end_stages(&t);
}

/* The same of what the processor computed, and nobody waits for. */
static void stages_wait_for_what_is_sent_beside(void **state)
{
    (void)state;
    enum { BUNDLE = 1 };
    stage_test t;
    uint32_t   slots[N_EXPERTS];
    begin_stages(&t, HYPURA_GPU_MISSES_CPU);
    standin_set_faults(&(standin_faults){.lags = WHENEVER_WAITED_FOR});
    assert_true(hypura_vram_lease(t.vram, BUNDLE, 1, t.experts, N_EXPERTS, slots));
    for (uint32_t i = 0; i < N_EXPERTS; i++) {
        assert_int_equal(hypura_pager_wait_expert(t.model->pager, BUNDLE, slots[i], UINT32_MAX), HYPURA_OK);
    }
    assert_int_equal(hypura_vram_pass(t.vram, BUNDLE, 1, t.experts, N_EXPERTS, slots), 0);
    assert_int_equal(hypura_vram_send_beside(t.vram, BUNDLE, t.experts, N_EXPERTS), HYPURA_OK);
    assert_true(t.vram->beside.n > 1);
    fill_and_compare(&t, BUNDLE);
    end_stages(&t);
}

/* Two contexts take turns: what one has queued has ended when the other one begins. */
static void what_another_instance_was_given_has_ended(void **state)
{
    (void)state;
    stage_test t;
    begin_stages(&t, HYPURA_GPU_MISSES_UPLOAD);
    ggml_backend_t other = ggml_backend_dev_init(t.vram->device, NULL);
    struct ggml_tensor *given = hypura_vram_given(t.vram, 0);
    const int32_t sent = 4711;
    int32_t there = 0;
    assert_non_null(other);
    standin_set_faults(&(standin_faults){.lags = WHENEVER_WAITED_FOR});
    ggml_backend_tensor_set_async(t.backend, given, &sent, 0, sizeof(sent));
    ggml_backend_tensor_get(given, &there, 0, sizeof(there));
    assert_int_not_equal(there, sent); /* not before it is waited for */
    hypura_vram_begin(t.vram, other);
    ggml_backend_tensor_get(given, &there, 0, sizeof(there));
    assert_int_equal(there, sent);
    standin_set_faults(&(standin_faults){0});
    hypura_vram_forget(t.vram, other);
    ggml_backend_free(other);
    end_stages(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MIXTURE_TEST(ids_of_what_is_computed_in_vain_are_not_looked_at),
        MIXTURE_TEST(what_goes_to_a_stage_is_leased_until_it_is_there),
        MIXTURE_TEST(stages_wait_for_all_of_what_slots_get),
        MIXTURE_TEST(stages_wait_for_what_is_sent_beside),
        MIXTURE_TEST(what_another_instance_was_given_has_ended),
    };
    return cmocka_run_group_tests(tests, gpu_setup, teardown);
}
