/*
 * buffer.c - the buffer type. It makes two kinds of buffers:
 *
 *  - For weights (alloc_buffer_n, while a pager claims them): address space without
 *    bytes. Every weight gets an address of its own, which nothing may touch: pages
 *    allow no access, so that an operation we failed to claim stops the program
 *    instead of computing with zeros. set_tensor is told the bytes and ignores
 *    them, since the pager reads the file itself.
 *  - For everything else, adapters (LoRA) of such weights included: ordinary host memory of the CPU backend.
 */
#include "backend/internal.h"

#include "base/path.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

#define WEIGHT_ALIGN 4096

typedef struct weight_buffer {
    char           *base;
    size_t          bytes;
    backend_weight *weights;
} weight_buffer;

static void weights_free(ggml_backend_buffer_t buffer)
{
    weight_buffer *weights = buffer->context;
    hypura_os_memory_unmap(weights->base, weights->bytes);
    free(weights->weights);
    free(weights);
}

static void *weights_base(ggml_backend_buffer_t buffer)
{
    return ((weight_buffer *)buffer->context)->base;
}

static void weights_set(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data, size_t offset,
                        size_t size)
{
    (void)buffer, (void)tensor, (void)data, (void)offset, (void)size;
}

static void weights_memset(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value, size_t offset,
                           size_t size)
{
    (void)buffer, (void)tensor, (void)value, (void)offset, (void)size;
}

static void weights_get(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data, size_t offset,
                        size_t size)
{
    (void)buffer;
    GGML_LOG_ERROR("hypura: %s is streamed; its bytes cannot be read back\n", tensor->name);
    memset(data, 0xff, size); /* not a number, in every float format */
    (void)offset;
}

static void weights_clear(ggml_backend_buffer_t buffer, uint8_t value)
{
    (void)buffer, (void)value;
}

static const struct ggml_backend_buffer_i weight_buffer_interface = {
    .free_buffer = weights_free,
    .get_base = weights_base,
    .memset_tensor = weights_memset,
    .set_tensor = weights_set,
    .get_tensor = weights_get,
    .clear = weights_clear,
};

static bool is_weight_buffer(ggml_backend_buffer_t buffer)
{
    return buffer && buffer->iface.free_buffer == weights_free;
}

static const backend_instrument *instrument;

void backend_set_instrument(const backend_instrument *replacement)
{
    instrument = replacement;
}

void backend_begin_graph(void)
{
    if (instrument) {
        instrument->begin();
    }
}

const backend_weight *backend_weight_of(const struct ggml_tensor *node)
{
    const struct ggml_tensor *weight = node->src[0];
    if (instrument) {
        return instrument->find(node, true);
    }
    return weight && !weight->view_src && is_weight_buffer(weight->buffer) ? weight->extra : NULL;
}

bool backend_find_source(const struct ggml_tensor *node, backend_weight *weight)
{
    const struct ggml_tensor *source = node->src[0];
    const backend_weight     *record = NULL;
    if (instrument) {
        record = instrument->find(node, false);
    } else if (source && source->buffer && source->buffer->buft == backend_buffer_type()) {
        record = backend_weight_of(node);
        if (!record && !source->data && source->buffer->size == 0) {
            return backend_find_weight(source->name, weight);
        }
    }
    if (record) {
        *weight = *record;
    }
    return record != NULL;
}

bool backend_is_adapter_product(const struct ggml_tensor *node)
{
    const struct ggml_tensor *matrix = node->src[0];
    if ((node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_MUL_MAT_ID) || instrument || !matrix->data || !matrix->buffer ||
        matrix->buffer->buft != backend_buffer_type() || is_weight_buffer(matrix->buffer)) {
        return false;
    }
    return hypura_ends_with(matrix->name, ".lora_a") || hypura_ends_with(matrix->name, ".lora_b"); /* as libllama names them */
}

static const char *type_name(ggml_backend_buffer_type_t type)
{
    (void)type;
    return "Hypura";
}

static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t size)
{
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft = type;
    }
    return buffer;
}

static size_t padded_bytes(const struct ggml_tensor *tensor)
{
    return (ggml_nbytes(tensor) + WEIGHT_ALIGN - 1) / WEIGHT_ALIGN * WEIGHT_ALIGN;
}

static ggml_backend_buffer_t alloc_plain(ggml_backend_buffer_type_t type, struct ggml_tensor **tensors, int n)
{
    const size_t align = ggml_backend_buft_get_alignment(type);
    size_t       total = 0;
    for (int i = 0; i < n; i++) {
        total += GGML_PAD(ggml_nbytes(tensors[i]), align);
    }
    ggml_backend_buffer_t buffer = type_alloc(type, total);
    size_t                at = 0;
    for (int i = 0; buffer && i < n; i++) {
        if (tensors[i]->data == NULL && tensors[i]->view_src == NULL) {
            ggml_backend_tensor_alloc(buffer, tensors[i], (char *)ggml_backend_buffer_get_base(buffer) + at);
            at += GGML_PAD(ggml_nbytes(tensors[i]), align);
        }
    }
    return buffer;
}

ggml_backend_buffer_t backend_alloc_weights(ggml_backend_buffer_type_t type, hypura_pager *pager,
                                            struct ggml_tensor **tensors, int n)
{
    weight_buffer *weights = calloc(1, sizeof(*weights));
    if (!weights) {
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        weights->bytes += padded_bytes(tensors[i]);
    }
    weights->weights = calloc((size_t)n, sizeof(*weights->weights));
    weights->base = hypura_os_memory_map(weights->bytes, HYPURA_OS_MAP_NORESERVE | HYPURA_OS_MAP_NO_ACCESS);
    bool known = weights->weights && weights->base;
    for (int i = 0; known && i < n; i++) {
        known = backend_describe_weight(pager, tensors[i]->name, &weights->weights[i]);
    }
    ggml_backend_buffer_t buffer =
        known ? ggml_backend_buffer_init(type, weight_buffer_interface, weights, weights->bytes) : NULL;
    if (!buffer) {
        hypura_os_memory_unmap(weights->base, weights->bytes);
        free(weights->weights);
        free(weights);
        return NULL;
    }
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        ggml_backend_tensor_alloc(buffer, tensors[i], weights->base + at);
        tensors[i]->extra = &weights->weights[i];
        at += padded_bytes(tensors[i]);
    }
    return buffer;
}

static ggml_backend_buffer_t type_alloc_n(ggml_backend_buffer_type_t type, struct ggml_tensor **tensors, int n)
{
    backend_weight first;
    if (n <= 0 || !backend_find_weight(tensors[0]->name, &first)) {
        return alloc_plain(type, tensors, n);
    }
    return backend_alloc_weights(type, first.pager, tensors, n);
}

static size_t type_alignment(ggml_backend_buffer_type_t type)
{
    (void)type;
    return ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type());
}

static bool type_is_host(ggml_backend_buffer_type_t type)
{
    (void)type;
    return true;
}

ggml_backend_buffer_type_t backend_buffer_type(void)
{
    static struct ggml_backend_buffer_type type = {
        .iface =
            {
                .get_name = type_name,
                .alloc_buffer = type_alloc,
                .alloc_buffer_n = type_alloc_n,
                .get_alignment = type_alignment,
                .is_host = type_is_host,
            },
    };
    type.device = backend_device();
    return &type;
}
