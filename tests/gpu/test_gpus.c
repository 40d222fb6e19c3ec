/*
 * test_gpus.c - a model over two GPUs, which two devices with memory of their own stand
 * for: the same bits as plain llama.cpp with the same layers on each, whatever the limits;
 * and what goes wrong on one of them ends in a message.
 */
#include "gpu_fixture.h"

#include "engine/llama/gpu.h"
#include "engine/measure/replay.h"

#include <string.h>

#define MARGIN_BYTES (UINT64_C(768) << 20) /* that is left to drivers where nobody gave a limit */

static hypura_model *open_with(const hypura_model_options *options, const hypura_load_gpu *gpus)
{
    hypura_model *model = NULL;
    hypura_error error;
    const hypura_model_extras extras = {.all_logits = true, .gpus = gpus};
    fixture_ok(hypura_model_open_with(options, &extras, &model, &error), &error);
    return model;
}

/* Follows what plain llama.cpp with the same layers on the same devices puts out; twice, as
 * the second time much is held. The statistics are of both times. */
static hypura_statistics run_same(const hypura_model_options *options)
{
    hypura_model_options plain = {.path = options->path,
                                  .gpu = options->gpu,
                                  .plain = true,
                                  .no_repack = true,
                                  .n_context = options->n_context,
                                  .n_ubatch = options->n_ubatch,
                                  .n_threads = 1};
    hypura_script script;
    hypura_statistics s;
    hypura_error error;
    uint64_t rows_bytes = 1 << 22;
    hypura_model *model = open_with(options, NULL);
    const hypura_load_gpu gpus = model->prepared.gpus;
    hypura_model_close(model);
    model = open_with(&plain, &gpus);
    fixture_ok(hypura_script_write(model, 20, 4, &rows_bytes, &script, &error), &error);
    hypura_model_close(model);
    model = open_with(options, NULL);
    for (int i = 0; i < 2; i++) {
        uint64_t differing = 1;
        fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
        assert_int_equal(differing, 0);
    }
    hypura_model_statistics(model, &s);
    hypura_model_close(model);
    hypura_script_clear(&script);
    assert_int_equal(standin_read_counts().bytes_used, 0);
    return s;
}

/* ---- the same bits -------------------------------------------------------------- */

/* At the floor, 25, 50 and 100 %, with prompts that pass through slots and through stages;
 * the layers stay where they are, so that one reference serves all. */
static void every_limit_gives_the_same_bits(void **state)
{
    (void)state;
    static const uint32_t prompts[] = {1, 7, 40};
    hypura_verify_report report;
    gpu_verify((hypura_verify_options){.model.path = gpu_mixture(), .model.gpu = STANDIN_BOTH, .prompt_tokens = prompts, .n_prompts = 3},
               12, &report);
    uint64_t uploaded = 0;
    for (int i = 0; i < report.n_cases; i++) {
        assert_string_equal(report.cases[i].gpus, report.cases[0].gpus);
        uploaded += report.cases[i].bytes_uploaded;
    }
    assert_non_null(strstr(report.cases[0].gpus, STANDIN_NAME));
    assert_non_null(strstr(report.cases[0].gpus, STANDIN_SECOND));
    assert_true(uploaded > 0);
    hypura_verify_report_clear(&report);
}

/* Limits on each share the layers in their proportion, and where they move plain llama.cpp
 * writes its references anew. */
