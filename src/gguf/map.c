/*
 * map.c - one model map from the headers of a model's files.
 *
 * What always holds of a map that was handed out: names are unique over all
 * files; every tensor lies wholly in its file; layer is -1 or below n_layers;
 * an EXPERT tensor has three dimensions, is a member of exactly one bundle, and
 * ne[2] slices of expert_bytes make up its bytes. It never changes.
 */
#include "gguf/map.h"

#include "base/size.h"
#include "base/status.h"
#include "gguf/bundle.h"
#include "gguf/reader.h"
#include "gguf/role.h"
#include "gguf/split.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Far above what llama.cpp accepts, and small enough to allocate by. */
    MAX_LAYERS = 4096,
    MAX_EXPERTS = 65536,
    MAX_ARCH_BYTES = 64,
};

typedef struct owned_map {
    hypura_map map; /* first: what users hold */
    hypura_arena arena;
    const hypura_tensor **by_name;
} owned_map;

/* What opening works on. The parts are in order; each has its own header. */
typedef struct opening {
    hypura_source_open_fn open;
    void *user;
    owned_map *owned;
    int n_parts;
    hypura_gguf *parts;
    const char **paths;
    uint64_t *file_bytes;
    int64_t *file_modified_ns;
    hypura_tensor *tensors; /* the map's, while it is made */
    hypura_error *error;
} opening;

static hypura_status out_of_memory(const opening *o)
{
    return hypura_fail(o->error, HYPURA_ERR_MEMORY, "%s: out of memory while reading the header", o->owned->map.path);
}

/* ---- files ---- */

static hypura_status read_part(opening *o, const char *path, hypura_gguf *gguf, uint64_t *file_bytes,
                               int64_t *file_modified_ns)
{
    hypura_source source;
    hypura_status status = o->open(o->user, path, &source, o->error);
    if (status == HYPURA_OK) {
        *file_bytes = source.bytes;
        *file_modified_ns = source.modified_ns;
        status = hypura_gguf_read(&source, &o->owned->arena, gguf, o->error);
        hypura_source_close(&source);
    }
    return status;
}

/* The keys of part (from 0) agree with n_parts and with its place. */
static hypura_status check_part(const opening *o, const hypura_gguf *gguf, int part)
{
    uint64_t count;
    uint64_t number;
    hypura_status status = hypura_gguf_integer(gguf, "split.count", 0, HYPURA_SPLIT_MAX_PARTS, &count, o->error);
    if (status == HYPURA_OK) {
        status = hypura_gguf_integer(gguf, "split.no", UINT32_MAX, UINT32_MAX, &number, o->error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    if (count != (uint64_t)o->n_parts || number != (uint64_t)part) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                           "%s: its keys split.no and split.count do not say that it is part %d of %d: it belongs to "
                           "another model or was renamed",
                           gguf->path, part + 1, o->n_parts);
    }
    return HYPURA_OK;
}

/* The parts around the one that was named, which is `named` in parts[0]. */
static hypura_status read_other_parts(opening *o)
{
    hypura_map *map = &o->owned->map;
    hypura_split_name name;
    if (!hypura_split_parse(map->path, &name) || name.n_parts != o->n_parts) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                           "%s: is one of %d parts, but its name does not end in -0000N-of-%05d.gguf: give the parts "
                           "their names back",
                           map->path, o->n_parts, o->n_parts);
    }
    int named = name.part - 1;
    hypura_gguf gguf = o->parts[0];
    uint64_t bytes = o->file_bytes[0];
    int64_t modified_ns = o->file_modified_ns[0];
    o->parts[0] = (hypura_gguf){0};
    o->parts[named] = gguf;
    o->file_bytes[named] = bytes;
    o->file_modified_ns[named] = modified_ns;
    o->paths[named] = map->path;
    hypura_status status = check_part(o, &o->parts[named], named);
    for (int i = 0; status == HYPURA_OK && i < o->n_parts; i++) {
        if (i == named) {
            continue;
        }
        o->paths[i] = hypura_split_path(&o->owned->arena, map->path, &name, i + 1);
        if (o->paths[i] == NULL) {
            return out_of_memory(o);
        }
        status = read_part(o, o->paths[i], &o->parts[i], &o->file_bytes[i], &o->file_modified_ns[i]);
        if (status == HYPURA_ERR_IO) {
            hypura_fail_prefix(o->error, "part %d of %d is missing or cannot be read", i + 1, o->n_parts);
            return status;
        }
        status = status == HYPURA_OK ? check_part(o, &o->parts[i], i) : status;
    }
    return status;
}

