/*
 * test_gpu.c - no bit depends on how the tier is used; and what the plan and the
 * statistics say of it is so.
 */
#include "mixture_fixture.h"

#include "base/thread.h"
#include "engine/llama/gpu.h"
#include "engine/measure/timeline.h"
#include "pager/vram_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- what the tier does -------------------------------------------------------- */

static void statistics_tell_of_the_tier(void **state)
{
    (void)state;
    hypura_statistics s;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    const hypura_plan *plan = hypura_model_plan(model);
    assert_int_equal(plan->n_gpu_layers, hypura_model_map(model)->n_layers + 1);
    assert_true(plan->n_vram_pools > 0);
    assert_true(plan->vram_bytes <= options.vram_bytes);
    assert_int_equal(plan->vram_bytes, plan->vram_resident_bytes + plan->vram_slot_bytes + plan->vram_stage_bytes +
                                           plan->vram_kv_bytes + plan->vram_compute_bytes);
    const standin_counts before = standin_read_counts();
    assert_same(model);
    const standin_counts after = standin_read_counts();
    hypura_model_statistics(model, &s);
    assert_true(s.bytes_uploaded > 0);
    assert_true(after.bytes_to_device - before.bytes_to_device >= s.bytes_uploaded);
    assert_true(after.n_optimized > before.n_optimized); /* the device's own view of a graph was asked for */
    assert_true(s.vram_bytes_needed > s.vram_bytes_hit);
    assert_true(s.bytes_needed >= s.bytes_uploaded); /* what the GPU lacked was asked of RAM */
    assert_true(s.locked_bytes > 0);
    /* one for each step and layer with slots, one for the prompt where it does not take all experts */
    assert_true(s.n_readbacks >= 4 * (uint64_t)hypura_model_map(model)->n_layers);
    hypura_model_close(model);
    assert_int_equal(standin_read_counts().bytes_used, 0);
}

/* With few slots much of what is handed over before its experts are known is computed a
 * second time, and nothing else when that is not wanted; the text is the same. */
static void running_ahead_changes_no_bit(void **state)
{
    (void)state;
    const hypura_foresight ways[] = {HYPURA_FORESIGHT_ON, HYPURA_FORESIGHT_AUTO, HYPURA_FORESIGHT_OFF};
    for (int i = 0; i < 3; i++) {
        hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
        options.foresight = ways[i];
        const hypura_statistics s = run_same(&options);
        assert_true(s.n_repeated <= s.n_ahead && s.n_ahead <= s.n_readbacks);
        if (ways[i] == HYPURA_FORESIGHT_ON) {
            assert_true(s.n_ahead > 0);
            assert_true(s.n_repeated > 0 && s.n_repeated < s.n_ahead); /* some in vain, some not */
        } else if (ways[i] == HYPURA_FORESIGHT_OFF) {
            assert_int_equal(s.n_ahead, 0);
        }
    }
}

/* Parts of a prompt that are handed over one after the other, and one step behind them. */
static void a_prompt_in_parts_is_the_same(void **state)
{
    (void)state;
    enum { N_PARTS = 3, PART = 16, N_TOKENS = N_PARTS * PART + 1 };
    llama_token tokens[N_TOKENS];
    float *logits[2] = {NULL, NULL};
    size_t bytes = 0;
    for (int waits = 0; waits < 2; waits++) {
        const hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
        hypura_model *model = open_model(&options);
        hypura_error error;
        const size_t n_vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama));
        hypura_replay_fill(tokens, N_TOKENS, n_vocab);
        for (uint32_t i = 0; i < N_PARTS; i++) {
            fixture_ok(hypura_model_decode_part(model, tokens + i * PART, PART, waits || i == N_PARTS - 1, &error),
                       &error);
        }
        fixture_ok(hypura_model_decode(model, tokens + N_PARTS * PART, 1, false, &error), &error);
        bytes = n_vocab * sizeof(float);
        logits[waits] = malloc(bytes);
        assert_non_null(logits[waits]);
        memcpy(logits[waits], llama_get_logits_ith(model->ctx, -1), bytes);
        hypura_model_close(model);
    }
    assert_memory_equal(logits[0], logits[1], bytes);
    free(logits[0]);
    free(logits[1]);
}

