/* What is kept of earlier runs, and what the forecast makes of it. */
#include "engine_fixture.h"

#include "engine/prepare/experience.h"
#include "engine/prepare/experience_file.h"
#include "hw/kept.h"
#include "hw/probe_compute.h"
#include "hw/since.h"
#include "hypura_measure.h"
#include "pager/repack.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double __wrap_hypura_since_others(const hypura_since *begin);

/* Tests run beside each other. */
double __wrap_hypura_since_others(const hypura_since *begin)
{
    (void)begin;
    return 0.0;
}

static char cache_dir[1024];
static char stored[1100];

static const hypura_map map = {.arch = "test", .name = "model", .tensor_bytes = 1000};

static int begin(void **state)
{
    (void)state;
    snprintf(stored, sizeof stored, "%s", fixture_path("experience.json"));
    snprintf(cache_dir, sizeof cache_dir, "%s", fixture_path("."));
    (void)unlink(stored);
    return 0;
}

static void add(uint64_t weights_bytes, double seconds, double wait_s, double read_bytes)
{
    const hypura_run_costs costs = {
        .held_bytes = weights_bytes, .seconds = seconds, .read_wait_s = wait_s, .read_bytes = read_bytes};
    hypura_experience_add(cache_dir, &map, &(hypura_plan){.weights_bytes = 1}, 4, true, 100.0, &costs);
}

static hypura_lessons lessons_of(int n_threads, bool repack)
{
    hypura_lessons lessons;
    hypura_experience_lessons(cache_dir, &map, n_threads, repack, &lessons);
    return lessons;
}

static bool near(double a, double b)
{
    return fabs(a - b) < 1e-9;
}

static void a_run_is_remembered(void **state)
{
    (void)state;
    assert_int_equal(lessons_of(4, true).n, 0);
    add(500, 1.25, 0.25, 50.0); /* computing 1 s, reading 0.5 s, half of which was waited for */
    const hypura_lessons lessons = lessons_of(4, true);
    assert_int_equal(lessons.n, 1);
    assert_true(near(lessons.items[0].held, 0.5));
    assert_true(near(lessons.items[0].compute_s, 1.0));
    assert_true(near(lessons.items[0].read_bytes, 50.0));
    assert_true(near(lessons.items[0].read_factor, 0.5));
    assert_int_equal(lessons_of(2, true).n, 0); /* other runs */
    assert_int_equal(lessons_of(4, false).n, 0);
}

static void a_run_beside_others_teaches_nothing(void **state)
{
    (void)state;
    hypura_run_costs costs = {.held_bytes = 500, .seconds = 20.0, .others = 1.0};
    hypura_experience_add(cache_dir, &map, &(hypura_plan){.weights_bytes = 1}, 4, true, 100.0, &costs);
    assert_int_equal(lessons_of(4, true).n, 0);
    costs.others = 0.3; /* a desktop */
    hypura_experience_add(cache_dir, &map, &(hypura_plan){.weights_bytes = 1}, 4, true, 100.0, &costs);
    assert_int_equal(lessons_of(4, true).n, 1);
}

static void runs_are_kept_by_what_was_held(void **state)
{
    (void)state;
    add(500, 1.0, 0.0, 10.0);
    add(200, 2.0, 0.0, 40.0);
    add(900, 1.0, 0.0, 1.0);
    add(510, 3.0, 0.0, 30.0); /* about as much as the first: mixed with it */
    const hypura_lessons lessons = lessons_of(4, true);
    assert_int_equal(lessons.n, 3);
    assert_true(near(lessons.items[0].held, 0.2) && near(lessons.items[2].held, 0.9));
    assert_true(near(lessons.items[1].compute_s, 2.0) && near(lessons.items[1].read_bytes, 20.0));
}

static void there_is_an_end_to_lessons(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 2 * HYPURA_MAX_LESSONS; i++) {
        add(30 * i, 1.0, 0.0, 1.0);
    }
    const hypura_lessons lessons = lessons_of(4, true);
    assert_int_equal(lessons.n, HYPURA_MAX_LESSONS);
    for (int i = 1; i < lessons.n; i++) {
        assert_true(lessons.items[i].held > lessons.items[i - 1].held);
    }
}

