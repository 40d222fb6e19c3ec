/*
 * test_widen.c - `mkmodel widen`: more hidden units, and what the source computes, whatever the type of its matrices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "logits.h"
#include "run.h"

static void make_pair(const char *type)
{
    assert_int_equal(MKMODEL_RUN("shape", "llama-tiny", "dense.gguf", "--layers", "2", "--type", type), 0);
    assert_int_equal(MKMODEL_RUN("widen", "dense.gguf", "wide.gguf", "--hidden", "8192"), 0);
}

/* Added zeros may fall between other partial sums: nothing else differs. */
static void it_says_what_its_source_says(void **state)
{
    (void)state;
    static const char *const types[] = {"f32", "q4_0", "q4_1", "q8_0", "mxfp4", "q4_K", "q6_K"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        make_pair(types[i]);
        int n_vocab[2];
        int n_steps[2];
        float *dense = model_logits("dense.gguf", &n_vocab[0], &n_steps[0]);
        float *wide = model_logits("wide.gguf", &n_vocab[1], &n_steps[1]);
        assert_non_null(dense);
        assert_non_null(wide);
        assert_int_equal(n_vocab[0], n_vocab[1]);
        double difference = 0.0;
        double size = 0.0;
        for (int k = 0; k < n_vocab[0] * n_steps[0]; k++) {
            difference += ((double)dense[k] - (double)wide[k]) * ((double)dense[k] - (double)wide[k]);
            size += (double)dense[k] * (double)dense[k];
        }
        free(dense);
        free(wide);
        if (!(size > 0.0 && difference / size < 1e-9)) {
            fail_msg("%s: normalised error %g", types[i], difference / size);
        }
    }
}

static void all_of_it_is_there_to_be_read(void **state)
{
    (void)state;
    make_pair("q4_0");
    gguf_file dense = open_gguf("dense.gguf");
    gguf_file wide = open_gguf("wide.gguf");
    const uint32_t n = gguf_get_val_u32(dense.header, gguf_find_key(dense.header, "llama.feed_forward_length"));
    assert_int_equal(gguf_get_val_u32(wide.header, gguf_find_key(wide.header, "llama.feed_forward_length")), 8192);
    assert_int_equal(gguf_get_n_tensors(dense.header), gguf_get_n_tensors(wide.header));
    for (int64_t i = 0; i < gguf_get_n_tensors(dense.header); i++) {
        const char *name = gguf_get_tensor_name(dense.header, i);
        size_t from_bytes;
        size_t to_bytes;
        const uint8_t *from = tensor_data(&dense, name, &from_bytes);
        const uint8_t *to = tensor_data(&wide, name, &to_bytes);
        const bool grows = strstr(name, "ffn_gate.") || strstr(name, "ffn_up.") || strstr(name, "ffn_down.");
        assert_int_equal(to_bytes, grows ? from_bytes / n * 8192 : from_bytes);
        if (!strstr(name, "ffn_down.")) {
            assert_memory_equal(from, to, from_bytes);
        }
    }
    close_gguf(&dense);
    close_gguf(&wide);
}

static void what_cannot_be_is_named(void **state)
{
    (void)state;
    make_pair("q4_0");
    assert_int_equal(MKMODEL_RUN("widen", "wide.gguf", "none.gguf", "--hidden", "64"), 1);
    assert_non_null(strstr(last_stderr(), "8192 hidden units already"));
    assert_int_equal(MKMODEL_RUN("widen", "dense.gguf", "none.gguf", "--hidden", "8193"), 1);
    assert_non_null(strstr(last_stderr(), "whole number of q4_0 blocks"));
    assert_int_equal(MKMODEL_RUN("upcycle", "dense.gguf", "moe.gguf", "--experts", "2", "--top-k", "1"), 0);
    assert_int_equal(MKMODEL_RUN("widen", "moe.gguf", "none.gguf", "--hidden", "8192"), 1);
    assert_non_null(strstr(last_stderr(), "mixture of experts already"));
    assert_int_equal(MKMODEL_RUN("widen", "missing.gguf", "none.gguf", "--hidden", "8192"), 1);
    assert_non_null(strstr(last_stderr(), "missing.gguf"));
    assert_int_equal(MKMODEL_RUN("widen", "dense.gguf", "none.gguf"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_its_source_says),
        cmocka_unit_test(all_of_it_is_there_to_be_read),
        cmocka_unit_test(what_cannot_be_is_named),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
