/* A route is recorded, and one that was goes through the cache. */
#include "engine/model/trace.h"
#include "hypura_measure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char path[] = HYPURA_TEST_FOLDER "/replay.trace";

static void write_route(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Layers 1 and 3 have experts; one stands twice on its line. */
static const char small_route[] = "# comment\n"
                                  "0 1 0 1\n"
                                  "0 3 2 2\n"
                                  "1 1 1 3\n"
                                  "1 3 2\n"
                                  "\n"
                                  "2 1 0 1\n"
                                  "2 3 0\n";

static void rows_follow_from_the_route(void **state)
{
    (void)state;
    write_route(small_route);
    const hypura_slot_count slots[] = {{.count = 3}, {.percent = 50}, {.count = 1000}};
    const hypura_replay_options options = {.path = path, .slots = slots, .n_slots = 3};
    hypura_replay_report report;
    assert_int_equal(hypura_replay(&options, &report, NULL), HYPURA_OK);
    assert_int_equal(report.n_tokens, 3);
    assert_int_equal(report.n_layers, 2);
    assert_int_equal(report.n_experts, 4);
    assert_int_equal(report.n_uses, 9);
    assert_int_equal(report.n_distinct, 5);
    assert_int_equal(report.n_rows, 3);
    assert_int_equal(report.rows[1].n_slots, 4); /* half of 2 layers of 4 */
    assert_int_equal(report.rows[2].n_slots, 1000);
    /* Three slots: a0 a1 b2 | a1 hits, a3 for a0 | b2 hits | a0 for a1, a1 for a3 | b0. At best a3 comes for a1, */
    assert_true(report.rows[0].lru == 2.0 / 9.0);
    assert_true(report.rows[0].belady == 3.0 / 9.0); /* and a0 hits. */
    /* Four hold all but b0: a0 hits too. */
    assert_true(report.rows[1].lru == 4.0 / 9.0);
    assert_true(report.rows[2].ours == 4.0 / 9.0 && report.rows[2].belady == 4.0 / 9.0);
    hypura_replay_report_clear(&report);
}

/* Each expert of the first layer brings one of the second: after a while all of these are foreseen. */
static void what_follows_is_foreseen(void **state)
{
    (void)state;
    enum { N_TOKENS = 160, N_EXPERTS = 16, LINE = 24 };
    static char route[2 * N_TOKENS * LINE];
    size_t at = 0;
    for (int t = 0; t < N_TOKENS; t++) {
        const int first = t * 5 % N_EXPERTS;
        at += (size_t)snprintf(route + at, sizeof(route) - at, "%d 0 %d\n%d 1 %d\n", t, first, t, (first + 3) % N_EXPERTS);
    }
    write_route(route);
    const hypura_slot_count slots[] = {{.count = 2}, {.count = 2 * N_EXPERTS}};
    const hypura_replay_options options = {.path = path, .slots = slots, .n_slots = 2};
    hypura_replay_report report;
    assert_int_equal(hypura_replay(&options, &report, NULL), HYPURA_OK);
    assert_true(report.rows[0].foreseen > 0.4 && report.rows[0].foreseen <= 0.5); /* nothing foretells the first layer */
    assert_true(report.rows[0].foreseen_right > 0.95);
    assert_true(report.rows[1].foreseen == 0.0); /* first uses alone are missed */
    hypura_replay_report_clear(&report);
}

static void slots_are_chosen_where_none_are_given(void **state)
{
    (void)state;
    write_route(small_route);
    const hypura_replay_options options = {.path = path};
    hypura_replay_report report;
    assert_int_equal(hypura_replay(&options, &report, NULL), HYPURA_OK);
    assert_true(report.n_rows > 1);
    for (int i = 0; i < report.n_rows; i++) {
        assert_true(report.rows[i].n_slots >= 1 && report.rows[i].n_slots <= 8);
        assert_true(i == 0 || report.rows[i].n_slots > report.rows[i - 1].n_slots); /* each once */
        assert_true(report.rows[i].belady >= report.rows[i].lru && report.rows[i].belady >= report.rows[i].ours);
    }
    hypura_replay_report_clear(&report);
}

static void what_is_no_route_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
    } bad[] = {{"0 0 1\n0 x 1\n", "line 2"}, {"# nothing\n", "no selection"}, {"0 0\n", "line 1"}};
    hypura_replay_report report;
    hypura_error error;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const hypura_replay_options options = {.path = path};
        write_route(bad[i].text);
        assert_int_equal(hypura_replay(&options, &report, &error), HYPURA_ERR_FORMAT);
        assert_non_null(strstr(error.message, bad[i].message));
        assert_non_null(strstr(error.message, path));
    }
    const hypura_slot_count none = {.count = 0};
    const hypura_replay_options options = {.path = path, .slots = &none, .n_slots = 1};
    write_route(small_route);
    assert_int_equal(hypura_replay(&options, &report, &error), HYPURA_ERR_USAGE);
    assert_null(report.rows);
}

