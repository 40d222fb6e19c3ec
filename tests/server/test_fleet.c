/* Who gets a model, in what order, and what memory it is granted. Engines are ours here: they start at once and hold what
 * they are told to. */
#include "store_fixture.h"

#include "base/clock.h"
#include "server/fleet/internal.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#define MIB (UINT64_C(1) << 20)

struct server_engine {
    adapter_scale *scale;
    atomic_ullong bytes;
    uint32_t n_context;
};

static uint64_t wanted_mib; /* of the next model */
static atomic_bool resizes_wait;
static atomic_ullong resized_to; /* what the last one is told to hold; 0: none was told anything */

hypura_status __wrap_engine_estimate_get(const engine_options *options, engine_estimate *estimate, hypura_error *error);
hypura_status __wrap_engine_start(const engine_options *options, void (*on_end)(void *user), void *user,
                                  server_engine **started, hypura_error *error);
hypura_status __wrap_engine_wait_ready(server_engine *engine, bool (*cancelled)(void *user), void *user, hypura_error *error);
void __wrap_engine_stop(server_engine *engine);
const char *__wrap_engine_socket(const server_engine *engine);
bool __wrap_engine_ends_within(server_engine *engine, uint64_t timeout_us);
bool __wrap_engine_live(const server_engine *engine, hypura_live_record *record);
int __wrap_engine_pid(const server_engine *engine);
adapter_scale *__wrap_engine_adapter_scale(server_engine *engine);
bool __wrap_engine_resize(server_engine *engine, uint64_t held_bytes);

hypura_status __wrap_engine_estimate_get(const engine_options *options, engine_estimate *estimate, hypura_error *error)
{
    (void)options;
    (void)error;
    *estimate = (engine_estimate){.memory_bytes = wanted_mib * MIB, .floor_bytes = 100 * MIB, .n_parallel = 1};
    return HYPURA_OK;
}

hypura_status __wrap_engine_start(const engine_options *options, void (*on_end)(void *user), void *user,
                                  server_engine **started, hypura_error *error)
{
    (void)on_end;
    (void)user;
    (void)error;
    *started = calloc(1, sizeof **started);
    (*started)->scale = adapter_scale_open(0);
    (*started)->n_context = options->n_context;
    atomic_init(&(*started)->bytes, options->memory_bytes);
    return HYPURA_OK;
}

hypura_status __wrap_engine_wait_ready(server_engine *engine, bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    (void)engine;
    (void)cancelled;
    (void)user;
    (void)error;
    return HYPURA_OK;
}

void __wrap_engine_stop(server_engine *engine)
{
    adapter_scale_close(engine->scale);
    free(engine);
}

const char *__wrap_engine_socket(const server_engine *engine)
{
    (void)engine;
    return "none";
}

bool __wrap_engine_ends_within(server_engine *engine, uint64_t timeout_us)
{
    (void)engine;
    (void)timeout_us;
    return false;
}

bool __wrap_engine_live(const server_engine *engine, hypura_live_record *record)
{
    const uint64_t bytes = atomic_load(&engine->bytes);
    *record = (hypura_live_record){.plan = {.weights_bytes = bytes},
                                   .held = {.now_bytes = bytes, .least_bytes = 100 * MIB, .most_bytes = 1000 * MIB}};
    return true;
}

int __wrap_engine_pid(const server_engine *engine)
{
    (void)engine;
    return 1;
}

adapter_scale *__wrap_engine_adapter_scale(server_engine *engine)
{
    return engine->scale;
}

bool __wrap_engine_resize(server_engine *engine, uint64_t held_bytes)
{
    atomic_store(&resized_to, held_bytes);
    while (atomic_load(&resizes_wait)) {
        usleep(1000);
    }
    atomic_store(&engine->bytes, held_bytes);
    return true;
}

/* ---- what is asked ------------------------------------------------------------- */

static hypura_models *models;
static server_fleet *fleet;

