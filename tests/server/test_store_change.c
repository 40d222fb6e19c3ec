/* What copy and remove do to the folder, and what is told of a model. */
#include "change_fixture.h"

#include <fcntl.h>
#include <sys/file.h>

static void a_copy_and_its_model_go_apart(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/a.mmproj.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_text("models/a.json", "{\"settings\": {\"system\": \"s\"}}");
    fixture_write_text("models/a.gguf.records", "experts");
    hypura_models *models = fixture_open();
    copy(models, "a", "user/b:tag");
    assert_int_equal(inode(fixture_path("models/a.gguf")), inode(fixture_path("models/user/b@tag.gguf")));
    assert_int_equal(inode(fixture_path("models/a.gguf.records")), inode(fixture_path("models/user/b@tag.gguf.records")));
    const hypura_model_entry *own = fixture_find(models, "a"); /* made of itself it has them too */
    check_ok(hypura_models_create(models, &(hypura_models_create_options){.name = "a", .from = own}, &error), &error);
    hypura_model_entry_release(own);
    assert_true(fixture_exists("models/a.gguf.records"));
    check_ok(remove_model(models, "a", &error), &error);
    assert_false(fixture_has(models, "a"));
    const hypura_model_entry *entry = fixture_find(models, "user/b:tag");
    assert_string_equal(entry->projector_path, fixture_path("models/user/b@tag.mmproj.gguf"));
    assert_string_equal(json_string_value(json_object_get(entry->settings, "system")), "s");
    hypura_model_entry_release(entry);
    check_ok(remove_model(models, "user/b:tag", &error), &error);
    assert_int_equal(fixture_count_files("models"), 0);
    assert_false(fixture_exists("models/user"));
    hypura_models_close(models);
}

static void all_parts_are_copied_and_removed(void **state)
{
    (void)state;
    hypura_error error = {0};
    for (int part = 1; part <= 2; part++) {
        char below[64];
        snprintf(below, sizeof below, "models/big-%05d-of-00002.gguf", part);
        fixture_write_gguf(below, &(fixture_gguf){.part = part, .n_parts = 2});
    }
    hypura_models *models = fixture_open();
    copy(models, "big", "huge");
    assert_true(fixture_exists("models/huge-00002-of-00002.gguf"));
    check_ok(remove_model(models, "big", &error), &error);
    assert_int_equal(fixture_count_files("models"), 2);
    const hypura_model_entry *entry = fixture_find(models, "huge");
    assert_int_equal(entry->n_files, 2);
    hypura_model_entry_release(entry);
    /* A model of one file takes the place of one of two: nothing of that stays. */
    fixture_write_gguf("models/small.gguf", &(fixture_gguf){0});
    copy(models, "small", "HUGE");
    assert_int_equal(fixture_count_files("models"), 2);
    /* No name makes a model one of another's parts, which it would replace. */
    fixture_write_gguf("models/big-00001-of-00002.gguf", &(fixture_gguf){.part = 1, .n_parts = 2});
    fixture_write_gguf("models/big-00002-of-00002.gguf", &(fixture_gguf){.part = 2, .n_parts = 2});
    const ino_t part = inode(fixture_path("models/big-00002-of-00002.gguf"));
    entry = fixture_find(models, "small");
    assert_int_equal(hypura_models_copy(models, entry, "big-00002-of-00002", &error), HYPURA_ERR_USAGE);
    assert_int_equal(inode(fixture_path("models/big-00002-of-00002.gguf")), part);
    hypura_model_entry_release(entry);
    hypura_models_close(models);
}

