/*
 * test_keep.c - what a prompt selected is in a GPU's slots when the tokens behind it ask for
 * it, whatever was there before, and the numbers are those of plain libllama.
 */
#include "gpu_fixture.h"

#include "engine/measure/replay.h"
#include "pager/vram_internal.h"

#include <stdlib.h>
#include <string.h>

enum { N_EXPERTS = 16, N_LAYERS = 12, N_USED = 4, N_PART = 32, N_PROMPT = 2 * N_PART, N_STEPS = 4 };

/* So much of the experts beyond the floor. */
static hypura_model_options options_of(uint32_t percent)
{
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_NAME);
    options.n_context = 2 * (N_PROMPT + N_STEPS);
    options.n_ubatch = N_PART;
    const hypura_plan plan = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&plan, percent);
    return options;
}

/* The same experts of a layer for every token; others with another turn. */
static void select_them(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    const uint32_t turn = *(const uint32_t *)user;
    for (uint32_t i = 0; i < n_used * n_tokens; i++) {
        experts[i] = (int32_t)((i % n_used * 4 + (uint32_t)layer + turn) % N_EXPERTS);
    }
}

/* A prompt in parts, with logits for its last token alone, and tokens behind it. */
static void decode(hypura_model *model, const llama_token *tokens)
{
    hypura_error error;
    for (int i = 0; i < N_PROMPT; i += N_PART) {
        fixture_ok(hypura_model_decode_part(model, tokens + i, N_PART, i + N_PART == N_PROMPT, &error), &error);
    }
    hypura_model_reset_statistics(model);
    for (int i = 0; i < N_STEPS; i++) {
        fixture_ok(hypura_model_decode(model, &tokens[N_PROMPT + i], 1, false, &error), &error);
    }
}

static size_t logits_bytes;

static float *logits_of(const hypura_model *model)
{
    logits_bytes = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)) * sizeof(float);
    float *logits = malloc(logits_bytes);
    assert_non_null(logits);
    memcpy(logits, llama_get_logits_ith(model->ctx, -1), logits_bytes);
    return logits;
}

enum { N_TURNS = 4 };

/* Turns of other experts each; what the last token of each puts out. */
static void run_turns(uint32_t percent, float *logits[N_TURNS], hypura_statistics statistics[N_TURNS])
{
    const hypura_model_options options = options_of(percent);
    hypura_model *model = NULL;
    hypura_error error;
    llama_token tokens[N_PROMPT + N_STEPS];
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){0}, &model, &error), &error);
    hypura_replay_fill(tokens, N_PROMPT + N_STEPS, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
    const vram_pool *pool = &model->pager->vrams[0]->pools[0];
    assert_true(pool->n_lasting >= N_LAYERS * N_USED);
    assert_true(percent == 100 || pool->n_lasting <= N_LAYERS * N_EXPERTS * 2 / 3); /* not all layers as they come */
    uint32_t turn = 0;
    hypura_gpu_set_select(model->gpus.list[0], select_them, &turn);
    for (; turn < N_TURNS; turn++) {
        llama_memory_clear(llama_get_memory(model->ctx), true);
        decode(model, tokens);
        logits[turn] = logits_of(model);
        hypura_model_statistics(model, &statistics[turn]);
    }
    hypura_model_close(model);
}

static void the_first_tokens_find_what_the_prompt_used(void **state)
{
    (void)state;
    float *expected[N_TURNS], *logits[N_TURNS];
    hypura_statistics all[N_TURNS], some[N_TURNS];
    run_turns(100, expected, all);
    run_turns(80, logits, some);
    for (int turn = 0; turn < N_TURNS; turn++) {
        assert_true(some[turn].vram_bytes_needed > 0);
        assert_int_equal(some[turn].vram_bytes_hit, some[turn].vram_bytes_needed);
        assert_int_equal(some[turn].bytes_uploaded, 0);
        assert_memory_equal(expected[turn], logits[turn], logits_bytes);
        free(expected[turn]);
        free(logits[turn]);
    }
}

