/*
 * placement.c - see placement.h.
 */
#include "cli/placement.h"

#include "cli/json.h"
#include "cli/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct sentence {
    char text[320];
    size_t used;
    bool listing; /* a part came already: the next one follows a comma */
} sentence;

static void say(sentence *line, const char *format, ...) HYPURA_PRINTF(2, 3);

static void say(sentence *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line->text + line->used, sizeof line->text - line->used, format, arguments);
    va_end(arguments);
    if (n > 0) {
        line->used += (size_t)n;
        line->used = line->used < sizeof line->text ? line->used : sizeof line->text - 1;
    }
}

/* A line that is one sentence. */
static void tell(void (*print)(const char *line), const char *format, ...) HYPURA_PRINTF(2, 3);

static void tell(void (*print)(const char *line), const char *format, ...)
{
    char line[sizeof(((sentence *)0)->text)];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    print(line);
}

/* ", 1.5 GiB name", nothing for 0. */
static void say_size(sentence *line, uint64_t bytes, const char *name)
{
    if (bytes > 0) {
        say(line, "%s%s %s", line->listing ? ", " : "", hypura_output_size(bytes), name);
        line->listing = true;
    }
}

/* Of the KV cache, where they are not what everybody expects. */
static void say_types(sentence *line, const hypura_plan *plan)
{
    const char *k = plan->kv_cache.type_k;
    const char *v = plan->kv_cache.type_v;
    if (strcmp(k, "f16") != 0 || strcmp(v, "f16") != 0) {
        say(line, strcmp(k, v) == 0 ? " in %s" : " in %s and %s", k, v);
    }
}

static const char *explain_mode(hypura_mode mode)
{
    switch (mode) {
    case HYPURA_MODE_RESIDENT:
        return "all weights are held in memory";
    case HYPURA_MODE_EXPERTS:
        return "experts are read when a token needs them";
    case HYPURA_MODE_DENSE:
        return "weights are read ahead in the order of use";
    case HYPURA_MODE_MIXED:
        return "experts are read on need, other weights ahead";
    }
    return "unknown";
}

const char *hypura_placement_layers(int first, int n, bool with_output, char text[HYPURA_LAYERS_TEXT])
{
    const int last = first + n - 1 - with_output;
    const char *output = with_output ? ", output" : "";
    if (n <= 0) {
        (void)snprintf(text, HYPURA_LAYERS_TEXT, "none");
    } else if (last < first) {
        (void)snprintf(text, HYPURA_LAYERS_TEXT, "output");
    } else if (last == first) {
        (void)snprintf(text, HYPURA_LAYERS_TEXT, "%d%s", first, output);
    } else {
        (void)snprintf(text, HYPURA_LAYERS_TEXT, "%d to %d%s", first, last, output);
    }
    return text;
}

static void describe_gpu(const hypura_plan *plan, int g, void (*print)(const char *line))
{
    const hypura_gpu_plan *gpu = &plan->gpus[g];
    char layers[HYPURA_LAYERS_TEXT];
    sentence line = {.used = 0};
    say(&line, "%s %s, ", gpu->remote ? "remote    " : "GPU       ", gpu->name);
    if (plan->n_gpus == 1) {
        say(&line, "%d layers, output among them: ", gpu->n_layers);
    } else {
        say(&line, "layers %s: ", hypura_placement_layers(gpu->first_layer, gpu->n_layers, g == plan->n_gpus - 1, layers));
    }
    say_size(&line, gpu->resident_bytes, "weights");
    say_size(&line, gpu->slot_bytes, "expert slots");
    say_size(&line, gpu->stage_bytes, "stages");
    say_size(&line, gpu->kv_bytes, "KV cache");
    say_size(&line, gpu->compute_bytes, "compute");
    print(line.text);
    if (gpu->remote) {
        tell(print, "network    %.0f us there and back, %s; %s for each token", gpu->round_trip_us,
             hypura_output_rate(gpu->link_bytes_per_s), hypura_output_size((uint64_t)gpu->link_bytes_per_token));
    }
    for (int i = 0; i < plan->n_vram_pools; i++) {
        const hypura_vram_pool_plan *pool = &plan->vram_pools[i];
        if (pool->gpu == g) {
            line = (sentence){.used = 0};
            say(&line, "GPU slots  %u for %u experts of %s", pool->n_slots, pool->n_units,
                hypura_output_size(pool->slot_bytes));
            if (pool->n_lasting < pool->n_slots) {
                say(&line, ", of which %u give way to a prompt", pool->n_slots - pool->n_lasting);
            }
            print(line.text);
        }
    }
}

