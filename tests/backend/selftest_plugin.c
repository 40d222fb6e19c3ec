/*
 * selftest_plugin.c - the Hypura device for llama.cpp's test-backend-ops, whose
 * weights come from no file. Before each graph's products are computed, their
 * weights are written to a memory file and paged from there: a real pager with
 * fewer expert slots than experts, and chunks smaller than the weight.
 */
#include "backend/backend.h"
#include "backend/internal.h"

#include "plan/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_PAGED = 16 };

typedef struct paged {
    const struct ggml_tensor *tensor;
    enum ggml_op              op;
    int                       fd;
    char                      path[64];
    const char               *files[1];
    uint64_t                  file_bytes[1];
    int                       order[1];
    hypura_tensor             shape;
    hypura_bundle             bundle;
    hypura_placement          placement;
    hypura_map                map;
    hypura_plan               plan;
    hypura_pager             *pager;
    backend_weight            weight;
} paged;

static paged pages[MAX_PAGED];
static int   n_pages;

static void begin(void)
{
    for (int i = 0; i < n_pages; i++) {
        hypura_pager_close(pages[i].pager);
        close(pages[i].fd);
    }
    n_pages = 0;
}

static void write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t n = write(fd, data, bytes);
        if (n <= 0) {
            perror("hypura-selftest: memory file");
            abort();
        }
        data += n;
        bytes -= (size_t)n;
    }
}

static void make_map(paged *page, const struct ggml_tensor *tensor, bool experts)
{
    snprintf(page->path, sizeof(page->path), "/proc/self/fd/%d", page->fd);
    page->files[0] = page->path;
    page->file_bytes[0] = ggml_nbytes(tensor);
    page->shape = (hypura_tensor){
        .name = "weight",
        .n_dims = 4,
        .ne = {tensor->ne[0], tensor->ne[1], tensor->ne[2], tensor->ne[3]},
        .role = experts ? HYPURA_ROLE_EXPERT : HYPURA_ROLE_FFN,
        .bundle = experts ? 0 : -1,
        .bytes = ggml_nbytes(tensor),
        .row_bytes = tensor->nb[1],
        .expert_bytes = experts ? tensor->nb[2] : 0,
    };
    page->bundle = (hypura_bundle){.n_experts = (int)tensor->ne[2], .n_tensors = 1, .expert_bytes = tensor->nb[2]};
    page->map = (hypura_map){
        .path = page->path,
        .n_files = 1,
        .files = page->files,
        .file_bytes = page->file_bytes,
        .n_tensors = 1,
        .tensors = &page->shape,
        .n_bundles = experts ? 1 : 0,
        .bundles = &page->bundle,
    };
}

/* Half of the experts have a slot; about a third of the rows are pinned. */
static void make_plan(paged *page, const struct ggml_tensor *node, bool experts)
{
    const struct ggml_tensor *tensor = node->src[0];
    const int64_t             rows = tensor->ne[1];
    const bool                cut = !experts && rows % 2 == 0 && rows >= 6;
    page->placement = (hypura_placement){
        .place = experts ? HYPURA_PLACE_EXPERTS : HYPURA_PLACE_DENSE,
        .pinned_rows = cut ? rows / 3 / 2 * 2 : 0,
        .chunk_rows = cut ? (rows / 5 + 1) / 2 * 2 : rows,
        .pool = experts ? 0 : -1,
    };
    if (page->placement.chunk_rows == 0) {
        page->placement.chunk_rows = rows;
    }
    page->plan = (hypura_plan){
        .mode = experts ? HYPURA_MODE_EXPERTS : HYPURA_MODE_DENSE,
        .ring_slot_bytes = hypura_layout_region_bytes(HYPURA_LAYOUT_PAGE_BYTES, tensor->nb[1] * (size_t)page->placement.chunk_rows),
        .n_ring_slots = 3,
        .io_block_bytes = 65536,
        .io_depth = 4,
        .slot_align_bytes = 4096,
        .n_pools = experts ? 1 : 0,
        .n_placements = 1,
        .placements = &page->placement,
        .order = page->order,
    };
    if (experts) {
        page->plan.pools[0] = (hypura_pool_plan){
            .slot_bytes = tensor->nb[2],
            .slot_stride_bytes = hypura_layout_region_bytes(4096, tensor->nb[2]),
            .n_slots = (uint32_t)(tensor->ne[2] + 1) / 2,
            .n_units = (uint32_t)tensor->ne[2],
        };
    }
}

static const backend_weight *page_weight(const struct ggml_tensor *node)
{
    const bool experts = node->op == GGML_OP_MUL_MAT_ID;
    for (int i = 0; i < n_pages; i++) {
        if (pages[i].tensor == node->src[0] && pages[i].op == node->op) {
            return &pages[i].weight;
        }
    }
    if (n_pages == MAX_PAGED) {
        fprintf(stderr, "hypura-selftest: a graph with more than %d weights\n", MAX_PAGED);
        abort();
    }
    paged *page = &pages[n_pages++];
    memset(page, 0, sizeof(*page));
    page->tensor = node->src[0];
    page->op = node->op;
    page->fd = memfd_create("weight", 0);
    write_all(page->fd, node->src[0]->data, ggml_nbytes(node->src[0]));
    make_map(page, node->src[0], experts);
    make_plan(page, node, experts);
    hypura_error               error = {0};
    const hypura_pager_options options = {.map = &page->map, .plan = &page->plan};
    if (hypura_pager_open(&options, &page->pager, &error) != HYPURA_OK) {
        fprintf(stderr, "hypura-selftest: %s\n", error.message);
        abort();
    }
    page->weight = (backend_weight){.pager = page->pager, .place = page->placement.place};
    return &page->weight;
}

/* What a model's weights look like: whole, contiguous, two-dimensional but for experts. */
static bool could_be_weight(const struct ggml_tensor *node)
{
    const struct ggml_tensor *tensor = node->src[0];
    if (tensor->view_src || !ggml_is_contiguous(tensor) || ggml_is_empty(node) || tensor->ne[3] != 1) {
        return false;
    }
    if (node->op == GGML_OP_MUL_MAT_ID) {
        return node->src[1]->type == GGML_TYPE_F32;
    }
    return tensor->ne[2] == 1 && node->op != GGML_OP_NONE;
}

static const backend_weight *find(const struct ggml_tensor *node, bool computing)
{
    static backend_weight claimed;
    const bool            reads_weight =
        node->op == GGML_OP_MUL_MAT_ID || node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_GET_ROWS;
    if (!reads_weight || !could_be_weight(node)) {
        return NULL;
    }
    if (computing) {
        return page_weight(node);
    }
    claimed.place = node->op == GGML_OP_MUL_MAT_ID ? HYPURA_PLACE_EXPERTS : HYPURA_PLACE_DENSE;
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    return ggml_backend_dev_supports_op(cpu, node) ? &claimed : NULL;
}

static ggml_backend_reg_t selftest_registry(void)
{
    static const backend_instrument instrument = {.begin = begin, .find = find};
    backend_set_instrument(&instrument);
    return hypura_backend_registry();
}

GGML_BACKEND_DL_IMPL(selftest_registry)
