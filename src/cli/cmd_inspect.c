/*
 * cmd_inspect.c - `hypura inspect`: what a model file is made of, and, where that is
 * asked for, on which tier each part would lie. Reads headers alone, so it is quick on
 * models of any size.
 */
#include "cli/command.h"

#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/output.h"
#include "cli/placement.h"
#include "cli/progress.h"

#include <stdio.h>

#define N_ROLES (HYPURA_ROLE_MTP + 1)

typedef struct role_sum {
    int n_tensors;
    uint64_t bytes;
} role_sum;

static void sum_roles(const hypura_map *map, role_sum sums[N_ROLES])
{
    for (int i = 0; i < map->n_tensors; i++) {
        role_sum *sum = &sums[map->tensors[i].role];
        sum->n_tensors++;
        sum->bytes += map->tensors[i].bytes;
    }
}

/* ---- JSON ------------------------------------------------------------------ */

/* Where a tensor lies: a GPU's memory, or its slots, or one of the host's ways to hold
 * weights. */
static void say_place(const hypura_plan *plan, int tensor, char *text, size_t capacity)
{
    static const char *const places[] = {
        [HYPURA_PLACE_RESIDENT] = "memory", [HYPURA_PLACE_EXPERTS] = "pool", [HYPURA_PLACE_DENSE] = "ring",
        [HYPURA_PLACE_ROWS] = "drive, by rows", [HYPURA_PLACE_VRAM] = "GPU"};
    const hypura_placement *placement = &plan->placements[tensor];
    if (placement->gpu >= 0) {
        (void)snprintf(text, capacity, "%s%s", plan->gpus[placement->gpu].name,
                       placement->vram_pool >= 0 ? " slots" : "");
    } else {
        (void)snprintf(text, capacity, "%s", places[placement->place]);
    }
}

static json_t *tensor_json(const hypura_map *map, int index, const hypura_plan *plan)
{
    const hypura_tensor *tensor = &map->tensors[index];
    json_t *object = json_object();
    json_t *shape = json_array();
    for (int d = 0; d < tensor->n_dims; d++) {
        hypura_json_append(&shape, json_integer(tensor->ne[d]));
    }
    hypura_json_text(&object, "name", tensor->name);
    hypura_json_text(&object, "role", hypura_role_name(tensor->role));
    hypura_json_set(&object, "layer", json_integer(tensor->layer));
    hypura_json_text(&object, "type", tensor->type_name);
    hypura_json_set(&object, "shape", shape);
    hypura_json_set(&object, "bundle", json_integer(tensor->bundle));
    hypura_json_set(&object, "file", json_integer(tensor->file));
    hypura_json_integer(&object, "offset", tensor->offset);
    hypura_json_integer(&object, "bytes", tensor->bytes);
    hypura_json_integer(&object, "row_bytes", tensor->row_bytes);
    hypura_json_integer(&object, "expert_bytes", tensor->expert_bytes);
    if (plan) {
        char place[96];
        say_place(plan, index, place, sizeof place);
        hypura_json_text(&object, "place", place);
    }
    return object;
}

static json_t *bundle_json(const hypura_map *map, const hypura_bundle *bundle)
{
    json_t *object = json_object();
    json_t *tensors = json_array();
    for (int i = 0; i < bundle->n_tensors; i++) {
        hypura_json_append(&tensors, hypura_json_string(map->tensors[bundle->tensors[i]].name));
    }
    hypura_json_set(&object, "layer", json_integer(bundle->layer));
    hypura_json_set(&object, "experts", json_integer(bundle->n_experts));
    hypura_json_integer(&object, "expert_bytes", bundle->expert_bytes);
    hypura_json_set(&object, "tensors", tensors);
    return object;
}

static json_t *roles_json(const role_sum *sums)
{
    json_t *roles = json_object();
    for (int role = 0; role < N_ROLES; role++) {
        if (sums[role].n_tensors > 0) {
            json_t *sum = json_object();
            hypura_json_set(&sum, "tensors", json_integer(sums[role].n_tensors));
            hypura_json_integer(&sum, "bytes", sums[role].bytes);
            hypura_json_set(&roles, hypura_role_name((hypura_role)role), sum);
        }
    }
    return roles;
}

