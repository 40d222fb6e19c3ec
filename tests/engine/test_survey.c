/*
 * test_survey.c - what is known of a model before weights are read: the graph's uses
 * of tensors, and memory for several conversations.
 */
#include "engine_fixture.h"

#include "engine/model/model.h"
#include "engine/prepare/estimate.h"
#include "engine/prepare/survey.h"

#include "ggml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hypura_survey *survey_with(const char *path, hypura_map **map, uint32_t n_context, hypura_nodes *others)
{
    hypura_error error;
    hypura_survey *survey = NULL;
    uint64_t vocab_bytes = 0;
    hypura_context_options options = {.n_context = n_context, .n_ubatch = 32, .n_outputs = 1, .n_threads = 1};
    fixture_ok(hypura_map_open(path, map, &error), &error);
    fixture_ok(hypura_survey_take(*map, &options, &(hypura_load_gpu){.n = 0}, others, NULL, NULL, &survey, &vocab_bytes, &error), &error);
    assert_int_equal(survey->n_uses, (*map)->n_tensors);
    assert_true(vocab_bytes > 0);
    return survey;
}

static hypura_status look_at_texts(void *user, const struct llama_model *model, hypura_error *error)
{
    (void)error;
    *(int *)user = llama_vocab_type(llama_model_get_vocab(model));
    return HYPURA_OK;
}

/* Whoever looks at a model sees its tokens' texts; without them the survey is the same. */
static void texts_of_tokens_are_read_for_who_looks(void **state)
{
    (void)state;
    hypura_error error;
    hypura_map *map = NULL;
    hypura_survey *survey[2] = {NULL};
    uint64_t vocab_bytes[2] = {0};
    int type = LLAMA_VOCAB_TYPE_NONE;
    const hypura_context_options options = {.n_context = 256, .n_ubatch = 32, .n_outputs = 1, .n_threads = 1};
    fixture_ok(hypura_map_open(fixture_model("smollm2-135m.gguf"), &map, &error), &error);
    assert_int_equal(map->n_vocabulary, 49152);
    for (int looks = 0; looks < 2; looks++) {
        fixture_ok(hypura_survey_take(map, &options, &(hypura_load_gpu){.n = 0}, NULL, looks ? look_at_texts : NULL, &type,
                                      &survey[looks], &vocab_bytes[looks], &error),
                   &error);
    }
    assert_int_equal(type, LLAMA_VOCAB_TYPE_BPE);
    assert_int_equal(vocab_bytes[0], vocab_bytes[1]);
    assert_int_equal(survey[0]->kv_bytes, survey[1]->kv_bytes);
    assert_int_equal(survey[0]->compute_bytes, survey[1]->compute_bytes);
    assert_memory_equal(survey[0]->uses, survey[1]->uses, (size_t)survey[0]->n_uses * sizeof(*survey[0]->uses));
    hypura_survey_free(survey[0]);
    hypura_survey_free(survey[1]);
    hypura_map_close(map);
}

static hypura_survey *survey_of(const char *path, hypura_map **map, uint32_t n_context)
{
    return survey_with(path, map, n_context, NULL);
}

static void survey_of_a_dense_model(void **state)
{
    (void)state;
    hypura_map *map = NULL;
    hypura_survey *survey = survey_of(fixture_model("smollm2-135m.gguf"), &map, 4096);
    uint32_t last_order = 0;
    int n_ffn = 0;
    for (int layer = 0; layer < map->n_layers; layer++) {
        static const char *const parts[] = {"ffn_gate", "ffn_up", "ffn_down"};
        for (size_t i = 0; i < 3; i++) {
            char name[64];
            snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, parts[i]);
            const hypura_use *use = &survey->uses[hypura_map_find(map, name)];
            assert_int_equal(use->flags, HYPURA_USE_MUL_MAT);
            assert_int_equal(use->n_mul_mat, 1);
            assert_true(use->order > last_order);
            last_order = use->order;
            n_ffn++;
        }
    }
    assert_int_equal(n_ffn, 90);
    /* The embeddings are tied: looked up at the beginning, multiplied at the end. */
    const hypura_use *embedding = &survey->uses[hypura_map_find(map, "token_embd.weight")];
    assert_int_equal(embedding->flags, HYPURA_USE_GET_ROWS | HYPURA_USE_MUL_MAT);
    assert_true(embedding->order > last_order);
    assert_int_equal(survey->uses[hypura_map_find(map, "output_norm.weight")].flags, HYPURA_USE_OTHER);
    /* 30 layers, keys and values of 3 heads of 64 in 16 bits. */
    assert_int_equal(survey->kv_bytes, UINT64_C(30) * 2 * 3 * 64 * 2 * 4096);
    assert_true(survey->compute_bytes > 0);
    hypura_survey_free(survey);
    hypura_map_close(map);
}

/* Attention, state spaces, linear attention, windows, sinks: what a token computes beside
 * products with weights is found in all of them, and the processor can compute it. */