/* Nothing but the forecast depends on it, so nothing fails. */
static void a_damaged_file_is_an_empty_one(void **state)
{
    (void)state;
    static const char *const damaged[] = {"",
                                          "{",
                                          "[]",
                                          "{\"version\":3}",
                                          "{\"version\":3,\"cpu\":\"other\",\"rates\":[],\"others\":[],\"models\":[]}",
                                          "{\"version\":3,\"cpu\":3,\"rates\":1,\"others\":2,\"models\":3}"};
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        fixture_write(stored, damaged[i], strlen(damaged[i]));
        assert_int_equal(lessons_of(4, true).n, 0);
        add(500, 1.0, 0.0, 1.0);
        assert_int_equal(lessons_of(4, true).n, 1);
    }
    snprintf(cache_dir, sizeof cache_dir, "/no/such/folder");
    add(500, 1.0, 0.0, 1.0);
    assert_int_equal(lessons_of(4, true).n, 0);
    hypura_experience_add(NULL, &map, &(hypura_plan){.weights_bytes = 1}, 4, true, 1.0,
                          &(hypura_run_costs){.held_bytes = 1, .seconds = 1.0});
}

static bool knows(double held)
{
    const hypura_lessons lessons = lessons_of(4, true);
    bool found = false;
    for (int i = 0; i < lessons.n; i++) {
        found = found || near(lessons.items[i].held, held);
    }
    return found;
}

