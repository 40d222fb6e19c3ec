/*
 * run_arguments.c - see run_arguments.h.
 */
#include "cli/run_arguments.h"

#include "base/status.h"
#include "base/waiting.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/pulling.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- checks that need several options --------------------------------------- */

static hypura_status check_arguments(const hypura_run_arguments *run, hypura_error *error)
{
    const hypura_budget *vram = &run->vram.all;
    const struct {
        bool both;
        const char *names;
    } contradictions[] = {
        {run->generate.prompt && run->interactive, "--prompt and --interactive"},
        {run->prompt_file && run->interactive, "--prompt-file and --interactive"},
        {run->generate.raw && run->generate.system, "--raw and --system"},
        {run->generate.raw && run->template_file, "--raw and --template"},
        {run->generate.raw && run->history_file, "--raw and --history"},
        {run->generate.raw && run->think, "--raw and --think"},
        {run->generate.raw && run->images.n > 0, "--raw and --image"},
        {run->generate.raw && run->projector, "--raw and --mmproj"},
        {run->projector && run->speculation.draft, "--mmproj and --draft"},
        {run->projector && run->speculation.types.n > 0, "--mmproj and --spec-type"},
        {run->images.n > 0 && run->speculation.draft, "--image and --draft"},
        {run->images.n > 0 && run->speculation.types.n > 0, "--image and --spec-type"},
        {run->generate.grammar && run->generate.json_schema, "--grammar and --json-schema"},
        {run->model.plain && run->model.memory_bytes > 0, "--plain and --memory"},
        {run->model.plain && (run->weights.bytes > 0 || run->weights.percent > 0), "--plain and --weights"},
        {run->model.plain && run->model.force_paging, "--plain and --force-paging"},
        {run->model.plain && run->model.io_engine, "--plain and --io-engine"},
        {run->server && run->model.plain, "--server and --plain"},
        {run->server && run->model.memory_bytes > 0, "--server and --memory"},
        {run->server && (run->weights.bytes > 0 || run->weights.percent > 0), "--server and --weights"},
        {run->server && run->model.n_context > 0, "--server and --context"},
        {run->server && run->stats_file, "--server and --stats-json"},
        {run->server && run->model.trace, "--server and --trace"},
        {run->server && run->template_file, "--server and --template"},
        {run->server && run->projector, "--server and --mmproj"},
        {run->server && run->model.kv_cache.type_k, "--server and --cache-type-k"},
        {run->server && run->model.kv_cache.type_v, "--server and --cache-type-v"},
        {run->server && run->speculation.draft, "--server and --draft"},
        {run->server && run->speculation.types.n > 0, "--server and --spec-type"},
        {run->server && run->adapters.n > 0, "--server and --lora"},
        {run->server && run->model.gpu, "--server and --gpu"},
        {run->server && (vram->bytes > 0 || vram->percent > 0 || run->vram.each[0] > 0), "--server and --vram"},
        {run->server && run->gpu_misses, "--server and --gpu-misses"},
        {run->server && run->model.rpc, "--server and --rpc"},
        {run->server && run->model.n_threads > 0, "--server and --threads"},
        {run->server && run->model.n_ubatch > 0, "--server and --ubatch"},
        {run->server && run->model.io_engine, "--server and --io-engine"},
        {run->server && run->model.no_repack, "--server and --no-repack"},
        {run->server && run->model.force_paging, "--server and --force-paging"},
    };
    for (size_t i = 0; i < sizeof contradictions / sizeof *contradictions; i++) {
        if (contradictions[i].both) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "%s exclude each other", contradictions[i].names);
        }
    }
    if (run->generate.grammar && run->generate.grammar[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --grammar: it is empty");
    }
    return hypura_limits_check(run->model.memory_bytes, &run->weights, error);
}

/* Decides where the prompt comes from. *owned is what is to be freed. */
static hypura_status find_prompt(hypura_run_arguments *run, char **owned, hypura_error *error)
{
    if ((run->generate.prompt && !run->prompt_file) || run->interactive) {
        return HYPURA_OK;
    }
    if (!run->prompt_file && run->environment->terminal_in) {
        run->interactive = true;
        return HYPURA_OK;
    }
    hypura_status status = hypura_prompt_read(run->prompt_file ? run->prompt_file : "-", owned, error);
    if (status == HYPURA_OK && !run->prompt_file && (*owned)[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "no prompt: standard input is empty (give --prompt, --prompt-file or --interactive)");
    }
    if (run->generate.prompt) {
        run->before = *owned;
    } else {
        run->generate.prompt = *owned;
        run->from_input = true;
    }
    return status;
}

