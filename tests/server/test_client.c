/* Asking a server: what cannot be sent is told before anybody is asked, and leaves the conversation as it was. */
#include "hypura_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

/* Nobody listens there: who asks gets HYPURA_ERR_IO. */
#define NOBODY "http://127.0.0.1:9"

static hypura_status ask(hypura_client *client, const char *prompt, bool raw, hypura_error *error)
{
    hypura_result result;
    const hypura_generate_options options = {.prompt = prompt, .raw = raw};
    const hypura_status status = hypura_client_generate(client, &options, &result, error);
    hypura_result_clear(&result);
    return status;
}

static void what_is_no_text_is_not_sent(void **state)
{
    (void)state;
    for (int raw = 0; raw < 2; raw++) {
        hypura_client *client = NULL;
        hypura_error error;
        assert_int_equal(hypura_client_open(NOBODY, NULL, "model", &client, &error), HYPURA_OK);
        assert_int_equal(ask(client, "Hello.", raw, &error), HYPURA_ERR_IO);
        assert_int_equal(ask(client, "\xff", raw, &error), HYPURA_ERR_USAGE);
        assert_non_null(strstr(error.message, "the prompt is no UTF-8"));
        assert_int_equal(ask(client, "Hello.", raw, &error), HYPURA_ERR_IO);
        hypura_client_close(client);
        assert_int_equal(hypura_client_open(NOBODY, NULL, "\xff", &client, &error), HYPURA_OK);
        assert_int_equal(ask(client, "Hello.", raw, &error), HYPURA_ERR_USAGE);
        assert_non_null(strstr(error.message, "the name of the model"));
        hypura_client_close(client);
    }
}

