/*
 * test_foresee.c - experts come to a GPU before their layer selects them: what was foretold
 * is there, what was not comes late, and the numbers are the same however the guess was.
 */
#include "gpu_fixture.h"

#include "engine/measure/replay.h"
#include "pager/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_EXPERTS = 16, N_LAYERS = 12, N_PROMPT = 64, N_STEPS = 8, OF_A_TRIAL = 32, MOST_STEPS = 80 };

/* Half of the layers whole, of the others about half of the experts in slots. */
static hypura_model_options options_of(void)
{
    hypura_model_options options = gpu_options(gpu_mixture(), STANDIN_NAME);
    options.n_context = N_PROMPT + N_STEPS;
    options.n_ubatch = N_PROMPT;
    const hypura_plan plan = gpu_plan_of(&options);
    options.vram_bytes = hypura_plan_vram_at(&plan, 75);
    return options;
}

/* What is selected, whatever the routers say; and what is foretold of it. */
typedef struct selected {
    uint32_t step;
    bool     right;
} selected;

static uint32_t expert_of(const selected *s, int layer, uint32_t rank)
{
    return (rank * 5 + (uint32_t)layer * 3 + s->step * 7) % N_EXPERTS;
}

static void select_them(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    for (uint32_t i = 0; i < n_used * n_tokens; i++) {
        experts[i] = (int32_t)expert_of(user, layer, i % n_used);
    }
}

static void foretell_them(void *user, int layer, uint32_t token, uint32_t n_used, uint32_t *experts, uint32_t n)
{
    const selected *s = user;
    (void)token;
    for (uint32_t i = 0; i < n; i++) {
        experts[i] = expert_of(s, layer, s->right ? i : i + n_used);
    }
}

static size_t logits_bytes;
static uint64_t expert_bytes;
static uint32_t most_foreseen; /* 0: as planned */

/* A prompt, after which RAM holds everything, and steps, which *step counts. */
typedef struct course {
    const hypura_model_options *options;
    hypura_model_extras         extras;
    hypura_gpu_select_fn        select; /* in place of the routers; NULL: they do */
    void                       *user;
    uint32_t                    n_prompt;
    uint32_t                    n_steps;
    uint32_t                   *step;
} course;

/* Of the steps alone; the logits of the last one. */
static float *run_course(const course *c, hypura_statistics *statistics)
{
    hypura_model *model = NULL;
    hypura_error error;
    llama_token tokens[N_PROMPT + MOST_STEPS];
    double uploading_us = 0.0;
    fixture_ok(hypura_model_open_with(c->options, &c->extras, &model, &error), &error);
    const size_t n_vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama));
    hypura_replay_fill(tokens, N_PROMPT + MOST_STEPS, n_vocab);
    if (most_foreseen > 0) {
        model->prepared.plan->gpus[0].most_foreseen = most_foreseen;
    }
    if (c->select) {
        hypura_gpu_set_select(model->gpus.list[0], c->select, c->user);
    }
    fixture_ok(hypura_model_decode_part(model, tokens, c->n_prompt, true, &error), &error);
    hypura_model_reset_statistics(model);
    for (*c->step = 0; *c->step < c->n_steps; (*c->step)++) {
        fixture_ok(hypura_model_decode(model, &tokens[c->n_prompt + *c->step], 1, false, &error), &error);
        uploading_us += model->pager->guess.uploading_us;
    }
    hypura_model_statistics(model, statistics);
    /* tokens are told apart by what they lacked, and that is all that came, early or late */
    const double lacked = (double)(statistics->vram_bytes_needed - statistics->vram_bytes_hit + statistics->foreseen_bytes_useful);
    assert_true(fabs(uploading_us * 1e-6 * hypura_model_plan(model)->gpus[0].link_bytes_per_s - lacked) <= 1e-6 * lacked);
    logits_bytes = n_vocab * sizeof(float);
    expert_bytes = hypura_model_map(model)->bundles[0].expert_bytes;
    float *logits = malloc(logits_bytes);
    assert_non_null(logits);
    memcpy(logits, llama_get_logits_ith(model->ctx, -1), logits_bytes);
    hypura_model_close(model);
    return logits;
}

