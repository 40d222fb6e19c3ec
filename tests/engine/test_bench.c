/* What a bench makes of its samples, recorded routes, and one small run of each
 * kind, in this process. No figure that depends on the machine is asserted. */
#include "engine_fixture.h"

#include "engine/measure/bench.h"
#include "engine/measure/route.h"
#include "engine/prepare/experience.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- spreads and bounds --------------------------------------------------- */

static void a_spread_is_median_least_and_most(void **state)
{
    (void)state;
    double odd[] = {3.0, 1.0, 2.0};
    double even[] = {4.0, NAN, 1.0, 2.0, 3.0};
    double none[] = {NAN};
    hypura_spread spread = hypura_bench_spread(odd, 3);
    assert_true(spread.median == 2.0 && spread.min == 1.0 && spread.max == 3.0);
    spread = hypura_bench_spread(even, 5); /* what is not known does not count */
    assert_true(spread.median == 2.5 && spread.min == 1.0 && spread.max == 4.0);
    spread = hypura_bench_spread(none, 1);
    assert_true(isnan(spread.median) && isnan(spread.min) && isnan(spread.max));
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

/* 10 tokens in 2 s: of each, 80 ms waiting, 20 ms overhead, 100 ms computing. */
static hypura_bench_sample paged_sample(uint64_t bytes_read)
{
    return (hypura_bench_sample){
        .paged = true,
        .prefill = {.n_tokens = 100, .seconds = 4.0, .statistics = {.bytes_read = 1000000000, .read_wait_s = 1.0}},
        .cold = {.n_tokens = 10, .seconds = 5.0},
        .warm = {.n_tokens = 10,
                 .seconds = 2.0,
                 .cpu_seconds = 3.0,
                 .statistics = {.bytes_read = bytes_read,
                                .bytes_needed = 1000,
                                .bytes_hit = 750,
                                .read_wait_s = 0.8,
                                .overhead_s = 0.2,
                                .compute_s = 0.6,
                                .placed_s = 0.4,
                                .device_busy_s = 1.5}},
        .direct_bytes_per_s = 1e9};
}

static const char *bound_by(const double *values)
{
    hypura_spread metrics[HYPURA_N_METRICS];
    for (int m = 0; m < HYPURA_N_METRICS; m++) {
        metrics[m] = (hypura_spread){values[m], values[m], values[m]};
    }
    return hypura_bench_bound_by(metrics);
}

static void the_bound_is_the_slower_of_computing_and_reading(void **state)
{
    (void)state;
    double v[HYPURA_N_METRICS];
    const hypura_bench_sample storage = paged_sample(1600000000); /* 160 ms a token */
    hypura_bench_evaluate(&storage, v);
    assert_true(near(v[HYPURA_METRIC_DECODE_TOK_S], 5.0));
    assert_true(near(v[HYPURA_METRIC_DECODE_COLD_TOK_S], 2.0));
    assert_true(near(v[HYPURA_METRIC_PREFILL_TOK_S], 25.0));
    assert_true(near(v[HYPURA_METRIC_HIT_RATE_BYTES], 0.75));
    assert_true(near(v[HYPURA_METRIC_BYTES_PER_TOKEN], 1.6e8));
    assert_true(near(v[HYPURA_METRIC_COMPUTE_S], 0.1));
    assert_true(near(v[HYPURA_METRIC_CPU_S], 0.3));
    assert_true(near(v[HYPURA_METRIC_READ_WAIT_S], 0.08));
    assert_true(near(v[HYPURA_METRIC_OVERHEAD_S], 0.02));
    assert_true(near(v[HYPURA_METRIC_PLACED_SHARE], 0.25));
    assert_true(near(v[HYPURA_METRIC_BOUND_TOK_S], 6.25));
    assert_true(near(v[HYPURA_METRIC_BOUND_SHARE], 0.8));
    assert_true(near(v[HYPURA_METRIC_DEVICE_BUSY], 0.75));
    assert_true(near(v[HYPURA_METRIC_PREFILL_BOUND_TOK_S], 100.0 / 3.0)); /* 3 s computing, 1 s reading */
    assert_string_equal(bound_by(v), "storage");

    const hypura_bench_sample compute = paged_sample(500000000); /* 50 ms a token */
    hypura_bench_evaluate(&compute, v);
    assert_true(near(v[HYPURA_METRIC_BOUND_TOK_S], 10.0));
    assert_true(near(v[HYPURA_METRIC_BOUND_SHARE], 0.5));
    assert_string_equal(bound_by(v), "compute");
}

static void without_a_pager_there_is_no_bound(void **state)
{
    (void)state;
    double v[HYPURA_N_METRICS];
    const hypura_bench_sample plain = {.prefill = {.n_tokens = 4, .seconds = 2.0},
                                       .warm = {.n_tokens = 4, .seconds = 1.0, .drive_bytes = 400}};
    hypura_bench_evaluate(&plain, v);
    assert_true(near(v[HYPURA_METRIC_DECODE_TOK_S], 4.0));
    assert_true(near(v[HYPURA_METRIC_BYTES_PER_TOKEN], 100.0)); /* as the system counted */
    assert_true(isnan(v[HYPURA_METRIC_BOUND_TOK_S]) && isnan(v[HYPURA_METRIC_BOUND_SHARE]));
    assert_true(isnan(v[HYPURA_METRIC_HIT_RATE_BYTES]) && isnan(v[HYPURA_METRIC_PREFILL_BOUND_TOK_S]));
    assert_true(isnan(v[HYPURA_METRIC_DECODE_COLD_TOK_S])); /* of no tokens */
    assert_null(bound_by(v));
}

static void over_a_gpu_uploads_are_no_bound(void **state)
{
    (void)state;
    double v[HYPURA_N_METRICS];
    hypura_bench_sample gpu = paged_sample(0);
    gpu.warm.statistics.vram_bytes_needed = 4000000000;
    gpu.warm.statistics.vram_bytes_hit = 3000000000;
    gpu.warm.statistics.bytes_uploaded = 1000000000; /* 250 ms of 2 s */
    gpu.upload_bytes_per_s = 4e9;
    hypura_bench_evaluate(&gpu, v);
    assert_true(near(v[HYPURA_METRIC_LINK_BUSY], 0.125));
    assert_true(near(v[HYPURA_METRIC_VRAM_HIT_RATE_BYTES], 0.75));
    assert_true(isnan(v[HYPURA_METRIC_BOUND_TOK_S]) && isnan(v[HYPURA_METRIC_BOUND_SHARE]));
    assert_true(isnan(v[HYPURA_METRIC_PREFILL_BOUND_TOK_S]) && isnan(v[HYPURA_METRIC_PREFILL_BOUND_SHARE]));
    assert_null(bound_by(v));
    gpu.upload_bytes_per_s = 0.0; /* never measured */
    hypura_bench_evaluate(&gpu, v);
    assert_true(isnan(v[HYPURA_METRIC_LINK_BUSY]));
}

static void every_metric_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = 0; a < HYPURA_N_METRICS; a++) {
        assert_non_null(hypura_metric_name((hypura_metric)a));
        for (int b = 0; b < a; b++) {
            assert_string_not_equal(hypura_metric_name((hypura_metric)a), hypura_metric_name((hypura_metric)b));
        }
    }
}

