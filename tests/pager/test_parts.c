/*
 * test_parts.c - matrices in parts: the cuts, that every unit becomes whole once, when its
 * last byte arrives, and that rows repacked in parts are those of llama.cpp.
 */
#include "pager/parts.h"
#include "pager/repack.h"

#include "base/size.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u

static uint64_t any(uint64_t most)
{
    return (uint64_t)rand() % most;
}

static pager_parts any_parts(void)
{
    const uint64_t unit = 32 * (1 + any(any(2) ? 200 : 40000));
    const uint64_t bytes = unit * (1 + any(40)) + (any(2) ? unit / 2 : 0);
    return pager_parts_cut(32 * any(100000), bytes, unit, PAGE * (1 + any(300)));
}

static void cuts_cover_the_matrix(void **state)
{
    (void)state;
    srand(3);
    for (int round = 0; round < 2000; round++) {
        const pager_parts parts = any_parts();
        const uint32_t    n = pager_parts_count(&parts);
        assert_in_range(n, 1, PAGER_MAX_PARTS);
        assert_int_equal(pager_parts_begin(&parts, 0), 0);
        assert_int_equal(pager_parts_begin(&parts, n), parts.bytes);
        for (uint32_t i = 1; i < n; i++) {
            assert_true(pager_parts_begin(&parts, i) > pager_parts_begin(&parts, i - 1));
            assert_int_equal((parts.offset + pager_parts_begin(&parts, i)) % PAGE, 0);
        }
    }
}

static void large_matrices_have_long_parts(void **state)
{
    (void)state;
    for (uint64_t bytes = 1000; bytes < UINT64_C(1) << 33; bytes = bytes * 3 / 2 + 1) {
        const pager_parts parts = pager_parts_cut(4095, bytes, 36864, 262144);
        assert_in_range(pager_parts_count(&parts), 1, PAGER_MAX_PARTS);
    }
}

/* In any order: a unit is handed out with the part that brings its last byte. */
static void every_unit_is_whole_once(void **state)
{
    (void)state;
    srand(5);
    for (int round = 0; round < 2000; round++) {
        const pager_parts parts = any_parts();
        const uint32_t    n = pager_parts_count(&parts);
        const uint64_t    n_units = (parts.bytes + parts.unit_bytes - 1) / parts.unit_bytes;
        bool              seen[64] = {false};
        bool              here[PAGER_MAX_PARTS] = {false};
        uint32_t          order[PAGER_MAX_PARTS];
        uint64_t          arrived = 0;
        for (uint32_t i = 0; i < n; i++) {
            const uint64_t at = any(i + 1);
            order[i] = order[at];
            order[at] = i;
        }
        for (uint32_t i = 0; i < n; i++) {
            const pager_units units = pager_parts_arrive(&parts, order[i], &arrived);
            here[order[i]] = true;
            for (uint64_t u = 0; u < n_units; u++) {
                bool whole = true;
                for (uint32_t p = 0; p < n; p++) {
                    const bool touches = pager_parts_begin(&parts, p) < (u + 1) * parts.unit_bytes &&
                                         pager_parts_begin(&parts, p + 1) > u * parts.unit_bytes;
                    whole = whole && (!touches || here[p]);
                }
                const bool now = u >= units.first && u < units.first + units.n;
                assert_int_equal(now, whole && !seen[u]);
                seen[u] = seen[u] || now;
            }
        }
        for (uint64_t u = 0; u < n_units; u++) {
            assert_true(seen[u]);
        }
    }
}

/* With a copy of a part alone, however large the matrix is: what lies behind it stays. */
static void repacked_in_parts_is_repacked(void **state)
{
    (void)state;
    enum { COLUMNS = 1024, ROWS = 704, GUARD = 1 << 17, REST = 32 };
    hypura_tensor weight = {.name = "w", .type = GGML_TYPE_Q4_0, .n_dims = 2, .ne = {COLUMNS, ROWS, 1, 1}, .role = HYPURA_ROLE_FFN};
    weight.row_bytes = ggml_row_size(GGML_TYPE_Q4_0, COLUMNS);
    weight.bytes = ROWS * weight.row_bytes;
    hypura_placement placement = {.place = HYPURA_PLACE_DENSE};
    const hypura_map map = {.path = "m.gguf", .n_tensors = 1, .tensors = &weight};
    const hypura_plan plan = {.n_placements = 1, .placements = &placement};
    hypura_repacker *repacker = NULL;
    hypura_error error;
    assert_int_equal(hypura_repacker_open(&map, &plan, HYPURA_FORM_REPACKED, &repacker, &error), HYPURA_OK);
    const size_t scratch_bytes = hypura_repacker_scratch_bytes(repacker);
    if (!hypura_repacker_of(repacker, 0)) { /* this processor has no such form */
        hypura_repacker_close(repacker);
        skip();
    }
    assert_true(scratch_bytes > 0 && scratch_bytes < weight.bytes);
    char *plain = malloc(weight.bytes);
    char *rows = malloc(weight.bytes);
    char *scratch = malloc(scratch_bytes + GUARD);
    assert_true(plain && rows && scratch);
    srand(5);
    for (size_t i = 0; i < weight.bytes; i++) {
        plain[i] = (char)any(256);
    }
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 12, .no_alloc = true});
    struct ggml_tensor *whole = ggml_new_tensor_2d(ctx, GGML_TYPE_Q4_0, COLUMNS, ROWS);
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(hypura_repack_type(), ggml_nbytes(whole));
    assert_non_null(buffer);
    assert_int_equal(ggml_backend_tensor_alloc(buffer, whole, ggml_backend_buffer_get_base(buffer)), GGML_STATUS_SUCCESS);
    ggml_backend_tensor_set(whole, plain, 0, weight.bytes);
    memcpy(rows, plain, weight.bytes);
    memset(scratch + scratch_bytes, 'g', GUARD);
    hypura_repacker_repack(repacker, 0, rows, ROWS - REST, scratch);
    hypura_repacker_repack(repacker, 0, rows + (ROWS - REST) * weight.row_bytes, REST, scratch);
    assert_memory_equal(rows, whole->data, weight.bytes);
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(scratch[scratch_bytes + i], 'g');
    }
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    hypura_repacker_close(repacker);
    free(plain);
    free(rows);
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repacked_in_parts_is_repacked),
        cmocka_unit_test(cuts_cover_the_matrix),
        cmocka_unit_test(large_matrices_have_long_parts),
        cmocka_unit_test(every_unit_is_whole_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
