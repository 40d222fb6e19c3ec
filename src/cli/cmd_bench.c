/*
 * cmd_bench.c - `hypura bench`: measured speed at several limits, against plain
 * llama.cpp and against what the machine allows. Each run is a process of its
 * own: this program again, with the hidden command `bench-worker`.
 */
#include "cli/command.h"

#include "base/size.h"
#include "base/status.h"
#include "cli/bench_output.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
/* The same file, whatever has become of its name since. */
static const char *const worker[] = {"/proc/self/exe", "bench-worker", NULL};
#define WORKER worker
#else
#define WORKER NULL
#endif

int hypura_command_bench_worker(const hypura_environment *environment, int argc, char *const *argv)
{
    (void)environment;
    (void)argv;
    hypura_error error;
    hypura_error_clear(&error);
    if (argc > 0 || isatty(STDOUT_FILENO)) {
        hypura_output_error("bench-worker is started by hypura bench alone");
        return HYPURA_EXIT_USAGE;
    }
    return hypura_command_end(hypura_bench_worker(STDIN_FILENO, STDOUT_FILENO, &error), &error);
}

typedef struct bench_arguments {
    hypura_bench_options wanted;
    hypura_budget_list memory;
    hypura_budget_list weights;
    hypura_vram_list vram;
    hypura_model_words words;
    const char *report;
    const char *io_limit;
    const char *foresight;
    bool json;
} bench_arguments;

/* In the order of hypura_foresight. */
static const char *const foresights[] = {"auto", "on", "off", "co-activation", NULL};

/* A SIZE, or a number as drives are sold by. */
static hypura_status parse_rate(const char *text, uint64_t *bytes_per_s, hypura_error *error)
{
    char *end;
    if (hypura_size_parse(text, bytes_per_s) && *bytes_per_s > 0) {
        return HYPURA_OK;
    }
    const double value = strtod(text, &end);
    if (end != text && *end == '\0' && value >= 1.0 && value < 1e15) {
        *bytes_per_s = (uint64_t)value;
        return HYPURA_OK;
    }
    return hypura_fail(error, HYPURA_ERR_USAGE, "option --io-limit: '%s' is no number of bytes per second", text);
}

/* Figures come first: a page that cannot be written takes nothing with it. */
static hypura_status tell(const bench_arguments *arguments, const hypura_bench_report *report, hypura_error *error)
{
    const hypura_status told =
        arguments->json ? hypura_json_print(hypura_bench_json(report), error) : hypura_bench_print(report, error);
    if (!arguments->report) {
        return told;
    }
    hypura_error second;
    const hypura_status written =
        hypura_bench_report_write(report, arguments->report, told == HYPURA_OK ? error : &second);
    return told != HYPURA_OK ? told : written;
}