/* Without events what is uploaded has no instance of its own, and stages wait for all. */
static void a_device_without_events_will_do(void **state)
{
    (void)state;
    standin_set_faults(&(standin_faults){.no_events = true});
    const hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
    const hypura_statistics s = run_same(&options);
    assert_true(s.bytes_uploaded > 0);
    assert_true(s.bytes_copied > 0);
}

/* What copies beside is there as a whole, or none of it is used. */
static void a_device_that_is_short_of_events_will_do(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
    for (int nth = 1; nth <= 6; nth++) {
        standin_set_faults(&(standin_faults){.event_fails = nth});
        const hypura_statistics s = run_same(&options);
        assert_true(s.bytes_uploaded > 0);
        assert_true(s.bytes_copied > 0);
    }
}

/* Rows that lie at equal distances go together where the device takes such calls. */
static void experts_come_in_few_calls(void **state)
{
    (void)state;
    uint64_t n_calls[2];
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    for (int single = 0; single < 2; single++) {
        standin_set_faults(&(standin_faults){.single_rows = single == 1});
        const uint64_t before = standin_read_counts().n_copies_to_device;
        (void)run_same(&options);
        n_calls[single] = standin_read_counts().n_copies_to_device - before;
    }
    assert_true(n_calls[0] * 4 < n_calls[1] * 3);
}

/* Where RAM is short too, what it lacks comes from the drive through it, in prompts and
 * in steps, and the more often the less of it there is. */
static void what_ram_lacks_comes_from_the_drive(void **state)
{
    (void)state;
    hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    const hypura_plan all = gpu_plan_of(&options);
    const hypura_statistics held = run_same(&options);
    options.weights_bytes = all.floor_weights_bytes + (all.weights_bytes - all.floor_weights_bytes) / 2;
    assert_true(gpu_plan_of(&options).pool_bytes < all.pool_bytes);
    const hypura_statistics half = run_same(&options);
    options.weights_bytes = all.floor_weights_bytes;
    const hypura_statistics least = run_same(&options);
    assert_true(held.bytes_read < half.bytes_read);
    assert_true(half.bytes_read < least.bytes_read);
    assert_true(least.bytes_uploaded > 0);
    options.weights_bytes = all.floor_weights_bytes - 1;
    hypura_model *model = NULL;
    hypura_error error;
    fixture_fails(HYPURA_ERR_BUDGET, hypura_model_open(&options, &model, &error), &error, "floor");
}

/* Nothing is being read, and nothing is left to fill slots with. */
static bool is_filled(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    const bool filled = pager->warm.bundle == pager->map->n_bundles && pager->outstanding_bytes == 0;
    pthread_mutex_unlock(&pager->lock);
    return filled;
}

/* Where RAM has room for all experts it has them before they are asked for, and no step reads any. */
static void ram_is_filled_where_it_has_room(void **state)
{
    (void)state;
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    hypura_statistics s;
    while (!is_filled(model->pager)) {
        hypura_thread_relax();
    }
    hypura_model_statistics(model, &s);
    const hypura_pool_plan *pool = &hypura_model_plan(model)->pools[0];
    const uint64_t filled = s.bytes_read;
    assert_true(filled >= pool->n_units * pool->slot_bytes);
    assert_int_equal(s.bytes_needed, 0);
    assert_same(model);
    hypura_model_statistics(model, &s);
    assert_int_equal(s.bytes_read, filled);
    assert_true(s.bytes_needed > 0);
    assert_int_equal(s.bytes_hit, s.bytes_needed);
    hypura_model_close(model);
}

/* RAM cannot hold all experts: it holds others than a prompt left in the GPU's memory, and they
 * serve the next one. */