/* Parts whose ids are read pass through a stage with those that they were given: what a stage had before changes nothing. */
static void a_given_part_computes_with_what_it_was_given(void **state)
{
    (void)state;
    enum { N_FEW = 12 }; /* more than slots are remapped for, fewer than take all experts of a layer */
    const hypura_model_options options = options_of(0);
    float *logits[2];
    for (int run = 0; run < 2; run++) {
        hypura_model *model = NULL;
        hypura_error error;
        hypura_statistics s;
        llama_token tokens[N_FEW];
        fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){0}, &model, &error), &error);
        hypura_replay_fill(tokens, N_FEW, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
        uint64_t needed = 0;
        for (int b = 0; b < hypura_model_map(model)->n_bundles; b++) {
            needed += N_USED * hypura_model_map(model)->bundles[b].expert_bytes;
        }
        for (uint32_t turn = run == 0 ? 1 : 0; turn < 2; turn++) {
            hypura_gpu_set_select(model->gpus.list[0], select_them, &turn);
            llama_memory_clear(llama_get_memory(model->ctx), true);
            hypura_model_reset_statistics(model);
            fixture_ok(hypura_model_decode_part(model, tokens, N_FEW, true, &error), &error);
            hypura_model_statistics(model, &s);
            assert_int_equal(s.vram_bytes_needed, needed);
        }
        logits[run] = logits_of(model);
        hypura_model_close(model);
    }
    assert_memory_equal(logits[0], logits[1], logits_bytes);
    free(logits[0]);
    free(logits[1]);
}

/* Where logits of one token are wanted, the last layer of a part reads slots while the next part
 * changes them. */
static void slots_change_under_nobody(void **state)
{
    (void)state;
    llama_token tokens[N_PROMPT + N_STEPS];
    float *expected = NULL;
    for (int percent = -1; percent <= 75; percent += percent < 0 ? 11 : 65) { /* plain, 10, 75 */
        hypura_model_options options = options_of(percent < 0 ? 0 : (uint32_t)percent);
        hypura_model *model = NULL;
        hypura_error error;
        options.plain = percent < 0;
        options.force_paging = !options.plain;
        options.vram_bytes = options.plain ? 0 : options.vram_bytes;
        fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){0}, &model, &error), &error);
        const size_t n_vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama));
        hypura_replay_fill(tokens, N_PROMPT + N_STEPS, n_vocab);
        for (int round = 0; round < (options.plain ? 1 : 3); round++) {
            llama_memory_clear(llama_get_memory(model->ctx), true);
            decode(model, tokens);
            float *logits = logits_of(model);
            if (options.plain) {
                expected = logits;
            } else {
                assert_memory_equal(expected, logits, logits_bytes);
                free(logits);
            }
        }
        hypura_statistics s;
        hypura_model_statistics(model, &s);
        assert_true(options.plain || s.vram_bytes_needed > 0);
        hypura_model_close(model);
    }
    free(expected);
}

/* What is kept is copied on the device behind what it computes; uploads to that stage, or to slots that lie in it, are not to come
 * before where they wait for nothing by themselves. */
static void uploads_do_not_overtake_what_is_kept(void **state)
{
    (void)state;
    float *expected[N_TURNS], *logits[N_TURNS];
    hypura_statistics all[N_TURNS], some[N_TURNS];
    run_turns(100, expected, all);
    standin_set_faults(&(standin_faults){.computes_late = true, .copies_overtake = true});
    for (uint32_t percent = 80; percent <= 90; percent += 10) {
        run_turns(percent, logits, some);
        for (int turn = 0; turn < N_TURNS; turn++) {
            assert_true(some[turn].vram_bytes_needed > 0);
            assert_memory_equal(expected[turn], logits[turn], logits_bytes);
            free(logits[turn]);
        }
    }
    for (int turn = 0; turn < N_TURNS; turn++) {
        free(expected[turn]);
    }
    slots_change_under_nobody(state);
}

/* How often each expert was selected, as the slots' history has it, by a prompt in parts of n tokens. Returns of how many
 * layers that is: others are whole on the GPU, and the last one sees the last token of each part alone. */