static float *run(const hypura_model_options *options, selected *s, bool forced, bool foretold, hypura_statistics *statistics)
{
    const course c = {
        .options = options,
        .extras = {.foretell = foretold ? foretell_them : NULL, .foretell_user = s},
        .select = forced ? select_them : NULL,
        .user = s,
        .n_prompt = N_PROMPT,
        .n_steps = N_STEPS,
        .step = &s->step,
    };
    return run_course(&c, statistics);
}

/* The same without and with foresight: the logits are the same. */
static void run_both(hypura_model_options options, selected *s, bool forced, hypura_statistics *waited,
                     hypura_statistics *foreseen)
{
    options.foresight = HYPURA_FORESIGHT_OFF;
    float *expected = run(&options, s, forced, false, waited);
    options.foresight = HYPURA_FORESIGHT_ON;
    float *logits = run(&options, s, forced, forced, foreseen);
    assert_memory_equal(expected, logits, logits_bytes);
    assert_int_equal(waited->foreseen_bytes_uploaded, 0);
    assert_int_equal(waited->ahead_bytes_read, 0);
    free(expected);
    free(logits);
}

/* ---- guesses --------------------------------------------------------------------- */

static void what_is_foretold_is_there(void **state)
{
    (void)state;
    selected s = {.right = true};
    hypura_statistics none, right;
    run_both(options_of(), &s, true, &none, &right);
    assert_true(right.n_ahead > N_STEPS && right.n_ahead <= (uint64_t)N_STEPS * N_LAYERS);
    assert_true(right.n_repeated <= N_STEPS); /* nobody foretells the first layer */
    assert_true(right.foreseen_bytes_uploaded > 0);
    assert_int_equal(right.foreseen_bytes_useful, right.foreseen_bytes_uploaded);
    assert_true(right.bytes_uploaded >= right.foreseen_bytes_uploaded);
}

/* Where the link is slow, or experts are large, the likeliest alone is sent: the others come late. */
static void a_slow_link_is_not_filled_with_guesses(void **state)
{
    (void)state;
    selected s = {.right = true};
    hypura_statistics none, all, one;
    run_both(options_of(), &s, true, &none, &all);
    most_foreseen = 1;
    run_both(options_of(), &s, true, &none, &one);
    most_foreseen = 0;
    assert_true(one.foreseen_bytes_uploaded > 0);
    assert_true(one.foreseen_bytes_uploaded < all.foreseen_bytes_uploaded);
    assert_int_equal(one.foreseen_bytes_useful, one.foreseen_bytes_uploaded);
    assert_true(one.n_repeated > all.n_repeated);
}

static void what_is_foretold_wrongly_comes_late(void **state)
{
    (void)state;
    selected s = {.right = false};
    hypura_statistics none, wrong;
    run_both(options_of(), &s, true, &none, &wrong);
    assert_true(wrong.n_repeated > N_STEPS);
    assert_true(wrong.foreseen_bytes_uploaded > 0);
    assert_int_equal(wrong.foreseen_bytes_useful, 0);
}

/* While a layer is computed again the link carries as much once more for the next one. */
static void more_comes_behind_a_layer_again(void **state)
{
    (void)state;
    selected s = {.right = false};
    hypura_model_options options = options_of();
    options.vram_bytes = gpu_plan_of(&options).floor_vram_bytes;
    hypura_statistics none, wrong;
    most_foreseen = 1;
    run_both(options, &s, true, &none, &wrong);
    most_foreseen = 0;
    const uint64_t n_guessed = wrong.n_asked_by_gpu + wrong.n_asked_by_host;
    assert_true(wrong.foreseen_bytes_uploaded > n_guessed * expert_bytes);
    assert_true(wrong.foreseen_bytes_uploaded <= (n_guessed + wrong.n_repeated) * expert_bytes);
}

