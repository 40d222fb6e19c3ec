/* What copy, remove and create do to the folder, and what a full disk leaves of it.
 * link() is ours here, so that every file system can be one without hard links. */
#include "store_fixture.h"

#include "server/base/digest.h"
#include "server/models/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>

static int link_errno; /* 0: links work */

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);

int __wrap_link(const char *from, const char *to)
{
    if (link_errno != 0) {
        errno = link_errno;
        return -1;
    }
    return __real_link(from, to);
}

static int change_make(void **state)
{
    link_errno = 0;
    return fixture_make(state);
}

#define CHANGES(test) cmocka_unit_test_setup_teardown(test, change_make, fixture_remove)

static ino_t inode(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void check_ok(hypura_status status, const hypura_error *error)
{
    if (status != HYPURA_OK) {
        fail_msg("%s", error->message);
    }
}

static void copy(hypura_models *models, const char *from, const char *to)
{
    hypura_error error = {0};
    const hypura_model_entry *entry = fixture_find(models, from);
    check_ok(hypura_models_copy(models, entry, to, &error), &error);
    hypura_model_entry_release(entry);
}

static hypura_status remove_model(hypura_models *models, const char *name, hypura_error *error)
{
    const hypura_model_entry *entry = fixture_find(models, name);
    hypura_status status = hypura_models_remove(models, entry, error);
    hypura_model_entry_release(entry);
    return status;
}

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

static hypura_models *open_with_import(void)
{
    hypura_models *models;
    hypura_error error = {0};
    hypura_models_options options = {.folder = fixture_path("models"), .import_folder = fixture_path("import")};
    check_ok(hypura_models_open(&options, &models, &error), &error);
    return models;
}

typedef struct watcher {
    uint64_t last;
    int n_calls;
    int stop_at; /* 0: never */
    const char *cut; /* a file that becomes so long meanwhile; NULL: none */
    off_t cut_bytes;
} watcher;

static bool watch(void *user, const char *what, uint64_t done, uint64_t total)
{
    watcher *w = user;
    assert_non_null(what);
    assert_true(done >= w->last && done <= total);
    w->last = done;
    if (w->cut && truncate(w->cut, w->cut_bytes) != 0) {
        fail();
    }
    return ++w->n_calls != w->stop_at;
}

static void a_model_is_made_of_a_file(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("import/big.gguf", &(fixture_gguf){.width = 1 << 16});
    fixture_write_gguf("secret/other.gguf", &(fixture_gguf){0});
    fixture_write_text("import/notes.txt", "no model");
    assert_int_equal(symlink("../secret/other.gguf", fixture_path("import/way-out.gguf")), 0);
    hypura_models *models = open_with_import();
    json_t *settings = json_pack("{s:s, s:{s:f}}", "system", "You are Mario.", "parameters", "temperature", 0.5);
    hypura_models_create_options create = {
        .name = "mario", .path = fixture_path("import/big.gguf"), .settings = settings};
    check_ok(hypura_models_create(models, &create, &error), &error);
    const hypura_model_entry *entry = fixture_find(models, "mario");
    assert_int_equal(inode(entry->path), inode(create.path));
    assert_true(json_equal(entry->settings, settings));

    /* Settings over those of another model. */
    json_t *more = json_pack("{s:{s:i}}", "parameters", "top_k", 3);
    create = (hypura_models_create_options){.name = "luigi", .from = entry, .settings = more};
    check_ok(hypura_models_create(models, &create, &error), &error);
    hypura_model_entry_release(entry);
    entry = fixture_find(models, "luigi");
    assert_int_equal(json_object_size(json_object_get(entry->settings, "parameters")), 2);
    assert_non_null(json_object_get(entry->settings, "system"));
    hypura_model_entry_release(entry);

    static const char *const refused[] = {"secret/other.gguf", "import/way-out.gguf", "import/none.gguf", "import"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        create = (hypura_models_create_options){.name = "peach", .path = fixture_path(refused[i])};
        assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    }
    create.path = fixture_path("import/notes.txt");
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_FORMAT);
    create.path = NULL;
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    json_t *odd = json_pack("{s:i}", "system", 7);
    create.settings = odd;
    create.path = fixture_path("import/big.gguf");
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    assert_false(fixture_has(models, "peach"));
    json_decref(odd);
    json_decref(more);
    json_decref(settings);
    hypura_models_close(models);
}