static int fleet_make(void **state)
{
    if (fixture_make(state) != 0) {
        return -1;
    }
    fixture_write_gguf("models/one.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/other.gguf", &(fixture_gguf){0});
    models = fixture_open();
    wanted_mib = 200;
    atomic_store(&resizes_wait, false);
    atomic_store(&resized_to, 0);
    const hypura_server_options options = {.memory_bytes = 1000 * MIB, .keep_alive_s = -1, .gpu = "none", .n_context = 512};
    return fleet_open(&options, models, &fleet, NULL) == HYPURA_OK ? 0 : -1;
}

static int fleet_remove(void **state)
{
    fleet_close(fleet);
    hypura_models_close(models);
    return fixture_remove(state);
}

static bool never(void *user)
{
    (void)user;
    return false;
}

static bool is_set(void *user)
{
    const atomic_bool *flag = user;
    return atomic_load(flag);
}

static hypura_status acquire(const char *name, uint32_t n_context, bool (*cancelled)(void *user), void *user, fleet_lease *lease)
{
    const hypura_model_entry *entry = fixture_find(models, name);
    const fleet_wish wish = {.entry = entry, .settings = {.n_context = n_context}};
    hypura_error error;
    const hypura_status status = fleet_acquire(fleet, &wish, cancelled, user, lease, &error);
    hypura_model_entry_release(entry);
    return status;
}

static bool is_loaded(const char *name)
{
    const hypura_model_entry *entry = fixture_find(models, name);
    const bool is = fleet_has(fleet, entry);
    hypura_model_entry_release(entry);
    return is;
}

static uint32_t n_waiting(void)
{
    fleet_counts counts;
    fleet_count(fleet, &counts);
    return counts.n_waiting;
}

/* Until it is so, 30 s at the most. */
#define WAIT_UNTIL(so)                                                \
    for (const uint64_t end_us = hypura_clock_us() + 30000000; !(so); usleep(2000)) { \
        assert_true(hypura_clock_us() < end_us);                      \
    }

typedef struct request {
    const char *name;
    uint32_t n_context;
    pthread_t thread;
    atomic_bool gone;
    atomic_int turn; /* from 1, when it got the model; -1: it did not */
    fleet_lease lease;
} request;

static atomic_int turns;

static void *ask(void *user)
{
    request *r = user;
    const hypura_status status = acquire(r->name, r->n_context, is_set, &r->gone, &r->lease);
    atomic_store(&r->turn, status == HYPURA_OK ? atomic_fetch_add(&turns, 1) + 1 : -1);
    return NULL;
}

static void begin(request *r)
{
    const uint32_t before = n_waiting();
    assert_int_equal(pthread_create(&r->thread, NULL, ask, r), 0);
    WAIT_UNTIL(n_waiting() == before + 1 || atomic_load(&r->turn) != 0);
}

/* ---- tests --------------------------------------------------------------------- */

static void what_waits_for_other_settings_has_its_turn(void **state)
{
    (void)state;
    fleet_lease lease;
    request first = {.name = "one", .n_context = 1024};
    request second = {.name = "one", .n_context = 512};
    atomic_store(&turns, 0);
    assert_int_equal(acquire("one", 512, never, NULL, &lease), HYPURA_OK);
    begin(&first);
    begin(&second); /* with what runs, which would otherwise never come to rest */
    usleep(200000);
    assert_int_equal(atomic_load(&second.turn), 0);
    fleet_release(fleet, &lease, NAN);
    WAIT_UNTIL(atomic_load(&first.turn) != 0);
    assert_int_equal(atomic_load(&first.turn), 1);
    assert_int_equal(first.lease.engine->n_context, 1024);
    fleet_release(fleet, &first.lease, NAN);
    WAIT_UNTIL(atomic_load(&second.turn) != 0);
    assert_int_equal(second.lease.engine->n_context, 512);
    fleet_release(fleet, &second.lease, NAN);
    assert_int_equal(pthread_join(first.thread, NULL) | pthread_join(second.thread, NULL), 0);
}

