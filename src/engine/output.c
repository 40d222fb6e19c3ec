/*
 * output.c - see output.h.
 */
#include "engine/output.h"

#include "pager/repack.h"

int hypura_output_find(const hypura_map *map, const hypura_survey *survey)
{
    for (int t = 0; t < map->n_tensors; t++) {
        if (map->tensors[t].role == HYPURA_ROLE_OUTPUT) {
            return survey->uses[t].flags == HYPURA_USE_MUL_MAT && hypura_repack_has_form(&map->tensors[t]) ? t : -1;
        }
    }
    return -1;
}
