/* A model takes the place of another one: whatever ends that in the middle, one of the two is there, whole.
 * rename(), link() and opendir() are ours here, and fsync(), as no power is lost. */
#include "store_fixture.h"

#include "server/models/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static enum { GO_ON = 0, FAIL_ONE, FAIL_FROM, DIE_BEFORE, DIE_AFTER } fault;
static int n_until; /* renames until the fault */
static int link_errno;
static void (*around_link)(bool before); /* once */
static int n_opens; /* of folders, until one of them is refused; 0: none is */

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
    (void)fd;
    return 0;
}

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);

int __wrap_link(const char *from, const char *to)
{
    void (*around)(bool before) = around_link;
    around_link = NULL;
    if (around != NULL) {
        around(true);
    }
    errno = link_errno;
    const int result = link_errno != 0 ? -1 : __real_link(from, to);
    if (around != NULL) {
        around(false);
    }
    return result;
}

DIR *__real_opendir(const char *path);
DIR *__wrap_opendir(const char *path);

DIR *__wrap_opendir(const char *path)
{
    if (n_opens > 0 && --n_opens == 0) {
        errno = EMFILE;
        return NULL;
    }
    return __real_opendir(path);
}

int __wrap_rename(const char *from, const char *to)
{
    const bool is_due = fault != GO_ON && --n_until <= 0;
    if (is_due && (fault == FAIL_FROM || (fault == FAIL_ONE && n_until == 0))) {
        errno = EIO;
        return -1;
    }
    if (is_due && fault == DIE_BEFORE) {
        (void)raise(SIGKILL);
    }
    const int result = __real_rename(from, to);
    if (is_due && fault == DIE_AFTER) {
        (void)raise(SIGKILL);
    }
    return result;
}

/* ---- two models -------------------------------------------------------------- */

enum { N_SHAPES = 5 };
static const char *const shapes[N_SHAPES] = {"none", "plain", "full", "split", "alias"};

/* Makes a model of that name by hand; what it is made of tells its shape by "system", and a file by its size. */
static void make(const char *name, int shape)
{
    char path[256];
    char text[128];
    snprintf(text, sizeof text, "{\"version\": 1, %s\"settings\": {\"system\": \"%s\"}}",
             strcmp(shapes[shape], "alias") == 0 ? "\"alias\": \"base\", " : "", shapes[shape]);
    for (int part = 1; strcmp(shapes[shape], "split") == 0 && part <= 3; part++) {
        snprintf(path, sizeof path, "models/%s-%05d-of-00003.gguf", name, part);
        fixture_write_gguf(path, &(fixture_gguf){.part = part, .n_parts = 3, .width = 24});
    }
    if (strcmp(shapes[shape], "plain") == 0 || strcmp(shapes[shape], "full") == 0) {
        snprintf(path, sizeof path, "models/%s.gguf", name);
        fixture_write_gguf(path, &(fixture_gguf){.width = strcmp(shapes[shape], "full") == 0 ? 16 : 8});
    }
    if (strcmp(shapes[shape], "full") == 0) {
        snprintf(path, sizeof path, "models/%s.mmproj.gguf", name);
        fixture_write_gguf(path, &(fixture_gguf){.arch = "clip", .width = 16});
        snprintf(path, sizeof path, "models/%s.adapter.gguf", name);
        fixture_write_gguf(path, &(fixture_gguf){.adapter = true, .width = 16});
        snprintf(path, sizeof path, "models/%s.gguf.records", name);
        fixture_write_text(path, "experts");
    }
    if (strcmp(shapes[shape], "none") != 0) {
        snprintf(path, sizeof path, "models/%s.json", name);
        fixture_write_text(path, text);
    }
}

static int n_files_of(int shape)
{
    static const int n[N_SHAPES] = {0, 2, 5, 4, 1};
    return n[shape];
}