static bool allocate_parts(opening *o, int n)
{
    hypura_arena *arena = &o->owned->arena;
    o->n_parts = n;
    o->parts = calloc((size_t)n, sizeof(o->parts[0]));
    o->paths = hypura_arena_alloc(arena, (size_t)n, sizeof(o->paths[0]));
    o->file_bytes = hypura_arena_alloc(arena, (size_t)n, sizeof(o->file_bytes[0]));
    o->file_modified_ns = hypura_arena_alloc(arena, (size_t)n, sizeof(o->file_modified_ns[0]));
    return o->parts != NULL && o->paths != NULL && o->file_bytes != NULL && o->file_modified_ns != NULL;
}

static hypura_status read_parts(opening *o)
{
    hypura_map *map = &o->owned->map;
    hypura_gguf gguf;
    uint64_t bytes;
    int64_t modified_ns;
    hypura_status status = read_part(o, map->path, &gguf, &bytes, &modified_ns);
    if (status != HYPURA_OK) {
        return status;
    }
    uint64_t n_parts;
    status = hypura_gguf_integer(&gguf, "split.count", 1, HYPURA_SPLIT_MAX_PARTS, &n_parts, o->error);
    if (status == HYPURA_OK && !allocate_parts(o, n_parts > 1 ? (int)n_parts : 1)) {
        status = out_of_memory(o);
    }
    if (status != HYPURA_OK) {
        hypura_gguf_clear(&gguf);
        return status;
    }
    o->parts[0] = gguf;
    o->file_bytes[0] = bytes;
    o->file_modified_ns[0] = modified_ns;
    o->paths[0] = map->path;
    if (o->n_parts > 1) {
        status = read_other_parts(o);
    }
    map->n_files = o->n_parts;
    map->files = o->paths;
    map->file_bytes = o->file_bytes;
    map->file_modified_ns = o->file_modified_ns;
    return status;
}

/* ---- keys ---- */

/* general.name is for people: what cannot be printed becomes '?'. */
static const char *printable_copy(hypura_arena *arena, const char *text)
{
    size_t n = strlen(text);
    char *copy = hypura_arena_text(arena, text, n);
    if (copy != NULL && !hypura_gguf_is_printable(copy, n)) {
        for (size_t i = 0; i < n; i++) {
            copy[i] = copy[i] >= 0x20 && copy[i] < 0x7f ? copy[i] : '?';
        }
    }
    return copy;
}

static hypura_status read_names(opening *o)
{
    hypura_map *map = &o->owned->map;
    const hypura_gguf *head = &o->parts[0];
    const char *arch;
    const char *name = NULL;
    hypura_status status = hypura_gguf_text(head, "general.architecture", &arch, o->error);
    if (status == HYPURA_OK) {
        status = hypura_gguf_text(head, "general.name", &name, o->error);
    }
    if (status != HYPURA_OK) {
        return status;
    }
    if (arch == NULL) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT, "%s: key 'general.architecture' is missing: it is no model",
                           head->path);
    }
    size_t bytes = strlen(arch);
    if (bytes == 0 || bytes > MAX_ARCH_BYTES || !hypura_gguf_is_printable(arch, bytes)) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT, "%s: key 'general.architecture' holds no name", head->path);
    }
    map->arch = hypura_arena_text(&o->owned->arena, arch, bytes);
    map->name = printable_copy(&o->owned->arena, name != NULL ? name : "");
    return map->arch == NULL || map->name == NULL ? out_of_memory(o) : HYPURA_OK;
}

/* The key <arch>.<suffix>, for each layer or for all; 0 without it. */
static hypura_status read_number(const opening *o, const char *suffix, uint64_t max, uint64_t *value)
{
    char key[MAX_ARCH_BYTES + 64];
    (void)snprintf(key, sizeof(key), "%s.%s", o->owned->map.arch, suffix);
    return hypura_gguf_greatest(&o->parts[0], key, 0, max, value, o->error);
}

/* What else there is in GGUFs, by general.type, and what it is for. */
static const char *use_of(const char *type)
{
    return strcmp(type, "adapter") == 0  ? "; give the model, and this with --lora"
           : strcmp(type, "mmproj") == 0 ? "; give the model that it makes see, and this with --mmproj"
                                         : "";
}

/* Adapters and projectors say what they are. */
static hypura_status fail_no_layers(const opening *o)
{
    const char *type = NULL;
    const hypura_gguf *head = &o->parts[0];
    if (hypura_gguf_text(head, "general.type", &type, NULL) != HYPURA_OK || type == NULL ||
        !hypura_gguf_is_printable(type, strlen(type))) {
        type = strcmp(o->owned->map.arch, "clip") == 0 ? "mmproj" : ""; /* older ones do not */
    }
    return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                       "%s: key '%s.block_count' is missing or 0: it is no language model%s%.40s%s%s", head->path,
                       o->owned->map.arch, type[0] ? " (general.type is '" : "", type, type[0] ? "')" : "",
                       use_of(type));
}

