/*
 * ghost.c - see ghost.h.
 */
#include "cache/ghost.h"

#define NONE HYPURA_CACHE_NONE

#define ALL_GROUPS_UP_TO 8 /* fewer layers are all looked at */
#define STRIDE           4
#define KEPT_PER_ROUND   0.99  /* half of what counts is of the last 70 tokens */
#define USES_TO_CHOOSE   1500.0 /* fewer say nothing: the pool still fills */
#define ADVANTAGE        0.03   /* of the uses: what another policy must promise */

bool ghosts_open(ghosts *all, const history *past)
{
    *all = (ghosts){.past = past, .stride = past->n_groups <= ALL_GROUPS_UP_TO ? 1 : STRIDE};
    for (uint32_t group = 0; group < past->n_groups; group += all->stride) {
        all->n_sampled_keys += past->first_key[group + 1] - past->first_key[group];
    }
    for (uint32_t i = 0; i < HYPURA_N_POLICIES; i++) {
        if (!ranking_open(&all->of[i].held, past, hypura_policy_at(i))) {
            ghosts_close(all);
            return false;
        }
    }
    return true;
}

void ghosts_close(ghosts *all)
{
    for (uint32_t i = 0; i < HYPURA_N_POLICIES; i++) {
        ranking_close(&all->of[i].held);
    }
}

static void give_up(ghost *one, uint32_t group)
{
    const uint32_t key = ranking_last(&one->held, group);
    if (key != NONE) {
        ranking_set(&one->held, key, RANKING_ABSENT);
        one->n_held--;
    }
}

/* A token's experts are needed together, so none gives way to another; those of a
 * batch come one after the other, as its reads do. */
static void visit_one(ghost *one, const hypura_cache_visited *visit, uint32_t capacity)
{
    const enum ranking_state during = visit->n_tokens == 1 ? RANKING_PINNED : RANKING_HELD;
    ranking_visit(&one->held, visit->group);
    for (uint32_t i = 0; i < visit->n; i++) {
        if (one->held.states[visit->keys[i]] != RANKING_ABSENT) {
            ranking_set(&one->held, visit->keys[i], during);
            one->hits += visit->n_tokens == 1;
        }
    }
    for (uint32_t i = 0; i < visit->n; i++) {
        if (one->held.states[visit->keys[i]] == RANKING_ABSENT) {
            while (one->n_held > 0 && one->n_held >= capacity) {
                const uint32_t before = one->n_held;
                give_up(one, visit->group);
                if (one->n_held == before) {
                    break; /* all that is held is needed now */
                }
            }
            ranking_set(&one->held, visit->keys[i], during);
            one->n_held++;
        }
    }
    for (uint32_t i = 0; i < visit->n && during == RANKING_PINNED; i++) {
        ranking_set(&one->held, visit->keys[i], RANKING_HELD);
    }
}

void ghosts_visit(ghosts *all, const hypura_cache_visited *visit, bool round, uint32_t n_slots)
{
    const uint32_t capacity = (uint32_t)((uint64_t)n_slots * all->n_sampled_keys / all->past->n_keys);
    for (uint32_t i = 0; round && i < HYPURA_N_POLICIES; i++) {
        all->of[i].hits *= KEPT_PER_ROUND;
        ranking_refresh(&all->of[i].held);
    }
    all->uses *= round ? KEPT_PER_ROUND : 1.0;
    if (visit->group % all->stride != 0) {
        return;
    }
    all->uses += visit->n_tokens == 1 ? visit->n : 0;
    for (uint32_t i = 0; i < HYPURA_N_POLICIES; i++) {
        visit_one(&all->of[i], visit, capacity > 0 ? capacity : 1);
    }
}

const hypura_policy *ghosts_choose(const ghosts *all, const hypura_policy *in_force)
{
    const ghost *first = &all->of[0];
    const ghost *best = first;
    const ghost *now = first;
    for (uint32_t i = 0; i < HYPURA_N_POLICIES; i++) {
        best = all->of[i].hits > best->hits ? &all->of[i] : best;
        now = all->of[i].held.policy == in_force ? &all->of[i] : now;
    }
    if (now != first && first->hits >= now->hits) {
        return first->held.policy;
    }
    const bool better = all->uses >= USES_TO_CHOOSE && best->hits > now->hits + ADVANTAGE * all->uses;
    return better ? best->held.policy : in_force;
}