/* What a layer selects follows from what the layer before did: a token takes one of N_WAYS through all layers,
 * the next one another. */
enum { N_WAYS = 4, N_TURNS = 40 };

static void select_a_way(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    const uint32_t *step = user;
    for (uint32_t i = 0; i < n_used * n_tokens; i++) {
        const uint32_t way = n_tokens > 1 ? i / n_used : *step;
        experts[i] = (int32_t)((i % n_used + (uint32_t)layer + way % N_WAYS * n_used) % N_EXPERTS);
    }
}

static float *run_ways(hypura_foresight foresight, uint32_t n_prompt, uint32_t n_steps, hypura_statistics *statistics)
{
    uint32_t step = 0;
    hypura_model_options options = options_of();
    options.foresight = foresight;
    options.n_context = N_PROMPT + N_TURNS;
    options.vram_bytes = gpu_plan_of(&options).floor_vram_bytes;
    const course c = {.options = &options, .select = select_a_way, .user = &step, .n_prompt = n_prompt,
                      .n_steps = n_steps, .step = &step};
    return run_course(&c, statistics);
}

static void run_both_ways(uint32_t n_prompt, uint32_t n_steps, hypura_statistics *guessed)
{
    hypura_statistics none;
    float *expected = run_ways(HYPURA_FORESIGHT_OFF, n_prompt, n_steps, &none);
    float *logits = run_ways(HYPURA_FORESIGHT_COACTIVATION, n_prompt, n_steps, guessed);
    assert_memory_equal(expected, logits, logits_bytes);
    assert_int_equal(none.foreseen_bytes_uploaded, 0);
    assert_string_equal(guessed->foresight_by, "co-activation");
    free(expected);
    free(logits);
}

/* One expert of the next layer is named by what the layers before selected, most often rightly once that was seen. */
static void companions_are_foreseen(void **state)
{
    (void)state;
    hypura_statistics guessed;
    run_both_ways(1, N_TURNS, &guessed);
    assert_true(guessed.foreseen_bytes_uploaded > 0);
    assert_true(guessed.foreseen_bytes_useful * 10 > guessed.foreseen_bytes_uploaded * 9);
    assert_true(guessed.foreseen_bytes_uploaded * 2 < guessed.bytes_uploaded); /* one of several */
    assert_true(guessed.n_repeated < guessed.n_ahead);
}

/* Routers say nothing of what is selected in their place, so they are not tried first. */
static void given_selections_ask_no_router(void **state)
{
    (void)state;
    hypura_statistics guessed;
    free(run_ways(HYPURA_FORESIGHT_AUTO, N_PROMPT, OF_A_TRIAL, &guessed));
    assert_string_equal(guessed.foresight_by, "co-activation");
    assert_true(guessed.foreseen_bytes_uploaded > 0);
}

/* A prompt has shown it already. */
static void companions_are_learned_from_prompts(void **state)
{
    (void)state;
    hypura_statistics guessed;
    run_both_ways(N_PROMPT, 1, &guessed);
    assert_true(guessed.foreseen_bytes_uploaded > 0);
    assert_int_equal(guessed.foreseen_bytes_useful, guessed.foreseen_bytes_uploaded);
}

/* The routers' own guesses, of what they then select. */
static void routers_are_asked_ahead(void **state)
{
    (void)state;
    selected s = {.right = true};
    hypura_statistics none, asked;
    run_both(options_of(), &s, false, &none, &asked);
    assert_true(asked.foreseen_bytes_uploaded > 0);
    assert_true(asked.foreseen_bytes_useful > 0);
    assert_true(asked.foreseen_bytes_useful <= asked.foreseen_bytes_uploaded);
    assert_string_equal(asked.foresight, "on");
    assert_true(asked.n_asked_by_gpu > 0 && asked.n_asked_by_gpu <= N_STEPS * (N_LAYERS - 1));
    assert_int_equal(asked.n_asked_by_gpu % N_STEPS, 0); /* of each token in the same layers */
    assert_int_equal(asked.n_asked_by_host, 0);
}