static void without_links_a_copy_is_an_alias(void **state)
{
    (void)state;
    static const int errors[] = {EXDEV, EPERM, EMLINK, EOPNOTSUPP};
    hypura_error error = {0};
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        link_errno = errors[i];
        copy(models, "a", "b");
        copy(models, "b", "c");
        const hypura_model_entry *entry = fixture_find(models, "c");
        assert_int_equal(entry->origin, HYPURA_MODEL_ALIAS);
        assert_string_equal(entry->path, fixture_path("models/a.gguf"));
        hypura_model_entry_release(entry);
        assert_int_equal(remove_model(models, "a", &error), HYPURA_ERR_UNSUPPORTED);
        assert_non_null(strstr(error.message, "b:latest"));
        check_ok(remove_model(models, "b", &error), &error);
        check_ok(remove_model(models, "c", &error), &error);
        assert_int_equal(fixture_count_files("models"), 1);
    }
    check_ok(remove_model(models, "a", &error), &error);
    hypura_models_close(models);
}

/* Without links: under its own name a model would be another name for itself, and its file gone. */
static void without_links_a_model_is_made_of_itself(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/a.mmproj.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_manifest("registry.ollama.ai/library/llama/latest",
                           (const fixture_layer[]){{"model", NULL, NULL}, {NULL, NULL, NULL}});
    const hypura_models_options options = {.folder = fixture_path("models"), .ollama_folder = fixture_path("ollama")};
    hypura_models *models;
    check_ok(hypura_models_open(&options, &models, &error), &error);
    link_errno = EPERM;
    static const char *const names[][2] = {{"a", "a"}, {"b", "a"}, {"llama", "llama"}};
    copy(models, "a", "b");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *settings = json_pack("{s:s}", "system", names[i][0]);
        const hypura_model_entry *from = fixture_find(models, names[i][0]);
        const hypura_models_create_options create = {.name = names[i][1], .from = from, .settings = settings};
        check_ok(hypura_models_create(models, &create, &error), &error);
        hypura_model_entry_release(from);
        json_decref(settings);
        const hypura_model_entry *made = fixture_find(models, names[i][1]);
        assert_int_equal(made->origin, HYPURA_MODEL_FOLDER);
        assert_string_equal(json_string_value(json_object_get(made->settings, "system")), names[i][0]);
        assert_true(made->bytes > 0);
        hypura_model_entry_release(made);
    }
    copy(models, "b", "a");
    assert_true(fixture_exists("models/a.gguf") && fixture_exists("models/a.mmproj.gguf"));
    hypura_models_close(models);
}

/* As it would with them: what is set goes over what the model was made with, one parameter at a time. */
static void without_links_parameters_stay(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    fixture_write_text("models/a.json", "{\"settings\": {\"parameters\": {\"temperature\": 2, \"top_k\": 3}}}");
    hypura_models *models = fixture_open();
    for (link_errno = 0; link_errno <= EPERM; link_errno += EPERM) {
        json_t *settings = json_pack("{s:{s:i, s:i}}", "parameters", "top_k", 4, "seed", 5);
        const hypura_model_entry *from = fixture_find(models, "a");
        check_ok(hypura_models_create(models, &(hypura_models_create_options){.name = "b", .from = from, .settings = settings},
                                      &error), &error);
        hypura_model_entry_release(from);
        json_decref(settings);
        const hypura_model_entry *made = fixture_find(models, "b");
        json_t *wanted = json_pack("{s:{s:i, s:i, s:i}}", "parameters", "temperature", 2, "top_k", 4, "seed", 5);
        assert_int_equal(made->origin, link_errno == 0 ? HYPURA_MODEL_FOLDER : HYPURA_MODEL_ALIAS);
        assert_true(json_equal(made->settings, wanted));
        json_decref(wanted);
        hypura_model_entry_release(made);
    }
    hypura_models_close(models);
}

