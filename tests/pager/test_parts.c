/*
 * test_parts.c - matrices in parts: the cuts, and that every unit becomes whole once,
 * when its last byte arrives.
 */
#include "pager/parts.h"

#include "base/size.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_cover_the_matrix),
        cmocka_unit_test(large_matrices_have_long_parts),
        cmocka_unit_test(every_unit_is_whole_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
