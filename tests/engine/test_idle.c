/*
 * test_idle.c - models that have all processors to themselves, on machines made up: how many processors there are, and how
 * much memory is free.
 */
#include "engine_fixture.h"

#include "engine/prepare/idle.h"
#include "os/os.h"

#define PLENTY (UINT64_C(64) << 30)

static uint64_t available_bytes = PLENTY;
static int      n_cpus = 16;

hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error);
int           __wrap_hypura_os_cpu_count(void);

hypura_status __wrap_hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error)
{
    (void)error;
    *memory = (hypura_os_memory){available_bytes, available_bytes, available_bytes};
    return HYPURA_OK;
}

int __wrap_hypura_os_cpu_count(void)
{
    return n_cpus;
}

static void a_plan_tells(void **state)
{
    (void)state;
    hypura_plan plan = {.mode = HYPURA_MODE_RESIDENT};
    assert_true(hypura_plan_computes_alone(&plan, 16));
    assert_true(hypura_plan_computes_alone(&plan, 8));
    assert_false(hypura_plan_computes_alone(&plan, 7));
    plan.n_gpus = 1;
    assert_false(hypura_plan_computes_alone(&plan, 16));
    plan = (hypura_plan){.mode = HYPURA_MODE_EXPERTS};
    assert_false(hypura_plan_computes_alone(&plan, 16));
    plan.mode = HYPURA_MODE_DENSE;
    assert_false(hypura_plan_computes_alone(&plan, 16));
}

static void before_a_plan_there_has_to_be_room(void **state)
{
    (void)state;
    const hypura_model_options options = {.path = fixture_arch("olmoe-moe.gguf"), .gpu = "none"};
    assert_true(hypura_computes_alone(&options));
    n_cpus = 7;
    assert_false(hypura_computes_alone(&options));
    n_cpus = 16;
    available_bytes = UINT64_C(4) << 30;
    assert_false(hypura_computes_alone(&options));
    available_bytes = 0;
    assert_false(hypura_computes_alone(&options));
    available_bytes = PLENTY;
    const hypura_model_options missing = {.path = "none.gguf", .gpu = "none"};
    assert_false(hypura_computes_alone(&missing));
}

static void what_may_page_does_not_count_on_it(void **state)
{
    (void)state;
    const hypura_model_options free_to_hold = {.path = fixture_arch("olmoe-moe.gguf"), .gpu = "none"};
    hypura_model_options options = free_to_hold;
    options.memory_bytes = PLENTY;
    assert_false(hypura_computes_alone(&options));
    options = free_to_hold;
    options.weights_bytes = PLENTY;
    assert_false(hypura_computes_alone(&options));
    options = free_to_hold;
    options.force_paging = true;
    assert_false(hypura_computes_alone(&options));
    options = free_to_hold;
    options.n_context = 1 << 20;
    assert_false(hypura_computes_alone(&options));
    options.plain = true; /* held, whatever it takes */
    assert_true(hypura_computes_alone(&options));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_tells),
        cmocka_unit_test(before_a_plan_there_has_to_be_room),
        cmocka_unit_test(what_may_page_does_not_count_on_it),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
