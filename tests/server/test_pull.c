/* Pulls from a hub and a registry on loopback, with the faults that real ones have. */
#include "pull_fixture.h"

#include "hypura_server.h"

#include "server/models/pull_internal.h"

#include <errno.h>
#include <sys/resource.h>

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