static void the_rest_of_a_graph_is_measured(void **state)
{
    (void)state;
    static const char *const archs[] = {"olmoe-moe.gguf",  "deepseek2-moe.gguf", "mamba2-dense.gguf",
                                        "gpt-oss-moe.gguf", "gemma3-dense.gguf",  "qwen3next-moe.gguf",
                                        "bloom-dense.gguf", "kimi-linear-moe.gguf"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        hypura_map *map = NULL;
        hypura_error error;
        double seconds = 0.0;
        hypura_nodes *others = hypura_nodes_open(4096, HYPURA_FORECAST_TOKENS, i == 0 ? 9 : 2);
        assert_non_null(others);
        hypura_survey *survey = survey_with(fixture_arch(archs[i]), &map, 4096, others);
        for (int kind = 0; hypura_nodes_kind(others, kind); kind++) {
            const struct ggml_tensor *node = hypura_nodes_kind(others, kind);
            if (node->op == GGML_OP_FLASH_ATTN_EXT) {
                assert_in_range(node->src[1]->ne[1], 1, HYPURA_FORECAST_TOKENS);
            }
            if (node->op == GGML_OP_MUL_MAT_ID) { /* a product: not told, and not of all experts */
                assert_in_range(node->src[0]->ne[2], 1, node->src[2]->ne[0]);
            }
        }
        fixture_ok(hypura_probe_nodes(others, 2, 50000, &seconds, &(bool){false}, &error), &error);
        assert_true(seconds > 0.0);
        hypura_nodes_close(others);
        hypura_survey_free(survey);
        hypura_map_close(map);
    }
}

static void survey_of_a_mixture(void **state)
{
    (void)state;
    hypura_map *map = NULL;
    hypura_survey *survey = survey_of(fixture_arch("olmoe-moe.gguf"), &map, 256);
    int n = 0;
    for (int i = 0; i < map->n_tensors; i++) {
        if (map->tensors[i].role == HYPURA_ROLE_EXPERT) {
            assert_int_equal(survey->uses[i].flags, HYPURA_USE_MUL_MAT_ID);
            assert_int_equal(survey->uses[i].order, UINT32_MAX);
            n++;
        } else if (map->tensors[i].role == HYPURA_ROLE_ROUTER) {
            assert_int_equal(survey->uses[i].flags, HYPURA_USE_MUL_MAT);
        }
    }
    assert_int_equal(n, 3 * map->n_layers);
    hypura_survey_free(survey);
    hypura_map_close(map);
}

/* Of all conversations together, which is no number that wraps. */
static void contexts_that_cannot_be_counted(void **state)
{
    (void)state;
    const uint32_t context = 1 << 27;
    const char *key = "llama.context_length";
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("llama-dense.gguf"), &n);
    char *at = memmem(bytes, n, key, strlen(key));
    assert_non_null(at);
    memcpy(at + strlen(key) + 4, &context, sizeof(context));
    const char *path = fixture_path("long.gguf");
    fixture_write(path, bytes, n);
    free(bytes);
    hypura_preparation prepared;
    hypura_error error;
    const hypura_model_options options = {.path = path, .n_context = context, .n_threads = 1, .cache_dir = fixture_cache_dir()};
    fixture_fails(HYPURA_ERR_USAGE, hypura_prepare_shared(&options, 32, 0, NULL, &prepared, &error), &error,
                  "32 conversations of 134217728 tokens");
}

static uint64_t shared_memory(const char *name, uint64_t memory_bytes, uint32_t n_sequences, uint32_t *n_checkpoints)
{
    hypura_preparation prepared;
    hypura_error error;
    const hypura_model_options options = {.path = fixture_arch(name),
                                          .memory_bytes = memory_bytes,
                                          .n_context = 256,
                                          .n_threads = 1,
                                          .cache_dir = fixture_cache_dir()};
    fixture_ok(hypura_prepare_shared(&options, n_sequences, 0, NULL, &prepared, &error), &error);
    const uint64_t overhead_bytes = prepared.plan->overhead_bytes;
    *n_checkpoints = prepared.n_checkpoints;
    hypura_prepare_clear(&prepared);
    return overhead_bytes;
}

static void copies_of_windows_and_states_are_planned_for(void **state)
{
    (void)state;
    static const char *const names[] = {"gemma3-dense.gguf", "mamba2-dense.gguf", "falcon-h1-dense.gguf"};
    uint32_t n;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const uint64_t one = shared_memory(names[i], UINT64_C(1) << 30, 1, &n);
        assert_int_equal(n, 4);
        const uint64_t four = shared_memory(names[i], UINT64_C(1) << 30, 4, &n);
        assert_int_equal(n, 4);
        assert_true(four > one); /* each conversation has copies of its own */
        /* Where there is less memory there are fewer. */
        const uint64_t fewer = shared_memory(names[i], UINT64_C(100) << 20, 32, &n);
        assert_true(n < 4);
        assert_true(fewer < one + (UINT64_C(100) << 20) / 16);
    }
    /* What can be taken back token by token needs none. */
    const uint64_t one = shared_memory("llama-dense.gguf", UINT64_C(1) << 30, 1, &n);
    assert_true(shared_memory("llama-dense.gguf", UINT64_C(1) << 30, 4, &n) == one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survey_of_a_dense_model),
        cmocka_unit_test(texts_of_tokens_are_read_for_who_looks),
        cmocka_unit_test(the_rest_of_a_graph_is_measured),
        cmocka_unit_test(survey_of_a_mixture),
        cmocka_unit_test(contexts_that_cannot_be_counted),
        cmocka_unit_test(copies_of_windows_and_states_are_planned_for),
    };
    return cmocka_run_group_tests_name("engine survey", tests, fixture_setup, fixture_teardown);
}
