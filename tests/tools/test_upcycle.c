/*
 * test_upcycle.c - `mkmodel upcycle`: the experts are the dense network, each in an
 * order of its own, and compute what it computes.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "logits.h"
#include "run.h"

enum { N_LAYERS = 2, N_EXPERTS = 6, MAX_BLOCKS = 1024 };

/* Index of the stretch of `bytes` in data that equals `wanted`; fails unless there
 * is exactly one. */
static size_t find_only(const uint8_t *data, size_t n, size_t bytes, const uint8_t *wanted)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(data + i * bytes, wanted, bytes) == 0) {
            assert_true(found == SIZE_MAX);
            found = i;
        }
    }
    assert_true(found != SIZE_MAX);
    return found;
}

/* Reads off the order in which an expert's gate holds the groups of dense rows. */
static void read_order(const uint8_t *dense, const uint8_t *expert, size_t bytes, size_t n_blocks, size_t *order)
{
    bool seen[MAX_BLOCKS] = {false};
    size_t group_bytes = bytes / n_blocks;
    for (size_t b = 0; b < n_blocks; b++) {
        order[b] = find_only(dense, n_blocks, group_bytes, expert + b * group_bytes);
        assert_false(seen[order[b]]);
        seen[order[b]] = true;
    }
}

static void check_rows(const uint8_t *dense, const uint8_t *expert, size_t bytes, size_t n_blocks, const size_t *order)
{
    size_t group_bytes = bytes / n_blocks;
    for (size_t b = 0; b < n_blocks; b++) {
        assert_memory_equal(expert + b * group_bytes, dense + order[b] * group_bytes, group_bytes);
    }
}

static void check_columns(const uint8_t *dense, const uint8_t *expert, size_t bytes, size_t n_blocks,
                          size_t block_bytes, const size_t *order)
{
    size_t row_bytes = n_blocks * block_bytes;
    for (size_t row = 0; row < bytes / row_bytes; row++) {
        for (size_t b = 0; b < n_blocks; b++) {
            assert_memory_equal(expert + row * row_bytes + b * block_bytes,
                                dense + row * row_bytes + order[b] * block_bytes, block_bytes);
        }
    }
}

static const uint8_t *layer_data(const gguf_file *f, int layer, const char *suffix, size_t *bytes)
{
    char name[GGML_MAX_NAME];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, suffix);
    return tensor_data(f, name, bytes);
}

static void check_layer(const gguf_file *dense, const gguf_file *moe, int layer)
{
    static const char *const matrices[] = {"ffn_gate", "ffn_up", "ffn_down"};
    const uint8_t *from[3];
    const uint8_t *to[3];
    size_t bytes[3];
    for (int i = 0; i < 3; i++) {
        char name[32];
        size_t moe_bytes = 0;
        snprintf(name, sizeof name, "%s_exps", matrices[i]);
        from[i] = layer_data(dense, layer, matrices[i], &bytes[i]);
        to[i] = layer_data(moe, layer, name, &moe_bytes);
        assert_int_equal(moe_bytes, bytes[i] * N_EXPERTS);
    }
    char down[GGML_MAX_NAME];
    snprintf(down, sizeof down, "blk.%d.ffn_down.weight", layer);
    int64_t id = gguf_find_tensor(dense->header, down);
    enum ggml_type type = gguf_get_tensor_type(dense->header, id);
    size_t n_blocks = (size_t)(gguf_get_tensor_ne(dense->header, id)[0] / ggml_blck_size(type));
    assert_in_range(n_blocks, 2, MAX_BLOCKS);
    size_t orders[N_EXPERTS][MAX_BLOCKS];
    for (size_t e = 0; e < N_EXPERTS; e++) {
        read_order(from[0], to[0] + e * bytes[0], bytes[0], n_blocks, orders[e]);
        check_rows(from[1], to[1] + e * bytes[1], bytes[1], n_blocks, orders[e]);
        check_columns(from[2], to[2] + e * bytes[2], bytes[2], n_blocks, ggml_type_size(type), orders[e]);
        for (size_t other = 0; other < e; other++) {
            assert_memory_not_equal(orders[e], orders[other], n_blocks * sizeof orders[e][0]);
        }
    }
}