/* *n_main is the number of layers in front of those that predict further tokens. */
static hypura_status read_numbers(opening *o, int *n_main)
{
    hypura_map *map = &o->owned->map;
    uint64_t layers = 0;
    uint64_t decoder = 0;
    uint64_t nextn = 0;
    uint64_t experts = 0;
    uint64_t used = 0;
    uint64_t context = 0;
    uint64_t embedding = 0;
    const struct {
        const char *suffix;
        uint64_t max;
        uint64_t *value;
    } numbers[] = {
        {"block_count", MAX_LAYERS, &layers},         {"decoder_block_count", MAX_LAYERS, &decoder},
        {"nextn_predict_layers", MAX_LAYERS, &nextn}, {"expert_count", MAX_EXPERTS, &experts},
        {"expert_used_count", MAX_EXPERTS, &used},    {"context_length", INT64_MAX, &context},
        {"embedding_length", INT64_MAX, &embedding},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        hypura_status status = read_number(o, numbers[i].suffix, numbers[i].max, numbers[i].value);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    if (layers == 0) {
        return fail_no_layers(o);
    }
    if (nextn > layers) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                           "%s: key '%s.nextn_predict_layers' is %" PRIu64 ", more than the %" PRIu64 " layers",
                           o->parts[0].path, map->arch, nextn, layers);
    }
    if (used > experts) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                           "%s: key '%s.expert_used_count' is %" PRIu64 ", more than the %" PRIu64 " experts",
                           o->parts[0].path, map->arch, used, experts);
    }
    map->n_layers = (int)(layers > decoder ? layers : decoder);
    /* A file of nothing but such layers is a draft model of its own. */
    *n_main = nextn > 0 && nextn < layers ? (int)(layers - nextn) : map->n_layers;
    map->n_experts = (int)experts;
    map->n_experts_used = (int)used;
    map->context_length = (int64_t)context;
    map->embedding_length = (int64_t)embedding;
    map->n_vocabulary = (int64_t)hypura_gguf_count(&o->parts[0], "tokenizer.ggml.tokens");
    return HYPURA_OK;
}

/* ---- tensors ---- */

static hypura_status gather_tensors(opening *o)
{
    hypura_map *map = &o->owned->map;
    uint64_t n = 0;
    for (int i = 0; i < o->n_parts; i++) {
        n += (uint64_t)o->parts[i].n_tensors;
    }
    for (int i = 0; i < o->n_parts; i++) {
        uint64_t claimed;
        hypura_status status =
            hypura_gguf_integer(&o->parts[i], "split.tensors.count", n, UINT64_MAX, &claimed, o->error);
        if (status != HYPURA_OK) {
            return status;
        }
        if (o->n_parts > 1 && claimed != n) {
            return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                               "%s: key 'split.tensors.count' is %" PRIu64 ", but the %d parts hold %" PRIu64
                               " tensors",
                               o->parts[i].path, claimed, o->n_parts, n);
        }
    }
    if (n == 0 || n > INT_MAX) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT, "%s: holds %" PRIu64 " tensors: it is no model",
                           o->parts[0].path, n);
    }
    o->tensors = hypura_arena_alloc(&o->owned->arena, (size_t)n, sizeof(o->tensors[0]));
    if (o->tensors == NULL) {
        return out_of_memory(o);
    }
    for (int i = 0; i < o->n_parts; i++) {
        for (int j = 0; j < o->parts[i].n_tensors; j++) {
            hypura_tensor *tensor = &o->tensors[map->n_tensors++];
            *tensor = o->parts[i].tensors[j];
            tensor->file = i;
            if (!hypura_size_add(map->tensor_bytes, tensor->bytes, &map->tensor_bytes)) {
                return hypura_fail(o->error, HYPURA_ERR_FORMAT, "%s: more bytes than 64 bits can count",
                                   o->parts[i].path);
            }
        }
    }
    map->tensors = o->tensors;
    return HYPURA_OK;
}

static int compare_names(const void *a, const void *b)
{
    const hypura_tensor *const *left = a;
    const hypura_tensor *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static hypura_status index_names(opening *o)
{
    hypura_map *map = &o->owned->map;
    size_t n = (size_t)map->n_tensors;
    const hypura_tensor **by_name = hypura_arena_alloc(&o->owned->arena, n, sizeof(by_name[0]));
    if (by_name == NULL) {
        return out_of_memory(o);
    }
    for (size_t i = 0; i < n; i++) {
        by_name[i] = &map->tensors[i];
    }
    qsort(by_name, n, sizeof(by_name[0]), compare_names);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(by_name[i - 1]->name, by_name[i]->name) == 0) {
            return hypura_fail(o->error, HYPURA_ERR_FORMAT, "%s: tensor '%s' occurs twice",
                               map->files[by_name[i]->file], by_name[i]->name);
        }
    }
    o->owned->by_name = by_name;
    return HYPURA_OK;
}

