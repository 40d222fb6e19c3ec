/*
 * guess.c - who guesses what the next layer will select while one token or a few are
 * decoded, and whether that pays.
 *
 * The next layer's router, asked a layer early, is right in most cases, and costs a small
 * product. What layers before selected (predict/coactivation.h) says less and costs next to
 * nothing. So routers are tried first, and the other where they are found to be of no use,
 * or cannot be asked. Each has a brake of its own for each number of tokens that pass
 * through the layers together:
 *
 *     routers TRYING or ON  ----------------->  they guess
 *     routers OFF, or none: co-activation TRYING or ON  ---->  it guesses
 *                           both OFF  ------------------->  nobody, until one tries again
 *
 * By the computing thread, with the lock held where brakes are looked at.
 */
#include "pager/internal.h"

#include "base/clock.h"
#include "base/status.h"
#include "predict/candidates.h"
#include "predict/coactivation.h"

#include <stdio.h>
#include <stdlib.h>

/* Of guesses that were read one in so many has to be right: fewer cost more than they can
 * give. A dozen and some tell, as good ones are right in half of all cases and more. */
#define GUESSES_TO_JUDGE 16
#define LEAST_RIGHT      6

/* ---- opening ----------------------------------------------------------------- */

/* Experts of each bundle; n_bundles of them. NULL when memory is short. */
static uint32_t *experts_of(const hypura_map *map)
{
    uint32_t *n_experts = calloc((size_t)map->n_bundles + 1, sizeof(*n_experts));
    for (int b = 0; n_experts && b < map->n_bundles; b++) {
        n_experts[b] = (uint32_t)map->bundles[b].n_experts;
    }
    return n_experts;
}

uint64_t hypura_pager_coactivation_bytes(const hypura_map *map)
{
    uint32_t *n_experts = experts_of(map);
    const uint64_t bytes =
        n_experts ? hypura_coactivation_bytes((uint32_t)map->n_bundles, n_experts, (uint32_t)map->n_experts_used) : 0;
    free(n_experts);
    return map->n_bundles > 1 ? bytes : 0;
}

hypura_status pager_open_guess(hypura_pager *pager, hypura_error *error)
{
    const hypura_map *map = pager->map;
    pager_guess      *guess = &pager->guess;
    for (int b = 1; b < map->n_bundles; b++) {
        guess->has_routers = guess->has_routers || hypura_pager_router(pager, b) != NULL;
    }
    guess->n_tokens = 1;
    for (uint32_t n = 0; n < PAGER_PROMPT_TOKENS; n++) {
        hypura_brake_open(&guess->trials[n].by_routers);
        hypura_brake_open(&guess->trials[n].by_coactivation);
    }
    if (pager->n_pools == 0 || map->n_bundles < 2 || pager->foresight == HYPURA_FORESIGHT_OFF) {
        return HYPURA_OK;
    }
    uint32_t *n_experts = experts_of(map);
    guess->seen = n_experts ? hypura_coactivation_open((uint32_t)map->n_bundles, n_experts, (uint32_t)map->n_experts_used)
                            : NULL;
    free(n_experts);
    guess->chances = calloc(3 * (size_t)pager->ahead.capacity, sizeof(float));
    guess->experts = calloc(pager->ahead.capacity, sizeof(*guess->experts));
    return guess->seen && guess->chances && guess->experts
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to note what %d layers select", map->n_bundles);
}

void pager_close_guess(hypura_pager *pager)
{
    hypura_coactivation_close(pager->guess.seen);
    free(pager->guess.chances);
    free(pager->guess.experts);
}

/* ---- who guesses ------------------------------------------------------------- */