static void check_metadata(const gguf_file *dense, const gguf_file *moe)
{
    assert_string_equal(gguf_get_val_str(moe->header, gguf_find_key(moe->header, "general.architecture")), "llama");
    assert_int_equal(gguf_get_val_u32(moe->header, gguf_find_key(moe->header, "llama.expert_count")), N_EXPERTS);
    assert_int_equal(gguf_get_val_u32(moe->header, gguf_find_key(moe->header, "llama.expert_used_count")), 2);
    for (int64_t i = 0; i < gguf_get_n_tensors(dense->header); i++) {
        const char *name = gguf_get_tensor_name(dense->header, i);
        if (strstr(name, "ffn_gate.") || strstr(name, "ffn_up.") || strstr(name, "ffn_down.")) {
            assert_int_equal(gguf_find_tensor(moe->header, name), -1);
        } else {
            size_t from_bytes = 0;
            size_t to_bytes = 0;
            const uint8_t *from = tensor_data(dense, name, &from_bytes);
            const uint8_t *to = tensor_data(moe, name, &to_bytes);
            assert_int_equal(from_bytes, to_bytes);
            assert_memory_equal(from, to, from_bytes);
        }
    }
}

/* The normalised mean squared difference of two models' logits. */
static double logits_difference(const char *a_path, const char *b_path)
{
    int n_vocab[2] = {0};
    int n_steps[2] = {0};
    float *a = model_logits(a_path, &n_vocab[0], &n_steps[0]);
    float *b = model_logits(b_path, &n_vocab[1], &n_steps[1]);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(n_vocab[0], n_vocab[1]);
    double difference = 0.0;
    double size = 0.0;
    for (int i = 0; i < n_vocab[0] * n_steps[0]; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)a[i] * (double)a[i];
    }
    free(a);
    free(b);
    assert_true(size > 0.0);
    return difference / size;
}

static void make_pair(const char *type)
{
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "dense.gguf", "--layers", "2", "--type", type), 0);
    assert_int_equal(MKMODEL_RUN("upcycle", "dense.gguf", "moe.gguf", "--experts", "6", "--top-k", "2"), 0);
}

static void test_experts_are_orders_of_the_dense_network(void **state)
{
    (void)state;
    static const char *const types[] = {"f32", "f16", "q4_0", "q4_1", "q8_0", "mxfp4", "q4_K", "q6_K"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        make_pair(types[i]);
        gguf_file dense = open_gguf("dense.gguf");
        gguf_file moe = open_gguf("moe.gguf");
        check_metadata(&dense, &moe);
        for (int layer = 0; layer < N_LAYERS; layer++) {
            check_layer(&dense, &moe, layer);
        }
        close_gguf(&dense);
        close_gguf(&moe);
    }
}

/* In f32 nothing but the order of sums differs; quantised activations add the
 * rounding of blocks, which are the same blocks. */
static void test_mixture_computes_what_its_source_computes(void **state)
{
    (void)state;
    static const char *const types[] = {"f32", "q4_0", "q4_K"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        make_pair(types[i]);
        double difference = logits_difference("dense.gguf", "moe.gguf");
        if (!(difference < 1e-6)) {
            fail_msg("%s: normalised error %g", types[i], difference);
        }
    }
}