static void what_was_said_before_is_text(void **state)
{
    (void)state;
    static const struct {
        hypura_message said[2];
        hypura_status status;
        const char *why;
    } cases[] = {
        {{{.role = "user", .text = "Hello."}, {.role = "assistant", .text = "\xc3\xa9", .thought = "Hm."}}, HYPURA_ERR_IO, NOBODY},
        {{{.role = "user", .text = "\xc3"}, {.role = "assistant", .text = "Hello."}}, HYPURA_ERR_USAGE, "message 1 of what"},
        {{{.role = "user", .text = "Hello."}, {.role = "assistant", .text = "Hello.", .thought = "\xff"}},
         HYPURA_ERR_USAGE,
         "message 2 of what"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_client *client = NULL;
        hypura_error error;
        hypura_result result;
        const hypura_generate_options options = {.prompt = "Hello.", .history = cases[i].said, .n_history = 2};
        assert_int_equal(hypura_client_open(NOBODY, NULL, "model", &client, &error), HYPURA_OK);
        assert_int_equal(hypura_client_generate(client, &options, &result, &error), cases[i].status);
        assert_non_null(strstr(error.message, cases[i].why));
        hypura_result_clear(&result);
        hypura_client_close(client);
    }
}

static void what_is_no_address_or_key_is_refused(void **state)
{
    (void)state;
    hypura_client *client = NULL;
    hypura_error error;
    char key[2000];
    memset(key, 'k', sizeof key);
    key[sizeof key - 1] = '\0';
    assert_int_equal(hypura_client_open("127.0.0.1:8080", NULL, "model", &client, &error), HYPURA_ERR_USAGE);
    assert_int_equal(hypura_client_open(NOBODY, key, "model", &client, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "1999 bytes"));
    assert_null(client);
}

static bool give_up(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    (void)done;
    (void)total;
    return ++*(int *)user < 2;
}

/* A socket that is listened on, and a client that asks there. */
static int listen_to(hypura_client **client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    hypura_error error;
    char url[64];
    assert_int_equal(bind(fd, (struct sockaddr *)&address, bytes), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", ntohs(address.sin_port));
    assert_int_equal(hypura_client_open(url, NULL, "model", client, &error), HYPURA_OK);
    return fd;
}

/* A server that takes the connection and says nothing. */
static void waiting_can_be_given_up(void **state)
{
    (void)state;
    hypura_client *client = NULL;
    const int fd = listen_to(&client);
    hypura_error error;
    hypura_result result;
    int asked = 0;
    const hypura_generate_options options = {.prompt = "Hello.", .progress = give_up, .progress_user = &asked};
    assert_int_equal(hypura_client_generate(client, &options, &result, &error), HYPURA_OK);
    assert_true(result.stopped_by_user);
    assert_string_equal(result.text, "");
    hypura_result_clear(&result);
    hypura_client_close(client);
    (void)close(fd);
}

static void where_nobody_listens_it_is_told_who_would(void **state)
{
    (void)state;
    hypura_client *client = NULL;
    const int fd = listen_to(&client);
    (void)close(fd);
    hypura_error error;
    hypura_result result;
    const hypura_generate_options options = {.prompt = "Hello."};
    assert_int_equal(hypura_client_generate(client, &options, &result, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "http://127.0.0.1:"));
    assert_non_null(strstr(error.message, "hypura serve starts one"));
    hypura_client_close(client);
}

static void what_is_no_schema_is_not_sent(void **state)
{
    (void)state;
    hypura_client *client = NULL;
    hypura_error error;
    hypura_result result;
    assert_int_equal(hypura_client_open(NOBODY, NULL, "model", &client, &error), HYPURA_OK);
    hypura_generate_options options = {.prompt = "Hello.", .json_schema = "{"};
    assert_int_equal(hypura_client_generate(client, &options, &result, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "the JSON schema cannot be used"));
    options = (hypura_generate_options){.prompt = "Hello.", .system = "\xff"};
    assert_int_equal(hypura_client_generate(client, &options, &result, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "the system text is no UTF-8"));
    static const char *const stop[] = {"end", "\xff"};
    options = (hypura_generate_options){.prompt = "Hello.", .stop = stop, .n_stop = 2};
    assert_int_equal(hypura_client_generate(client, &options, &result, &error), HYPURA_ERR_USAGE);
    assert_non_null(strstr(error.message, "a text that ends the answer is no UTF-8"));
    hypura_client_close(client);
}

/* One request is read whole and answered; its body is left in `asked`. What is asked of the model before is told `shown`. */
static char asked[4096];
static const char *shown;

static void *answer_once(void *user)
{
    static const char said[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hm, \"}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"so.\"}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{\"content\":\"Paris.\"}}]}\n\n"
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
        "data: [DONE]\n\n";
    int fd = accept(*(int *)user, NULL, NULL);
    char request[8192];
    size_t used = 0;
    const char *body = NULL;
    size_t wanted = 1;
    while (!body || (size_t)(request + used - body) < wanted) {
        const ssize_t n = read(fd, request + used, sizeof request - 1 - used);
        assert_true(n > 0);
        used += (size_t)n;
        request[used] = '\0';
        const char *length = strstr(request, "Content-Length: ");
        body = strstr(request, "\r\n\r\n");
        body = body ? body + 4 : NULL;
        wanted = length ? (size_t)atol(length + 16) : wanted;
    }
    snprintf(asked, sizeof asked, "%s", body);
    if (strncmp(request, "POST /api/show ", 15) == 0) {
        char answer[512];
        const int n = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                               strlen(shown), shown);
        assert_true(write(fd, answer, (size_t)n) == n);
        (void)close(fd);
        return strstr(shown, "\"completion\"") && !strstr(shown, "\"thinking\"") ? NULL : answer_once(user);
    }
    assert_true(write(fd, said, sizeof said - 1) == (ssize_t)sizeof said - 1);
    (void)close(fd);
    return NULL;
}

static bool keep(void *user, const char *text, size_t bytes)
{
    strncat(user, text, bytes);
    return true;
}

/* What the model thinks is told apart, and goes with the next question. */
static void thoughts_are_no_text(void **state)
{
    (void)state;
    hypura_client *client = NULL;
    int fd = listen_to(&client);
    hypura_error error;
    shown = "{\"capabilities\":[\"completion\",\"thinking\"]}";
    static const struct {
        hypura_thinking thinking;
        const char *grammar;
        const char *wanted;
    } turns[] = {
        {HYPURA_THINKING_AUTO, NULL, "\"chat_template_kwargs\":{}"},
        {HYPURA_THINKING_OFF, NULL, "\"chat_template_kwargs\":{\"enable_thinking\":false}"},
        {HYPURA_THINKING_LOW, NULL, "\"chat_template_kwargs\":{\"enable_thinking\":true,\"reasoning_effort\":\"low\"}"},
        {HYPURA_THINKING_AUTO, "root ::= \"a\"", "\"chat_template_kwargs\":{\"enable_thinking\":false}"},
    };
    for (size_t i = 0; i < sizeof turns / sizeof *turns; i++) {
        char told[256] = "";
        pthread_t server;
        hypura_result result;
        const hypura_generate_options options = {.prompt = "Where?",
                                                 .thinking = turns[i].thinking,
                                                 .grammar = turns[i].grammar,
                                                 .on_text = keep,
                                                 .on_thought = keep,
                                                 .on_text_user = told};
        assert_int_equal(pthread_create(&server, NULL, answer_once, &fd), 0);
        assert_int_equal(hypura_client_generate(client, &options, &result, &error), HYPURA_OK);
        assert_int_equal(pthread_join(server, NULL), 0);
        assert_string_equal(told, "Hm, so.Paris.");
        assert_string_equal(result.thought, "Hm, so.");
        assert_string_equal(result.text, "Paris.");
        assert_non_null(strstr(asked, turns[i].wanted));
        assert_true((strstr(asked, "\"reasoning_content\":\"Hm, so.\"") != NULL) == (i > 0));
        hypura_result_clear(&result);
    }
    hypura_client_close(client);
    (void)close(fd);
}

static void *answer_half(void *user)
{
    static const char said[] = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{\"models\":[";
    const int fd = accept(*(int *)user, NULL, NULL);
    char request[8192];
    assert_true(read(fd, request, sizeof request) > 0);
    assert_true(write(fd, said, sizeof said - 1) == (ssize_t)sizeof said - 1);
    (void)close(fd);
    return NULL;
}

static void half_an_answer_is_none(void **state)
{
    (void)state;
    hypura_client *client = NULL;
    hypura_error error;
    pthread_t server;
    char *answer = NULL;
    int fd = listen_to(&client);
    assert_int_equal(pthread_create(&server, NULL, answer_half, &fd), 0);
    assert_int_equal(hypura_client_request(client, "/api/hypura/status", NULL, &answer, &error), HYPURA_ERR_BACKEND);
    assert_int_equal(pthread_join(server, NULL), 0);
    assert_non_null(strstr(error.message, "broke off its answer"));
    assert_null(answer);
    hypura_client_close(client);
    (void)close(fd);
}

/* A server leaves the wish of thoughts out where the model has none; one that is not Hypura's may not know. */
static void thoughts_are_asked_of_models_that_have_some(void **state)
{
    (void)state;
    static const struct {
        const char *shown;
        const char *schema;
        hypura_status status;
    } cases[] = {{"{\"capabilities\":[\"completion\"]}", NULL, HYPURA_ERR_UNSUPPORTED},
                 {"{\"error\":\"not found\"}", NULL, HYPURA_OK},
                 {"no JSON", NULL, HYPURA_OK},
                 {NULL, "{}", HYPURA_ERR_USAGE}}; /* nobody is asked */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hypura_client *client = NULL;
        hypura_error error;
        hypura_result result;
        pthread_t server;
        char told[256] = "";
        const hypura_generate_options options = {.prompt = "Where?", .thinking = HYPURA_THINKING_LOW, .json_schema = cases[i].schema,
                                                 .on_text = keep, .on_thought = keep, .on_text_user = told};
        int fd = listen_to(&client);
        shown = cases[i].shown;
        if (shown) {
            assert_int_equal(pthread_create(&server, NULL, answer_once, &fd), 0);
        }
        assert_int_equal(hypura_client_generate(client, &options, &result, &error), cases[i].status);
        assert_true(cases[i].status != HYPURA_ERR_UNSUPPORTED ||
                    strstr(error.message, "knows no thoughts: leave --think out (/set nothink)"));
        if (shown) {
            assert_int_equal(pthread_join(server, NULL), 0);
        }
        hypura_result_clear(&result);
        hypura_client_close(client);
        (void)close(fd);
    }
}

/* A server in this process, on a port that was free. */
static void a_server_tells_where_it_listens(void **state)
{
    (void)state;
    char url[64];
    hypura_server *server = NULL;
    hypura_client *client = NULL;
    hypura_error error;
    const hypura_server_options options = {
        .models_folder = "no-such-folder", .engine = "no-such-program", .memory_bytes = 1 << 30, .log_level = "error"};
    if (hypura_server_open(&options, &server, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    assert_true(hypura_server_port(server) > 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", hypura_server_port(server));
    assert_int_equal(hypura_client_open(url, NULL, "nothing", &client, &error), HYPURA_OK);
    assert_int_not_equal(ask(client, "Hello.", false, &error), HYPURA_OK);
    assert_non_null(strstr(error.message, "'nothing' not found"));
    hypura_client_close(client);
    hypura_server_close(server);
}

int main(void)
{
    (void)setenv("no_proxy", "127.0.0.1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_text_is_not_sent),
        cmocka_unit_test(what_was_said_before_is_text),
        cmocka_unit_test(thoughts_are_no_text),
        cmocka_unit_test(half_an_answer_is_none),
        cmocka_unit_test(thoughts_are_asked_of_models_that_have_some),
        cmocka_unit_test(what_is_no_address_or_key_is_refused),
        cmocka_unit_test(waiting_can_be_given_up),
        cmocka_unit_test(where_nobody_listens_it_is_told_who_would),
        cmocka_unit_test(what_is_no_schema_is_not_sent),
        cmocka_unit_test(a_server_tells_where_it_listens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