/* The host asks where a device cannot. Both round in other places: they name the same but for a few. */
static void the_host_asks_where_the_gpu_cannot(void **state)
{
    (void)state;
    const standin_faults cannot = {.asks_no_routers = true};
    selected s = {.right = true};
    hypura_statistics none, by_gpu, by_host;
    run_both(options_of(), &s, false, &none, &by_gpu);
    standin_set_faults(&cannot);
    run_both(options_of(), &s, false, &none, &by_host);
    assert_int_equal(by_host.n_asked_by_host, by_gpu.n_asked_by_gpu);
    assert_int_equal(by_host.n_asked_by_gpu, 0);
    assert_true(10 * by_gpu.foreseen_bytes_useful >= 9 * by_host.foreseen_bytes_useful);
    assert_true(10 * by_host.foreseen_bytes_useful >= 9 * by_gpu.foreseen_bytes_useful);
}

/* What a device that is asked as late as it may be names is not another layer's, nor that of a piece in vain. */
static void what_is_asked_late_is_as_right(void **state)
{
    (void)state;
    const standin_faults late = {.computes_late = true};
    selected s = {.right = true};
    hypura_statistics none, at_once, asked;
    run_both(options_of(), &s, false, &none, &at_once);
    standin_set_faults(&late);
    run_both(options_of(), &s, false, &none, &asked);
    assert_int_equal(asked.n_asked_by_gpu, at_once.n_asked_by_gpu);
    assert_int_equal(asked.foreseen_bytes_useful, at_once.foreseen_bytes_useful);
    assert_int_equal(asked.foreseen_bytes_uploaded, at_once.foreseen_bytes_uploaded);
}

/* What RAM lacks cannot be uploaded ahead, and is read ahead. */
static void what_ram_lacks_is_read_ahead(void **state)
{
    (void)state;
    selected s = {.right = true};
    hypura_statistics none, right;
    hypura_model_options options = options_of();
    const hypura_plan all = gpu_plan_of(&options);
    options.weights_bytes = all.floor_weights_bytes + (all.weights_bytes - all.floor_weights_bytes) / 3;
    run_both(options, &s, true, &none, &right);
    assert_true(right.ahead_bytes_read > 0);
}

/* Where uploads overtake what their own instance computes they are beside it without another one, and nodes bring the
 * ids, which a copy would have wait for them. */
static void one_instance_does_where_uploads_overtake(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        const standin_faults overtake = {.copies_overtake = true, .computes_late = late > 0};
        selected s = {.right = true};
        hypura_statistics none, right;
        standin_set_faults(&overtake);
        run_both(options_of(), &s, true, &none, &right);
        const uint64_t n_reported = standin_read_counts().n_reported;
        run_both(options_of(), &s, true, &none, &right);
        assert_true(right.n_ahead > N_STEPS && right.n_ahead <= (uint64_t)N_STEPS * N_LAYERS);
        assert_true(right.n_repeated <= N_STEPS); /* nobody foretells the first layer */
        assert_true(right.foreseen_bytes_uploaded > 0);
        assert_int_equal(right.foreseen_bytes_useful, right.foreseen_bytes_uploaded);
        assert_int_equal(standin_read_counts().n_reported - n_reported, right.n_ahead + right.n_repeated);
    }
}

/* There the host asks routers, with rows that nodes bring. */
static void rows_are_reported_to_who_asks(void **state)
{
    (void)state;
    selected s = {.right = true};
    hypura_statistics none, by_gpu, by_host;
    run_both(options_of(), &s, false, &none, &by_gpu);
    standin_set_faults(&(standin_faults){.copies_overtake = true, .computes_late = true});
    run_both(options_of(), &s, false, &none, &by_host);
    assert_int_equal(by_host.n_asked_by_host, by_gpu.n_asked_by_gpu);
    assert_int_equal(by_host.n_asked_by_gpu, 0);
    assert_true(10 * by_gpu.foreseen_bytes_useful >= 9 * by_host.foreseen_bytes_useful);
    assert_true(10 * by_host.foreseen_bytes_useful >= 9 * by_gpu.foreseen_bytes_useful);
}

