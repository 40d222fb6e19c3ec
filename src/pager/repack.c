/*
 * repack.c - see repack.h. The CPU backend's repacking buffer type is asked what
 * libllama would ask it: does the product that uses this weight support it.
 */
#include "pager/repack.h"

#include "base/status.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"

#include <stdlib.h>
#include <string.h>

/* Small enough for a core's second-level cache. */
#define SCRATCH_ROWS_BYTES (256 * 1024)

struct hypura_repacker {
    const hypura_map     *map;
    ggml_backend_dev_t    cpu;
    ggml_backend_buffer_t buffer; /* of the repacking type; holds no weights */
    hypura_repack        *repacks; /* one for each tensor; traits NULL: plain */
    size_t                scratch_bytes;
};

ggml_backend_buffer_type_t hypura_repack_type(void)
{
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) {
        return NULL;
    }
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(cpu);
    void              *address = ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
    ggml_backend_dev_get_extra_bufts_t get;
    memcpy(&get, &address, sizeof(get));
    ggml_backend_buffer_type_t *types = address ? get(cpu) : NULL;
    while (types && *types && strcmp(ggml_backend_buft_name(*types), "CPU_REPACK") != 0) {
        types++;
    }
    return types ? *types : NULL;
}

static void shape_rows(struct ggml_tensor *tensor, const hypura_tensor *shape, int64_t n_rows, int64_t n_matrices)
{
    memset(tensor, 0, sizeof(*tensor));
    tensor->type = (enum ggml_type)shape->type;
    tensor->ne[0] = shape->ne[0];
    tensor->ne[1] = n_rows;
    tensor->ne[2] = n_matrices;
    tensor->ne[3] = 1;
    tensor->nb[0] = ggml_type_size(tensor->type);
    tensor->nb[1] = shape->row_bytes;
    tensor->nb[2] = tensor->nb[1] * (size_t)n_rows;
    tensor->nb[3] = tensor->nb[2] * (size_t)n_matrices;
}

/* libllama's own test: a product of the weight with 512 rows. */
static bool product_supports(hypura_repacker *repacker, struct ggml_tensor *weight, bool experts)
{
    struct ggml_tensor rows = {.type = GGML_TYPE_F32, .ne = {weight->ne[0], experts ? 1 : 512, experts ? 512 : 1, 1}};
    struct ggml_tensor ids = {.type = GGML_TYPE_I32, .ne = {1, 512, 1, 1}};
    struct ggml_tensor product = {
        .type = GGML_TYPE_F32,
        .op = experts ? GGML_OP_MUL_MAT_ID : GGML_OP_MUL_MAT,
        .ne = {weight->ne[1], experts ? 1 : 512, experts ? 512 : 1, 1},
        .src = {weight, &rows, experts ? &ids : NULL},
    };
    return ggml_backend_dev_supports_op(repacker->cpu, &product);
}

static bool has_form(hypura_repacker *repacker, const hypura_tensor *shape, bool experts, struct ggml_tensor *weight)
{
    if (!ggml_is_quantized((enum ggml_type)shape->type)) {
        return false;
    }
    shape_rows(weight, shape, shape->ne[1], shape->ne[2]);
    weight->buffer = repacker->buffer;
    repacker->buffer->iface.init_tensor(repacker->buffer, weight);
    return weight->extra && product_supports(repacker, weight, experts);
}

static void decide(hypura_repacker *repacker, int index, hypura_place place)
{
    const hypura_tensor *shape = &repacker->map->tensors[index];
    const bool           experts = place == HYPURA_PLACE_EXPERTS;
    struct ggml_tensor   weight;
    if (!experts && place != HYPURA_PLACE_DENSE) {
        return;
    }
    if (has_form(repacker, shape, experts, &weight)) {
        const size_t unit = HYPURA_REPACK_ROWS * shape->row_bytes;
        const size_t bytes = unit > SCRATCH_ROWS_BYTES ? unit : SCRATCH_ROWS_BYTES / unit * unit;
        repacker->repacks[index] = (hypura_repack){repacker->buffer, weight.extra};
        repacker->scratch_bytes = bytes > repacker->scratch_bytes ? bytes : repacker->scratch_bytes;
    }
}

/* False where the CPU backend repacks nothing, or lacks memory for a buffer. */
static bool open_buffer(hypura_repacker *repacker, bool *has_type)
{
    ggml_backend_buffer_type_t type = hypura_repack_type();
    *has_type = type != NULL;
    repacker->cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    repacker->buffer = type ? ggml_backend_buft_alloc_buffer(type, 64) : NULL;
    return repacker->buffer != NULL;
}

bool hypura_repack_has_form(const hypura_tensor *tensor)
{
    hypura_repacker repacker = {.map = NULL};
    struct ggml_tensor weight;
    bool has_type;
    const bool has = open_buffer(&repacker, &has_type) && has_form(&repacker, tensor, false, &weight);
    ggml_backend_buffer_free(repacker.buffer);
    return has;
}

hypura_status hypura_repacker_open(const hypura_map *map, const hypura_plan *plan, hypura_form form,
                                   hypura_repacker **out, hypura_error *error)
{
    hypura_repacker *repacker = calloc(1, sizeof(*repacker));
    *out = repacker;
    if (!repacker) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for repacking");
    }
    repacker->map = map;
    repacker->repacks = calloc((size_t)map->n_tensors, sizeof(*repacker->repacks));
    if (!repacker->repacks) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the forms of %d tensors", map->n_tensors);
    }
    bool has_type;
    if (!open_buffer(repacker, &has_type)) {
        return !has_type ? HYPURA_OK
                         : hypura_fail(error, HYPURA_ERR_BACKEND, "llama.cpp's repacking buffer could not be made");
    }
    for (int i = 0; i < map->n_tensors; i++) {
        if (form == HYPURA_FORM_REPACKED || map->tensors[i].role == HYPURA_ROLE_OUTPUT) {
            decide(repacker, i, plan->placements[i].place);
        }
    }
    return HYPURA_OK;
}

void hypura_repacker_close(hypura_repacker *repacker)
{
    if (!repacker) {
        return;
    }
    ggml_backend_buffer_free(repacker->buffer);
    free(repacker->repacks);
    free(repacker);
}

const hypura_repack *hypura_repacker_of(const hypura_repacker *repacker, int tensor)
{
    return repacker && repacker->repacks[tensor].traits ? &repacker->repacks[tensor] : NULL;
}

size_t hypura_repacker_scratch_bytes(const hypura_repacker *repacker)
{
    return repacker ? repacker->scratch_bytes : 0;
}

void hypura_repacker_repack(const hypura_repacker *repacker, int index, char *rows, int64_t n_rows, char *scratch)
{
    const hypura_tensor *shape = &repacker->map->tensors[index];
    const hypura_repack *repack = &repacker->repacks[index];
    const size_t         unit = HYPURA_REPACK_ROWS * shape->row_bytes;
    const int64_t        step = (int64_t)(repacker->scratch_bytes / unit) * HYPURA_REPACK_ROWS;
    for (int64_t done = 0; done < n_rows; done += step) {
        const int64_t      n = n_rows - done < step ? n_rows - done : step;
        const size_t       bytes = (size_t)n * shape->row_bytes;
        struct ggml_tensor part;
        shape_rows(&part, shape, n, 1);
        part.buffer = repacker->buffer;
        part.extra = repack->traits;
        part.data = rows + (size_t)done * shape->row_bytes;
        memcpy(scratch, part.data, bytes);
        repacker->buffer->iface.set_tensor(repacker->buffer, &part, scratch, 0, bytes);
    }
}
