/*
 * by_role.c - a survey from the map alone, for where no graph can be asked. It
 * knows less than libllama's graph does, so it lets stream only what every
 * architecture uses in one way: experts, and feed-forward matrices of dense layers.
 */
#include "plan/plan.h"

#include "base/path.h"
#include "base/status.h"

#include <stdlib.h>
#include <string.h>

static bool is_matrix(const hypura_tensor *tensor)
{
    return tensor->ne[1] > 1 && tensor->ne[2] == 1 && tensor->ne[3] == 1 && hypura_ends_with(tensor->name, ".weight");
}

/* Layers in order; within one the way through it: gate, up, down by name. */
static uint32_t order_in_layer(const hypura_tensor *tensor)
{
    const uint32_t step = strstr(tensor->name, "down") ? 2 : strstr(tensor->name, "up") ? 1 : 0;
    return (uint32_t)tensor->layer * 4 + step;
}

hypura_status hypura_survey_by_role(const hypura_map *map, hypura_survey *survey, hypura_error *error)
{
    memset(survey, 0, sizeof(*survey));
    survey->n_uses = map->n_tensors;
    survey->uses = calloc((size_t)map->n_tensors, sizeof(*survey->uses));
    if (!survey->uses) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the uses of %d tensors", map->n_tensors);
    }
    for (int i = 0; i < map->n_tensors; i++) {
        const hypura_tensor *tensor = &map->tensors[i];
        hypura_use *use = &survey->uses[i];
        *use = (hypura_use){.flags = HYPURA_USE_OTHER, .order = UINT32_MAX};
        if (tensor->role == HYPURA_ROLE_EXPERT) {
            use->flags = HYPURA_USE_MUL_MAT_ID;
        } else if (tensor->role == HYPURA_ROLE_FFN && tensor->layer >= 0 && is_matrix(tensor)) {
            *use = (hypura_use){.flags = HYPURA_USE_MUL_MAT, .n_mul_mat = 1, .order = order_in_layer(tensor)};
        }
    }
    return HYPURA_OK;
}
