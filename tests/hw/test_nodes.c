/* What a graph computes beside products with weights: which of it is taken, how it is
 * cut to the part of the context that is filled, and that all of it can be computed. */
#include "hw/probe_nodes.h"

#include "hw_fixture.h"

#include "ggml-cpu.h"
#include "ggml.h"

enum { N_CONTEXT = 4096, N_FILLED = 512, HEAD = 64, N_HEADS = 4, N_HEADS_KV = 2 };

static struct ggml_context *context;

static int begin(void **state)
{
    (void)state;
    context = ggml_init((struct ggml_init_params){.mem_size = 4 << 20, .no_alloc = true});
    return context ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    ggml_free(context);
    return 0;
}

static double seconds_of(hypura_nodes *nodes)
{
    hypura_error error;
    double seconds = -1.0;
    const hypura_status status = hypura_probe_nodes(nodes, 2, 1000000, &seconds, &(bool){false}, &error);
    if (status != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return seconds;
}

/* A cache of N_CONTEXT rows as libllama views it: heads beside each other in a row. */
static struct ggml_tensor *view_of_cache(void)
{
    struct ggml_tensor *cache = ggml_new_tensor_2d(context, GGML_TYPE_F16, HEAD * N_HEADS_KV, N_CONTEXT);
    return ggml_permute(context, ggml_view_3d(context, cache, HEAD, N_HEADS_KV, N_CONTEXT, ggml_row_size(GGML_TYPE_F16, HEAD),
                                              cache->nb[1], 0),
                        0, 2, 1, 3);
}

static struct ggml_tensor *attention(void)
{
    struct ggml_tensor *q = ggml_new_tensor_3d(context, GGML_TYPE_F32, HEAD, 1, N_HEADS);
    struct ggml_tensor *mask = ggml_new_tensor_2d(context, GGML_TYPE_F16, N_CONTEXT, 1);
    return ggml_flash_attn_ext(context, q, view_of_cache(), view_of_cache(), mask, 0.125f, 0.0f, 0.0f);
}

static void attention_is_cut_to_what_is_filled(void **state)
{
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, N_FILLED, 2);
    hypura_nodes_add(nodes, attention());
    const struct ggml_tensor *kind = hypura_nodes_kind(nodes, 0);
    assert_int_equal(kind->op, GGML_OP_FLASH_ATTN_EXT);
    assert_int_equal(kind->src[1]->ne[1], N_FILLED);
    assert_int_equal(kind->src[2]->ne[1], N_FILLED);
    assert_int_equal(kind->src[3]->ne[0], N_FILLED);
    assert_int_equal(kind->src[1]->nb[1], HEAD * N_HEADS_KV * 2); /* a row of the cache has all heads still */
    assert_true(seconds_of(nodes) > 0.0);
    hypura_nodes_close(nodes);
}

static void attention_in_three_steps_is_cut_too(void **state)
{
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, N_FILLED, 2);
    struct ggml_tensor *q = ggml_new_tensor_3d(context, GGML_TYPE_F32, HEAD, 1, N_HEADS);
    struct ggml_tensor *mask = ggml_new_tensor_2d(context, GGML_TYPE_F32, N_CONTEXT, 1);
    struct ggml_tensor *v = ggml_new_tensor_3d(context, GGML_TYPE_F16, N_CONTEXT, HEAD, N_HEADS_KV);
    struct ggml_tensor *scores = ggml_mul_mat(context, view_of_cache(), q);
    struct ggml_tensor *weights = ggml_soft_max_ext(context, scores, mask, 0.125f, 0.0f);
    hypura_nodes_add(nodes, scores);
    hypura_nodes_add(nodes, weights);
    hypura_nodes_add(nodes, ggml_mul_mat(context, v, weights));
    assert_int_equal(hypura_nodes_kind(nodes, 0)->ne[0], N_FILLED);
    assert_int_equal(hypura_nodes_kind(nodes, 1)->ne[0], N_FILLED);
    assert_true(ggml_is_contiguous(hypura_nodes_kind(nodes, 1)));
    assert_int_equal(hypura_nodes_kind(nodes, 2)->src[0]->ne[0], N_FILLED);
    assert_int_equal(hypura_nodes_kind(nodes, 2)->ne[0], HEAD);
    assert_true(seconds_of(nodes) > 0.0);
    hypura_nodes_close(nodes);
}

static void a_short_context_stays_whole(void **state)
{
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, 0, 2);
    hypura_nodes_add(nodes, attention());
    assert_int_equal(hypura_nodes_kind(nodes, 0)->src[1]->ne[1], N_CONTEXT);
    hypura_nodes_close(nodes);
    nodes = hypura_nodes_open(N_CONTEXT, 2 * N_CONTEXT, 2);
    hypura_nodes_add(nodes, attention());
    assert_int_equal(hypura_nodes_kind(nodes, 0)->src[1]->ne[1], N_CONTEXT);
    hypura_nodes_close(nodes);
}

