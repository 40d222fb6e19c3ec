/* Pulls from a hub and a registry on loopback, with the faults that real ones have. */
#include "store_fixture.h"

#include "hypura_server.h"

#include "base/clock.h"
#include "server/models/pull_internal.h"
#include "server/models/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

#ifndef FAKE_HUB
#error "the build says where fake_hub.py is"
#endif

static pid_t hub_pid;
static int hub_input;
static char hub_url[64];
static hypura_models *models;

static int pull_make(void **state)
{
    int in[2];
    int out[2];
    if (fixture_make(state) != 0 || pipe(in) != 0 || pipe(out) != 0) {
        return -1;
    }
    assert_int_equal(mkdir(fixture_path("hub"), 0755), 0);
    hub_pid = fork();
    if (hub_pid == 0) {
        (void)dup2(in[0], 0);
        (void)dup2(out[1], 1);
        (void)close(in[1]);
        execlp("python3", "python3", FAKE_HUB, fixture_path("hub"), (char *)NULL);
        _exit(127);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    hub_input = in[1];
    FILE *from = fdopen(out[0], "r");
    int port = 0;
    assert_int_equal(fscanf(from, "%d", &port), 1);
    (void)fclose(from);
    snprintf(hub_url, sizeof hub_url, "http://127.0.0.1:%d", port);
    models = fixture_open();
    return 0;
}

static int pull_remove(void **state)
{
    hypura_models_close(models);
    (void)close(hub_input);
    (void)kill(hub_pid, SIGKILL);
    (void)waitpid(hub_pid, NULL, 0);
    return fixture_remove(state);
}

#define PULLS(test) cmocka_unit_test_setup_teardown(test, pull_make, pull_remove)

/* What was reported; stops when `completed` of the file under way reaches stop_at. */
typedef struct reports {
    char statuses[2048]; /* each once, in order, "|" behind it */
    uint64_t completed;
    uint64_t total;
    uint64_t stop_at;
    int n_files;
} reports;

static bool on_step(void *user, const hypura_pull_step *step)
{
    reports *r = user;
    char again[128];
    snprintf(again, sizeof again, "%s|", step->status);
    if (strstr(r->statuses, again) == NULL) {
        strncat(r->statuses, again, sizeof r->statuses - strlen(r->statuses) - 1);
        r->n_files += step->digest != NULL;
        r->completed = 0;
    }
    if (step->digest != NULL) {
        assert_int_equal(strncmp(step->digest, "sha256:", 7), 0);
        assert_int_equal(strncmp(step->status, "pulling ", 8), 0);
        assert_int_equal(strncmp(step->status + 8, step->digest + 7, 12), 0);
        assert_true(step->completed_bytes <= step->total_bytes);
        r->completed = step->completed_bytes;
        r->total = step->total_bytes;
    }
    return r->stop_at == 0 || r->completed < r->stop_at;
}

static hypura_status pull_as(const char *name, const char *token, reports *r, hypura_error *error)
{
    reports own = {.statuses = ""};
    hypura_pull_options options = {.name = name,
                                   .hub_url = hub_url,
                                   .hub_token = token,
                                   .registry_url = hub_url,
                                   .pause_us = 1000,
                                   .report = on_step,
                                   .user = r != NULL ? r : &own};
    return hypura_models_pull(models, &options, error);
}

static void check_pull(const char *name, reports *r)
{
    hypura_error error = {0};
    if (pull_as(name, NULL, r, &error) != HYPURA_OK) {
        fail_msg("%s: %s", name, error.message);
    }
}

static void check_failure(const char *name, hypura_status expected, const char *part)
{
    hypura_error error = {0};
    assert_int_equal(pull_as(name, NULL, NULL, &error), expected);
    if (strstr(error.message, part) == NULL) {
        fail_msg("'%s' does not say '%s'", error.message, part);
    }
}

static int n_requests(const char *part)
{
    size_t bytes;
    char *log = hypura_store_read_text(fixture_path("hub/log"), 1 << 20, &bytes);
    int n = 0;
    for (char *at = log; at != NULL && (at = strstr(at, part)) != NULL; at++) {
        n++;
    }
    free(log);
    return n;
}

static void check_same(const char *a, const char *b)
{
    size_t n;
    size_t m;
    char *left = hypura_store_read_text(fixture_path(a), 64 << 20, &n);
    char *right = hypura_store_read_text(fixture_path(b), 64 << 20, &m);
    assert_non_null(left);
    assert_non_null(right);
    assert_int_equal(n, m);
    assert_memory_equal(left, right, n);
    free(left);
    free(right);
}

static const fixture_gguf large = {.width = 1 << 14}; /* 1.6 MB */

static void a_repository_becomes_a_model(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m-Q4_K_M.gguf", &(fixture_gguf){.file_type = 15});
    fixture_write_gguf("hub/user/repo/m-Q8_0.gguf", &(fixture_gguf){.file_type = 7});
    fixture_write_gguf("hub/user/repo/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_text("hub/user/repo/README.md", "text");
    fixture_write_text("hub/user/repo/faults.json", "{\"pages\": 1}");
    reports r = {.statuses = ""};
    check_pull("hf.co/user/repo:q8_0", &r);
    assert_int_equal(r.n_files, 2);
    assert_non_null(strstr(r.statuses, "pulling manifest|pulling "));
    assert_non_null(strstr(r.statuses, "|verifying sha256 digest|writing manifest|success|"));
    check_same("models/hf.co/user/repo@q8_0.gguf", "hub/user/repo/m-Q8_0.gguf");
    const hypura_model_entry *entry = fixture_find(models, "hf.co/user/repo:Q8_0");
    assert_string_equal(entry->quantization_level, "Q8_0");
    assert_string_equal(entry->projector_path, fixture_path("models/hf.co/user/repo@q8_0.mmproj.gguf"));
    hypura_model_entry_release(entry);
    /* Without a tag the usual type; and nothing is fetched twice. */
    check_pull("https://huggingface.co/user/repo", NULL);
    entry = fixture_find(models, "hf.co/user/repo:latest");
    assert_string_equal(entry->quantization_level, "Q4_K_M");
    hypura_model_entry_release(entry);
    int before = n_requests("/cdn/");
    check_pull("hf.co/user/repo", NULL);
    assert_int_equal(n_requests("/cdn/"), before);
    assert_int_equal(fixture_count_files("models/.partial"), 0);
    /* What was published anew is. */
    fixture_write_gguf("hub/user/repo/m-Q4_K_M.gguf", &(fixture_gguf){.file_type = 15, .name = "better"});
    check_pull("hf.co/user/repo", NULL);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m-Q4_K_M.gguf");
}

static void all_parts_of_a_split_model_come(void **state)
{
    (void)state;
    for (int part = 1; part <= 3; part++) {
        char below[96];
        snprintf(below, sizeof below, "hub/user/big/Q4_K_M/big-Q4_K_M-%05d-of-00003.gguf", part);
        fixture_write_gguf(below, &(fixture_gguf){.part = part, .n_parts = 3});
    }
    reports r = {.statuses = ""};
    check_pull("hf.co/user/big:Q4_K_M", &r);
    assert_int_equal(r.n_files, 3);
    const hypura_model_entry *entry = fixture_find(models, "hf.co/user/big:Q4_K_M");
    assert_int_equal(entry->n_files, 3);
    hypura_model_entry_release(entry);
    (void)unlink(fixture_path("hub/user/big/Q4_K_M/big-Q4_K_M-00002-of-00003.gguf"));
    check_failure("hf.co/user/big", HYPURA_ERR_UNSUPPORTED, "part 2 of 3");
}

static void a_broken_connection_is_taken_up_where_it_broke(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"drop_after\": 500000, \"times\": 3}");
    check_pull("hf.co/user/repo", NULL);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
    assert_int_equal(n_requests("bytes=500000-"), 2); /* by the hub and its CDN */
    assert_int_equal(n_requests("bytes=1000000-"), 2);
    assert_int_equal(n_requests("bytes=1500000-"), 2);
}

static void a_server_without_ranges_starts_over(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"drop_after\": 500000, \"times\": 2, \"no_range\": true}");
    check_pull("hf.co/user/repo", NULL);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
    fixture_write_gguf("hub/user/odd/m.gguf", &large);
    fixture_write_text("hub/user/odd/faults.json", "{\"drop_after\": 500000, \"times\": 1, \"wrong_range\": true}");
    check_pull("hf.co/user/odd", NULL);
    check_same("models/hf.co/user/odd.gguf", "hub/user/odd/m.gguf");
}

