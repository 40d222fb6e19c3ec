/*
 * vram_open.c - memory on a GPU for slots and stages: taken before the first token,
 * given back at the end, and nothing in between. See vram.h.
 */
#include "pager/vram_internal.h"

#include "base/status.h"

#include "ggml-backend-impl.h"
#include "ggml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---------------------------------------------------------------- */

static const hypura_tensor *matrix_of(const hypura_vram *vram, int bundle, int index)
{
    const hypura_map *map = vram->pager->map;
    return &map->tensors[map->bundles[bundle].tensors[index]];
}

/* A tensor of n experts of a matrix; without memory yet. */
static struct ggml_tensor describe(const hypura_tensor *matrix, uint32_t n)
{
    struct ggml_tensor tensor = {.type = (enum ggml_type)matrix->type, .op = GGML_OP_NONE};
    tensor.ne[0] = matrix->ne[0];
    tensor.ne[1] = matrix->ne[1];
    tensor.ne[2] = n;
    tensor.ne[3] = 1;
    tensor.nb[0] = ggml_type_size(tensor.type);
    tensor.nb[1] = ggml_row_size(tensor.type, tensor.ne[0]);
    tensor.nb[2] = tensor.nb[1] * (size_t)tensor.ne[1];
    tensor.nb[3] = tensor.nb[2] * n;
    snprintf(tensor.name, sizeof(tensor.name), "%.60s", matrix->name);
    return tensor;
}

bool vram_place_at(struct ggml_tensor *tensor, ggml_backend_buffer_t buffer, size_t offset)
{
    return ggml_backend_tensor_alloc(buffer, tensor, (char *)ggml_backend_buffer_get_base(buffer) + offset) ==
           GGML_STATUS_SUCCESS;
}

ggml_backend_buffer_t vram_take(hypura_vram *vram, size_t bytes, const char *what, hypura_error *error)
{
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(vram->type, bytes);
    if (!buffer) {
        hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for %zu bytes of %s: give a smaller limit on GPU memory",
                    ggml_backend_dev_name(vram->device), bytes, what);
        return NULL;
    }
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_buffer_clear(buffer, 0);
    return buffer;
}

/* Where each matrix of a pool or of a stage begins, and which buffer it lies in. */
typedef struct layout {
    int    n;
    size_t bytes[HYPURA_MAX_BUNDLE];
    size_t offsets[HYPURA_MAX_BUNDLE];
    int    buffers[HYPURA_MAX_BUNDLE];
    size_t buffer_bytes[HYPURA_MAX_BUNDLE];
} layout;

/* All matrices in one buffer where that lets one call upload several of them (vram_send.c). */
static void lay_out(const hypura_vram *vram, layout *l)
{
    const size_t align = ggml_backend_buft_get_alignment(vram->type);
    size_t       total = 0;
    for (int i = 0; i < l->n; i++) {
        l->offsets[i] = total;
        total += GGML_PAD(l->bytes[i], align);
    }
    const bool one = vram->uploader && vram->uploader->iface.set_tensor_2d_async && l->n > 1 &&
                     GGML_PAD(l->bytes[0], align) <= INT32_MAX && total <= ggml_backend_buft_get_max_size(vram->type);
    for (int i = 0; i < l->n; i++) {
        l->offsets[i] = one ? l->offsets[i] : 0;
        l->buffers[i] = one ? 0 : i;
        l->buffer_bytes[i] = !one ? l->bytes[i] : i == 0 ? total : 0;
    }
}

static hypura_status take_all(hypura_vram *vram, const layout *l, const char *what, ggml_backend_buffer_t *buffers,
                              hypura_error *error)
{
    for (int i = 0; i < l->n; i++) {
        if (l->buffer_bytes[i] > 0 && !buffers[i]) {
            buffers[i] = vram_take(vram, l->buffer_bytes[i], what, error);
            if (!buffers[i]) {
                return error->status;
            }
        }
    }
    return HYPURA_OK;
}

static const hypura_gpu_plan *gpu_plan(const hypura_vram *vram)
{
    return &vram->pager->plan->gpus[vram->gpu];
}

