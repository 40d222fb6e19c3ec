/*
 * cmd_run.c - `hypura run`: one answer, or a conversation.
 *
 * The text goes to standard output exactly as the model produced it, each answer
 * followed by one newline. Placement before and statistics after go to standard
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

#include "base/status.h"
#include "base/waiting.h"
#include "cli/history.h"
#include "cli/interrupt.h"
#include "cli/message.h"
#include "cli/output.h"
#include "cli/placement.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/run_statistics.h"
#include "hypura_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* What the command line says; the library's options are the destinations. */
typedef struct run_arguments {
    const hypura_environment *environment;
    hypura_model_options model;
    hypura_generate_options generate;
    hypura_budget weights;
    const char *server;    /* asks this one instead of opening the model */
    const char *api_key;
    hypura_client *client; /* of the server */
    hypura_vram_limit vram;
    const char *gpu_misses;
    hypura_speculation_arguments speculation;
    hypura_adapter_list adapters;
    hypura_string_list stop;
    const char *prompt_file;
    const char *template_file;
    const char *stats_file;
    const char *history_file;
    hypura_history *history; /* NULL: it is not kept */
    bool interactive;
    bool seed_given;
    char path[HYPURA_PATH_BYTES];
} run_arguments;

/* ---- checks that need several options --------------------------------------- */