static void a_server_that_is_busy_is_asked_again(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m.gguf", &(fixture_gguf){0});
    fixture_write_text("hub/user/repo/faults.json", "{\"status\": 503, \"times\": 2}");
    check_pull("hf.co/user/repo", NULL);
    fixture_write_gguf("hub/user/gone/m.gguf", &(fixture_gguf){0});
    fixture_write_text("hub/user/gone/faults.json", "{\"status\": 404}");
    check_failure("hf.co/user/gone", HYPURA_ERR_USAGE, "404");
    assert_int_equal(n_requests("/cdn/user/gone"), 1);
}

static void one_that_never_delivers_is_given_up(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"drop_after\": 0}");
    check_failure("hf.co/user/repo", HYPURA_ERR_IO, "given up after 5 tries");
    assert_false(fixture_has(models, "hf.co/user/repo"));
}

static void a_stopped_pull_is_resumed_by_the_next(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"bytes_per_s\": 1000000}");
    reports r = {.statuses = "", .stop_at = 200000};
    assert_int_equal(pull_as("hf.co/user/repo", NULL, &r, &error), HYPURA_ERR_CANCELLED);
    assert_false(fixture_has(models, "hf.co/user/repo"));
    assert_int_equal(fixture_count_files("models"), 1);
    /* Another process goes on. */
    hypura_models_close(models);
    models = fixture_open();
    fixture_write_text("hub/user/repo/faults.json", "{}");
    assert_int_equal(n_requests("bytes="), 0);
    check_pull("hf.co/user/repo", NULL);
    assert_int_equal(n_requests("bytes="), 2);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
}

