/*
 * device.c - registry and device: what Hypura tells ggml of itself, and which
 * operations it claims.
 *
 * Claimed: MUL_MAT_ID with streamed experts and the row-wise operations between
 * such products, MUL_MAT and GET_ROWS with streamed dense weights and the row-wise
 * operations between those, and views of these: each change of device starts the
 * threads anew. Products with adapters (LoRA) of such weights, and the sums of both, which
 * stand between them. Nothing else: a claimed norm or flash attention would change where
 * libllama puts the rest of the layer.
 *
 * While a model loads, a weight has a name and an empty buffer of ours, and the
 * attached pager's plan answers for it. Afterwards the weight carries its record.
 */
#include "backend/backend.h"
#include "backend/internal.h"

#include "base/status.h"

#include <pthread.h>
#include <string.h>

#if GGML_BACKEND_API_VERSION != 3
#error "the backend interface of this ggml differs from the one Hypura was written for"
#endif

/* The pager that weights being loaded belong to. `attached_lock` is held from
 * attach to detach; `current` is read by libllama's calls in between, which come
 * from the attaching thread. */
static pthread_mutex_t            attached_lock = PTHREAD_MUTEX_INITIALIZER;
static hypura_pager              *current;
static hypura_backend_discover_fn discover_pager;

/* ---- claims ----------------------------------------------------------------- */

bool backend_describe_weight(hypura_pager *pager, const char *name, backend_weight *weight)
{
    const hypura_map *map = hypura_pager_map(pager);
    const int         tensor = hypura_map_find(map, name);
    if (tensor < 0) {
        return false;
    }
    *weight = (backend_weight){
        .pager = pager,
        .tensor = tensor,
        .place = hypura_pager_plan(pager)->placements[tensor].place,
        .bundle = map->tensors[tensor].bundle,
        .matrix = -1,
    };
    if (weight->place == HYPURA_PLACE_EXPERTS) {
        const hypura_bundle *bundle = &map->bundles[weight->bundle];
        for (int i = 0; i < bundle->n_tensors; i++) {
            weight->matrix = bundle->tensors[i] == tensor ? i : weight->matrix;
        }
    }
    return weight->place != HYPURA_PLACE_RESIDENT && weight->place != HYPURA_PLACE_VRAM;
}

bool backend_find_weight(const char *name, backend_weight *weight)
{
    hypura_pager *pager = current ? current : discover_pager ? discover_pager(name) : NULL;
    return pager && backend_describe_weight(pager, name, weight);
}

bool backend_is_rowwise(const struct ggml_tensor *node)
{
    switch (node->op) {
    case GGML_OP_GLU:
    case GGML_OP_UNARY:
    case GGML_OP_SQR:
    case GGML_OP_SCALE:
    case GGML_OP_CLAMP:
    case GGML_OP_MUL:
    case GGML_OP_ADD_ID:
        return true;
    default:
        return false;
    }
}

#define MOST_DEPTH (6 + HYPURA_MAX_ADAPTERS) /* operations between products, and sums with adapters */

static bool is_view(const struct ggml_tensor *node)
{
    return node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE;
}

/* What an adapter makes, added to what its weight makes. */
static bool is_adapter_sum(const struct ggml_tensor *node)
{
    return node->op == GGML_OP_ADD && node->src[1]->op == GGML_OP_SCALE && backend_is_adapter_product(node->src[1]->src[0]);
}

/* Computed from a product of ours, by row-wise operations alone. */
static bool comes_from_product(const struct ggml_tensor *node, int depth)
{
    backend_weight weight;
    if (!node || depth == 0) {
        return false;
    }
    if (is_adapter_sum(node)) {
        return comes_from_product(node->src[0], depth - 1);
    }
    if (backend_is_adapter_product(node)) {
        return true;
    }
    if (node->op == GGML_OP_MUL_MAT_ID) {
        return backend_find_source(node, &weight) && weight.place == HYPURA_PLACE_EXPERTS;
    }
    if (node->op == GGML_OP_MUL_MAT) {
        return backend_find_source(node, &weight) && weight.place == HYPURA_PLACE_DENSE;
    }
    if (!backend_is_rowwise(node) && !is_view(node)) {
        return false;
    }
    const bool second_too = node->op == GGML_OP_MUL || (node->op == GGML_OP_GLU && node->src[1]);
    return comes_from_product(node->src[0], depth - 1) &&
           (!second_too || comes_from_product(node->src[1], depth - 1));
}