static void describe_memory(const hypura_plan *plan, void (*print)(const char *line))
{
    const uint64_t shared_bytes = plan->unified ? plan->vram_bytes : 0;
    const uint64_t all_bytes =
        plan->weights_bytes + plan->kv_bytes + plan->compute_bytes + plan->overhead_bytes + shared_bytes;
    sentence line = {.used = 0};
    say(&line, "memory     ");
    if (plan->memory_bytes > all_bytes) {
        say(&line, "%s of %s: ", hypura_output_size(all_bytes), hypura_output_size(plan->memory_bytes));
    } else if (plan->memory_bytes > 0) {
        say(&line, "%s: ", hypura_output_size(plan->memory_bytes));
    }
    say_size(&line, plan->weights_bytes, "weights");
    say_size(&line, plan->kv_bytes, "KV cache");
    say_types(&line, plan);
    say_size(&line, plan->compute_bytes, "compute");
    say_size(&line, plan->draft_bytes, "draft");
    say_size(&line, plan->adapter_bytes, "adapters");
    say_size(&line, plan->overhead_bytes - plan->draft_bytes - plan->adapter_bytes, "overhead");
    say_size(&line, shared_bytes, "for the GPU");
    print(line.text);
    if (plan->ram_limit_bytes > 0 && all_bytes > plan->ram_limit_bytes) {
        tell(print, "limit      that is more than the %s that this machine, or its control group, lets it use: it may be killed",
             hypura_output_size(plan->ram_limit_bytes));
    }
}

static void describe_weights(const hypura_plan *plan, void (*print)(const char *line))
{
    sentence line = {.used = 0};
    say(&line, "weights    ");
    say_size(&line, plan->resident_bytes, "resident");
    say_size(&line, plan->pinned_bytes, "pinned");
    say_size(&line, plan->pool_bytes, "expert pool");
    say_size(&line, plan->ring_bytes, "ring");
    say_size(&line, plan->nvme_bytes, "on the drive alone");
    print(line.text);
    for (int i = 0; i < plan->n_pools; i++) {
        const hypura_pool_plan *pool = &plan->pools[i];
        tell(print, "pool       %u of %u experts of %s", pool->n_slots, pool->n_units, hypura_output_size(pool->slot_bytes));
    }
}

static void describe_form(const hypura_plan *plan, void (*print)(const char *line))
{
    const bool repacked = plan->form == HYPURA_FORM_REPACKED;
    const char *file = plan->form == HYPURA_FORM_OUTPUT ? "as in the file, the output repacked" : "as in the file";
    tell(print, "form       %s: %.1f tokens/s expected, prompts %.0f; %s %.1f and %.0f", repacked ? "repacked" : file,
         repacked ? plan->repacked_tok_s : plan->plain_tok_s,
         repacked ? plan->repacked_prompt_tok_s : plan->plain_prompt_tok_s, repacked ? "as in the file" : "repacked",
         repacked ? plan->plain_tok_s : plan->repacked_tok_s,
         repacked ? plan->plain_prompt_tok_s : plan->repacked_prompt_tok_s);
}

static void describe_prompts(const hypura_plan *plan, void (*print)(const char *line))
{
    sentence line = {.used = 0};
    say(&line, "prompts    %u tokens together", plan->n_ubatch);
    if (plan->best_ubatch > plan->n_ubatch) {
        say(&line, ": there is no memory to compute %u", plan->best_ubatch);
    }
    print(line.text);
}

