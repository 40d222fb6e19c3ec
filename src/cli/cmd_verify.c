/*
 * cmd_verify.c - `hypura verify`: the same prompts through plain libllama and
 * through Hypura, every logit compared bit by bit. Exit code 1 when any differs.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <math.h>
#include <string.h>

static json_t *report_json(const hypura_verify_report *report)
{
    json_t *object = json_object();
    json_t *cases = json_array();
    for (int i = 0; i < report->n_cases; i++) {
        const hypura_verify_case *one = &report->cases[i];
        json_t *entry = json_object();
        hypura_json_integer(&entry, "weights_bytes", one->weights_bytes);
        hypura_json_integer(&entry, "vram_bytes", one->vram_bytes);
        hypura_json_text(&entry, "gpus", one->gpus);
        hypura_json_integer(&entry, "prompt_tokens", one->prompt_tokens);
        hypura_json_integer(&entry, "tokens", one->tokens);
        hypura_json_integer(&entry, "ubatch", one->ubatch);
        hypura_json_text(&entry, "form", hypura_form_name(one->form));
        hypura_json_text(&entry, "io_engine", one->io_engine);
        hypura_json_integer(&entry, "differing", one->differing);
        if (!isnan(one->most_differing)) { /* else hashes were compared */
            hypura_json_real(&entry, "most_differing", one->most_differing);
        }
        hypura_json_integer(&entry, "cpu_rows", one->n_cpu_rows);
        hypura_json_integer(&entry, "bytes_read", one->bytes_read);
        hypura_json_integer(&entry, "bytes_uploaded", one->bytes_uploaded);
        hypura_json_integer(&entry, "resizes", one->n_resizes);
        hypura_json_integer(&entry, "ahead", one->n_ahead);
        hypura_json_integer(&entry, "repeated", one->n_repeated);
        hypura_json_append(&cases, entry);
    }
    hypura_json_bool(&object, "identical", report->identical);
    hypura_json_set(&object, "cases", cases);
    return object;
}

static void print_limit(hypura_table *table, uint64_t bytes)
{
    if (bytes > 0) {
        hypura_table_size(table, bytes);
    } else {
        hypura_table_cell(table, "-");
    }
}

static hypura_status print_report(const hypura_verify_report *report, hypura_error *error)
{
    static const char *const titles[] = {"weights", "GPU memory", "prompt",   "tokens",   "ubatch",
                                         "form",    "engine",     "read",   "uploaded", "differing logits"};
    hypura_table table;
    uint64_t n_ahead = 0;
    uint64_t n_repeated = 0;
    uint64_t n_rows = 0;
    double most = 0.0;
    hypura_table_open(&table, "rrrrrllrrr", titles);
    for (int i = 0; i < report->n_cases; i++) {
        const hypura_verify_case *one = &report->cases[i];
        print_limit(&table, one->weights_bytes);
        print_limit(&table, one->vram_bytes);
        hypura_table_cell(&table, "%u", one->prompt_tokens);
        hypura_table_cell(&table, "%u", one->tokens);
        hypura_table_cell(&table, "%u", one->ubatch);
        hypura_table_cell(&table, "%s", hypura_form_name(one->form));
        hypura_table_cell(&table, "%s", one->io_engine);
        hypura_table_size(&table, one->bytes_read);
        hypura_table_size(&table, one->bytes_uploaded);
        hypura_table_cell(&table, "%llu", (unsigned long long)one->differing);
        n_rows += one->n_cpu_rows;
        most = isnan(one->most_differing) || one->most_differing > most ? one->most_differing : most;
        n_ahead += one->n_ahead;
        n_repeated += one->n_repeated;
    }
    hypura_status status = hypura_table_print(&table, error);
    for (int i = 0; i < report->n_cases && status == HYPURA_OK; i++) {
        const char *gpus = report->cases[i].gpus;
        if (gpus[0] != '\0' && (i == 0 || strcmp(gpus, report->cases[i - 1].gpus) != 0)) {
            hypura_output_printf("\non both sides layers %s\n", gpus);
        }
    }
    if (status == HYPURA_OK && n_ahead > 0) {
        hypura_output_printf("\n%llu layers ran ahead of their selections, %llu of them again\n",
                             (unsigned long long)n_ahead, (unsigned long long)n_repeated);
    }
    if (status == HYPURA_OK && n_rows > 0) {
        hypura_output_printf("\n%llu rows of experts were computed by the CPU, as --gpu-misses cpu says: differing bits are "
                             "expected;\nthe largest difference of two logits is ",
                             (unsigned long long)n_rows);
        hypura_output_printf(isnan(most) ? "not known: only their hashes fit in memory\n" : "%.3g\n", most);
    }
    if (status == HYPURA_OK && report->identical) {
        hypura_output_printf("\nidentical: every logit of %d cases has the bits of plain llama.cpp\n", report->n_cases);
    }
    return status;
}

static int count_differing(const hypura_verify_report *report)
{
    int n = 0;
    for (int i = 0; i < report->n_cases; i++) {
        n += report->cases[i].differing > 0;
    }
    return n;
}