static bool device_supports_op(ggml_backend_dev_t device, const struct ggml_tensor *op)
{
    (void)device;
    backend_weight weight;
    switch (op->op) {
    case GGML_OP_NONE:
        return true;
    case GGML_OP_MUL_MAT_ID:
        return (backend_find_source(op, &weight) && weight.place == HYPURA_PLACE_EXPERTS &&
                op->src[1]->type == GGML_TYPE_F32) ||
               backend_is_adapter_product(op);
    case GGML_OP_MUL_MAT:
        return (backend_find_source(op, &weight) && weight.place == HYPURA_PLACE_DENSE) || backend_is_adapter_product(op);
    case GGML_OP_ADD:
        return is_adapter_sum(op) && comes_from_product(op, MOST_DEPTH);
    case GGML_OP_GET_ROWS:
        return backend_find_source(op, &weight) &&
               (weight.place == HYPURA_PLACE_ROWS || weight.place == HYPURA_PLACE_DENSE);
    default:
        return (backend_is_rowwise(op) || is_view(op)) && comes_from_product(op, MOST_DEPTH);
    }
}

static bool device_supports_buffer_type(ggml_backend_dev_t device, ggml_backend_buffer_type_t type)
{
    (void)device;
    return ggml_backend_buft_is_host(type);
}

/* ---- the device ---------------------------------------------------------------- */

static const char *device_name(ggml_backend_dev_t device)
{
    (void)device;
    return "Hypura";
}

static const char *device_description(ggml_backend_dev_t device)
{
    (void)device;
    return "pager for model weights";
}

static void device_memory(ggml_backend_dev_t device, size_t *free_bytes, size_t *total_bytes)
{
    (void)device;
    *free_bytes = 0;
    *total_bytes = 0;
}

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t device)
{
    (void)device;
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

static void device_props(ggml_backend_dev_t device, struct ggml_backend_dev_props *props)
{
    memset(props, 0, sizeof(*props));
    props->name = device_name(device);
    props->description = device_description(device);
    props->type = device_type(device);
}

static ggml_backend_t device_init(ggml_backend_dev_t device, const char *params)
{
    (void)params;
    return backend_new_instance(device);
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t device)
{
    (void)device;
    return backend_buffer_type();
}

/* ---- the registry ----------------------------------------------------------------- */

static const char *registry_name(ggml_backend_reg_t registry)
{
    (void)registry;
    return "Hypura";
}

static size_t registry_count(ggml_backend_reg_t registry)
{
    (void)registry;
    return 1;
}

static ggml_backend_dev_t registry_device(ggml_backend_reg_t registry, size_t index)
{
    (void)registry;
    return index == 0 ? backend_device() : NULL;
}

static void *registry_function(ggml_backend_reg_t registry, const char *name)
{
    (void)registry;
    return backend_instance_function(name);
}

static struct ggml_backend_reg registry = {
    .api_version = GGML_BACKEND_API_VERSION,
    .iface =
        {
            .get_name = registry_name,
            .get_device_count = registry_count,
            .get_device = registry_device,
            .get_proc_address = registry_function,
        },
};

ggml_backend_dev_t backend_device(void)
{
    static struct ggml_backend_device device = {
        .iface =
            {
                .get_name = device_name,
                .get_description = device_description,
                .get_memory = device_memory,
                .get_type = device_type,
                .get_props = device_props,
                .init_backend = device_init,
                .get_buffer_type = device_buffer_type,
                .supports_op = device_supports_op,
                .supports_buft = device_supports_buffer_type,
            },
        .reg = &registry,
    };
    return &device;
}

void *hypura_backend_registry(void)
{
    return &registry;
}

/* ---- attaching ------------------------------------------------------------------------ */

hypura_status hypura_backend_attach(hypura_pager *pager, hypura_error *error)
{
    static bool registered;
    pthread_mutex_lock(&attached_lock);
    if (!registered) {
        ggml_backend_register(&registry);
        registered = true;
    }
    if (!ggml_backend_dev_by_name("Hypura")) {
        pthread_mutex_unlock(&attached_lock);
        return hypura_fail(error, HYPURA_ERR_BACKEND,
                           "ggml does not accept the Hypura device; is libggml the one Hypura was built with?");
    }
    current = pager;
    return HYPURA_OK;
}

void hypura_backend_detach(void)
{
    current = NULL;
    pthread_mutex_unlock(&attached_lock);
}

void hypura_backend_set_discover(hypura_backend_discover_fn discover)
{
    discover_pager = discover;
}
