/* Which scale of an adapter a request is computed with, and what waits for whom. */
#include "server/process/adapter_scale.h"

#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const char path[] = "/v1/chat/completions?model=x";

/* What goes in place of a body, as text; "" when it goes as it is. */
static const char *begin(adapter_scale *scale, const char *at, const char *body)
{
    static char text[512];
    json_t *asked = body ? json_loads(body, 0, NULL) : NULL;
    json_t *made = NULL;
    hypura_error error = {0};
    text[0] = '\0';
    if (adapter_scale_begin(scale, at, asked, &made, &error) != HYPURA_OK) {
        assert_int_equal(error.status, HYPURA_ERR_UNSUPPORTED);
        json_decref(asked);
        return NULL;
    }
    char *dumped = made ? json_dumps(made, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    if (dumped) {
        snprintf(text, sizeof text, "%s", dumped);
    }
    free(dumped);
    json_decref(made);
    json_decref(asked);
    return text;
}

static const char *say(adapter_scale *scale, const char *at, const char *body)
{
    const char *text = begin(scale, at, body);
    if (text) {
        adapter_scale_end(scale);
    }
    return text;
}

static void set(adapter_scale *scale, float value)
{
    adapter_scale_set(scale, &(adapter_scales){.n = 1, .of = {value}});
}

static void requests_go_as_they_are_until_another_scale_is_used(void **state)
{
    (void)state;
    adapter_scale *scale = adapter_scale_open(1);
    assert_string_equal(say(scale, path, "{\"a\":1}"), "");
    assert_string_equal(say(scale, path, "{\"lora\":[{\"id\":0,\"scale\":1}]}"), "");
    assert_string_equal(say(scale, path, "{\"lora\":[]}"), "");
    assert_string_equal(say(scale, "/tokenize", "{\"lora\":[{\"id\":0,\"scale\":0.5}]}"), "");
    assert_string_equal(say(scale, "/v1/messages", "{}"), "");
    assert_string_equal(say(scale, "/slots", NULL), "");
    assert_string_equal(say(scale, path, "{\"lora\":[{\"id\":0,\"scale\":0.5}]}"),
                        "{\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":0.5}]}");
    assert_string_equal(say(scale, path, "{\"a\":1}"), "{\"a\":1,\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":1.0}]}");
    assert_string_equal(say(scale, "/completion", "{\"cache_prompt\":true,\"lora\":[{\"id\":0,\"scale\":1}]}"),
                        "{\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":1}]}");
    assert_string_equal(say(scale, "/tokenize", "{}"), "");
    assert_null(say(scale, "/v1/messages", "{}"));
    assert_null(say(scale, "/v1/embeddings", "{}"));
    adapter_scale_close(scale);
}

static void a_scale_of_all_is_that_of_those_that_do_not_say(void **state)
{
    (void)state;
    adapter_scale *scale = adapter_scale_open(1);
    set(scale, 1.0f);
    assert_string_equal(say(scale, path, "{}"), "");
    set(scale, 0.25f);
    assert_true(adapter_scale_get(scale).of[0] == 0.25f);
    assert_string_equal(say(scale, path, "{}"), "{\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":0.25}]}");
    set(scale, 1.0f);
    assert_string_equal(say(scale, path, "{}"), "{\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":1.0}]}");
    adapter_scale_close(scale);
}

static void lists_are_read_as_llama_cpp_does(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        float scale;
    } rows[] = {{"[{\"id\":0,\"scale\":0.5}]", 0.5f}, {"[{\"id\":0}]", 0.0f},  {"[{\"id\":1,\"scale\":1}]", 0.0f},
                {"[{\"id\":0,\"scale\":1},{\"id\":0,\"scale\":2}]", 2.0f},     {"[7]", 0.0f}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *list = json_loads(rows[i].text, 0, NULL);
        assert_non_null(list);
        adapter_scales scales;
        assert_true(adapter_scale_of(list, 1, &scales) && scales.n == 1 && scales.of[0] == rows[i].scale);
        json_decref(list);
    }
    json_t *none = json_array();
    adapter_scales scales;
    assert_false(adapter_scale_of(none, 1, &scales) || adapter_scale_of(NULL, 1, &scales));
    json_decref(none);
}

/* Each has one of its own; one that is not named does not apply. */
static void several_adapters_have_scales_of_their_own(void **state)
{
    (void)state;
    adapter_scale *scale = adapter_scale_open(3);
    assert_string_equal(say(scale, path, "{\"lora\":[{\"id\":2,\"scale\":1},{\"id\":0,\"scale\":1},{\"id\":1,\"scale\":1}]}"), "");
    assert_string_equal(say(scale, path, "{}"), "");
    assert_string_equal(say(scale, path, "{\"lora\":[{\"id\":0,\"scale\":1}]}"),
                        "{\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":1}]}");
    const adapter_scales scales = {.n = 3, .of = {1.0f, 0.0f, 0.5f}};
    adapter_scale_set(scale, &scales);
    assert_string_equal(say(scale, path, "{}"), "{\"cache_prompt\":false,\"lora\":[{\"id\":0,\"scale\":1.0},{\"id\":1,\"scale\":0.0},"
                                                "{\"id\":2,\"scale\":0.5}]}");
    const adapter_scales whole = adapter_scales_whole(3);
    assert_true(adapter_scales_are_whole(&whole) && !adapter_scales_are_whole(&scales));
    adapter_scale_close(scale);
}

typedef struct other {
    adapter_scale *scale;
    atomic_int done;
} other;

static void *use_another(void *user)
{
    other *o = user;
    set(o->scale, 0.5f);
    atomic_store(&o->done, 1);
    return NULL;
}

/* What is being computed ends first, so that nothing with the old scale begins after something with the new one. */
static void the_first_other_scale_waits(void **state)
{
    (void)state;
    other o = {.scale = adapter_scale_open(1)};
    pthread_t thread;
    assert_string_equal(begin(o.scale, path, "{}"), "");
    assert_int_equal(pthread_create(&thread, NULL, use_another, &o), 0);
    const struct timespec moment = {0, 50000000};
    nanosleep(&moment, NULL);
    assert_int_equal(atomic_load(&o.done), 0);
    adapter_scale_end(o.scale);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&o.done), 1);
    adapter_scale_close(o.scale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_go_as_they_are_until_another_scale_is_used),
        cmocka_unit_test(a_scale_of_all_is_that_of_those_that_do_not_say),
        cmocka_unit_test(lists_are_read_as_llama_cpp_does), cmocka_unit_test(several_adapters_have_scales_of_their_own),
        cmocka_unit_test(the_first_other_scale_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
