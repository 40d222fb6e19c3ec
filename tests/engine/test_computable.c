/*
 * test_computable.c - which types of weights the CPU backend computes with; that it really does is left to engine_archs.
 */
#include "engine/prepare/computable.h"

#include "ggml-cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct ggml_tensor *of_type(struct ggml_tensor *tensor, enum ggml_type type)
{
    *tensor = (struct ggml_tensor){.type = type};
    return tensor;
}

static bool computes(enum ggml_op op, enum ggml_type a, enum ggml_type b, int src)
{
    struct ggml_tensor sources[2];
    struct ggml_tensor node = {.op = op, .type = GGML_TYPE_F32};
    node.src[0] = of_type(&sources[0], a);
    node.src[1] = of_type(&sources[1], b);
    return hypura_computable(&node, src);
}

static void test_products(void **state)
{
    (void)state;
    static const enum ggml_type good[] = {GGML_TYPE_F32,  GGML_TYPE_F16,   GGML_TYPE_BF16,    GGML_TYPE_Q4_0,
                                          GGML_TYPE_Q4_K, GGML_TYPE_MXFP4, GGML_TYPE_IQ2_XXS, GGML_TYPE_TQ2_0};
    static const enum ggml_type bad[] = {GGML_TYPE_I8,  GGML_TYPE_I16,  GGML_TYPE_I32, GGML_TYPE_I64,
                                         GGML_TYPE_F64, GGML_TYPE_Q8_1, GGML_TYPE_Q8_K};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(computes(GGML_OP_MUL_MAT, good[i], GGML_TYPE_F32, 0));
        assert_true(computes(GGML_OP_MUL_MAT_ID, good[i], GGML_TYPE_F32, 0));
        assert_true(computes(GGML_OP_GET_ROWS, good[i], GGML_TYPE_I32, 0));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(computes(GGML_OP_MUL_MAT, bad[i], GGML_TYPE_F32, 0));
        assert_false(computes(GGML_OP_MUL_MAT_ID, bad[i], GGML_TYPE_F32, 0));
        assert_int_equal(computes(GGML_OP_GET_ROWS, bad[i], GGML_TYPE_I32, 0), bad[i] == GGML_TYPE_I32);
    }
    assert_true(computes(GGML_OP_MUL_MAT, GGML_TYPE_F32, GGML_TYPE_F16, 1)); /* of two weights */
    assert_false(computes(GGML_OP_MUL_MAT, GGML_TYPE_F32, GGML_TYPE_I32, 1));
    assert_true(computes(GGML_OP_GET_ROWS, GGML_TYPE_F32, GGML_TYPE_I32, 1)); /* which rows */
}

static void test_element_by_element(void **state)
{
    (void)state;
    static const enum ggml_op ops[] = {GGML_OP_ADD, GGML_OP_SUB, GGML_OP_MUL, GGML_OP_DIV};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        assert_true(computes(ops[i], GGML_TYPE_F32, GGML_TYPE_F32, 1));
        assert_true(computes(ops[i], GGML_TYPE_F16, GGML_TYPE_F32, 0));
        assert_false(computes(ops[i], GGML_TYPE_F32, GGML_TYPE_F16, 1)); /* a norm of halves */
        assert_false(computes(ops[i], GGML_TYPE_F32, GGML_TYPE_I32, 1));
        assert_false(computes(ops[i], GGML_TYPE_F32, GGML_TYPE_Q8_0, 1));
        assert_false(computes(ops[i], GGML_TYPE_I32, GGML_TYPE_F32, 0));
        assert_int_equal(computes(ops[i], GGML_TYPE_Q8_0, GGML_TYPE_F32, 0), ops[i] == GGML_OP_ADD);
    }
    assert_true(computes(GGML_OP_ADD_ID, GGML_TYPE_F32, GGML_TYPE_F32, 1));
    assert_false(computes(GGML_OP_ADD_ID, GGML_TYPE_F32, GGML_TYPE_F16, 1));
}

static void test_other_operations(void **state)
{
    (void)state;
    assert_true(computes(GGML_OP_SSM_CONV, GGML_TYPE_F32, GGML_TYPE_F32, 1));
    assert_false(computes(GGML_OP_SSM_CONV, GGML_TYPE_F32, GGML_TYPE_I16, 1));
    assert_true(computes(GGML_OP_VIEW, GGML_TYPE_I64, GGML_TYPE_F32, 0)); /* computes nothing */
}

int main(void)
{
    ggml_cpu_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_element_by_element),
        cmocka_unit_test(test_other_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
