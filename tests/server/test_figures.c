/* The figures in both forms: every one is there, once, and reads back. */
#include "server/endpoint/figures.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const hypura_figures_model models[] = {
    {.name = "a\"b\\c\nd:latest",
     .state = "ready",
     .mode = "experts",
     .pid = 7,
     .load_share = 1,
     .n_slots = 4,
     .n_busy = 1,
     .resident_bytes = 11,
     .pool_bytes = 1ull << 40,
     .drive_bytes = UINT64_MAX,
     .vram_slot_bytes = 13,
     .n_gpus = 2,
     .gpus = {{.name = "Vulkan0", .weight_bytes = 17, .slot_bytes = 6}, {.name = "Vulkan1", .slot_bytes = 7}},
     .n_expert_slots = 5,
     .n_experts = 9,
     .generated_tokens = 123,
     .speculation = "draft-simple",
     .draft_bytes = 98,
     .drafted_tokens = 30,
     .accepted_tokens = 20,
     .expires_unix_s = 1000000000,
     .paging = {.bytes_read = 77,
                .bytes_needed = 100,
                .bytes_hit = 23,
                .bytes_uploaded = 31,
                .bytes_landed = 17,
                .gpus = {{.bytes_needed = 50}, {.bytes_needed = 40, .bytes_hit = 30, .bytes_uploaded = 19}},
                .read_wait_s = 0.5,
                .compute_s = NAN,
                .io_engine = "uring",
                .direct_io = true}},
    {.name = "z:1b", .state = "loading", .mode = "", .load_share = 0.25},
};
static const hypura_figures_route routes[] = {
    {.route = "/api/chat", .n_answers = {1, 0, 5, 0, 2, 3}, .answer_s = 12.5},
    {.route = "/api/tags", .n_answers = {0, 0, 1}},
};
static const hypura_figures figures = {.uptime_s = 2.5,
                                       .ready = true,
                                       .memory_budget_bytes = 8ull << 30,
                                       .direct_bytes_per_s = 3e9,
                                       .max_connections = 64,
                                       .n_waiting = 2,
                                       .n_rejected = 4,
                                       .n_models = 2,
                                       .models = models,
                                       .n_routes = 2,
                                       .routes = routes};

static void json_has_every_group(void **state)
{
    (void)state;
    json_t *root = hypura_figures_json(&figures);
    assert_non_null(root);
    char *text = json_dumps(root, 0);
    assert_non_null(text);
    json_error_t where;
    json_t *back = json_loads(text, 0, &where);
    assert_true(json_equal(root, back));
    const json_t *requests = json_object_get(root, "requests");
    assert_int_equal(json_integer_value(json_object_get(requests, "answered")), 12);
    assert_int_equal(json_integer_value(json_object_get(requests, "failed")), 3);
    const json_t *model = json_array_get(json_object_get(root, "models"), 0);
    assert_string_equal(json_string_value(json_object_get(model, "name")), models[0].name);
    assert_string_equal(json_string_value(json_object_get(model, "expires_at")), "2001-09-09T01:46:40Z");
    const json_t *tiers = json_object_get(model, "tiers");
    assert_true(json_integer_value(json_object_get(tiers, "pool_bytes")) == 1ll << 40);
    assert_true(json_integer_value(json_object_get(tiers, "drive_bytes")) == INT64_MAX);
    const json_t *counters = json_object_get(model, "counters");
    assert_int_equal(json_integer_value(json_object_get(counters, "bytes_hit")), 23);
    assert_int_equal(json_integer_value(json_object_get(counters, "drafted_tokens")), 30);
    assert_int_equal(json_integer_value(json_object_get(counters, "accepted_tokens")), 20);
    assert_int_equal(json_integer_value(json_object_get(tiers, "draft_bytes")), 98);
    assert_string_equal(json_string_value(json_object_get(model, "speculation")), "draft-simple");
    const json_t *gpu = json_object_get(model, "gpu");
    assert_int_equal(json_integer_value(json_object_get(gpu, "slot_bytes")), 13);
    assert_int_equal(json_integer_value(json_object_get(gpu, "bytes_uploaded")), 31);
    assert_int_equal(json_integer_value(json_object_get(gpu, "bytes_landed")), 17);
    const json_t *devices = json_object_get(gpu, "devices");
    assert_int_equal(json_array_size(devices), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(devices, 1), "name")), "Vulkan1");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(devices, 0), "weight_bytes")), 17);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(devices, 1), "bytes_uploaded")), 19);
    assert_true(json_real_value(json_object_get(counters, "compute_s")) == 0.0); /* JSON has no NaN */
    const json_t *second = json_array_get(json_object_get(root, "models"), 1);
    assert_true(json_is_null(json_object_get(second, "expires_at")));
    assert_true(json_is_null(json_object_get(second, "speculation")));
    free(text);
    json_decref(back);
    json_decref(root);
}

/* "name{labels} value" for samples, "# TYPE name type" before the first of a name. */
static void metrics_are_in_prometheus_form(void **state)
{
    (void)state;
    char *text = hypura_figures_metrics(&figures);
    assert_non_null(text);
    assert_non_null(strstr(text, "hypura_model_read_bytes_total{model=\"a\\\"b\\\\c\\nd:latest\"} 77\n"));
    assert_non_null(strstr(text, "hypura_model_weights_bytes{model=\"z:1b\",tier=\"pool\"} 0\n"));
    assert_non_null(
        strstr(text, "hypura_model_seconds_total{model=\"a\\\"b\\\\c\\nd:latest\",spent=\"read_wait\"} 0.5\n"));
    assert_non_null(strstr(text, "hypura_model_gpu_memory_bytes{model=\"a\\\"b\\\\c\\nd:latest\",purpose=\"slots\"} 13\n"));
    assert_non_null(strstr(
        text, "hypura_model_gpu_device_hit_bytes_total{model=\"a\\\"b\\\\c\\nd:latest\",device=\"Vulkan1\"} 30\n"));
    assert_non_null(strstr(text, "hypura_http_requests_total{route=\"/api/chat\",status=\"5xx\"} 3\n"));
    assert_non_null(strstr(text, "hypura_http_requests_total{route=\"/api/chat\",status=\"cut\"} 1\n"));
    char typed[128] = "";
    int n_samples = 0;
    char *rest = text;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "# TYPE ", 7) == 0) {
            size_t n = strcspn(line + 7, " ");
            char again[160];
            memcpy(typed, line + 7, n);
            typed[n] = '\0';
            snprintf(again, sizeof again, "# TYPE %s ", typed);
            assert_true(rest == NULL || strstr(rest, again) == NULL); /* once */
        } else if (line[0] != '#') {
            size_t n = strcspn(line, "{ ");
            char *end;
            assert_true(n == strlen(typed) && strncmp(line, typed, n) == 0);
            const char *value = strrchr(line, ' ');
            assert_non_null(value);
            (void)strtod(value + 1, &end);
            assert_true(*end == '\0' && end > value + 1);
            n_samples++;
        }
    }
    assert_true(n_samples > 60);
    free(text);
}

static void an_idle_server_has_figures_as_well(void **state)
{
    (void)state;
    const hypura_figures none = {0};
    json_t *root = hypura_figures_json(&none);
    char *text = hypura_figures_metrics(&none);
    assert_int_equal(json_array_size(json_object_get(root, "models")), 0);
    assert_non_null(strstr(text, "hypura_ready 0\n"));
    free(text);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_has_every_group),
        cmocka_unit_test(metrics_are_in_prometheus_form),
        cmocka_unit_test(an_idle_server_has_figures_as_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
