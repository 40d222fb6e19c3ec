/*
 * verify_archs.c FOLDER CACHE [NAME...]: hypura_verify over every GGUF in a folder, each
 * in a process of its own, so that an abort inside llama.cpp is one model's result
 * and not the end of the test. The machine's profile is that of the folder CACHE.
 *
 * A model that plain llama.cpp cannot run either is listed with the reason and is
 * no failure. The test fails when any output differs, when Hypura fails where
 * llama.cpp does not, and when hardly any model was really paged.
 *
 * With HYPURA_TEST_MISSES it fails also when the processor computed rows of hardly any.
 *
 * Built with HYPURA_TEST_GPU both sides compute on the device that stands for a GPU, with
 * HYPURA_TEST_GPUS on those of these names.
 */
#include "backend/internal.h"
#include "engine/prepare/estimate.h"
#include "hw/store.h"
#include "hypura_measure.h"
#include "os/os.h"
#ifdef HYPURA_TEST_GPU
#include "standin.h"
#ifdef HYPURA_TEST_GPUS
#define GPUS HYPURA_TEST_GPUS
#endif
#endif
#ifndef GPUS
#define GPUS NULL
#endif
#ifndef HYPURA_TEST_MISSES
#define HYPURA_TEST_MISSES HYPURA_GPU_MISSES_UPLOAD
#endif

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define EVERYTHING (UINT64_C(1) << 40) /* more weights than any of these models has */

enum {
    MAX_MODELS = 512,
    LONGEST_PROMPT = 40,
    N_TOKENS = 2,
    SKIPPED = 77,
};

typedef enum outcome {
    IDENTICAL = 0,
    DIFFERS,
    FAILED,
    PLAIN_FAILED, /* llama.cpp alone cannot run it */
    CRASHED,
} outcome;

typedef struct verdict {
    outcome outcome;
    uint64_t bytes_paged; /* read, or uploaded to a GPU */
    uint64_t n_cpu_rows;
    char text[512];
} verdict;

typedef struct job {
    char path[1024];
    verdict verdict;
} job;

static job jobs[MAX_MODELS];
static int n_jobs;
static char cache_dir[] = "/tmp/hypura-archs-XXXXXX";

static int compare_jobs(const void *a, const void *b)
{
    return strcmp(((const job *)a)->path, ((const job *)b)->path);
}

static bool wanted(const char *file, int n_names, char **names)
{
    const size_t length = strlen(file);
    if (length <= 5 || strcmp(file + length - 5, ".gguf") != 0) {
        return false;
    }
    for (int i = 0; i < n_names; i++) {
        if (strstr(file, names[i])) {
            return true;
        }
    }
    return n_names == 0;
}

static bool list_models(const char *folder, int n_names, char **names)
{
    DIR *dir = opendir(folder);
    if (!dir) {
        return false;
    }
    for (struct dirent *entry = readdir(dir); entry && n_jobs < MAX_MODELS; entry = readdir(dir)) {
        if (wanted(entry->d_name, n_names, names)) {
            snprintf(jobs[n_jobs++].path, sizeof(jobs[0].path), "%s/%s", folder, entry->d_name);
        }
    }
    closedir(dir);
    qsort(jobs, (size_t)n_jobs, sizeof(jobs[0]), compare_jobs);
    return n_jobs > 0;
}

/* In the child. */
static void judge(const hypura_verify_report *report, verdict *v)
{
    for (int i = 0; i < report->n_cases; i++) {
        const hypura_verify_case *c = &report->cases[i];
#ifdef HYPURA_TEST_GPU
        v->bytes_paged += c->bytes_uploaded;
#else
        v->bytes_paged += c->bytes_read;
#endif
        v->n_cpu_rows += c->n_cpu_rows;
        if (c->differing > 0 && v->outcome == IDENTICAL) {
            v->outcome = DIFFERS;
            snprintf(v->text, sizeof(v->text), "%llu logits at %llu bytes of weights, %llu of GPU memory, prompt of %u, engine %s",
                     (unsigned long long)c->differing, (unsigned long long)c->weights_bytes,
                     (unsigned long long)c->vram_bytes, c->prompt_tokens, c->io_engine);
        }
    }
}

/* What a model is limited to, in turn: the least that it needs, and a half, a quarter or all of it. Of GPU memory where there is
 * a GPU, with the weights in RAM that are taken by themselves or with the least; otherwise of weights in RAM. */
typedef struct limits {
    uint64_t bytes[3];
    int n;
    uint64_t weights_bytes; /* over a GPU */
    bool one_by_one;
} limits;

