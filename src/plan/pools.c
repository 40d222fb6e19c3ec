/*
 * pools.c - slots for experts: size classes and floors.
 *
 * Quantization gives the same matrix different types in different layers, so the
 * experts of a model come in a few sizes. Slots of one size serve all bundles of
 * that size: a pool for each class, and no slot is larger than what it holds.
 *
 * Decode needs the top-k experts of one layer at once; that is the floor. share.c
 * hands out what the budget allows beyond.
 */
#include "plan/internal.h"
#include "plan/layout.h"

#define SMALL_MATRIX_BYTES (64u * 1024u)
#define SMALL_ALIGN_BYTES  512u

static bool is_class_of(const planner *p, const plan_class *class, const hypura_bundle *bundle)
{
    if (class->n_matrices != bundle->n_tensors) {
        return false;
    }
    for (int i = 0; i < bundle->n_tensors; i++) {
        if (class->matrix_bytes[i] != p->map->tensors[bundle->tensors[i]].expert_bytes) {
            return false;
        }
    }
    return true;
}

static void add_to_class(planner *p, int index)
{
    const hypura_bundle *bundle = &p->map->bundles[index];
    int c = 0;
    while (c < p->n_classes && !is_class_of(p, &p->classes[c], bundle)) {
        c++;
    }
    plan_class *class = &p->classes[c];
    if (c == p->n_classes) {
        *class = (plan_class){.n_matrices = bundle->n_tensors};
        for (int i = 0; i < bundle->n_tensors; i++) {
            class->matrix_bytes[i] = p->map->tensors[bundle->tensors[i]].expert_bytes;
            class->slot_bytes += class->matrix_bytes[i];
        }
        p->n_classes++;
    }
    /* Each unit is at least a byte of a file, but a hostile header may say more. */
    uint32_t n_experts = (uint32_t)bundle->n_experts;
    class->n_units = n_experts > UINT32_MAX - 1 - class->n_units ? UINT32_MAX - 1 : class->n_units + n_experts;
    uint32_t n_used = plan_experts_used(p->map, bundle);
    if (class->n_floor < n_used) {
        class->n_floor = n_used;
    }
    p->class_of[index] = c;
}

/* The class with the fewest bytes stays in memory. */
static void drop_smallest_class(planner *p)
{
    int smallest = 0;
    for (int c = 1; c < p->n_classes; c++) {
        if (p->classes[c].slot_bytes * p->classes[c].n_units <
            p->classes[smallest].slot_bytes * p->classes[smallest].n_units) {
            smallest = c;
        }
    }
    for (int b = 0; b < p->map->n_bundles; b++) {
        if (p->class_of[b] == smallest) {
            p->class_of[b] = -1;
            for (int i = 0; i < p->map->bundles[b].n_tensors; i++) {
                p->kinds[p->map->bundles[b].tensors[i]] = PLAN_KIND_FIXED;
            }
        } else if (p->class_of[b] > smallest) {
            p->class_of[b]--;
        }
    }
    p->n_classes--;
    for (int c = smallest; c < p->n_classes; c++) {
        p->classes[c] = p->classes[c + 1];
    }
}

static uint32_t choose_slot_align(const planner *p)
{
    uint32_t align = HYPURA_LAYOUT_PAGE_BYTES;
    uint32_t drive = p->profile->io_align_offset_bytes;
    bool power_of_two = drive != 0 && (drive & (drive - 1)) == 0;
    if (power_of_two && drive < align) {
        align = drive < SMALL_ALIGN_BYTES ? SMALL_ALIGN_BYTES : drive;
    }
    for (int c = 0; c < p->n_classes; c++) {
        for (int i = 0; i < p->classes[c].n_matrices; i++) {
            if (p->classes[c].matrix_bytes[i] < SMALL_MATRIX_BYTES) {
                return SMALL_ALIGN_BYTES;
            }
        }
    }
    return align;
}

void plan_find_classes(planner *p)
{
    for (int b = 0; b < p->map->n_bundles; b++) {
        const hypura_bundle *bundle = &p->map->bundles[b];
        if (bundle->n_tensors > 0 && bundle->tensors[0] >= 0 && bundle->tensors[0] < p->map->n_tensors &&
            p->kinds[bundle->tensors[0]] == PLAN_KIND_EXPERTS) {
            add_to_class(p, b);
        }
    }
    while (p->n_classes > HYPURA_MAX_POOLS) {
        drop_smallest_class(p);
    }
    p->slot_align_bytes = choose_slot_align(p);
    for (int c = 0; c < p->n_classes; c++) {
        plan_class *class = &p->classes[c];
        for (int i = 0; i < class->n_matrices; i++) {
            class->stride_bytes += hypura_layout_region_bytes(p->slot_align_bytes, class->matrix_bytes[i]);
        }
        p->pool_floor_bytes += class->n_floor * class->stride_bytes;
    }
}
