/*
 * verify_random.c CACHE FOLDER [OPTION...]: random tiny models, run in random ways, against plain libllama on the same
 * devices: the same random work (play.h), and every output the same bits. A case is a seed and a process of its own, so that
 * an abort is the result of one case and not the end of the test.
 *
 *     --seed N       the first one (1)
 *     --cases N      so many, one after the other (1)
 *     --seconds N    or as many as begin within so long
 *     --archs DIR    models of every architecture, too
 *     --gpu NAMES    over these alone, such as Vulkan0
 *     --ops N        so many pieces of work at most in a case (40)
 *     --with NAME=N  something of a run that is not to be drawn: see drawn_change
 *     --verbose      each of them is told
 *
 * A case that plain libllama cannot run, or that is refused for its limits, is no failure, and is counted. CACHE has the
 * machine's profile; FOLDER is where a folder is made, and emptied for each case.
 */
#include "case.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_SECONDS = 240 }; /* of a case; then it hangs */

static const char *const outcome_names[] = {"identical", "DIFFERS", "FAILED", "plain fails", "refused", "CRASHED", "HANGS"};

static void empty(const char *folder)
{
    char command[DRAWN_PATH_BYTES + 32];
    snprintf(command, sizeof command, "rm -rf '%s'/*", folder);
    (void)!system(command);
}

static void judge(const settings *with, uint64_t seed, verdict *v)
{
    memset(v, 0, sizeof *v);
    v->outcome = CRASHED;
    empty(with->files.folder);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        (void)alarm(MOST_SECONDS);
        run_case(with, seed, v);
        fflush(stdout);
        exit(0); /* leaks are looked for */
    }
    int ended = 0;
    if (child < 0 || waitpid(child, &ended, 0) != child) {
        snprintf(v->text, sizeof v->text, "no process");
    } else if (WIFSIGNALED(ended)) {
        v->outcome = WTERMSIG(ended) == SIGALRM ? HANGS : v->in_plain ? PLAIN_FAILED : CRASHED;
        snprintf(v->text, sizeof v->text, "signal %d%s", WTERMSIG(ended), v->in_plain ? " in plain" : "");
    } else if (WEXITSTATUS(ended) != 0) {
        v->outcome = v->in_plain ? PLAIN_FAILED : CRASHED;
        snprintf(v->text, sizeof v->text, "exit %d%s", WEXITSTATUS(ended), v->in_plain ? " in plain" : "");
    }
}

static bool is_wrong(outcome o)
{
    return o == DIFFERS || o == FAILED || o == CRASHED || o == HANGS;
}

static void tell(const settings *with, uint64_t seed, const verdict *v)
{
    if (is_wrong(v->outcome) || with->verbose) {
        printf("seed %llu: %s: %s\n    %s\n    %s\n", (unsigned long long)seed, outcome_names[v->outcome], v->text, v->model, v->run);
    } else {
        printf("seed %llu: %s%s%s\n", (unsigned long long)seed, outcome_names[v->outcome], v->text[0] ? ": " : "", v->text);
    }
    fflush(stdout);
}

