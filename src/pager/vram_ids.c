/*
 * vram_ids.c - the small tensors of each bundle in the GPU's memory, and the host's side
 * of them, see vram.h.
 */
#include "pager/vram_internal.h"

#include "base/status.h"

#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <stdio.h>
#include <string.h>

/* ---- memory ---------------------------------------------------------------- */

static uint32_t n_used_of(const hypura_map *map, int bundle)
{
    return map->n_experts_used > 0 ? (uint32_t)map->n_experts_used : (uint32_t)map->bundles[bundle].n_experts;
}

/* How many ids a bundle has in one of the small tensors, or in the host's memory. */
static uint32_t n_ids_of(const hypura_vram *vram, int bundle, int which)
{
    const hypura_map *map = vram->pager->map;
    switch (which) {
    case IDS_SLOTS: return vram->bundles[bundle].max_pairs;
    case IDS_TABLE:
    case HOST_ASKED:
    case HOST_ASKED + 1: return (uint32_t)map->bundles[bundle].n_experts;
    default: return n_used_of(map, bundle);
    }
}

static struct ggml_tensor describe_ids(int64_t n)
{
    struct ggml_tensor ids = {.type = GGML_TYPE_I32, .op = GGML_OP_NONE, .ne = {n, 1, 1, 1}};
    ids.nb[0] = sizeof(int32_t);
    ids.nb[1] = ids.nb[2] = ids.nb[3] = sizeof(int32_t) * (size_t)n;
    return ids;
}

/* slots[i] = table[ids[i]], as rows of one number. */
static void describe_lookup(vram_bundle *place, uint32_t n_used)
{
    struct ggml_tensor *table = &place->ids[IDS_TABLE];
    struct ggml_tensor *lookup = &place->lookups[0];
    *lookup = place->ids[IDS_SLOTS];
    for (struct ggml_tensor *column = table; column; column = column == table ? lookup : NULL) {
        column->ne[1] = column == table ? column->ne[0] : n_used;
        column->ne[0] = 1;
        column->nb[1] = sizeof(int32_t);
        column->nb[2] = column->nb[3] = sizeof(int32_t) * (size_t)column->ne[1];
    }
    lookup->op = GGML_OP_GET_ROWS;
    lookup->flags = GGML_TENSOR_FLAG_COMPUTE;
    lookup->src[0] = table;
    for (int i = 1; i < HYPURA_N_LEADS; i++) {
        place->lookups[i] = *lookup;
    }
}

static hypura_status open_ids_of(hypura_vram *vram, int which, hypura_error *error)
{
    const hypura_map          *map = vram->pager->map;
    const size_t               align = ggml_backend_buft_get_alignment(vram->type);
    ggml_backend_buffer_type_t host = ggml_backend_dev_host_buffer_type(vram->device);
    size_t                     bytes = 0;
    for (int b = 0; b < map->n_bundles; b++) {
        bytes += GGML_PAD(n_ids_of(vram, b, which) * sizeof(int32_t), align);
    }
    vram->values[which] = ggml_backend_buft_alloc_buffer(host ? host : ggml_backend_cpu_buffer_type(), bytes);
    if (which < N_IDS) {
        vram->ids[which] = vram_take(vram, bytes, "expert ids", error);
    }
    if (!vram->values[which] || (which < N_IDS && !vram->ids[which])) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for %zu bytes of expert ids",
                           ggml_backend_dev_name(vram->device), bytes);
    }
    memset(ggml_backend_buffer_get_base(vram->values[which]), 0, bytes);
    size_t at = 0;
    bool   placed = true;
    for (int b = 0; b < map->n_bundles; b++) {
        vram_bundle *place = &vram->bundles[b];
        place->values[which] = (int32_t *)(void *)((char *)ggml_backend_buffer_get_base(vram->values[which]) + at);
        if (which < N_IDS) {
            place->ids[which] = describe_ids(n_ids_of(vram, b, which));
            snprintf(place->ids[which].name, sizeof(place->ids[which].name), "ids_%d-%d", which, map->bundles[b].layer);
            placed = placed && vram_place_at(&place->ids[which], vram->ids[which], at);
        }
        at += GGML_PAD(n_ids_of(vram, b, which) * sizeof(int32_t), align);
    }
    if (which == IDS_GIVEN) {
        vram->all_given = describe_ids((int64_t)(bytes / sizeof(int32_t)));
        placed = placed && vram_place_at(&vram->all_given, vram->ids[which], 0);
    }
    return placed ? HYPURA_OK
                  : hypura_fail(error, HYPURA_ERR_BACKEND, "%s does not accept a tensor of expert ids",
                                ggml_backend_dev_name(vram->device));
}