static void a_prompt_keeps_what_ram_holds(void **state)
{
    (void)state;
    enum { N_TOKENS = 64, N_PASSES = 2 };
    hypura_model_options options = options_of(HYPURA_TINY "/moe-deep-q8_0.gguf", 0);
    options.n_ubatch = N_TOKENS;
    hypura_plan all = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&all, 75);
    all = gpu_plan_of(&options);
    options.weights_bytes = all.floor_weights_bytes + (all.weights_bytes - all.floor_weights_bytes) / 2;
    hypura_model *model = open_model(&options);
    const hypura_pool_plan *pool = &hypura_model_plan(model)->pools[0];
    llama_token tokens[N_TOKENS];
    hypura_replay_fill(tokens, N_TOKENS, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
    hypura_statistics s = {0};
    for (int pass = 0; pass < N_PASSES; pass++) {
        hypura_error error;
        hypura_model_reset_statistics(model);
        llama_memory_clear(llama_get_memory(model->ctx), true);
        fixture_ok(hypura_model_decode_part(model, tokens, N_TOKENS, true, &error), &error);
        hypura_model_statistics(model, &s);
    }
    assert_true(pool->n_slots < pool->n_units);
    assert_int_equal(s.bytes_needed, s.bytes_uploaded);
    assert_true(s.bytes_hit > s.bytes_needed / 5 * 4); /* 72 of 78 experts; 45 where RAM keeps what slots hold */
    hypura_model_close(model);
}

/* Stages lie behind the slots that last: what these hold besides gives way to a prompt and is filled again by what is
 * decoded after it, and no bit changes. At the end of the scale they are beside all experts. */