void hypura_placement_describe(const hypura_plan *plan, void (*print)(const char *line))
{
    if (plan->not_stored[0] != '\0') {
        tell(print, "profile    measured, and not stored for the next time: %s", plan->not_stored);
    }
    tell(print, "mode       %s: %s", hypura_mode_name(plan->mode), explain_mode(plan->mode));
    describe_memory(plan, print);
    if (plan->n_threads > 0) {
        tell(print, "threads    %d", plan->n_threads);
    }
    describe_weights(plan, print);
    if (plan->form_measured) {
        describe_form(plan, print);
    }
    for (int g = 0; g < plan->n_gpus; g++) {
        describe_gpu(plan, g, print);
    }
    if (plan->n_gpus > 0) {
        describe_prompts(plan, print);
    }
    if (plan->gpus_left_out[0] != '\0') {
        tell(print, "GPU        nothing on %s: no layer has room there", plan->gpus_left_out);
    }
    if (plan->remotes_left_out[0] != '\0') {
        tell(print, "remote     nothing on %s: GPUs here hold all, or no layer has room there", plan->remotes_left_out);
    }
    if (plan->ring_bytes > 0) {
        tell(print, "ring       %u slots of %s, %u chunks read ahead", plan->n_ring_slots,
             hypura_output_size(plan->ring_slot_bytes), plan->prefetch_depth);
    }
}

/* ---- JSON ------------------------------------------------------------------ */

json_t *hypura_placement_gpus(const hypura_plan *plan)
{
    json_t *gpus = json_array();
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_gpu_plan *gpu = &plan->gpus[g];
        json_t *object = json_object();
        hypura_json_text(&object, "name", gpu->name);
        hypura_json_integer(&object, "first_layer", (uint64_t)gpu->first_layer);
        hypura_json_integer(&object, "layers", (uint64_t)gpu->n_layers);
        hypura_json_integer(&object, "vram_bytes", gpu->vram_bytes);
        hypura_json_integer(&object, "vram_resident_bytes", gpu->resident_bytes);
        hypura_json_integer(&object, "vram_slot_bytes", gpu->slot_bytes);
        hypura_json_integer(&object, "vram_stage_bytes", gpu->stage_bytes);
        hypura_json_integer(&object, "vram_kv_bytes", gpu->kv_bytes);
        hypura_json_integer(&object, "vram_compute_bytes", gpu->compute_bytes);
        hypura_json_integer(&object, "floor_vram_bytes", gpu->floor_bytes);
        hypura_json_integer(&object, "full_vram_bytes", gpu->full_bytes);
        hypura_json_real(&object, "vram_hit_rate", gpu->hit_rate);
        hypura_json_real(&object, "upload_bytes_per_token", gpu->upload_bytes_per_token);
        json_object_set_new(object, "remote", json_boolean(gpu->remote));
        if (gpu->remote) {
            hypura_json_real(&object, "round_trip_us", gpu->round_trip_us);
            hypura_json_real(&object, "link_bytes_per_s", gpu->link_bytes_per_s);
            hypura_json_real(&object, "link_bytes_per_token", gpu->link_bytes_per_token);
        }
        hypura_json_append(&gpus, object);
    }
    return gpus;
}

static json_t *pools_json(const hypura_plan *plan)
{
    json_t *pools = json_array();
    for (int i = 0; i < plan->n_pools; i++) {
        const hypura_pool_plan *pool = &plan->pools[i];
        json_t *object = json_object();
        hypura_json_integer(&object, "slot_bytes", pool->slot_bytes);
        hypura_json_integer(&object, "slot_stride_bytes", pool->slot_stride_bytes);
        hypura_json_integer(&object, "slots", pool->n_slots);
        hypura_json_integer(&object, "experts", pool->n_units);
        hypura_json_integer(&object, "floor_slots", pool->n_floor);
        hypura_json_append(&pools, object);
    }
    return pools;
}