static bool find_limits(const char *path, int index, limits *l)
{
    const hypura_model_options wanted = {.path = path,
                                         .gpu = GPUS,
                                         .n_context = LONGEST_PROMPT + N_TOKENS,
                                         .n_threads = 1,
                                         .force_paging = true,
                                         .cache_dir = cache_dir};
    const unsigned parts = index / 4 % 4 == 0 ? 1 : index / 4 % 4 == 2 ? 4 : 2;
    hypura_preparation prepared; /* an estimate would measure the processor, for longer than all else takes */
    hypura_error error;
    if (hypura_prepare(&wanted, NULL, true, &prepared, &error) != HYPURA_OK) {
        return false;
    }
    const hypura_plan *plan = prepared.plan;
#ifdef HYPURA_TEST_GPU
    const uint64_t bytes[] = {hypura_plan_vram_at(plan, 0), hypura_plan_vram_at(plan, 100 / parts)};
    *l = (limits){.weights_bytes = index / 3 % 2 == 0 ? 0 : plan->floor_weights_bytes};
#else
    const bool has_experts = plan->n_pools > 0; /* some are dense in spite of their names */
    const uint64_t bytes[] = {plan->floor_weights_bytes, prepared.map->tensor_bytes / parts, has_experts ? EVERYTHING : 0};
    *l = (limits){.one_by_one = has_experts};
#endif
    for (size_t i = 0; i < sizeof(bytes) / sizeof(*bytes); i++) {
        if (bytes[i] > (l->n > 0 ? l->bytes[l->n - 1] : 0)) {
            l->bytes[l->n++] = bytes[i];
        }
    }
    hypura_prepare_clear(&prepared);
    return l->n > 0;
}

/* Before each model is opened. The last one of a mixture is for experts under a condition that others meet by chance: each in a
 * group of its own, which otherwise depends on when reads end. */
static bool before_opening(void *user, const char *what, uint64_t n_opened, uint64_t n_models)
{
    const limits *l = user;
    (void)what;
    backend_set_single_groups(l->one_by_one && n_opened + 1 == n_models);
    return true;
}

static verdict verify_one(const char *path, int index)
{
    static const char *const engines[] = {"uring", "pool"};
    static const uint32_t prompts[] = {9, LONGEST_PROMPT};
    const char *engine = engines[index % 2];
    limits found = {.n = 0};
    hypura_verify_options options = {.model.path = path,
                                     .model.gpu = GPUS,
                                     .model.gpu_misses = HYPURA_TEST_MISSES,
                                     .prompt_tokens = prompts,
                                     .n_prompts = 2,
                                     .io_engines = &engine,
                                     .n_io_engines = 1,
                                     .tokens = N_TOKENS,
                                     .no_repack = true,
                                     .model.n_threads = 1,
                                     .model.cache_dir = cache_dir,
                                     .model.progress = before_opening,
                                     .model.progress_user = &found};
    if (find_limits(path, index, &found)) {
#ifdef HYPURA_TEST_GPU
        options.vram_bytes = found.bytes;
        options.n_vram = found.n;
        options.weights_bytes = &found.weights_bytes;
        options.n_weights = 1;
#else
        options.weights_bytes = found.bytes;
        options.n_weights = found.n;
#endif
    }
    hypura_verify_report report;
    hypura_error error;
    verdict v = {.outcome = IDENTICAL};
    backend_set_wide(index % 4 >= 2);
    hypura_status status = hypura_verify(&options, &report, &error);
    if (status == HYPURA_ERR_UNSUPPORTED && index % 2 == 0) {
        engine = engines[1]; /* a kernel without io_uring */
        status = hypura_verify(&options, &report, &error);
    }
    if (status != HYPURA_OK) {
        v.outcome = strncmp(error.message, "plain llama.cpp", 15) == 0 ? PLAIN_FAILED : FAILED;
        snprintf(v.text, sizeof(v.text), "%s", error.message);
        return v;
    }
    judge(&report, &v);
    hypura_verify_report_clear(&report);
    return v;
}

/* In the child: whether llama.cpp alone crashes on this model too. */
static verdict run_plain(const char *path)
{
    hypura_model_options options = {.path = path, .plain = true, .n_threads = 1};
    hypura_model *model = NULL;
    hypura_error error;
    verdict v = {.outcome = IDENTICAL};
    if (hypura_model_open(&options, &model, &error) != HYPURA_OK) {
        v.outcome = PLAIN_FAILED;
        snprintf(v.text, sizeof(v.text), "%s", error.message);
        return v;
    }
    hypura_generate_options wanted = {.prompt = "tok_1", .raw = true, .max_tokens = 4};
    hypura_result result;
    (void)hypura_generate(model, &wanted, &result, &error);
    hypura_result_clear(&result);
    hypura_model_close(model);
    return v;
}

