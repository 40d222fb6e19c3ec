/*
 * history.c - see history.h.
 *
 * A visit passes over all keys of its group once: 128 experts take about a
 * microsecond, and a token visits each layer once.
 */
#include "cache/history.h"

#include <math.h>
#include <stdlib.h>

#define AGE_MAX      UINT16_MAX
#define CLASS_NEVER  (HISTORY_CLASSES - 1)
#define CHANCE_NEVER 0.0005f
#define PRIOR_SEEN   20.0f  /* tokens' worth of belief in the prior */
#define PACE         (1.0 / 16) /* at which the usual number of tokens in a visit follows, at each round */
#define FORGET       0.998f /* of the counts, at each round: half of them are of the last 350 tokens */

/* ---- classes ---------------------------------------------------------------- */

/* 0 to 4 have a bin of their own, then each bin is twice as wide. */
static uint32_t age_bin(uint16_t age)
{
    uint32_t bin = age < 4 ? age : 4;
    for (uint32_t limit = 8; bin >= 4 && bin < HISTORY_AGES - 1 && age >= limit; limit *= 2) {
        bin++;
    }
    return bin;
}

static uint32_t frequency_bin(float frequency)
{
    uint32_t bin = HISTORY_FREQUENCIES - 1;
    for (float limit = 0.5f; bin > 0 && frequency < limit; limit /= 1.7f) {
        bin--;
    }
    return bin;
}

static void classify(history_key *key)
{
    key->class_of = (uint8_t)(age_bin(key->age) * HISTORY_FREQUENCIES + frequency_bin(key->frequency));
}

/* What is believed before anything was seen: OLMoE and Qwen3, whose tables agree
 * within a few hundredths where both have seen much. */
static void open_classes(history *past)
{
    static const float by_age[HISTORY_AGES] = {1.0f, 0.5f, 0.42f, 0.36f, 0.33f, 0.28f, 0.2f, 0.1f, 0.06f, 0.03f};
    static const float by_frequency[HISTORY_FREQUENCIES] = {0.1f,  0.14f, 0.18f, 0.2f,  0.24f,
                                                            0.27f, 0.32f, 0.41f, 0.63f, 0.8f};
    for (uint32_t c = 0; c < CLASS_NEVER; c++) {
        past->seen[c] = PRIOR_SEEN;
        past->used[c] = PRIOR_SEEN * by_age[c / HISTORY_FREQUENCIES] * by_frequency[c % HISTORY_FREQUENCIES];
        past->chance[c] = past->used[c] / past->seen[c] + CHANCE_NEVER;
    }
    past->chance[CLASS_NEVER] = CHANCE_NEVER;
}

static void refresh_chances(history *past)
{
    for (uint32_t c = 0; c < CLASS_NEVER; c++) {
        past->chance[c] = past->used[c] / past->seen[c] + CHANCE_NEVER;
        if (past->seen[c] > PRIOR_SEEN) {
            past->seen[c] *= FORGET;
            past->used[c] *= FORGET;
        }
    }
}

/* ---- open and close ----------------------------------------------------------- */

bool history_open(history *past, uint32_t n_keys, uint32_t n_groups, const uint32_t *group_keys)
{
    *past = (history){
        .n_keys = n_keys,
        .n_groups = n_groups,
        .current = HYPURA_CACHE_NONE,
        .visit_tokens = 1.0,
        .first_key = calloc((size_t)n_groups + 1, sizeof(*past->first_key)),
        .group_of = calloc(n_keys, sizeof(*past->group_of)),
        .keys = calloc(n_keys, sizeof(*past->keys)),
    };
    if (!past->first_key || !past->group_of || !past->keys) {
        history_close(past);
        return false;
    }
    for (uint32_t group = 0; group < n_groups; group++) {
        past->first_key[group + 1] = past->first_key[group] + (group_keys ? group_keys[group] : n_keys / n_groups);
        for (uint32_t key = past->first_key[group]; key < past->first_key[group + 1]; key++) {
            past->group_of[key] = group;
            past->keys[key] = (history_key){.age = AGE_MAX, .class_of = CLASS_NEVER};
        }
    }
    open_classes(past);
    return true;
}

void history_close(history *past)
{
    free(past->first_key);
    free(past->group_of);
    free(past->keys);
    *past = (history){0};
}

/* ---- visits ----------------------------------------------------------------------- */

static bool is_known(const history_key *key)
{
    return key->class_of != CLASS_NEVER;
}

static void learn(history *past, const hypura_cache_visited *visit)
{
    const uint32_t end = past->first_key[visit->group + 1];
    for (uint32_t key = past->first_key[visit->group]; key < end; key++) {
        const history_key *known = &past->keys[key];
        if (is_known(known)) {
            past->seen[known->class_of] += 1.0f;
            past->used[known->class_of] += known->in_visit ? 1.0f : 0.0f;
        }
    }
}

/* n_tokens pass those of the group that none of them uses. */
static void let_pass(history *past, const hypura_cache_visited *visit, float kept)
{
    const uint32_t end = past->first_key[visit->group + 1];
    for (uint32_t key = past->first_key[visit->group]; key < end; key++) {
        history_key *passed = &past->keys[key];
        if (is_known(passed) && !passed->in_visit) {
            passed->frequency *= kept;
            passed->age = visit->n_tokens < (uint32_t)(AGE_MAX - passed->age)
                              ? (uint16_t)(passed->age + visit->n_tokens)
                              : AGE_MAX;
            classify(passed);
        }
    }
}

static void note_use(history *past, const hypura_cache_visited *visit, uint32_t i, float kept)
{
    history_key *used = &past->keys[visit->keys[i]];
    const uint32_t n_uses = visit->n_uses ? visit->n_uses[i] : 1;
    const uint32_t age = visit->ages ? visit->ages[i] : 0;
    used->frequency = used->frequency * kept + (1.0f - kept) * (float)n_uses / (float)visit->n_tokens;
    used->n_uses += n_uses;
    used->age = age < AGE_MAX ? (uint16_t)age : AGE_MAX;
    used->last_use = past->clock - (double)age * past->n_groups;
    used->in_visit = false;
    classify(used);
}

bool history_visit(history *past, const hypura_cache_visited *visit)
{
    const bool round = past->current == HYPURA_CACHE_NONE || visit->group <= past->current;
    const float kept =
        visit->n_tokens == 1 ? (float)(1.0 - HISTORY_DECAY) : (float)pow(1.0 - HISTORY_DECAY, visit->n_tokens);
    past->current = visit->group;
    past->clock += visit->n_tokens;
    if (round) {
        refresh_chances(past);
        past->log_tokens += PACE * (log((double)visit->n_tokens) - past->log_tokens);
        past->visit_tokens = exp(past->log_tokens);
    }
    for (uint32_t i = 0; i < visit->n; i++) {
        past->keys[visit->keys[i]].in_visit = true;
    }
    if (visit->n_tokens == 1) {
        learn(past, visit);
    }
    let_pass(past, visit, kept);
    for (uint32_t i = 0; i < visit->n; i++) {
        note_use(past, visit, i, kept);
    }
    return round;
}

double history_visits_to_use(const history *past, double chance)
{
    const double alone = past->visit_tokens < 1.01 ? chance : 1.0 - pow(1.0 - chance, past->visit_tokens);
    return 1.0 / alone;
}

void history_recall(history *past, uint32_t key, float frequency)
{
    past->keys[key].frequency = frequency;
    if (frequency > 0) {
        classify(&past->keys[key]);
    }
}
