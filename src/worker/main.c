/*
 * main.c - the program hypura-engine: llama.cpp's server for one model, with Hypura's pager below it. `hypura serve`
 * starts it, hears from it through live.h and speaks HTTP with it over a private socket.
 *
 *     parse -> plan -> llama.cpp's server (which loads: model.c) -> close
 *
 * With --estimate it prints what the model would take and ends, with --check-template or --check-grammar whether the one that
 * its standard input gives can be used. Diagnostics go to standard error, which the front
 * keeps.
 */
#include "worker/arguments.h"
#include "worker/check.h"
#include "worker/control.h"
#include "worker/defaults.h"
#include "worker/live.h"
#include "worker/lost.h"
#include "worker/model.h"
#include "worker/shim.h"

#include "base/clock.h"
#include "engine/prepare/idle.h"
#include "os/os.h"

#include "gguf.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A token's choice takes milliseconds, and a second by a grammar that is hard to follow. */
#define TOKEN_SECONDS 20.0

static double seconds_of(const char *variable, double otherwise)
{
    const double seconds = hypura_seconds_parse(getenv(variable));
    return seconds > 0.0 ? seconds : otherwise;
}

/* What fails says so where its result would have been printed. */
static int print_status(const hypura_error *error)
{
    json_t *failure = json_pack("{s:i, s:s}", "status", (int)error->status, "message", error->message);
    const int failed = failure ? json_dumpf(failure, stdout, JSON_COMPACT) : -1;
    json_decref(failure);
    printf("\n");
    return failed || fflush(stdout) != 0 ? 2 : error->status == HYPURA_OK ? 0 : 1;
}

static int fail(const hypura_error *error)
{
    fprintf(stderr, "hypura-engine: %s\n", error->message);
    return error->status == HYPURA_ERR_USAGE ? 2 : 1;
}

static hypura_live *told; /* NULL: standard output is read instead */

static void tell(const hypura_error *error)
{
    if (told) {
        hypura_live_write(told, &(hypura_live_record){.state = HYPURA_LIVE_FAILED, .error = *error});
        (void)fail(error);
    } else {
        (void)print_status(error);
    }
}

/* Before there is a control, see lost.h. */
static void on_end(const hypura_error *error)
{
    tell(error);
    _exit(1);
}

/* What it takes of each GPU: all it could use, the fewest with which it would be used so, and what is free there. Where the
 * memory is the host's it is counted with that. */
static json_t *list_gpus(const hypura_plan *plan)
{
    json_t *list = json_array();
    for (int g = 0; g < plan->n_gpus && !plan->unified; g++) {
        const hypura_gpu_plan *gpu = &plan->gpus[g];
        if (gpu->remote) {
            continue; /* another machine's, which shares out its memory itself */
        }
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "name", gpu->name, "bytes", (json_int_t)gpu->vram_bytes,
                                              "floor_bytes", (json_int_t)(plan->n_vram_pools > 0 ? gpu->floor_bytes : 0),
                                              "free_bytes", (json_int_t)gpu->free_bytes));
    }
    return list;
}

/* unfit: why the model goes without the draft that was asked for, or "". */
static int print_estimate(const hypura_worker_model *model, const char *unfit)
{
    const hypura_plan *plan = model->prepared.plan;
    const uint64_t other = plan->kv_bytes + plan->compute_bytes + plan->overhead_bytes + (plan->unified ? plan->vram_bytes : 0);
    json_t *estimate = json_pack("{s:I, s:I, s:I, s:i, s:b, s:o, s:s}", "memory_bytes", (json_int_t)(plan->weights_bytes + other),
                                 "floor_memory_bytes", (json_int_t)plan->floor_memory_bytes, "kv_bytes",
                                 (json_int_t)plan->kv_bytes, "n_sequences", (int)model->prepared.context.n_sequences,
                                 "computes_alone", hypura_plan_computes_alone(plan, hypura_os_cpu_count()), "gpus",
                                 list_gpus(plan), "draft_unfit", unfit);
    const int failed = estimate ? json_dumpf(estimate, stdout, JSON_COMPACT) : -1;
    json_decref(estimate);
    printf("\n");
    return failed || fflush(stdout) != 0;
}

/* Whether the file says how the embeddings of its tokens become one. */
static bool says_pooling(const char *path)
{
    struct gguf_init_params params = {.no_alloc = true};
    struct gguf_context *gguf = gguf_init_from_file(path, params);
    bool found = false;
    for (int64_t i = 0; gguf && i < gguf_get_n_kv(gguf); i++) {
        const char *key = gguf_get_key(gguf, i);
        const char *end = strrchr(key, '.');
        found = found || (end && strcmp(end, ".pooling_type") == 0);
    }
    gguf_free(gguf);
    return found;
}

static int serve(hypura_worker_arguments *arguments, hypura_worker_model *model, hypura_live *live)
{
    hypura_error error = {0};
    hypura_control *control = NULL;
    hypura_worker_words words;
    if (hypura_control_open(model, live, &control, &error) != HYPURA_OK) {
        return fail(&error);
    }
    arguments->pool_last = arguments->embeddings && !says_pooling(arguments->model.path);
    void *kept = NULL;
    hypura_worker_server_words(arguments, &model->prepared, &words);
    if (arguments->defaults && hypura_worker_add_defaults(arguments->defaults, &words, &kept, &error) != HYPURA_OK) {
        hypura_control_failed(control, &error);
        (void)fail(&error);
        hypura_control_close(control);
        json_decref(kept);
        return 2;
    }
    hypura_worker_model_offer(model);
    hypura_lost_watch(control, model->prepared.plan->gpu);
    hypura_control_watch(control, hypura_shim_sampler_turns, (uint64_t)(1e6 * seconds_of("HYPURA_TOKEN_SECONDS", TOKEN_SECONDS)));
    const int code = hypura_shim_server(words.n, words.words);
    json_decref(kept);
    if (model->error.status != HYPURA_OK) {
        hypura_control_failed(control, &model->error);
        (void)fail(&model->error);
    }
    hypura_control_close(control);
    return code;
}

int main(int argc, char **argv)
{
    hypura_worker_arguments arguments;
    hypura_worker_model model;
    hypura_live *live = NULL;
    hypura_error error = {0};
    hypura_error unfit = {0};
    if (hypura_worker_parse(argc, argv, &arguments, &error) != HYPURA_OK) {
        return fail(&error);
    }
    if (arguments.check_template) {
        (void)hypura_worker_check_template(stdin, &error);
        return print_status(&error);
    }
    if (arguments.check_grammar) {
        (void)hypura_worker_check_grammar(stdin, &error);
        return print_status(&error);
    }
    if (!arguments.estimate && hypura_live_open(arguments.live, &live, &error) != HYPURA_OK) {
        return fail(&error);
    }
    told = live;
    hypura_on_end(on_end);
    hypura_gpu_wait(seconds_of("HYPURA_GPU_SECONDS", 0.0));
    if (arguments.estimate && arguments.model.speculation.draft) {
        (void)hypura_worker_model_takes_draft(&arguments, &unfit);
    }
    if (hypura_worker_model_prepare(&arguments, &model, &error) != HYPURA_OK) {
        tell(&error);
        return live && error.status == HYPURA_ERR_USAGE ? 2 : 1;
    }
    const int code = arguments.estimate ? print_estimate(&model, unfit.message) : serve(&arguments, &model, live);
    hypura_worker_model_close(&model);
    return code;
}