/* Runs the comparison and prints it; what the lists leave out is the library's choice. */
static hypura_status verify(hypura_verify_options *wanted, const hypura_budget_list *weights,
                            const hypura_vram_list *vram, bool json,
                            const hypura_environment *environment, bool *identical, hypura_error *error)
{
    uint64_t bytes[HYPURA_MAX_LIST];
    uint64_t vram_bytes[HYPURA_MAX_LIST];
    uint64_t gpu_vram_bytes[HYPURA_MAX_LIST][HYPURA_MAX_GPUS];
    hypura_verify_report report = {.identical = false};
    hypura_progress progress;
    hypura_status status = hypura_interrupt_open(error);
    if (status == HYPURA_OK) {
        status = hypura_budgets_resolve(weights->items, weights->n, wanted->model.path, bytes, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_vram_resolve(vram->items, vram->n, &wanted->model, vram_bytes, gpu_vram_bytes, error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    hypura_progress_open(&progress, environment);
    wanted->weights_bytes = weights->n > 0 ? bytes : NULL;
    wanted->n_weights = weights->n;
    wanted->vram_bytes = vram->n > 0 ? vram_bytes : NULL;
    wanted->n_vram = vram->n;
    wanted->gpu_vram_bytes = (const uint64_t (*)[HYPURA_MAX_GPUS])gpu_vram_bytes;
    wanted->model.progress = hypura_progress_update;
    wanted->model.progress_user = &progress;
    hypura_interrupt_watch(wanted->model.path);
    status = hypura_verify(wanted, &report, error);
    hypura_progress_close(&progress);
    if (status == HYPURA_OK) {
        status = json ? hypura_json_print(report_json(&report), error) : print_report(&report, error);
    }
    *identical = report.identical;
    if (status == HYPURA_OK && !report.identical) {
        hypura_output_error("the output differs from plain llama.cpp in %d of %d cases", count_differing(&report),
                            report.n_cases);
    }
    hypura_verify_report_clear(&report);
    return status;
}

int hypura_command_verify(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_verify_options wanted = {.n_prompts = 0};
    hypura_budget_list weights = {.n = 0};
    hypura_vram_list vram = {.n = 0};
    hypura_unsigned_list prompts = {.n = 0};
    hypura_unsigned_list ubatches = {.n = 0};
    hypura_choice_list engines = {.n = 0};
    hypura_model_words words = {.gpu_misses = NULL};
    bool json = false;
    const hypura_option options[] = {
        {"weights", "SIZE,...", "limits on the weights; also N% of the file (default: floor, 25, 50, 100%)",
         HYPURA_OPTION_BUDGETS, .to.budgets = &weights},
        hypura_option_gpu(&wanted.model.gpu),
        {"vram", "SIZE,...", "limits on GPU memory; also N% of the experts, or 4G+8G: of each GPU",
         HYPURA_OPTION_VRAMS, .to.vrams = &vram},
        hypura_option_gpu_misses(&words.gpu_misses),
        hypura_option_rpc(&wanted.model.rpc),
        hypura_option_rpc_memory(&wanted.model.rpc_bytes),
        hypura_option_lora(&words.adapters),
        hypura_option_cache_type_k(&wanted.model.kv_cache),
        hypura_option_cache_type_v(&wanted.model.kv_cache),
        {"prompt-tokens", "N,...", "lengths of the prompts (default: 1,7,64)", HYPURA_OPTION_UNSIGNEDS,
         .to.unsigneds = &prompts, .min = 1, .max = INT32_MAX},
        {"ubatch", "N,...", "tokens computed together at most (default: as run does)", HYPURA_OPTION_UNSIGNEDS,
         .to.unsigneds = &ubatches, .min = 1, .max = 65536},
        {"io-engine", "NAME,...", "engines that read: uring, pool (default: all there are)", HYPURA_OPTION_CHOICES,
         .to.choice_list = &engines, .choices = hypura_io_engines},
        {"no-repack", NULL, "weights as in the file, on both sides (default: as in run)",
         HYPURA_OPTION_FLAG, .to.flag = &wanted.no_repack},
        {"repack", NULL, "weights in the CPU's own layout, on both sides", HYPURA_OPTION_FLAG, .to.flag = &wanted.repack},
        {"repack-output", NULL, "the output matrix alone in that layout, on both sides", HYPURA_OPTION_FLAG,
         .to.flag = &wanted.repack_output},
        {"tokens", "N", "tokens decoded after each prompt (default: 16)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &wanted.tokens, .min = 1, .max = INT32_MAX},
        {"resize", NULL, "shrink and grow what is held at random all the time, up to each limit", HYPURA_OPTION_FLAG,
         .to.flag = &wanted.resize},
        hypura_option_threads(&wanted.model.n_threads),
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "verify",
        .operands = "MODEL",
        .n_operands = 1,
        .about = "Decodes the same prompts through plain llama.cpp, which holds the whole model, and\n"
                 "through Hypura at each limit, and compares the bits of every logit. Exit code 1\n"
                 "when any differs.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = hypura_size_notes,
    };
    hypura_error error;
    int code;
    if (!hypura_command_begin_model(&syntax, environment, argc, argv, &words, &wanted.model, &error, &code)) {
        return code;
    }
    bool identical = false;
    wanted.prompt_tokens = prompts.n > 0 ? prompts.items : NULL;
    wanted.n_prompts = prompts.n;
    wanted.ubatches = ubatches.n > 0 ? ubatches.items : NULL;
    wanted.n_ubatches = ubatches.n;
    wanted.io_engines = engines.n > 0 ? engines.items : NULL;
    wanted.n_io_engines = engines.n;
    if (verify(&wanted, &weights, &vram, json, environment, &identical, &error) != HYPURA_OK) {
        return hypura_command_fail(&error);
    }
    return identical ? HYPURA_EXIT_SUCCESS : HYPURA_EXIT_FAILURE;
}