static void a_copy_of_a_file_is_watched_and_stopped(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("import/big.gguf", &(fixture_gguf){.width = 1 << 16});
    hypura_models *models = open_with_import();
    watcher w = {0};
    hypura_models_create_options create = {
        .name = "mario", .path = fixture_path("import/big.gguf"), .progress = watch, .progress_user = &w};
    link_errno = EXDEV;
    check_ok(hypura_models_create(models, &create, &error), &error);
    const hypura_model_entry *entry = fixture_find(models, "mario");
    assert_int_not_equal(inode(entry->path), inode(create.path));
    assert_true(w.n_calls == 0 || w.last == entry->bytes); /* no calls: the file system cloned it */
    hypura_model_entry_release(entry);
    if (w.n_calls > 0) {
        w = (watcher){.stop_at = 2};
        create.name = "luigi";
        assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_CANCELLED);
        assert_false(fixture_has(models, "luigi"));
        assert_int_equal(fixture_count_files("models"), 1);
    }
    hypura_models_close(models);
}

static void a_file_that_changes_while_it_is_copied_is_refused(void **state)
{
    (void)state;
    static const off_t lengths[] = {2 << 20, 64 << 20};
    char source[1024];
    snprintf(source, sizeof source, "%s", fixture_path("import/big.gguf"));
    fixture_write_gguf("models/mario.gguf", &(fixture_gguf){0});
    const ino_t before = inode(fixture_path("models/mario.gguf"));
    hypura_models *models = open_with_import();
    link_errno = EXDEV;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        hypura_error error = {0};
        watcher w = {.cut = source, .cut_bytes = lengths[i]};
        const hypura_models_create_options create = {.name = "mario", .path = source, .progress = watch, .progress_user = &w};
        fixture_write_gguf("import/big.gguf", &(fixture_gguf){.width = 1 << 16});
        const hypura_status status = hypura_models_create(models, &create, &error);
        if (w.n_calls > 0) { /* else the file system cloned it */
            assert_int_equal(status, HYPURA_ERR_IO);
            assert_non_null(strstr(error.message, "was written to meanwhile"));
            assert_int_equal(inode(fixture_path("models/mario.gguf")), before);
            assert_int_equal(fixture_count_files("models"), 1);
        }
    }
    hypura_models_close(models);
}

