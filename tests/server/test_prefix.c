/* Saved states of conversations: what is on the disk stays until the next one is there, whole. The engine is one of ours,
 * and so is rename(). */
#include "store_fixture.h"

#include "server/fleet/prefix.h"
#include "server/process/upstream.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>

enum { LIMIT_BYTES = 1 << 20, N_MORE = 100 };

/* What the engine has: a conversation of tokens 0, 1, 2 ... */
static int n_tokens;
static int task;
static int missing_bytes; /* of the file, at its end */
static bool fails;        /* to save, with a part written */
static int rename_errno;
static char saved_as[8][64];
static int n_saved;

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
hypura_status __wrap_upstream_json(const char *socket, const char *method, const char *path, const json_t *body,
                                   bool (*gone)(void *user), void *user, int *code, json_t **answer, hypura_error *error);

int __wrap_rename(const char *from, const char *to)
{
    errno = rename_errno;
    return rename_errno != 0 ? -1 : __real_rename(from, to);
}

static json_t *save(const char *name)
{
    char path[128];
    const uint32_t head[] = {0x67677371, 2, 2 + (uint32_t)n_tokens, UINT32_MAX, 1, (uint32_t)n_tokens};
    snprintf(saved_as[n_saved++ % 8], sizeof saved_as[0], "%s", name);
    snprintf(path, sizeof path, "states/model/%s", name);
    FILE *to = fopen(fixture_path(path), "wb");
    assert_non_null(to);
    fwrite(head, sizeof head, 1, to);
    for (int32_t i = 0; i < n_tokens; i++) {
        fwrite(&i, sizeof i, 1, to);
    }
    fprintf(to, "and what was computed of them");
    fflush(to);
    const long bytes = ftell(to);
    assert_int_equal(ftruncate(fileno(to), bytes - missing_bytes), 0);
    fclose(to);
    return json_pack("{s:i}", "n_written", (int)bytes);
}

hypura_status __wrap_upstream_json(const char *socket, const char *method, const char *path, const json_t *body,
                                   bool (*gone)(void *user), void *user, int *code, json_t **answer, hypura_error *error)
{
    (void)socket;
    (void)gone;
    (void)user;
    (void)error;
    *code = 200;
    if (strcmp(method, "GET") == 0) {
        *answer = json_pack("[{s:i, s:b, s:i, s:i}]", "id", 0, "is_processing", 0, "n_prompt_tokens", n_tokens, "id_task", task);
    } else {
        assert_string_equal(path, "/slots/0?action=save");
        *answer = save(json_string_value(json_object_get(body, "filename")));
        *code = fails ? 500 : 200;
    }
    return HYPURA_OK;
}

static int prefix_make(void **state)
{
    n_tokens = 200;
    missing_bytes = 0;
    fails = false;
    rename_errno = 0;
    n_saved = 0;
    return fixture_make(state) == 0 && mkdir(fixture_path("states"), 0700) == 0 &&
                   mkdir(fixture_path("states/model"), 0700) == 0
               ? 0
               : -1;
}

static prefix_session *open_session(void)
{
    prefix_session *session = prefix_open(fixture_path("states"), LIMIT_BYTES, fixture_path("states/model"), "none");
    assert_non_null(session);
    return session;
}

/* An engine that answers a request and ends. */
static void answer_and_end(prefix_session *session)
{
    task++;
    prefix_restore(session, "/v1/chat/completions", NULL);
    prefix_used(session);
    prefix_close(session);
}

/* The number of states; of one, how many tokens it has. Nothing else is there. */
static int count_states(uint32_t *tokens)
{
    int n = 0;
    DIR *folder = opendir(fixture_path("states/model"));
    assert_non_null(folder);
    for (const struct dirent *d; (d = readdir(folder)) != NULL;) {
        char path[300];
        uint32_t head[6];
        if (d->d_name[0] == '.') {
            continue;
        }
        assert_non_null(strstr(d->d_name, ".state"));
        snprintf(path, sizeof path, "states/model/%s", d->d_name);
        FILE *from = fopen(fixture_path(path), "rb");
        assert_non_null(from);
        assert_int_equal(fread(head, sizeof head, 1, from), 1);
        fclose(from);
        *tokens = head[5];
        n++;
    }
    closedir(folder);
    return n;
}

static void expect(int tokens)
{
    uint32_t found = 0;
    assert_int_equal(count_states(&found), 1);
    assert_int_equal(found, tokens);
}

static void a_longer_one_takes_the_place_of_what_it_goes_on_from(void **state)
{
    (void)state;
    answer_and_end(open_session());
    expect(200);
    answer_and_end(open_session()); /* the same once more: its own file is not another's */
    expect(200);
    n_tokens += N_MORE;
    answer_and_end(open_session());
    expect(300);
}

static void what_gets_no_name_takes_no_place(void **state)
{
    (void)state;
    answer_and_end(open_session());
    n_tokens += N_MORE;
    rename_errno = EIO;
    answer_and_end(open_session());
    expect(200);
}

static void what_is_not_whole_takes_no_place(void **state)
{
    (void)state;
    answer_and_end(open_session());
    n_tokens += N_MORE;
    missing_bytes = 4; /* the disk is full, which the engine does not see */
    answer_and_end(open_session());
    expect(200);
    missing_bytes = 0;
    fails = true;
    answer_and_end(open_session());
    expect(200);
}

/* Two servers, with an engine each. */
static void two_that_save_at_once_write_two_files(void **state)
{
    (void)state;
    prefix_session *one = open_session();
    answer_and_end(open_session());
    n_tokens += N_MORE;
    answer_and_end(one);
    assert_int_equal(n_saved, 2);
    assert_string_not_equal(saved_as[0], saved_as[1]);
}

static void what_a_killed_one_left_goes(void **state)
{
    (void)state;
    const struct timespec long_ago[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    fixture_write_text("states/other/savingabc123", "a part");
    fixture_write_text("states/other/savingdef456", "under way");
    assert_int_equal(utimensat(AT_FDCWD, fixture_path("states/other/savingabc123"), long_ago, 0), 0);
    answer_and_end(open_session());
    expect(200);
    assert_false(fixture_exists("states/other/savingabc123"));
    assert_true(fixture_exists("states/other/savingdef456"));
}

#define SAVES(test) cmocka_unit_test_setup_teardown(test, prefix_make, fixture_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SAVES(a_longer_one_takes_the_place_of_what_it_goes_on_from),
        SAVES(what_gets_no_name_takes_no_place),
        SAVES(what_is_not_whole_takes_no_place),
        SAVES(two_that_save_at_once_write_two_files),
        SAVES(what_a_killed_one_left_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