static void limits_on_each_are_verified(void **state)
{
    (void)state;
    static const uint32_t prompts[] = {7, 40};
    hypura_model_options model = gpu_options(gpu_mixture(), STANDIN_BOTH);
    model.n_ubatch = 0;
    const hypura_plan whole = gpu_plan_of(&model);
    const uint64_t part = whole.full_vram_bytes / 8;
    const uint64_t none[2] = {0};
    const uint64_t each[2][HYPURA_MAX_GPUS] = {{5 * part, 2 * part}, {3 * part, 6 * part}};
    const hypura_verify_options options = {.model.path = gpu_mixture(),
                                           .model.gpu = STANDIN_BOTH,
                                           .vram_bytes = none,
                                           .n_vram = 2,
                                           .gpu_vram_bytes = each,
                                           .prompt_tokens = prompts,
                                           .n_prompts = 2};
    hypura_verify_report report;
    gpu_verify(options, 4, &report);
    assert_int_equal(report.cases[0].vram_bytes, 7 * part);
    assert_string_not_equal(report.cases[0].gpus, report.cases[3].gpus);
    hypura_verify_report_clear(&report);
}

/* Both compute, both have slots of their own, and what is told of each adds up. */
static void each_gpu_has_its_share(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&whole, 40);
    const hypura_plan plan = gpu_plan_of(&options);
    assert_int_equal(plan.n_gpus, 2);
    assert_string_equal(plan.gpu, STANDIN_BOTH);
    assert_true(plan.vram_bytes <= options.vram_bytes);
    const standin_counts before = standin_read_counts();
    const hypura_statistics s = run_same(&options);
    const standin_counts after = standin_read_counts();
    hypura_gpu_statistics sum = {.bytes_needed = 0};
    for (int g = 0; g < 2; g++) {
        assert_true(plan.gpus[g].slot_bytes > 0 && plan.gpus[g].n_layers > 0);
        assert_true(after.n_graphs_of[g] > before.n_graphs_of[g]);
        assert_true(s.gpus[g].bytes_uploaded > 0);
        assert_true(s.gpus[g].bytes_needed > s.gpus[g].bytes_hit);
        sum.bytes_needed += s.gpus[g].bytes_needed;
        sum.bytes_hit += s.gpus[g].bytes_hit;
        sum.bytes_uploaded += s.gpus[g].bytes_uploaded;
    }
    assert_int_equal(sum.bytes_needed, s.vram_bytes_needed);
    assert_int_equal(sum.bytes_hit, s.vram_bytes_hit);
    assert_int_equal(sum.bytes_uploaded, s.bytes_uploaded);
}

/* Where memory differs three to one so do the layers; and with a limit on each, the one
 * with the fewest layers it can have takes no more than that. */
static void unequal_memory_is_unequal_shares(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    const uint64_t all = whole.full_vram_bytes;
    standin_set_faults(
        &(standin_faults){.memory_bytes = MARGIN_BYTES + all, .second_memory_bytes = MARGIN_BYTES + all / 2});
    const hypura_plan unequal = gpu_plan_of(&options);
    assert_int_equal(unequal.n_gpus, 2);
    assert_true(unequal.gpus[0].n_layers > unequal.gpus[1].n_layers);
    (void)run_same(&options);

    standin_set_faults(&(standin_faults){0});
    options.gpu_vram_bytes[0] = all;
    options.gpu_vram_bytes[1] = whole.gpus[1].floor_bytes; /* of its half: room for that and its fewest slots */
    const hypura_plan floor = gpu_plan_of(&options);
    assert_int_equal(floor.n_gpus, 2);
    assert_true(floor.gpus[1].vram_bytes <= options.gpu_vram_bytes[1]);
    (void)run_same(&options);

    uint64_t low = 1; /* fewest bytes with which the second is used at all */
    while (low + 1 < options.gpu_vram_bytes[1]) {
        const uint64_t high = options.gpu_vram_bytes[1];
        options.gpu_vram_bytes[1] = (low + high) / 2;
        if (gpu_plan_of(&options).n_gpus < 2) {
            low = options.gpu_vram_bytes[1];
            options.gpu_vram_bytes[1] = high;
        }
        if (high - low < 4096) {
            break;
        }
    }
    const hypura_plan least = gpu_plan_of(&options);
    assert_int_equal(least.n_gpus, 2);
    assert_int_equal(least.gpus[1].n_layers, 1);
    (void)run_same(&options);
}

