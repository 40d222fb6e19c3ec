/*
 * test_model.c - opening and closing models; what a bad file leads to;
 * where the weights that stay really lie.
 */
#include "engine_fixture.h"

#include "engine/model/model.h"
#include "engine/prepare/estimate.h"
#include "engine/prepare/survey.h"
#include "hw/kept.h"

#include "ggml.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- files that change --------------------------------------------------- */

static hypura_status load_as_known(const hypura_map *map, hypura_load_kind kind, hypura_error *error)
{
    const hypura_load_gpu none = {.n = 0};
    struct llama_model *model = NULL;
    hypura_load_lock();
    const hypura_status status = hypura_load_model(map, kind, &none, HYPURA_FORM_FILE, NULL, NULL, &model, error);
    llama_model_free(model);
    hypura_load_unlock();
    return status;
}

/* What was planned for one file is not done with another: one of other bytes of the same size, and one that is longer. */
static void what_changed_since_it_was_mapped_is_not_loaded(void **state)
{
    (void)state;
    static const hypura_load_kind kinds[] = {HYPURA_LOAD_SURVEY, HYPURA_LOAD_SHAPES, HYPURA_LOAD_PLAIN, HYPURA_LOAD_RESIDENT,
                                             HYPURA_LOAD_PAGED};
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("llama-dense.gguf"), &n);
    for (int longer = 0; longer < 2; longer++) {
        hypura_map *map = NULL;
        hypura_error error;
        const char *path = fixture_path("changing.gguf");
        fixture_write(path, bytes, n);
        fixture_ok(hypura_map_open(path, &map, &error), &error);
        fixture_ok(load_as_known(map, HYPURA_LOAD_RESIDENT, &error), &error);
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1700000000, .tv_nsec = 5}};
        if (longer) {
            struct stat before;
            assert_int_equal(stat(path, &before), 0);
            assert_int_equal(truncate(path, before.st_size + 64), 0);
            times[1] = before.st_mtim;
        }
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            fixture_fails(HYPURA_ERR_IO, load_as_known(map, kinds[i], &error), &error,
                          "changing.gguf was replaced or written to while it was opened: open it again");
        }
        hypura_map_close(map);
    }
    free(bytes);
}

/* ---- files that are no models ------------------------------------------- */

static void open_fails(const char *path, hypura_status wanted, const char *text)
{
    hypura_model_options options = {.path = path, .plain = true, .n_threads = 1};
    hypura_model *model = (hypura_model *)&options;
    hypura_error error;
    hypura_status status = hypura_model_open(&options, &model, &error);
    fixture_fails(wanted, status, &error, text);
    assert_null(model);
}

static void missing_and_foreign_files(void **state)
{
    (void)state;
    open_fails("/nonexistent/model.gguf", HYPURA_ERR_IO, "/nonexistent/model.gguf");
    const char *path = fixture_path("text.gguf");
    fixture_write(path, "This is no model at all, but a text.", 36);
    open_fails(path, HYPURA_ERR_FORMAT, "text.gguf");
}

static void truncated_files(void **state)
{
    (void)state;
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("olmoe-moe.gguf"), &n);
    const char *path = fixture_path("short.gguf");
    fixture_write(path, bytes, n / 2);
    open_fails(path, HYPURA_ERR_FORMAT, "short.gguf");
    fixture_write(path, bytes, 100);
    open_fails(path, HYPURA_ERR_FORMAT, "short.gguf");
    free(bytes);
}

/* llama.cpp's own reason reaches the message. */
static void reason_of_llama(void **state)
{
    (void)state;
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("llama-dense.gguf"), &n);
    char *name = memmem(bytes, n, "blk.1.ffn_up.weight", 19);
    assert_non_null(name);
    name[6] = 'x'; /* a tensor that this architecture does not know */
    const char *path = fixture_path("renamed.gguf");
    fixture_write(path, bytes, n);
    open_fails(path, HYPURA_ERR_BACKEND, "tensor 'blk.1.ffn_up.weight' not found");
    free(bytes);
}

