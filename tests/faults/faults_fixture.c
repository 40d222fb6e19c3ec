/* faults_fixture.c - see faults_fixture.h. */
#include "faults_fixture.h"

#include "gguf/split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_PROMPT = 2, N_STEPS = 1, N_UBATCH = 2, N_CONTEXT = 8 };

const fault_case fault_cases[] = {
    {"moe-odd-f16.gguf", 162000, HYPURA_MODE_EXPERTS, false}, /* slices of no whole disk block: staged */
    {"dense-split-q8_0-00001-of-00002.gguf", 80000, HYPURA_MODE_DENSE, false},
    {"moe-lead-q4_0.gguf", 64000, HYPURA_MODE_MIXED, true},
};
const int n_fault_cases = (int)(sizeof(fault_cases) / sizeof(fault_cases[0]));

const char *const fault_engines[2] = {"uring", "pool"};

const char *faults_engine(int number)
{
    return fault_engines[number % 2 == 0 && hypura_io_engine_available(fault_engines[0]) ? 0 : 1];
}

static char folder[] = "/tmp/hypura-faults-XXXXXX";

const char *faults_model(const char *file)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", HYPURA_TINY, file);
    return path;
}

const char *faults_copy(const char *file)
{
    static char path[1024];
    char command[4096];
    hypura_split_name parts;
    const bool split = hypura_split_parse(file, &parts);
    const int stem = split ? (int)parts.prefix_bytes : (int)strlen(file);
    snprintf(path, sizeof(path), "%s/%s", folder, file);
    snprintf(command, sizeof(command), "cp '%s/%.*s'%s '%s'", HYPURA_TINY, stem, file, split ? "-*-of-*.gguf" : "",
             folder);
    assert_int_equal(system(command), 0);
    return path;
}

const char *faults_cache_dir(void)
{
    return HYPURA_TEST_CACHE;
}

bool faults_foresees(const char *engine)
{
    return engine && strcmp(engine, "pool") == 0;
}

typedef struct wire {
    hypura_io_hook hook;
    void *user;
} wire;

static bool on_loading(void *user, const char *what, uint64_t done, uint64_t total)
{
    wire *w = user;
    (void)done;
    (void)total;
    if (w->hook && strcmp(what, "loading") == 0) {
        w->hook(w->user, 0, 0);
    }
    return true;
}

hypura_status faults_try_open(const fault_case *c, const char *path, const char *engine, hypura_io_hook hook,
                              void *user, hypura_model **model, hypura_error *error)
{
    static const hypura_profile profile = {
        .n_cpus = 1,
        .ram_total_bytes = UINT64_C(1) << 33,
        .ram_available_bytes = UINT64_C(1) << 33,
        .ram_limit_bytes = UINT64_C(1) << 33,
        .memory_bytes_per_s = 1e10,
        .direct_io = true,
        .io_align_offset_bytes = 512,
        .io_align_memory_bytes = 512,
        .io_block_bytes = 1 << 20,
        .io_depth = 4,
        .direct_bytes_per_s = 1e9,
        .read_latency_us = 100,
    };
    wire loading = {hook, user};
    const hypura_model_extras extras = {.profile = &profile, .all_logits = true, .io_hook = hook, .io_hook_user = user};
    const hypura_model_options options = {.path = path,
                                          .weights_bytes = c->weights_bytes,
                                          .n_context = N_CONTEXT,
                                          .n_ubatch = N_UBATCH,
                                          .n_threads = 1,
                                          .force_paging = c->weights_bytes > 0 && c->mode != HYPURA_MODE_RESIDENT,
                                          .plain = c->weights_bytes == 0,
                                          .no_repack = !c->repack,
                                          .io_engine = engine,
                                          .progress = c->mode == HYPURA_MODE_RESIDENT ? on_loading : NULL,
                                          .progress_user = &loading,
                                          .foresight = faults_foresees(engine) ? HYPURA_FORESIGHT_ON : HYPURA_FORESIGHT_OFF};
    return hypura_model_open_with(&options, &extras, model, error);
}

hypura_model *faults_open(const fault_case *c, const char *path, const char *engine, hypura_io_hook hook, void *user)
{
    hypura_model *model = NULL;
    hypura_error error;
    if (faults_try_open(c, path, engine, hook, user, &model, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(hypura_model_plan(model)->mode, c->mode);
    return model;
}

void faults_script(const fault_case *c, hypura_script *script)
{
    const fault_case plain_case = {.file = c->file, .mode = HYPURA_MODE_RESIDENT, .repack = c->repack};
    hypura_model *plain = faults_open(&plain_case, faults_model(c->file), NULL, NULL, NULL);
    hypura_error error;
    uint64_t budget = UINT64_C(1) << 24;
    if (hypura_script_write(plain, N_PROMPT, N_STEPS, &budget, script, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    hypura_model_close(plain);
}

void faults_expect_right(hypura_model *model, const hypura_script *script)
{
    uint64_t differing = 0;
    hypura_error error;
    if (hypura_script_follow(model, script, &differing, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(differing, 0);
}

void faults_expect(hypura_status wanted, hypura_status status, const hypura_error *error, const char *text)
{
    if (status != wanted || error->status != wanted || !strstr(error->message, text)) {
        fail_msg("%s: %s\nwanted %s with '%s'", hypura_status_name(status), error->message, hypura_status_name(wanted),
                 text);
    }
}

int faults_setup(void **state)
{
    (void)state;
    if (access(faults_model(fault_cases[0].file), R_OK) != 0) {
        print_error("%s is not there: mkmodel tiny makes it\n", faults_model(fault_cases[0].file));
        return -1;
    }
    return mkdtemp(folder) ? 0 : -1;
}

int faults_teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}
