/* What is read of Ollama's store in place: its models, their adapters, names for them in the folder. */
#include "store_fixture.h"

#include "hypura_server.h"

static void ollamas_store_is_read_in_place(void **state)
{
    (void)state;
    const fixture_gguf projector = {.arch = "clip"};
    fixture_write_manifest("registry.ollama.ai/library/llava/7b",
                           (const fixture_layer[]){{"model", NULL, &(fixture_gguf){.arch = "qwen2", .file_type = 2}},
                                                   {"projector", NULL, &projector},
                                                   {"template", "{{ .Prompt }}", NULL},
                                                   {"system", "Be brief.", NULL},
                                                   {"params", "{\"stop\": [\"<|end|>\"], \"num_ctx\": 2048}", NULL},
                                                   {"license", "MIT", NULL},
                                                   {"license", "and more", NULL},
                                                   {NULL, NULL, NULL}});
    fixture_write_manifest("hf.co/user/repo/Q8_0", (const fixture_layer[]){{"model", NULL, NULL}, {NULL, NULL, NULL}});
    fixture_write_manifest("registry.ollama.ai/library/remote/cloud",
                           (const fixture_layer[]){{"system", "far", NULL}, {NULL, NULL, NULL}});
    fixture_write_text("ollama/manifests/registry.ollama.ai/library/broken/latest", "{");
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 2);
    const hypura_model_entry *entry = fixture_find(models, "llava:7b");
    assert_int_equal(entry->origin, HYPURA_MODEL_OLLAMA);
    assert_string_equal(entry->family, "qwen2");
    assert_string_equal(entry->quantization_level, "Q4_0");
    assert_non_null(strstr(entry->path, "/ollama/blobs/sha256-"));
    assert_non_null(entry->projector_path);
    assert_null(entry->adapter_path);
    const json_t *settings = entry->settings;
    assert_string_equal(json_string_value(json_object_get(settings, "system")), "Be brief.");
    assert_string_equal(json_string_value(json_object_get(settings, "template")), "{{ .Prompt }}");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(settings, "parameters"), "num_ctx")), 2048);
    assert_int_equal(json_array_size(json_object_get(settings, "license")), 2);
    hypura_model_entry_release(entry);
    hypura_model_entry_release(fixture_find(models, "llava"));
    hypura_model_entry_release(fixture_find(models, "hf.co/user/repo:q8_0"));
    hypura_models_close(models);
}

static void a_model_of_ollamas_has_its_adapter(void **state)
{
    (void)state;
    const fixture_gguf adapter = {.arch = "qwen2", .adapter = true};
    const fixture_gguf other = {.arch = "qwen2", .name = "other", .adapter = true};
    fixture_write_manifest("registry.ollama.ai/library/tuned/latest",
                           (const fixture_layer[]){{"model", NULL, &(fixture_gguf){.arch = "qwen2"}},
                                                   {"adapter", NULL, &adapter},
                                                   {NULL, NULL, NULL}});
    fixture_write_manifest("registry.ollama.ai/library/twice/latest",
                           (const fixture_layer[]){{"model", NULL, &(fixture_gguf){.arch = "qwen2"}},
                                                   {"adapter", NULL, &adapter},
                                                   {"adapter", NULL, &other},
                                                   {NULL, NULL, NULL}});
    fixture_write_manifest("registry.ollama.ai/library/broken/latest",
                           (const fixture_layer[]){{"model", NULL, &(fixture_gguf){.arch = "qwen2"}},
                                                   {"adapter", "GGLA", NULL},
                                                   {NULL, NULL, NULL}});
    fixture_write_manifest("registry.ollama.ai/library/plain/latest",
                           (const fixture_layer[]){{"model", NULL, &(fixture_gguf){.arch = "qwen3"}},
                                                   {NULL, NULL, NULL}});
    hypura_models *models = fixture_open();
    hypura_error error = {0};
    const hypura_model_entry *entry = fixture_find(models, "tuned");
    assert_int_equal(entry->n_adapters, 1);
    assert_non_null(strstr(entry->adapter_path, "/ollama/blobs/sha256-"));
    assert_string_not_equal(entry->adapter_path, entry->path);
    hypura_model_entry_release(entry);
    entry = fixture_find(models, "twice");
    assert_int_equal(entry->n_adapters, 2); /* in the order in which they are applied */
    assert_string_not_equal(entry->adapter_paths[0], entry->adapter_paths[1]);
    assert_null(entry->adapter_paths[2]);
    hypura_model_entry_release(entry);
    assert_int_equal(hypura_models_find(models, "broken", HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "its adapter: "));
    hypura_models_close(models);

    char folder[512];
    snprintf(folder, sizeof folder, "%s", fixture_path("ollama"));
    const hypura_local_options places = {.ollama_folder = folder};
    hypura_local_files files = {.path = NULL};
    assert_int_equal(hypura_local_find(&places, "twice", &files, &error), HYPURA_OK);
    assert_true(files.adapters[0] && files.adapters[1] && strcmp(files.adapters[0], files.adapters[1]) != 0 && !files.adapters[2]);
    hypura_local_files_clear(&files);
    assert_int_equal(hypura_local_find(&places, "tuned", &files, &error), HYPURA_OK);
    assert_non_null(strstr(files.path, "/ollama/blobs/sha256-"));
    assert_non_null(strstr(files.adapters[0], "/ollama/blobs/sha256-"));
    assert_string_not_equal(files.path, files.adapters[0]);
    assert_null(files.adapters[1]);
    hypura_local_files_clear(&files);
    assert_int_equal(hypura_local_find(&places, "plain", &files, &error), HYPURA_OK);
    assert_non_null(strstr(files.path, "/ollama/blobs/sha256-"));
    assert_null(files.adapters[0]);
    hypura_local_files_clear(&files);
    assert_int_equal(hypura_local_find(&places, "neither", &files, &error), HYPURA_OK);
    assert_null(files.path);
}