/* A device that computes as late as it may, and copies as soon as it may: what is sent on a guess would change what the
 * layer before still reads. */
static void what_is_read_later_stays(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        const standin_faults late = {.computes_late = true, .copies_overtake = way > 1};
        selected s = {.right = way % 2 > 0};
        hypura_model_options options = options_of();
        options.vram_bytes = gpu_plan_of(&options).floor_vram_bytes;
        hypura_statistics none, foreseen;
        options.foresight = HYPURA_FORESIGHT_OFF;
        float *expected = run(&options, &s, true, false, &none);
        options.foresight = HYPURA_FORESIGHT_ON;
        standin_set_faults(&late);
        float *logits = run(&options, &s, true, true, &foreseen);
        gpu_no_faults(NULL);
        assert_memory_equal(expected, logits, logits_bytes);
        assert_true(foreseen.foreseen_bytes_uploaded > 0);
        free(expected);
        free(logits);
    }
}

/* ---- parts ----------------------------------------------------------------------- */

/* What a layer selects: what it did in the prompt, but for the first n_new ranks, which each step replaces. */
typedef struct renewed {
    uint32_t step;
    uint32_t n_new;
} renewed;

static void select_renewed(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    const renewed *r = user;
    for (uint32_t i = 0; i < n_used * n_tokens; i++) {
        const uint32_t rank = i % n_used;
        const uint32_t turn = rank < r->n_new ? r->step : 0;
        experts[i] = (int32_t)((rank + (uint32_t)layer + turn * n_used) % N_EXPERTS);
    }
}

static void foretell_renewed(void *user, int layer, uint32_t token, uint32_t n_used, uint32_t *experts, uint32_t n)
{
    int32_t named[N_EXPERTS];
    (void)token;
    assert_true(n_used <= n && n_used <= N_EXPERTS);
    select_renewed(user, layer, named, n_used, 1);
    for (uint32_t i = 0; i < n; i++) {
        experts[i] = (uint32_t)named[i % n_used];
    }
}

/* Graphs of the device in these steps behind a prompt, but for those that ask routers ahead, or that they take with nothing
 * missing; so many of them were pieces again. */
static uint64_t count_more_graphs(hypura_model_options options, hypura_foretell_fn foretell, uint32_t n_new, uint32_t n_steps,
                                  uint64_t *n_again)
{
    hypura_model *model = NULL;
    hypura_error error;
    hypura_statistics s;
    llama_token tokens[N_PROMPT + MOST_STEPS];
    renewed r = {.n_new = n_new};
    const hypura_model_extras extras = {.foretell = foretell, .foretell_user = &r};
    options.n_context = N_PROMPT + MOST_STEPS;
    fixture_ok(hypura_model_open_with(&options, &extras, &model, &error), &error);
    hypura_replay_fill(tokens, N_PROMPT + n_steps, (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama)));
    hypura_gpu_set_select(model->gpus.list[0], select_renewed, &r);
    fixture_ok(hypura_model_decode_part(model, tokens, N_PROMPT, true, &error), &error);
    hypura_model_reset_statistics(model);
    const standin_counts first = standin_read_counts();
    for (r.step = 1; r.step <= n_steps; r.step++) {
        fixture_ok(hypura_model_decode(model, &tokens[N_PROMPT + r.step - 1], 1, false, &error), &error);
    }
    const standin_counts last = standin_read_counts();
    const uint64_t n_graphs = last.n_graphs - last.n_asked - (first.n_graphs - first.n_asked);
    hypura_model_statistics(model, &s);
    hypura_model_close(model);
    *n_again = s.n_repeated;
    return n_graphs - n_steps - s.n_readbacks;
}