static hypura_status open_states(hypura_vram *vram, hypura_error *error)
{
    ggml_backend_buffer_type_t host = ggml_backend_dev_host_buffer_type(vram->device);
    const size_t               n = (size_t)vram->pager->map->embedding_length;
    vram->state_buffer = ggml_backend_buft_alloc_buffer(host ? host : ggml_backend_cpu_buffer_type(),
                                                        2 * (n + 1) * sizeof(float));
    if (!vram->state_buffer) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for two hidden states of %zu numbers",
                           ggml_backend_dev_name(vram->device), n);
    }
    vram->states[0] = ggml_backend_buffer_get_base(vram->state_buffer);
    vram->states[1] = vram->states[0] + n;
    return HYPURA_OK;
}

/* Of experts that were never there: in one slot their rows would be many, and kernels for many rows of an expert would
 * take its own too. The device is told with the first upload; before that no slot holds any of them. */
static void spread_entries(hypura_vram *vram, int bundle)
{
    const vram_bundle *place = &vram->bundles[bundle];
    for (uint32_t e = 0; place->paged && e < n_ids_of(vram, bundle, IDS_TABLE); e++) {
        vram_set_entry(vram, bundle, e, e % vram->pools[place->pool].n_lasting);
    }
}

hypura_status vram_open_ids(hypura_vram *vram, hypura_error *error)
{
    const hypura_map *map = vram->pager->map;
    hypura_status     status = HYPURA_OK;
    for (int b = 0; b < map->n_bundles; b++) {
        vram->bundles[b].max_pairs = vram->manners->remap_tokens * n_used_of(map, b);
    }
    for (int which = 0; which < N_HOST_IDS && status == HYPURA_OK; which++) {
        status = open_ids_of(vram, which, error);
    }
    if (status == HYPURA_OK) {
        status = open_states(vram, error);
    }
    for (int b = 0; b < map->n_bundles && status == HYPURA_OK; b++) {
        describe_lookup(&vram->bundles[b], n_used_of(map, b));
        spread_entries(vram, b);
    }
    return status;
}

void vram_close_ids(hypura_vram *vram)
{
    for (int i = 0; i < N_HOST_IDS; i++) {
        ggml_backend_buffer_free(i < N_IDS ? vram->ids[i] : NULL);
        ggml_backend_buffer_free(vram->values[i]);
    }
    ggml_backend_buffer_free(vram->state_buffer);
}

/* ---- ids and tables ---------------------------------------------------------- */

uint32_t hypura_vram_max_pairs(const hypura_vram *vram, int bundle)
{
    const vram_bundle *place = &vram->bundles[bundle];
    const uint32_t     n_slots = vram->pools[place->pool].n_lasting;
    return n_slots < place->max_pairs ? n_slots : place->max_pairs;
}

int32_t *hypura_vram_id_values(hypura_vram *vram, int bundle)
{
    return vram->bundles[bundle].values[IDS_SLOTS];
}

static struct ggml_tensor *slot_ids(vram_bundle *place, int64_t n_used, int64_t n_tokens)
{
    struct ggml_tensor *ids = &place->ids[IDS_SLOTS];
    ids->ne[0] = n_used;
    ids->ne[1] = n_tokens;
    ids->nb[1] = (size_t)n_used * sizeof(int32_t);
    ids->nb[2] = ids->nb[3] = ids->nb[1] * (size_t)n_tokens;
    return ids;
}

struct ggml_tensor *hypura_vram_send_ids(hypura_vram *vram, int bundle, int64_t n_used, int64_t n_tokens)
{
    vram_bundle        *place = &vram->bundles[bundle];
    struct ggml_tensor *ids = slot_ids(place, n_used, n_tokens);
    ggml_backend_tensor_set_async(vram->backend, ids, place->values[IDS_SLOTS], 0, ids->nb[2]);
    vram_order_copies(vram);
    return ids;
}

struct ggml_tensor *hypura_vram_lookup(hypura_vram *vram, int bundle, hypura_vram_leads leads, struct ggml_tensor **ids)
{
    vram_bundle *place = &vram->bundles[bundle];
    *ids = slot_ids(place, n_used_of(vram->pager->map, bundle), 1);
    return &place->lookups[leads];
}

int32_t *hypura_vram_arrivals(hypura_vram *vram, int bundle, int place)
{
    return vram->bundles[bundle].values[HOST_ARRIVALS + place];
}