/* Fewer layers behind a slow link, and the same bits. */
static void a_slow_link_has_fewer_layers(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    for (int g = 0; g < 2; g++) {
        options.gpu_vram_bytes[g] = (whole.gpus[g].floor_bytes + whole.gpus[g].full_bytes) / 2;
    }
    const hypura_plan even = gpu_plan_of(&options);
    gpu_store_rates(20.0);
    const hypura_plan slow = gpu_plan_of(&options);
    assert_int_equal(slow.n_gpus, 2);
    assert_true(slow.gpus[1].n_layers < even.gpus[1].n_layers);
    (void)run_same(&options);
    gpu_store_rates(1.0);
}

/* RAM's slots serve both: those that one GPU still copies from are waited for by the other. */
static void the_fewest_slots_in_ram_serve_both(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&whole, 15); /* with room for the logits of all tokens */
    options.weights_bytes = gpu_plan_of(&options).floor_weights_bytes;
    const hypura_statistics s = run_same(&options);
    assert_true(s.bytes_read > 0 && s.gpus[0].bytes_uploaded > 0 && s.gpus[1].bytes_uploaded > 0);
}

/* A dense model that neither GPU holds alone: the host has what no GPU has. */
static void dense_layers_fill_both(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(fixture_arch("llama-dense.gguf"), STANDIN_BOTH);
    options.force_paging = false;
    const hypura_plan whole = gpu_plan_of(&options);
    int most = 0;
    for (uint64_t eighth = 3; eighth <= 8; eighth += 5) {
        for (int g = 0; g < 2; g++) {
            options.gpu_vram_bytes[g] = whole.gpus[g].vram_bytes * eighth / 8;
        }
        const hypura_plan plan = gpu_plan_of(&options);
        assert_true(plan.n_gpu_layers >= most);
        most = plan.n_gpu_layers;
        (void)run_same(&options);
    }
    assert_int_equal(most, whole.n_gpu_layers);
}

/* ---- which are used --------------------------------------------------------------- */

static void one_is_enough_where_it_holds_the_model(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    options.gpu = NULL;
    assert_int_equal(gpu_plan_of(&options).n_gpus, 1);
    standin_set_faults(&(standin_faults){.memory_bytes = MARGIN_BYTES + whole.full_vram_bytes * 2 / 3,
                                         .second_memory_bytes = MARGIN_BYTES + whole.full_vram_bytes * 3 / 4});
    options.force_paging = false;
    const hypura_plan two = gpu_plan_of(&options);
    assert_string_equal(two.gpu, STANDIN_BOTH);
    assert_int_equal(two.n_vram_pools, 0);
    hypura_gpus_found found; /* and so does plain llama.cpp where nobody says which */
    hypura_load_gpu taken;
    hypura_error error;
    fixture_ok(hypura_gpus_find(NULL, &found, &error), &error);
    hypura_gpus_take_plain(&found, MARGIN_BYTES, &taken);
    assert_int_equal(taken.n, 1);
    hypura_gpus_take_plain(&found, MARGIN_BYTES + whole.full_vram_bytes, &taken);
    assert_int_equal(taken.n, 2);
    standin_set_faults(&(standin_faults){.memory_bytes = MARGIN_BYTES + whole.full_vram_bytes * 2 / 3});
    assert_string_equal(gpu_plan_of(&options).gpu, STANDIN_SECOND); /* the one that has more comes first */
    options.gpu = STANDIN_NAME;
    assert_string_equal(gpu_plan_of(&options).gpu, STANDIN_NAME);
}

static void names_and_limits_must_match(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    hypura_plan *plan = NULL;
    hypura_error error;
    options.gpu = STANDIN_NAME "," STANDIN_NAME;
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "twice");
    options.gpu = STANDIN_NAME ",Vulkan7";
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "no GPU Vulkan7");
    assert_non_null(strstr(error.message, STANDIN_NAME ", " STANDIN_SECOND));
    options.gpu = STANDIN_BOTH;
    options.gpu_vram_bytes[0] = 1 << 20;
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "1 limits");
    options.gpu = NULL;
    options.gpu_vram_bytes[1] = 1 << 20;
    fixture_fails(HYPURA_ERR_USAGE, hypura_estimate(&options, &plan, &error), &error, "name");
}

