/*
 * bundle.c - sorts the expert matrices and cuts them where the selection changes.
 *
 * A layer holds at most four matrices of a family, as names are unique: a bundle
 * cannot overflow.
 */
#include "gguf/bundle.h"

#include "gguf/role.h"

#include <stdlib.h>

typedef struct member {
    int layer;
    int family;
    int step;
    int tensor;
    int64_t n_experts;
} member;

static int compare_selections(const member *a, const member *b)
{
    if (a->layer != b->layer) {
        return a->layer < b->layer ? -1 : 1;
    }
    if (a->family != b->family) {
        return a->family < b->family ? -1 : 1;
    }
    if (a->n_experts != b->n_experts) {
        return a->n_experts < b->n_experts ? -1 : 1;
    }
    return 0;
}

static int compare_members(const void *a_pointer, const void *b_pointer)
{
    const member *a = a_pointer;
    const member *b = b_pointer;
    int order = compare_selections(a, b);
    return order != 0 ? order : a->step - b->step;
}

static void cut(const member *members, int n, hypura_tensor *tensors, hypura_bundle *bundles, int *n_bundles)
{
    *n_bundles = 0;
    for (int i = 0; i < n; i++) {
        hypura_tensor *tensor = &tensors[members[i].tensor];
        bool opens = i == 0 || compare_selections(&members[i - 1], &members[i]) != 0 ||
                     bundles[*n_bundles - 1].n_tensors == HYPURA_MAX_BUNDLE;
        if (opens) {
            bundles[*n_bundles] = (hypura_bundle){.layer = tensor->layer, .n_experts = (int)tensor->ne[2]};
            (*n_bundles)++;
        }
        hypura_bundle *bundle = &bundles[*n_bundles - 1];
        tensor->bundle = *n_bundles - 1;
        bundle->tensors[bundle->n_tensors++] = members[i].tensor;
        bundle->expert_bytes += tensor->expert_bytes;
    }
}

bool hypura_bundle_build(hypura_tensor *tensors, int n, hypura_arena *arena, const hypura_bundle **bundles,
                         int *n_bundles)
{
    int n_members = 0;
    for (int i = 0; i < n; i++) {
        n_members += tensors[i].role == HYPURA_ROLE_EXPERT;
    }
    *bundles = NULL;
    *n_bundles = 0;
    if (n_members == 0) {
        return true;
    }
    member *members = calloc((size_t)n_members, sizeof(*members));
    hypura_bundle *built = hypura_arena_alloc(arena, (size_t)n_members, sizeof(*built));
    if (members == NULL || built == NULL) {
        free(members);
        return false;
    }
    for (int i = 0, at = 0; i < n; i++) {
        if (tensors[i].role == HYPURA_ROLE_EXPERT) {
            hypura_role_info info = hypura_role_of_name(tensors[i].name);
            members[at++] = (member){.layer = info.layer,
                                     .family = info.family,
                                     .step = info.step,
                                     .tensor = i,
                                     .n_experts = tensors[i].ne[2]};
        }
    }
    qsort(members, (size_t)n_members, sizeof(*members), compare_members);
    cut(members, n_members, tensors, built, n_bundles);
    free(members);
    *bundles = built;
    return true;
}