static json_t *files_json(const hypura_map *map)
{
    json_t *files = json_array();
    for (int i = 0; i < map->n_files; i++) {
        json_t *file = json_object();
        hypura_json_text(&file, "path", map->files[i]);
        hypura_json_integer(&file, "bytes", map->file_bytes[i]);
        hypura_json_append(&files, file);
    }
    return files;
}

/* plan: NULL where nobody asked for one. */
static json_t *map_json(const hypura_map *map, const role_sum *sums, const hypura_plan *plan, bool with_tensors)
{
    json_t *object = json_object();
    json_t *bundles = json_array();
    for (int i = 0; i < map->n_bundles; i++) {
        hypura_json_append(&bundles, bundle_json(map, &map->bundles[i]));
    }
    hypura_json_text(&object, "path", map->path);
    hypura_json_text(&object, "architecture", map->arch);
    hypura_json_text(&object, "name", map->name);
    hypura_json_set(&object, "layers", json_integer(map->n_layers));
    hypura_json_set(&object, "experts", json_integer(map->n_experts));
    hypura_json_set(&object, "experts_used", json_integer(map->n_experts_used));
    hypura_json_set(&object, "context_length", json_integer(map->context_length));
    hypura_json_set(&object, "embedding_length", json_integer(map->embedding_length));
    hypura_json_set(&object, "n_tensors", json_integer(map->n_tensors));
    hypura_json_integer(&object, "tensor_bytes", map->tensor_bytes);
    hypura_json_set(&object, "roles", roles_json(sums));
    hypura_json_set(&object, "files", files_json(map));
    hypura_json_set(&object, "bundles", bundles);
    if (plan) {
        hypura_json_set(&object, "plan", hypura_placement_json(map->path, plan));
    }
    if (with_tensors) {
        json_t *tensors = json_array();
        for (int i = 0; i < map->n_tensors; i++) {
            hypura_json_append(&tensors, tensor_json(map, i, plan));
        }
        hypura_json_set(&object, "tensors", tensors);
    }
    return object;
}

/* ---- tables ---------------------------------------------------------------- */

static hypura_status print_apart(hypura_table *table, hypura_error *error)
{
    hypura_output_printf("\n");
    return hypura_table_print(table, error);
}

static hypura_status print_roles(const hypura_map *map, const role_sum *sums, hypura_error *error)
{
    static const char *const titles[] = {"role", "tensors", "size", "bytes", "share"};
    hypura_table table;
    hypura_table_open(&table, "lrrrr", titles);
    for (int role = 0; role < N_ROLES; role++) {
        if (sums[role].n_tensors > 0) {
            hypura_table_cell(&table, "%s", hypura_role_name((hypura_role)role));
            hypura_table_cell(&table, "%d", sums[role].n_tensors);
            hypura_table_size(&table, sums[role].bytes);
            hypura_table_cell(&table, "%llu", (unsigned long long)sums[role].bytes);
            hypura_table_cell(&table, "%.1f %%",
                              map->tensor_bytes ? 100.0 * (double)sums[role].bytes / (double)map->tensor_bytes : 0.0);
        }
    }
    hypura_table_cell(&table, "all");
    hypura_table_cell(&table, "%d", map->n_tensors);
    hypura_table_size(&table, map->tensor_bytes);
    hypura_table_cell(&table, "%llu", (unsigned long long)map->tensor_bytes);
    hypura_table_cell(&table, "100.0 %%");
    return print_apart(&table, error);
}

/* Neighbouring layers whose experts are alike make one row. */
static hypura_status print_bundles(const hypura_map *map, hypura_error *error)
{
    static const char *const titles[] = {"bundles", "layers", "experts", "matrices", "one expert", "all"};
    hypura_table table;
    hypura_table_open(&table, "rlrrrr", titles);
    for (int first = 0, end; first < map->n_bundles; first = end) {
        const hypura_bundle *bundle = &map->bundles[first];
        for (end = first + 1; end < map->n_bundles; end++) {
            const hypura_bundle *next = &map->bundles[end];
            if (next->n_experts != bundle->n_experts || next->n_tensors != bundle->n_tensors ||
                next->expert_bytes != bundle->expert_bytes) {
                break;
            }
        }
        uint64_t n_experts = (uint64_t)bundle->n_experts * (uint64_t)(end - first);
        hypura_table_cell(&table, "%d", end - first);
        hypura_table_cell(&table, "%d to %d", bundle->layer, map->bundles[end - 1].layer);
        hypura_table_cell(&table, "%d", bundle->n_experts);
        hypura_table_cell(&table, "%d", bundle->n_tensors);
        hypura_table_size(&table, bundle->expert_bytes);
        hypura_table_size(&table, bundle->expert_bytes * n_experts);
    }
    return print_apart(&table, error);
}