static void wrong_bytes_are_refused(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"corrupt\": true}");
    check_failure("hf.co/user/repo", HYPURA_ERR_FORMAT, "digest mismatch");
    fixture_write_text("hub/user/repo/faults.json", "{\"excess\": true}");
    check_failure("hf.co/user/repo", HYPURA_ERR_FORMAT, "more than");
    assert_int_equal(fixture_count_files("models"), 0);
    /* Wrong bytes of an earlier pull spoil nothing but themselves. */
    fixture_write_text("hub/user/repo/faults.json", "{\"corrupt\": true, \"drop_after\": 10}");
    fixture_write_text("hub/user/repo/faults.json", "{}");
    check_pull("hf.co/user/repo", NULL);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
}

static void spoiled_parts_are_found_and_fetched_anew(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"bytes_per_s\": 1000000}");
    reports r = {.statuses = "", .stop_at = 200000};
    assert_int_equal(pull_as("hf.co/user/repo", NULL, &r, &error), HYPURA_ERR_CANCELLED);
    char command[256];
    snprintf(command, sizeof command, "printf spoiled | dd of=$(ls %s/*) conv=notrunc status=none",
             fixture_path("models/.partial"));
    assert_int_equal(system(command), 0);
    fixture_write_text("hub/user/repo/faults.json", "{}");
    check_failure("hf.co/user/repo", HYPURA_ERR_FORMAT, "digest mismatch");
    check_pull("hf.co/user/repo", NULL);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
}