/* ---- recording ------------------------------------------------------------ */

static void select_of(hypura_trace *trace, int bundle, uint32_t n_tokens, uint32_t n_used, const int32_t *ids)
{
    const hypura_selection selection = {.bundle = bundle,
                                        .selected = {.n_used = n_used,
                                                     .n_tokens = n_tokens,
                                                     .ids = (const char *)ids,
                                                     .rank_stride_bytes = sizeof(*ids),
                                                     .token_stride_bytes = n_used * sizeof(*ids)}};
    hypura_trace_on_selection(trace, &selection);
}

/* A layer that selects twice has lines of the first; one that computes the last token alone has a line for that. */
static void lines_are_of_their_tokens(void **state)
{
    (void)state;
    hypura_bundle bundles[] = {{.layer = 0, .n_experts = 4}, {.layer = 0, .n_experts = 4}, {.layer = 1, .n_experts = 4}};
    const hypura_map map = {
        .path = "m.gguf", .name = "m", .arch = "a", .n_layers = 2, .n_experts = 4, .n_experts_used = 2, .n_bundles = 3, .bundles = bundles};
    const int32_t first[] = {0, 1, 2, 3, 1, 0};
    const int32_t second[] = {3, 2, 3, 2, 3, 2};
    hypura_trace *trace;
    hypura_error error;
    char text[256] = "";
    assert_int_equal(hypura_trace_open(path, &map, 4, &trace, &error), HYPURA_OK);
    hypura_trace_begin(trace, 3);
    select_of(trace, 0, 3, 2, first);
    select_of(trace, 1, 3, 2, second);
    select_of(trace, 2, 1, 2, second);
    assert_int_equal(hypura_trace_end(trace, true, &error), HYPURA_OK);
    hypura_trace_begin(trace, 1);
    select_of(trace, 0, 1, 2, second);
    assert_int_equal(hypura_trace_end(trace, false, &error), HYPURA_OK); /* it was not computed */
    hypura_trace_begin(trace, 1);
    select_of(trace, 0, 1, 2, first + 2);
    assert_int_equal(hypura_trace_end(trace, true, &error), HYPURA_OK);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    assert_int_equal(fclose(file), 0);
    const char *lines = strstr(text, "expert...\n");
    assert_non_null(lines);
    assert_string_equal(lines + strlen("expert...\n"), "0 0 0 1\n1 0 2 3\n2 0 1 0\n2 1 3 2\n3 0 2 3\n");
    hypura_trace_begin(trace, 1);
    select_of(trace, 0, 1, 3, first);
    assert_int_equal(hypura_trace_end(trace, true, &error), HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "more than 2"));
    hypura_trace_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_of_their_tokens),
        cmocka_unit_test(rows_follow_from_the_route),
        cmocka_unit_test(what_follows_is_foreseen),
        cmocka_unit_test(slots_are_chosen_where_none_are_given),
        cmocka_unit_test(what_is_no_route_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