/* One row for each tier; layers and what computing takes are those of each GPU. */
static void add_tier(hypura_table *table, const char *name, const char *layers, uint64_t held_bytes,
                     uint64_t slots_bytes, uint64_t other_bytes)
{
    hypura_table_cell(table, "%s", name);
    hypura_table_cell(table, "%s", layers);
    hypura_table_size(table, held_bytes);
    hypura_table_size(table, slots_bytes);
    hypura_table_size(table, other_bytes);
}

static hypura_status print_tiers(const hypura_map *map, const hypura_plan *plan, hypura_error *error)
{
    static const char *const titles[] = {"tier", "layers computed", "held whole", "in slots or ring",
                                         "cache and computing"};
    hypura_table table;
    char layers[HYPURA_LAYERS_TEXT];
    hypura_table_open(&table, "llrrr", titles);
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_gpu_plan *gpu = &plan->gpus[g];
        (void)hypura_placement_layers(gpu->first_layer, gpu->n_layers, g == plan->n_gpus - 1, layers);
        add_tier(&table, gpu->name, layers, gpu->resident_bytes, gpu->slot_bytes,
                 gpu->kv_bytes + gpu->compute_bytes + gpu->stage_bytes);
    }
    const int n_host = map->n_layers + 1 - plan->n_gpu_layers;
    (void)hypura_placement_layers(0, n_host, plan->n_gpu_layers == 0, layers);
    add_tier(&table, "memory", layers, plan->resident_bytes + plan->pinned_bytes, plan->pool_bytes + plan->ring_bytes,
             plan->kv_bytes + plan->compute_bytes + plan->overhead_bytes);
    add_tier(&table, "drive alone", "", plan->nvme_bytes, 0, 0);
    return print_apart(&table, error);
}

static hypura_status print_tensors(const hypura_map *map, const hypura_plan *plan, hypura_error *error)
{
    static const char *const titles[] = {"tensor", "role", "layer", "type", "shape", "file", "offset", "bytes", "place"};
    hypura_table table;
    hypura_table_open(&table, plan ? "llrllrrrl" : "llrllrrr", titles);
    for (int i = 0; i < map->n_tensors; i++) {
        const hypura_tensor *tensor = &map->tensors[i];
        char shape[96] = "";
        size_t used = 0;
        for (int d = 0; d < tensor->n_dims && used < sizeof shape; d++) {
            used +=
                (size_t)snprintf(shape + used, sizeof shape - used, "%s%lld", d ? " x " : "", (long long)tensor->ne[d]);
        }
        hypura_table_cell(&table, "%s", tensor->name);
        hypura_table_cell(&table, "%s", hypura_role_name(tensor->role));
        if (tensor->layer < 0) {
            hypura_table_cell(&table, "-");
        } else {
            hypura_table_cell(&table, "%d", tensor->layer);
        }
        hypura_table_cell(&table, "%s", tensor->type_name);
        hypura_table_cell(&table, "%s", shape);
        hypura_table_cell(&table, "%d", tensor->file);
        hypura_table_cell(&table, "%llu", (unsigned long long)tensor->offset);
        hypura_table_cell(&table, "%llu", (unsigned long long)tensor->bytes);
        if (plan) {
            char place[96];
            say_place(plan, i, place, sizeof place);
            hypura_table_cell(&table, "%s", place);
        }
    }
    return print_apart(&table, error);
}