/* ---- routes --------------------------------------------------------------- */

static hypura_route *route_of(const char *text)
{
    hypura_error error;
    hypura_route *route = NULL;
    const char *path = fixture_path("route");
    fixture_write(path, text, strlen(text));
    if (hypura_route_open(path, &route, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return route;
}

static void expect_picked(const hypura_route *route, uint64_t token, uint32_t layer, uint32_t n_experts,
                          const uint32_t *expected, uint32_t n)
{
    uint32_t experts[8];
    hypura_route_pick(route, token, layer, n_experts, experts, n);
    assert_memory_equal(experts, expected, n * sizeof(*expected));
}

#define EXPECT_PICKED(route, token, layer, n_experts, ...)                                                             \
    expect_picked(route, token, layer, n_experts, (const uint32_t[]){__VA_ARGS__},                                     \
                  sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void a_route_is_followed_and_begins_again(void **state)
{
    (void)state;
    hypura_route *route = route_of("# a comment\n0 0 5 3\n0 1 2 7\n\n1 0 1 0\r\n1 1 6 4\n");
    EXPECT_PICKED(route, 0, 0, 8, 5, 3);
    EXPECT_PICKED(route, 1, 1, 8, 6, 4);
    EXPECT_PICKED(route, 2, 3, 8, 2, 7);       /* token 0, layer 1 */
    EXPECT_PICKED(route, 0, 0, 8, 5);          /* fewer than recorded */
    EXPECT_PICKED(route, 0, 0, 8, 5, 3, 1, 0); /* more: from half a route away */
    EXPECT_PICKED(route, 0, 0, 4, 1, 3, 0, 2); /* modulo, distinct, then the lowest free ones */
    hypura_route_close(route);
}

static bool is_among(const uint32_t *experts, uint32_t n, uint32_t expert)
{
    for (uint32_t i = 0; i < n; i++) {
        if (experts[i] == expert) {
            return true;
        }
    }
    return false;
}

static void foretelling_is_as_right_as_asked_for(void **state)
{
    (void)state;
    hypura_route *route = route_of("0 0 5 3\n0 1 2 7\n1 0 1 0\n1 1 6 4\n2 0 9 11\n2 1 10 8\n");
    static const double recalls[] = {1.0, 0.8, 0.3};
    for (int r = 0; r < 3; r++) {
        uint32_t n_right = 0;
        const uint32_t n_tokens = 2000;
        for (uint32_t token = 0; token < n_tokens; token++) {
            hypura_route_forcing forcing = {.route = route, .n_experts = 12, .position = token / 2, .recall = recalls[r]};
            uint32_t selected[2], named[4], again[4];
            hypura_route_pick(route, token, 1, 12, selected, 2);
            hypura_route_foretell(&forcing, 1, token - token / 2, 2, named, 4);
            hypura_route_foretell(&forcing, 1, token - token / 2, 2, again, 4);
            assert_memory_equal(named, again, sizeof(named));
            for (uint32_t i = 0; i < 4; i++) {
                assert_true(named[i] < 12 && !is_among(named, i, named[i]));
            }
            n_right += is_among(named, 4, selected[0]) + is_among(named, 4, selected[1]);
        }
        assert_true(fabs(n_right / (2.0 * n_tokens) - recalls[r]) < 0.03);
    }
    hypura_route_close(route);
}

static void is_no_route(const char *text, size_t n, const char *message)
{
    hypura_error error;
    hypura_route *route = NULL;
    const char *path = fixture_path("route");
    fixture_write(path, text, n);
    assert_int_equal(hypura_route_open(path, &route, &error), HYPURA_ERR_FORMAT);
    assert_null(route);
    if (!strstr(error.message, message)) {
        fail_msg("%s, not: %s", error.message, message);
    }
}

static void what_is_no_route_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *message;
    } rows[] = {{"", "no selection"},
                {"# nothing\n", "no selection"},
                {"0 0 1\n0 x 2\n", "line 2: expected"},
                {"0 0\n", "line 1: expected"},
                {"-1 0 3\n", "line 1: expected"},
                {"0 0 1 2x\n", "line 1: expected"},
                {"0 0 99999999999999999999999999999\n", "line 1: expert 999999999999999999999999 is out of range"},
                {"0 0 1 2147483647\n", "line 1: expert 2147483647 is out of range (0 to 2147483646)"},
                {"0 4096 1\n", "line 1: layer 4096 is out of range (0 to 4095)"},
                {"0 0 1\n1048576 0 1\n", "line 2: token 1048576 is out of range (0 to 1048575)"},
                {"0 0 1\n1048575 4000 1\n", "2 selections of 1048576 tokens in 4001 layers"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        is_no_route(rows[i].text, strlen(rows[i].text), rows[i].message);
    }
    char wide[4 + 257 * 2] = "0 0";
    for (size_t i = 3; i < sizeof(wide) - 1; i += 2) {
        memcpy(wide + i, " 7", 2);
    }
    is_no_route(wide, strlen(wide), "line 1: more than 256 experts");
    char empty[9000];
    memset(empty, ' ', sizeof empty);
    is_no_route(empty, sizeof empty, "line 1: longer than 8190 bytes");
    is_no_route("0 0 1\n0\0000\n", 10, "line 2: longer than 8190 bytes, or no text");
    hypura_error error;
    hypura_route *route = NULL;
    assert_int_equal(hypura_route_open(fixture_path("missing"), &route, &error), HYPURA_ERR_IO);
}

/* Of such a file every piece is an empty line. */
static void zeros_without_end_are_no_route(void **state)
{
    (void)state;
    hypura_error error;
    hypura_route *route = NULL;
    assert_int_equal(hypura_route_open("/dev/zero", &route, &error), HYPURA_ERR_FORMAT);
    assert_null(route);
    assert_non_null(strstr(error.message, "/dev/zero, line 1"));
}

/* What a process writes while it is read, as with `bench --route <(zcat ROUTE.gz)`. */
static void a_pipe_is_no_route(void **state)
{
    (void)state;
    static const char text[] = "0 0 5 3\n";
    hypura_error error;
    hypura_route *route = NULL;
    char path[64];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], text, sizeof(text) - 1), sizeof(text) - 1);
    close(ends[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    assert_int_equal(hypura_route_open(path, &route, &error), HYPURA_ERR_IO);
    assert_null(route);
    assert_non_null(strstr(error.message, path));
    close(ends[0]);
}

static void selections_are_overwritten_and_nothing_else(void **state)
{
    (void)state;
    hypura_route *route = route_of("0 0 5 3\n1 0 1 0\n2 0 2 6\n");
    struct ggml_context *ctx = ggml_init((struct ggml_init_params){.mem_size = 1 << 16, .no_alloc = true});
    /* As libllama makes it: the first two of eight sorted experts, a view with gaps. */
    struct ggml_tensor *sorted = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 8, 3);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(buffer);
    struct ggml_tensor *top = ggml_view_2d(ctx, sorted, 2, 3, sorted->nb[1], 0);
    top->data = sorted->data;
    top->buffer = buffer;
    int32_t *data = sorted->data;
    memset(data, 0xFF, ggml_nbytes(sorted));

    hypura_route_forcing forcing = {.route = route, .n_experts = 8, .position = 10, .n_tokens = 3};
    ggml_set_name(top, "ffn_moe_weights-0");
    assert_false(hypura_route_force(top, true, &forcing));
    ggml_set_name(top, "ffn_moe_topk-0");
    assert_true(hypura_route_force(top, true, &forcing)); /* asked for, and untouched so far */
    assert_int_equal(data[0], -1);
    assert_true(hypura_route_force(top, false, &forcing));
    const int32_t expected[] = {1, 0, -1, -1, -1, -1, -1, -1, 2, 6, -1, -1, -1, -1, -1, -1, 5, 3};
    assert_memory_equal(data, expected, sizeof(expected)); /* tokens 10, 11, 12 of a route of three */
    assert_int_equal(data[18], -1);
    assert_int_equal(forcing.n_forced, 3);

    /* Of sequences decoded together each is elsewhere on the route; the last two have a result. */
    forcing = (hypura_route_forcing){.route = route, .n_experts = 8, .position = 10, .n_tokens = 4, .stride = 2};
    assert_true(hypura_route_force(top, false, &forcing));
    const int32_t places[] = {5, 3, 2, 6, 1, 0}; /* tokens 12, 14, 16 */
    for (int row = 0; row < 3; row++) {
        assert_memory_equal(data + 8 * row, places + 2 * row, 2 * sizeof(*places));
    }
    /* So does a GPU's, whose last layer is asked for the last token alone. */
    int32_t given[2];
    forcing = (hypura_route_forcing){.route = route, .n_experts = 8, .position = 10, .n_tokens = 3};
    hypura_route_select(&forcing, 0, given, 2, 1);
    assert_memory_equal(given, expected + 16, sizeof(given)); /* token 12 */
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
    hypura_route_close(route);
}