/* ---- what goes wrong ---------------------------------------------------------------- */

/* Whichever is lost, and whenever: an error, and the next conversation is right. */
static void one_that_is_lost_is_an_error(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&whole, 20);
    hypura_script script;
    hypura_error error;
    uint64_t rows_bytes = 1 << 22;
    hypura_model *model = open_with(&options, NULL);
    fixture_ok(hypura_script_write(model, 20, 4, &rows_bytes, &script, &error), &error);
    for (int fault = 0; fault < 6; fault++) {
        uint64_t differing = 1;
        standin_set_faults(&(standin_faults){.lose_after = 1 + fault / 2, .lost_device = fault % 2});
        fixture_fails(HYPURA_ERR_BACKEND, hypura_script_follow(model, &script, &differing, &error), &error,
                      "device lost");
        standin_set_faults(&(standin_faults){0});
        fixture_ok(hypura_script_follow(model, &script, &differing, &error), &error);
        assert_int_equal(differing, 0);
    }
    hypura_model_close(model);
    hypura_script_clear(&script);
}

/* Somebody took the second one's memory between the plan and the pools: its name is in the
 * error. Before the plan, without a limit: fewer slots there. */
static void one_whose_memory_is_gone(void **state)
{
    (void)state;
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_BOTH);
    const hypura_plan whole = gpu_plan_of(&options);
    hypura_model *model = NULL;
    hypura_error error;
    for (int g = 0; g < 2; g++) {
        options.gpu_vram_bytes[g] = whole.gpus[g].full_bytes;
    }
    standin_set_faults(&(standin_faults){.second_memory_bytes = whole.gpus[1].full_bytes / 4});
    fixture_fails(HYPURA_ERR_MEMORY, hypura_model_open(&options, &model, &error), &error, STANDIN_SECOND);
    assert_null(model);
    assert_int_equal(standin_read_counts().bytes_used, 0);

    memset(options.gpu_vram_bytes, 0, sizeof(options.gpu_vram_bytes));
    standin_set_faults(&(standin_faults){
        .memory_bytes = MARGIN_BYTES + whole.gpus[0].full_bytes,
        .second_memory_bytes = MARGIN_BYTES + (whole.gpus[1].floor_bytes + whole.gpus[1].full_bytes) / 2});
    const hypura_plan less = gpu_plan_of(&options);
    assert_int_equal(less.n_gpus, 2);
    assert_true(less.gpus[1].vram_bytes < whole.gpus[1].vram_bytes);
    (void)run_same(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(every_limit_gives_the_same_bits, gpu_no_faults),
        cmocka_unit_test_teardown(limits_on_each_are_verified, gpu_no_faults),
        cmocka_unit_test_teardown(each_gpu_has_its_share, gpu_no_faults),
        cmocka_unit_test_teardown(unequal_memory_is_unequal_shares, gpu_no_faults),
        cmocka_unit_test_teardown(a_slow_link_has_fewer_layers, gpu_no_faults),
        cmocka_unit_test_teardown(the_fewest_slots_in_ram_serve_both, gpu_no_faults),
        cmocka_unit_test_teardown(dense_layers_fill_both, gpu_no_faults),
        cmocka_unit_test_teardown(one_is_enough_where_it_holds_the_model, gpu_no_faults),
        cmocka_unit_test_teardown(names_and_limits_must_match, gpu_no_faults),
        cmocka_unit_test_teardown(one_that_is_lost_is_an_error, gpu_no_faults),
        cmocka_unit_test_teardown(one_whose_memory_is_gone, gpu_no_faults),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