/* Slots, or those that last and the stages behind them. */
static uint32_t n_places(const hypura_vram *vram, int bundle)
{
    const vram_pool      *pool = &vram->pools[vram->bundles[bundle].pool];
    const hypura_gpu_plan *plan = gpu_plan(vram);
    return plan->stages_in_slots
               ? pool->n_lasting + (uint32_t)(plan->n_stages * vram->pager->map->bundles[bundle].n_experts)
               : pool->n_slots;
}

static hypura_status open_pool(hypura_vram *vram, int bundle, hypura_error *error)
{
    vram_bundle *place = &vram->bundles[bundle];
    vram_pool   *pool = &vram->pools[place->pool];
    layout       l = {.n = vram->pager->map->bundles[bundle].n_tensors};
    for (int i = 0; i < l.n; i++) {
        place->slots[i] = describe(matrix_of(vram, bundle, i), n_places(vram, bundle));
        l.bytes[i] = ggml_backend_buft_get_alloc_size(vram->type, &place->slots[i]);
    }
    lay_out(vram, &l);
    if (take_all(vram, &l, "expert slots", pool->buffers, error)) {
        return error->status;
    }
    for (int i = 0; i < l.n; i++) {
        if (!vram_place_at(&place->slots[i], pool->buffers[l.buffers[i]], l.offsets[i])) {
            return hypura_fail(error, HYPURA_ERR_BACKEND, "%s: %s does not accept slots of this tensor",
                               place->slots[i].name, ggml_backend_dev_name(vram->device));
        }
    }
    return HYPURA_OK;
}

/* Behind the slots that last, as the plan has it. */
static hypura_status open_stages_in_slots(hypura_vram *vram, hypura_error *error)
{
    const hypura_map *map = vram->pager->map;
    for (int b = 0; b < map->n_bundles; b++) {
        vram_bundle *place = &vram->bundles[b];
        for (int at = 0; place->paged && at < gpu_plan(vram)->n_stages * map->bundles[b].n_tensors; at++) {
            const int           s = at / map->bundles[b].n_tensors;
            const int           i = at % map->bundles[b].n_tensors;
            struct ggml_tensor *stage = &place->stages[s][i];
            const char         *base = ggml_backend_buffer_get_base(place->slots[i].buffer);
            const size_t        index = vram->pools[place->pool].n_lasting + (size_t)(s * map->bundles[b].n_experts);
            *stage = describe(matrix_of(vram, b, i), (uint32_t)map->bundles[b].n_experts);
            if (!vram_place_at(stage, place->slots[i].buffer,
                               (size_t)((char *)place->slots[i].data - base) + index * stage->nb[2])) {
                return hypura_fail(error, HYPURA_ERR_BACKEND, "%s: %s does not accept a stage behind slots",
                                   stage->name, ggml_backend_dev_name(vram->device));
            }
        }
    }
    return HYPURA_OK;
}

/* Stages are shared by all bundles, matrix by matrix. */
static hypura_status open_stages(hypura_vram *vram, hypura_error *error)
{
    const hypura_map *map = vram->pager->map;
    layout            l = {.n = 0};
    if (gpu_plan(vram)->stages_in_slots) {
        return open_stages_in_slots(vram, error);
    }
    for (int b = 0; b < map->n_bundles; b++) {
        for (int i = 0; vram->bundles[b].paged && i < map->bundles[b].n_tensors; i++) {
            const struct ggml_tensor tensor = describe(matrix_of(vram, b, i), (uint32_t)map->bundles[b].n_experts);
            const size_t             needed = ggml_backend_buft_get_alloc_size(vram->type, &tensor);
            l.bytes[i] = needed > l.bytes[i] ? needed : l.bytes[i];
            l.n = i >= l.n ? i + 1 : l.n;
        }
    }
    lay_out(vram, &l);
    for (int s = 0; s < hypura_vram_n_stages(vram); s++) {
        if (take_all(vram, &l, "stages for batches", vram->stages[s], error)) {
            return error->status;
        }
        for (int b = 0; b < map->n_bundles; b++) {
            for (int i = 0; vram->bundles[b].paged && i < map->bundles[b].n_tensors; i++) {
                struct ggml_tensor *stage = &vram->bundles[b].stages[s][i];
                *stage = describe(matrix_of(vram, b, i), (uint32_t)map->bundles[b].n_experts);
                /* slots of the same type were accepted */
                (void)vram_place_at(stage, vram->stages[s][l.buffers[i]], l.offsets[i]);
            }
        }
    }
    return HYPURA_OK;
}