static void no_manifest_leads_out_of_ollamas_store(void **state)
{
    (void)state;
    fixture_write_gguf("outside.gguf", &(fixture_gguf){0});
    static const char form[] =
        "{\"layers\": [{\"mediaType\": \"application/vnd.ollama.image.model\", \"digest\": %s}]}";
    static const char *const digests[] = {
        "\"../../outside.gguf\"",
        "\"sha256:../../../outside.gguf\"",
        "\"sha256:\"",
        "7",
        "null",
        "[]",
        "\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        "\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/../x\"",
    };
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
        char below[96];
        char text[256];
        snprintf(below, sizeof below, "ollama/manifests/registry.ollama.ai/library/m%zu/latest", i);
        snprintf(text, sizeof text, form, digests[i]);
        fixture_write_text(below, text);
    }
    fixture_write_text("ollama/blobs/keep", "");
    assert_int_equal(
        symlink("../../outside.gguf",
                fixture_path("ollama/blobs/sha256-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")),
        0);
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 0);
    hypura_models_close(models);
}

static void an_alias_follows_its_model(void **state)
{
    (void)state;
    fixture_write_manifest("registry.ollama.ai/library/llava/7b",
                           (const fixture_layer[]){{"model", NULL, NULL}, {"system", "a", NULL}, {NULL, NULL, NULL}});
    fixture_write_text("models/pictures.json", "{\"alias\": \"llava:7b\", \"settings\": {\"template\": \"b\"}}");
    fixture_write_text("models/lost.json", "{\"alias\": \"nothing\"}");
    fixture_write_text("models/self.json", "{\"alias\": \"self\"}");
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 2);
    const hypura_model_entry *entry = fixture_find(models, "pictures");
    const hypura_model_entry *target = fixture_find(models, "llava:7b");
    assert_int_equal(entry->origin, HYPURA_MODEL_ALIAS);
    assert_string_equal(entry->path, target->path);
    assert_string_equal(json_string_value(json_object_get(entry->settings, "system")), "a");
    assert_string_equal(json_string_value(json_object_get(entry->settings, "template")), "b");
    assert_null(json_object_get(target->settings, "template"));
    hypura_model_entry_release(target);
    hypura_models_close(models);
    assert_non_null(strstr(entry->path, "blobs"));
    hypura_model_entry_release(entry);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(ollamas_store_is_read_in_place),
        IN_FOLDER(a_model_of_ollamas_has_its_adapter),
        IN_FOLDER(no_manifest_leads_out_of_ollamas_store),
        IN_FOLDER(an_alias_follows_its_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