/* ... and would not if the slices of different experts met. */
static void test_mixture_depends_on_its_slices(void **state)
{
    (void)state;
    make_pair("f32");
    gguf_file moe = open_gguf("moe.gguf");
    size_t bytes = 0;
    size_t slice = (size_t)(layer_data(&moe, 0, "ffn_down_exps", &bytes) - moe.bytes);
    size_t expert = bytes / N_EXPERTS;
    uint8_t *first = malloc(expert);
    assert_non_null(first);
    memcpy(first, moe.bytes + slice, expert);
    memmove(moe.bytes + slice, moe.bytes + slice + expert, bytes - expert);
    memcpy(moe.bytes + slice + bytes - expert, first, expert);
    FILE *file = fopen("mixed-up.gguf", "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(moe.bytes, 1, moe.n_bytes, file), moe.n_bytes);
    assert_int_equal(fclose(file), 0);
    free(first);
    close_gguf(&moe);
    assert_true(logits_difference("moe.gguf", "mixed-up.gguf") > 1e-3);
}

static void test_routers_differ_and_are_scaled(void **state)
{
    (void)state;
    make_pair("f32");
    gguf_file moe = open_gguf("moe.gguf");
    size_t bytes = 0;
    float rows[N_EXPERTS][256];
    const uint8_t *router = layer_data(&moe, 1, "ffn_gate_inp", &bytes);
    assert_int_equal(bytes, sizeof rows);
    memcpy(rows, router, bytes);
    for (size_t e = 0; e < N_EXPERTS; e++) {
        double square = 0.0;
        for (size_t i = 0; i < 256; i++) {
            square += (double)rows[e][i] * (double)rows[e][i];
        }
        /* norms are 1, so a state has length sqrt(256): logits of deviation 2 */
        assert_true(square > 3.0 && square < 5.0);
        assert_true(e == 0 || memcmp(rows[e], rows[0], sizeof rows[e]) != 0);
    }
    close_gguf(&moe);
}

static void test_same_seed_same_bytes(void **state)
{
    (void)state;
    make_pair("q4_0");
    assert_int_equal(MKMODEL_RUN("upcycle", "dense.gguf", "again.gguf", "--experts", "6", "--top-k", "2"), 0);
    assert_true(are_equal_files("moe.gguf", "again.gguf"));
    assert_int_equal(
        MKMODEL_RUN("upcycle", "dense.gguf", "other.gguf", "--experts", "6", "--top-k", "2", "--seed", "2"), 0);
    assert_false(are_equal_files("moe.gguf", "other.gguf"));
}

/* Of eight bits four are left: the same network, a little coarser, and what was in full precision still is. */
static void test_matrices_of_layers_get_the_type_asked_for(void **state)
{
    (void)state;
    make_pair("q8_0");
    assert_int_equal(MKMODEL_RUN("upcycle", "dense.gguf", "coarse.gguf", "--experts", "6", "--top-k", "2", "--type",
                                 "q4_0"),
                     0);
    gguf_file coarse = open_gguf("coarse.gguf");
    gguf_file moe = open_gguf("moe.gguf");
    for (int64_t i = 0; i < gguf_get_n_tensors(moe.header); i++) {
        const char *name = gguf_get_tensor_name(moe.header, i);
        const enum ggml_type was = gguf_get_tensor_type(moe.header, i);
        const bool converted = strncmp(name, "blk.", 4) == 0 && was == GGML_TYPE_Q8_0;
        assert_int_equal(gguf_get_tensor_type(coarse.header, gguf_find_tensor(coarse.header, name)),
                         converted ? GGML_TYPE_Q4_0 : was);
    }
    close_gguf(&coarse);
    close_gguf(&moe);
    const double difference = logits_difference("moe.gguf", "coarse.gguf");
    assert_true(difference > 1e-6 && difference < 0.2);
    assert_int_equal(MKMODEL_RUN("upcycle", "dense.gguf", "none.gguf", "--experts", "6", "--top-k", "2", "--type",
                                 "q4_9"),
                     2);
}

/* 768 hidden units are three blocks of 256: six orders, not seven. */
static void test_too_few_orders_is_an_error(void **state)
{
    (void)state;
    make_pair("q4_K");
    assert_int_equal(MKMODEL_RUN("upcycle", "dense.gguf", "none.gguf", "--experts", "7", "--top-k", "2"), 1);
    assert_non_null(strstr(last_stderr(), "dense.gguf"));
    assert_non_null(strstr(last_stderr(), "6 orders"));
}

static void test_mixtures_and_strangers_are_refused(void **state)
{
    (void)state;
    make_pair("q4_0");
    assert_int_equal(MKMODEL_RUN("upcycle", "moe.gguf", "none.gguf", "--experts", "2", "--top-k", "1"), 1);
    assert_non_null(strstr(last_stderr(), "moe.gguf"));
    assert_int_equal(MKMODEL_RUN("shape", "qwen3-tiny", "qwen.gguf"), 0);
    assert_int_equal(MKMODEL_RUN("upcycle", "qwen.gguf", "none.gguf", "--experts", "2", "--top-k", "1"), 1);
    assert_non_null(strstr(last_stderr(), "qwen.gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts_are_orders_of_the_dense_network),
        cmocka_unit_test(test_mixture_computes_what_its_source_computes),
        cmocka_unit_test(test_mixture_depends_on_its_slices),
        cmocka_unit_test(test_routers_differ_and_are_scaled),
        cmocka_unit_test(test_same_seed_same_bytes),
        cmocka_unit_test(test_matrices_of_layers_get_the_type_asked_for),
        cmocka_unit_test(test_too_few_orders_is_an_error),
        cmocka_unit_test(test_mixtures_and_strangers_are_refused),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