/* ---- open and close ---------------------------------------------------------- */

static hypura_status open_cache(hypura_vram *vram, uint32_t index, hypura_error *error)
{
    const hypura_map *map = vram->pager->map;
    uint32_t         *group_keys = calloc((size_t)map->n_bundles, sizeof(*group_keys));
    if (!group_keys) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %d expert bundles", map->n_bundles);
    }
    for (int b = 0; b < map->n_bundles; b++) {
        const bool here = vram->bundles[b].paged && vram->bundles[b].pool == index;
        group_keys[b] = here ? (uint32_t)map->bundles[b].n_experts : 0;
    }
    const hypura_cache_options options = {
        .n_slots = vram->pools[index].n_slots,
        .n_keys = vram->pools[index].n_keys,
        .n_groups = (uint32_t)map->n_bundles,
        .group_keys = group_keys,
    };
    const hypura_status status = hypura_cache_open(&options, &vram->pools[index].cache, error);
    free(group_keys);
    return status;
}

static hypura_status open_pools(hypura_vram *vram, hypura_error *error)
{
    const hypura_map  *map = vram->pager->map;
    const hypura_plan *plan = vram->pager->plan;
    for (int b = 0; b < map->n_bundles; b++) {
        const hypura_placement *placement = &plan->placements[map->bundles[b].tensors[0]];
        if (placement->place != HYPURA_PLACE_EXPERTS || placement->gpu != vram->gpu) {
            continue;
        }
        if (map->bundles[b].n_experts > MAX_EXPERTS) {
            return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%d experts in a layer: over a GPU there can be %d",
                               map->bundles[b].n_experts, MAX_EXPERTS);
        }
        vram_bundle *place = &vram->bundles[b];
        vram_pool   *pool = &vram->pools[placement->vram_pool];
        place->paged = true;
        place->pool = (uint32_t)placement->vram_pool;
        place->first_key = pool->n_keys;
        pool->n_keys += (uint32_t)map->bundles[b].n_experts;
        pool->n_slots = pool->n_open = plan->vram_pools[place->pool].n_slots;
        pool->n_lasting = plan->vram_pools[place->pool].n_lasting;
        if (open_pool(vram, b, error)) {
            return error->status;
        }
    }
    hypura_status status = HYPURA_OK;
    for (uint32_t p = 0; p < vram->n_pools && status == HYPURA_OK; p++) {
        status = vram->pools[p].n_keys > 0 ? open_cache(vram, p, error) : HYPURA_OK; /* others are of other GPUs */
    }
    return status;
}

static hypura_status open_copies(hypura_vram *vram, hypura_error *error)
{
    const size_t n = (size_t)MAX_EXPERTS * HYPURA_MAX_BUNDLE;
    vram->copies = ggml_init((struct ggml_init_params){
        .mem_size = 3 * n * ggml_tensor_overhead() + ggml_graph_overhead_custom(3 * n, false), .no_alloc = true});
    return vram->copies ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for graphs of %zu copies", n);
}

/* ggml-vulkan has a queue for copies in each instance, and Metal's memory is the host's.
 * Kernels for a few tokens look at selected experts alone; how many are a few depends with
 * CUDA and ROCm on the type and on the GPU, and is never less than 4. Those for more share
 * the work out by the number of experts that there are. */
static const vram_manners known_manners[] = {
    {.backend = "CUDA", .copies_beside = true, .remap_tokens = 4},
    {.backend = "ROCm", .copies_beside = true, .remap_tokens = 4},
    {.backend = "Vulkan", .copies_overtake = true, .reports = true, .remap_tokens = 8},
    {.backend = "MTL", .remap_tokens = 8},
    {.backend = NULL, .copies_beside = true, .remap_tokens = 8}, /* any other */
};

static const vram_manners *manners_of(ggml_backend_dev_t device)
{
    const char         *name = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device));
    const vram_manners *manners = known_manners;
    while (manners->backend && strcmp(manners->backend, name) != 0) {
        manners++;
    }
    return manners;
}