static void what_is_not_ours_stays(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("elsewhere/mine.gguf", &(fixture_gguf){0});
    fixture_write_manifest("registry.ollama.ai/library/llama/latest",
                           (const fixture_layer[]){{"model", NULL, NULL}, {NULL, NULL, NULL}});
    const char *path = fixture_path("elsewhere/mine.gguf");
    hypura_models_options options = {
        .folder = fixture_path("models"), .ollama_folder = fixture_path("ollama"), .paths = &path, .n_paths = 1};
    hypura_models *models;
    check_ok(hypura_models_open(&options, &models, &error), &error);
    assert_int_equal(remove_model(models, "mine", &error), HYPURA_ERR_UNSUPPORTED);
    assert_int_equal(remove_model(models, "llama", &error), HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "ollama rm"));
    copy(models, "llama", "mario");
    check_ok(remove_model(models, "mario", &error), &error);
    const hypura_model_entry *entry = fixture_find(models, "llama");
    assert_int_equal(hypura_models_copy(models, entry, "mine", &error), HYPURA_ERR_USAGE);
    assert_true(fixture_exists("elsewhere/mine.gguf"));
    assert_int_equal(fixture_count_files("models"), 0);
    hypura_model_entry_release(entry);
    hypura_models_close(models);

    options.folder = NULL;
    check_ok(hypura_models_open(&options, &models, &error), &error);
    entry = fixture_find(models, "llama");
    assert_int_equal(hypura_models_copy(models, entry, "x", &error), HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "--models"));
    hypura_model_entry_release(entry);
    hypura_models_close(models);
}

static void hostile_names_make_nothing(void **state)
{
    (void)state;
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry = fixture_find(models, "a");
    static const char *const names[] = {"../b", "/tmp/b", "b/../../c", ".b",         "b/.c",
                                        "",     "b\n",    "b:../c",    "a/b/c/d/e/f"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        hypura_error error = {0};
        assert_int_equal(hypura_models_copy(models, entry, names[i], &error), HYPURA_ERR_USAGE);
        hypura_models_create_options create = {.name = names[i], .from = entry};
        assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    }
    assert_int_equal(fixture_count_files(""), 1);
    hypura_model_entry_release(entry);
    hypura_models_close(models);
}

static void a_damaged_model_is_removed_and_not_copied(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_text("models/bad.gguf", "no model");
    fixture_write_gguf("outside.gguf", &(fixture_gguf){0});
    fixture_write_text("models/lost.json", "{\"alias\": \"nothing\"}");
    assert_int_equal(symlink("../outside.gguf", fixture_path("models/out.gguf")), 0);
    hypura_models *models = fixture_open();
    static const char *const names[] = {"bad", "out", "lost"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const hypura_model_entry *entry;
        assert_int_equal(hypura_models_find(models, names[i], HYPURA_FIND_EXACT, &entry, &error), HYPURA_OK);
        assert_non_null(entry);
        assert_int_equal(hypura_models_copy(models, entry, "copy", &error), HYPURA_ERR_FORMAT);
        check_ok(hypura_models_remove(models, entry, &error), &error);
        hypura_model_entry_release(entry);
        assert_false(fixture_has(models, names[i]));
    }
    assert_int_equal(fixture_count_files("models"), 0);
    assert_true(fixture_exists("outside.gguf"));
    hypura_models_close(models);
}