/* Whose brake decides; never NOBODY. */
static hypura_guesser guesser_tried(hypura_pager *pager)
{
    const pager_guess *guess = &pager->guess;
    if (!guess->seen) {
        return HYPURA_GUESS_ROUTERS;
    }
    const bool can_ask = guess->has_routers && (!guess->given || pager->foretell);
    if (!can_ask || pager->foresight == HYPURA_FORESIGHT_COACTIVATION) {
        return HYPURA_GUESS_COACTIVATION;
    }
    const bool in_vain = pager->foresight == HYPURA_FORESIGHT_AUTO && pager_trials_now(pager)->by_routers.state == HYPURA_BRAKE_OFF;
    return in_vain ? HYPURA_GUESS_COACTIVATION : HYPURA_GUESS_ROUTERS;
}

static hypura_brake *brake_now(hypura_pager *pager)
{
    pager_trials *trials = pager_trials_now(pager);
    return guesser_tried(pager) == HYPURA_GUESS_ROUTERS ? &trials->by_routers : &trials->by_coactivation;
}

static bool guesses(hypura_pager *pager)
{
    return pager->foresight == HYPURA_FORESIGHT_AUTO ? hypura_brake_is_on(brake_now(pager))
                                                     : pager->foresight != HYPURA_FORESIGHT_OFF;
}

hypura_guesser hypura_pager_guesser(hypura_pager *pager)
{
    pthread_mutex_lock(&pager->lock);
    const bool guessed_for = pager->pass_begin_us > 0;
    const hypura_guesser guesser = guessed_for && guesses(pager) ? guesser_tried(pager) : HYPURA_GUESS_NOBODY;
    pthread_mutex_unlock(&pager->lock);
    return guesser;
}

void hypura_pager_give_selections(hypura_pager *pager, bool given)
{
    pthread_mutex_lock(&pager->lock);
    pager->guess.given = given;
    pthread_mutex_unlock(&pager->lock);
}

/* In the middle of a pass, as one alone can cost more than a trial may. */
void pager_judge_guesses(hypura_pager *pager)
{
    const pager_trials *trials = pager_trials_now(pager);
    if (trials->n_read >= GUESSES_TO_JUDGE && trials->n_right * LEAST_RIGHT < trials->n_read) {
        hypura_brake_refuse(brake_now(pager));
    }
}

/* Where passes without guesses hardly wait for reads, none can win anything. */
static void refuse_idle_guesses(hypura_pager *pager, bool with_guesses, uint64_t pass_us)
{
    pager_trials *trials = pager_trials_now(pager);
    if (!with_guesses) {
        trials->plain_us += pass_us;
        trials->plain_waited_us += pager->waited_us - pager->pass_waited_us;
    }
    if (!hypura_brake_is_on(brake_now(pager))) {
        trials->n_read = 0;
        trials->n_right = 0;
        return;
    }
    /* What a GPU waits for is uploads, and they are not counted here. */
    const bool hardly_waits = pager->plan->n_vram_pools == 0 &&
                              (double)trials->plain_waited_us < BRAKE_GAIN * (double)trials->plain_us;
    trials->plain_us = 0;
    trials->plain_waited_us = 0;
    if (hardly_waits) {
        hypura_brake_refuse(brake_now(pager));
    }
}

static void end_pass(hypura_pager *pager, uint64_t pass_us)
{
    hypura_brake *brake = brake_now(pager);
    const bool with_guesses = hypura_brake_is_on(brake);
    const double lacked_us = pager_reading_us(pager, pager->guess.lacked_bytes) + pager->guess.uploading_us;
    pager_trials *trials = pager_trials_now(pager);
    hypura_brake_token(brake, (double)pass_us, lacked_us);
    if (brake == &trials->by_coactivation) {
        hypura_brake_token(&trials->by_routers, (double)pass_us, 0.0); /* OFF: nearer to its next trial */
    }
    refuse_idle_guesses(pager, with_guesses, pass_us);
}

/* One token takes until the next one begins: what follows is a prompt else, about which somebody may have thought. Several
 * take until the last layer is done: tokens that are tried together are as many as were guessed, another number each time,
 * and guessing takes its time. Over a GPU nothing is guessed for several tokens. */