void hypura_vram_begin_fetch(hypura_vram *vram)
{
    if (vram->reader) {
        ggml_backend_event_record(vram->computed, vram->backend);
        ggml_backend_event_wait(vram->reader, vram->computed);
    }
}

void hypura_vram_fetch(hypura_vram *vram, const struct ggml_tensor *tensor, void *to, size_t bytes)
{
    ggml_backend_tensor_get_async(vram->reader ? vram->reader : vram->backend, tensor, to, 0, bytes);
}

float *hypura_vram_state(hypura_vram *vram, int turn)
{
    return vram->states[turn & 1];
}

void hypura_vram_await_fetch(hypura_vram *vram)
{
    ggml_backend_synchronize(vram->reader ? vram->reader : vram->backend);
}

void hypura_vram_fetched(hypura_vram *vram)
{
    ggml_backend_synchronize(vram->backend);
    if (vram->reader) {
        ggml_backend_synchronize(vram->reader);
    }
    hypura_vram_await_asked(vram);
}

int32_t *hypura_vram_given_values(hypura_vram *vram, int bundle)
{
    return vram->bundles[bundle].values[IDS_GIVEN];
}

struct ggml_tensor *hypura_vram_given(hypura_vram *vram, int bundle)
{
    return &vram->bundles[bundle].ids[IDS_GIVEN];
}

void hypura_vram_send_given(hypura_vram *vram)
{
    ggml_backend_tensor_set_async(vram->backend, &vram->all_given, vram->bundles[0].values[IDS_GIVEN], 0,
                                  ggml_nbytes(&vram->all_given));
    vram_order_copies(vram);
}

void vram_set_entry(hypura_vram *vram, int bundle, uint32_t expert, uint32_t slot)
{
    vram->bundles[bundle].values[IDS_TABLE][expert] = (int32_t)slot;
}

/* Entries of a table that uploads changed, with all others, behind these uploads. What changes
 * on the host before the copy happens does no harm: entries of keys in the cache stay as they
 * are. Nor does it to the one piece that reads this table and may be computed meanwhile: an
 * expert was missing, and it is computed again. */
void vram_send_table(hypura_vram *vram, int bundle)
{
    vram_bundle *place = &vram->bundles[bundle];
    ggml_backend_t through = vram->uploader ? vram->uploader : vram->backend;
    ggml_backend_tensor_set_async(through, &place->ids[IDS_TABLE], place->values[IDS_TABLE], 0,
                                  ggml_nbytes(&place->ids[IDS_TABLE]));
}

/* ggml-vulkan's queue that computes has a barrier before each copy and none after the last: a copy that nobody needs
 * puts one behind those that matter. What comes by a queue of its own is waited for as a whole. */
void vram_order_copies(hypura_vram *vram)
{
    if (vram->manners->copies_overtake && !vram->overtakes) {
        ggml_backend_tensor_get_async(vram->backend, &vram->all_given, vram->bundles[0].values[HOST_NOWHERE], 0,
                                      sizeof(int32_t));
    }
}

/* A copy to the host, and then one to the device of what it reads. ggml-vulkan hands neither over before it is given a graph,
 * if one of no nodes. Then it hands over the queue for copies first where there is one, and what computes waits for that. */
bool vram_sees_overtaking(hypura_vram *vram)
{
    int32_t       *given = vram->bundles[0].values[IDS_GIVEN];
    int32_t       *seen = vram->bundles[0].values[HOST_NOWHERE];
    ggml_backend_t instance = vram->manners->copies_overtake ? ggml_backend_dev_init(vram->device, NULL) : NULL;
    if (!instance) {
        return false;
    }
    struct ggml_cgraph none = {0};
    *given = 1;
    *seen = 0;
    ggml_backend_tensor_get_async(instance, &vram->all_given, seen, 0, sizeof(*seen));
    ggml_backend_tensor_set_async(instance, &vram->all_given, given, 0, sizeof(*given));
    (void)ggml_backend_graph_compute_async(instance, &none);
    ggml_backend_synchronize(instance);
    ggml_backend_free(instance);
    *given = 0;
    return *seen == 1;
}

/* Each instance of ggml-vulkan may have a queue for copies to the device, which waits for nothing that the instance computes
 * but for an event. */
void vram_hold_copies(hypura_vram *vram)
{
    if (vram->manners->copies_overtake && vram->copied) {
        ggml_backend_event_record(vram->copied, vram->backend);
        ggml_backend_event_wait(vram->backend, vram->copied);
    } else if (vram->manners->copies_overtake) {
        ggml_backend_synchronize(vram->backend);
    }
}