static hypura_status bench(bench_arguments *arguments, const hypura_environment *environment, hypura_error *error)
{
    hypura_bench_options *wanted = &arguments->wanted;
    uint64_t memory[HYPURA_MAX_LIST];
    uint64_t weights[HYPURA_MAX_LIST];
    uint64_t vram[HYPURA_MAX_LIST];
    uint64_t gpu_vram[HYPURA_MAX_LIST][HYPURA_MAX_GPUS];
    hypura_bench_report report;
    hypura_progress progress;
    hypura_status status = hypura_interrupt_open(error);
    if (status == HYPURA_OK && arguments->io_limit) {
        status = parse_rate(arguments->io_limit, &wanted->model.io_limit_bytes_per_s, error);
    }
    if (status == HYPURA_OK && arguments->report) {
        status = hypura_output_check(arguments->report, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_budgets_resolve(arguments->memory.items, arguments->memory.n, wanted->model.path, memory, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_budgets_resolve(arguments->weights.items, arguments->weights.n, wanted->model.path, weights, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_vram_resolve(arguments->vram.items, arguments->vram.n, &wanted->model, vram, gpu_vram, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_progress_open(&progress, environment);
    wanted->model.foresight = (hypura_foresight)hypura_option_choice(foresights, arguments->foresight);
    wanted->memory_bytes = memory;
    wanted->n_memory = arguments->memory.n;
    wanted->weights_bytes = weights;
    wanted->n_weights = arguments->weights.n;
    wanted->vram_bytes = vram;
    wanted->n_vram = arguments->vram.n;
    wanted->gpu_vram_bytes = (const uint64_t (*)[HYPURA_MAX_GPUS])gpu_vram;
    wanted->worker = WORKER;
    wanted->model.progress = hypura_progress_update;
    wanted->model.progress_user = &progress;
    status = hypura_bench(wanted, &report, error);
    hypura_progress_close(&progress);
    if (report.n_cells > 0) { /* what was finished before a failure is told as well */
        hypura_error ignored;
        const hypura_status told = tell(arguments, &report, status == HYPURA_OK ? error : &ignored);
        status = status == HYPURA_OK ? told : status;
    }
    hypura_bench_report_clear(&report);
    return status;
}

int hypura_command_bench(const hypura_environment *environment, int argc, char *const *argv)
{
    bench_arguments arguments = {.json = false};
    hypura_bench_options *wanted = &arguments.wanted;
    const hypura_option options[] = {
        {"memory", "SIZE,...", "limits on everything the model takes; also N% of the file", HYPURA_OPTION_BUDGETS,
         .to.budgets = &arguments.memory},
        {"weights", "SIZE,...", "limits on the weights alone; also N% of the file", HYPURA_OPTION_BUDGETS,
         .to.budgets = &arguments.weights},
        hypura_option_gpu(&wanted->model.gpu),
        {"vram", "SIZE,...", "limits on GPU memory; also N% of the experts, or 4G+8G: of each GPU", HYPURA_OPTION_VRAMS,
         .to.vrams = &arguments.vram},
        hypura_option_gpu_misses(&arguments.words.gpu_misses),
        hypura_option_rpc(&wanted->model.rpc),
        hypura_option_rpc_memory(&wanted->model.rpc_bytes),
        hypura_option_lora(&arguments.words.adapters),
        hypura_option_cache_type_k(&wanted->model.kv_cache),
        hypura_option_cache_type_v(&wanted->model.kv_cache),
        {"baseline", NULL, "also plain llama.cpp, mapping the file, under the same limit", HYPURA_OPTION_FLAG,
         .to.flag = &wanted->baseline},
        {"resident", NULL, "what Hypura costs where everything fits, against plain llama.cpp", HYPURA_OPTION_FLAG,
         .to.flag = &wanted->resident},
        {"route", "TRACE", "recorded experts to force: lines \"token layer expert ...\"", HYPURA_OPTION_STRING,
         .to.string = &wanted->route},
        {"route-recall", "F", "emulates a guess of the next layer: so much of the route comes true",
         HYPURA_OPTION_FLOAT, .to.real = &wanted->route_recall, .min = 0, .max = 1},
        {"timeline", "FILE", "write what the host did over a GPU during the last token", HYPURA_OPTION_STRING,
         .to.string = &wanted->timeline},
        {"tokens", "N", "tokens decoded in each window (default: 64)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &wanted->tokens, .min = 1, .max = 1 << 24},
        {"prompt-tokens", "N", "length of the prompt (default: 512)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &wanted->prompt_tokens, .min = 1, .max = 1 << 24},
        {"parallel", "N", "sequences decoded together, a token of each at a time (default: 1)",
         HYPURA_OPTION_UNSIGNED, .to.unsigned_integer = &wanted->parallel, .min = 1, .max = 256},
        hypura_option_ubatch(&wanted->model.n_ubatch),
        {"runs", "N", "runs of each variant, interleaved (default: 3)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &wanted->runs, .min = 1, .max = 1000},
        hypura_option_threads(&wanted->model.n_threads),
        {"io-limit", "BYTES/S", "emulates a drive for Hypura's reads: 500M, 5.09e9", HYPURA_OPTION_STRING,
         .to.string = &arguments.io_limit},
        hypura_option_io_engine(&wanted->model.io_engine),
        {"foresight", "WHEN", "read or run ahead on a guess: auto, on, off, co-activation (default: auto)", HYPURA_OPTION_CHOICE,
         .to.string = &arguments.foresight, .choices = foresights},
        hypura_option_json(&arguments.json),
        {"report", "FILE", "write a page of plots (HTML) too", HYPURA_OPTION_STRING, .to.string = &arguments.report},
    };
    const hypura_syntax syntax = {
        .command = "bench",
        .operands = "MODEL",
        .n_operands = 1,
        .about = "Measures prefill and decode at each limit (without one: at what is free), in runs\n"
                 "that alternate between Hypura and, with --baseline, plain llama.cpp; tells what\n"
                 "was read, what was hit, and which share of the bound was reached: the larger of\n"
                 "computing alone and reading alone. --route forces experts in all variants, which\n"
                 "cuts their graphs at the routers alike.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = hypura_size_notes,
    };
    hypura_error error;
    int code;
    if (!hypura_command_begin_model(&syntax, environment, argc, argv, &arguments.words, &wanted->model, &error, &code)) {
        return code;
    }
    return hypura_command_end(bench(&arguments, environment, &error), &error);
}
