/*
 * history.h - what the routers asked for until now, key by key, held or not. One
 * history serves every policy: a policy is a way to rank its keys (policy.h), so
 * changing the policy forgets nothing.
 *
 * Time is counted in tokens of a key's own group: a key's age is 0 when the last
 * token that passed its layer used it. A batch of tokens is noted as if its tokens
 * had come one by one, which is why a prompt, that uses nearly every expert of a
 * layer, makes few of them look needed.
 *
 * A class is an age and a frequency, both coarse. How often a key of a class was
 * used by the next token is counted while tokens pass: that is its chance. So what
 * recency is worth against frequency is not assumed but learned from this model.
 */
#ifndef HYPURA_CACHE_HISTORY_H
#define HYPURA_CACHE_HISTORY_H

#include "cache/cache.h"

#define HISTORY_AGES        10
#define HISTORY_FREQUENCIES 10
#define HISTORY_CLASSES     (HISTORY_AGES * HISTORY_FREQUENCIES + 1) /* the last one: never used */

/* Share of the weight of all earlier tokens that one token takes in a frequency. */
#define HISTORY_DECAY 0.02

typedef struct history_key {
    double last_use; /* time of the whole model, in visits; 0: never */
    uint32_t n_uses; /* by all tokens since open */
    float frequency; /* share of its group's tokens that used it, as seen lately */
    uint16_t age;
    uint8_t class_of;
    bool in_visit; /* used by the visit being noted */
} history_key;

typedef struct history {
    uint32_t n_keys;
    uint32_t n_groups;
    uint32_t *first_key; /* of each group; n_groups + 1 entries */
    uint32_t *group_of;  /* of each key */
    history_key *keys;
    double clock;                  /* visits noted, a batch counting for all its tokens */
    uint32_t current;              /* group visited last */
    double log_tokens;             /* of a visit, of late; */
    double visit_tokens;           /* so many tokens are usual in one */
    float used[HISTORY_CLASSES];   /* keys of the class used by the next token */
    float seen[HISTORY_CLASSES];   /* keys of the class when a token passed */
    float chance[HISTORY_CLASSES]; /* used / seen, kept still for a round */
} history;

/* group_keys NULL: all groups have as many keys. False when memory is short. */
bool history_open(history *past, uint32_t n_keys, uint32_t n_groups, const uint32_t *group_keys);
void history_close(history *past);

/* Notes a visit. True when it begins a round: the first layer comes up again. */
bool history_visit(history *past, const hypura_cache_visited *visit);

/* A key was this frequent in an earlier run. */
void history_recall(history *past, uint32_t key, float frequency);

/* Visits of its group until a key is used that one token uses with this chance (above 0), as visits are of late. */
double history_visits_to_use(const history *past, double chance);

/* Chance that the next token uses the key. */
static inline float history_chance(const history *past, uint32_t key)
{
    return past->chance[past->keys[key].class_of];
}

#endif
