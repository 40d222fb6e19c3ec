/*
 * store_projector.c - which projector belongs to which model, by their names and what the projector is made for.
 */
#include "server/models/store_internal.h"

#include "base/path.h"
#include "gguf/split.h"
#include "hypura_server.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char ending[] = ".mmproj.gguf";

/* The name without what says that it is a projector and how it is stored:
 * "mmproj-Qwen2.5-VL-3B-f16.gguf", "Qwen2.5-VL-3B.mmproj.gguf" -> "qwen2.5-vl-3b". */
static void projector_base(const char *path, char *base, size_t capacity)
{
    char name[256];
    (void)snprintf(name, sizeof name, "%s", hypura_path_name(path));
    size_t n = 0;
    for (char *at = name; *at != '\0' && n + 1 < capacity;) {
        if (strncasecmp(at, "mmproj", 6) == 0) {
            at += 6;
            at += *at == '-' || *at == '_' || *at == '.';
        } else {
            base[n++] = (char)tolower((unsigned char)*at++);
        }
    }
    base[n] = '\0';
    static const char *const tails[] = {".gguf", "f16", "f32", "bf16", "q8_0", "b"};
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        n = strlen(base);
        size_t tail = strlen(tails[i]);
        bool alone = n == tail || (n > tail && !isalnum((unsigned char)base[n - tail - 1]));
        if (n >= tail && strcmp(base + n - tail, tails[i]) == 0 && (alone || i == 0)) {
            base[n - tail] = '\0';
        }
        while ((n = strlen(base)) > 0 && strchr("-_.", base[n - 1]) != NULL) {
            base[n - 1] = '\0';
        }
    }
}

size_t hypura_store_projector_fits(const char *projector, const char *model, size_t model_stem_bytes)
{
    size_t folder_bytes = (size_t)(hypura_path_name(model) - model);
    if ((size_t)(hypura_path_name(projector) - projector) != folder_bytes || strncmp(projector, model, folder_bytes) != 0) {
        return 0;
    }
    char own[HYPURA_STORE_PATH_BYTES];
    if (hypura_store_path(own, "%.*s%s", (int)model_stem_bytes, model, ending) &&
        strcmp(own, projector) == 0) {
        return SIZE_MAX;
    }
    char base[256];
    projector_base(projector, base, sizeof base);
    size_t n = strlen(base);
    if (n == 0 || strcmp(base, "model") == 0) {
        return folder_bytes > 0 ? 1 : 0;
    }
    const char *name = model + folder_bytes;
    bool begins = strncasecmp(base, name, n) == 0 && !isalnum((unsigned char)name[n]);
    return begins ? n + 1 : 0;
}

bool hypura_store_projector_is_wide(const hypura_card *card, int64_t embedding_length)
{
    return card->embedding_length == 0 || embedding_length == 0 || card->embedding_length == embedding_length;
}

/* Of the file's own folder, which is the model's: a name without a model's is for it. */
static size_t fits_beside(const char *name, const char *model, size_t stem_bytes)
{
    char projector[HYPURA_STORE_PATH_BYTES];
    char path[HYPURA_STORE_PATH_BYTES];
    return hypura_store_path(projector, "./%s", name) && hypura_store_path(path, "./%s", model)
               ? hypura_store_projector_fits(projector, path, stem_bytes + 2)
               : 0;
}

char *hypura_store_projector_beside(const char *path, int64_t embedding_length)
{
    char folder[HYPURA_STORE_PATH_BYTES];
    char at[HYPURA_STORE_PATH_BYTES];
    char found[HYPURA_STORE_PATH_BYTES] = "";
    const char *model = hypura_path_name(path);
    hypura_split_name split;
    const size_t bytes = strlen(model);
    const size_t stem = hypura_split_parse(model, &split) ? split.prefix_bytes : bytes > 5 ? bytes - 5 : bytes;
    size_t best = 0;
    DIR *open = hypura_store_path(folder, "%.*s.", (int)(model - path), path) ? opendir(folder) : NULL;
    for (const struct dirent *file; open != NULL && (file = readdir(open)) != NULL;) {
        hypura_card card;
        const bool may = strstr(file->d_name, ".gguf") && strcasestr(file->d_name, "mmproj");
        const size_t fits = may ? fits_beside(file->d_name, model, stem) : 0;
        if (fits <= best || !hypura_store_path(at, "%.*s%s", (int)(model - path), path, file->d_name)) {
            continue;
        }
        hypura_card_read(at, &card);
        if (card.kind == HYPURA_CARD_PROJECTOR &&
            (fits == SIZE_MAX || hypura_store_projector_is_wide(&card, embedding_length))) {
            best = fits;
            memcpy(found, at, sizeof found);
        }
    }
    if (open != NULL) {
        closedir(open);
    }
    return found[0] != '\0' ? strdup(found) : NULL;
}

hypura_status hypura_local_projector(const char *path, char **projector, hypura_error *error)
{
    hypura_map *map = NULL;
    *projector = NULL;
    const hypura_status status = hypura_map_open(path, &map, error);
    if (status == HYPURA_OK) {
        *projector = hypura_store_projector_beside(path, map->embedding_length);
    }
    hypura_map_close(map);
    return status;
}