static uint32_t count_uses(uint32_t n, uint32_t *n_uses)
{
    const hypura_model_options options = options_of(80);
    hypura_model *model = NULL;
    hypura_error error;
    llama_token tokens[N_PROMPT + 1];
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){0}, &model, &error), &error);
    hypura_replay_fill(tokens, N_PROMPT + 1, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
    for (uint32_t i = 0; i < N_PROMPT; i += n) {
        fixture_ok(hypura_model_decode_part(model, tokens + i, n, i + n == N_PROMPT, &error), &error);
    }
    fixture_ok(hypura_model_decode(model, &tokens[N_PROMPT], 1, false, &error), &error); /* the last layers' are noted then */
    const hypura_vram *vram = model->pager->vrams[0];
    uint32_t n_layers = 0;
    for (int b = 0; b < N_LAYERS - 1; b++) {
        for (uint32_t e = 0; vram->bundles[b].paged && e < N_EXPERTS; e++) {
            n_uses[n_layers * N_EXPERTS + e] = hypura_cache_uses(vram->pools[0].cache, vram->bundles[b].first_key + e);
        }
        n_layers += vram->bundles[b].paged;
    }
    hypura_model_close(model);
    return n_layers;
}

/* Ids that nobody waits for, of large parts, against those that are read before their layer, of small ones. */
static void what_a_prompt_selects_is_noted(void **state)
{
    (void)state;
    uint32_t unread[N_LAYERS * N_EXPERTS], known[N_LAYERS * N_EXPERTS];
    const uint32_t n_layers = count_uses(N_PART, unread);
    assert_true(n_layers > 0);
    assert_int_equal(count_uses(N_PART / 2, known), n_layers);
    uint32_t n_all = 0, n_other = 0;
    for (uint32_t key = 0; key < n_layers * N_EXPERTS; key++) {
        n_all += known[key];
        n_other += (uint32_t)abs((int)known[key] - (int)unread[key]);
    }
    assert_int_equal(n_all, (N_PROMPT + 1) * N_USED * n_layers);
    assert_in_range(n_other, 0, n_all / 50); /* parts of other lengths are rounded in other places */
}

/* RAM that is short may lack what would go: it is noted, and slots stay as they are. */
static void short_ram_loses_nothing(void **state)
{
    (void)state;
    hypura_model_options options = options_of(50);
    hypura_model *model = NULL;
    hypura_error error;
    llama_token tokens[N_PROMPT + N_STEPS];
    const hypura_plan all = gpu_plan_of(&options);
    options.weights_bytes = all.floor_weights_bytes + (all.weights_bytes - all.floor_weights_bytes) / 3;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){0}, &model, &error), &error);
    hypura_replay_fill(tokens, N_PROMPT + N_STEPS, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
    const vram_pool *pool = &model->pager->vrams[0]->pools[0];
    uint32_t held[N_LAYERS * N_EXPERTS];
    decode(model, tokens);
    for (uint32_t slot = 0; slot < pool->n_lasting; slot++) {
        held[slot] = hypura_cache_key(pool->cache, slot);
    }
    llama_memory_clear(llama_get_memory(model->ctx), true);
    fixture_ok(hypura_model_decode_part(model, tokens, N_PART, true, &error), &error);
    for (uint32_t slot = 0; slot < pool->n_lasting; slot++) {
        assert_true(held[slot] == HYPURA_CACHE_NONE || hypura_cache_key(pool->cache, slot) == held[slot]);
    }
    hypura_model_close(model);
}

/* A copy of one matrix in a slot, on the device, as work of it. */
typedef struct slot_copy {
    struct ggml_context  *ctx;
    struct ggml_cgraph   *graph;
    struct ggml_tensor   *copy;
    ggml_backend_buffer_t buffer;
} slot_copy;

static slot_copy open_copy(hypura_vram *vram, uint32_t slot)
{
    const struct ggml_init_params params = {.mem_size = 1 << 16, .no_alloc = true};
    const struct ggml_tensor     *slots = hypura_vram_slots(vram, 0, 0);
    slot_copy made = {.ctx = ggml_init(params), .buffer = ggml_backend_buft_alloc_buffer(vram->type, slots->nb[2])};
    assert_non_null(made.ctx);
    assert_non_null(made.buffer);
    struct ggml_tensor *row = ggml_new_tensor_1d(made.ctx, GGML_TYPE_F32, (int64_t)(slots->nb[2] / sizeof(float)));
    made.copy = ggml_dup_tensor(made.ctx, row);
    row->buffer = slots->buffer;
    row->data = (char *)slots->data + slot * slots->nb[2];
    assert_int_equal(ggml_backend_tensor_alloc(made.buffer, made.copy, ggml_backend_buffer_get_base(made.buffer)), GGML_STATUS_SUCCESS);
    struct ggml_tensor *copied = ggml_cpy(made.ctx, row, made.copy);
    assert_int_equal(ggml_backend_view_init(copied), GGML_STATUS_SUCCESS);
    made.graph = ggml_new_graph_custom(made.ctx, 4, false);
    ggml_build_forward_expand(made.graph, copied);
    return made;
}

