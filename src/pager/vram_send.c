/*
 * vram_send.c - copies experts from RAM to slots or to a stage with few calls into the
 * driver. A call takes rows of equal length that lie at equal distances on both sides; two
 * kinds of rows do:
 *
 *     a matrix of several experts      slots that follow each other in RAM, as their experts
 *                                      do in a stage
 *     several matrices of an expert    neighbours of equal size, where a pool or a stage has
 *                                      all its matrices in one buffer
 *
 * Of both the one with fewer calls is taken. A backend without such calls gets one for each
 * row, from ggml.
 *
 * What always holds: rows of one call lie in one piece of RAM and in one buffer of the
 * device, and no distance is above what CUDA takes.
 */
#include "pager/vram_internal.h"

#define MOST_PITCH INT32_MAX /* bytes; cudaDeviceProp.memPitch */

/* Where experts go: to a stage, or to slots (-1). */
static struct ggml_tensor *tensors_of(hypura_vram *vram, int bundle, int set)
{
    return set < 0 ? vram->bundles[bundle].slots : vram->bundles[bundle].stages[set];
}

static const char *data_of(const hypura_vram *vram, const vram_lease *lease, int matrix)
{
    return hypura_pager_expert_data(vram->pager, lease->bundle, lease->slot, matrix);
}

static ggml_backend_t through(const hypura_vram *vram)
{
    return vram->uploader ? vram->uploader : vram->backend;
}

/* ---- a matrix of several experts ---------------------------------------------- */

static bool in_one_piece(const hypura_vram *vram, const vram_lease *one, const vram_lease *other)
{
    const pager_pool *pool = &vram->pager->pools[vram->pager->bundles[one->bundle].pool];
    return pool->memory || one->slot / pool->piece_slots == other->slot / pool->piece_slots;
}

/* How many of the leases, from the first one on, one call takes. */
static uint32_t run_of(const hypura_vram *vram, const vram_lease *leases, uint32_t n, size_t matrix_bytes)
{
    const pager_pool *pool = &vram->pager->pools[vram->pager->bundles[leases->bundle].pool];
    if (n < 2 || leases[1].slot <= leases[0].slot || leases[1].index <= leases[0].index) {
        return 1;
    }
    const uint32_t slots = leases[1].slot - leases[0].slot;
    const uint32_t indices = leases[1].index - leases[0].index;
    if (slots * pool->stride_bytes > MOST_PITCH || indices * matrix_bytes > MOST_PITCH) {
        return 1;
    }
    uint32_t length = 1;
    while (length < n && leases[length].slot == leases[length - 1].slot + slots &&
           leases[length].index == leases[length - 1].index + indices &&
           in_one_piece(vram, &leases[0], &leases[length])) {
        length++;
    }
    return length;
}

static uint32_t count_runs(const hypura_vram *vram, const vram_lease *leases, uint32_t n, size_t matrix_bytes)
{
    uint32_t n_runs = 0;
    for (uint32_t i = 0; i < n; n_runs++) {
        i += run_of(vram, leases + i, n - i, matrix_bytes);
    }
    return n_runs;
}

void vram_send_matrix(hypura_vram *vram, int matrix, const vram_lease *leases, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        const vram_lease   *first = &leases[i];
        struct ggml_tensor *tensor = &tensors_of(vram, first->bundle, first->set)[matrix];
        const size_t        bytes = tensor->nb[2];
        const uint32_t      length = run_of(vram, first, n - i, bytes);
        const size_t        indices = length > 1 ? first[1].index - first[0].index : 0;
        const size_t        distance = length > 1 ? (size_t)(data_of(vram, &first[1], matrix) - data_of(vram, first, matrix)) : 0;
        ggml_backend_tensor_set_2d_async(through(vram), tensor, data_of(vram, first, matrix), first->index * bytes, bytes,
                                         length, indices * bytes, distance);
        i += length;
    }
}

/* ---- several matrices of an expert ----------------------------------------------- */