static void a_full_disk_leaves_what_was_there(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("import/big.gguf", &(fixture_gguf){.width = 1 << 16});
    fixture_write_gguf("models/mario.gguf", &(fixture_gguf){0});
    hypura_models *models = open_with_import();
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {.rlim_cur = 1 << 20, .rlim_max = old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    link_errno = EXDEV;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    hypura_models_create_options create = {.name = "mario", .path = fixture_path("import/big.gguf")};
    hypura_status status = hypura_models_create(models, &create, &error);
    hypura_blob *blob;
    hypura_error blob_error = {0};
    static const char digest[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    check_ok(hypura_blob_begin(models, digest, &blob, &blob_error), &blob_error);
    static char bytes[2 << 20];
    hypura_status blob_status = hypura_blob_write(blob, bytes, sizeof bytes, &blob_error);
    hypura_blob_abandon(blob);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    if (status != HYPURA_OK) { /* a file system that clones needs no room */
        assert_int_equal(status, HYPURA_ERR_IO);
        assert_non_null(strstr(error.message, "6.3 MiB"));
        assert_non_null(strstr(error.message, "free"));
        const hypura_model_entry *entry = fixture_find(models, "mario");
        assert_true(entry->bytes < 4096);
        hypura_model_entry_release(entry);
    }
    assert_int_equal(blob_status, HYPURA_ERR_IO);
    assert_int_equal(fixture_count_files("models"), 1);
    hypura_models_close(models);
}

static void digest_of(const char *path, char *hex)
{
    size_t bytes;
    char *text = hypura_store_read_text(path, 1 << 20, &bytes);
    assert_non_null(text);
    hypura_digest *digest = hypura_digest_begin();
    hypura_digest_add(digest, text, bytes);
    hypura_digest_end(digest, hex);
    free(text);
}

/* Sends the file in pieces as a blob of that digest. */
static hypura_status send_blob(hypura_models *models, const char *path, const char *digest, hypura_error *error)
{
    hypura_blob *blob;
    size_t bytes;
    char *text = hypura_store_read_text(path, 1 << 20, &bytes);
    hypura_status status = hypura_blob_begin(models, digest, &blob, error);
    for (size_t at = 0; status == HYPURA_OK && at < bytes; at += 100) {
        assert_int_equal(hypura_blob_write(blob, text + at, bytes - at < 100 ? bytes - at : 100, error), HYPURA_OK);
    }
    free(text);
    return status == HYPURA_OK ? hypura_blob_commit(blob, error) : status;
}

static void a_model_is_made_of_files_that_were_sent(void **state)
{
    (void)state;
    hypura_error error = {0};
    char model[HYPURA_DIGEST_BYTES];
    char projector[HYPURA_DIGEST_BYTES];
    fixture_write_gguf("m.gguf", &(fixture_gguf){0});
    fixture_write_gguf("p.gguf", &(fixture_gguf){.arch = "clip"});
    digest_of(fixture_path("m.gguf"), model);
    digest_of(fixture_path("p.gguf"), projector);
    hypura_models *models = fixture_open();
    assert_false(hypura_models_has_blob(models, model));
    assert_int_equal(send_blob(models, fixture_path("p.gguf"), model, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "mismatch"));
    assert_false(hypura_models_has_blob(models, model));
    assert_int_equal(fixture_count_files("models"), 0);
    check_ok(send_blob(models, fixture_path("m.gguf"), model, &error), &error);
    check_ok(send_blob(models, fixture_path("p.gguf"), projector, &error), &error);
    assert_true(hypura_models_has_blob(models, model) && hypura_models_has_blob(models, projector));

    char prefixed[80];
    snprintf(prefixed, sizeof prefixed, "sha256:%s", model);
    const char *both[] = {prefixed, projector};
    const char *one[] = {projector};
    const char *bad[] = {"../../m.gguf"};
    hypura_models_create_options create = {.name = "sent", .blobs = bad, .n_blobs = 1};
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    create.blobs = one;
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    const char *two_models[] = {model, model};
    const char *two_projectors[] = {projector, model, projector};
    create.blobs = two_models;
    create.n_blobs = 2;
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "2 of the files sent are models"));
    create.blobs = two_projectors;
    create.n_blobs = 3;
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "2 of the files sent are projectors"));
    create.blobs = both;
    create.n_blobs = 2;
    check_ok(hypura_models_create(models, &create, &error), &error);
    const hypura_model_entry *entry = fixture_find(models, "sent");
    assert_non_null(entry->projector_path);
    hypura_model_entry_release(entry);
    assert_false(hypura_models_has_blob(models, model));
    assert_int_equal(fixture_count_files("models"), 2);

    static const char *const digests[] = {"", "sha256:", "../x", "sha256:../../../../etc/passwd", "zz"};
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
        hypura_blob *blob;
        assert_int_equal(hypura_blob_begin(models, digests[i], &blob, &error), HYPURA_ERR_USAGE);
        assert_null(blob);
        assert_false(hypura_models_has_blob(models, digests[i]));
    }
    hypura_models_close(models);
}