static void end(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* Another process stores a lesson between what this one reads and what it writes. */
static void two_that_learn_at_once_keep_both(void **state)
{
    (void)state;
    int turn;
    size_t n;
    add(200, 1.0, 0.0, 1.0);
    char *text = fixture_read(stored, &n);
    assert_int_equal(unlink(stored), 0);
    assert_true(hypura_kept_begin(cache_dir, &turn));
    const pid_t other = fork();
    if (other == 0) {
        close(turn); /* a lock of an open file is its heirs' too */
        for (int i = 0; i < 30 && !knows(0.5); i++) { /* on a busy machine others take longer than it waits */
            add(500, 1.0, 0.0, 1.0);
        }
        _exit(0);
    }
    usleep(50000); /* it would have written by now */
    fixture_write(stored, text, n);
    hypura_kept_end(turn);
    free(text);
    end(other);
    assert_true(knows(0.2) && knows(0.5));
}

/* One that others keep from writing goes on. */
static void who_cannot_learn_goes_on(void **state)
{
    (void)state;
    int turn;
    assert_true(hypura_kept_begin(cache_dir, &turn));
    add(500, 1.0, 0.0, 1.0);
    hypura_kept_end(turn);
    assert_int_equal(lessons_of(4, true).n, 0);
}

/* Names of any length and of any bytes. */
static void models_are_told_apart(void **state)
{
    (void)state;
    char name[1024];
    const hypura_run_costs costs = {.held_bytes = 500, .seconds = 1.0};
    hypura_lessons lessons;
    memset(name, 'x', sizeof name - 1);
    name[0] = '\xe9';
    name[sizeof name - 1] = '\0';
    hypura_map first = {.arch = "test", .name = name, .tensor_bytes = 1000};
    hypura_map second = {.arch = "test", .name = name, .tensor_bytes = 1001};
    hypura_experience_add(cache_dir, &first, &(hypura_plan){.weights_bytes = 1}, 4, true, 100.0, &costs);
    hypura_experience_lessons(cache_dir, &first, 4, true, &lessons);
    assert_int_equal(lessons.n, 1);
    hypura_experience_lessons(cache_dir, &second, 4, true, &lessons);
    assert_int_equal(lessons.n, 0);
}

static bool stop_at_once(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    assert_non_null(strstr(what, "processor"));
    ++*(int *)user;
    return false;
}

/* Says of all that is stored how often it was disturbed, when it was measured, and of rates what they are, unless that
 * is 0. */
static void rewrite_rates_of(int64_t measured_unix_s, int n_disturbed, double bytes_per_s)
{
    json_t *root = json_load_file(stored, 0, NULL);
    json_t *entry;
    size_t i;
    assert_non_null(root);
    json_array_foreach(json_object_get(root, "rates"), i, entry)
    {
        assert_int_equal(json_object_set_new(entry, "disturbed", json_integer(n_disturbed)), 0);
        assert_int_equal(json_object_set_new(entry, "measured_unix_s", json_integer(measured_unix_s)), 0);
        if (bytes_per_s > 0.0) {
            assert_int_equal(json_object_set_new(entry, "bytes_per_s", json_real(bytes_per_s)), 0);
        }
    }
    assert_int_equal(json_dump_file(root, stored, 0), 0);
    json_decref(root);
}

static void rewrite_rates(int n_disturbed, double bytes_per_s)
{
    rewrite_rates_of(0, n_disturbed, bytes_per_s);
}

static void rates_are_measured_once(void **state)
{
    (void)state;
    const hypura_model_options options = {.cache_dir = cache_dir};
    int n_asked = 0;
    const hypura_model_options stopped = {.cache_dir = cache_dir, .progress = stop_at_once, .progress_user = &n_asked};
    hypura_tensor tensors[] = {{.name = "a", .type = 0, .ne = {64, 32, 1, 1}, .bytes = 8192},
                               {.name = "b", .type = 0, .ne = {64, 64, 1, 1}, .bytes = 16384},
                               {.name = "c", .type = 1, .ne = {64, 64, 1, 1}, .bytes = 8192},
                               {.name = "d", .type = 0, .ne = {64, 64, 4, 1}, .bytes = 65536, .expert_bytes = 16384},
                               {.name = "no expert's name", .type = 1, .ne = {64, 64, 4, 1}, .bytes = 32768}};
    hypura_use uses[] = {{.flags = HYPURA_USE_MUL_MAT},
                         {.flags = HYPURA_USE_MUL_MAT},
                         {.flags = HYPURA_USE_GET_ROWS},
                         {.flags = HYPURA_USE_MUL_MAT_ID},
                         {.flags = HYPURA_USE_MUL_MAT_ID}};
    const hypura_map small = {
        .arch = "a", .name = "n", .n_experts = 4, .n_experts_used = 2, .n_tensors = 5, .tensors = tensors};
    const hypura_survey survey = {.n_uses = 5, .uses = uses, .n_ubatch = 8};
    hypura_rates rates;
    hypura_rates again;
    hypura_error error;
    fixture_ok(hypura_experience_rates(&options, &small, &survey, 1, true, false, &rates, &error), &error);
    assert_int_equal(rates.n, 0); /* not asked to measure */
    assert_int_equal(hypura_experience_rates(&stopped, &small, &survey, 1, true, true, &rates, &error),
                     HYPURA_ERR_CANCELLED);
    assert_int_equal(n_asked, 1);
    fixture_ok(hypura_experience_rates(&options, &small, &survey, 1, true, true, &rates, &error), &error);
    assert_int_equal(rates.n, 2); /* products of one type, with all rows and with selected experts */
    assert_true(rates.by_type[0].type == 0 && !rates.by_type[0].experts);
    assert_true(rates.by_type[1].type == 0 && rates.by_type[1].experts && rates.by_type[1].bytes_per_s > 0.0);
    assert_true(rates.by_type[0].bytes_per_s > 0.0 );
    rewrite_rates(0, 0.0);
    fixture_ok(hypura_experience_rates(&stopped, &small, &survey, 1, true, true, &again, &error), &error);
    assert_int_equal(n_asked, 1); /* nothing was left to measure */
    assert_true(again.by_type[0].bytes_per_s == rates.by_type[0].bytes_per_s);
    assert_true(rates.by_type[0].product_s >= 0.0 && again.by_type[0].product_s == rates.by_type[0].product_s);
    assert_true(again.by_type[0].prompt_bytes_per_s == 0.0);
    fixture_ok(hypura_experience_prompt_rates(&options, &small, &survey, 1, true, &rates, &error), &error);
    rewrite_rates(0, 0.0);
    fixture_ok(hypura_experience_prompt_rates(&options, &small, &survey, 1, true, &again, &error), &error);
    for (int i = 0; i < 2; i++) {
        assert_true(rates.by_type[i].prompt_bytes_per_s > 0.0);
        assert_true(rates.by_type[i].prompt_bytes_per_s == again.by_type[i].prompt_bytes_per_s);
    }
    rewrite_rates(1, 1.0); /* what other work disturbed is measured again, and the faster one counts */
    fixture_ok(hypura_experience_rates(&options, &small, &survey, 1, true, true, &rates, &error), &error);
    assert_true(rates.by_type[0].bytes_per_s > 1.0 && rates.by_type[1].bytes_per_s > 1.0);
    rewrite_rates(2, 1e18);
    fixture_ok(hypura_experience_rates(&options, &small, &survey, 1, true, true, &rates, &error), &error);
    assert_true(rates.by_type[0].bytes_per_s == 1e18);
    json_t *root = json_load_file(stored, 0, NULL); /* looked at twice, and counted once */
    const json_t *first = json_array_get(json_object_get(root, "rates"), 0);
    const json_int_t n_disturbed = json_integer_value(json_object_get(first, "disturbed"));
    assert_true(n_disturbed == 0 || n_disturbed == 3);
    assert_true(json_integer_value(json_object_get(first, "measured_unix_s")) > 0);
    json_decref(root);
    rewrite_rates_of((int64_t)time(NULL), 1, 1.0); /* but not at once, */
    fixture_ok(hypura_experience_rates(&stopped, &small, &survey, 1, true, true, &rates, &error), &error);
    assert_true(n_asked == 1 && rates.by_type[0].bytes_per_s == 1.0);
    rewrite_rates(3, 1.0); /* nor for ever */
    fixture_ok(hypura_experience_rates(&stopped, &small, &survey, 1, true, true, &rates, &error), &error);
    assert_true(n_asked == 1 && rates.by_type[0].bytes_per_s == 1.0);
}

/* The same product, measured by another process as so fast. */
static void store_fast_rate(json_t *root, void *user)
{
    (void)user;
    experience_append(json_object_get(root, "rates"),
                      json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:i}", "type", 0, "columns", 64, "rows", 64, "used", 0,
                                "batch", 1, "threads", 1, "repack", 1, "bytes_per_s", 1e18, "disturbed", 0),
                      256);
}

