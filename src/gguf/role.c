/*
 * role.c - tensor names as llama.cpp gives them (LLM_TENSOR_NAMES and, for what
 * is multiplied by selected experts, LLM_TENSOR_INFOS in src/llama-arch.cpp).
 *
 * Expert matrices are exactly the names that llama.cpp declares as weights of
 * GGML_OP_MUL_MAT_ID. Their biases and scales are small, needed whole by
 * element-wise nodes, and therefore TRUNK.
 */
#include "gguf/role.h"

#include <string.h>

/* Names without a layer. */
static const struct {
    const char *name;
    hypura_role role;
} model_names[] = {
    {"token_embd.weight", HYPURA_ROLE_EMBEDDING},
    {"per_layer_token_embd.weight", HYPURA_ROLE_LAYER_EMBEDDING},
    {"output.weight", HYPURA_ROLE_OUTPUT},
};

/* Families: one for each set of experts that has ids of its own. */
enum { FAMILY_EXPERTS, FAMILY_CHUNK_EXPERTS };

/* Names after "blk.N.", "enc.blk.N." or "dec.blk.N.". */
static const struct {
    const char *name;
    hypura_role role;
    int family;
    int step;
} layer_names[] = {
    {"ffn_gate_exps.weight", HYPURA_ROLE_EXPERT, FAMILY_EXPERTS, 0},
    {"ffn_up_exps.weight", HYPURA_ROLE_EXPERT, FAMILY_EXPERTS, 1},
    {"ffn_gate_up_exps.weight", HYPURA_ROLE_EXPERT, FAMILY_EXPERTS, 2},
    {"ffn_down_exps.weight", HYPURA_ROLE_EXPERT, FAMILY_EXPERTS, 3},
    {"ffn_gate_chexps.weight", HYPURA_ROLE_EXPERT, FAMILY_CHUNK_EXPERTS, 0},
    {"ffn_up_chexps.weight", HYPURA_ROLE_EXPERT, FAMILY_CHUNK_EXPERTS, 1},
    {"ffn_down_chexps.weight", HYPURA_ROLE_EXPERT, FAMILY_CHUNK_EXPERTS, 3},
    {"ffn_gate_shexp.weight", HYPURA_ROLE_SHARED_EXPERT, 0, 0},
    {"ffn_up_shexp.weight", HYPURA_ROLE_SHARED_EXPERT, 0, 0},
    {"ffn_down_shexp.weight", HYPURA_ROLE_SHARED_EXPERT, 0, 0},
    {"ffn_gate_inp.weight", HYPURA_ROLE_ROUTER, 0, 0},
    {"ffn_gate_inp.bias", HYPURA_ROLE_ROUTER, 0, 0},
    {"exp_probs_b.bias", HYPURA_ROLE_ROUTER, 0, 0},
    {"exp_probs_b_vl.bias", HYPURA_ROLE_ROUTER, 0, 0},
    {"exp_probs_b", HYPURA_ROLE_ROUTER, 0, 0},
    {"ffn_gate_tid2eid.weight", HYPURA_ROLE_ROUTER, 0, 0},
    {"ffn_gate.weight", HYPURA_ROLE_FFN, 0, 0},
    {"ffn_up.weight", HYPURA_ROLE_FFN, 0, 0},
    {"ffn_down.weight", HYPURA_ROLE_FFN, 0, 0},
    {"channel_mix_key.weight", HYPURA_ROLE_FFN, 0, 0},
    {"channel_mix_value.weight", HYPURA_ROLE_FFN, 0, 0},
    {"channel_mix_receptance.weight", HYPURA_ROLE_FFN, 0, 0},
    {"vis_gate.weight", HYPURA_ROLE_FFN, 0, 0},
    {"vis_up.weight", HYPURA_ROLE_FFN, 0, 0},
    {"vis_down.weight", HYPURA_ROLE_FFN, 0, 0},
};

const char *hypura_role_name(hypura_role role)
{
    switch (role) {
    case HYPURA_ROLE_TRUNK:
        return "trunk";
    case HYPURA_ROLE_FFN:
        return "ffn";
    case HYPURA_ROLE_EXPERT:
        return "expert";
    case HYPURA_ROLE_SHARED_EXPERT:
        return "shared-expert";
    case HYPURA_ROLE_ROUTER:
        return "router";
    case HYPURA_ROLE_EMBEDDING:
        return "embedding";
    case HYPURA_ROLE_LAYER_EMBEDDING:
        return "layer-embedding";
    case HYPURA_ROLE_OUTPUT:
        return "output";
    case HYPURA_ROLE_MTP:
        return "mtp";
    }
    return "unknown";
}

/* The number N of "blk.N." as it is written by printf, else -1; *rest is what
 * follows. Other spellings (leading zeros) would give a tensor two names. */
static int parse_layer(const char *text, const char **rest)
{
    if (strncmp(text, "blk.", 4) != 0) {
        return -1;
    }
    text += 4;
    int layer = 0;
    int digits = 0;
    for (; *text >= '0' && *text <= '9'; text++, digits++) {
        if (digits == 6 || (digits > 0 && layer == 0)) {
            return -1;
        }
        layer = layer * 10 + (*text - '0');
    }
    if (digits == 0 || *text != '.') {
        return -1;
    }
    *rest = text + 1;
    return layer;
}

static hypura_role_info model_role(const char *name)
{
    hypura_role_info info = {.role = HYPURA_ROLE_TRUNK, .layer = -1};
    if (strncmp(name, "nextn.", 6) == 0) {
        info.role = HYPURA_ROLE_MTP;
    }
    for (size_t i = 0; i < sizeof(model_names) / sizeof(model_names[0]); i++) {
        if (strcmp(name, model_names[i].name) == 0) {
            info.role = model_names[i].role;
        }
    }
    return info;
}

hypura_role_info hypura_role_of_name(const char *name)
{
    /* Encoder and decoder stacks are dense in every architecture there is. */
    bool stack = strncmp(name, "enc.", 4) == 0 || strncmp(name, "dec.", 4) == 0;
    const char *rest = name;
    int layer = parse_layer(stack ? name + 4 : name, &rest);
    if (layer < 0) {
        return model_role(name);
    }
    hypura_role_info info = {.role = HYPURA_ROLE_TRUNK, .layer = layer};
    if (strncmp(rest, "nextn.", 6) == 0) {
        info.role = HYPURA_ROLE_MTP;
        return info;
    }
    for (size_t i = 0; i < sizeof(layer_names) / sizeof(layer_names[0]); i++) {
        bool expert = layer_names[i].role == HYPURA_ROLE_EXPERT;
        if (strcmp(rest, layer_names[i].name) == 0 && !(stack && expert)) {
            info.role = layer_names[i].role;
            info.family = layer_names[i].family;
            info.step = layer_names[i].step;
        }
    }
    return info;
}
