/*
 * card.c - see card.h. The reader is ours (src/gguf): it is made for files that
 * anyone may have put there.
 */
#include "server/models/card.h"

#include "base/status.h"
#include "gguf/reader.h"

#include <llama.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* general.file_type; the names that model files carry. */
static const char *const file_types[] = {
    [LLAMA_FTYPE_ALL_F32] = "F32",
    [LLAMA_FTYPE_MOSTLY_F16] = "F16",
    [LLAMA_FTYPE_MOSTLY_Q4_0] = "Q4_0",
    [LLAMA_FTYPE_MOSTLY_Q4_1] = "Q4_1",
    [LLAMA_FTYPE_MOSTLY_Q8_0] = "Q8_0",
    [LLAMA_FTYPE_MOSTLY_Q5_0] = "Q5_0",
    [LLAMA_FTYPE_MOSTLY_Q5_1] = "Q5_1",
    [LLAMA_FTYPE_MOSTLY_Q2_K] = "Q2_K",
    [LLAMA_FTYPE_MOSTLY_Q3_K_S] = "Q3_K_S",
    [LLAMA_FTYPE_MOSTLY_Q3_K_M] = "Q3_K_M",
    [LLAMA_FTYPE_MOSTLY_Q3_K_L] = "Q3_K_L",
    [LLAMA_FTYPE_MOSTLY_Q4_K_S] = "Q4_K_S",
    [LLAMA_FTYPE_MOSTLY_Q4_K_M] = "Q4_K_M",
    [LLAMA_FTYPE_MOSTLY_Q5_K_S] = "Q5_K_S",
    [LLAMA_FTYPE_MOSTLY_Q5_K_M] = "Q5_K_M",
    [LLAMA_FTYPE_MOSTLY_Q6_K] = "Q6_K",
    [LLAMA_FTYPE_MOSTLY_IQ2_XXS] = "IQ2_XXS",
    [LLAMA_FTYPE_MOSTLY_IQ2_XS] = "IQ2_XS",
    [LLAMA_FTYPE_MOSTLY_Q2_K_S] = "Q2_K_S",
    [LLAMA_FTYPE_MOSTLY_IQ3_XS] = "IQ3_XS",
    [LLAMA_FTYPE_MOSTLY_IQ3_XXS] = "IQ3_XXS",
    [LLAMA_FTYPE_MOSTLY_IQ1_S] = "IQ1_S",
    [LLAMA_FTYPE_MOSTLY_IQ4_NL] = "IQ4_NL",
    [LLAMA_FTYPE_MOSTLY_IQ3_S] = "IQ3_S",
    [LLAMA_FTYPE_MOSTLY_IQ3_M] = "IQ3_M",
    [LLAMA_FTYPE_MOSTLY_IQ2_S] = "IQ2_S",
    [LLAMA_FTYPE_MOSTLY_IQ2_M] = "IQ2_M",
    [LLAMA_FTYPE_MOSTLY_IQ4_XS] = "IQ4_XS",
    [LLAMA_FTYPE_MOSTLY_IQ1_M] = "IQ1_M",
    [LLAMA_FTYPE_MOSTLY_BF16] = "BF16",
    [LLAMA_FTYPE_MOSTLY_TQ1_0] = "TQ1_0",
    [LLAMA_FTYPE_MOSTLY_TQ2_0] = "TQ2_0",
    [LLAMA_FTYPE_MOSTLY_MXFP4_MOE] = "MXFP4",
    [LLAMA_FTYPE_MOSTLY_NVFP4] = "NVFP4",
    [LLAMA_FTYPE_MOSTLY_Q1_0] = "Q1_0",
    [LLAMA_FTYPE_MOSTLY_Q2_0] = "Q2_0",
};

void hypura_card_format_parameters(uint64_t n_parameters, char *text, size_t capacity)
{
    static const struct {
        double unit;
        int decimals;
        const char *name;
    } units[] = {{1e9, 1, "B"}, {1e6, 2, "M"}, {1e3, 0, "K"}, {1, 0, ""}};
    double n = (double)n_parameters;
    size_t i = 0;
    while (i + 1 < sizeof units / sizeof *units && n < units[i].unit) {
        i++;
    }
    n /= units[i].unit;
    bool whole = n == floor(n);
    (void)snprintf(text, capacity, "%.*f%s", whole ? 0 : units[i].decimals, n, units[i].name);
}

