/*
 * cmd_optimize.c - `hypura optimize`: each expert as one record in a file beside the
 * model, where that makes reading faster.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <math.h>

static json_t *report_json(const hypura_optimize_report *report)
{
    json_t *object = json_object();
    hypura_json_text(&object, "path", report->path);
    hypura_json_integer(&object, "bytes", report->bytes);
    hypura_json_integer(&object, "records", report->n_records);
    hypura_json_integer(&object, "resumed", report->n_resumed);
    hypura_json_bool(&object, "existed", report->existed);
    hypura_json_real(&object, "matrix_bytes", report->matrix_bytes);
    hypura_json_real(&object, "record_bytes", report->record_bytes);
    hypura_json_real(&object, "matrix_bytes_per_s", report->matrix_bytes_per_s);
    hypura_json_real(&object, "record_bytes_per_s", report->record_bytes_per_s);
    hypura_json_real(&object, "gain", report->gain);
    return object;
}

static void print_report(const hypura_optimize_report *report)
{
    hypura_output_printf("records    %s: %llu experts, %s, %s\n", report->path, (unsigned long long)report->n_records,
                         hypura_output_size(report->bytes),
                         report->existed ? "was there and is verified" : "written and verified");
    if (report->n_resumed > 0) {
        hypura_output_printf("resumed    %llu of them were there\n", (unsigned long long)report->n_resumed);
    }
    if (!isnan(report->gain)) {
        hypura_output_printf(
            "reads      %s each at %s; without records %s at %s\n", hypura_output_size((uint64_t)report->record_bytes),
            hypura_output_rate(report->record_bytes_per_s), hypura_output_size((uint64_t)report->matrix_bytes),
            hypura_output_rate(report->matrix_bytes_per_s));
        hypura_output_printf("gain       experts are read %.2f times as fast\n", report->gain);
    }
}

int hypura_command_optimize(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_optimize_options wanted = {.cache_dir = hypura_command_cache_dir(environment)};
    bool json = false;
    const hypura_option options[] = {
        {"force", NULL, "make it without measuring whether it helps", HYPURA_OPTION_FLAG, .to.flag = &wanted.force},
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "optimize",
        .operands = "MODEL",
        .n_operands = 1,
        .about = "Writes each expert's matrices as one record to MODEL.records, beside the model, and\n"
                 "verifies what it wrote. The model stays as it is. Hypura reads experts from there as\n"
                 "long as both files match; removing it is safe. Refused where reading would not become\n"
                 "5 % faster. When stopped, the next call goes on from there; once complete, it verifies.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_model_words words;
    hypura_error error;
    int code;
    if (!hypura_command_begin_model(&syntax, environment, argc, argv, &words, NULL, &error, &code)) {
        return code;
    }
    hypura_status status = hypura_interrupt_open(&error);
    if (status == HYPURA_OK) {
        hypura_progress progress;
        hypura_optimize_report report;
        hypura_progress_open(&progress, environment);
        wanted.path = words.path;
        wanted.progress = hypura_progress_update;
        wanted.progress_user = &progress;
        status = hypura_optimize(&wanted, &report, &error);
        hypura_progress_close(&progress);
        if (status == HYPURA_OK && json) {
            status = hypura_json_print(report_json(&report), &error);
        } else if (status == HYPURA_OK) {
            print_report(&report);
        }
    }
    return hypura_command_end(status, &error);
}
