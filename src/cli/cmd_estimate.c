/*
 * cmd_estimate.c - `hypura estimate`: the placement and the forecast, without
 * loading any weight.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/placement.h"
#include "cli/progress.h"

static void print_line(const char *line)
{
    hypura_output_printf("%s\n", line);
}

static void print_plan(const hypura_plan *plan)
{
    hypura_placement_describe(plan, print_line);
    hypura_output_printf("floor      %s of weights, %s of memory in all\n",
                         hypura_output_size(plan->floor_weights_bytes), hypura_output_size(plan->floor_memory_bytes));
    if (plan->gpu[0] && plan->floor_vram_bytes > 0) {
        hypura_output_printf("GPU floor  %s of GPU memory, %s hold all\n", hypura_output_size(plan->floor_vram_bytes),
                             hypura_output_size(plan->whole_vram_bytes));
    }
    if (plan->n_vram_pools > 0) {
        hypura_output_printf("expected   %.1f %% of the experts needed in GPU memory, %s uploaded for each token\n",
                             100.0 * plan->vram_hit_rate, hypura_output_size((uint64_t)plan->upload_bytes_per_token));
        for (int g = 0; g < plan->n_gpus && plan->n_gpus > 1; g++) {
            const hypura_gpu_plan *gpu = &plan->gpus[g];
            hypura_output_printf("           %s: %.1f %%, %s\n", gpu->name, 100.0 * gpu->hit_rate,
                                 hypura_output_size((uint64_t)gpu->upload_bytes_per_token));
        }
    }
    if (plan->decode_tok_s > 0.0) {
        hypura_output_printf("expected   %.1f tokens/s, %s read for each", plan->decode_tok_s,
                             hypura_output_size((uint64_t)plan->read_bytes_per_token));
        if (plan->learned && plan->n_pools > 0) { /* what was read tells no hits then */
            hypura_output_printf(", what is read ahead in vain among it\n");
        } else {
            hypura_output_printf(" (%.1f %% of what is needed is in memory)\n", 100.0 * plan->hit_rate);
        }
        hypura_output_printf("from       %s\n", plan->learned ? "earlier runs of this model"
                                                              : "the rates of this machine: the model did not run yet");
        hypura_output_printf("bound      %.1f tokens/s by %s alone\n", plan->bound_tok_s,
                             plan->bound_by ? plan->bound_by : "nothing known");
    }
}

int hypura_command_estimate(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_model_options wanted = {.path = NULL};
    hypura_budget weights = {0};
    hypura_vram_limit vram = {0};
    hypura_model_words words = {.gpu_misses = NULL};
    bool json = false;
    const hypura_option options[] = {
        hypura_option_memory(&wanted.memory_bytes),
        hypura_option_weights(&weights),
        hypura_option_gpu(&wanted.gpu),
        hypura_option_vram(&vram),
        hypura_option_rpc(&wanted.rpc),
        hypura_option_rpc_memory(&wanted.rpc_bytes),
        hypura_option_lora(&words.adapters),
        hypura_option_context(&wanted.n_context),
        hypura_option_cache_type_k(&wanted.kv_cache),
        hypura_option_cache_type_v(&wanted.kv_cache),
        hypura_option_ubatch(&wanted.n_ubatch),
        hypura_option_threads(&wanted.n_threads),
        hypura_option_json(&json),
    };
    const hypura_syntax syntax = {
        .command = "estimate",
        .operands = "MODEL",
        .n_operands = 1,
        .about = "Tells in which mode a model would run, which bytes would lie where, the least\n"
                 "memory it can run in, and the tokens per second to expect. Loads no weights.\n"
                 "--memory and --weights exclude each other.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = hypura_size_notes,
    };
    hypura_error error;
    int code;
    if (!hypura_command_begin_model(&syntax, environment, argc, argv, &words, &wanted, &error, &code)) {
        return code;
    }
    hypura_plan *plan = NULL;
    hypura_progress progress;
    hypura_progress_open(&progress, environment);
    wanted.progress = hypura_progress_update;
    wanted.progress_user = &progress;
    hypura_status status = hypura_limits_check(wanted.memory_bytes, &weights, &error);
    if (status == HYPURA_OK) {
        status = hypura_interrupt_open(&error);
    }
    if (status == HYPURA_OK) {
        status = hypura_budgets_resolve(&weights, 1, wanted.path, &wanted.weights_bytes, &error);
    }
    if (status == HYPURA_OK) {
        status = hypura_vram_apply(&vram, &wanted, &error);
    }
    if (status == HYPURA_OK) {
        status = hypura_estimate(&wanted, &plan, &error);
    }
    hypura_progress_close(&progress);
    if (status == HYPURA_OK && json) {
        status = hypura_json_print(hypura_placement_json(wanted.path, plan), &error);
    } else if (status == HYPURA_OK) {
        print_plan(plan);
    }
    if (status == HYPURA_OK) {
        hypura_vram_note(&wanted, plan);
    }
    hypura_plan_free(plan);
    return hypura_command_end(status, &error);
}
