/*
 * cmd_replay.c - `hypura replay`: what caches of several sizes hit on a recorded
 * route: LRU, the pager's own policy, and the best that could be.
 */
#include "cli/command.h"

#include "cli/json.h"
#include "cli/output.h"
#include "cli/progress.h"

static json_t *report_json(const hypura_replay_report *report)
{
    json_t *object = json_object();
    json_t *rows = json_array();
    for (int i = 0; i < report->n_rows; i++) {
        const hypura_replay_row *row = &report->rows[i];
        json_t *entry = json_object();
        hypura_json_integer(&entry, "slots", row->n_slots);
        hypura_json_real(&entry, "lru", row->lru);
        hypura_json_real(&entry, "ours", row->ours);
        hypura_json_real(&entry, "belady", row->belady);
        hypura_json_real(&entry, "foreseen", row->foreseen);
        hypura_json_real(&entry, "foreseen_right", row->foreseen_right);
        hypura_json_append(&rows, entry);
    }
    hypura_json_integer(&object, "tokens", report->n_tokens);
    hypura_json_integer(&object, "layers", report->n_layers);
    hypura_json_integer(&object, "experts", report->n_experts);
    hypura_json_integer(&object, "uses", report->n_uses);
    hypura_json_integer(&object, "distinct", report->n_distinct);
    hypura_json_set(&object, "rows", rows);
    return object;
}

static hypura_status print_report(const hypura_replay_report *report, hypura_error *error)
{
    static const char *const titles[] = {"slots", "of all", "tokens' worth", "LRU", "ours", "Belady", "of the way", "foreseen", "right"};
    const double n_all = (double)report->n_layers * report->n_experts;
    const double per_token = (double)report->n_uses / report->n_tokens;
    hypura_table table;
    hypura_output_printf("%u tokens, %u layers of %u experts; a token uses %.0f of them, all tokens %.0f %%\n\n",
                         report->n_tokens, report->n_layers, report->n_experts, per_token,
                         100.0 * (double)report->n_distinct / n_all);
    hypura_table_open(&table, "rrrrrrrrr", titles);
    for (int i = 0; i < report->n_rows; i++) {
        const hypura_replay_row *row = &report->rows[i];
        hypura_table_cell(&table, "%u", row->n_slots);
        hypura_table_cell(&table, "%.1f %%", 100.0 * row->n_slots / n_all);
        hypura_table_cell(&table, "%.2f", row->n_slots / per_token);
        hypura_table_cell(&table, "%.1f %%", 100.0 * row->lru);
        hypura_table_cell(&table, "%.1f %%", 100.0 * row->ours);
        hypura_table_cell(&table, "%.1f %%", 100.0 * row->belady);
        if (row->belady > row->lru) {
            hypura_table_cell(&table, "%.0f %%", 100.0 * (row->ours - row->lru) / (row->belady - row->lru));
        } else {
            hypura_table_cell(&table, "-");
        }
        hypura_table_cell(&table, "%.0f %%", 100.0 * row->foreseen);
        hypura_table_cell(&table, "%.0f %%", 100.0 * row->foreseen_right);
    }
    return hypura_table_print(&table, error);
}

/* Nothing is left behind: signals end the program as they do any other, also while it
 * waits for a pipe that nobody writes to. */
static hypura_status replay(hypura_replay_options *wanted, const hypura_count_list *slots, bool json,
                            const hypura_environment *environment, hypura_error *error)
{
    hypura_replay_report report;
    hypura_progress progress;
    wanted->slots = slots->items;
    wanted->n_slots = slots->n;
    hypura_progress_open(&progress, environment);
    wanted->progress = hypura_progress_update;
    wanted->progress_user = &progress;
    hypura_status status = hypura_replay(wanted, &report, error);
    hypura_progress_close(&progress);
    if (status == HYPURA_OK) {
        status = json ? hypura_json_print(report_json(&report), error) : print_report(&report, error);
        hypura_replay_report_clear(&report);
    }
    return status;
}

int hypura_command_replay(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_replay_options wanted = {.path = NULL};
    hypura_count_list slots = {.n = 0};
    bool json = false;
    const hypura_option options[] = {
        {"slots", "N,...", "expert slots; also N% of all experts (default: 5% to 80%)", HYPURA_OPTION_COUNTS,
         .to.counts = &slots, .min = 1, .max = UINT32_MAX},
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "replay",
        .operands = "TRACE",
        .n_operands = 1,
        .about = "Takes a recorded route (lines \"token layer expert ...\", as run --trace writes them)\n"
                 "through an empty cache of expert slots, and tells which share of the uses hits: with\n"
                 "LRU, with what the pager does, and at best, knowing the future (Belady); and which share\n"
                 "of what misses is foreseen a layer ahead by what earlier layers selected, and how many of\n"
                 "these guesses are right.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    wanted.path = arguments.operands[0];
    return hypura_command_end(replay(&wanted, &slots, json, environment, &error), &error);
}
