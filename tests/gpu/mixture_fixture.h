/* The mixture that tests of the tier use, what plain libllama puts out of it, and runs that are compared with that. */
#ifndef HYPURA_GPU_MIXTURE_FIXTURE_H
#define HYPURA_GPU_MIXTURE_FIXTURE_H

#include "gpu_fixture.h"

#include "engine/measure/replay.h"

static struct {
    char          path[1024];
    uint64_t      least_bytes; /* of GPU memory: near the floor, with room for the logits of all tokens */
    uint64_t      half_bytes;
    hypura_script script; /* a prompt that passes through a stage, steps that read slots, as plain puts them out */
} mixture;

static inline hypura_model_options options_of(const char *path, uint64_t vram_bytes)
{
    hypura_model_options options = gpu_options(path, STANDIN_NAME);
    options.vram_bytes = vram_bytes;
    return options;
}

static inline hypura_model *open_model(const hypura_model_options *options)
{
    hypura_model *model = NULL;
    hypura_error error;
    fixture_ok(hypura_model_open_with(options, &(hypura_model_extras){.all_logits = true}, &model, &error), &error);
    return model;
}

/* Before each test; what is made is made once. */
static inline int use_mixture(void **state)
{
    (void)state;
    if (mixture.script.n_rows > 0) {
        return 0;
    }
    snprintf(mixture.path, sizeof(mixture.path), "%s", gpu_mixture());
    hypura_model_options options = options_of(mixture.path, 0);
    const hypura_plan plan = gpu_plan_of(&options);
    assert_string_equal(plan.gpu, STANDIN_NAME);
    mixture.least_bytes = hypura_plan_vram_at(&plan, 10);
    mixture.half_bytes = hypura_plan_vram_at(&plan, 50);
    options.force_paging = false;
    options.plain = true;
    hypura_model *model = open_model(&options);
    uint64_t budget = 1 << 22;
    hypura_error error;
    fixture_ok(hypura_script_write(model, 20, 4, &budget, &mixture.script, &error), &error);
    hypura_model_close(model);
    return 0;
}

static inline void assert_same(hypura_model *model)
{
    hypura_error error;
    uint64_t differing = 1;
    fixture_ok(hypura_script_follow(model, &mixture.script, &differing, &error), &error);
    assert_int_equal(differing, 0);
}

/* Runs the mixture twice: the second time much of it is held. Its statistics are of both. */
static inline hypura_statistics run_same(const hypura_model_options *options)
{
    hypura_statistics s;
    hypura_model *model = open_model(options);
    assert_same(model);
    assert_same(model);
    hypura_model_statistics(model, &s);
    hypura_model_close(model);
    return s;
}

static inline int teardown(void **state)
{
    hypura_script_clear(&mixture.script);
    return fixture_teardown(state);
}

/* A test of a group, with the mixture made before and no fault left behind it. */
#define MIXTURE_TEST(name) cmocka_unit_test_setup_teardown(name, use_mixture, gpu_no_faults)

#endif