/* Asked before each measurement; the first time another process learns meanwhile. */
static bool let_another_learn(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    (void)done;
    (void)total;
    if (++*(int *)user == 1) {
        const pid_t other = fork();
        if (other == 0) {
            add(500, 1.0, 0.0, 1.0);
            experience_update(cache_dir, store_fast_rate, NULL);
            _exit(0);
        }
        end(other);
    }
    return true;
}

static void what_others_learn_while_this_measures_stays(void **state)
{
    (void)state;
    int n_asked = 0;
    const hypura_model_options options = {.cache_dir = cache_dir, .progress = let_another_learn, .progress_user = &n_asked};
    hypura_tensor tensors[] = {{.name = "a", .type = 0, .ne = {64, 64, 1, 1}, .bytes = 16384},
                               {.name = "b", .type = 0, .ne = {64, 64, 4, 1}, .bytes = 65536, .expert_bytes = 16384}};
    hypura_use uses[] = {{.flags = HYPURA_USE_MUL_MAT}, {.flags = HYPURA_USE_MUL_MAT_ID}};
    const hypura_map small = {
        .arch = "a", .name = "n", .n_experts = 4, .n_experts_used = 2, .n_tensors = 2, .tensors = tensors};
    const hypura_survey survey = {.n_uses = 2, .uses = uses, .n_ubatch = 8};
    hypura_rates rates;
    hypura_error error;
    fixture_ok(hypura_experience_rates(&options, &small, &survey, 1, true, true, &rates, &error), &error);
    assert_int_equal(lessons_of(4, true).n, 1);
    assert_int_equal(rates.n, 2);
    assert_true(rates.by_type[0].bytes_per_s < 1e18); /* nothing was known when this began */
    fixture_ok(hypura_experience_rates(&options, &small, &survey, 1, true, false, &rates, &error), &error);
    assert_int_equal(rates.n, 2);
    assert_true(rates.by_type[0].bytes_per_s == 1e18 && rates.by_type[1].bytes_per_s > 0.0);
    json_t *root = json_load_file(stored, 0, NULL);
    json_t *entry = json_array_get(json_object_get(root, "rates"), 0);
    assert_true(json_number_value(json_object_get(entry, "bytes_per_s")) == 1e18);
    assert_int_equal(json_integer_value(json_object_get(entry, "disturbed")), 0);
    json_decref(root);
}

/* No machine gives each of so many threads a processor all the time. */
static void a_busy_processor_is_told(void **state)
{
    (void)state;
    const hypura_product_shape shape = {.type = 0, .columns = 4096, .rows = 8192, .n_rows = 1};
    const int n_threads = (int)sysconf(_SC_NPROCESSORS_ONLN) * 4;
    double bytes_per_s;
    bool disturbed = false;
    hypura_error error;
    fixture_ok(hypura_probe_products(&shape, n_threads < 512 ? n_threads : 512, 1000000, &bytes_per_s, &disturbed, &error), &error);
    assert_true(disturbed && bytes_per_s > 0.0);
}