/* Which shape "mario" has, all of it: -1 when it is a mixture. */
static int shape_now(hypura_models *models)
{
    const hypura_model_entry *entry = NULL;
    hypura_error error = {0};
    assert_int_equal(hypura_models_find(models, "mario", HYPURA_FIND_EXACT, &entry, &error), HYPURA_OK);
    if (entry == NULL) {
        return 0;
    }
    hypura_map *map = NULL;
    const char *system = json_string_value(json_object_get(entry->settings, "system"));
    int found = -1;
    for (int i = 1; i < N_SHAPES && system != NULL; i++) {
        found = strcmp(system, shapes[i]) == 0 ? i : found;
    }
    assert_int_equal(hypura_map_open(entry->path, &map, &error), HYPURA_OK);
    const int64_t width = map->embedding_length;
    hypura_map_close(map);
    const bool full = found == 2;
    const bool whole = found > 0 && width == (full ? 16 : found == 3 ? 24 : 8) && (entry->projector_path != NULL) == full &&
                       (entry->n_adapters == 1) == full && entry->n_files == (found == 3 ? 3 : 1) &&
                       (entry->origin == HYPURA_MODEL_ALIAS) == (found == 4);
    hypura_model_entry_release(entry);
    return whole ? found : -1;
}

/* base, a model "from" of one shape, and "Mario" of another. */
static void begin(int old, int new)
{
    (void)fixture_remove(NULL);
    assert_int_equal(fixture_make(NULL), 0);
    link_errno = strcmp(shapes[new], "alias") == 0 ? EPERM : 0; /* where there are links a copy is none */
    make("base", 1);
    make("from", new);
    make("Mario", old);
}

static hypura_status put(hypura_models *models, hypura_error *error)
{
    const hypura_model_entry *from = fixture_find(models, "from");
    const hypura_status status = hypura_models_copy(models, from, "mario", error);
    hypura_model_entry_release(from);
    return status;
}

static int n_files_after(int old, int new, bool is_new)
{
    return n_files_of(1) + n_files_of(new) + n_files_of(is_new ? new : old);
}

static void check(int old, int new, bool is_new, int step)
{
    hypura_models *models = fixture_open();
    const int shape = shape_now(models);
    const int n = fixture_count_files("models");
    hypura_models_close(models);
    if (shape != (is_new ? new : old) || n != n_files_after(old, new, is_new)) {
        fail_msg("%s by %s, step %d: is %d, of %d files", shapes[old], shapes[new], step, shape, n);
    }
}

/* ---- tests ------------------------------------------------------------------- */

static void a_rename_that_fails_leaves_the_old_one(void **state)
{
    (void)state;
    for (int old = 0; old < N_SHAPES; old++) {
        for (int new = 1; new < N_SHAPES; new++) {
            hypura_status status = HYPURA_ERR_IO;
            int step;
            for (step = 1; status != HYPURA_OK; step++) {
                hypura_error error = {0};
                begin(old, new);
                hypura_models *models = fixture_open();
                fault = FAIL_ONE;
                n_until = step;
                status = put(models, &error);
                fault = GO_ON;
                assert_true(status == HYPURA_OK || (status == HYPURA_ERR_IO && strstr(error.message, "/models/") != NULL));
                assert_true(status == HYPURA_OK || shape_now(models) == old);
                hypura_models_close(models);
                check(old, new, status == HYPURA_OK, step);
            }
            assert_true(step > n_files_of(new));
        }
    }
}

/* One install, by a process that is killed at that rename; whether it was. */
static bool is_killed(bool after, int step)
{
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        hypura_error error;
        hypura_models *models = fixture_open();
        fault = after ? DIE_AFTER : DIE_BEFORE;
        n_until = step;
        _exit(put(models, &error) == HYPURA_OK ? 0 : 1);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFSIGNALED(ended) || WEXITSTATUS(ended) == 0);
    return WIFSIGNALED(ended);
}

static void who_is_killed_leaves_one_of_them(void **state)
{
    (void)state;
    static const int pairs[][2] = {{0, 2}, {1, 3}, {2, 3}, {2, 4}, {3, 1}, {4, 2}};
    for (size_t i = 0; i < 2 * (sizeof pairs / sizeof *pairs); i++) {
        const int old = pairs[i / 2][0];
        const int new = pairs[i / 2][1];
        bool died = true;
        bool was_new = false;
        for (int step = 1; died; step++) {
            begin(old, new);
            died = is_killed(i % 2 != 0, step);
            hypura_models *models = fixture_open();
            const bool is_new = shape_now(models) == new;
            hypura_models_close(models);
            check(old, new, is_new, step);
            assert_true(is_new || (died && !was_new));
            was_new = is_new;
        }
    }
}

