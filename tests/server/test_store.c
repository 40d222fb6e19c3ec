/* What is listed and found: the folder, and files of the command line. */
#include "store_fixture.h"

#include "server/models/card.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

static void a_file_that_is_dropped_in_is_a_model(void **state)
{
    (void)state;
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 0);
    fixture_write_gguf("models/Qwen3-30B-A3B-Q4_K_M.gguf",
                       &(fixture_gguf){.arch = "qwen3moe", .file_type = 15, .name = "Qwen"});
    static const char *const typed[] = {"Qwen3-30B-A3B-Q4_K_M", "qwen3-30b-a3b-q4_k_m.gguf",  "qwen3:30b", "qwen3",
                                        "QWEN3:latest",         "qwen3-30b-a3b-q4_k_m:latest"};
    for (size_t i = 0; i < sizeof typed / sizeof *typed; i++) {
        const hypura_model_entry *entry = fixture_find(models, typed[i]);
        assert_string_equal(entry->name, "Qwen3-30B-A3B-Q4_K_M:latest");
        assert_string_equal(entry->path, fixture_path("models/Qwen3-30B-A3B-Q4_K_M.gguf"));
        assert_string_equal(entry->family, "qwen3moe");
        assert_string_equal(entry->quantization_level, "Q4_K_M");
        assert_string_equal(entry->parameter_size, "200");
        assert_string_equal(entry->format, "gguf");
        assert_int_equal(strlen(entry->digest), 64);
        assert_int_equal(entry->n_files, 1);
        assert_int_equal(entry->context_length, 4096);
        hypura_model_entry_release(entry);
    }
    /* What changes or removes takes the name alone. */
    assert_false(fixture_has(models, "qwen3"));
    assert_true(fixture_has(models, "QWEN3-30B-A3B-Q4_K_M"));
    hypura_models_close(models);
}