static hypura_status check_expert(const opening *o, hypura_tensor *tensor)
{
    const hypura_map *map = &o->owned->map;
    const char *file = map->files[tensor->file];
    if (tensor->ne[3] != 1 || tensor->ne[2] > MAX_EXPERTS) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                           "%s: tensor '%s' holds experts, but its shape %" PRId64 " x %" PRId64 " x %" PRId64
                           " x %" PRId64 " is not rows x columns x experts",
                           file, tensor->name, tensor->ne[0], tensor->ne[1], tensor->ne[2], tensor->ne[3]);
    }
    if (map->n_experts == 0 || map->n_experts_used == 0) {
        return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                           "%s: tensor '%s' holds experts, but key '%s.%s' is missing or 0", file, tensor->name,
                           map->arch, map->n_experts == 0 ? "expert_count" : "expert_used_count");
    }
    tensor->expert_bytes = tensor->bytes / (uint64_t)tensor->ne[2];
    return HYPURA_OK;
}

static hypura_status assign_roles(opening *o, int n_main)
{
    const hypura_map *map = &o->owned->map;
    for (int i = 0; i < map->n_tensors; i++) {
        hypura_tensor *tensor = &o->tensors[i];
        hypura_role_info info = hypura_role_of_name(tensor->name);
        if (info.layer >= map->n_layers) {
            return hypura_fail(o->error, HYPURA_ERR_FORMAT,
                               "%s: tensor '%s' is of layer %d, but key '%s.block_count' says %d layers",
                               map->files[tensor->file], tensor->name, info.layer, map->arch, map->n_layers);
        }
        tensor->layer = info.layer;
        tensor->role = info.layer >= n_main ? HYPURA_ROLE_MTP : info.role;
        if (tensor->role == HYPURA_ROLE_EXPERT) {
            hypura_status status = check_expert(o, tensor);
            if (status != HYPURA_OK) {
                return status;
            }
        }
    }
    return HYPURA_OK;
}

/* ---- the map ---- */

static hypura_status make_map(opening *o)
{
    hypura_map *map = &o->owned->map;
    int n_main = 0;
    hypura_status status = read_parts(o);
    status = status == HYPURA_OK ? read_names(o) : status;
    status = status == HYPURA_OK ? read_numbers(o, &n_main) : status;
    status = status == HYPURA_OK ? gather_tensors(o) : status;
    status = status == HYPURA_OK ? index_names(o) : status;
    status = status == HYPURA_OK ? assign_roles(o, n_main) : status;
    if (status == HYPURA_OK &&
        !hypura_bundle_build(o->tensors, map->n_tensors, &o->owned->arena, &map->bundles, &map->n_bundles)) {
        status = out_of_memory(o);
    }
    if (map->n_bundles == 0) {
        /* Dense whatever the keys say: some converters copy them from a sibling. */
        map->n_experts = 0;
        map->n_experts_used = 0;
    }
    return status;
}

hypura_status hypura_map_open_from(hypura_source_open_fn open, void *user, const char *path, hypura_map **map,
                                   hypura_error *error)
{
    *map = NULL;
    if (path == NULL) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "no path: give that of a .gguf file");
    }
    owned_map *owned = calloc(1, sizeof(*owned));
    if (owned == NULL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: out of memory", path);
    }
    opening o = {.open = open, .user = user, .owned = owned, .error = error};
    owned->map.path = hypura_arena_text(&owned->arena, path, strlen(path));
    hypura_status status = HYPURA_ERR_MEMORY;
    if (owned->map.path != NULL) {
        status = make_map(&o);
    } else {
        (void)hypura_fail(error, HYPURA_ERR_MEMORY, "%s: out of memory", path);
    }
    for (int i = 0; o.parts != NULL && i < o.n_parts; i++) {
        hypura_gguf_clear(&o.parts[i]);
    }
    free(o.parts);
    if (status != HYPURA_OK) {
        hypura_map_close(&owned->map);
        return status;
    }
    *map = &owned->map;
    return HYPURA_OK;
}

hypura_status hypura_map_open(const char *path, hypura_map **map, hypura_error *error)
{
    return hypura_map_open_from(hypura_source_open_file, NULL, path, map, error);
}

void hypura_map_close(hypura_map *map)
{
    if (map != NULL) {
        owned_map *owned = (owned_map *)map;
        hypura_arena_free(&owned->arena);
        free(owned);
    }
}

int hypura_map_find(const hypura_map *map, const char *name)
{
    const owned_map *owned = (const owned_map *)map;
    hypura_tensor wanted = {.name = name};
    const hypura_tensor *key = &wanted;
    const hypura_tensor **found =
        bsearch(&key, owned->by_name, (size_t)map->n_tensors, sizeof(owned->by_name[0]), compare_names);
    return found == NULL ? -1 : (int)(*found - map->tensors);
}