/* A drive that takes nothing any more. */
static void what_cannot_be_put_back_is_kept(void **state)
{
    (void)state;
    for (int step = 2; step <= 9; step++) {
        hypura_error error = {0};
        begin(2, 3);
        hypura_models *models = fixture_open();
        fault = FAIL_FROM;
        n_until = step;
        assert_int_equal(put(models, &error), HYPURA_ERR_IO);
        assert_non_null(strstr(error.message, "/.staging/"));
        assert_non_null(strstr(error.message, "put back when"));
        hypura_models_close(models);
        n_until = 0; /* still so for the next one, which leaves it there */
        models = fixture_open();
        assert_true(fixture_count_files("models/.staging") > 0);
        hypura_models_close(models);
        fault = GO_ON;
        check(2, 3, false, step);
    }
}

/* As many files are open as may be. */
static void a_folder_that_cannot_be_read_loses_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES * (N_SHAPES - 1); i++) {
        const int old = i / (N_SHAPES - 1);
        const int new = 1 + i % (N_SHAPES - 1);
        bool refused = true;
        for (int step = 1; refused; step++) {
            hypura_error error = {0};
            begin(old, new);
            hypura_models *models = fixture_open();
            const hypura_model_entry *from = fixture_find(models, "from");
            n_opens = step;
            const hypura_status status = hypura_models_copy(models, from, "mario", &error);
            refused = n_opens == 0;
            n_opens = 0;
            hypura_model_entry_release(from);
            hypura_models_close(models);
            assert_true(status == HYPURA_OK || (status == HYPURA_ERR_IO && strstr(error.message, "cannot read") != NULL));
            check(old, new, status == HYPURA_OK, step);
        }
    }
}

static void what_cannot_be_read_is_put_back_later(void **state)
{
    (void)state;
    static const int renames[] = {4, 7}; /* of the old ones; of the new ones */
    for (size_t i = 0; i < sizeof renames / sizeof *renames; i++) {
        bool refused = true;
        for (int step = 1; refused; step++) {
            begin(2, 3);
            assert_true(is_killed(true, renames[i]));
            const hypura_models_options options = {.folder = fixture_path("models"), .ollama_folder = fixture_path("ollama")};
            hypura_error error = {0};
            hypura_models *models = NULL;
            n_opens = step;
            const hypura_status status = hypura_models_open(&options, &models, &error);
            refused = n_opens == 0;
            n_opens = 0;
            assert_true(status == HYPURA_OK || strstr(error.message, "Too many open files") != NULL);
            hypura_models_close(models);
            check(2, 3, false, step);
        }
    }
}

static void give(const char *from, const char *name)
{
    hypura_error error = {0};
    hypura_models *models = fixture_open();
    const hypura_model_entry *entry = fixture_find(models, from);
    if (hypura_models_copy(models, entry, name, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    hypura_model_entry_release(entry);
    hypura_models_close(models);
}

static void another_one_for_good(bool before)
{
    if (before) {
        give("full", "from");
    }
}

static void another_one_for_a_moment(bool before)
{
    give(before ? "full" : "plain", "from");
}

/* Its settings were read, its file is linked, and in between somebody gives its name to another model. */
static void what_is_copied_is_one_model(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        hypura_error error = {0};
        begin(3, 0);
        make("plain", 1);
        make("full", 2);
        give("plain", "from");
        hypura_models *models = fixture_open();
        around_link = i == 0 ? another_one_for_good : another_one_for_a_moment;
        assert_int_equal(put(models, &error), HYPURA_ERR_IO);
        assert_non_null(strstr(error.message, "from:latest became another model meanwhile: try again"));
        assert_int_equal(shape_now(models), 3);
        assert_int_equal(fixture_count_files("models/.staging"), 0);
        assert_int_equal(put(models, &error), HYPURA_OK);
        assert_int_equal(shape_now(models), i == 0 ? 2 : 1);
        hypura_models_close(models);
    }
}

/* One is killed, and another process that runs already makes the same name: that is not undone later. */
static void what_a_killed_one_left_is_put_back_first(void **state)
{
    (void)state;
    for (int old = 0; old < 3; old += 2) {
        bool died = true;
        for (int step = 1; died; step++) {
            hypura_error error = {0};
            begin(old, 3);
            make("plain", 1);
            hypura_models *models = fixture_open();
            died = is_killed(true, step);
            const hypura_model_entry *from = fixture_find(models, "plain");
            assert_int_equal(hypura_models_copy(models, from, "mario", &error), HYPURA_OK);
            hypura_model_entry_release(from);
            hypura_models_close(models);
            models = fixture_open();
            assert_int_equal(shape_now(models), 1);
            assert_int_equal(fixture_count_files("models"), n_files_of(1) + n_files_of(3) + 2 * n_files_of(1));
            hypura_models_close(models);
        }
    }
}

/* A removal that was broken off after the model's own file. */
static void what_is_of_no_model_is_not_taken_over(void **state)
{
    (void)state;
    static const char *const left[] = {"models/mario.json", "models/mario.adapter.gguf", "models/mario.adapter-3.gguf"};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        hypura_error error = {0};
        begin(0, 1);
        (void)unlink(fixture_path("models/from.json"));
        fixture_write_text("models/mario.mmproj.gguf", "of no use, and of no harm");
        fixture_write_gguf(left[i], &(fixture_gguf){.adapter = true});
        hypura_models *models = fixture_open();
        assert_int_equal(put(models, &error), HYPURA_ERR_USAGE);
        assert_non_null(strstr(error.message, left[i]));
        assert_non_null(strstr(error.message, "remove it"));
        assert_false(fixture_exists("models/mario.gguf"));
        assert_int_equal(unlink(fixture_path(left[i])), 0);
        assert_int_equal(put(models, &error), HYPURA_OK);
        hypura_models_close(models);
    }
}

