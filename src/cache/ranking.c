/*
 * ranking.c - see ranking.h. Every group's least key is remembered until something
 * in the group changes: a victim costs a look at each group, and a pass over the
 * keys of those few that changed since.
 */
#include "cache/ranking.h"

#include <stdlib.h>

#define NONE HYPURA_CACHE_NONE

bool ranking_open(ranking *held, const history *past, const hypura_policy *policy)
{
    *held = (ranking){
        .past = past,
        .policy = policy,
        .states = calloc(past->n_keys, sizeof(*held->states)),
        .least = calloc(past->n_groups, sizeof(*held->least)),
        .worth = calloc(past->n_groups, sizeof(*held->worth)),
        .stale = calloc(past->n_groups, sizeof(*held->stale)),
    };
    if (!held->states || !held->least || !held->worth || !held->stale) {
        ranking_close(held);
        return false;
    }
    ranking_refresh(held);
    return true;
}

void ranking_close(ranking *held)
{
    free(held->states);
    free(held->least);
    free(held->worth);
    free(held->stale);
    *held = (ranking){0};
}

void ranking_set(ranking *held, uint32_t key, enum ranking_state state)
{
    held->states[key] = (uint8_t)state;
    held->stale[held->past->group_of[key]] = true;
}

void ranking_visit(ranking *held, uint32_t group)
{
    held->stale[group] = true;
}

void ranking_refresh(ranking *held)
{
    for (uint32_t group = 0; group < held->past->n_groups; group++) {
        held->stale[group] = true;
    }
}

void ranking_set_policy(ranking *held, const hypura_policy *policy)
{
    held->policy = policy;
    ranking_refresh(held);
}

static void find_least(ranking *held, uint32_t group)
{
    const history *past = held->past;
    uint32_t least = NONE;
    double worth = 0.0;
    for (uint32_t key = past->first_key[group]; key < past->first_key[group + 1]; key++) {
        if (held->states[key] == RANKING_HELD) {
            const double own = held->policy->worth(past, key);
            if (least == NONE || own < worth) {
                least = key;
                worth = own;
            }
        }
    }
    held->least[group] = least;
    held->worth[group] = worth;
    held->stale[group] = false;
}

uint32_t ranking_last(ranking *held, uint32_t group)
{
    const uint32_t n_groups = held->past->n_groups;
    uint32_t last = NONE;
    double furthest = 0.0;
    for (uint32_t i = 1; i <= n_groups; i++) {
        const uint32_t other = (group + i) % n_groups;
        if (held->stale[other]) {
            find_least(held, other);
        }
        if (held->least[other] != NONE) {
            const double next_use = held->policy->next_use(held->past, held->worth[other], i);
            if (last == NONE || next_use > furthest) {
                furthest = next_use;
                last = held->least[other];
            }
        }
    }
    return last;
}

double ranking_next_use(const ranking *held, uint32_t key, uint32_t group)
{
    const history *past = held->past;
    const uint32_t passed = (past->group_of[key] + past->n_groups - group) % past->n_groups;
    return held->policy->next_use(past, held->policy->worth(past, key), passed > 0 ? passed : past->n_groups);
}