static void slots_give_way_to_prompts(void **state)
{
    (void)state;
    const uint64_t step = (mixture.half_bytes - mixture.least_bytes) * 5 / 8; /* a quarter of all experts */
    for (uint64_t part = 0; part < 5; part++) {
        const hypura_model_options options = options_of(mixture.path, mixture.least_bytes + part * step);
        hypura_model *model = open_model(&options);
        const hypura_plan *plan = hypura_model_plan(model);
        const hypura_vram_pool_plan *pool = &plan->vram_pools[0];
        const hypura_gpu_plan *gpu = &plan->gpus[0];
        assert_int_equal(plan->n_vram_pools, 1);
        assert_true(gpu->stages_in_slots);
        const uint32_t n_places = pool->n_lasting + (uint32_t)gpu->n_stages * 16;
        assert_int_equal(pool->n_slots, n_places < pool->n_units ? n_places : pool->n_units);
        assert_int_equal(gpu->slot_bytes + gpu->stage_bytes, n_places * pool->slot_bytes);
        const vram_pool *slots = &model->pager->vrams[0]->pools[0];
        for (int round = 0; round < 3; round++) {
            assert_same(model);
            assert_int_equal(slots->n_open, pool->n_slots);
            llama_token tokens[20];
            hypura_error error;
            hypura_replay_fill(tokens, 20, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
            llama_memory_clear(llama_get_memory(model->ctx), true);
            fixture_ok(hypura_model_decode_part(model, tokens, 20, true, &error), &error);
            assert_int_equal(slots->n_open, pool->n_lasting);
            assert_true(slots->n_full <= pool->n_lasting);
            for (int i = 0; i < 20; i++) {
                fixture_ok(hypura_model_decode(model, &tokens[i], 1, false, &error), &error);
            }
            assert_int_equal(slots->n_open, pool->n_slots);
            assert_true(slots->n_full > pool->n_lasting || pool->n_lasting == pool->n_units);
        }
        hypura_model_close(model);
    }
}

/* A device whose buffers are small has several pools for experts of one size. */
static void small_buffers_are_several_pools(void **state)
{
    (void)state;
    hypura_model_options options = options_of(mixture.path, 0);
    const hypura_plan plan = gpu_plan_of(&options);
    standin_set_faults(&(standin_faults){.max_buffer_bytes = 2 * plan.vram_pools[0].slot_bytes});
    options.vram_bytes = hypura_plan_vram_at(&plan, 100);
    assert_true(gpu_plan_of(&options).n_vram_pools >= plan.n_vram_pools);
    (void)run_same(&options);
}

/* A dense model: the last layers on the GPU, the others where they lie. */
static void dense_layers_are_split(void **state)
{
    (void)state;
    hypura_model_options options = options_of(fixture_arch("llama-dense.gguf"), 0);
    options.force_paging = false;
    const hypura_plan whole = gpu_plan_of(&options);
    assert_int_equal(whole.n_vram_pools, 0);
    int last = -1;
    for (uint64_t eighth = 1; eighth <= 8; eighth++) {
        options.vram_bytes = whole.full_vram_bytes * eighth / 8;
        const hypura_plan plan = gpu_plan_of(&options);
        assert_true(plan.vram_bytes <= options.vram_bytes);
        assert_true(plan.n_gpu_layers >= last);
        last = plan.n_gpu_layers;
    }
    assert_int_equal(last, whole.n_gpu_layers);
}

/* Beside a GPU libllama keeps the host's weights as they are in the file: what the pager streams of
 * them is computed with in the same form, or bits would depend on how much is held. */
static void dense_layers_in_ram_keep_the_form_of_the_file(void **state)
{
    (void)state;
    enum { N_LIMITS = 20 };
    static const uint32_t prompt = 40;
    uint64_t limits[N_LIMITS];
    hypura_model_options options = options_of(HYPURA_TINY "/dense-q4_0.gguf", 0);
    options.no_repack = false;
    const uint64_t whole_bytes = gpu_plan_of(&options).full_vram_bytes; /* and more with the logits of all tokens */
    for (int i = 0; i < N_LIMITS; i++) {
        limits[i] = whole_bytes * (uint64_t)(i + N_LIMITS / 2) / 16;
    }
    hypura_verify_report report;
    gpu_verify((hypura_verify_options){.model.path = options.path,
                                       .model.gpu = STANDIN_NAME,
                                       .vram_bytes = limits,
                                       .n_vram = N_LIMITS,
                                       .prompt_tokens = &prompt,
                                       .n_prompts = 1},
               N_LIMITS, &report);
    int n_split = 0;
    for (int i = 0; i < report.n_cases; i++) {
        const hypura_verify_case *c = &report.cases[i];
        const bool over_gpu = c->gpus[0] != '\0';
        assert_int_equal(c->form, over_gpu ? HYPURA_FORM_FILE : HYPURA_FORM_REPACKED);
        n_split += over_gpu && strcmp(c->io_engine, "pool") == 0; /* layers in RAM passed through the pager */
    }
    assert_true(n_split > 0);
    hypura_verify_report_clear(&report);
}

/* ---- what is told of it -------------------------------------------------------- */

/* Of several the one with the most free memory, which is not the first here. */
static void without_a_name_it_is_the_largest(void **state)
{
    (void)state;
    hypura_model_options options = options_of(mixture.path, 0);
    options.gpu = NULL;
    const hypura_plan plan = gpu_plan_of(&options);
    assert_string_not_equal(plan.gpu, STANDIN_SMALL);
    assert_string_not_equal(plan.gpu, STANDIN_TWIN);
    assert_string_not_equal(plan.gpu, "");
}

/* It is there through two drivers: listed once, with one's name, and usable by the other's. */
static void a_card_of_two_drivers_is_one_gpu(void **state)
{
    (void)state;
    static hypura_profile profile;
    hypura_error error;
    const hypura_profile_options where = {.cache_dir = gpu_cache_dir, .storage_path = mixture.path};
    fixture_ok(hypura_profile_get(&where, &profile, &error), &error);
    const hypura_device *listed = NULL;
    for (int i = 0; i < profile.n_devices; i++) {
        assert_string_not_equal(profile.devices[i].name, STANDIN_TWIN);
        listed = strcmp(profile.devices[i].name, STANDIN_NAME) == 0 ? &profile.devices[i] : listed;
    }
    assert_non_null(listed);
    hypura_gpus_found twin;
    fixture_ok(hypura_gpus_find(STANDIN_TWIN, &twin, &error), &error);
    hypura_plan_gpus described;
    hypura_model_options options = options_of(mixture.path, 0);
    fixture_ok(hypura_gpus_describe(&twin, &profile, &options, NULL, &described, &error), &error);
    assert_int_equal(described.n, 1);
    assert_string_equal(described.list[0].name, STANDIN_TWIN);
    assert_true(described.list[0].upload_bytes_per_s > 0.0);
    assert_true(described.list[0].upload_bytes_per_s == listed->upload_bytes_per_s);
    fixture_fails(HYPURA_ERR_USAGE, hypura_gpus_find(STANDIN_NAME "," STANDIN_TWIN, &twin, &error), &error, "twice");
}

/* By a model as by a profile. */
static void a_gpu_is_named_in_any_case(void **state)
{
    (void)state;
    static hypura_profile profile;
    hypura_error error;
    hypura_gpus_found found;
    fixture_ok(hypura_gpus_find("standin0,sTANDIN1", &found, &error), &error);
    assert_int_equal(found.n, 2);
    assert_string_equal(ggml_backend_dev_name(found.devices[0]), STANDIN_NAME);
    assert_string_equal(ggml_backend_dev_name(found.devices[1]), STANDIN_SMALL);
    fixture_fails(HYPURA_ERR_USAGE, hypura_gpus_find(STANDIN_NAME ",standin0", &found, &error), &error, "twice");
    const hypura_profile_options named = {
        .cache_dir = gpu_cache_dir, .storage_path = mixture.path, .every_driver = true, .gpu = "standin0,sTANDIN1"};
    fixture_ok(hypura_profile_get(&named, &profile, &error), &error);
}

static void an_unknown_gpu_is_refused_with_those_there_are(void **state)
{
    (void)state;
    static hypura_profile profile;
    hypura_model_options options = options_of(mixture.path, 0);
    hypura_plan *plan = NULL;
    hypura_error error;
    options.gpu = "Vulkan99";
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "Vulkan99");
    assert_non_null(strstr(error.message, STANDIN_SMALL ", " STANDIN_NAME));
    const hypura_profile_options named = {
        .cache_dir = gpu_cache_dir, .storage_path = mixture.path, .every_driver = true, .gpu = STANDIN_NAME ",Vulkan99"};
    fixture_fails(HYPURA_ERR_USAGE, hypura_profile_get(&named, &profile, &error), &error, "there is no GPU Vulkan99; there are: ");
    assert_non_null(strstr(error.message, STANDIN_SMALL ", " STANDIN_NAME));
    options.gpu = "CPU"; /* a device, and no GPU */
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "there is no GPU CPU");
    options.gpu = "none";
    assert_string_equal(gpu_plan_of(&options).gpu, "");
}