static void a_beginning_that_several_have_is_refused_with_their_names(void **state)
{
    (void)state;
    fixture_write_gguf("models/qwen3-4b.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/qwen3-30b.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry;
    hypura_error error = {0};
    assert_int_equal(hypura_models_find(models, "qwen3", HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_USAGE);
    assert_null(entry);
    assert_non_null(strstr(error.message, "qwen3-4b"));
    assert_non_null(strstr(error.message, "qwen3-30b"));
    hypura_model_entry_release(fixture_find(models, "qwen3:4b"));
    hypura_models_close(models);
}

static void an_entry_outlives_its_file_and_the_store(void **state)
{
    (void)state;
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry = fixture_find(models, "a");
    assert_int_equal(unlink(entry->path), 0);
    assert_false(fixture_has(models, "a"));
    assert_int_equal(fixture_count(models), 0);
    hypura_models_close(models);
    assert_string_equal(entry->name, "a:latest");
    hypura_model_entry_release(entry);
}

static void a_digest_changes_with_its_model(void **state)
{
    (void)state;
    char first[65];
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry = fixture_find(models, "a");
    memcpy(first, entry->digest, sizeof first);
    hypura_model_entry_release(entry);
    fixture_write_text("models/a.json", "{\"settings\": {\"system\": \"You are Mario.\"}}");
    hypura_model_list list;
    hypura_error error;
    assert_int_equal(hypura_models_list(models, &list, &error), HYPURA_OK);
    assert_int_equal(list.n, 1);
    assert_string_not_equal(list.entries[0]->digest, first);
    assert_string_equal(json_string_value(json_object_get(list.entries[0]->settings, "system")), "You are Mario.");
    hypura_model_list_clear(&list);
    hypura_models_close(models);
}

static void settings_that_cannot_be_read_are_told(void **state)
{
    (void)state;
    static const char *const broken[] = {"{\"settings\":", "[]", "", "{\"settings\": [1]}"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        fixture_write_gguf("models/a.gguf", &(fixture_gguf){0});
        fixture_write_text("models/a.json", broken[i]);
        hypura_models *models = fixture_open();
        const hypura_model_entry *entry = NULL;
        hypura_error error;
        assert_int_equal(hypura_models_find(models, "a", HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_FORMAT);
        assert_non_null(strstr(error.message, "its settings cannot be read"));
        fixture_write_text("models/a.json", "{\"of\": \"another program\"}");
        entry = fixture_find(models, "a");
        assert_int_equal(json_object_size(entry->settings), 0);
        hypura_model_entry_release(entry);
        hypura_models_close(models);
    }
}

static void folders_are_part_of_the_name(void **state)
{
    (void)state;
    fixture_write_gguf("models/hf.co/user/repo@Q4_K_M.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/.staging/x.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/My Model (v2).gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 2);
    hypura_model_entry_release(fixture_find(models, "huggingface.co/user/repo:q4_k_m"));
    hypura_model_entry_release(fixture_find(models, "hf.co/user/repo"));
    hypura_model_entry_release(fixture_find(models, "my model (v2).gguf"));
    hypura_models_close(models);
}

static void a_split_model_is_one_and_whole(void **state)
{
    (void)state;
    for (int part = 1; part <= 3; part++) {
        char below[64];
        snprintf(below, sizeof below, "models/big-%05d-of-00003.gguf", part);
        fixture_write_gguf(below, &(fixture_gguf){.part = part, .n_parts = 3});
    }
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 1);
    const hypura_model_entry *entry = fixture_find(models, "big-00002-of-00003.gguf");
    struct stat st;
    assert_int_equal(stat(entry->path, &st), 0);
    assert_int_equal(entry->n_files, 3);
    assert_int_equal(entry->bytes, 3 * st.st_size);
    assert_string_equal(entry->parameter_size, "600");
    hypura_model_entry_release(entry);

    assert_int_equal(unlink(fixture_path("models/big-00003-of-00003.gguf")), 0);
    hypura_models_close(models);
    models = fixture_open();
    hypura_error error = {0};
    assert_int_equal(fixture_count(models), 0);
    assert_int_equal(hypura_models_find(models, "big", HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "part 3 of 3"));
    /* A part that comes later completes it. */
    fixture_write_gguf("models/big-00003-of-00003.gguf", &(fixture_gguf){.part = 3, .n_parts = 3});
    hypura_model_entry_release(fixture_find(models, "big"));
    hypura_models_close(models);
}

static void a_damaged_file_is_not_listed_and_says_why(void **state)
{
    (void)state;
    fixture_write_text("models/bad.gguf", "GGUF and nothing else");
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry;
    hypura_error error = {0};
    assert_int_equal(fixture_count(models), 0);
    assert_int_equal(hypura_models_find(models, "bad", HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "bad.gguf"));
    hypura_models_close(models);
}

static off_t bytes_of(const char *below)
{
    struct stat file;
    assert_int_equal(stat(fixture_path(below), &file), 0);
    return file.st_size;
}

static void projectors_go_with_their_models(void **state)
{
    (void)state;
    fixture_write_gguf("models/Qwen2.5-VL-3B-Instruct-Q4_K_M.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/mmproj-Qwen2.5-VL-3B-Instruct-f16.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_gguf("models/llava.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/llava.mmproj.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_gguf("models/wide.gguf", &(fixture_gguf){.width = 16});
    fixture_write_gguf("models/mmproj-wide-f16.gguf", &(fixture_gguf){.arch = "clip", .width = 32});
    fixture_write_gguf("models/mmproj-model-f16.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_gguf("models/gemma/gemma-4b.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/gemma/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_gguf("models/pixtral/pixtral-12b.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/pixtral/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"}); /* it has one that fits better */
    fixture_write_gguf("models/pixtral/pixtral-12b.mmproj.gguf", &(fixture_gguf){.arch = "clip"});
    hypura_models *models = fixture_open();
    static const struct {
        const char *name;
        const char *path;
        const char *projector;
    } cases[] = {
        {"qwen2.5-vl-3b-instruct-q4_k_m", "models/Qwen2.5-VL-3B-Instruct-Q4_K_M.gguf",
         "models/mmproj-Qwen2.5-VL-3B-Instruct-f16.gguf"},
        {"llava", "models/llava.gguf", "models/llava.mmproj.gguf"},
        {"wide", "models/wide.gguf", NULL},
        {"gemma-4b", "models/gemma/gemma-4b.gguf", "models/gemma/mmproj-F16.gguf"},
        {"pixtral-12b", "models/pixtral/pixtral-12b.gguf", "models/pixtral/pixtral-12b.mmproj.gguf"},
    };
    assert_int_equal(fixture_count(models), sizeof cases / sizeof *cases);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const hypura_model_entry *entry = fixture_find(models, cases[i].name);
        if (cases[i].projector == NULL) {
            assert_null(entry->projector_path);
        } else {
            assert_non_null(entry->projector_path);
            assert_string_equal(entry->projector_path, fixture_path(cases[i].projector));
        }
        const off_t projector_bytes = cases[i].projector ? bytes_of(cases[i].projector) : 0;
        assert_int_equal(entry->bytes, bytes_of(cases[i].path) + projector_bytes);
        hypura_model_entry_release(entry);
    }
    hypura_models_close(models);
}

static void links_out_of_the_folder_are_not_there(void **state)
{
    (void)state;
    fixture_write_gguf("outside.gguf", &(fixture_gguf){0});
    fixture_write_gguf("elsewhere/deep.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/in.gguf", &(fixture_gguf){0});
    assert_int_equal(symlink("../outside.gguf", fixture_path("models/out.gguf")), 0);
    assert_int_equal(symlink("../elsewhere", fixture_path("models/way")), 0);
    assert_int_equal(symlink("in.gguf", fixture_path("models/other.gguf")), 0);
    assert_int_equal(symlink("loop.gguf", fixture_path("models/loop.gguf")), 0);
    assert_int_equal(mkfifo(fixture_path("models/pipe.gguf"), 0600), 0);
    hypura_models *models = fixture_open();
    assert_int_equal(fixture_count(models), 2);
    assert_true(fixture_has(models, "in") && fixture_has(models, "other"));
    assert_false(fixture_has(models, "way/deep") || fixture_has(models, "pipe"));
    static const char *const links[] = {"out", "loop"};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        const hypura_model_entry *entry;
        hypura_error error = {0};
        assert_int_equal(hypura_models_find(models, links[i], HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_FORMAT);
        assert_null(entry);
        assert_non_null(strstr(error.message, "leads out of the models folder"));
    }
    hypura_models_close(models);
}

static void hostile_names_find_nothing(void **state)
{
    (void)state;
    fixture_write_gguf("outside.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/in.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    char lengthy[4096];
    memset(lengthy, 'a', sizeof lengthy - 1);
    lengthy[sizeof lengthy - 1] = '\0';
    const char *const names[] = {"../outside",
                                 "../outside.gguf",
                                 "in/../../outside",
                                 "/etc/passwd",
                                 "",
                                 ".",
                                 "..",
                                 "in\n",
                                 "\xff\xff",
                                 "%s%s%n",
                                 "./in",
                                 "models/in",
                                 "in.gguf/",
                                 lengthy,
                                 ":",
                                 "/",
                                 "in:latest:latest",
                                 "*",
                                 "in\x01"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const hypura_model_entry *entry = NULL;
        hypura_error error;
        assert_int_equal(hypura_models_find(models, names[i], HYPURA_FIND_TYPED, &entry, &error), HYPURA_OK);
        assert_null(entry);
    }
    /* Not by its path either, absolute as it is. */
    assert_false(fixture_has(models, fixture_path("outside.gguf")));
    hypura_models_close(models);
}

static void files_of_the_command_line_come_first(void **state)
{
    (void)state;
    fixture_write_gguf("elsewhere/a.gguf", &(fixture_gguf){.name = "first"});
    fixture_write_gguf("models/a.gguf", &(fixture_gguf){.name = "second"});
    const char *path = fixture_path("elsewhere/a.gguf");
    hypura_models_options options = {.folder = fixture_path("models"), .paths = &path, .n_paths = 1};
    hypura_models *models;
    hypura_error error;
    assert_int_equal(hypura_models_open(&options, &models, &error), HYPURA_OK);
    const hypura_model_entry *entry = fixture_find(models, "a");
    assert_int_equal(entry->origin, HYPURA_MODEL_PATH);
    assert_string_equal(entry->path, path);
    hypura_model_entry_release(entry);
    assert_int_equal(fixture_count(models), 1);
    hypura_models_close(models);

    /* A link has the name that it was given. */
    assert_int_equal(symlink("a.gguf", fixture_path("elsewhere/nick.gguf")), 0);
    path = fixture_path("elsewhere/nick.gguf");
    options.paths = &path;
    assert_int_equal(hypura_models_open(&options, &models, &error), HYPURA_OK);
    hypura_model_entry_release(fixture_find(models, "nick"));
    hypura_models_close(models);

    path = fixture_path("elsewhere/none.gguf");
    options.paths = &path;
    assert_int_equal(hypura_models_open(&options, &models, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "none.gguf"));
}

static void a_file_is_no_folder_and_a_missing_folder_is_empty(void **state)
{
    (void)state;
    fixture_write_gguf("elsewhere/a.gguf", &(fixture_gguf){.name = "first"});
    hypura_models_options options = {.folder = fixture_path("elsewhere/a.gguf")};
    hypura_models *models;
    hypura_error error;
    assert_int_equal(hypura_models_open(&options, &models, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "a.gguf"));
    assert_null(models);
    options.folder = fixture_path("missing");
    assert_int_equal(hypura_models_open(&options, &models, &error), HYPURA_OK);
    assert_int_equal(fixture_count(models), 0);
    hypura_models_close(models);
}

/* Beside its model it is that model's, and anywhere else it is no model. */
static void adapters_go_with_their_models(void **state)
{
    (void)state;
    const struct timespec times[] = {{1600000000, 1}, {1600000000, 1}};
    fixture_write_gguf("models/tuned.gguf", &(fixture_gguf){0});
    fixture_write_gguf("models/lonely.gguf", &(fixture_gguf){.adapter = true});
    fixture_write_gguf("models/plain.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    const hypura_model_entry *before = fixture_find(models, "tuned");
    assert_null(before->adapter_path);
    hypura_models_close(models);
    fixture_write_gguf("models/tuned.adapter.gguf", &(fixture_gguf){.adapter = true});
    assert_int_equal(utimensat(AT_FDCWD, fixture_path("models/tuned.adapter.gguf"), times, 0), 0);
    models = fixture_open();
    assert_int_equal(fixture_count(models), 2);
    const hypura_model_entry *entry = fixture_find(models, "tuned");
    assert_string_equal(entry->adapter_path, fixture_path("models/tuned.adapter.gguf"));
    assert_true(entry->bytes > before->bytes);
    assert_string_not_equal(entry->digest, before->digest);
    hypura_models_close(models);

    /* Another one of the same size and age is another model. */
    fixture_write_gguf("models/new", &(fixture_gguf){.adapter = true});
    assert_int_equal(utimensat(AT_FDCWD, fixture_path("models/new"), times, 0), 0);
    char from[1024];
    snprintf(from, sizeof from, "%s", fixture_path("models/new"));
    assert_int_equal(rename(from, fixture_path("models/tuned.adapter.gguf")), 0);
    models = fixture_open();
    const hypura_model_entry *other = fixture_find(models, "tuned");
    assert_int_equal(other->bytes, entry->bytes);
    assert_string_not_equal(other->digest, entry->digest);
    hypura_models_close(models);
    hypura_model_entry_release(other);
    hypura_model_entry_release(entry);
    hypura_model_entry_release(before);

    fixture_write_text("models/tuned.adapter.gguf", "no adapter");
    models = fixture_open();
    hypura_error error = {0};
    assert_int_equal(hypura_models_find(models, "tuned", HYPURA_FIND_TYPED, &entry, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "its adapter: "));
    hypura_models_close(models);
}

static void parameters_are_counted_as_ollama_writes_them(void **state)
{
    (void)state;
    static const struct {
        uint64_t n;
        const char *text;
    } cases[] = {{0, "0"},           {999, "999"},           {134515008, "134.52M"},
                 {7000000000, "7B"}, {30532122624, "30.5B"}, {671026419200, "671.0B"},
                 {3000000, "3M"},    {33000, "33K"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[16];
        hypura_card_format_parameters(cases[i].n, text, sizeof text);
        assert_string_equal(text, cases[i].text);
    }
}

/* Threads that list and find while files come and go. */
static atomic_bool stop_threads;

static void *use(void *user)
{
    hypura_models *models = user;
    size_t n = 0;
    while (!atomic_load(&stop_threads)) {
        hypura_model_list list;
        const hypura_model_entry *entry;
        hypura_error error;
        if (hypura_models_list(models, &list, &error) == HYPURA_OK) {
            for (size_t i = 0; i < list.n; i++) {
                n += strlen(list.entries[i]->path) + json_object_size(list.entries[i]->settings);
            }
            hypura_model_list_clear(&list);
        }
        if (hypura_models_find(models, "steady", HYPURA_FIND_TYPED, &entry, &error) != HYPURA_OK || entry == NULL) {
            return models;
        }
        hypura_model_entry_release(entry);
    }
    return n > 0 ? NULL : models;
}

static void threads_may_share_it(void **state)
{
    (void)state;
    fixture_write_gguf("models/steady.gguf", &(fixture_gguf){0});
    hypura_models *models = fixture_open();
    pthread_t threads[4];
    atomic_store(&stop_threads, false);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use, models), 0);
    }
    for (int i = 0; i < 100; i++) {
        fixture_write_gguf("models/moving.gguf", &(fixture_gguf){.width = 8 + (uint32_t)i});
        hypura_model_entry_release(fixture_find(models, "moving"));
        (void)unlink(fixture_path("models/moving.gguf"));
    }
    atomic_store(&stop_threads, true);
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    hypura_models_close(models);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_that_is_dropped_in_is_a_model),
        IN_FOLDER(a_beginning_that_several_have_is_refused_with_their_names),
        IN_FOLDER(an_entry_outlives_its_file_and_the_store),
        IN_FOLDER(a_digest_changes_with_its_model),
        IN_FOLDER(settings_that_cannot_be_read_are_told),
        IN_FOLDER(folders_are_part_of_the_name),
        IN_FOLDER(a_split_model_is_one_and_whole),
        IN_FOLDER(a_damaged_file_is_not_listed_and_says_why),
        IN_FOLDER(projectors_go_with_their_models),
        IN_FOLDER(links_out_of_the_folder_are_not_there),
        IN_FOLDER(hostile_names_find_nothing),
        IN_FOLDER(files_of_the_command_line_come_first),
        IN_FOLDER(a_file_is_no_folder_and_a_missing_folder_is_empty),
        IN_FOLDER(adapters_go_with_their_models),
        cmocka_unit_test(parameters_are_counted_as_ollama_writes_them),
        IN_FOLDER(threads_may_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
