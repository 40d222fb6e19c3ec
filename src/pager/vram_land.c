/*
 * vram_land.c - where GPU and host share memory, and the host may write where slots lie: an
 * expert that is in neither of both is read from the drive straight into its slot on the GPU.
 *
 *     file ---read---> slot in RAM ---upload---> slot      elsewhere
 *     file ---read-----------------------------> slot      here, while decoding
 *
 * The slot in RAM that it would have passed through stands for the reads alone.
 *
 * What always holds: an expert lands only in a slot of the layer whose selection has just
 * been read. All that was queued before has been computed by then; the piece that runs
 * ahead of it is computed again (gpu_ahead.c), so that the GPU may see half of an expert
 * only where nobody looks at the result.
 */
#include "pager/vram_internal.h"

/* What asks where experts go. */
typedef struct place {
    hypura_vram    *vram;
    int             bundle;
    const uint32_t *indices; /* of slots, of each expert asked for */
} place;

bool vram_can_land(const hypura_vram *vram)
{
    return vram->pager->plan->gpus[vram->gpu].addressable && !vram->uploader;
}

static char *place_of(void *user, uint32_t i, int matrix)
{
    const place              *asked = user;
    const struct ggml_tensor *slots = &asked->vram->bundles[asked->bundle].slots[matrix];
    return (char *)slots->data + (size_t)asked->indices[i] * slots->nb[2];
}

uint32_t vram_lease_experts(hypura_vram *vram, int bundle, const uint32_t *experts, const uint32_t *indices, uint32_t n)
{
    place                asked = {vram, bundle, indices};
    const hypura_landing landing = {place_of, &asked};
    return hypura_pager_lease_landing(vram->pager, bundle, experts, n, vram->landing ? &landing : NULL, vram->ram_slots);
}

bool vram_is_landing(const hypura_vram *vram, int bundle, uint32_t ram_slot)
{
    return vram->landing && hypura_pager_is_landing(vram->pager, bundle, ram_slot);
}

void vram_landed(hypura_vram *vram, int bundle, uint32_t expert, uint32_t index, uint32_t ram_slot)
{
    hypura_pager *pager = vram->pager;
    hypura_pager_end_landing(pager, bundle, ram_slot);
    vram_set_entry(vram, bundle, expert, index);
    pthread_mutex_lock(&pager->lock);
    pager->statistics.bytes_landed += pager->map->bundles[bundle].expert_bytes;
    pthread_mutex_unlock(&pager->lock);
}