/* The link is the one that was measured under the other driver's name. */
static void a_bench_over_the_other_driver_knows_its_link(void **state)
{
    (void)state;
    const uint64_t vram[] = {mixture.half_bytes};
    const hypura_bench_options options = {.model.path = mixture.path,
                                          .model.gpu = STANDIN_TWIN,
                                          .vram_bytes = vram,
                                          .n_vram = 1,
                                          .tokens = 2,
                                          .prompt_tokens = 5,
                                          .runs = 1,
                                          .model.n_threads = 1,
                                          .model.cache_dir = gpu_cache_dir};
    hypura_bench_report report;
    hypura_error error;
    fixture_ok(hypura_bench(&options, &report, &error), &error);
    assert_string_equal(report.cells[0].plan.gpu, STANDIN_TWIN);
    assert_true(report.cells[0].series[0].metrics[HYPURA_METRIC_LINK_BUSY].median > 0.0);
    hypura_bench_report_clear(&report);
}

static void a_bench_pairs_limits(void **state)
{
    (void)state;
    const uint64_t vram[] = {mixture.half_bytes};
    const uint64_t weights[] = {UINT64_C(1) << 40, UINT64_C(1) << 39};
    const hypura_bench_options options = {.model.path = mixture.path,
                                          .model.gpu = STANDIN_NAME,
                                          .vram_bytes = vram,
                                          .n_vram = 1,
                                          .weights_bytes = weights,
                                          .n_weights = 2,
                                          .tokens = 2,
                                          .prompt_tokens = 5,
                                          .model.n_ubatch = 3,
                                          .runs = 1,
                                          .model.n_threads = 1,
                                          .model.cache_dir = gpu_cache_dir};
    hypura_bench_report report;
    hypura_error error;
    fixture_ok(hypura_bench(&options, &report, &error), &error);
    assert_int_equal(report.n_cells, 2);
    assert_int_equal(report.ubatch, 3);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(report.cells[i].plan.gpu, STANDIN_NAME);
        assert_true(report.cells[i].plan.vram_bytes <= vram[0]);
        assert_int_equal(report.cells[i].weights_bytes, weights[i]);
    }
    hypura_bench_report_clear(&report);
}