/* ---- runs ----------------------------------------------------------------- */

static hypura_bench_report bench_of(hypura_bench_options options)
{
    hypura_bench_report report;
    hypura_error error;
    options.tokens = 3;
    options.prompt_tokens = 5;
    options.runs = 2;
    options.model.n_threads = 1;
    options.model.cache_dir = options.model.cache_dir ? options.model.cache_dir : fixture_cache_dir();
    if (hypura_bench(&options, &report, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return report;
}

static void cells_and_series_are_measured(void **state)
{
    (void)state;
    static const char trace[] = "0 0 1 2\n0 1 3 0\n1 0 2 0\n";
    const uint64_t weights[] = {UINT64_C(1) << 40, 0};
    fixture_write(fixture_path("trace"), trace, sizeof(trace) - 1);
    char route[1024];
    snprintf(route, sizeof(route), "%s", fixture_path("trace"));
    hypura_bench_report report = bench_of((hypura_bench_options){.model.path = fixture_arch("qwen3moe-moe.gguf"),
                                                                 .weights_bytes = weights,
                                                                 .n_weights = 1,
                                                                 .baseline = true,
                                                                 .route = route});
    assert_int_equal(report.n_cells, 1);
    const hypura_bench_cell *cell = &report.cells[0];
    assert_true(cell->n_series >= 2);
    assert_true(cell->decode_baseline >= 1 && cell->decode_baseline < cell->n_series);
    assert_true(cell->prefill_baseline >= 1 && cell->prefill_baseline < cell->n_series);
    for (int s = 1; s < cell->n_series; s++) {
        const hypura_spread *metrics = cell->series[s].metrics;
        assert_true(metrics[HYPURA_METRIC_DECODE_TOK_S].median <=
                    cell->series[cell->decode_baseline].metrics[HYPURA_METRIC_DECODE_TOK_S].median);
        assert_true(metrics[HYPURA_METRIC_PREFILL_TOK_S].median <=
                    cell->series[cell->prefill_baseline].metrics[HYPURA_METRIC_PREFILL_TOK_S].median);
    }
    for (int s = 0; s < cell->n_series; s++) {
        assert_int_equal(cell->series[s].n_runs, 2);
        const hypura_spread *speed = &cell->series[s].metrics[HYPURA_METRIC_DECODE_TOK_S];
        assert_true(speed->min > 0.0 && speed->min <= speed->median && speed->median <= speed->max);
    }
    /* There is no limit without a process of its own, and that is told. */
    assert_int_equal(cell->series[1].limit_bytes, 0);
    assert_non_null(strstr(cell->series[1].note, "no limit"));
    hypura_bench_report_clear(&report);
}

/* Only what a run could do by itself. */
static void made_up_guesses_teach_nothing(void **state)
{
    (void)state;
    static const char trace[] = "0 0 1 2\n0 1 3 0\n1 0 2 0\n";
    const uint64_t weights = UINT64_C(1) << 40;
    char route[1024];
    char cache[1024];
    char path[1100];
    size_t n;
    snprintf(route, sizeof(route), "%s", fixture_path("trace"));
    fixture_write(route, trace, sizeof(trace) - 1);
    snprintf(cache, sizeof(cache), "%s", fixture_path("."));
    snprintf(path, sizeof(path), "%s/profile.json", fixture_cache_dir());
    char *profile = fixture_read(path, &n);
    fixture_write(fixture_path("profile.json"), profile, n);
    free(profile);
    hypura_bench_options options = {.model.path = fixture_arch("qwen3moe-moe.gguf"),
                                    .weights_bytes = &weights,
                                    .n_weights = 1,
                                    .route = route,
                                    .route_recall = 0.5f,
                                    .model.cache_dir = cache};
    for (int learns = 0; learns < 2; learns++) {
        hypura_bench_report report = bench_of(options);
        hypura_map *map = NULL;
        hypura_lessons lessons;
        hypura_error error;
        fixture_ok(hypura_map_open(options.model.path, &map, &error), &error);
        hypura_experience_lessons(cache, map, 1, report.cells[0].series[0].form, &lessons);
        assert_int_equal(lessons.n, learns);
        hypura_map_close(map);
        hypura_bench_report_clear(&report);
        options.route_recall = 0;
    }
}

static void resident_is_compared_out_of_the_path_and_in_pools(void **state)
{
    (void)state;
    hypura_bench_report report =
        bench_of((hypura_bench_options){.model.path = fixture_arch("qwen3moe-moe.gguf"), .resident = true});
    assert_int_equal(report.n_cells, 2);
    assert_int_equal(report.cells[0].plan.mode, HYPURA_MODE_RESIDENT);
    assert_int_equal(report.cells[1].plan.mode, HYPURA_MODE_EXPERTS);
    assert_true(isnan(report.cells[0].series[0].metrics[HYPURA_METRIC_BOUND_TOK_S].median));
    /* Everything was read by the time of the warm window. */
    assert_true(report.cells[1].series[0].metrics[HYPURA_METRIC_BOUND_TOK_S].median > 0.0);
    assert_true(report.cells[1].decode_ratio.median > 0.0);
    /* And each of its layers has experts. */
    const hypura_layer_hits *layers = report.cells[1].series[0].layers;
    hypura_map *map = NULL;
    assert_int_equal(hypura_map_open(fixture_arch("qwen3moe-moe.gguf"), &map, NULL), HYPURA_OK);
    for (int l = 0; l < map->n_layers + 1; l++) {
        assert_int_equal(layers[l].bytes_hit, layers[l].bytes_needed);
        assert_true((layers[l].bytes_needed > 0) == (l < map->n_layers));
        assert_int_equal(report.cells[0].series[0].layers[l].bytes_needed, 0); /* nothing is paged */
    }
    hypura_map_close(map);
    hypura_bench_report_clear(&report);
}

/* Three sequences take as many passes as one, each of which needs both experts of a layer, and are three times the
 * tokens. */
static void sequences_are_decoded_together(void **state)
{
    (void)state;
    hypura_bench_options options = {.model.path = fixture_arch("qwen3moe-moe.gguf"), .resident = true};
    hypura_bench_report alone = bench_of(options);
    options.parallel = 3;
    hypura_bench_report together = bench_of(options);
    assert_int_equal(alone.parallel, 1);
    assert_int_equal(together.parallel, 3);
    for (int l = 0; l < 2; l++) {
        const hypura_layer_hits *one = &alone.cells[1].series[0].layers[l];
        assert_true(one->bytes_needed > 0);
        assert_int_equal(together.cells[1].series[0].layers[l].bytes_needed, one->bytes_needed);
    }
    hypura_bench_task task = {.weights_bytes = UINT64_C(1) << 60,
                              .force_paging = true,
                              .n_parallel = 3,
                              .n_prompt = 5,
                              .n_tokens = 4,
                              .n_threads = 1,
                              .profile = together.profile};
    hypura_bench_sample sample;
    hypura_error error;
    snprintf(task.path, sizeof(task.path), "%s", options.model.path);
    fixture_ok(hypura_bench_run(&task, &sample, &error), &error);
    assert_int_equal(sample.prefill.n_tokens, 15);
    assert_int_equal(sample.cold.n_tokens, 12);
    assert_int_equal(sample.warm.n_tokens, 12);
    hypura_bench_report_clear(&alone);
    hypura_bench_report_clear(&together);
}

/* Three tokens of four experts each select few of sixteen twice: what they will select is asked of the next layer's
 * router, or guessed from what they selected before. */
static void experts_of_several_sequences_are_read_ahead(void **state)
{
    (void)state;
    static const hypura_foresight ways[] = {HYPURA_FORESIGHT_OFF, HYPURA_FORESIGHT_ON, HYPURA_FORESIGHT_COACTIVATION};
    static const char *const by[] = {"", "routers", "co-activation"};
    char command[2048];
    hypura_error error;
    hypura_map *map = NULL;
    hypura_bench_report whole =
        bench_of((hypura_bench_options){.model.path = fixture_arch("qwen3moe-moe.gguf"), .resident = true});
    hypura_bench_task task = {
        .force_paging = true, .n_parallel = 3, .n_prompt = 4, .n_tokens = 32, .n_threads = 1, .profile = whole.profile};
    hypura_bench_report_clear(&whole);
    const char *path = fixture_path("tiny.gguf");
    snprintf(task.path, sizeof(task.path), "%s", path);
    snprintf(command, sizeof command, "'%s' shape qwen3-tiny '%s' --type q4_0", HYPURA_TEST_MKMODEL, path);
    assert_int_equal(system(command), 0);
    fixture_ok(hypura_map_open(path, &map, &error), &error);
    task.weights_bytes = map->tensor_bytes / 10 * 6;
    hypura_map_close(map);
    for (int i = 0; i < 3; i++) {
        hypura_bench_sample sample;
        task.foresight = ways[i];
        fixture_ok(hypura_bench_run(&task, &sample, &error), &error);
        const hypura_statistics *statistics = &sample.warm.statistics;
        assert_true(statistics->bytes_hit < statistics->bytes_needed);
        assert_int_equal(statistics->ahead_bytes_read > 0, i > 0);
        assert_true(i == 0 || strcmp(statistics->foresight_by, by[i]) == 0);
    }
}

static void what_cannot_be_measured_is_refused(void **state)
{
    (void)state;
    hypura_bench_report report;
    hypura_error error;
    const uint64_t weights[] = {1, 1};
    const uint64_t second[] = {UINT64_C(1) << 40, 1};
    hypura_bench_options options = {.model.path = fixture_arch("qwen3moe-moe.gguf"),
                                    .weights_bytes = weights,
                                    .n_weights = 1,
                                    .tokens = 3,
                                    .prompt_tokens = 5,
                                    .model.n_threads = 1,
                                    .model.cache_dir = fixture_cache_dir()};
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_BUDGET);
    hypura_bench_report_clear(&report);
    options.weights_bytes = second;
    options.n_weights = 2;
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_BUDGET);
    assert_int_equal(report.n_cells, 0); /* before the first one is measured */
    hypura_bench_report_clear(&report);
    options.n_weights = 1;
    options.timeline = fixture_path("timeline");
    options.model.gpu = "none";
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "time line"));
    hypura_bench_report_clear(&report);
    options.timeline = NULL;
    options.vram_bytes = weights;
    options.n_vram = 1;
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "no GPU"));
    hypura_bench_report_clear(&report);
    options.n_vram = 0;
    options.route = fixture_path("missing");
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_IO);
    hypura_bench_report_clear(&report);
    options.route = NULL;
    options.resident = true;
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_USAGE);
    hypura_bench_report_clear(&report);
    options.resident = false;
    static const struct {
        uint32_t parallel, prompt_tokens, ubatch;
    } too_many[] = {{257, 300, 0}, {12, 5, 0}, {9, 300, 8}};
    for (size_t i = 0; i < sizeof(too_many) / sizeof(*too_many); i++) {
        options.parallel = too_many[i].parallel;
        options.prompt_tokens = too_many[i].prompt_tokens;
        options.model.n_ubatch = too_many[i].ubatch;
        assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_USAGE);
        assert_non_null(strstr(error.message, "together"));
        hypura_bench_report_clear(&report);
    }
    options = (hypura_bench_options){.model.cache_dir = fixture_cache_dir()};
    assert_int_equal(hypura_bench(&options, &report, &error), HYPURA_ERR_USAGE);
    assert_null(report.cells);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spread_is_median_least_and_most),
        cmocka_unit_test(the_bound_is_the_slower_of_computing_and_reading),
        cmocka_unit_test(without_a_pager_there_is_no_bound),
        cmocka_unit_test(over_a_gpu_uploads_are_no_bound),
        cmocka_unit_test(every_metric_has_a_name_of_its_own),
        cmocka_unit_test(a_route_is_followed_and_begins_again),
        cmocka_unit_test(foretelling_is_as_right_as_asked_for),
        cmocka_unit_test(a_pipe_is_no_route),
        cmocka_unit_test(zeros_without_end_are_no_route),
        cmocka_unit_test(what_is_no_route_is_refused),
        cmocka_unit_test(selections_are_overwritten_and_nothing_else),
        cmocka_unit_test(cells_and_series_are_measured),
        cmocka_unit_test(made_up_guesses_teach_nothing),
        cmocka_unit_test(resident_is_compared_out_of_the_path_and_in_pools),
        cmocka_unit_test(sequences_are_decoded_together),
        cmocka_unit_test(experts_of_several_sequences_are_read_ahead),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