/* In a child: any status will do, but no signal. */
static void survives(const char *path, const char *what, uint32_t value)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        hypura_model_options options = {.path = path, .plain = true, .n_threads = 1, .n_context = 64};
        hypura_model *model = NULL;
        hypura_error error;
        alarm(60);
        hypura_status status = hypura_model_open(&options, &model, &error);
        hypura_model_close(model);
        _exit(status != HYPURA_OK && error.message[0] == '\0' ? 2 : 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fail_msg("%s = %u: wait status %d", what, value, status);
    }
}

static void hostile_numbers(void **state)
{
    (void)state;
    static const char *const keys[] = {"llama.block_count",
                                       "llama.embedding_length",
                                       "llama.feed_forward_length",
                                       "llama.attention.head_count",
                                       "llama.attention.head_count_kv",
                                       "llama.context_length",
                                       "llama.expert_count",
                                       "llama.expert_used_count",
                                       "llama.rope.dimension_count",
                                       "llama.vocab_size"};
    static const uint32_t values[] = {0, 1, 3, 513, 0x7FFFFFFF, 0xFFFFFFFF};
    size_t n = 0;
    char *bytes = fixture_read(fixture_arch("llama-moe.gguf"), &n);
    int n_tried = 0;
    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
        const size_t length = strlen(keys[k]);
        char *at = memmem(bytes, n, keys[k], length);
        uint32_t type = 0;
        if (!at || (memcpy(&type, at + length, 4), type != 4)) {
            continue; /* this file has no such number */
        }
        uint32_t kept;
        memcpy(&kept, at + length + 4, 4);
        for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
            memcpy(at + length + 4, &values[v], 4);
            const char *path = fixture_path("hostile.gguf");
            fixture_write(path, bytes, n);
            survives(path, keys[k], values[v]);
            n_tried++;
        }
        memcpy(at + length + 4, &kept, 4);
    }
    free(bytes);
    assert_true(n_tried >= 30);
}

/* ---- options ------------------------------------------------------------ */

/* Whatever a model computes with; as long as floats, and nothing that llama.cpp can compute with: it would end the process. */
static void weights_of_integers(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.1.ffn_gate_inp.weight", "blk.1.attn_norm.weight", "blk.1.attn_q.weight",
                                        "blk.0.ffn_up_exps.weight",  "token_embd.weight",      "output_norm.weight",
                                        "output.weight"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const uint32_t type = GGML_TYPE_I32;
        uint32_t n_dims;
        size_t n = 0;
        char *bytes = fixture_read(fixture_arch("olmoe-moe.gguf"), &n);
        char *at = memmem(bytes, n, names[i], strlen(names[i]));
        assert_non_null(at);
        at += strlen(names[i]);
        memcpy(&n_dims, at, sizeof(n_dims));
        at += sizeof(n_dims) + n_dims * sizeof(uint64_t);
        assert_int_equal(*at, GGML_TYPE_F32);
        memcpy(at, &type, sizeof(type));
        const char *path = fixture_path("integers.gguf");
        fixture_write(path, bytes, n);
        free(bytes);
        for (int paged = 0; paged < 2; paged++) {
            const hypura_model_options options = {
                .path = path, .n_threads = 1, .cache_dir = fixture_cache_dir(), .force_paging = paged};
            hypura_model *model = NULL;
            hypura_plan *plan = NULL;
            hypura_error error;
            fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_model_open(&options, &model, &error), &error, names[i]);
            assert_non_null(strstr(error.message, "type i32"));
            fixture_fails(HYPURA_ERR_UNSUPPORTED, hypura_estimate(&options, &plan, &error), &error, names[i]);
        }
    }
}

static void contradicting_options(void **state)
{
    (void)state;
    const char *path = fixture_arch("llama-dense.gguf");
    hypura_model *model = NULL;
    hypura_error error;
    hypura_model_options plain = {.path = path, .plain = true, .memory_bytes = 1};
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&plain, &model, &error), &error, "plain");
    hypura_model_options none = {.path = NULL};
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&none, &model, &error), &error, "no model");
    hypura_model_options threads = {.path = path, .n_threads = -1};
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&threads, &model, &error), &error, "-1 threads");
    threads.n_threads = 513;
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&threads, &model, &error), &error, "513 threads: pass 1 to 512");
    hypura_model_options context = {.path = path, .plain = true, .n_context = 1000};
    fixture_fails(HYPURA_ERR_USAGE, hypura_model_open(&context, &model, &error), &error, "1000 tokens");
    hypura_model_options small = {
        .path = path, .weights_bytes = 1, .n_threads = 1, .cache_dir = fixture_cache_dir(), .force_paging = true};
    fixture_fails(HYPURA_ERR_BUDGET, hypura_model_open(&small, &model, &error), &error, "");
    hypura_model_close(NULL);
}