/* Where "mario.json" and "Mario.json" are one file, it is the model's own. */
static void a_name_in_other_letters_is_the_models_own(void **state)
{
    (void)state;
    for (int same = 0; same < 2; same++) {
        hypura_error error = {0};
        begin(1, 1);
        (void)unlink(fixture_path("models/from.json"));
        char own[256];
        snprintf(own, sizeof own, "%s", fixture_path("models/Mario.json"));
        if (same) {
            assert_int_equal(__real_link(own, fixture_path("models/mario.json")), 0);
        } else {
            fixture_write_text("models/mario.json", "{}");
        }
        hypura_models *models = fixture_open();
        assert_int_equal(put(models, &error), same ? HYPURA_OK : HYPURA_ERR_USAGE);
        hypura_models_close(models);
    }
}

/* Several processes, each with a model of its own for the name. */
static void processes_take_turns(void **state)
{
    (void)state;
    enum { N = 4, TIMES = 40 };
    pid_t children[N];
    begin(1, 0);
    for (int i = 1; i < N_SHAPES; i++) {
        make(shapes[i], i);
    }
    (void)fflush(NULL);
    for (int i = 0; i < N; i++) {
        children[i] = fork();
        for (int n = 0; children[i] == 0 && n < TIMES; n++) {
            hypura_error error;
            hypura_models *models = fixture_open();
            const hypura_model_entry *from = fixture_find(models, shapes[1 + i]);
            link_errno = strcmp(shapes[1 + i], "alias") == 0 ? EPERM : 0;
            if (hypura_models_copy(models, from, "mario", &error) != HYPURA_OK) {
                fprintf(stderr, "%s\n", error.message);
                _exit(1);
            }
            hypura_model_entry_release(from);
            hypura_models_close(models);
        }
        if (children[i] == 0) {
            _exit(0);
        }
    }
    for (int i = 0; i < N; i++) {
        int ended = 0;
        assert_int_equal(waitpid(children[i], &ended, 0), children[i]);
        assert_int_equal(ended, 0);
    }
    hypura_models *models = fixture_open();
    const int shape = shape_now(models);
    assert_true(shape > 0);
    int n_made = n_files_of(1); /* base, and one of each */
    for (int i = 1; i < N_SHAPES; i++) {
        n_made += n_files_of(i);
    }
    assert_int_equal(fixture_count_files("models"), n_made + n_files_of(shape));
    hypura_models_close(models);
}

#define INSTALLS(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        INSTALLS(a_rename_that_fails_leaves_the_old_one),
        INSTALLS(who_is_killed_leaves_one_of_them),
        INSTALLS(what_cannot_be_put_back_is_kept),
        INSTALLS(a_folder_that_cannot_be_read_loses_nothing),
        INSTALLS(what_cannot_be_read_is_put_back_later),
        INSTALLS(what_is_copied_is_one_model),
        INSTALLS(what_a_killed_one_left_is_put_back_first),
        INSTALLS(what_is_of_no_model_is_not_taken_over),
        INSTALLS(a_name_in_other_letters_is_the_models_own),
        INSTALLS(processes_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