static void a_full_disk_ends_a_pull_that_can_go_on_later(void **state)
{
    (void)state;
    hypura_error error = {0};
    struct rlimit old;
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {.rlim_cur = 1 << 20, .rlim_max = old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    hypura_status status = pull_as("hf.co/user/repo", NULL, NULL, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "1.6 MiB"));
    assert_non_null(strstr(error.message, "free"));
    assert_false(fixture_has(models, "hf.co/user/repo"));
    check_pull("hf.co/user/repo", NULL);
    assert_int_equal(n_requests("bytes=1048576-"), 2);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
}

#ifndef __APPLE__ /* its linker wraps no functions */
static bool links_work = true;

int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);

int __wrap_link(const char *from, const char *to)
{
    errno = EPERM;
    return links_work ? __real_link(from, to) : -1;
}

/* Where the file system has no links what came is moved, and would go with the folder that it was moved to. */
static void what_came_is_kept_where_it_gets_no_name(void **state)
{
    (void)state;
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_gguf("hub/user/repo/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    fixture_write_text("models/hf.co", "in the way of the folder");
    links_work = false;
    check_failure("hf.co/user/repo", HYPURA_ERR_IO, "/models/hf.co");
    const int before = n_requests("/cdn/");
    assert_int_equal(unlink(fixture_path("models/hf.co")), 0);
    check_pull("hf.co/user/repo", NULL);
    links_work = true;
    assert_int_equal(n_requests("/cdn/"), before);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
}
#endif

static void what_cannot_be_had_is_told(void **state)
{
    (void)state;
    fixture_write_text("hub/user/empty/README.md", "no model");
    fixture_write_gguf("hub/user/repo/m-Q4_K_M.gguf", &(fixture_gguf){0});
    check_failure("hf.co/user/none", HYPURA_ERR_USAGE, "404");
    check_failure("hf.co/user/empty", HYPURA_ERR_UNSUPPORTED, "holds no GGUF");
    fixture_write_gguf("models/eyes.gguf", &(fixture_gguf){0});
    fixture_write_gguf("hub/library/eyes/latest.mmproj", &(fixture_gguf){.arch = "clip"});
    check_failure("eyes", HYPURA_ERR_UNSUPPORTED, "holds no GGUF of a model");
    assert_int_equal(remove(fixture_path("models/eyes.gguf")), 0); /* it is still there */
    check_failure("hf.co/user/repo:Q8_0", HYPURA_ERR_USAGE, "m-Q4_K_M.gguf");
    check_failure("hf.co/user/repo/more", HYPURA_ERR_USAGE, "hf.co/USER/NAME");
    check_failure("example.org/user/repo", HYPURA_ERR_UNSUPPORTED, "no other host");
    check_failure("../../etc/passwd", HYPURA_ERR_USAGE, "not a name");
    check_failure("hf.co/../repo", HYPURA_ERR_USAGE, "not a name");
    fixture_write_text("hub/user/repo/faults.json", "{\"no_lfs\": true}");
    check_failure("hf.co/user/repo", HYPURA_ERR_UNSUPPORTED, "SHA-256");
    assert_int_equal(fixture_count_files("models"), 0);
    snprintf(hub_url, sizeof hub_url, "http://127.0.0.1:1");
    check_failure("hf.co/user/repo", HYPURA_ERR_IO, "127.0.0.1");
    snprintf(hub_url, sizeof hub_url, "file:///etc");
    check_failure("hf.co/user/repo", HYPURA_ERR_IO, "rotocol");
}

static void a_token_is_for_the_hub_alone(void **state)
{
    (void)state;
    hypura_error error = {0};
    fixture_write_gguf("hub/user/repo/m.gguf", &(fixture_gguf){0});
    fixture_write_text("hub/user/repo/faults.json", "{\"private\": true}");
    check_failure("hf.co/user/repo", HYPURA_ERR_USAGE, "HF_TOKEN");
    if (pull_as("hf.co/user/repo", "secret", NULL, &error) != HYPURA_OK) {
        fail_msg("%s", error.message); /* the fake CDN refuses whoever shows it the token */
    }
}

static void a_registry_has_models_with_settings(void **state)
{
    (void)state;
    fixture_write_gguf("hub/library/llava/7b.gguf", &(fixture_gguf){.arch = "qwen2"});
    fixture_write_gguf("hub/library/llava/7b.mmproj", &(fixture_gguf){.arch = "clip"});
    fixture_write_text("hub/library/llava/7b.params", "{\"stop\": [\"x\"]}");
    fixture_write_text("hub/library/llava/7b.system", "Be brief.");
    fixture_write_text("hub/library/llava/faults.json", "{\"drop_after\": 600, \"times\": 1}");
    check_failure("llava:8b", HYPURA_ERR_USAGE, "no such model");
    fixture_write_text("hub/library/llava/faults.json", "{}");
    check_pull("llava:7b", NULL);
    const hypura_model_entry *entry = fixture_find(models, "llava:7b");
    assert_string_equal(entry->family, "qwen2");
    assert_string_equal(entry->path, fixture_path("models/llava@7b.gguf"));
    assert_non_null(entry->projector_path);
    assert_string_equal(json_string_value(json_object_get(entry->settings, "system")), "Be brief.");
    assert_non_null(json_object_get(json_object_get(entry->settings, "parameters"), "stop"));
    hypura_model_entry_release(entry);
}

static void a_registry_has_models_with_adapters(void **state)
{
    (void)state;
    fixture_write_gguf("hub/library/tuned/7b.gguf", &(fixture_gguf){.arch = "qwen2"});
    fixture_write_gguf("hub/library/tuned/7b.adapter", &(fixture_gguf){.arch = "qwen2", .adapter = true});
    check_pull("tuned:7b", NULL);
    const hypura_model_entry *entry = fixture_find(models, "tuned:7b");
    assert_string_equal(entry->adapter_path, fixture_path("models/tuned@7b.adapter.gguf"));
    assert_int_equal(entry->n_adapters, 1);
    hypura_model_entry_release(entry);
    /* Several, though each be listed twice. */
    fixture_write_gguf("hub/library/tuned/7b.adapter2", &(fixture_gguf){.arch = "qwen2", .name = "second", .adapter = true});
    fixture_write_text("hub/library/tuned/faults.json", "{\"twice\": true}");
    check_pull("tuned:7b", NULL);
    entry = fixture_find(models, "tuned:7b");
    assert_int_equal(entry->n_adapters, 2);
    assert_string_equal(entry->adapter_paths[1], fixture_path("models/tuned@7b.adapter-2.gguf"));
    hypura_model_entry_release(entry);
}

static bool count_models(void *user, const hypura_local_model *model)
{
    ++*(int *)user;
    assert_string_equal(model->name, "hf.co/user/repo:latest");
    assert_string_equal(model->path, fixture_path("models/hf.co/user/repo.gguf"));
    assert_true(model->bytes > 0);
    return true;
}

static bool stop(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)what;
    return done < 200000 || total == 0;
}