/* A file, or standard input, before what is said of it. */
static hypura_status join_prompt(hypura_run_arguments *run, char **owned, hypura_error *error)
{
    if (!run->before || run->before[0] == '\0') {
        return HYPURA_OK;
    }
    const size_t bytes = strlen(run->before) + strlen(run->generate.prompt) + 3;
    *owned = malloc(bytes);
    if (!*owned) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a prompt of %zu bytes", bytes);
    }
    snprintf(*owned, bytes, "%s\n\n%s", run->before, run->generate.prompt);
    run->generate.prompt = *owned;
    return HYPURA_OK;
}

static hypura_status choose_seed(hypura_run_arguments *run, hypura_error *error)
{
    uint32_t *seed = &run->generate.sampling.seed;
    if (!run->seed_given && getentropy(seed, sizeof *seed) != 0) {
        return hypura_fail_errno(error, errno, "cannot get a random seed (give --seed)");
    }
    return HYPURA_OK;
}

/* ---- what is shown ------------------------------------------------------------ */

/* Whether the projector that a model has is of use. */
static bool may_show(const hypura_run_arguments *run)
{
    return !run->generate.raw && !run->speculation.draft && run->speculation.types.n == 0 && !run->model.trace &&
           (run->interactive || run->images.n > 0 || hypura_history_shows(&run->kept) ||
            (run->generate.prompt && !run->from_input && hypura_shown_named(run->generate.prompt)));
}

/* The one that is given, that of the model that the name stands for, or one beside its file. */
static hypura_status find_projector(hypura_run_arguments *run, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    run->model.projector = run->projector;
    if (run->projector || !may_show(run)) {
        return HYPURA_OK;
    }
    if (!run->files.projector) {
        status = hypura_local_projector(run->path, &run->files.projector, error);
    }
    run->model.projector = run->files.projector;
    if (status == HYPURA_OK && !run->model.projector && (run->images.n > 0 || hypura_history_shows(&run->kept))) {
        status = hypura_fail(error, HYPURA_ERR_USAGE,
                             "%s has no projector, which makes of pictures and sound what a model reads: --mmproj FILE names "
                             "one (the file mmproj-... beside the model's, where it came from)", run->path);
    }
    return status;
}

hypura_status hypura_run_take_shown(const hypura_run_arguments *run, hypura_generate_options *generate,
                                    hypura_shown_files *shown, char **rest, hypura_error *error)
{
    *rest = NULL;
    if (generate->raw || !hypura_shown_named(generate->prompt)) {
        return HYPURA_OK;
    }
    if (!run->server && !run->model.projector) {
        hypura_output_note("(the message names a picture or a sound, and the model has no projector to show it with: it is "
                           "sent as text. --mmproj FILE names one)");
        return HYPURA_OK;
    }
    const int n_before = shown->n;
    const hypura_status status = hypura_shown_take(shown, generate->prompt, rest, error);
    for (int i = n_before; i < shown->n; i++) {
        hypura_output_note("(shown: %s)", shown->media[i].name);
    }
    if (status == HYPURA_OK) {
        generate->prompt = *rest;
        generate->media = shown->media;
        generate->n_media = shown->n;
    }
    return status;
}

/* Of the command line, before the model is loaded. *rest: to be freed. */
static hypura_status read_shown(hypura_run_arguments *run, char **rest, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < run->images.n && status == HYPURA_OK; i++) {
        status = hypura_shown_add(&run->shown, run->images.items[i], error);
    }
    run->generate.media = run->shown.media;
    run->generate.n_media = run->shown.n;
    if (status == HYPURA_OK && run->generate.prompt && !run->from_input) {
        status = hypura_run_take_shown(run, &run->generate, &run->shown, rest, error);
    }
    return status;
}

/* ---- what is read -------------------------------------------------------------- */

/* *owned: to be freed. */
static hypura_status read_template(hypura_run_arguments *run, char **owned, hypura_error *error)
{
    if (!run->template_file) {
        return HYPURA_OK;
    }
    const hypura_status status = hypura_prompt_read(run->template_file, owned, error);
    if (status == HYPURA_OK && *owned && (*owned)[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --template: %s is empty", run->template_file);
    }
    run->generate.chat_template = *owned;
    return status;
}

static hypura_status read_history(hypura_run_arguments *run, hypura_error *error)
{
    hypura_history *history = &run->kept;
    if (!run->history_file) {
        return HYPURA_OK;
    }
    const hypura_status status = hypura_history_open(run->history_file, history, error);
    if (status == HYPURA_OK && history->n_said > 0 && run->generate.system && !run->system_is_own) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "--system is of a conversation that begins, and %s holds one",
                           run->history_file);
    }
    history->system = run->generate.system;
    run->generate.history = history->said;
    run->generate.n_history = history->n_said;
    run->history = history;
    return status;
}

