/*
 * leases.c - see leases.h. Both functions of the pager are wrapped by the linker, where others of its files call them.
 */
#include "leases.h"

#include "standin.h"

#include "pager/internal.h"

#include <stdatomic.h>

void __real_hypura_pager_release_expert(hypura_pager *pager, int bundle, uint32_t slot);
void __wrap_hypura_pager_release_expert(hypura_pager *pager, int bundle, uint32_t slot);
void __real_hypura_pager_pass_expert(hypura_pager *pager, int bundle, uint32_t slot);
void __wrap_hypura_pager_pass_expert(hypura_pager *pager, int bundle, uint32_t slot);

static _Atomic(uint64_t) n_early;

static void look(hypura_pager *pager, int bundle, uint32_t slot)
{
    const hypura_bundle *shape = &pager->map->bundles[bundle];
    pthread_mutex_lock(&pager->lock);
    bool early = hypura_cache_pins(pager->pools[pager->bundles[bundle].pool].cache, slot) == 1; /* the last of them */
    pthread_mutex_unlock(&pager->lock);
    bool is_read = false;
    for (int i = 0; early && i < shape->n_tensors && !is_read; i++) {
        is_read = standin_reads(hypura_pager_expert_data(pager, bundle, slot, i), pager->map->tensors[shape->tensors[i]].expert_bytes);
    }
    atomic_fetch_add(&n_early, early && is_read);
}

void __wrap_hypura_pager_release_expert(hypura_pager *pager, int bundle, uint32_t slot)
{
    look(pager, bundle, slot);
    __real_hypura_pager_release_expert(pager, bundle, slot);
}

void __wrap_hypura_pager_pass_expert(hypura_pager *pager, int bundle, uint32_t slot)
{
    look(pager, bundle, slot);
    __real_hypura_pager_pass_expert(pager, bundle, slot);
}

uint64_t leases_n_early(void)
{
    return atomic_load(&n_early);
}