static void *copied_bytes(const slot_copy *from)
{
    void *bytes = malloc(ggml_nbytes(from->copy));
    assert_non_null(bytes);
    ggml_backend_tensor_get(from->copy, bytes, 0, ggml_nbytes(from->copy));
    return bytes;
}

/* What was given to the device before a stage is filled sees the slots that lie there as they were, however late it computes. */
static void slots_give_way_when_they_were_read(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(10);
    hypura_model *model = NULL;
    hypura_error error;
    uint32_t experts[N_EXPERTS], slots[N_EXPERTS], n_missing;
    fixture_ok(hypura_model_open_with(&options, &(hypura_model_extras){0}, &model, &error), &error);
    assert_true(hypura_model_plan(model)->gpus[0].stages_in_slots);
    hypura_vram *vram = model->pager->vrams[0];
    vram_pool *pool = &vram->pools[0];
    ggml_backend_t backend = ggml_backend_dev_init(vram->device, NULL);
    assert_non_null(backend);
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        experts[e] = e;
    }
    hypura_pager_enter(model->pager);
    hypura_vram_begin(vram, backend);
    for (int layer = 0; layer < N_LAYERS && pool->n_full < pool->n_slots; layer++) {
        assert_int_equal(hypura_vram_load(vram, layer, 1, experts, N_EXPERTS, slots, &n_missing), HYPURA_OK);
    }
    assert_int_equal(pool->n_full, pool->n_slots);
    assert_true(pool->n_slots > pool->n_lasting);
    const slot_copy work = open_copy(vram, pool->n_slots - 1);
    const size_t bytes = ggml_nbytes(work.copy);
    assert_int_equal(ggml_backend_graph_compute(backend, work.graph), GGML_STATUS_SUCCESS);
    void *before = copied_bytes(&work);
    standin_set_faults(&(standin_faults){.computes_late = true});
    assert_int_equal(ggml_backend_graph_compute_async(backend, work.graph), GGML_STATUS_SUCCESS);
    assert_int_equal(hypura_vram_fill_stage(vram, N_LAYERS - 1, 0, experts, N_EXPERTS), HYPURA_OK);
    hypura_vram_settle(vram);
    ggml_backend_synchronize(backend);
    void *late = copied_bytes(&work);
    standin_set_faults(&(standin_faults){0});
    assert_int_equal(ggml_backend_graph_compute(backend, work.graph), GGML_STATUS_SUCCESS);
    void *after = copied_bytes(&work);
    assert_memory_equal(late, before, bytes);
    assert_memory_not_equal(after, before, bytes); /* it did lie there */
    hypura_vram_forget(vram, backend);
    hypura_pager_leave(model->pager);
    free(before);
    free(late);
    free(after);
    ggml_free(work.ctx);
    ggml_backend_buffer_free(work.buffer);
    ggml_backend_free(backend);
    hypura_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_first_tokens_find_what_the_prompt_used, gpu_no_faults),
        cmocka_unit_test_teardown(a_given_part_computes_with_what_it_was_given, gpu_no_faults),
        cmocka_unit_test_teardown(slots_change_under_nobody, gpu_no_faults),
        cmocka_unit_test_teardown(slots_give_way_when_they_were_read, gpu_no_faults),
        cmocka_unit_test_teardown(uploads_do_not_overtake_what_is_kept, gpu_no_faults),
        cmocka_unit_test_teardown(what_a_prompt_selects_is_noted, gpu_no_faults),
        cmocka_unit_test_teardown(short_ram_loses_nothing, gpu_no_faults),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