static void note_plan(void *user, const hypura_local_plan *plan)
{
    *(hypura_local_plan *)user = *plan;
}

static void programs_that_serve_nobody_pull_too(void **state)
{
    (void)state;
    char path[1024];
    int n = 0;
    hypura_error error = {0};
    char folder[512];
    snprintf(folder, sizeof folder, "%s", fixture_path("models"));
    const hypura_local_options places = {.models_folder = folder, .hub_url = hub_url};
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"bytes_per_s\": 1000000}");
    hypura_local_plan plan = {.n_files = 0};
    const hypura_local_watch stopping = {.plan = note_plan, .progress = stop, .user = &plan};
    const hypura_local_watch nobody = {.plan = NULL};
    assert_int_equal(hypura_local_pull(&places, "hf.co/user/repo", &stopping, path, sizeof path, &error),
                     HYPURA_ERR_CANCELLED);
    assert_int_equal(plan.n_files, 1);
    assert_true(plan.bytes > 200000);
    assert_int_equal(plan.there_bytes, 0);
    fixture_write_text("hub/user/repo/faults.json", "{\"status\": 404}");
    assert_int_not_equal(hypura_local_pull(&places, "hf.co/user/repo", &stopping, path, sizeof path, &error), HYPURA_OK);
    assert_in_range(plan.there_bytes, 200000, plan.bytes);
    fixture_write_text("hub/user/repo/faults.json", "{}");
    assert_int_equal(hypura_local_pull(&places, "hf.co/user/repo", &nobody, path, sizeof path, &error), HYPURA_OK);
    assert_string_equal(path, fixture_path("models/hf.co/user/repo.gguf"));
    hypura_local_files files = {.path = NULL};
    assert_int_equal(hypura_local_find(&places, "https://huggingface.co/user/repo", &files, &error), HYPURA_OK);
    assert_string_equal(files.path, fixture_path("models/hf.co/user/repo.gguf"));
    hypura_local_files_clear(&files);
    assert_int_equal(hypura_local_list(&places, count_models, &n, &error), HYPURA_OK);
    assert_int_equal(n, 1);
    assert_int_equal(hypura_local_remove(&places, "hf.co/user/rep", &error), HYPURA_ERR_USAGE);
    assert_true(fixture_exists("models/hf.co/user/repo.gguf"));
    assert_int_equal(hypura_local_remove(&places, "hf.co/user/repo", &error), HYPURA_OK);
    assert_false(fixture_exists("models/hf.co/user/repo.gguf"));
    assert_false(fixture_exists("models/hf.co/user/repo.json"));
    assert_int_equal(hypura_local_remove(&places, "hf.co/user/repo", &error), HYPURA_ERR_USAGE);
    assert_int_equal(hypura_local_pull(&places, "hf.co/user/none", &nobody, path, sizeof path, &error),
                     HYPURA_ERR_USAGE);
    assert_string_equal(path, "");
}