static verdict run_child(const char *path, int index, bool plain)
{
    int ends[2];
    fflush(NULL);
    const pid_t child = pipe(ends) == 0 ? fork() : -1;
    if (child < 0) {
        perror("verify_archs");
        exit(1);
    }
    if (child == 0) {
        close(ends[0]);
        verdict v = plain ? run_plain(path) : verify_one(path, index);
        ssize_t written = write(ends[1], &v, sizeof(v));
        _exit(written == (ssize_t)sizeof(v) ? 0 : 1);
    }
    close(ends[1]);
    verdict v = {.outcome = CRASHED};
    const bool told = read(ends[0], &v, sizeof(v)) == (ssize_t)sizeof(v);
    int wait_status = 0;
    close(ends[0]);
    waitpid(child, &wait_status, 0);
    if (!told) {
        v = (verdict){.outcome = CRASHED};
        if (WIFSIGNALED(wait_status)) {
            snprintf(v.text, sizeof(v.text), "ended by signal %d", WTERMSIG(wait_status));
        } else {
            snprintf(v.text, sizeof(v.text), "ended with code %d", WEXITSTATUS(wait_status));
        }
    }
    return v;
}

static void run_all(void)
{
    for (int i = 0; i < n_jobs; i++) {
        jobs[i].verdict = run_child(jobs[i].path, i, false);
        if (jobs[i].verdict.outcome == CRASHED && run_child(jobs[i].path, i, true).outcome == CRASHED) {
            jobs[i].verdict.outcome = PLAIN_FAILED;
        }
    }
}

/* Takes the profile into a cache of our own: what these models run like is nobody else's. */
static bool take_profile(const char *from, const char *folder)
{
    hypura_profile profile;
    hypura_os_drive drive;
    hypura_error error;
    const hypura_profile_options options = {.cache_dir = from, .storage_path = folder};
    if (!mkdtemp(cache_dir)) {
        perror(cache_dir);
        return false;
    }
    const hypura_status status = hypura_profile_get(&options, &profile, &error);
#ifdef HYPURA_TEST_GPU
    standin_set_rates(&profile, 1.0);
    standin_register();
    backend_set_poll(false); /* the stand-ins copy when they are waited for */
#endif
    if (status != HYPURA_OK || hypura_os_drive_read(folder, &drive, &error) != HYPURA_OK ||
        hypura_store_save(cache_dir, drive.id, &profile, &error) != HYPURA_OK) {
        printf("no profile of this machine: %s\n", error.message);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc < 3 || !list_models(argv[1], argc - 3, argv + 3)) {
        printf("SKIPPED: no models in %s: llama.cpp's test-llama-archs writes them\n", argc > 1 ? argv[1] : "(none)");
        return SKIPPED;
    }
    if (!take_profile(argv[2], argv[1])) {
        return 1;
    }
    run_all();

    const bool computes = HYPURA_TEST_MISSES == HYPURA_GPU_MISSES_CPU;
    int n[CRASHED + 1] = {0};
    int n_paged = 0;
    int n_computed = 0;
    for (int i = 0; i < n_jobs; i++) {
        static const char *const names[] = {"identical", "DIFFERS", "FAILED", "llama.cpp cannot run it", "CRASHED"};
        const verdict *v = &jobs[i].verdict;
        n[v->outcome]++;
        n_paged += v->bytes_paged > 0;
        n_computed += v->n_cpu_rows > 0;
        if (v->outcome == IDENTICAL && computes && v->n_cpu_rows == 0) {
            printf("%s: the processor computed nothing\n", jobs[i].path);
        }
        if (v->outcome != IDENTICAL || v->bytes_paged == 0) {
            printf("%s: %s%s%s\n", jobs[i].path, names[v->outcome], v->text[0] ? ": " : " (nothing was paged)",
                   v->text);
        }
    }
    char command[sizeof(cache_dir) + 16];
    snprintf(command, sizeof(command), "rm -rf %s", cache_dir);
    const int left = system(command);
    printf("%d models: %d identical (%d paged), %d that llama.cpp cannot run, %d differ, %d failed, %d crashed\n",
           n_jobs, n[IDENTICAL], n_paged, n[PLAIN_FAILED], n[DIFFERS], n[FAILED], n[CRASHED]);
    printf("%d of them with rows that the processor computed in place of a GPU\n", n_computed);
    const bool enough = argc > 3 || (10 * n_paged >= 9 * n_jobs && (!computes || 10 * n_computed >= 7 * n_jobs));
    return left == 0 && enough && n[DIFFERS] + n[FAILED] + n[CRASHED] == 0 ? 0 : 1;
}