static void equal_nodes_are_one_kind(void **state)
{
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, N_FILLED, 2);
    struct ggml_tensor *wide = ggml_new_tensor_1d(context, GGML_TYPE_F32, 256);
    struct ggml_tensor *ids = ggml_new_tensor_1d(context, GGML_TYPE_I32, 1);
    for (int i = 0; i < 1000; i++) {
        hypura_nodes_add(nodes, ggml_rms_norm(context, wide, 1e-6f));
        hypura_nodes_add(nodes, ggml_rope(context, ggml_new_tensor_3d(context, GGML_TYPE_F32, HEAD, 4, 1), ids, HEAD, 0));
    }
    assert_non_null(hypura_nodes_kind(nodes, 1));
    assert_null(hypura_nodes_kind(nodes, 2));
    hypura_nodes_add(nodes, ggml_rms_norm(context, wide, 1e-5f)); /* another kind by its parameter */
    assert_non_null(hypura_nodes_kind(nodes, 2));
    assert_true(seconds_of(nodes) > 0.0);
    hypura_nodes_close(nodes);
}

/* A layer's feed-forward part: what it reads is what came before, and of experts there are as many as are selected. */
static void products_are_kinds_beside(void **state)
{
    enum { WIDTH = 256, HIDDEN = 512, EXPERTS = 64, USED = 4 };
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, N_FILLED, 9);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, WIDTH, 1);
    struct ggml_tensor *ids = ggml_new_tensor_2d(context, GGML_TYPE_I32, USED, 1);
    struct ggml_tensor *norm = ggml_rms_norm(context, x, 1e-6f);
    struct ggml_tensor *weight = ggml_new_tensor_2d(context, GGML_TYPE_Q4_0, WIDTH, HIDDEN);
    struct ggml_tensor *experts = ggml_new_tensor_3d(context, GGML_TYPE_Q4_0, WIDTH, HIDDEN, EXPERTS);
    struct ggml_tensor *up = ggml_mul_mat(context, weight, norm);
    struct ggml_tensor *selected = ggml_mul_mat_id(context, experts, ggml_reshape_3d(context, norm, WIDTH, 1, 1), ids);
    for (int i = 0; i < 3; i++) {
        hypura_nodes_add(nodes, norm);
        hypura_nodes_add_product(nodes, up);
        hypura_nodes_add(nodes, ggml_silu(context, up));
        hypura_nodes_add_product(nodes, selected);
    }
    const struct ggml_tensor *kinds[4];
    for (int k = 0; k < 4; k++) {
        kinds[k] = hypura_nodes_kind(nodes, k);
        assert_non_null(kinds[k]);
    }
    assert_null(hypura_nodes_kind(nodes, 4));
    assert_ptr_equal(kinds[1]->src[1]->view_src, kinds[0]);
    assert_ptr_equal(kinds[2]->src[0]->view_src, kinds[1]);
    assert_ptr_equal(kinds[3]->src[1]->view_src, kinds[0]);
    assert_null(kinds[1]->src[0]->view_src);
    assert_int_equal(kinds[3]->src[0]->ne[2], USED);
    assert_true(seconds_of(nodes) > 0.0);
    hypura_nodes_close(nodes);
}

static void few_threads_leave_products_out(void **state)
{
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, N_FILLED, 8);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, 256, 1);
    hypura_nodes_add_product(nodes, ggml_mul_mat(context, ggml_new_tensor_2d(context, GGML_TYPE_Q4_0, 256, 512), x));
    assert_null(hypura_nodes_kind(nodes, 0));
    hypura_nodes_close(nodes);
}

static void call(struct ggml_tensor *dst, int ith, int nth, void *user)
{
    (void)dst;
    (void)ith;
    (void)nth;
    (void)user;
    fail_msg("called");
}

/* Functions that belong to someone else, and what is too large to be worth its memory. */
static void what_cannot_be_measured_is_left_out(void **state)
{
    (void)state;
    hypura_nodes *nodes = hypura_nodes_open(N_CONTEXT, N_FILLED, 2);
    struct ggml_tensor *small = ggml_new_tensor_1d(context, GGML_TYPE_F32, 8);
    hypura_nodes_add(nodes, ggml_custom_4d(context, GGML_TYPE_F32, 8, 1, 1, 1, &small, 1, call, 1, NULL));
    hypura_nodes_add(nodes, ggml_scale(context, ggml_new_tensor_1d(context, GGML_TYPE_F32, 1 << 28), 2.0f));
    assert_null(hypura_nodes_kind(nodes, 0));
    assert_true(seconds_of(nodes) == 0.0);
    hypura_nodes_close(nodes);
    hypura_nodes_close(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(attention_is_cut_to_what_is_filled),
        TEST(attention_in_three_steps_is_cut_too),
        TEST(a_short_context_stays_whole),
        TEST(products_are_kinds_beside),
        TEST(few_threads_leave_products_out),
        TEST(equal_nodes_are_one_kind),
        TEST(what_cannot_be_measured_is_left_out),
    };
    return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
