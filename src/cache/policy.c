/*
 * policy.c - the table of replacement policies, and finding one by name.
 */
#include "cache/policy.h"

#include <stddef.h>
#include <string.h>

#define HYPURA_POLICY_ENTRY(name) &hypura_policy_##name,
static const hypura_policy *const policies[] = {HYPURA_POLICIES(HYPURA_POLICY_ENTRY)};
#undef HYPURA_POLICY_ENTRY

const hypura_policy *hypura_policy_at(uint32_t i)
{
    return i < HYPURA_N_POLICIES ? policies[i] : NULL;
}

const hypura_policy *hypura_policy_find(const char *name)
{
    for (uint32_t i = 0; i < HYPURA_N_POLICIES; i++) {
        if (strcmp(policies[i]->name, name) == 0) {
            return policies[i];
        }
    }
    return NULL;
}