static void estimate_reads_no_weights(void **state)
{
    (void)state;
    hypura_model_options options = {
        .path = fixture_arch("olmoe-moe.gguf"), .n_threads = 1, .cache_dir = fixture_cache_dir(), .force_paging = true};
    hypura_plan *plan = NULL;
    hypura_map *map = NULL;
    hypura_error error;
    fixture_ok(hypura_estimate(&options, &plan, &error), &error);
    fixture_ok(hypura_map_open(options.path, &map, &error), &error);
    assert_int_equal(plan->n_placements, map->n_tensors);
    assert_int_equal(plan->mode, HYPURA_MODE_EXPERTS);
    assert_true(plan->kv_bytes > 0 && plan->compute_bytes > 0 && plan->overhead_bytes > 0);
    hypura_map_close(map);
    hypura_plan_free(plan);
}

/* ---- where weights lie -------------------------------------------------- */

/* Resident bytes of the mappings of a file. */
static uint64_t resident_file_bytes(const char *path)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[2048];
    bool ours = false;
    uint64_t total = 0;
    if (!maps) {
        skip();
    }
    while (fgets(line, sizeof(line), maps)) {
        unsigned long long kib;
        if (strstr(line, path)) {
            ours = true;
        } else if (ours && sscanf(line, "Rss: %llu kB", &kib) == 1) {
            total += kib * 1024;
            ours = false;
        }
    }
    fclose(maps);
    return total;
}

static hypura_model *open_paged(const char *path, uint64_t weights_bytes)
{
    hypura_model_options options = {.path = path,
                                    .weights_bytes = weights_bytes,
                                    .n_threads = 1,
                                    .cache_dir = fixture_cache_dir(),
                                    .force_paging = true};
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open(&options, &model, &error), &error);
    return model;
}

static void answer(hypura_model *model)
{
    hypura_generate_options wanted = {.prompt = "0001000200030004", .raw = true, .max_tokens = 8};
    hypura_result result = fixture_generate(model, &wanted);
    hypura_result_clear(&result);
}

static void no_weight_stays_in_page_cache(void **state)
{
    (void)state;
    char *path = realpath(fixture_arch("olmoe-moe.gguf"), NULL); /* as the kernel lists it */
    assert_non_null(path);
    hypura_model *model = open_paged(path, 0);
    answer(model);
    assert_non_null(model->pager);
    assert_true(model->trunk_bytes > 0);
    assert_int_equal(resident_file_bytes(path), 0);
    hypura_statistics statistics;
    hypura_model_statistics(model, &statistics);
    assert_true(statistics.trunk_bytes_read >= model->trunk_bytes);
    assert_true(statistics.bytes_needed > 0);
    hypura_model_close(model);

    hypura_model_options plain = {.path = path, .plain = true, .n_threads = 1};
    hypura_error error;
    fixture_ok(hypura_model_open(&plain, &model, &error), &error);
    answer(model);
    assert_null(model->pager);
    assert_true(resident_file_bytes(path) > 0);
    hypura_model_statistics(model, &statistics);
    assert_int_equal(statistics.bytes_read, 0);
    hypura_model_close(model);
    free(path);
}

/* Two models at once, and a plain one while another pages. */
static void models_do_not_mix(void **state)
{
    (void)state;
    char a[1024];
    snprintf(a, sizeof(a), "%s", fixture_arch("olmoe-moe.gguf"));
    hypura_model *first = open_paged(a, 0);
    hypura_model *second = open_paged(fixture_arch("llama-dense.gguf"), 0);
    hypura_model *third = NULL;
    hypura_model_options plain = {.path = a, .plain = true, .n_threads = 1};
    hypura_error error;
    fixture_ok(hypura_model_open(&plain, &third, &error), &error);
    answer(third);
    answer(second);
    answer(first);
    hypura_model_close(first);
    answer(second);
    hypura_model_close(second);
    answer(third);
    hypura_model_close(third);
}