/* The machine is measured once for all tests: only what is learned of runs is this one's own. */
static void take_profile(void)
{
    const hypura_profile_options shared = {.cache_dir = fixture_cache_dir()};
    hypura_profile profile;
    hypura_error error;
    char path[1100];
    size_t n;
    fixture_ok(hypura_profile_get(&shared, &profile, &error), &error);
    snprintf(path, sizeof path, "%s/profile.json", shared.cache_dir);
    char *text = fixture_read(path, &n);
    fixture_write(fixture_path("profile.json"), text, n);
    free(text);
}

/* A run that is long enough changes the next estimate. */
static void an_answer_teaches_the_estimate(void **state)
{
    (void)state;
    hypura_model_options options = {
        .path = fixture_model("smollm2-135m.gguf"), .weights_bytes = 100 << 20, .n_threads = 1, .cache_dir = cache_dir};
    hypura_generate_options generate = {.prompt = "One", .raw = true, .max_tokens = 20};
    hypura_plan *plan = NULL;
    hypura_model *model = NULL;
    hypura_result result;
    hypura_error error;
    take_profile();
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    assert_false(plan->learned);
    assert_true(plan->compute_s > 0.0);
    hypura_plan_free(plan);
    fixture_ok(hypura_model_open(&options, &model, &error), &error);
    fixture_ok(hypura_generate(model, &generate, &result, &error), &error);
    const double seconds = result.decode_s / result.tokens;
    const bool long_enough = result.tokens >= 16;
    hypura_result_clear(&result);
    hypura_model_close(model);
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    assert_int_equal(plan->learned, long_enough);
    assert_true(!long_enough || fabs(plan->decode_tok_s * seconds - 1.0) < 0.05);
    hypura_plan_free(plan);
}

/* Of what was held when it ran, not of what was planned. */
static void a_run_that_held_less_teaches_so(void **state)
{
    (void)state;
    const hypura_model_options options = {.path = fixture_arch("olmoe-moe.gguf"),
                                          .weights_bytes = UINT64_C(1) << 30,
                                          .n_context = 64,
                                          .n_threads = 1,
                                          .force_paging = true,
                                          .no_repack = true,
                                          .cache_dir = cache_dir};
    const hypura_generate_options generate = {.prompt = "0001000200030004", .raw = true, .max_tokens = 20};
    hypura_model *model = NULL;
    hypura_map *of = NULL;
    hypura_result result;
    hypura_lessons lessons;
    hypura_error error;
    take_profile();
    fixture_ok(hypura_map_open(options.path, &of, &error), &error);
    fixture_ok(hypura_model_open(&options, &model, &error), &error);
    const hypura_plan *plan = hypura_model_plan(model);
    const hypura_held held = hypura_model_held(model);
    const double most = (double)plan->weights_bytes / (double)of->tensor_bytes;
    const double least = most - (double)(held.now_bytes - held.least_bytes) / (double)of->tensor_bytes;
    assert_true(least < most - 0.1);
    for (int less = 0; less < 2; less++) {
        fixture_ok(hypura_generate(model, &generate, &result, &error), &error);
        assert_true(result.tokens >= 16);
        hypura_result_clear(&result);
        hypura_experience_lessons(cache_dir, of, 1, false, &lessons);
        assert_int_equal(lessons.n, less + 1);
        assert_true(near(lessons.items[0].held, less ? least : fmin(most, 1.0)));
        assert_int_equal(hypura_model_resize(model, 0), held.least_bytes);
    }
    hypura_model_close(model);
    hypura_map_close(of);
}

/* As if this processor had been measured to compute so fast with one row, and a hundred times as fast with prompts
 * as in the file as with repacked weights. */