static hypura_status check_arguments(const run_arguments *run, hypura_error *error)
{
    const hypura_budget *vram = &run->vram.all;
    const struct {
        bool both;
        const char *names;
    } contradictions[] = {
        {run->generate.prompt && run->prompt_file, "--prompt and --prompt-file"},
        {run->generate.prompt && run->interactive, "--prompt and --interactive"},
        {run->prompt_file && run->interactive, "--prompt-file and --interactive"},
        {run->generate.raw && run->generate.system, "--raw and --system"},
        {run->generate.raw && run->template_file, "--raw and --template"},
        {run->generate.raw && run->history_file, "--raw and --history"},
        {run->generate.grammar && run->generate.json_schema, "--grammar and --json-schema"},
        {run->model.plain && run->model.memory_bytes > 0, "--plain and --memory"},
        {run->model.plain && (run->weights.bytes > 0 || run->weights.percent > 0), "--plain and --weights"},
        {run->model.plain && run->model.force_paging, "--plain and --force-paging"},
        {run->model.plain && run->model.io_engine, "--plain and --io-engine"},
        {run->server && run->model.plain, "--server and --plain"},
        {run->server && run->model.memory_bytes > 0, "--server and --memory"},
        {run->server && (run->weights.bytes > 0 || run->weights.percent > 0), "--server and --weights"},
        {run->server && run->model.n_context > 0, "--server and --context"},
        {run->server && run->model.kv_cache.type_k, "--server and --cache-type-k"},
        {run->server && run->model.kv_cache.type_v, "--server and --cache-type-v"},
        {run->server && run->stats_file, "--server and --stats-json"},
        {run->server && run->model.trace, "--server and --trace"},
        {run->server && run->template_file, "--server and --template"},
        {run->server && run->speculation.draft, "--server and --draft"},
        {run->server && run->speculation.types.n > 0, "--server and --spec-type"},
        {run->server && run->adapters.n > 0, "--server and --lora"},
        {run->server && run->model.gpu, "--server and --gpu"},
        {run->server && (vram->bytes > 0 || vram->percent > 0 || run->vram.each[0] > 0), "--server and --vram"},
        {run->server && run->gpu_misses, "--server and --gpu-misses"},
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
static hypura_status find_prompt(run_arguments *run, const hypura_environment *environment, char **owned,
                                 hypura_error *error)
{
    if (run->generate.prompt || run->interactive) {
        return HYPURA_OK;
    }
    if (!run->prompt_file && environment->terminal_in) {
        run->interactive = true;
        return HYPURA_OK;
    }
    hypura_status status = hypura_prompt_read(run->prompt_file ? run->prompt_file : "-", owned, error);
    if (status == HYPURA_OK && !run->prompt_file && (*owned)[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "no prompt: standard input is empty (give --prompt, --prompt-file or --interactive)");
    }
    run->generate.prompt = *owned;
    return status;
}

static hypura_status choose_seed(run_arguments *run, hypura_error *error)
{
    uint32_t *seed = &run->generate.sampling.seed;
    if (!run->seed_given && getentropy(seed, sizeof *seed) != 0) {
        return hypura_fail_errno(error, errno, "cannot get a random seed (give --seed)");
    }
    return HYPURA_OK;
}

/* ---- one answer -------------------------------------------------------------- */

typedef struct answer {
    bool any_text;
    hypura_progress progress; /* of the prompt, until the first text */
} answer;

static bool print_text(void *user, const char *text, size_t text_bytes)
{
    answer *to = user;
    hypura_progress_close(&to->progress);
    to->any_text = to->any_text || text_bytes > 0;
    return hypura_output_write(text, text_bytes) && hypura_output_flush() && !hypura_interrupted();
}

/* Generates, prints and counts one answer; of the model, or where that is NULL of the server. */
static hypura_status answer_prompt(hypura_model *model, const run_arguments *run, hypura_generate_options generate,
                                   hypura_run_totals *totals, hypura_error *error)
{
    answer to = {.any_text = false};
    hypura_result result = {.text = NULL};
    generate.on_text = print_text;
    generate.on_text_user = &to;
    generate.progress = hypura_progress_update;
    generate.progress_user = &to.progress;
    hypura_progress_open(&to.progress, run->environment);
    hypura_status status = model ? hypura_generate(model, &generate, &result, error)
                                 : hypura_client_generate(run->client, &generate, &result, error);
    hypura_progress_close(&to.progress);
    if (status == HYPURA_OK || to.any_text) {
        hypura_output_write("\n", 1);
        hypura_output_flush();
    }
    if (status == HYPURA_OK) {
        status = hypura_run_totals_add(totals, &result, error);
    }
    if (status == HYPURA_OK && run->history && (!result.stopped_by_user || result.text[0] != '\0')) {
        status = hypura_history_add(run->history, generate.prompt, result.text, error);
    }
    if (status == HYPURA_OK && result.context_full) {
        hypura_output_note("the context is full: the answer ends here (--context N makes it larger)");
    }
    hypura_result_clear(&result);
    return status;
}

static hypura_status answer_once(hypura_model *model, const run_arguments *run, hypura_run_totals *totals,
                                 hypura_error *error)
{
    hypura_status status = answer_prompt(model, run, run->generate, totals, error);
    if (status == HYPURA_OK && hypura_interrupted()) {
        status = hypura_fail(error, HYPURA_ERR_CANCELLED, "interrupted");
    }
    return status;
}

/* ---- a conversation ---------------------------------------------------------- */

/* Answers one line. Ctrl-C and a line that cannot be answered as it stands, one
 * that is too long perhaps, end the answer alone. */
static hypura_status answer_line(hypura_model *model, const run_arguments *run, const char *line,
                                 hypura_run_totals *totals, hypura_error *error)
{
    hypura_generate_options generate = run->generate;
    generate.prompt = line;
    generate.n_history = run->history ? run->history->n_said : 0; /* 0 once a new conversation began */
    hypura_status status = answer_prompt(model, run, generate, totals, error);
    if (status == HYPURA_ERR_USAGE) {
        hypura_output_error("%s", error->message);
        status = HYPURA_OK;
    }
    if (status == HYPURA_ERR_CANCELLED && !hypura_terminated()) {
        status = HYPURA_OK;
    }
    hypura_interrupt_clear();
    return status;
}

/* True when the line was for the program. */
static bool take_command(hypura_model *model, const run_arguments *run, const char *line, bool *ended)
{
    if (strcmp(line, "/bye") == 0 || strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
        *ended = true;
    } else if (strcmp(line, "/clear") == 0) {
        if (model) {
            hypura_model_reset(model);
        } else {
            hypura_client_reset(run->client);
        }
        if (run->history) {
            hypura_history_clear(run->history);
        }
        hypura_output_note("(a new conversation)");
    } else if (strcmp(line, "/?") == 0 || strcmp(line, "/help") == 0) {
        hypura_output_note("/clear begins a new conversation, /bye or Ctrl-D ends the program, Ctrl-C an answer; "
                           "\"\"\" begins and ends a message of several lines");
    } else {
        return hypura_message_refuse(line);
    }
    return true;
}

static hypura_status converse(hypura_model *model, const run_arguments *run, const hypura_environment *environment,
                              hypura_run_totals *totals, hypura_error *error)
{
    hypura_messages messages = {.environment = environment};
    hypura_status status = HYPURA_OK;
    bool warned = false; /* Ctrl-C came at this prompt already */
    bool ended = false;
    while (!ended && status == HYPURA_OK && hypura_output_errno() == 0) {
        const char *message = NULL;
        switch (hypura_messages_next(&messages, &message, error)) {
        case HYPURA_LINE:
            warned = false;
            if (messages.quoted || !(environment->terminal_in && take_command(model, run, message, &ended))) {
                status = answer_line(model, run, message, totals, error);
            }
            break;
        case HYPURA_LINE_END:
            if (environment->terminal_in && environment->terminal_error) {
                fputc('\n', stderr);
            }
            ended = true;
            break;
        case HYPURA_LINE_INTERRUPTED:
            ended = warned || hypura_terminated();
            fputc('\n', stderr);
            if (!ended) {
                hypura_output_note("(Ctrl-C again or Ctrl-D to leave)");
            }
            warned = true;
            hypura_interrupt_clear();
            break;
        case HYPURA_LINE_FAILED:
            status = error->status;
            break;
        }
        if (status == HYPURA_OK && hypura_terminated()) {
            status = hypura_fail(error, HYPURA_ERR_CANCELLED, "terminated");
        }
    }
    hypura_messages_close(&messages);
    return status;
}

/* ---- the run ----------------------------------------------------------------- */

static void print_note(const char *line)
{
    hypura_output_note("%s", line);
}

static void describe_run(const hypura_model *model, const run_arguments *run)
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
    for (int i = 0; i < run->adapters.n; i++) {
        hypura_output_note("adapter    %s, scale %g", run->adapters.items[i].path, (double)run->adapters.items[i].scale);
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

static hypura_status open_model(run_arguments *run, const hypura_environment *environment, hypura_model **model,
                                hypura_error *error)
{
    hypura_progress progress;
    hypura_progress_open(&progress, environment);
    run->model.progress = hypura_progress_update;
    run->model.progress_user = &progress;
    hypura_interrupt_watch(run->path);
    hypura_status status = hypura_model_open(&run->model, model, error);
    hypura_progress_close(&progress);
    return status;
}

static hypura_status report_run(const hypura_run_report *report, const char *stats_file, hypura_error *error)
{
    hypura_output_note("%s", "");
    hypura_run_statistics_print(report);
    return stats_file ? hypura_run_statistics_write(report, stats_file, error) : HYPURA_OK;
}

/* Everything between the checked arguments and the exit code. */
static hypura_status run_model(run_arguments *run, const hypura_environment *environment, hypura_error *error)
{
    hypura_model *model = NULL;
    hypura_run_totals totals = {.text = NULL};
    hypura_status status = open_model(run, environment, &model, error);
    if (status == HYPURA_OK) {
        describe_run(model, run);
        status = run->interactive ? converse(model, run, environment, &totals, error)
                                  : answer_once(model, run, &totals, error);
        if (status == HYPURA_OK || totals.n_answers > 0) {
            hypura_error ignored;
            bool ended_well = status == HYPURA_OK;
            hypura_run_report report = {.model = model,
                                        .totals = &totals,
                                        .path = run->path,
                                        .plain = run->model.plain,
                                        .speculates = run->model.speculation.draft || run->model.speculation.types,
                                        .computes_misses = run->model.gpu_misses == HYPURA_GPU_MISSES_CPU};
            hypura_status reported = report_run(&report, run->stats_file, ended_well ? error : &ignored);
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

static hypura_status ask_server(run_arguments *run, const char *name, const hypura_environment *environment,
                                hypura_error *error)
{
    hypura_run_totals totals = {.text = NULL};
    hypura_status status = hypura_client_open(run->server, run->api_key, name, &run->client, error);
    if (status == HYPURA_OK) {
        status = run->interactive ? converse(NULL, run, environment, &totals, error)
                                  : answer_once(NULL, run, &totals, error);
    }
    if (status == HYPURA_OK && totals.tokens > 0) {
        hypura_output_note("%s", "");
        hypura_output_note("answered   %u tokens in %.2f s, the first after %.2f s", (unsigned)totals.tokens,
                           totals.prompt_s + totals.decode_s, totals.prompt_s);
    }
    hypura_run_totals_close(&totals);
    hypura_client_close(run->client);
    return status;
}

static hypura_status run_limited(run_arguments *run, const hypura_environment *environment, hypura_error *error)
{
    hypura_status status = hypura_budgets_resolve(&run->weights, 1, run->path, &run->model.weights_bytes, error);
    if (status == HYPURA_OK) {
        run->model.path = run->path;
        run->model.gpu_misses = hypura_gpu_misses_of(run->gpu_misses);
        run->model.cache_dir = hypura_command_cache_dir(environment);
        status = hypura_vram_apply(&run->vram, &run->model, error);
    }
    return status == HYPURA_OK ? run_model(run, environment, error) : status;
}

/* *owned: to be freed. */
static hypura_status read_template(run_arguments *run, char **owned, hypura_error *error)
{
    const hypura_status status = run->template_file ? hypura_prompt_read(run->template_file, owned, error) : HYPURA_OK;
    if (status == HYPURA_OK && *owned && (*owned)[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --template: %s is empty", run->template_file);
    }
    run->generate.chat_template = *owned;
    return status;
}

static hypura_status read_history(run_arguments *run, hypura_history *history, hypura_error *error)
{
    if (!run->history_file) {
        return HYPURA_OK;
    }
    const hypura_status status = hypura_history_open(run->history_file, history, error);
    if (status == HYPURA_OK && history->n_said > 0 && run->generate.system) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "--system is of a conversation that begins, and %s holds one",
                           run->history_file);
    }
    history->system = run->generate.system;
    run->generate.history = history->said;
    run->generate.n_history = history->n_said;
    run->history = history;
    return status;
}

/* Before the prompt is read, which would be gone. What it costs, headers read twice, is less than what a token gains. */
static void choose_waiting(run_arguments *run, const hypura_environment *environment)
{
    const bool limited = run->weights.bytes > 0 || run->weights.percent > 0;
    run->model.path = run->path;
    run->model.adapters = run->adapters.items;
    run->model.n_adapters = run->adapters.n;
    if (!limited && hypura_computes_alone(&run->model)) {
        hypura_waiting_restart(environment->words, HYPURA_WAITING_LONG);
    }
}

static hypura_status run_checked(run_arguments *run, const char *name, const hypura_environment *environment,
                                 hypura_error *error)
{
    char *prompt = NULL;
    char *template = NULL;
    hypura_history history = {.path = NULL};
    hypura_status status = check_arguments(run, error);
    if (status == HYPURA_OK && run->stats_file) {
        status = hypura_output_check(run->stats_file, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_interrupt_open(error);
    }
    if (status == HYPURA_OK && !run->server) {
        status = hypura_environment_find_model(environment, name, run->path, error);
    }
    if (status == HYPURA_OK && !run->server) {
        status = hypura_speculation_resolve(environment, &run->speculation, &run->model.speculation, error);
    }
    if (status == HYPURA_OK && !run->server) {
        choose_waiting(run, environment);
    }
    if (status == HYPURA_OK) {
        status = choose_seed(run, error);
    }
    if (status == HYPURA_OK) {
        status = read_template(run, &template, error);
    }
    if (status == HYPURA_OK) {
        status = read_history(run, &history, error);
    }
    if (status == HYPURA_OK) {
        status = find_prompt(run, environment, &prompt, error);
    }
    if (status == HYPURA_OK) {
        status = run->server ? ask_server(run, name, environment, error) : run_limited(run, environment, error);
    }
    hypura_history_close(&history);
    free(template);
    free(prompt);
    return status;
}

int hypura_command_run(const hypura_environment *environment, int argc, char *const *argv)
{
    run_arguments run = {
        .environment = environment,
        .generate.sampling = {.temperature = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .top_k = 40},
    };
    hypura_sampling *sampling = &run.generate.sampling;
    const hypura_option options[] = {
        {"prompt", "TEXT", "the prompt", HYPURA_OPTION_STRING, .to.string = &run.generate.prompt, .also = "-p"},
        {"prompt-file", "FILE", "read the prompt from FILE (-: standard input)", HYPURA_OPTION_STRING,
         .to.string = &run.prompt_file, .also = "-f --file"},
        {"system", "TEXT", "what the model is told before the first prompt", HYPURA_OPTION_STRING,
         .to.string = &run.generate.system, .also = "-sys --system-prompt"},
        {"interactive", NULL, "hold a conversation, line by line", HYPURA_OPTION_FLAG, .to.flag = &run.interactive,
         .also = "-i -cnv --conversation"},
        {"history", "FILE", "keep the conversation in FILE, and go on with the one there", HYPURA_OPTION_STRING,
         .to.string = &run.history_file},
        {"raw", NULL, "continue the prompt as it is, without the chat template", HYPURA_OPTION_FLAG,
         .to.flag = &run.generate.raw, .also = "-no-cnv --no-conversation"},
        {"template", "FILE", "chat template in Jinja in place of the model's own", HYPURA_OPTION_STRING,
         .to.string = &run.template_file, .also = "--chat-template-file"},
        {"json-schema", "JSON", "the answer is JSON of this schema; {}: any JSON", HYPURA_OPTION_STRING,
         .to.string = &run.generate.json_schema, .also = "-j"},
        {"grammar", "GBNF", "the answer is of this grammar, from its rule root", HYPURA_OPTION_STRING,
         .to.string = &run.generate.grammar},
        {"stop", "TEXT", "ends the answer before this text; may be given several times", HYPURA_OPTION_STRINGS,
         .to.strings = &run.stop, .also = "-r --reverse-prompt"},
        {"max-tokens", "N", "tokens of an answer at most (0: no limit)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &run.generate.max_tokens, .min = 0, .max = INT32_MAX,
         .also = "-n --predict --n-predict"},
        hypura_option_context(&run.model.n_context),
        hypura_option_cache_type_k(&run.model.kv_cache),
        hypura_option_cache_type_v(&run.model.kv_cache),
        hypura_option_memory(&run.model.memory_bytes),
        hypura_option_weights(&run.weights),
        hypura_option_gpu(&run.model.gpu),
        hypura_option_vram(&run.vram),
        hypura_option_gpu_misses(&run.gpu_misses),
        hypura_option_threads(&run.model.n_threads),
        hypura_option_ubatch(&run.model.n_ubatch),
        hypura_option_lora(&run.adapters),
        hypura_option_draft(&run.speculation),
        hypura_option_spec_type(&run.speculation),
        hypura_option_draft_max(&run.speculation),
        hypura_option_draft_p_min(&run.speculation),
        {"temp", "F", "temperature, 0: the most likely token (default: 0.8)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->temperature, .min = 0, .max = 100, .also = "--temperature"},
        {"top-p", "F", "tokens that make up F of the probability (default: 0.95)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->top_p, .min = 0, .max = 1},
        {"top-k", "N", "the N most likely tokens, 0: all (default: 40)", HYPURA_OPTION_INT,
         .to.integer = &sampling->top_k, .min = 0, .max = INT32_MAX},
        {"min-p", "F", "tokens with F of the best one's probability (default: 0.05)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->min_p, .min = 0, .max = 1},
        {"repeat-penalty", "F", "makes the last 64 tokens less likely (default: 1, off)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->repeat_penalty, .min = 1, .max = 100},
        {"frequency-penalty", "F", "takes F off them as often as they occur (default: 0, off)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->frequency_penalty, .min = -2, .max = 2},
        {"presence-penalty", "F", "takes F off them once (default: 0, off)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->presence_penalty, .min = -2, .max = 2},
        {"seed", "N", "seed of the sampling (default: random)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &sampling->seed, .min = 0, .max = UINT32_MAX, .given = &run.seed_given,
         .also = "-s"},
        {"server", "URL", "ask a running server, by its name for the model", HYPURA_OPTION_STRING,
         .to.string = &run.server},
        {"api-key", "KEY", "the server's key", HYPURA_OPTION_STRING, .to.string = &run.api_key},
        {"io-engine", "NAME", "what reads: uring or pool (default: the faster one)", HYPURA_OPTION_CHOICE,
         .to.string = &run.model.io_engine, .choices = hypura_io_engines},
        {"no-repack", NULL, "keep weights in the file's own layout", HYPURA_OPTION_FLAG, .to.flag = &run.model.no_repack},
        {"force-paging", NULL, "page although all weights fit", HYPURA_OPTION_FLAG, .to.flag = &run.model.force_paging},
        {"plain", NULL, "plain llama.cpp, without Hypura, to compare with", HYPURA_OPTION_FLAG,
         .to.flag = &run.model.plain},
        {"trace", "FILE", "write the experts that are selected to FILE, as replay reads it", HYPURA_OPTION_STRING,
         .to.string = &run.model.trace},
        {"stats-json", "FILE", "write statistics and text to FILE", HYPURA_OPTION_STRING, .to.string = &run.stats_file},
    };
    const hypura_syntax syntax = {
        .command = "run",
        .operands = "MODEL [PROMPT]",
        .n_operands = 2,
        .n_optional = 1,
        .about = "Answers a prompt with a GGUF model, holding no more of it in memory than allowed.\n"
                 "Without PROMPT, --prompt or --prompt-file it is standard input; on a terminal a\n"
                 "conversation begins. One newline at the end of a file is not part of the prompt.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = "SIZE is a number of bytes, or a number with K, M or G (powers of 1024).\n"
                 "--memory and --weights exclude each other.\n"
                 "llama.cpp's -p -f -n -c -t -s -r -sys -j are understood as well.\n"
                 "\n"
                 "On a terminal /clear begins a conversation anew, /bye ends it and /? tells both;\n"
                 "\"\"\" begins a message of several lines, and ends it.\n"
                 "Ctrl-C ends the answer and prints the statistics; the exit code is then 1. In a\n"
                 "conversation it ends the answer alone, and at the prompt, twice, the conversation,\n"
                 "as Ctrl-D does.\n",
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    run.generate.stop = run.stop.items;
    run.generate.n_stop = run.stop.n;
    if (run.generate.prompt && arguments.n_operands > 1) {
        hypura_output_error("a prompt is given twice: '%s' and --prompt", arguments.operands[1]);
        return HYPURA_EXIT_USAGE;
    }
    if (arguments.n_operands > 1) {
        run.generate.prompt = arguments.operands[1];
    }
    hypura_status status = run_checked(&run, arguments.operands[0], environment, &error);
    return status == HYPURA_OK ? HYPURA_EXIT_SUCCESS : hypura_command_fail(&error);
}