static void a_file_that_is_listed_twice_comes_once(void **state)
{
    (void)state;
    fixture_write_gguf("hub/library/m/a.gguf", &(fixture_gguf){0});
    fixture_write_text("hub/library/m/faults.json", "{\"twice\": true}");
    reports r = {.statuses = ""};
    check_pull("m:a", &r);
    assert_int_equal(r.n_files, 1);
    check_same("models/m@a.gguf", "hub/library/m/a.gguf");

    fixture_write_gguf("hub/library/m/b.gguf", &(fixture_gguf){0});
    fixture_write_gguf("hub/library/m/b.mmproj", &(fixture_gguf){0});
    check_failure("m:b", HYPURA_ERR_FORMAT, "and as another part of the model");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
}

static void *pull_in_thread(void *user)
{
    hypura_error error = {0};
    (void)user;
    return pull_as("hf.co/user/repo", NULL, NULL, &error) == HYPURA_OK ? NULL : models;
}

static void pulls_of_one_model_share_what_comes(void **state)
{
    (void)state;
    pthread_t threads[4];
    fixture_write_gguf("hub/user/repo/m.gguf", &large);
    fixture_write_text("hub/user/repo/faults.json", "{\"bytes_per_s\": 2000000}");
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pull_in_thread, NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(n_requests("/cdn/"), 1);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
    assert_int_equal(fixture_count_files("models/.staging"), 0);
}

static bool tell_fetching(void *user, const hypura_pull_step *step)
{
    if (step->digest != NULL) {
        atomic_store((atomic_bool *)user, true);
    }
    return true;
}

static void *pull_telling(void *fetching)
{
    hypura_error error = {0};
    const hypura_pull_options options = {
        .name = "hf.co/user/repo", .hub_url = hub_url, .pause_us = 1000, .report = tell_fetching, .user = fetching};
    return hypura_models_pull(models, &options, &error) == HYPURA_OK ? NULL : models;
}

/* Locks a part of a model of two files, the one that is fetched first or the other, as the pull that fills it. below: of
 * 128 bytes. */
