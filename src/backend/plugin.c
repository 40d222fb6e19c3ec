/*
 * plugin.c - Hypura inside programs that know nothing of it: libggml-hypura.so,
 * which stock llama.cpp programs load through GGML_BACKEND_PATH.
 *
 * Such a program gives us no model path and no budget. The path is found when the
 * first weight is named: libllama has the GGUF open by then, so one of this
 * process's open files is a GGUF with a weight of that name. The budget for
 * weights comes from the environment, a plug-in's only way in:
 *
 *     HYPURA_MEMORY=SIZE   weights held at most (K, M, G are powers of 1024);
 *                          unset: nothing is claimed and the program runs as it is
 *     HYPURA_STATS=FILE    one line of JSON when the program ends; "-": stderr
 *
 * Without libllama's graph the plan goes by the weights' names: experts and
 * feed-forward weights stream, everything else stays where libllama puts it.
 */
#include "backend/backend.h"
#include "backend/internal.h"

#include "base/size.h"
#include "plan/plan.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One model at a time, as programs load them one after the other; those loaded
 * before keep their pager until the process ends. */
static struct {
    char          path[4096];
    hypura_map   *map;
    hypura_plan  *plan;
    hypura_pager *pager;
} model;

/* The GGUF among the open files that has this weight. The others are terminals and pipes too, of
 * which nothing may be read: hypura_map_open takes regular files alone. */
static hypura_map *find_open_model(const char *weight, char *path, size_t capacity)
{
    static const char folder[] = "/proc/self/fd";
    hypura_map       *found = NULL;
    DIR              *files = opendir(folder);
    for (struct dirent *entry; files && !found && (entry = readdir(files)) != NULL;) {
        char          link[64];
        hypura_map   *map = NULL;
        const int     length = snprintf(link, sizeof(link), "%s/%.32s", folder, entry->d_name);
        const ssize_t n = length > 0 ? readlink(link, path, capacity - 1) : -1;
        if (n <= 0) {
            continue;
        }
        path[n] = '\0';
        if (hypura_map_open(path, &map, NULL) == HYPURA_OK) {
            if (hypura_map_find(map, weight) >= 0) {
                found = map;
            } else {
                hypura_map_close(map);
            }
        }
    }
    if (files) {
        closedir(files);
    }
    return found;
}

static hypura_status open_pager(uint64_t weights_bytes, hypura_error *error)
{
    /* block size and depth that no drive is far from its best with */
    const hypura_profile profile = {
        .n_cpus = 1,
        .ram_total_bytes = UINT64_MAX / 4,
        .ram_available_bytes = UINT64_MAX / 4,
        .ram_limit_bytes = UINT64_MAX / 4,
        .io_align_offset_bytes = 4096,
        .io_align_memory_bytes = 4096,
        .io_block_bytes = UINT64_C(1) << 20,
        .io_depth = 8,
    };
    hypura_survey survey;
    hypura_status status = hypura_survey_by_role(model.map, &survey, error);
    if (status == HYPURA_OK) {
        const hypura_plan_options options = {.weights_bytes = weights_bytes};
        status = hypura_plan_solve(model.map, &survey, &profile, &options, &model.plan, error);
        free(survey.uses);
    }
    if (status == HYPURA_OK && model.plan->mode != HYPURA_MODE_RESIDENT) {
        const hypura_pager_options options = {.map = model.map, .plan = model.plan};
        status = hypura_pager_open(&options, &model.pager, error);
    }
    return status;
}

static void print_statistics(void)
{
    const char *where = getenv("HYPURA_STATS");
    if (!where || !model.pager) {
        return;
    }
    FILE *out = strcmp(where, "-") == 0 ? stderr : fopen(where, "a");
    if (!out) {
        GGML_LOG_ERROR("hypura: HYPURA_STATS=%s cannot be written\n", where);
        return;
    }
    hypura_statistics s;
    hypura_pager_statistics(model.pager, &s);
    fprintf(out,
            "{\"mode\":\"%s\",\"weights_bytes\":%llu,\"bytes_read\":%llu,\"bytes_needed\":%llu,\"bytes_hit\":%llu,"
            "\"read_wait_s\":%.6f,\"compute_s\":%.6f,\"io_engine\":\"%s\",\"direct_io\":%s}\n",
            hypura_mode_name(model.plan->mode), (unsigned long long)model.plan->weights_bytes,
            (unsigned long long)s.bytes_read, (unsigned long long)s.bytes_needed, (unsigned long long)s.bytes_hit,
            s.read_wait_s, s.compute_s, s.io_engine, s.direct_io ? "true" : "false");
    if (out != stderr) {
        fclose(out);
    }
}

static hypura_pager *discover(const char *weight)
{
    static bool  failed;
    const char  *limit = getenv("HYPURA_MEMORY");
    uint64_t     weights_bytes;
    hypura_error error = {0};
    if (model.map || failed || !limit) {
        return model.map && hypura_map_find(model.map, weight) >= 0 ? model.pager : NULL;
    }
    if (!hypura_size_parse(limit, &weights_bytes) || weights_bytes == 0) {
        GGML_LOG_ERROR("hypura: HYPURA_MEMORY=%s is not a size; write it as 800M or 4G. Nothing is paged\n", limit);
        failed = true;
        return NULL;
    }
    model.map = find_open_model(weight, model.path, sizeof(model.path));
    if (!model.map) {
        return NULL;
    }
    if (open_pager(weights_bytes, &error) != HYPURA_OK) {
        GGML_LOG_ERROR("hypura: %s: %s. Nothing is paged\n", model.path, error.message);
        failed = true;
        return NULL;
    }
    atexit(print_statistics);
    return model.pager;
}

static ggml_backend_reg_t plugin_registry(void)
{
    hypura_backend_set_discover(discover);
    return hypura_backend_registry();
}

GGML_BACKEND_DL_IMPL(plugin_registry)