/* How far the next matrix lies behind this one on the device; 0: one call does not take both. */
static size_t pitch_of(const struct ggml_tensor *tensor)
{
    const struct ggml_tensor *next = tensor + 1;
    const char *at = tensor->data;
    const char *next_at = next->data;
    const bool alike = next->buffer == tensor->buffer && next->nb[2] == tensor->nb[2] && next_at > at &&
                       next_at - at <= MOST_PITCH;
    return alike ? (size_t)(next_at - at) : 0;
}

/* How many matrices, from this one on and without the late one, one call takes of an expert;
 * they lie in RAM as far apart as *distance says, and on the device *pitch. */
static int alike_from(hypura_vram *vram, int bundle, int set, int matrix, int late, size_t *pitch, size_t *distance)
{
    const uint64_t           *offsets = vram->pager->bundles[bundle].data_offset;
    const struct ggml_tensor *tensors = tensors_of(vram, bundle, set);
    const int                 n_tensors = vram->pager->map->bundles[bundle].n_tensors;
    int                       n = 1;
    while (matrix + n < n_tensors && matrix + n != late) {
        const size_t   to_next = pitch_of(&tensors[matrix + n - 1]);
        const uint64_t in_ram = offsets[matrix + n] - offsets[matrix + n - 1]; /* too much where they are in another order */
        if (n == 1) {
            *pitch = to_next;
            *distance = in_ram;
        }
        if (to_next == 0 || to_next != *pitch || in_ram != *distance || in_ram < tensors[matrix].nb[2] ||
            in_ram > MOST_PITCH) {
            break;
        }
        n++;
    }
    return n;
}

static int count_groups(hypura_vram *vram, int bundle, int set, int late)
{
    int    n_groups = 0;
    size_t pitch, distance;
    for (int i = 0; i < vram->pager->map->bundles[bundle].n_tensors;) {
        n_groups += i != late;
        i += i == late ? 1 : alike_from(vram, bundle, set, i, late, &pitch, &distance);
    }
    return n_groups;
}

/* These matrices of one expert, of which `tensor` has the first. */
static void send_group(hypura_vram *vram, const struct ggml_tensor *tensor, int matrix, const vram_lease *lease, int n,
                       size_t pitch, size_t distance)
{
    const size_t       bytes = tensor->nb[2];
    struct ggml_tensor span = *tensor; /* of all the bytes from the first matrix up to the last one's end */
    span.type = GGML_TYPE_I8;
    span.ne[0] = (int64_t)((size_t)(n - 1) * pitch + (size_t)tensor->ne[2] * bytes);
    span.ne[1] = span.ne[2] = span.ne[3] = 1;
    span.nb[0] = 1;
    span.nb[1] = span.nb[2] = span.nb[3] = (size_t)span.ne[0];
    ggml_backend_tensor_set_2d_async(through(vram), &span, data_of(vram, lease, matrix), lease->index * bytes, bytes,
                                     (size_t)n, pitch, distance);
}

/* ---- all but the late one --------------------------------------------------------- */

void vram_send_experts(hypura_vram *vram, int late, const vram_lease *leases, uint32_t n)
{
    if (n == 0) {
        return;
    }
    const int           bundle = leases->bundle;
    const int           set = leases->set;
    const int           n_tensors = vram->pager->map->bundles[bundle].n_tensors;
    struct ggml_tensor *tensors = tensors_of(vram, bundle, set);
    const int           n_matrices = n_tensors - (late >= 0);
    const bool by_matrix = (uint64_t)count_runs(vram, leases, n, tensors[0].nb[2]) * (uint32_t)n_matrices <=
                           (uint64_t)n * (uint32_t)count_groups(vram, bundle, set, late);
    for (int i = 0; i < n_tensors;) {
        size_t    pitch = 0, distance = 0;
        const int n_alike = by_matrix || i == late ? 1 : alike_from(vram, bundle, set, i, late, &pitch, &distance);
        if (i != late && n_alike == 1) {
            vram_send_matrix(vram, i, leases, n);
        }
        for (uint32_t e = 0; n_alike > 1 && e < n; e++) {
            send_group(vram, &tensors[i], i, &leases[e], n_alike, pitch, distance);
        }
        i += n_alike;
    }
}
