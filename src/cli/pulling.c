/*
 * pulling.c - see pulling.h. On a terminal a bar, elsewhere a line for each tenth, a second apart at least:
 *
 *     pulling hf.co/user/repository:Q4_K_M, 18.6 GiB in 2 files (3.1 GiB are there already), into /home/me/models
 *     pulling 5.6 GiB of 18.6 GiB, 45.2 MiB/s  [=====>             ]  30 %
 */
#include "cli/pulling.h"

#include "base/clock.h"
#include "base/status.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TELL_US 1000000u
#define TENTHS  10u

typedef struct pulling {
    hypura_progress progress;
    const hypura_environment *environment;
    const hypura_local_options *places;
    const char *name;
    uint64_t begun_us;    /* when the first bytes came */
    uint64_t begun_bytes; /* that were there then */
    uint64_t told_us;
    uint64_t tenths; /* that were told */
} pulling;

static void on_plan(void *user, const hypura_local_plan *plan)
{
    const pulling *p = user;
    char there[64] = "";
    char files[32] = "";
    if (plan->there_bytes > 0) {
        snprintf(there, sizeof there, " (%s are there already)", hypura_output_size(plan->there_bytes));
    }
    if (plan->n_files > 1) {
        snprintf(files, sizeof files, " in %zu files", plan->n_files);
    }
    hypura_output_note("pulling %s, %s%s%s, into %s", p->name, hypura_output_size(plan->bytes), files, there,
                       p->places->models_folder);
}

/* Where there is no terminal. */
static void tell(pulling *p, uint64_t done, uint64_t total, uint64_t now_us)
{
    const uint64_t tenths = done / (total / TENTHS + 1);
    if (tenths > p->tenths && now_us - p->told_us >= TELL_US) {
        hypura_output_note("pulling %s: %s of %s", p->name, hypura_output_size(done), hypura_output_size(total));
        p->tenths = tenths;
        p->told_us = now_us;
    }
}

static bool on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    pulling *p = user;
    const uint64_t now_us = hypura_clock_us();
    char label[96];
    if (total == 0) {
        return hypura_progress_update(&p->progress, what, done, total);
    }
    if (p->begun_us == 0) {
        p->begun_us = p->told_us = now_us;
        p->begun_bytes = done;
        p->tenths = done / (total / TENTHS + 1);
    }
    if (!p->environment->terminal_error) {
        tell(p, done, total, now_us);
        return !hypura_interrupted();
    }
    const double span_s = (double)(now_us - p->begun_us) / 1e6;
    const double rate = span_s > 0 && done > p->begun_bytes ? (double)(done - p->begun_bytes) / span_s : 0.0;
    snprintf(label, sizeof label, "pulling %s of %s, %s", hypura_output_size(done), hypura_output_size(total),
             hypura_output_rate(rate));
    return hypura_progress_update(&p->progress, label, done, total);
}

hypura_status hypura_pulling(const hypura_environment *environment, const hypura_local_options *places, const char *name,
                             char *path, hypura_error *error)
{
    pulling p = {.environment = environment, .places = places, .name = name};
    const hypura_local_watch watch = {.plan = on_plan, .progress = on_progress, .user = &p};
    if (environment->offline) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "HF_HUB_OFFLINE is set: nothing is fetched");
    }
    hypura_progress_open(&p.progress, environment);
    const hypura_status status = hypura_local_pull(places, name, &watch, path, HYPURA_PATH_BYTES, error);
    hypura_progress_close(&p.progress);
    return status;
}

bool hypura_pulling_may(const char *name)
{
    static const char ending[] = ".gguf";
    const size_t length = strlen(name);
    const bool is_path = name[0] == '/' || name[0] == '.' || name[0] == '~';
    const bool is_file = length >= sizeof ending && strcasecmp(name + length - (sizeof ending - 1), ending) == 0;
    return !is_path && !is_file;
}