static int hold_part(const char *stem_json, size_t i, char *below)
{
    const char *digests[2];
    json_t *root = hypura_store_read_json(stem_json);
    for (size_t f = 0; f < 2; f++) {
        const json_t *file = json_array_get(json_object_get(root, "source"), f);
        digests[f] = json_string_value(json_object_get(file, "sha256"));
    }
    const size_t first = strcmp(digests[0], digests[1]) < 0 ? 0 : 1;
    snprintf(below, 128, "models/.partial/sha256-%s", digests[i == 0 ? first : 1 - first]);
    json_decref(root);
    fixture_write_text(below, "");
    const int fd = open(fixture_path(below), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && flock(fd, LOCK_EX) == 0);
    return fd;
}

/* Who comes to the first part when the model is there already leaves the second to another model's pull. */
static void parts_that_others_fill_stay(void **state)
{
    (void)state;
    char first[128];
    char second[128];
    char settings[HYPURA_STORE_PATH_BYTES];
    char aside[HYPURA_STORE_PATH_BYTES];
    atomic_bool fetching = false;
    pthread_t thread;
    void *failed;
    fixture_write_gguf("hub/user/repo/m.gguf", &(fixture_gguf){0});
    fixture_write_gguf("hub/user/repo/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    check_pull("hf.co/user/repo", NULL);
    snprintf(settings, sizeof settings, "%s", fixture_path("models/hf.co/user/repo.json"));
    snprintf(aside, sizeof aside, "%s", fixture_path("aside"));
    const int held = hold_part(settings, 0, first);
    const int others = hold_part(settings, 1, second);
    assert_int_equal(rename(settings, aside), 0);
    assert_int_equal(pthread_create(&thread, NULL, pull_telling, &fetching), 0);
    while (!atomic_load(&fetching)) {
        (void)usleep(1000);
    }
    assert_int_equal(rename(aside, settings), 0);
    (void)close(held);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    assert_false(fixture_exists(first));
    assert_true(fixture_exists(second));
    (void)close(others);
}

/* Somebody clears the folder whenever a file is told of. */
static bool clear_parts(void *user, const hypura_pull_step *step)
{
    if (step->digest != NULL) {
        *(uint64_t *)user += hypura_models_unused(models, HYPURA_UNUSED_ANY, true).n_files;
    }
    return true;
}

static void parts_under_way_are_not_cleared(void **state)
{
    (void)state;
    uint64_t n_cleared = 0;
    hypura_error error = {0};
    const hypura_pull_options options = {
        .name = "hf.co/user/repo", .hub_url = hub_url, .pause_us = 1000, .report = clear_parts, .user = &n_cleared};
    fixture_write_gguf("hub/user/repo/m.gguf", &(fixture_gguf){0});
    fixture_write_gguf("hub/user/repo/mmproj-F16.gguf", &(fixture_gguf){.arch = "clip"});
    if (hypura_models_pull(models, &options, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(n_cleared, 0);
    check_same("models/hf.co/user/repo.gguf", "hub/user/repo/m.gguf");
}

/* A pull that goes on behind its first file when the other one has come to a file too, and is given up after a while. */
typedef struct meeting {
    const char *name;
    atomic_bool fetching;
    const atomic_bool *other;
    uint64_t begin_us;
} meeting;

static bool meet(void *user, const hypura_pull_step *step)
{
    meeting *m = user;
    const uint64_t limit_us = m->begin_us + 20000000;
    if (step->digest != NULL) {
        atomic_store(&m->fetching, true);
    }
    while (step->digest != NULL && step->completed_bytes == step->total_bytes && !atomic_load(m->other) &&
           hypura_clock_us() < limit_us) {
        (void)usleep(1000);
    }
    return hypura_clock_us() < limit_us;
}

static void *pull_meeting(void *user)
{
    meeting *m = user;
    hypura_error error = {0};
    const hypura_pull_options options = {
        .name = m->name, .registry_url = hub_url, .pause_us = 1000, .report = meet, .user = m};
    return hypura_models_pull(models, &options, &error) == HYPURA_OK ? NULL : models;
}

/* Two models of the same two files, the one's first the other's second. */
static void pulls_that_share_files_do_not_wait_for_each_other(void **state)
{
    (void)state;
    static const fixture_gguf one = {.name = "one"};
    static const fixture_gguf two = {.name = "two"};
    meeting m[2] = {{.name = "m:a"}, {.name = "n:a"}};
    pthread_t threads[2];
    fixture_write_gguf("hub/library/m/a.gguf", &one);
    fixture_write_gguf("hub/library/m/a.mmproj", &two);
    fixture_write_gguf("hub/library/n/a.gguf", &two);
    fixture_write_gguf("hub/library/n/a.mmproj", &one);
    for (int i = 0; i < 2; i++) {
        m[i].other = &m[1 - i].fetching;
        m[i].begin_us = hypura_clock_us();
        assert_int_equal(pthread_create(&threads[i], NULL, pull_meeting, &m[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    check_same("models/m@a.gguf", "hub/library/m/a.gguf");
    check_same("models/n@a.gguf", "hub/library/n/a.gguf");
    assert_int_equal(fixture_count_files("models/.partial"), 0);
}

static void the_file_is_chosen_by_the_tag(void **state)
{
    (void)state;
    static const hypura_hub_file files[] = {
        {.path = "README.md"},
        {.path = "Q6_K/m-Q6_K-00001-of-00002.gguf"},
        {.path = "Q6_K/m-Q6_K-00002-of-00002.gguf"},
        {.path = "imatrix_unsloth.gguf"},
        {.path = "m-Q4_K_M.gguf"},
        {.path = "m-Q4_K_S.gguf"},
        {.path = "m-Q4_K_XL.gguf"},
        {.path = "m-UD-Q4_K_M.gguf"},
        {.path = "mmproj-BF16.gguf"},
        {.path = "mmproj-F16.gguf"},
    };
    static const struct {
        const char *tag;
        long first;
    } cases[] = {{"latest", 4},      {"q4_k_m", 4},
                 {"Q4_K_S", 5},      {"Q4_K", -1},
                 {"UD-Q4_K_M", 7},   {"Q6_K", 1},
                 {"m-Q4_K_XL", 6},   {"m-Q6_K", 1},
                 {"mmproj-F16", -1}, {"imatrix_unsloth", -1},
                 {"README", -1},     {"F16", -1},
                 {"K", -1},          {"m", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        long first;
        long projector;
        hypura_hub_choose(files, sizeof files / sizeof *files, cases[i].tag, &first, &projector);
        if (first != cases[i].first || projector != 9) {
            fail_msg("%s chose %ld and %ld", cases[i].tag, first, projector);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_chosen_by_the_tag),
        PULLS(a_repository_becomes_a_model),
        PULLS(all_parts_of_a_split_model_come),
        PULLS(a_broken_connection_is_taken_up_where_it_broke),
        PULLS(a_server_without_ranges_starts_over),
        PULLS(a_server_that_is_busy_is_asked_again),
        PULLS(one_that_never_delivers_is_given_up),
        PULLS(a_stopped_pull_is_resumed_by_the_next),
        PULLS(wrong_bytes_are_refused),
        PULLS(spoiled_parts_are_found_and_fetched_anew),
        PULLS(a_full_disk_ends_a_pull_that_can_go_on_later),
#ifndef __APPLE__
        PULLS(what_came_is_kept_where_it_gets_no_name),
#endif
        PULLS(what_cannot_be_had_is_told),
        PULLS(a_token_is_for_the_hub_alone),
        PULLS(a_registry_has_models_with_settings),
        PULLS(a_registry_has_models_with_adapters),
        PULLS(programs_that_serve_nobody_pull_too),
        PULLS(a_file_that_is_listed_twice_comes_once),
        PULLS(pulls_of_one_model_share_what_comes),
        PULLS(parts_that_others_fill_stay),
        PULLS(parts_under_way_are_not_cleared),
        PULLS(pulls_that_share_files_do_not_wait_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
