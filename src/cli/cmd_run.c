/*
 * cmd_run.c - `hypura run`: one answer, or a conversation.
 *
 * The answers go to standard output (run_answers.c). Placement before and statistics after go to standard
 * error.
 *
 *     open -> answer -> report -> close                      one prompt
 *     open -> (line -> answer)* -> report -> close           --interactive
 *
 * A signal during an answer ends the answer; the report is still made. It then
 * makes a run of one prompt fail (exit 1); in a conversation Ctrl-C does not, and
 * SIGTERM ends the conversation as a failure.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/placement.h"
#include "cli/progress.h"
#include "cli/run_answers.h"

static void print_note(const char *line)
{
    hypura_output_note("%s", line);
}

static void describe_run(const hypura_model *model, const hypura_run_arguments *run)
{
    const hypura_sampling *sampling = &run->generate.sampling;
    const hypura_map *map = hypura_model_map(model);
    hypura_output_note("model      %s", map->name[0] ? map->name : run->path);
    if (run->model.plain) {
        hypura_output_note("mode       plain: llama.cpp alone, all weights are held in memory");
    } else {
        hypura_placement_describe(hypura_model_plan(model), print_note);
        hypura_vram_note(&run->model, hypura_model_plan(model));
    }
    if (sampling->temperature > 0.0f) {
        hypura_output_note("sampling   temperature %.2f, top-p %.2f, top-k %d, min-p %.2f, seed %u",
                           (double)sampling->temperature, (double)sampling->top_p, sampling->top_k,
                           (double)sampling->min_p, sampling->seed);
    } else {
        hypura_output_note("sampling   the most likely token");
    }
    if (run->applied[0] != '\0') {
        hypura_output_note("made with  %s", run->applied);
    }
    for (int i = 0; i < run->adapters.n; i++) {
        hypura_output_note("adapter    %s, scale %g", run->adapters.items[i].path, (double)run->adapters.items[i].scale);
    }
    if (run->model.projector) {
        const hypura_plan *plan = hypura_model_plan(model);
        hypura_output_note("projector  %s, %s", run->model.projector,
                           plan->projector_bytes > 0 ? hypura_output_size(plan->projector_bytes) : "on the GPU");
    }
    if (run->model.speculation.draft) {
        hypura_output_note("draft      %s, %s of memory", run->model.speculation.draft,
                           hypura_output_size(hypura_model_plan(model)->draft_bytes));
    }
    if (run->model.speculation.types) {
        hypura_output_note("guesses    %s", run->model.speculation.types);
    }
    hypura_output_note("%s", "");
}

static hypura_status open_model(hypura_run_arguments *run, hypura_model **model, hypura_error *error)
{
    hypura_progress progress;
    hypura_progress_open(&progress, run->environment);
    run->model.progress = hypura_progress_update;
    run->model.progress_user = &progress;
    run->model.first = &run->generate;
    hypura_interrupt_watch(run->path);
    hypura_status status = hypura_model_open(&run->model, model, error);
    hypura_progress_close(&progress);
    return status;
}

static hypura_status report_run(const hypura_run_report *report, const hypura_run_arguments *run, hypura_error *error)
{
    if (!run->quiet) {
        hypura_output_note("%s", "");
        hypura_run_statistics_print(report);
    }
    return run->stats_file ? hypura_run_statistics_write(report, run->stats_file, error) : HYPURA_OK;
}

/* Everything between the checked arguments and the exit code. */
static hypura_status run_model(hypura_run_arguments *run, hypura_error *error)
{
    hypura_model *model = NULL;
    hypura_run_totals totals = {0};
    hypura_status status = open_model(run, &model, error);
    if (status == HYPURA_OK) {
        if (!run->quiet) {
            describe_run(model, run);
        }
        status = hypura_run_answer(model, run, &totals, error);
        if (status == HYPURA_OK || totals.n_answers > 0) {
            hypura_error ignored;
            bool ended_well = status == HYPURA_OK;
            hypura_run_report report = {.model = model,
                                        .totals = &totals,
                                        .path = run->path,
                                        .plain = run->model.plain,
                                        .speculates = run->model.speculation.draft || run->model.speculation.types,
                                        .computes_misses = run->model.gpu_misses == HYPURA_GPU_MISSES_CPU};
            hypura_status reported = report_run(&report, run, ended_well ? error : &ignored);
            if (!ended_well && reported != HYPURA_OK) {
                hypura_output_error("%s", ignored.message);
            }
            status = ended_well ? reported : status;
        }
    }
    hypura_run_totals_close(&totals);
    hypura_model_close(model);
    return status;
}

static hypura_status ask_server(hypura_run_arguments *run, hypura_error *error)
{
    hypura_run_totals totals = {0};
    hypura_status status = hypura_client_open(run->server, run->keys.keys[0], run->name, &run->client, error);
    if (status == HYPURA_OK) {
        status = hypura_run_answer(NULL, run, &totals, error);
    }
    if (status == HYPURA_OK && totals.tokens > 0 && !run->quiet) {
        hypura_output_note("%s", "");
        hypura_output_note("answered   %u tokens in %.2f s, the first after %.2f s", (unsigned)totals.tokens,
                           totals.prompt_s + totals.decode_s, totals.prompt_s);
    }
    hypura_run_totals_close(&totals);
    hypura_client_close(run->client);
    return status;
}

static hypura_status run_limited(hypura_run_arguments *run, hypura_error *error)
{
    hypura_status status = hypura_budgets_resolve(&run->weights, 1, run->path, &run->model.weights_bytes, error);
    if (status == HYPURA_OK) {
        run->model.path = run->path;
        run->model.gpu_misses = hypura_gpu_misses_of(run->gpu_misses);
        run->model.cache_dir = hypura_command_cache_dir(run->environment);
        status = hypura_vram_apply(&run->vram, &run->model, error);
    }
    return status == HYPURA_OK ? run_model(run, error) : status;
}

int hypura_command_run(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_run_arguments run;
    hypura_error error;
    int code;
    if (!hypura_run_arguments_parse(&run, environment, argc, argv, &code)) {
        return code;
    }
    hypura_status status = hypura_run_arguments_prepare(&run, &error);
    if (status == HYPURA_OK) {
        status = run.server ? ask_server(&run, &error) : run_limited(&run, &error);
    }
    hypura_run_arguments_clear(&run);
    return hypura_command_end(status, &error);
}