static hypura_status print_map(const hypura_map *map, const role_sum *sums, const hypura_plan *plan, bool with_tensors,
                               hypura_error *error)
{
    hypura_output_printf("model         %s\n", map->name[0] ? map->name : "(unnamed)");
    hypura_output_printf("architecture  %s\n", map->arch);
    hypura_output_printf("layers        %d\n", map->n_layers);
    if (map->n_experts > 0) {
        hypura_output_printf("experts       %d, %d used for a token\n", map->n_experts, map->n_experts_used);
    } else {
        hypura_output_printf("experts       none (dense)\n");
    }
    hypura_output_printf("context       %lld tokens\n", (long long)map->context_length);
    hypura_output_printf("embedding     %lld\n", (long long)map->embedding_length);
    for (int i = 0; i < map->n_files; i++) {
        hypura_output_printf("%s%s (%s)\n", i == 0 ? "files         " : "              ", map->files[i],
                             hypura_output_size(map->file_bytes[i]));
    }
    hypura_status status = print_roles(map, sums, error);
    if (status == HYPURA_OK && map->n_bundles > 0) {
        status = print_bundles(map, error);
    }
    if (status == HYPURA_OK && plan) {
        status = print_tiers(map, plan, error);
    }
    if (status == HYPURA_OK && with_tensors) {
        status = print_tensors(map, plan, error);
    }
    return status;
}

static hypura_status make_plan(hypura_model_options *wanted, const hypura_vram_limit *vram,
                               const hypura_environment *environment, hypura_plan **plan, hypura_error *error)
{
    hypura_progress progress;
    hypura_progress_open(&progress, environment);
    wanted->progress = hypura_progress_update;
    wanted->progress_user = &progress;
    hypura_status status = hypura_interrupt_open(error);
    if (status == HYPURA_OK) {
        status = hypura_vram_apply(vram, wanted, error);
    }
    if (status == HYPURA_OK) {
        status = hypura_estimate(wanted, plan, error);
    }
    hypura_progress_close(&progress);
    return status;
}

int hypura_command_inspect(const hypura_environment *environment, int argc, char *const *argv)
{
    hypura_model_options wanted = {.cache_dir = hypura_command_cache_dir(environment)};
    hypura_vram_limit vram = {0};
    bool with_tensors = false;
    bool with_plan = false;
    bool json = false;
    hypura_option options[] = {
        {"tensors", NULL, "list every tensor", HYPURA_OPTION_FLAG, .to.flag = &with_tensors},
        {"plan", NULL, "on which tier each part would lie, as estimate plans it", HYPURA_OPTION_FLAG,
         .to.flag = &with_plan},
        hypura_option_memory(&wanted.memory_bytes),
        hypura_option_gpu(&wanted.gpu),
        hypura_option_vram(&vram),
        hypura_option_rpc(&wanted.rpc),
        hypura_option_rpc_memory(&wanted.rpc_bytes),
        hypura_option_ubatch(&wanted.n_ubatch),
        hypura_option_json(&json),
    };
    for (int i = 2; i <= 7; i++) {
        options[i].given = &with_plan; /* who gives a limit wants to see what it does */
    }
    const hypura_syntax syntax = {
        .command = "inspect",
        .operands = "MODEL",
        .n_operands = 1,
        .about = "Shows architecture, layers, experts, files and bytes by role of a GGUF model, and with\n"
                 "--plan or a limit where these would lie: in the memory of which GPU, in memory, on the\n"
                 "drive. Reads headers alone. Of a split model any one file may be named.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
    };
    hypura_model_words words;
    hypura_error error;
    int code;
    if (!hypura_command_begin_model(&syntax, environment, argc, argv, &words, NULL, &error, &code)) {
        return code;
    }
    hypura_map *map = NULL;
    hypura_plan *plan = NULL;
    hypura_status status = hypura_map_open(words.path, &map, &error);
    if (status == HYPURA_OK && with_plan) {
        wanted.path = words.path;
        status = make_plan(&wanted, &vram, environment, &plan, &error);
    }
    if (status == HYPURA_OK) {
        role_sum sums[N_ROLES] = {{0}};
        sum_roles(map, sums);
        status = json ? hypura_json_print(map_json(map, sums, plan, with_tensors), &error)
                      : print_map(map, sums, plan, with_tensors, &error);
    }
    hypura_plan_free(plan);
    hypura_map_close(map);
    return hypura_command_end(status, &error);
}
