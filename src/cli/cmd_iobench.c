/*
 * cmd_iobench.c - `hypura iobench`: what a drive gives at each size, depth and
 * order of reads, and what the page cache makes of it.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <string.h>

static json_t *row_json(const hypura_iobench_row *row)
{
    json_t *object = json_object();
    hypura_json_text(&object, "engine", row->engine);
    hypura_json_text(&object, "cache", hypura_io_cache_name(row->cache));
    hypura_json_text(&object, "order", row->sequential ? "sequential" : "random");
    hypura_json_integer(&object, "block_bytes", row->block_bytes);
    hypura_json_integer(&object, "depth", row->depth);
    if (row->refused) {
        hypura_json_set(&object, "bytes_per_s", json_null());
    } else {
        hypura_json_real(&object, "bytes_per_s", row->bytes_per_s);
    }
    hypura_json_bool(&object, "refused", row->refused);
    return object;
}

static json_t *report_json(const hypura_iobench_report *report)
{
    json_t *object = json_object();
    json_t *rows = json_array();
    for (int i = 0; i < report->n_rows; i++) {
        hypura_json_append(&rows, row_json(&report->rows[i]));
    }
    hypura_json_text(&object, "path", report->path);
    hypura_json_integer(&object, "file_bytes", report->file_bytes);
    hypura_json_bool(&object, "direct_io", report->direct_io);
    hypura_json_real(&object, "memory_bytes_per_s", report->memory_bytes_per_s);
    hypura_json_real(&object, "ceiling_bytes_per_s", report->ceiling_bytes_per_s);
    hypura_json_text(&object, "ceiling", report->ceiling);
    hypura_json_set(&object, "best", report->best < 0 ? json_null() : row_json(&report->rows[report->best]));
    hypura_json_set(&object, "rows", rows);
    return object;
}

/* Rows that differ in depth alone are one line of the table. */
static bool same_line(const hypura_iobench_row *a, const hypura_iobench_row *b)
{
    return strcmp(a->engine, b->engine) == 0 && a->cache == b->cache && a->sequential == b->sequential &&
           a->block_bytes == b->block_bytes;
}

static void add_rate(hypura_table *table, const hypura_iobench_row *row)
{
    if (row->refused) {
        hypura_table_cell(table, "refused");
    } else {
        hypura_table_cell(table, "%s", hypura_output_rate(row->bytes_per_s));
    }
}

static hypura_status print_table(const hypura_iobench_report *report, hypura_error *error)
{
    static const char *const cache[] = {"past the page cache", "page cache, cold", "page cache, warm"};
    static const uint32_t depths[] = {1, 4, 16};
    enum { N_DEPTHS = sizeof depths / sizeof *depths };
    static const char *const titles[] = {"reads", "engine", "order", "size", "depth 1", "depth 4", "depth 16"};
    hypura_table table;
    hypura_table_open(&table, "lllrrrr", titles);
    for (int i = 0; i < report->n_rows;) {
        const hypura_iobench_row *line = &report->rows[i];
        hypura_table_cell(&table, "%s", cache[line->cache]);
        hypura_table_cell(&table, "%s", line->engine);
        hypura_table_cell(&table, "%s", line->sequential ? "sequential" : "random");
        hypura_table_size(&table, line->block_bytes);
        for (int d = 0; d < N_DEPTHS; d++) {
            const hypura_iobench_row *row = &report->rows[i];
            if (i < report->n_rows && same_line(row, line) && row->depth == depths[d]) {
                add_rate(&table, row);
                i++;
            } else {
                hypura_table_cell(&table, "-");
            }
        }
    }
    return hypura_table_print(&table, error);
}

static hypura_status print_report(const hypura_iobench_report *report, hypura_error *error)
{
    int n_refused = 0;
    hypura_status status = print_table(report, error);
    for (int i = 0; i < report->n_rows; i++) {
        n_refused += report->rows[i].refused;
    }
    hypura_output_printf("\nread       %s of %s\n", hypura_output_size(report->file_bytes), report->path);
    hypura_output_printf("memory     %s\n", hypura_output_rate(report->memory_bytes_per_s));
    hypura_output_printf("limit      %s (%s)\n", hypura_output_rate(report->ceiling_bytes_per_s), report->ceiling);
    if (report->best >= 0) {
        const hypura_iobench_row *best = &report->rows[report->best];
        hypura_output_printf(
            "fastest    %s, %.0f %% of the limit: %s order, %u x %s, %s\n", hypura_output_rate(best->bytes_per_s),
            100.0 * best->bytes_per_s / report->ceiling_bytes_per_s, best->sequential ? "sequential" : "random",
            best->depth, hypura_output_size(best->block_bytes), best->engine);
    }
    if (!report->direct_io) {
        hypura_output_note("this file system does not let reads pass the page cache: nothing here is the drive alone");
    }
    if (n_refused > 0) {
        hypura_output_note("refused: %d figures above the limit, so that a cache on the way answered", n_refused);
    }
    return status;
}

int hypura_command_iobench(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_iobench_options wanted = {.path = "."};
    float read_gb = 0;
    bool json = false;
    const hypura_option options[] = {
        {"read-gb", "N", "gigabytes read for each figure (default: half a second's worth)", HYPURA_OPTION_FLOAT,
         .to.real = &read_gb, .min = 0.001, .max = 1e6},
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "iobench",
        .operands = "[PATH]",
        .n_operands = 1,
        .about = "Measures the drive of PATH (default: the current folder): reads of several sizes and\n"
                 "depths in random and sequential order, by both engines, past the page cache and, for\n"
                 "comparison, through it. A large file is read as it is; in a folder one of a gigabyte\n"
                 "is written, which nobody sees and nothing leaves behind.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .n_optional = 1,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    if (hypura_interrupt_open(&error) != HYPURA_OK) {
        return hypura_command_fail(&error);
    }
    if (arguments.n_operands > 0) {
        wanted.path = arguments.operands[0];
    }
    hypura_progress progress;
    hypura_progress_open(&progress, environment);
    wanted.read_bytes = (uint64_t)((double)read_gb * 1e9);
    wanted.progress = hypura_progress_update;
    wanted.progress_user = &progress;
    hypura_iobench_report report;
    hypura_status status = hypura_iobench(&wanted, &report, &error);
    hypura_progress_close(&progress);
    if (status == HYPURA_OK) {
        status = json ? hypura_json_print(report_json(&report), &error) : print_report(&report, &error);
    }
    return hypura_command_end(status, &error);
}