static void what_a_dead_process_left_is_swept(void **state)
{
    (void)state;
    fixture_write_text("models/.staging/dead/model.gguf", "half");
    fixture_write_text("models/.staging/alive/model.gguf", "half");
    fixture_write_text("models/.staging/early/model.gguf", "whole");
    fixture_write_text("models/.staging/early/names", "{\"stem\": \"hal"); /* nothing was renamed then */
    int fd = open(fixture_path("models/.staging/alive"), O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    hypura_models *models = fixture_open();
    assert_false(fixture_exists("models/.staging/dead") || fixture_exists("models/.staging/early"));
    assert_true(fixture_exists("models/.staging/alive/model.gguf"));
    assert_int_equal(close(fd), 0);
    hypura_models_close(models);
}

/* What had the name lies there, and what it is called cannot be read, or is no name of a model of the folder. */
static void what_cannot_be_told_is_kept(void **state)
{
    (void)state;
    static const char *const names[] = {"", "{}", "{\"stem\": \"a\", \"old\": 7, \"files\": []}",
                                        "{\"stem\": \"a\", \"old\": \"../../a\", \"files\": [\".gguf\"]}",
                                        "{\"stem\": \"../a\", \"old\": \"a\", \"files\": [\".gguf\"]}",
                                        "{\"stem\": \"a\", \"old\": \"a\", \"files\": [\"/../../a.gguf\"]}"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        fixture_write_text("models/.staging/left/model.gguf", "new");
        fixture_write_text("models/.staging/left/old.gguf", "the only one");
        fixture_write_text("models/.staging/left/names", names[i]);
        hypura_models *models = fixture_open();
        assert_true(fixture_exists("models/.staging/left/old.gguf") && fixture_exists("models/.staging/left/model.gguf"));
        assert_int_equal(fixture_count_files("models"), 3);
        hypura_models_close(models);
    }
}

/* As in a folder that is not this user's. */
static void where_nothing_can_be_made_is_told(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    assert_int_equal(symlink("/proc/self", fixture_path("models/.staging")), 0);
    const hypura_model_entry *entry = fixture_find(models, "a");
    assert_int_equal(hypura_models_copy(models, entry, "b", &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "cannot make a folder in "));
    assert_non_null(strstr(error.message, "/models/.staging: "));
    hypura_model_entry_release(entry);
    hypura_models_close(models);
}

static void a_model_tells_what_it_is(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("models/v.gguf", &(fixture_gguf){.arch = "qwen3",
                                                        .name = "caf\xe9", /* Latin-1: no UTF-8 */
                                                        .chat_template = "{% if tools %}<think>{% endif %}"});
    fixture_write_gguf("models/v.mmproj.gguf", &(fixture_gguf){.arch = "clip"});
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry = fixture_find(models, "v");
    json_t *description;
    check_ok(hypura_model_describe(entry, false, &description, &error), &error);
    const json_t *info = json_object_get(description, "model_info");
    assert_string_equal(json_string_value(json_object_get(info, "general.architecture")), "qwen3");
    assert_int_equal(json_integer_value(json_object_get(info, "qwen3.context_length")), 4096);
    assert_int_equal(json_integer_value(json_object_get(info, "general.parameter_count")), 200);
    assert_true(json_is_null(json_object_get(info, "general.name")));
    assert_null(json_object_get(info, "tokenizer.chat_template"));
    assert_non_null(strstr(json_string_value(json_object_get(description, "template")), "tools"));
    assert_non_null(json_object_get(description, "projector_info"));
    json_t *expected = json_pack("[s, s, s, s]", "completion", "tools", "thinking", "vision");
    assert_true(json_equal(json_object_get(description, "capabilities"), expected));
    json_decref(expected);
    json_decref(description);
    bool can;
    check_ok(hypura_models_can(models, entry, "thinking", &can, &error), &error);
    assert_true(can);
    check_ok(hypura_models_can(models, entry, "insert", &can, &error), &error);
    assert_false(can);
    fixture_write_text("models/v.gguf", "gone bad");
    assert_int_equal(hypura_model_describe(entry, false, &description, &error), HYPURA_ERR_FORMAT);
    assert_null(description);
    hypura_model_entry_release(entry);
    hypura_models_close(models);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHANGES(a_copy_and_its_model_go_apart),
        CHANGES(all_parts_are_copied_and_removed),
        CHANGES(without_links_a_copy_is_an_alias),
        CHANGES(without_links_a_model_is_made_of_itself),
        CHANGES(without_links_parameters_stay),
        CHANGES(what_is_not_ours_stays),
        CHANGES(hostile_names_make_nothing),
        CHANGES(a_damaged_model_is_removed_and_not_copied),
        CHANGES(what_a_dead_process_left_is_swept),
        CHANGES(what_cannot_be_told_is_kept),
        CHANGES(where_nothing_can_be_made_is_told),
        CHANGES(a_model_tells_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
