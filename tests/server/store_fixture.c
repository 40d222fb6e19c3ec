/*
 * store_fixture.c - see store_fixture.h.
 */
#include "store_fixture.h"

#include "../gguf/gguf_file.h"
#include "server/base/digest.h"

#include <ftw.h>

char fixture_folder[64];

int fixture_make(void **state)
{
    (void)state;
    char here[4096];
    snprintf(fixture_folder, sizeof fixture_folder, "/tmp/hypura-store-XXXXXX");
    if (mkdtemp(fixture_folder) == NULL || realpath(fixture_folder, here) == NULL ||
        strlen(here) >= sizeof fixture_folder) {
        return -1;
    }
    memcpy(fixture_folder, here, strlen(here) + 1);
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int fixture_remove(void **state)
{
    (void)state;
    return nftw(fixture_folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *fixture_path(const char *below)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", fixture_folder, below);
    return path;
}

void fixture_write(const char *below, const void *data, size_t bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", fixture_folder, below);
    for (char *at = strchr(path + strlen(fixture_folder) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(path, 0755);
        *at = '/';
    }
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

void fixture_write_text(const char *below, const char *text)
{
    fixture_write(below, text, strlen(text));
}

bool fixture_exists(const char *below)
{
    return access(fixture_path(below), F_OK) == 0;
}

static int n_files;

static int count_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)st;
    (void)ftw;
    n_files += type == FTW_F;
    return 0;
}

int fixture_count_files(const char *below)
{
    n_files = 0;
    (void)nftw(fixture_path(below), count_entry, 16, FTW_PHYS);
    return n_files;
}

static gguf_file make_gguf(const fixture_gguf *gguf)
{
    const char *arch = gguf->arch != NULL ? gguf->arch : "llama";
    uint32_t width = gguf->width != 0 ? gguf->width : 8;
    char key[64];
    gguf_file file;
    gguf_begin(&file, 3);
    gguf_key_text(&file, "general.architecture", arch);
    gguf_key_text(&file, "general.name", gguf->name != NULL ? gguf->name : "little");
    if (gguf->adapter) {
        gguf_key_text(&file, "general.type", "adapter");
        gguf_key_text(&file, "adapter.type", "lora");
        gguf_tensor(&file, "blk.0.t0.weight.lora_a", GGUF_FILE_F32, GGUF_SHAPE(width, 2));
        gguf_tensor(&file, "blk.0.t0.weight.lora_b", GGUF_FILE_F32, GGUF_SHAPE(2, 25));
        gguf_end(&file);
        return file;
    }
    if (gguf->file_type != 0) {
        gguf_key_u32(&file, "general.file_type", gguf->file_type);
    }
    if (gguf->chat_template != NULL) {
        gguf_key_text(&file, "tokenizer.chat_template", gguf->chat_template);
    }
    if (strcmp(arch, "clip") == 0) {
        gguf_key_u32(&file, "clip.vision.projection_dim", width);
        gguf_key_raw(&file, "clip.has_vision_encoder", 7, 1, 1);
    } else {
        snprintf(key, sizeof key, "%s.block_count", arch);
        gguf_key_u32(&file, key, 1);
        snprintf(key, sizeof key, "%s.context_length", arch);
        gguf_key_u32(&file, key, 4096);
        snprintf(key, sizeof key, "%s.embedding_length", arch);
        gguf_key_u32(&file, key, width);
    }
    if (gguf->n_parts > 0) {
        gguf_key_raw(&file, "split.no", 2, (uint64_t)gguf->part - 1, 2);
        gguf_key_raw(&file, "split.count", 2, (uint64_t)gguf->n_parts, 2);
        gguf_key_raw(&file, "split.tensors.count", 5, (uint64_t)gguf->n_parts, 4);
    }
    snprintf(key, sizeof key, "blk.0.t%d.weight", gguf->part);
    gguf_tensor(&file, key, GGUF_FILE_F32, GGUF_SHAPE(width, 25));
    gguf_end(&file);
    return file;
}

void fixture_write_gguf(const char *below, const fixture_gguf *gguf)
{
    gguf_file file = make_gguf(gguf);
    fixture_write(below, file.data, file.bytes);
    gguf_file_free(&file);
}

void fixture_write_manifest(const char *below, const fixture_layer *layers)
{
    json_t *list = json_array();
    char path[256];
    for (; layers->type != NULL; layers++) {
        const fixture_gguf plain = {0};
        gguf_file file = {0};
        const void *data = layers->text;
        size_t bytes = data != NULL ? strlen(layers->text) : 0;
        if (data == NULL) {
            file = make_gguf(layers->gguf != NULL ? layers->gguf : &plain);
            data = file.data;
            bytes = file.bytes;
        }
        char hex[HYPURA_DIGEST_BYTES];
        hypura_digest *digest = hypura_digest_begin();
        hypura_digest_add(digest, data, bytes);
        hypura_digest_end(digest, hex);
        snprintf(path, sizeof path, "ollama/blobs/sha256-%s", hex);
        fixture_write(path, data, bytes);
        gguf_file_free(&file);
        json_array_append_new(list, json_pack("{s:s+, s:s+, s:I}", "mediaType", "application/vnd.ollama.image.",
                                              layers->type, "digest", "sha256:", hex, "size", (json_int_t)bytes));
    }
    json_t *root = json_pack("{s:i, s:o}", "schemaVersion", 2, "layers", list);
    char *text = json_dumps(root, 0);
    snprintf(path, sizeof path, "ollama/manifests/%s", below);
    fixture_write_text(path, text);
    free(text);
    json_decref(root);
}

hypura_models *fixture_open(void)
{
    hypura_models *models = NULL;
    hypura_error error = {0};
    hypura_models_options options = {.folder = fixture_path("models"), .ollama_folder = fixture_path("ollama")};
    if (hypura_models_open(&options, &models, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return models;
}

const hypura_model_entry *fixture_find(hypura_models *models, const char *name)
{
    const hypura_model_entry *entry = NULL;
    hypura_error error = {0};
    if (hypura_models_find(models, name, HYPURA_FIND_TYPED, &entry, &error) != HYPURA_OK || entry == NULL) {
        fail_msg("%s: %s", name, error.message[0] != '\0' ? error.message : "not found");
    }
    return entry;
}

bool fixture_has(hypura_models *models, const char *name)
{
    const hypura_model_entry *entry = NULL;
    hypura_error error = {0};
    assert_int_equal(hypura_models_find(models, name, HYPURA_FIND_EXACT, &entry, &error), HYPURA_OK);
    hypura_model_entry_release(entry);
    return entry != NULL;
}

size_t fixture_count(hypura_models *models)
{
    hypura_model_list list;
    hypura_error error;
    assert_int_equal(hypura_models_list(models, &list, &error), HYPURA_OK);
    size_t n = list.n;
    hypura_model_list_clear(&list);
    return n;
}
