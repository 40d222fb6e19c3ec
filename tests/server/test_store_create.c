/* Models that are made of files, here or sent, and what a full disk leaves of it. */
#include "change_fixture.h"

#include "server/base/digest.h"
#include "server/models/store_internal.h"

#include <signal.h>
#include <sys/resource.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHANGES(a_model_is_made_of_a_file),
        CHANGES(a_copy_of_a_file_is_watched_and_stopped),
        CHANGES(a_file_that_changes_while_it_is_copied_is_refused),
        CHANGES(a_full_disk_leaves_what_was_there),
        CHANGES(a_model_is_made_of_files_that_were_sent),
        CHANGES(a_model_is_made_with_an_adapter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
