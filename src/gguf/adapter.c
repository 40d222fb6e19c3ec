/*
 * adapter.c - see adapter.h. Reads the header alone.
 */
#include "gguf/adapter.h"

#include "base/status.h"
#include "gguf/reader.h"

#include "ggml.h"

#include <inttypes.h>
#include <string.h>

static const char suffix_a[] = ".lora_a";
static const char suffix_b[] = ".lora_b";
static const char suffix_norm[] = "_norm.weight";

/* What a key says, "" where it is not there or may not be printed. */
static const char *text_of(const hypura_gguf *gguf, const char *name)
{
    const char *text = NULL;
    if (hypura_gguf_text(gguf, name, &text, NULL) != HYPURA_OK || !text || !hypura_gguf_is_printable(text, strlen(text))) {
        return "";
    }
    return text;
}

static bool has_key(const hypura_gguf *gguf, const char *name, const hypura_gguf_key **key)
{
    *key = NULL;
    for (int i = 0; i < gguf->n_keys; i++) {
        if (strcmp(gguf->keys[i].name, name) == 0) {
            *key = &gguf->keys[i];
        }
    }
    return *key != NULL;
}

static hypura_status check_keys(const hypura_gguf *gguf, const hypura_map *map, hypura_error *error)
{
    const hypura_gguf_key *key;
    const char *type = text_of(gguf, "general.type");
    const char *kind = text_of(gguf, "adapter.type");
    const char *arch = text_of(gguf, "general.architecture");
    if (strcmp(type, "adapter") != 0) {
        return hypura_fail(error, HYPURA_ERR_FORMAT,
                           "%s: it is no adapter: general.type is '%.40s', expected 'adapter' (convert_lora_to_gguf.py of "
                           "llama.cpp makes one)",
                           gguf->path, type);
    }
    if (strcmp(kind, "lora") != 0) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: an adapter of type '%.40s': only 'lora' can be applied", gguf->path, kind);
    }
    if (strcmp(arch, map->arch) != 0) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: it is an adapter for the architecture '%.40s', and %s is of '%s': take the model it was made for",
                           gguf->path, arch, map->path, map->arch);
    }
    if (has_key(gguf, "adapter.lora.alpha", &key) && key->type != HYPURA_GGUF_FLOAT32) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: key 'adapter.lora.alpha' is a %s, expected a float32", gguf->path,
                           hypura_gguf_type_name(key->type));
    }
    if (has_key(gguf, "adapter.alora.invocation_tokens", &key)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: it is an activated LoRA, which applies from a certain text on alone: that cannot be done here",
                           gguf->path);
    }
    return HYPURA_OK;
}

/* Bytes of the name of the weight that the tensor is for; 0: it is for none. */
static size_t base_length(const char *name, const char *suffix)
{
    const size_t n = strlen(name);
    const size_t m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0 ? n - m : 0;
}

static const hypura_tensor *find_mate(const hypura_gguf *gguf, const char *name, size_t n, const char *suffix)
{
    for (int i = 0; i < gguf->n_tensors; i++) {
        const char *other = gguf->tensors[i].name;
        if (base_length(other, suffix) == n && strncmp(other, name, n) == 0) {
            return &gguf->tensors[i];
        }
    }
    return NULL;
}

static const hypura_tensor *find_base(const hypura_map *map, const char *name, size_t n)
{
    for (int i = 0; i < map->n_tensors; i++) {
        if (strncmp(map->tensors[i].name, name, n) == 0 && map->tensors[i].name[n] == '\0') {
            return &map->tensors[i];
        }
    }
    return NULL;
}

static bool has_products(int type)
{
    return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16 || type == GGML_TYPE_Q8_0 ||
           type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_0 || type == GGML_TYPE_Q5_1;
}