json_t *hypura_placement_json(const char *path, const hypura_plan *plan)
{
    json_t *object = json_object();
    hypura_json_text(&object, "model", path);
    hypura_json_text(&object, "mode", hypura_mode_name(plan->mode));
    hypura_json_integer(&object, "memory_bytes", plan->memory_bytes);
    hypura_json_integer(&object, "weights_bytes", plan->weights_bytes);
    hypura_json_integer(&object, "kv_bytes", plan->kv_bytes);
    hypura_json_text(&object, "cache_type_k", plan->kv_cache.type_k);
    hypura_json_text(&object, "cache_type_v", plan->kv_cache.type_v);
    hypura_json_integer(&object, "compute_bytes", plan->compute_bytes);
    hypura_json_integer(&object, "ubatch", plan->n_ubatch);
    hypura_json_integer(&object, "threads", (uint64_t)plan->n_threads);
    hypura_json_integer(&object, "best_ubatch", plan->best_ubatch);
    hypura_json_integer(&object, "overhead_bytes", plan->overhead_bytes);
    hypura_json_integer(&object, "draft_bytes", plan->draft_bytes);
    hypura_json_integer(&object, "adapter_bytes", plan->adapter_bytes);
    hypura_json_integer(&object, "resident_bytes", plan->resident_bytes);
    hypura_json_integer(&object, "pinned_bytes", plan->pinned_bytes);
    hypura_json_integer(&object, "pool_bytes", plan->pool_bytes);
    hypura_json_integer(&object, "ring_bytes", plan->ring_bytes);
    hypura_json_integer(&object, "nvme_bytes", plan->nvme_bytes);
    if (plan->gpus_left_out[0]) {
        hypura_json_text(&object, "gpus_left_out", plan->gpus_left_out);
    }
    if (plan->gpu[0]) {
        hypura_json_text(&object, "gpu", plan->gpu);
        hypura_json_integer(&object, "gpu_layers", (uint64_t)plan->n_gpu_layers);
        hypura_json_integer(&object, "vram_bytes", plan->vram_bytes);
        hypura_json_bool(&object, "unified", plan->unified);
        hypura_json_integer(&object, "vram_resident_bytes", plan->vram_resident_bytes);
        hypura_json_integer(&object, "vram_slot_bytes", plan->vram_slot_bytes);
        hypura_json_integer(&object, "vram_stage_bytes", plan->vram_stage_bytes);
        hypura_json_integer(&object, "vram_kv_bytes", plan->vram_kv_bytes);
        hypura_json_integer(&object, "vram_compute_bytes", plan->vram_compute_bytes);
        hypura_json_integer(&object, "floor_vram_bytes", plan->floor_vram_bytes);
        hypura_json_integer(&object, "full_vram_bytes", plan->full_vram_bytes);
        hypura_json_integer(&object, "whole_vram_bytes", plan->whole_vram_bytes);
        hypura_json_real(&object, "vram_hit_rate", plan->vram_hit_rate);
        hypura_json_real(&object, "upload_bytes_per_token", plan->upload_bytes_per_token);
        hypura_json_set(&object, "gpus", hypura_placement_gpus(plan));
        hypura_json_text(&object, "remotes_left_out", plan->remotes_left_out);
    }
    hypura_json_integer(&object, "floor_weights_bytes", plan->floor_weights_bytes);
    hypura_json_integer(&object, "floor_memory_bytes", plan->floor_memory_bytes);
    hypura_json_integer(&object, "ring_slot_bytes", plan->ring_slot_bytes);
    hypura_json_integer(&object, "ring_slots", plan->n_ring_slots);
    hypura_json_integer(&object, "prefetch_depth", plan->prefetch_depth);
    hypura_json_integer(&object, "io_block_bytes", plan->io_block_bytes);
    hypura_json_integer(&object, "io_depth", plan->io_depth);
    hypura_json_set(&object, "pools", pools_json(plan));
    hypura_json_real(&object, "decode_tok_s", plan->decode_tok_s);
    hypura_json_real(&object, "bound_tok_s", plan->bound_tok_s);
    hypura_json_text(&object, "bound_by", plan->bound_by ? plan->bound_by : "");
    hypura_json_real(&object, "hit_rate", plan->hit_rate);
    hypura_json_real(&object, "read_bytes_per_token", plan->read_bytes_per_token);
    hypura_json_real(&object, "compute_s", plan->compute_s);
    hypura_json_bool(&object, "learned", plan->learned);
    return object;
}