static int run_all(const settings *with)
{
    verdict *v = mmap(NULL, sizeof *v, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (v == MAP_FAILED) {
        return 2;
    }
    const uint64_t begin_us = hypura_clock_us();
    uint64_t counts[N_OUTCOMES] = {0};
    verdict sum = {0};
    uint64_t n_paged = 0, n_uploaded = 0, n_repeated = 0, n_landed = 0, n_hybrid = 0;
    for (uint64_t i = 0; with->seconds > 0 ? hypura_clock_us() - begin_us < with->seconds * 1000000u : i < with->n_cases; i++) {
        judge(with, with->seed + i, v);
        tell(with, with->seed + i, v);
        counts[v->outcome]++;
        n_paged += v->bytes_read > 0;
        n_uploaded += v->bytes_uploaded > 0;
        n_repeated += v->n_repeated > 0;
        n_landed += v->bytes_landed > 0;
        n_hybrid += v->n_cpu_rows > 0;
        sum.n_values += v->n_values;
        sum.n_decodes += v->n_decodes;
        sum.n_errors += v->n_errors;
        sum.n_cancelled += v->n_cancelled;
        sum.n_resizes += v->n_resizes;
        sum.n_answers += v->n_answers;
    }
    for (int o = 0; o < N_OUTCOMES; o++) {
        printf("%s%llu %s", o > 0 ? ", " : "", (unsigned long long)counts[o], outcome_names[o]);
    }
    printf("\n%llu decodes, %llu outputs compared; %llu errors and %llu ends provoked, %llu resizes, %llu answers\n"
           "cases that read: %llu, uploaded: %llu, ran ahead in vain: %llu, landed: %llu, computed rows beside: %llu\n",
           (unsigned long long)sum.n_decodes, (unsigned long long)sum.n_values, (unsigned long long)sum.n_errors,
           (unsigned long long)sum.n_cancelled, (unsigned long long)sum.n_resizes, (unsigned long long)sum.n_answers,
           (unsigned long long)n_paged, (unsigned long long)n_uploaded, (unsigned long long)n_repeated,
           (unsigned long long)n_landed, (unsigned long long)n_hybrid);
    empty(with->files.folder);
    return counts[DIFFERS] + counts[FAILED] + counts[CRASHED] + counts[HANGS] > 0 || n_paged == 0 ? 1 : 0;
}

static bool parse(int argc, char **argv, settings *with)
{
    *with = (settings){.seed = 1, .n_cases = 1, .n_ops = 40, .files = {.mkmodel = HYPURA_TEST_MKMODEL}};
    if (argc < 3) {
        return false;
    }
    with->cache_dir = argv[1];
    static char made[DRAWN_PATH_BYTES / 2];
    (void)mkdir(argv[2], 0777);
    snprintf(made, sizeof made, "%s/random-case", argv[2]);
    with->files.folder = made;
    for (int i = 3; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (strcmp(argv[i], "--verbose") == 0) {
            with->verbose = true;
            continue;
        } else if (strcmp(argv[i], "--seed") == 0) {
            with->seed = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--cases") == 0) {
            with->n_cases = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--seconds") == 0) {
            with->seconds = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--ops") == 0) {
            with->n_ops = (int)strtoul(value, NULL, 10);
        } else if (strcmp(argv[i], "--archs") == 0) {
            with->files.archs = value;
        } else if (strcmp(argv[i], "--gpu") == 0) {
            with->gpus = value;
        } else if (strcmp(argv[i], "--with") == 0 && with->n_changes < 32) {
            with->changes[with->n_changes++] = value;
        } else {
            return false;
        }
        i++;
    }
    return with->n_ops >= 4;
}

int main(int argc, char **argv)
{
    settings with;
    if (!parse(argc, argv, &with)) {
        fprintf(stderr, "usage: verify_random CACHE FOLDER [--seed N] [--cases N] [--seconds N] [--archs DIR] [--gpu NAMES] "
                        "[--ops N] [--verbose]\n");
        return 2;
    }
    (void)mkdir(with.files.folder, 0777);
    /* In a process of its own: none that is forked from has threads or devices. */
    hypura_profile *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const pid_t child = fork();
    if (child == 0) {
        hypura_error error;
        const hypura_profile_options where = {.cache_dir = with.cache_dir, .storage_path = with.files.folder};
        const hypura_status status = hypura_profile_get(&where, shared, &error);
        if (status != HYPURA_OK) {
            fprintf(stderr, "%s\n", error.message);
        }
        _exit(status != HYPURA_OK);
    }
    int ended = 1;
    (void)waitpid(child, &ended, 0);
    if (ended != 0) {
        return 2;
    }
    with.profile = *shared;
    with.profile.n_disturbed = 0; /* or it would be measured */
    with.profile.memory_bytes_per_s = 50e9;
    with.profile.direct_bytes_per_s = 4e9;
    if (!with.gpus) {
        standin_set_rates(&with.profile, 2.0);
    }
    return run_all(&with);
}