static void pretend_rates(double plain_bytes_per_s, double repacked_bytes_per_s)
{
    size_t i;
    json_t *entry;
    json_t *root = json_load_file(stored, 0, NULL);
    assert_non_null(root);
    assert_true(json_array_size(json_object_get(root, "rates")) > 0);
    json_array_foreach(json_object_get(root, "rates"), i, entry)
    {
        const bool repacked = json_integer_value(json_object_get(entry, "repack")) != 0;
        const bool prompt = json_integer_value(json_object_get(entry, "batch")) > 1;
        const double rate = prompt ? (repacked ? 1e6 : 1e8) : repacked ? repacked_bytes_per_s : plain_bytes_per_s;
        json_object_set_new(entry, "bytes_per_s", json_real(rate));
        json_object_set_new(entry, "disturbed", json_integer(0));
    }
    json_array_foreach(json_object_get(root, "repacking"), i, entry)
    {
        json_object_set_new(entry, "bytes_per_s", json_real(1e12));
    }
    json_array_foreach(json_object_get(root, "others"), i, entry)
    {
        json_object_set_new(entry, "seconds", json_real(1e-3));
        json_object_set_new(entry, "disturbed", json_integer(0));
    }
    assert_int_equal(json_dump_file(root, stored, 0), 0);
    json_decref(root);
}

/* Plain libllama has the form of a run with as much memory, and so has what is compared with it. */
static void verify_form(const hypura_model_options *run, hypura_form form)
{
    const uint32_t prompt = 60;
    const char *const engine = "pool";
    const hypura_verify_options options = {.model.path = run->path,
                                           .weights_bytes = &run->weights_bytes,
                                           .n_weights = 1,
                                           .prompt_tokens = &prompt,
                                           .n_prompts = 1,
                                           .io_engines = &engine,
                                           .n_io_engines = 1,
                                           .tokens = run->n_context - prompt,
                                           .model.n_threads = run->n_threads,
                                           .model.cache_dir = run->cache_dir};
    hypura_verify_report report;
    hypura_error error;
    fixture_ok(hypura_verify(&options, &report, &error), &error);
    assert_true(report.identical && report.n_cases == 1);
    assert_int_equal(report.cases[0].form, form);
    hypura_verify_report_clear(&report);
}

/* Where weights stay as in the file the output does not, unless that is slower too; estimates count it so. */
static void the_output_is_repacked_all_the_same(void **state)
{
    (void)state;
    char path[1100];
    char command[2048];
    snprintf(path, sizeof path, "%s", fixture_path("output.gguf"));
    hypura_error error;
    hypura_map *of = NULL;
    hypura_plan *plan = NULL;
    snprintf(command, sizeof command, "'%s' shape llama-tiny '%s' --type q4_K", HYPURA_TEST_MKMODEL, path);
    assert_int_equal(system(command), 0);
    fixture_ok(hypura_map_open(path, &of, &error), &error);
    const hypura_tensor *output = &of->tensors[hypura_map_find(of, "output.weight")];
    if (!hypura_repack_has_form(output)) {
        hypura_map_close(of);
        skip();
    }
    const hypura_model_options options = {.path = path,
                                          .weights_bytes = of->tensor_bytes / 2,
                                          .n_context = 64,
                                          .n_threads = 1,
                                          .cache_dir = cache_dir};
    take_profile();
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    hypura_plan_free(plan);
    const struct {
        double repacked; /* of 1 MB/s as in the file */
        hypura_form form;
        double output; /* that estimates take */
    } cases[] = {{0.5e6, HYPURA_FORM_FILE, 1e6}, {1e6, HYPURA_FORM_OUTPUT, 1e6}, {4e6, HYPURA_FORM_OUTPUT, 4e6}};
    double alone_s = 0.0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pretend_rates(1e6, cases[i].repacked);
        fixture_ok(hypura_estimate(&options, &plan, &error), &error);
        assert_true(plan->form_measured);
        assert_int_equal(plan->form, cases[i].form);
        const double output_s = (double)output->bytes / cases[i].output;
        alone_s = i == 0 ? plan->compute_s - output_s : alone_s;
        assert_true(fabs(plan->compute_s - output_s - alone_s) < 1e-6);
        hypura_plan_free(plan);
        verify_form(&options, cases[i].form);
    }
    hypura_map_close(of);
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_run_is_remembered),        TEST(a_run_beside_others_teaches_nothing),
        TEST(runs_are_kept_by_what_was_held),
        TEST(there_is_an_end_to_lessons), TEST(a_damaged_file_is_an_empty_one),
        TEST(two_that_learn_at_once_keep_both), TEST(who_cannot_learn_goes_on),
        TEST(models_are_told_apart),      TEST(what_others_learn_while_this_measures_stays),
        TEST(rates_are_measured_once),
        TEST(a_busy_processor_is_told),    TEST(an_answer_teaches_the_estimate),
        TEST(a_run_that_held_less_teaches_so), TEST(the_output_is_repacked_all_the_same),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
