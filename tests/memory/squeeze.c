/*
 * squeeze.c - a model that runs without a limit, and a process that takes memory in
 * the middle and gives it back at the end.
 *
 *     squeeze MODEL SECONDS [--memory BYTES] [--thief BYTES RATE_BYTES_PER_S BEGIN_S HOLD_S] [--threads N]
 *             [--tokens N]
 *
 * Answers the same prompt again and again, for so many seconds or, with 0, until the
 * thief has taken all; every answer has to be the same. The thief's time begins when
 * the model is loaded. Prints a line every 250 ms: seconds, speed in tokens a second,
 * bytes held, bytes read a second, whether the thief holds its memory, why what is held
 * last changed. Run it in a control group, where the thief takes the group's memory.
 */
#include "hypura.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct arguments {
    hypura_model_options model;
    uint32_t tokens; /* of an answer */
    double seconds;
    size_t thief_bytes;
    double thief_rate;
    double thief_begin_s;
    double thief_hold_s;
} arguments;

static double begin_s;

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - begin_s;
}

static void sleep_s(double s)
{
    const struct timespec span = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    if (s > 0) {
        (void)nanosleep(&span, NULL);
    }
}

/* ---- the thief ---------------------------------------------------------------- */

static void steal(const arguments *a, int loaded, int taken)
{
    enum { STEP = 4 << 20 };
    char byte;
    if (read(loaded, &byte, 1) != 1) {
        _exit(0);
    }
    begin_s += now_s();
    sleep_s(a->thief_begin_s);
    char *memory = mmap(NULL, a->thief_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const double from = now_s();
    for (size_t at = 0; memory != MAP_FAILED && at < a->thief_bytes; at += STEP) {
        memset(memory + at, 1, a->thief_bytes - at < STEP ? a->thief_bytes - at : STEP);
        sleep_s(from + (double)at / a->thief_rate - now_s());
    }
    (void)!write(taken, "", 1);
    sleep_s(a->thief_hold_s);
    _exit(memory == MAP_FAILED);
}

/* ---- the report --------------------------------------------------------------- */

typedef struct watcher {
    hypura_model *model;
    double bytes_per_token;
    pid_t thief;
    const arguments *a;
    atomic_bool stop;
} watcher;

static void *watch(void *argument)
{
    watcher *w = argument;
    hypura_statistics last = {0};
    hypura_model_statistics(w->model, &last);
    double last_s = now_s();
    while (!atomic_load(&w->stop)) {
        sleep_s(0.25);
        hypura_statistics s;
        hypura_model_statistics(w->model, &s);
        const double at = now_s();
        const bool thief = w->a->thief_bytes > 0 && at > w->a->thief_begin_s && kill(w->thief, 0) == 0 &&
                           waitpid(w->thief, NULL, WNOHANG) == 0;
        printf("%7.2f %8.2f tok/s %8.1f MiB held %7.1f MiB/s read %-5s %s\n", at,
               (double)(s.bytes_needed - last.bytes_needed) / w->bytes_per_token / (at - last_s),
               (double)(s.pool_bytes + s.pinned_bytes) / 1048576.0,
               (double)(s.bytes_read - last.bytes_read) / 1048576.0 / (at - last_s), thief ? "thief" : "-",
               hypura_budget_reason_name(s.budget_reason));
        fflush(stdout);
        last = s;
        last_s = at;
    }
    return NULL;
}

static double paged_bytes_per_token(const hypura_model *model)
{
    const hypura_map *map = hypura_model_map(model);
    const hypura_plan *plan = hypura_model_plan(model);
    double bytes = 0;
    for (int t = 0; t < map->n_tensors; t++) {
        bytes += plan->placements[t].place == HYPURA_PLACE_DENSE ? (double)map->tensors[t].bytes : 0;
    }
    for (int b = 0; b < map->n_bundles; b++) {
        const bool paged = plan->placements[map->bundles[b].tensors[0]].place == HYPURA_PLACE_EXPERTS;
        bytes += paged ? (double)map->n_experts_used * (double)map->bundles[b].expert_bytes : 0;
    }
    return bytes > 0 ? bytes : 1;
}

/* ---- the run ------------------------------------------------------------------ */

typedef struct answer {
    uint64_t hash;
    double until_s; /* 0: to its end */
    bool cut;
} answer;

static bool take_text(void *user, const char *text, size_t bytes)
{
    answer *to = user;
    for (size_t i = 0; i < bytes; i++) {
        to->hash = (to->hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001B3);
    }
    to->cut = to->until_s > 0 && now_s() > to->until_s;
    return !to->cut;
}

static bool thief_is_done(int taken)
{
    struct pollfd wait = {.fd = taken, .events = POLLIN};
    return poll(&wait, 1, 0) == 1;
}

/* Returns the exit code. */
static int answer_all(hypura_model *model, const arguments *a, int taken)
{
    hypura_error error;
    uint64_t first = 0;
    int n_answers = 0;
    for (int n_after = 0; a->seconds > 0 ? now_s() < a->seconds : n_after < 2; n_answers++) {
        answer to = {.hash = UINT64_C(0xCBF29CE484222325), .until_s = a->seconds};
        const hypura_generate_options options = {
            .prompt = "w1 w2 w3", .raw = true, .max_tokens = a->tokens, .on_text = take_text, .on_text_user = &to};
        hypura_result result;
        const bool done = thief_is_done(taken);
        const hypura_status status = hypura_generate(model, &options, &result, &error);
        hypura_result_clear(&result);
        hypura_model_reset(model);
        if (status != HYPURA_OK) {
            fprintf(stderr, "squeeze: %s\n", error.message);
            return 1;
        }
        first = n_answers == 0 ? to.hash : first;
        if (!to.cut && to.hash != first) {
            fprintf(stderr, "squeeze: answer %d is another one\n", n_answers);
            return 1;
        }
        n_after += done;
    }
    printf("# %d answers, all the same\n", n_answers);
    return 0;
}

static bool parse(int argc, char **argv, arguments *a)
{
    if (argc < 3) {
        return false;
    }
    *a = (arguments){.model = {.path = argv[1], .n_context = 2048}, .tokens = 64, .seconds = atof(argv[2])};
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--memory") == 0 && i + 1 < argc) {
            a->model.memory_bytes = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            a->model.n_threads = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--tokens") == 0 && i + 1 < argc) {
            a->tokens = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--thief") == 0 && i + 4 < argc) {
            a->thief_bytes = strtoull(argv[++i], NULL, 10);
            a->thief_rate = atof(argv[++i]);
            a->thief_begin_s = atof(argv[++i]);
            a->thief_hold_s = atof(argv[++i]);
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    arguments a;
    if (!parse(argc, argv, &a)) {
        fputs("usage: squeeze MODEL SECONDS [--memory BYTES] [--thief BYTES RATE BEGIN_S HOLD_S] [--threads N] [--tokens N]\n", stderr);
        return 2;
    }
    hypura_model *model = NULL;
    hypura_error error;
    const char *cache = getenv("HYPURA_CACHE_DIR");
    a.model.cache_dir = cache;
    begin_s = now_s();
    watcher w = {.a = &a};
    int loaded[2];
    int taken[2];
    if (pipe(loaded) != 0 || pipe(taken) != 0) {
        return 1;
    }
    if (a.thief_bytes > 0 && (w.thief = fork()) == 0) {
        close(loaded[1]);
        steal(&a, loaded[0], taken[1]);
    }
    if (hypura_model_open(&a.model, &model, &error) != HYPURA_OK) {
        fprintf(stderr, "squeeze: %s\n", error.message);
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("# %s, %.1f MiB of weights planned, loaded after %.2f s\n", hypura_mode_name(hypura_model_plan(model)->mode),
           (double)hypura_model_plan(model)->weights_bytes / 1048576.0, now_s());
    begin_s += now_s();
    (void)!write(loaded[1], "", 1);
    w.model = model;
    w.bytes_per_token = paged_bytes_per_token(model);
    pthread_t thread;
    pthread_create(&thread, NULL, watch, &w);
    const int code = answer_all(model, &a, taken[0]);
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    hypura_model_close(model);
    if (a.thief_bytes > 0) {
        kill(w.thief, SIGKILL);
        waitpid(w.thief, NULL, 0);
    }
    return code;
}