/* Names what is there already. */
static void foretell_old(void *user, int layer, uint32_t token, uint32_t n_used, uint32_t *experts, uint32_t n)
{
    const renewed old = {.step = 0, .n_new = 0};
    int32_t named[N_EXPERTS];
    (void)user;
    (void)token;
    assert_true(n_used <= N_EXPERTS);
    select_renewed((void *)(uintptr_t)&old, layer, named, n_used, 1);
    for (uint32_t i = 0; i < n; i++) {
        experts[i] = (uint32_t)named[n_used - 1];
    }
}

/* Several experts come in two parts, each a graph of its own; one comes whole. */
static void several_experts_come_in_parts(void **state)
{
    (void)state;
    uint64_t n_again[2];
    hypura_model_options options = options_of();
    options.foresight = HYPURA_FORESIGHT_ON;
    const uint64_t one = count_more_graphs(options, NULL, 1, N_STEPS, &n_again[0]);
    const uint64_t two = count_more_graphs(options, NULL, 2, N_STEPS, &n_again[1]);
    assert_true(n_again[0] > 0);
    assert_int_equal(n_again[0], n_again[1]);
    assert_int_equal(two, one + n_again[1]);
}

/* Where a backend records graphs, parts are worth that in layers that lack several experts again
 * and again. */
static void parts_come_where_they_pay(void **state)
{
    (void)state;
    enum { FEW = 20, MANY = 30, PARTS_FROM = 24 }; /* of gpu_ahead.c; within a trial of guesses, of which few change anything */
    uint64_t n_again;
    hypura_model_options options = options_of();
    options.vram_bytes = gpu_plan_of(&options).floor_vram_bytes;
    const uint64_t few = count_more_graphs(options, foretell_old, 2, FEW, &n_again);
    assert_int_equal(n_again, FEW * N_LAYERS);
    assert_int_equal(few, n_again);
    const uint64_t many = count_more_graphs(options, foretell_old, 2, MANY, &n_again);
    assert_int_equal(n_again, MANY * N_LAYERS);
    assert_int_equal(many, n_again + (MANY - PARTS_FROM) * N_LAYERS);
    const uint64_t foretold = count_more_graphs(options, foretell_renewed, 2, MANY, &n_again);
    assert_true(n_again < MANY * N_LAYERS); /* what came ahead counts as well */
    assert_int_equal(foretold, n_again + (MANY - PARTS_FROM) * N_LAYERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_is_foretold_is_there, gpu_no_faults),
        cmocka_unit_test_teardown(a_slow_link_is_not_filled_with_guesses, gpu_no_faults),
        cmocka_unit_test_teardown(more_comes_behind_a_layer_again, gpu_no_faults),
        cmocka_unit_test_teardown(what_is_foretold_wrongly_comes_late, gpu_no_faults),
        cmocka_unit_test_teardown(companions_are_foreseen, gpu_no_faults),
        cmocka_unit_test_teardown(given_selections_ask_no_router, gpu_no_faults),
        cmocka_unit_test_teardown(companions_are_learned_from_prompts, gpu_no_faults),
        cmocka_unit_test_teardown(routers_are_asked_ahead, gpu_no_faults),
        cmocka_unit_test_teardown(the_host_asks_where_the_gpu_cannot, gpu_no_faults),
        cmocka_unit_test_teardown(what_is_asked_late_is_as_right, gpu_no_faults),
        cmocka_unit_test_teardown(what_ram_lacks_is_read_ahead, gpu_no_faults),
        cmocka_unit_test_teardown(one_instance_does_where_uploads_overtake, gpu_no_faults),
        cmocka_unit_test_teardown(rows_are_reported_to_who_asks, gpu_no_faults),
        cmocka_unit_test_teardown(what_is_read_later_stays, gpu_no_faults),
        cmocka_unit_test_teardown(several_experts_come_in_parts, gpu_no_faults),
        cmocka_unit_test_teardown(parts_come_where_they_pay, gpu_no_faults),
    };
    return cmocka_run_group_tests(tests, gpu_setup, fixture_teardown);
}