/* ---- experts of earlier runs ---------------------------------------------- */

/* Opens with the pool empty, waits until nothing more is read; returns what was, of
 * experts, before and after eight tokens. */
static void run_once(const hypura_model_options *options, const hypura_model_extras *extras, uint64_t *before,
                     uint64_t *after)
{
    hypura_model *model = NULL;
    hypura_statistics statistics;
    hypura_error error;
    uint64_t last = UINT64_MAX;
    fixture_ok(hypura_model_open_with(options, extras, &model, &error), &error);
    for (*before = 0; *before != last;) {
        last = *before;
        usleep(50000);
        hypura_model_statistics(model, &statistics);
        *before = statistics.bytes_read;
    }
    for (llama_token token = 1; token <= 8; token++) {
        fixture_ok(hypura_model_decode(model, &token, 1, false, &error), &error);
    }
    hypura_model_statistics(model, &statistics);
    *after = statistics.bytes_read;
    hypura_model_close(model);
}

static void experts_used_are_there_in_the_next_run(void **state)
{
    (void)state;
    char folder[512];
    char file[600];
    hypura_profile profile;
    hypura_error error;
    const hypura_profile_options measured = {.cache_dir = fixture_cache_dir(), .storage_path = fixture_cache_dir()};
    fixture_ok(hypura_profile_get(&measured, &profile, &error), &error);
    snprintf(folder, sizeof(folder), "%s", fixture_path("hot"));
    assert_int_equal(mkdir(folder, 0700), 0);
    snprintf(file, sizeof(file), "%s/olmoe-moe.gguf.experts", folder);
    const hypura_model_options options = {.path = fixture_arch("olmoe-moe.gguf"),
                                          .weights_bytes = UINT64_C(1) << 30,
                                          .n_context = 64,
                                          .n_threads = 1,
                                          .force_paging = true,
                                          .cache_dir = folder};
    const hypura_model_extras extras = {.profile = &profile};
    uint64_t before, after, cold_bytes;
    run_once(&options, &extras, &before, &cold_bytes);
    assert_int_equal(before, 0);
    assert_true(cold_bytes > 0);
    run_once(&options, &extras, &before, &after);
    assert_true(before > 0);
    assert_true(after - before < cold_bytes / 20); /* the same tokens again: rows of the embedding alone */
    int turn;
    size_t n;
    assert_true(hypura_kept_begin(folder, &turn)); /* as another process does that changes something */
    assert_int_equal(unlink(file), 0);
    run_once(&options, &extras, &before, &after);
    assert_int_not_equal(access(file, F_OK), 0);
    hypura_kept_end(turn);

    /* a file that makes no sense is as good as none */
    static const char *const bad[] = {"", "hypura experts 1 5 5 2\n", "nothing of the kind"};
    for (size_t i = 0; i < 3; i++) {
        fixture_write(file, bad[i], strlen(bad[i]));
        run_once(&options, &extras, &before, &after);
        assert_int_equal(before, 0);
    }
    char *text = fixture_read(file, &n);
    fixture_write(file, text, n / 2); /* one cut short */
    free(text);
    run_once(&options, &extras, &before, &after);
    assert_int_equal(before, 0);
    assert_int_equal(unlink(file), 0);
    snprintf(file, sizeof(file), "%s/experience.json", folder); /* rates of this processor, which the form rests on */
    assert_int_equal(unlink(file), 0);
    snprintf(file, sizeof(file), "%s/.lock", folder);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_changed_since_it_was_mapped_is_not_loaded),
        cmocka_unit_test(missing_and_foreign_files),
        cmocka_unit_test(truncated_files),
        cmocka_unit_test(reason_of_llama),
        cmocka_unit_test(hostile_numbers),
        cmocka_unit_test(weights_of_integers),
        cmocka_unit_test(contradicting_options),
        cmocka_unit_test(estimate_reads_no_weights),
        cmocka_unit_test(no_weight_stays_in_page_cache),
        cmocka_unit_test(models_do_not_mix),
        cmocka_unit_test(experts_used_are_there_in_the_next_run),
    };
    return cmocka_run_group_tests_name("engine model", tests, fixture_setup, fixture_teardown);
}
