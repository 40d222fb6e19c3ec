/*
 * vram_report.c - nodes with which a device itself brings the host what it asks of a layer: the ids
 * that its router selected, and the row that the host asks the next router with.
 *
 *     copied     ... router |           uploads ...... | copy, lookup, experts ...
 *     reported   ... router, report |   uploads ...... |       lookup, experts ...
 *
 * ggml-vulkan keeps a copy to the host until a graph is handed over behind it, and has that graph,
 * and with it the copy, wait for all uploads until then: ids would arrive when the guess of their
 * layer has been uploaded. A node goes with the graph that computes what it reads.
 *
 * What always holds: a report is the last of its graph, and what it reads depends on all experts
 * that the graph computes with: when ids have arrived, nothing before them reads a slot any more.
 */
#include "pager/vram_internal.h"

#include "base/status.h"

#include "ggml-backend-impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the host's memory may begin and end that a device takes as it is: at pages of the largest kind in use. */
#define PAGE_BYTES ((size_t)65536)

/* ---- memory ---------------------------------------------------------------- */

static struct ggml_tensor describe(const hypura_vram *vram, int bundle, int place)
{
    const struct ggml_tensor *ids = &vram->bundles[bundle].ids[IDS_GIVEN]; /* one token's */
    struct ggml_tensor        node = *ids;
    node.buffer = NULL;
    node.data = NULL;
    node.op = GGML_OP_CONT;
    node.flags = GGML_TENSOR_FLAG_COMPUTE;
    snprintf(node.name, sizeof(node.name), "reported-%d-%d", place, vram->pager->map->bundles[bundle].layer);
    return node;
}

static struct ggml_tensor describe_state(const hypura_vram *vram, int turn)
{
    const int64_t      n = vram->pager->map->embedding_length;
    struct ggml_tensor node = {.type = GGML_TYPE_F32, .op = GGML_OP_CONT, .flags = GGML_TENSOR_FLAG_COMPUTE, .ne = {n, 1, 1, 1}};
    node.nb[0] = sizeof(float);
    node.nb[1] = node.nb[2] = node.nb[3] = sizeof(float) * (size_t)n;
    snprintf(node.name, sizeof(node.name), "reported_row-%d", turn);
    return node;
}

/* Behind the others, if there is memory already; then what all of them take grows. */
static bool place_next(hypura_vram *vram, struct ggml_tensor *node, size_t *bytes)
{
    const bool placed = !vram->report_buffer || vram_place_at(node, vram->report_buffer, *bytes);
    *bytes += GGML_PAD(ggml_nbytes(node), ggml_backend_buft_get_alignment(vram->type));
    return placed;
}

/* *bytes: that all of them take. */
static bool place_all(hypura_vram *vram, size_t *bytes)
{
    bool placed = true;
    *bytes = 0;
    for (int b = 0; b < vram->pager->map->n_bundles; b++) {
        for (int p = 0; p < N_PLACES; p++) {
            vram->bundles[b].reports[p] = describe(vram, b, p);
            placed = place_next(vram, &vram->bundles[b].reports[p], bytes) && placed;
        }
    }
    for (int turn = 0; turn < 2; turn++) {
        vram->state_reports[turn] = describe_state(vram, turn);
        placed = place_next(vram, &vram->state_reports[turn], bytes) && placed;
    }
    return placed;
}

hypura_status vram_open_reports(hypura_vram *vram, hypura_error *error)
{
    size_t bytes;
    if (!vram->manners->reports) {
        return HYPURA_OK;
    }
    (void)place_all(vram, &bytes);
    bytes = GGML_PAD(bytes, PAGE_BYTES);
    vram->report_memory = aligned_alloc(PAGE_BYTES, bytes);
    if (!vram->report_memory) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %zu bytes of what a GPU reports", bytes);
    }
    memset(vram->report_memory, 0, bytes);
    vram->report_buffer = ggml_backend_dev_buffer_from_host_ptr(vram->device, vram->report_memory, bytes, bytes);
    if (vram->report_buffer && !place_all(vram, &bytes)) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "%s does not accept expert ids in the host's memory",
                           ggml_backend_dev_name(vram->device));
    }
    return HYPURA_OK;
}

void vram_close_reports(hypura_vram *vram)
{
    ggml_backend_buffer_free(vram->report_buffer);
    free(vram->report_memory);
}

/* ---- reports ----------------------------------------------------------------- */

static bool can_run(const hypura_vram *vram, struct ggml_tensor *node, struct ggml_tensor *source)
{
    node->src[0] = source;
    return vram->report_buffer && source->type == node->type && source->ne[0] == node->ne[0] &&
           ggml_nelements(source) == node->ne[0] && ggml_backend_dev_supports_op(vram->device, node);
}

bool hypura_vram_can_report(hypura_vram *vram, int bundle, struct ggml_tensor *ids)
{
    return can_run(vram, &vram->bundles[bundle].reports[0], ids);
}

bool hypura_vram_can_report_state(hypura_vram *vram, struct ggml_tensor *row)
{
    return can_run(vram, &vram->state_reports[0], row);
}

struct ggml_tensor *hypura_vram_report(hypura_vram *vram, int bundle, int place, struct ggml_tensor *ids)
{
    struct ggml_tensor *node = &vram->bundles[bundle].reports[place];
    node->src[0] = ids;
    return node;
}

struct ggml_tensor *hypura_vram_report_state(hypura_vram *vram, int turn, struct ggml_tensor *row)
{
    struct ggml_tensor *node = &vram->state_reports[turn & 1];
    node->src[0] = row;
    return node;
}

/* Where a node's numbers are for the host. */
static void *at_host(const hypura_vram *vram, const struct ggml_tensor *node)
{
    const char *base = ggml_backend_buffer_get_base(vram->report_buffer);
    return (char *)vram->report_memory + ((const char *)node->data - base);
}

int32_t *hypura_vram_reported(hypura_vram *vram, int bundle, int place)
{
    return at_host(vram, &vram->bundles[bundle].reports[place]);
}

float *hypura_vram_reported_state(hypura_vram *vram, int turn)
{
    return at_host(vram, &vram->state_reports[turn & 1]);
}