/* The type that most bytes have, for files that do not say. */
static void most_bytes(const hypura_map *map, char *text, size_t capacity)
{
    uint64_t bytes[GGML_TYPE_COUNT] = {0};
    uint64_t best = 0;
    const char *name = "";
    for (int i = 0; i < map->n_tensors; i++) {
        const hypura_tensor *tensor = &map->tensors[i];
        bytes[tensor->type] += tensor->bytes;
        if (bytes[tensor->type] > best) {
            best = bytes[tensor->type];
            name = tensor->type_name;
        }
    }
    size_t n = 0;
    for (; name[n] != '\0' && n + 1 < capacity; n++) {
        text[n] = name[n] >= 'a' && name[n] <= 'z' ? (char)(name[n] - 'a' + 'A') : name[n];
    }
    text[n] = '\0';
}

static hypura_status read_model(const char *path, const hypura_gguf *head, hypura_card *card, hypura_error *error)
{
    hypura_map *map = NULL;
    uint64_t type;
    hypura_status status = hypura_map_open(path, &map, error);
    if (status != HYPURA_OK) {
        return status;
    }
    for (int i = 0; i < map->n_tensors; i++) {
        const int64_t *ne = map->tensors[i].ne;
        card->n_parameters += (uint64_t)ne[0] * (uint64_t)ne[1] * (uint64_t)ne[2] * (uint64_t)ne[3];
    }
    for (int i = 0; i < map->n_files; i++) {
        card->bytes += map->file_bytes[i];
    }
    card->n_files = map->n_files;
    card->context_length = map->context_length;
    card->embedding_length = map->embedding_length;
    (void)snprintf(card->family, sizeof card->family, "%s", map->arch);
    hypura_card_format_parameters(card->n_parameters, card->parameter_size, sizeof card->parameter_size);
    const char *name = NULL;
    if (hypura_gguf_integer(head, "general.file_type", UINT32_MAX, UINT32_MAX, &type, NULL) == HYPURA_OK &&
        type < sizeof file_types / sizeof *file_types) {
        name = file_types[type];
    }
    if (name != NULL) {
        (void)snprintf(card->quantization_level, sizeof card->quantization_level, "%s", name);
    } else {
        most_bytes(map, card->quantization_level, sizeof card->quantization_level);
    }
    hypura_map_close(map);
    return HYPURA_OK;
}

/* Of these projection_dim is the picture model's own, and not what comes of it: LLaVA's 768 are for a model of 4096. */
static bool tells_width(const hypura_gguf *head)
{
    static const char *const others[] = {"mlp", "mlp_norm", "ldp", "ldpv2", "resampler"};
    const char *type = NULL;
    if (hypura_gguf_text(head, "clip.projector_type", &type, NULL) != HYPURA_OK || type == NULL) {
        return true;
    }
    size_t i = 0;
    while (i < sizeof others / sizeof *others && strcmp(type, others[i]) != 0) {
        i++;
    }
    return i == sizeof others / sizeof *others;
}

static void read_projector(const hypura_gguf *head, uint64_t bytes, hypura_card *card)
{
    uint64_t dimension = 0;
    if (tells_width(head) && hypura_gguf_integer(head, "clip.vision.projection_dim", 0, INT32_MAX, &dimension, NULL) == HYPURA_OK) {
        card->embedding_length = (int64_t)dimension;
    }
    card->kind = HYPURA_CARD_PROJECTOR;
    card->bytes = bytes;
    card->n_files = 1;
    (void)snprintf(card->family, sizeof card->family, "clip");
}

static bool is_adapter(const hypura_gguf *head)
{
    const char *type = NULL;
    return hypura_gguf_text(head, "general.type", &type, NULL) == HYPURA_OK && type != NULL && strcmp(type, "adapter") == 0;
}

void hypura_card_read(const char *path, hypura_card *card)
{
    hypura_error error;
    hypura_source source;
    hypura_arena names = {0};
    hypura_gguf head;
    *card = (hypura_card){.kind = HYPURA_CARD_MODEL};
    hypura_error_clear(&error);
    hypura_status status = hypura_source_open_file(NULL, path, &source, &error);
    if (status == HYPURA_OK) {
        status = hypura_gguf_read(&source, &names, &head, &error);
        if (status == HYPURA_OK) {
            const char *arch = NULL;
            status = hypura_gguf_text(&head, "general.architecture", &arch, &error);
            if (status == HYPURA_OK && arch != NULL && strcmp(arch, "clip") == 0) {
                read_projector(&head, source.bytes, card);
            } else if (status == HYPURA_OK && is_adapter(&head)) {
                card->kind = HYPURA_CARD_ADAPTER;
                card->bytes = source.bytes;
                card->n_files = 1;
            } else if (status == HYPURA_OK) {
                status = read_model(path, &head, card, &error);
            }
            hypura_gguf_clear(&head);
        }
        hypura_source_close(&source);
    }
    hypura_arena_free(&names);
    if (status != HYPURA_OK) {
        card->kind = HYPURA_CARD_BROKEN;
        memcpy(card->problem, error.message, sizeof card->problem);
    }
}