/* Every selection that was waited for, and every layer that was computed again. */
static void a_time_line_tells_of_each_cut(void **state)
{
    (void)state;
    hypura_model_options options = options_of(mixture.path, mixture.half_bytes);
    options.foresight = HYPURA_FORESIGHT_ON;
    hypura_model *model = open_model(&options);
    hypura_timeline *timeline = calloc(1, sizeof(*timeline));
    assert_non_null(timeline);
    hypura_gpu_set_watch(model->gpus.list[0], hypura_timeline_note, timeline);
    hypura_timeline_begin(timeline);
    assert_same(model);
    char path[1024];
    hypura_error error;
    snprintf(path, sizeof(path), "%s", fixture_path("timeline"));
    fixture_ok(hypura_timeline_write(timeline, path, &error), &error);

    size_t n;
    char *text = fixture_read(path, &n);
    text[n] = '\0';
    uint64_t n_waits = 0;
    uint64_t n_repeats = 0;
    unsigned long long last = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char work[16];
        int layer;
        unsigned long long begin, end;
        assert_int_equal(sscanf(line, "%15s %d %llu %llu", work, &layer, &begin, &end), 4);
        assert_true(last <= begin && begin <= end && layer >= 0);
        last = end;
        n_waits += strcmp(work, "wait") == 0;
        n_repeats += strcmp(work, "repeat") == 0;
    }
    hypura_statistics s;
    hypura_model_statistics(model, &s);
    assert_true(n_waits >= s.n_ahead && n_waits <= s.n_readbacks);
    assert_int_equal(n_repeats, s.n_repeated);
    assert_true(n_repeats > 0);
    free(text);
    free(timeline);
    hypura_model_close(model);
    fixture_fails(HYPURA_ERR_IO, hypura_timeline_write(&(hypura_timeline){.n = 0}, "/dev/null/t", &error), &error,
                  "/dev/null/t");
}

/* What was handed over before the ids that the host waits for may not have been copied when these arrive: its slots in RAM
 * are free with the next ids, and not before. */
static void what_was_sent_early_arrives_later(void **state)
{
    (void)state;
    enum { BUNDLE = 0 };
    static const uint32_t experts[2] = {0, 1};
    const hypura_model_options options = options_of(mixture.path, mixture.least_bytes);
    hypura_model *model = open_model(&options);
    hypura_pager *pager = model->pager;
    hypura_vram *vram = pager->vrams[0];
    uint32_t slots[2];
    hypura_pager_enter(pager);
    assert_int_equal(hypura_pager_lease_experts(pager, BUNDLE, experts, 2, slots), 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hypura_pager_wait_expert(pager, BUNDLE, slots[i], UINT32_MAX), HYPURA_OK);
        vram->pending[vram->n_pending++] =
            (vram_lease){.bundle = BUNDLE, .slot = slots[i], .set = -1, .index = (uint32_t)i, .early = i == 1};
    }
    hypura_vram_arrived(vram);
    assert_int_equal(vram->n_pending, 1);
    assert_int_equal(vram->pending[0].slot, slots[1]);
    hypura_vram_arrived(vram);
    assert_int_equal(vram->n_pending, 0);
    hypura_pager_leave(pager);
    assert_same(model);
    hypura_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        MIXTURE_TEST(statistics_tell_of_the_tier),
        MIXTURE_TEST(what_was_sent_early_arrives_later),
        MIXTURE_TEST(running_ahead_changes_no_bit),
        MIXTURE_TEST(a_prompt_in_parts_is_the_same),
        MIXTURE_TEST(ram_is_filled_where_it_has_room),
        MIXTURE_TEST(a_device_without_events_will_do),
        MIXTURE_TEST(a_device_that_is_short_of_events_will_do),
        MIXTURE_TEST(experts_come_in_few_calls),
        MIXTURE_TEST(what_ram_lacks_comes_from_the_drive),
        MIXTURE_TEST(a_prompt_keeps_what_ram_holds),
        MIXTURE_TEST(slots_give_way_to_prompts),
        MIXTURE_TEST(small_buffers_are_several_pools),
        MIXTURE_TEST(dense_layers_are_split),
        MIXTURE_TEST(dense_layers_in_ram_keep_the_form_of_the_file),
        MIXTURE_TEST(without_a_name_it_is_the_largest),
        MIXTURE_TEST(a_card_of_two_drivers_is_one_gpu),
        MIXTURE_TEST(a_gpu_is_named_in_any_case),
        MIXTURE_TEST(an_unknown_gpu_is_refused_with_those_there_are),
        MIXTURE_TEST(a_bench_over_the_other_driver_knows_its_link),
        MIXTURE_TEST(a_bench_pairs_limits),
        MIXTURE_TEST(a_time_line_tells_of_each_cut),
    };
    return cmocka_run_group_tests(tests, gpu_setup, teardown);
}