static void what_is_unloaded_in_use_ends_with_its_last_use(void **state)
{
    (void)state;
    fleet_lease lease;
    fleet_lease more;
    assert_int_equal(acquire("one", 0, never, NULL, &lease), HYPURA_OK);
    assert_int_equal(acquire("one", 0, never, NULL, &more), HYPURA_OK);
    const hypura_model_entry *entry = fixture_find(models, "one");
    fleet_unload(fleet, entry);
    hypura_model_entry_release(entry);
    fleet_release(fleet, &lease, -1);
    assert_true(is_loaded("one"));
    fleet_release(fleet, &more, -1);
    WAIT_UNTIL(!is_loaded("one"));
}

/* Else it would not end as long as somebody comes. */
static void who_comes_after_that_gets_another_one(void **state)
{
    (void)state;
    fleet_lease lease;
    fleet_counts counts;
    request r = {.name = "one"};
    assert_int_equal(acquire("one", 0, never, NULL, &lease), HYPURA_OK);
    const hypura_model_entry *entry = fixture_find(models, "one");
    fleet_unload(fleet, entry);
    hypura_model_entry_release(entry);
    begin(&r);
    assert_int_equal(atomic_load(&r.turn), 0);
    fleet_release(fleet, &lease, NAN);
    assert_int_equal(pthread_join(r.thread, NULL), 0);
    fleet_release(fleet, &r.lease, NAN);
    fleet_count(fleet, &counts);
    assert_int_equal(counts.n_loads, 2);
}

/* What a model of some size takes minutes for. */
static void who_waits_and_goes_has_nothing_loaded_anew(void **state)
{
    fleet_counts counts;
    (void)state;
    fleet_lease lease;
    request r = {.name = "one", .n_context = 1024};
    assert_int_equal(acquire("one", 512, never, NULL, &lease), HYPURA_OK);
    begin(&r);
    atomic_store(&r.gone, true);
    WAIT_UNTIL(atomic_load(&r.turn) != 0);
    assert_int_equal(atomic_load(&r.turn), -1);
    assert_int_equal(pthread_join(r.thread, NULL), 0);
    fleet_release(fleet, &lease, NAN);
    assert_int_equal(acquire("one", 512, never, NULL, &lease), HYPURA_OK);
    fleet_release(fleet, &lease, NAN);
    fleet_count(fleet, &counts);
    assert_int_equal(counts.n_loads, 1);
}

/* One is told to hold more; until it has said so, that is not free for another one. */
static void what_one_grows_by_is_not_free_meanwhile(void **state)
{
    (void)state;
    fleet_lease one;
    fleet_lease other;
    wanted_mib = 600;
    assert_int_equal(acquire("other", 0, never, NULL, &other), HYPURA_OK);
    wanted_mib = 800;
    assert_int_equal(acquire("one", 0, never, NULL, &one), HYPURA_OK);
    assert_int_equal(atomic_load(&one.engine->bytes) / MIB, 400);
    atomic_store(&resizes_wait, true);
    fleet_release(fleet, &other, 0);
    WAIT_UNTIL(atomic_load(&resized_to) != 0);
    assert_int_equal(atomic_load(&resized_to) / MIB, 800);
    wanted_mib = 600;
    const hypura_status status = acquire("other", 0, never, NULL, &other);
    atomic_store(&resizes_wait, false);
    assert_int_equal(status, HYPURA_OK);
    assert_int_equal(atomic_load(&other.engine->bytes) / MIB, 200);
    WAIT_UNTIL(atomic_load(&one.engine->bytes) == 800 * MIB);
    fleet_release(fleet, &other, NAN);
    fleet_release(fleet, &one, NAN);
}

#define SHARES(test) cmocka_unit_test_setup_teardown(test, fleet_make, fleet_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARES(what_waits_for_other_settings_has_its_turn),
        SHARES(what_is_unloaded_in_use_ends_with_its_last_use),
        SHARES(who_comes_after_that_gets_another_one),
        SHARES(who_waits_and_goes_has_nothing_loaded_anew),
        SHARES(what_one_grows_by_is_not_free_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
