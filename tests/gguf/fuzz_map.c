/*
 * fuzz_map.c - any bytes as a model: opening must end in a map that keeps its
 * promises or in an error with a message.
 *
 * Input: a GGUF, or, when it does not start with 'G', a split model of two
 * parts: the size of the first (4 bytes, its top bit: the second part is the one
 * that is named), the first, the second.
 *
 * With -DHYPURA_FUZZ_REPLAY a plain program that runs over the files of the
 * folders it is given, else a libFuzzer target.
 */
#include "gguf/map.h"

#include "base/status.h"

#include "ggml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST  "model-00001-of-00002.gguf"
#define SECOND "model-00002-of-00002.gguf"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

typedef struct input {
    const uint8_t *part[2];
    size_t bytes[2];
} input;

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static hypura_status open_part(void *user, const char *path, hypura_source *source, hypura_error *error)
{
    const input *in = user;
    int part = strcmp(path, SECOND) == 0;
    if (in->part[part] == NULL) {
        return hypura_fail(error, HYPURA_ERR_IO, "%s: missing", path);
    }
    hypura_source_open_memory(source, path, in->part[part], in->bytes[part]);
    return HYPURA_OK;
}

/* By division, which cannot wrap as a product can. */
static bool rows_make_up_bytes(const hypura_tensor *t)
{
    uint64_t rest = t->row_bytes > 0 && t->bytes % t->row_bytes == 0 ? t->bytes / t->row_bytes : 0;
    for (int i = 1; i < 4; i++) {
        rest = rest % (uint64_t)t->ne[i] == 0 ? rest / (uint64_t)t->ne[i] : 0;
    }
    return rest == 1;
}

static void check_tensor(const hypura_map *map, int i)
{
    const hypura_tensor *t = &map->tensors[i];
    require(t->ne[0] > 0 && t->ne[1] > 0 && t->ne[2] > 0 && t->ne[3] > 0, "no dimension is empty");
    require(t->file >= 0 && t->file < map->n_files, "the file exists");
    require(t->offset <= map->file_bytes[t->file] && t->bytes <= map->file_bytes[t->file] - t->offset,
            "the tensor lies in its file");
    require(t->type >= 0 && t->type < GGML_TYPE_COUNT, "the type exists");
    require(t->row_bytes == ggml_row_size((enum ggml_type)t->type, t->ne[0]), "blocks make up a row");
    require(rows_make_up_bytes(t), "rows make up the bytes");
    require(t->layer >= -1 && t->layer < map->n_layers, "the layer exists");
    require((t->role == HYPURA_ROLE_EXPERT) == (t->bundle >= 0), "experts and no others are bundled");
    require(t->bundle < map->n_bundles, "the bundle exists");
    require(t->bundle < 0 || t->expert_bytes * (uint64_t)t->ne[2] == t->bytes, "slices make up the bytes");
    require(hypura_map_find(map, t->name) == i, "the tensor is found by its name");
}

static void check_bundle(const hypura_map *map, int i)
{
    const hypura_bundle *bundle = &map->bundles[i];
    uint64_t bytes = 0;
    require(bundle->n_tensors > 0 && bundle->n_tensors <= HYPURA_MAX_BUNDLE, "the bundle holds tensors");
    for (int j = 0; j < bundle->n_tensors; j++) {
        const hypura_tensor *t = &map->tensors[bundle->tensors[j]];
        require(t->bundle == i && t->layer == bundle->layer && t->ne[2] == bundle->n_experts, "members agree");
        bytes += t->expert_bytes;
    }
    require(bytes == bundle->expert_bytes, "members make up the bytes of an expert");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    input in = {.part = {data, NULL}, .bytes = {bytes, 0}};
    const char *path = FIRST;
    if (bytes >= 4 && data[0] != 'G') {
        uint32_t number = data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
        size_t first = number & 0x7fffffff;
        first = first < bytes - 4 ? first : bytes - 4;
        in = (input){.part = {data + 4, data + 4 + first}, .bytes = {first, bytes - 4 - first}};
        path = number >> 31 != 0 ? SECOND : FIRST;
    }
    hypura_map *map;
    hypura_error error = {0};
    hypura_status status = hypura_map_open_from(open_part, &in, path, &map, &error);
    require((status == HYPURA_OK) == (map != NULL), "a map or an error");
    if (status != HYPURA_OK) {
        require(error.status == status && error.message[0] != '\0', "errors are told");
        return 0;
    }
    require(map->n_tensors > 0 && map->n_layers > 0, "there is a model");
    for (int i = 0; i < map->n_tensors; i++) {
        check_tensor(map, i);
    }
    for (int i = 0; i < map->n_bundles; i++) {
        check_bundle(map, i);
    }
    hypura_map_close(map);
    return 0;
}

#ifdef HYPURA_FUZZ_REPLAY
#include <dirent.h>

static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(1 << 20);
    if (file == NULL || data == NULL) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return false;
    }
    size_t bytes = fread(data, 1, 1 << 20, file);
    fclose(file);
    /* A copy of just that size, so that sanitizers see reads past the end. */
    uint8_t *exact = malloc(bytes > 0 ? bytes : 1);
    if (exact == NULL) {
        return false;
    }
    memcpy(exact, data, bytes);
    (void)LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
    free(data);
    return true;
}

int main(int argc, char **argv)
{
    int n = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
            char path[4096];
            (void)snprintf(path, sizeof(path), "%s/%s", argv[i], entry->d_name);
            if (entry->d_name[0] != '.') {
                if (!replay_file(path)) {
                    return 1;
                }
                n++;
            }
        }
        if (folder != NULL) {
            closedir(folder);
        }
    }
    printf("%d inputs\n", n);
    return n > 0 ? 0 : 1;
}
#endif