void pager_begin_pass(hypura_pager *pager, uint32_t n_tokens)
{
    const uint64_t now_us = hypura_clock_us();
    const bool one = pager->guess.n_tokens == 1;
    const uint64_t end_us = one ? (n_tokens == 1 ? now_us : 0) : pager->pass_end_us;
    if (pager->pass_begin_us > 0 && end_us > pager->pass_begin_us) {
        end_pass(pager, end_us - pager->pass_begin_us);
    }
    pager->pass_begin_us = 0;
    pager->pass_end_us = 0;
    if (n_tokens < (pager->gpu ? 2 : PAGER_PROMPT_TOKENS)) {
        pager->guess.n_tokens = n_tokens;
        pager->guess.lacked_bytes = 0;
        pager->guess.uploading_us = 0.0;
        pager->pass_begin_us = now_us;
        pager->pass_waited_us = pager->waited_us;
    }
}

void pager_tell_foresight(hypura_pager *pager, hypura_statistics *statistics)
{
    const bool by_brake = pager->foresight == HYPURA_FORESIGHT_AUTO;
    const hypura_brake *brake = brake_now(pager);
    snprintf(statistics->foresight, sizeof(statistics->foresight), "%s",
             by_brake ? hypura_brake_name(brake) : guesses(pager) ? "on" : "off");
    snprintf(statistics->foresight_by, sizeof(statistics->foresight_by), "%s",
             guesser_tried(pager) == HYPURA_GUESS_ROUTERS ? "routers" : "co-activation");
    statistics->foresight_gain = by_brake ? brake->gain : 0.0;
}

/* ---- what is guessed --------------------------------------------------------- */

bool hypura_pager_foretell(const hypura_pager *pager, int bundle, uint32_t token, uint32_t n_used, uint32_t *experts,
                           uint32_t n)
{
    if (pager->foretell) {
        pager->foretell(pager->foretell_user, pager->map->bundles[bundle].layer, token, n_used, experts, n);
    }
    return pager->foretell != NULL;
}

void hypura_pager_note_selection(hypura_pager *pager, const hypura_selection *selection)
{
    if (pager->on_selection) {
        pager->on_selection(pager->on_selection_user, selection);
    }
    if (pager->guess.seen) {
        hypura_coactivation_note(pager->guess.seen, (uint32_t)selection->bundle, &selection->selected);
    }
}

bool pager_knows_companions(const hypura_pager *pager, int bundle)
{
    const pager_guess *guess = &pager->guess;
    return guess->seen && hypura_coactivation_knows(guess->seen, (uint32_t)bundle);
}

uint32_t pager_pick_companions(hypura_pager *pager, const hypura_cache *cache, int bundle, uint32_t first_key, double least)
{
    pager_guess   *guess = &pager->guess;
    const uint32_t n_experts = (uint32_t)pager->map->bundles[bundle].n_experts;
    float         *chances = guess->chances;
    float         *frequencies = chances + pager->ahead.capacity;
    float         *scores = frequencies + pager->ahead.capacity;
    uint32_t       n = 0;
    pthread_mutex_lock(&pager->lock);
    hypura_cache_outlook(cache, first_key, n_experts, chances, frequencies);
    pthread_mutex_unlock(&pager->lock);
    hypura_coactivation_score(guess->seen, (uint32_t)bundle, chances, frequencies, scores);
    for (uint32_t e = 0; e < n_experts; e++) {
        n += scores[e] >= least;
    }
    hypura_candidates_pick(scores, n_experts, guess->experts, n);
    return n;
}

void hypura_pager_expect_companions(hypura_pager *pager, int bundle)
{
    if (pager_streams(pager, bundle) && pager_knows_companions(pager, bundle)) {
        const pager_bundle *place = &pager->bundles[bundle];
        const uint32_t n = pager_pick_companions(pager, pager->pools[place->pool].cache, bundle, place->first_key,
                                                 HYPURA_COACTIVATION_LEAST);
        hypura_pager_expect_experts(pager, bundle, pager->guess.experts, n, HYPURA_DOUBTFUL);
    }
}
