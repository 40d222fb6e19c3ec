/*
 * records.c - experts read from the sidecar of records instead of the model's files.
 *
 * A slot is then laid out as a record is, from its first byte on: begin and end of a
 * record lie at multiples of 4 KiB in the file, so that it is one direct read without
 * a copy. A record's padding is never more than what the plan charges a slot for the
 * regions of matrices that begin anywhere (plan/layout.h); where it were, the sidecar
 * would not be used.
 */
#include "pager/internal.h"

#include <stdio.h>

/* Each streamed bundle's record has room in a slot of its pool. */
static bool fits(const hypura_pager *pager)
{
    const hypura_map *map = pager->map;
    for (int b = 0; b < map->n_bundles; b++) {
        const hypura_placement *placement = &pager->plan->placements[map->bundles[b].tensors[0]];
        if (placement->place == HYPURA_PLACE_EXPERTS &&
            pager->records->bundles[b].record_bytes > pager->plan->pools[placement->pool].slot_stride_bytes) {
            return false;
        }
    }
    return true;
}

hypura_status pager_open_records(hypura_pager *pager, hypura_error *error)
{
    if (pager->plan->n_pools == 0) {
        return HYPURA_OK;
    }
    const hypura_status status =
        hypura_records_find(pager->map, &pager->records, pager->records_note, sizeof(pager->records_note), error);
    if (status == HYPURA_OK && pager->records && !fits(pager)) {
        snprintf(pager->records_note, sizeof(pager->records_note), "%s is not used: its records are larger than slots",
                 pager->records->path);
        hypura_records_close(pager->records);
        pager->records = NULL;
    }
    return status;
}

void pager_lay_out_record(hypura_pager *pager, int bundle)
{
    const hypura_records_bundle *record = &pager->records->bundles[bundle];
    for (int i = 0; i < pager->map->bundles[bundle].n_tensors; i++) {
        pager->bundles[bundle].data_offset[i] = record->matrix_offset[i];
    }
}

hypura_io_read pager_record_read(const hypura_pager *pager, int bundle, uint32_t expert, uint32_t slot)
{
    const hypura_records_bundle *record = &pager->records->bundles[bundle];
    const uint32_t               index = pager->bundles[bundle].pool;
    const pager_pool            *pool = &pager->pools[index];
    const uint64_t               spare = pool->stride_bytes - record->record_bytes;
    return (hypura_io_read){
        .file = (uint16_t)pager->map->n_files,
        .tail_slack = (uint16_t)(spare < UINT16_MAX ? spare : UINT16_MAX),
        .offset = record->offset + expert * record->stride_bytes,
        .bytes = record->record_bytes,
        .dst = pager_slot_memory(pool, slot),
        .user = pager_user(OWNER_EXPERT, index, 0, slot),
    };
}