static void a_model_is_made_with_an_adapter(void **state)
{
    (void)state;
    hypura_error error = {0};
    char fits[HYPURA_DIGEST_BYTES];
    char other[HYPURA_DIGEST_BYTES];
    char model[HYPURA_DIGEST_BYTES];
    fixture_write_gguf("models/base.gguf", &(fixture_gguf){0});
    fixture_write_gguf("a.gguf", &(fixture_gguf){.adapter = true});
    fixture_write_gguf("b.gguf", &(fixture_gguf){.adapter = true, .width = 16});
    digest_of(fixture_path("models/base.gguf"), model);
    digest_of(fixture_path("a.gguf"), fits);
    digest_of(fixture_path("b.gguf"), other);
    hypura_models *models = fixture_open();
    check_ok(send_blob(models, fixture_path("a.gguf"), fits, &error), &error);
    check_ok(send_blob(models, fixture_path("b.gguf"), other, &error), &error);
    const hypura_model_entry *base = fixture_find(models, "base");
    hypura_models_create_options create = {.name = "tuned", .from = base, .adapters = &(const char *){other}, .n_adapters = 1};
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "take the model it was made for"));
    create.adapters = &(const char *){model}; /* which was not sent */
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "no file was sent"));
    create.adapters = &(const char *){"../x"};
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_USAGE);
    assert_false(fixture_has(models, "tuned"));
    const char *blob = fits;
    hypura_models_create_options alone = {.name = "alone", .blobs = &blob, .n_blobs = 1};
    assert_int_equal(hypura_models_create(models, &alone, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "is an adapter"));
    create.adapters = &(const char *){fits};
    check_ok(hypura_models_create(models, &create, &error), &error);
    assert_false(hypura_models_has_blob(models, fits));

    const hypura_model_entry *tuned = fixture_find(models, "tuned");
    assert_string_equal(tuned->adapter_path, fixture_path("models/tuned.adapter.gguf"));
    check_ok(hypura_models_copy(models, tuned, "copy", &error), &error);
    const hypura_model_entry *copy = fixture_find(models, "copy");
    assert_string_equal(copy->adapter_path, fixture_path("models/copy.adapter.gguf"));
    /* Further ones come behind that of the model it is made from, as many as can be applied. */
    char third[HYPURA_DIGEST_BYTES];
    fixture_write_gguf("c.gguf", &(fixture_gguf){.name = "c", .adapter = true});
    digest_of(fixture_path("c.gguf"), third);
    check_ok(send_blob(models, fixture_path("a.gguf"), fits, &error), &error);
    check_ok(send_blob(models, fixture_path("c.gguf"), third, &error), &error);
    const char *many[HYPURA_MAX_ADAPTERS] = {third, fits, third, fits, third, fits, third, fits};
    create = (hypura_models_create_options){.name = "again", .from = tuned, .adapters = many, .n_adapters = HYPURA_MAX_ADAPTERS};
    assert_int_equal(hypura_models_create(models, &create, &error), HYPURA_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "more than 8 adapters"));
    assert_false(fixture_has(models, "again"));
    create.n_adapters = 2;
    check_ok(hypura_models_create(models, &create, &error), &error);
    const hypura_model_entry *again = fixture_find(models, "again");
    assert_int_equal(again->n_adapters, 3);
    assert_string_equal(again->adapter_paths[0], fixture_path("models/again.adapter.gguf"));
    assert_string_equal(again->adapter_paths[1], fixture_path("models/again.adapter-2.gguf"));
    assert_string_equal(again->adapter_paths[2], fixture_path("models/again.adapter-3.gguf"));
    char second[HYPURA_DIGEST_BYTES];
    digest_of(again->adapter_paths[1], second);
    assert_string_equal(second, third);
    assert_true(again->adapter_id != tuned->adapter_id && again->bytes > tuned->bytes);
    assert_string_not_equal(again->digest, tuned->digest);
    check_ok(hypura_models_remove(models, again, &error), &error);
    assert_false(fixture_exists("models/again.adapter-2.gguf") || fixture_exists("models/again.adapter-3.gguf"));
    hypura_model_entry_release(again);
    check_ok(hypura_models_remove(models, tuned, &error), &error);
    assert_false(fixture_exists("models/tuned.adapter.gguf"));
    assert_true(fixture_exists("models/copy.adapter.gguf"));
    hypura_model_entry_release(copy);
    hypura_model_entry_release(tuned);
    hypura_model_entry_release(base);
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
        CHANGES(a_model_is_made_of_a_file),
        CHANGES(a_copy_of_a_file_is_watched_and_stopped),
        CHANGES(a_file_that_changes_while_it_is_copied_is_refused),
        CHANGES(a_full_disk_leaves_what_was_there),
        CHANGES(a_model_is_made_of_files_that_were_sent),
        CHANGES(a_model_is_made_with_an_adapter),
        CHANGES(a_damaged_model_is_removed_and_not_copied),
        CHANGES(what_a_dead_process_left_is_swept),
        CHANGES(what_cannot_be_told_is_kept),
        CHANGES(where_nothing_can_be_made_is_told),
        CHANGES(a_model_tells_what_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