/* A model that is not here, as `ollama run` does. */
static hypura_status fetch_files(hypura_run_arguments *run, hypura_error *error)
{
    const hypura_local_options places = hypura_environment_places(run->environment);
    char path[HYPURA_PATH_BYTES];
    const hypura_status status = hypura_pulling(run->environment, &places, run->name, path, error);
    if (status == HYPURA_OK) {
        return hypura_environment_find_files(run->environment, run->name, &run->files, error);
    }
    if (status != HYPURA_ERR_CANCELLED) {
        error->status = HYPURA_ERR_IO; /* whatever refused the name: the command line is as it should be */
        hypura_fail_prefix(error, "no model '%s' is here, and it cannot be pulled", run->name);
        return error->status;
    }
    return status;
}

/* What the name stands for. */
static hypura_status find_files(hypura_run_arguments *run, hypura_error *error)
{
    const bool offline = run->offline || run->environment->offline || !hypura_pulling_may(run->name);
    hypura_status status = offline ? hypura_environment_find_files(run->environment, run->name, &run->files, error)
                                   : hypura_environment_look_up(run->environment, run->name, &run->files, error);
    if (status == HYPURA_OK && !run->files.path) {
        status = fetch_files(run, error);
    }
    run->path = run->files.path;
    return status == HYPURA_OK ? hypura_adapters_begin_with(&run->adapters, &run->files, error) : status;
}

/* Before the prompt is read, which would be gone. What it costs, headers read twice, is less than what a token gains. */
static void choose_waiting(hypura_run_arguments *run)
{
    const bool limited = run->weights.bytes > 0 || run->weights.percent > 0;
    run->model.path = run->path;
    run->model.adapters = run->adapters.items;
    run->model.n_adapters = run->adapters.n;
    if (!limited && hypura_computes_alone(&run->model)) {
        hypura_waiting_restart(run->environment->words, HYPURA_WAITING_LONG);
    }
}

hypura_status hypura_run_arguments_prepare(hypura_run_arguments *run, hypura_error *error)
{
    const hypura_environment *environment = run->environment;
    hypura_status status = check_arguments(run, error);
    run->chosen = json_object();
    if (status == HYPURA_OK && !run->chosen) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for what is set");
    }
    if (status == HYPURA_OK && run->stats_file) {
        status = hypura_output_check(run->stats_file, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_interrupt_open(error);
    }
    if (status == HYPURA_OK && run->server) {
        status = hypura_keys_resolve(environment, &run->keys, error);
    }
    if (status == HYPURA_OK && !run->server) {
        status = find_files(run, error);
    }
    if (status == HYPURA_OK && !run->server) {
        status = hypura_run_settings_apply(run, error);
    }
    if (status == HYPURA_OK && !run->server) {
        status = hypura_speculation_resolve(environment, &run->speculation, &run->model.speculation, error);
    }
    if (status == HYPURA_OK && !run->server) {
        choose_waiting(run);
    }
    if (status == HYPURA_OK) {
        status = choose_seed(run, error);
    }
    if (status == HYPURA_OK) {
        status = read_template(run, &run->owned[0], error);
    }
    if (status == HYPURA_OK) {
        status = read_history(run, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_run_settings_begin(run, error);
    }
    if (status == HYPURA_OK) {
        status = find_prompt(run, &run->owned[1], error);
    }
    if (status == HYPURA_OK && !run->server) {
        status = find_projector(run, error);
    }
    if (status == HYPURA_OK) {
        status = read_shown(run, &run->owned[2], error);
    }
    if (status == HYPURA_OK) {
        status = join_prompt(run, &run->owned[3], error);
    }
    return status;
}

void hypura_run_arguments_clear(hypura_run_arguments *run)
{
    hypura_history_close(&run->kept);
    json_decref(run->settings);
    json_decref(run->chosen);
    hypura_shown_clear(&run->shown);
    hypura_local_files_clear(&run->files);
    hypura_keys_clear(&run->keys);
    for (size_t i = 0; i < sizeof run->owned / sizeof *run->owned; i++) {
        free(run->owned[i]);
    }
}
