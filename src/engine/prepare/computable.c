/*
 * computable.c - see computable.h. As ggml-cpu's operations have it (b11434: ggml_compute_forward_* in ops.cpp and
 * binary-ops.cpp); its own supports_op does not ask.
 */
#include "engine/prepare/computable.h"

#include "ggml-cpu.h"
#include "ggml-impl.h"

static bool is_half(enum ggml_type type)
{
    return type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

static bool has_products(enum ggml_type type)
{
    return ggml_get_type_traits_cpu(type)->vec_dot != NULL;
}

static bool has_rows(enum ggml_type type)
{
    return type == GGML_TYPE_F32 || type == GGML_TYPE_I32 || ggml_get_type_traits(type)->to_float != NULL;
}

/* Sums, differences, products and quotients, element by element. */
static bool computes_elements(const struct ggml_tensor *node)
{
    const enum ggml_type a = node->src[0]->type;
    const enum ggml_type b = node->src[1]->type;
    if (b == GGML_TYPE_F32) {
        const bool added = node->op == GGML_OP_ADD && ggml_is_quantized(a) && has_rows(a);
        return a == GGML_TYPE_F32 || is_half(a) || added;
    }
    return is_half(b) && a == b && node->type == b;
}

static bool is_value(enum ggml_type type)
{
    return type != GGML_TYPE_I8 && type != GGML_TYPE_I16 && type != GGML_TYPE_I64 && type != GGML_TYPE_F64;
}

bool hypura_computable(const struct ggml_tensor *node, int src)
{
    const enum ggml_type type = node->src[src]->type;
    if (ggml_op_is_empty(node->op)) {
        return true;
    }
    switch (node->op) {
    case GGML_OP_MUL_MAT:
    case GGML_OP_MUL_MAT_ID:
        return src == 0 ? has_products(type) : src > 1 || type == GGML_TYPE_F32 || is_half(type);
    case GGML_OP_GET_ROWS:
        return src != 0 || has_rows(type);
    case GGML_OP_ADD:
    case GGML_OP_SUB:
    case GGML_OP_MUL:
    case GGML_OP_DIV:
        return computes_elements(node);
    case GGML_OP_ADD_ID:
        return src > 1 || type == GGML_TYPE_F32;
    default:
        return is_value(type);
    }
}