/* An instance takes memory of the device when it is first used: now, as long as there is some. */
static ggml_backend_t open_copier(hypura_vram *vram, ggml_backend_event_t *event)
{
    *event = vram->manners->copies_beside ? ggml_backend_event_new(vram->device) : NULL;
    ggml_backend_t backend = *event ? ggml_backend_dev_init(vram->device, NULL) : NULL;
    if (backend) {
        ggml_backend_synchronize(backend);
    }
    return backend;
}

static void close_copier(ggml_backend_t backend, ggml_backend_event_t event)
{
    if (backend) {
        ggml_backend_synchronize(backend);
        ggml_backend_free(backend);
    }
    ggml_backend_event_free(event);
}

static void close_copiers(hypura_vram *vram)
{
    close_copier(vram->uploader, vram->uploaded);
    close_copier(vram->reader, vram->computed);
    ggml_backend_event_free(vram->uploaded_late);
    ggml_backend_event_free(vram->copied);
    vram->uploader = vram->reader = NULL;
    vram->uploaded = vram->computed = vram->uploaded_late = vram->copied = NULL;
}

/* All that copies beside, as each waits for the other; or, where the device lacks room for
 * some of it, nothing. */
static void open_copiers(hypura_vram *vram)
{
    vram->uploader = open_copier(vram, &vram->uploaded);
    vram->reader = vram->uploader ? open_copier(vram, &vram->computed) : NULL;
    vram->uploaded_late = vram->reader ? ggml_backend_event_new(vram->device) : NULL;
    vram->copied = vram->uploaded_late ? ggml_backend_event_new(vram->device) : NULL;
    if (!vram->copied) {
        close_copiers(vram);
    }
}

hypura_status hypura_vram_open(hypura_pager *pager, void *device, int gpu, hypura_vram **out, hypura_error *error)
{
    hypura_vram *vram = calloc(1, sizeof(*vram));
    if (!vram) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the states of GPU slots");
    }
    hypura_error_clear(error);
    vram->pager = pager;
    vram->device = device;
    vram->gpu = gpu;
    vram->foreseen_bundle = -1;
    vram->late_matrix = -1;
    vram->leased_bundle = -1;
    vram->untold.bundle = -1;
    vram->untold_ram.bundle = -1;
    for (int s = 0; s < HYPURA_MAX_STAGES; s++) {
        vram->batches[s].bundle = -1;
    }
    vram->type = ggml_backend_dev_buffer_type(device);
    vram->manners = manners_of(device);
    open_copiers(vram);
    if (vram->manners->copies_overtake && !vram->reader) {
        vram->copied = ggml_backend_event_new(vram->device);
    }
    vram->can_land = vram_can_land(vram);
    vram->n_pools = (uint32_t)pager->plan->n_vram_pools;
    vram->bundles = calloc((size_t)pager->map->n_bundles + 1, sizeof(*vram->bundles));
    if (!vram->bundles) {
        hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the places of %d expert bundles", pager->map->n_bundles);
    }
    if (!vram->bundles || open_pools(vram, error) || open_stages(vram, error) || vram_open_ids(vram, error) ||
        vram_open_reports(vram, error) || vram_open_routers(vram, error) || vram_open_batches(vram, error) ||
        open_copies(vram, error) || vram_open_beside(vram, error)) {
        hypura_vram_close(vram);
        return error->status;
    }
    vram->overtakes = vram_sees_overtaking(vram);
    *out = vram;
    return HYPURA_OK;
}

void hypura_vram_close(hypura_vram *vram)
{
    if (!vram) {
        return;
    }
    vram_close_routers(vram);
    close_copiers(vram);
    for (uint32_t p = 0; p < vram->n_pools; p++) {
        hypura_cache_close(vram->pools[p].cache);
        for (int i = 0; i < HYPURA_MAX_BUNDLE; i++) {
            ggml_backend_buffer_free(vram->pools[p].buffers[i]);
        }
    }
    for (int s = 0; s < HYPURA_MAX_STAGES; s++) {
        for (int i = 0; i < HYPURA_MAX_BUNDLE; i++) {
            ggml_backend_buffer_free(vram->stages[s][i]);
        }
    }
    vram_close_ids(vram);
    vram_close_reports(vram);
    vram_close_beside(vram);
    ggml_backend_buffer_free(vram->batch_ids);
    ggml_free(vram->copies);
    free(vram->bundles);
    free(vram);
}