static hypura_status check_pair(const hypura_gguf *gguf, const hypura_map *map, const hypura_tensor *a, size_t n,
                                hypura_error *error)
{
    const hypura_tensor *b = find_mate(gguf, a->name, n, suffix_b);
    const hypura_tensor *base = find_base(map, a->name, n);
    if (!b) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: tensor '%s' is there and '%.*s%s' is not: convert the adapter again",
                           gguf->path, a->name, (int)n, a->name, suffix_b);
    }
    if (!base) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: tensor '%s' is for a weight that %s does not have: take the model it was made for", gguf->path,
                           a->name, map->path);
    }
    const hypura_tensor *both[] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (!has_products(both[i]->type)) {
            return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                               "%s: tensor '%s' is of type %s, in which no adapter can be computed with: convert it as f16",
                               gguf->path, both[i]->name, both[i]->type_name);
        }
    }
    /* Rows of A are looked up for the tokens of an embedding: A and B have changed places. */
    const bool looked_up = n >= 17 && strncmp(a->name + n - 17, "token_embd.weight", 17) == 0;
    const int64_t inputs = looked_up ? b->ne[1] : a->ne[0];
    const int64_t outputs = looked_up ? a->ne[1] : b->ne[1];
    const int64_t rank = looked_up ? a->ne[0] : a->ne[1];
    if (inputs != base->ne[0] || outputs != base->ne[1] || rank != b->ne[0] || a->ne[2] != base->ne[2] ||
        b->ne[2] != base->ne[2] || a->ne[3] != 1 || b->ne[3] != 1) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: '%.*s' is %" PRId64 " x %" PRId64 " x %" PRId64 " in %s, and the adapter's matrices for it "
                           "are %" PRId64 " x %" PRId64 " x %" PRId64 " and %" PRId64 " x %" PRId64 " x %" PRId64
                           ": take the model it was made for",
                           gguf->path, (int)n, a->name, base->ne[0], base->ne[1], base->ne[2], map->path, a->ne[0], a->ne[1],
                           a->ne[2], b->ne[0], b->ne[1], b->ne[2]);
    }
    return HYPURA_OK;
}

static hypura_status check_tensors(const hypura_gguf *gguf, const hypura_map *map, hypura_error *error)
{
    int n_pairs = 0;
    if (gguf->n_tensors / 2 > map->n_tensors) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: it has %d tensors, more than two for each of the %d that %s has: take the model it was made for",
                           gguf->path, gguf->n_tensors, map->n_tensors, map->path);
    }
    for (int i = 0; i < gguf->n_tensors; i++) {
        const hypura_tensor *tensor = &gguf->tensors[i];
        if (base_length(tensor->name, suffix_norm) > 0) {
            continue; /* llama.cpp passes over them */
        }
        size_t n = base_length(tensor->name, suffix_a);
        if (n > 0) {
            const hypura_status status = check_pair(gguf, map, tensor, n, error);
            if (status != HYPURA_OK) {
                return status;
            }
            n_pairs++;
            continue;
        }
        n = base_length(tensor->name, suffix_b);
        if (n > 0 && !find_mate(gguf, tensor->name, n, suffix_a)) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: tensor '%s' is there and '%.*s%s' is not: convert the adapter again",
                               gguf->path, tensor->name, (int)n, tensor->name, suffix_a);
        }
        if (n == 0) {
            return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                               "%s: tensor '%s' is no part of a LoRA that llama.cpp applies (their names end in %s and %s)",
                               gguf->path, tensor->name, suffix_a, suffix_b);
        }
    }
    return n_pairs > 0 ? HYPURA_OK
                       : hypura_fail(error, HYPURA_ERR_FORMAT, "%s: an adapter without matrices changes nothing", gguf->path);
}

static hypura_status check(const hypura_source *source, const hypura_map *map, hypura_error *error)
{
    hypura_arena names = {.last = NULL};
    hypura_gguf gguf;
    hypura_status status = hypura_gguf_read(source, &names, &gguf, error);
    if (status == HYPURA_OK) {
        status = check_keys(&gguf, map, error);
        if (status == HYPURA_OK) {
            status = check_tensors(&gguf, map, error);
        }
        hypura_gguf_clear(&gguf);
    }
    hypura_arena_free(&names);
    return status;
}

hypura_status hypura_adapter_check_file(const char *path, const hypura_map *map, hypura_error *error)
{
    hypura_source source;
    hypura_status status = hypura_source_open_file(NULL, path, &source, error);
    if (status == HYPURA_OK) {
        status = check(&source, map, error);
        hypura_source_close(&source);
    }
    return status;
}
