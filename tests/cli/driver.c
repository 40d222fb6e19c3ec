/*
 * driver.c - see driver.h.
 */
#include "driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __APPLE__
#include <util.h>
#else
#include <pty.h>
#endif

#include <cmocka.h>

#define PATIENCE_MS 10000

const char *driver_program;
char driver_folder[] = "/tmp/hypura-cli-XXXXXX";

static char *read_all(FILE *file, size_t *bytes)
{
    long size = (fflush(file), fseek(file, 0, SEEK_END), ftell(file));
    assert_true(size >= 0);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    rewind(file);
    size_t n = fread(text, 1, (size_t)size, file);
    text[n] = '\0';
    if (bytes) {
        *bytes = n;
    }
    fclose(file);
    return text;
}

static int exit_code(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        assert_int_equal(errno, EINTR);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static void execute(const char *const *words)
{
    /* Jobs in the background start with these ignored, which a program inherits. */
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    execv(words[0], (char *const *)(uintptr_t)words);
    _exit(127);
}

static process start(const char *const *words, const char *input, const char *to)
{
    process run = {.streams = {tmpfile(), tmpfile()}};
    FILE *in = input ? tmpfile() : fopen("/dev/null", "r");
    int target = to ? open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644) : -1;
    assert_true(in && run.streams[0] && run.streams[1] && (!to || target >= 0));
    if (input) {
        assert_true(fputs(input, in) >= 0 && fflush(in) == 0);
        rewind(in);
    }
    run.child = fork();
    assert_true(run.child >= 0);
    if (run.child == 0) {
        dup2(fileno(in), STDIN_FILENO);
        dup2(to ? target : fileno(run.streams[0]), STDOUT_FILENO);
        dup2(fileno(run.streams[1]), STDERR_FILENO);
        execute(words);
    }
    fclose(in);
    if (to) {
        close(target);
    }
    return run;
}

process driver_start(const char *const *words, const char *input, const char *to)
{
    const char *all[DRIVER_MAX_WORDS] = {driver_program};
    for (int i = 0; words[i]; i++) {
        assert_true(i + 2 < DRIVER_MAX_WORDS);
        all[i + 1] = words[i];
    }
    return start(all, input, to);
}

void driver_finish(process *run)
{
    run->code = exit_code(run->child);
    run->output = read_all(run->streams[0], &run->output_bytes);
    run->error = read_all(run->streams[1], NULL);
}

process driver_run(const char *const *words, const char *input, const char *to)
{
    process run = driver_start(words, input, to);
    driver_finish(&run);
    return run;
}

process driver_shell(const char *line)
{
    process run = start((const char *[]){"/bin/sh", "-c", line, NULL}, NULL, NULL);
    driver_finish(&run);
    return run;
}

void driver_expect(const process *run, int code, const char *output, const char *error)
{
    if (run->code != code || (output && !strstr(run->output, output)) || (error && !strstr(run->error, error))) {
        fail_msg("exit code %d, wanted %d\n--- output, wanted '%s'\n%s\n--- error, wanted '%s'\n%s", run->code, code,
                 output ? output : "", run->output, error ? error : "", run->error);
    }
}

void driver_clear(process *run)
{
    free(run->output);
    free(run->error);
    *run = (process){.code = 0};
}

/* ---- files and JSON --------------------------------------------------------- */

json_t *driver_object(const char *text, const char *keys)
{
    char found[2048] = "";
    const char *key;
    json_t *value;
    json_error_t error;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!object) {
        fail_msg("line %d: %s in\n%s", error.line, error.text, text);
    }
    json_object_foreach(object, key, value)
    {
        strcat(found, found[0] ? " " : "");
        strcat(found, key);
    }
    assert_string_equal(found, keys);
    return object;
}

int64_t driver_integer(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

double driver_real(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

const char *driver_string(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    assert_non_null(value);
    return value;
}

void driver_write(const char *name, const char *text, size_t bytes)
{
    FILE *file = fopen(name, "w");
    assert_true(file && fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0);
}

const char *driver_read(const char *name)
{
    static char text[8192];
    FILE *file = fopen(name, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

/* ---- terminals -------------------------------------------------------------- */

void terminal_open(terminal *on, const char *const *words)
{
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    *on = (terminal){.screen = calloc(1, 1)};
    on->child = forkpty(&on->master, NULL, NULL, &size);
    assert_true(on->child >= 0 && on->screen);
    if (on->child == 0) {
        execute(words);
    }
}

void terminal_type(terminal *on, const char *text)
{
    assert_int_equal(write(on->master, text, strlen(text)), strlen(text));
}

/* Appends what can be read; false at the end. */
static bool read_screen(terminal *on, int timeout_ms)
{
    char bytes[4096];
    struct pollfd wait = {.fd = on->master, .events = POLLIN};
    if (poll(&wait, 1, timeout_ms) <= 0) {
        return false;
    }
    ssize_t n = read(on->master, bytes, sizeof bytes);
    if (n <= 0) {
        return false; /* EIO: the program ended */
    }
    on->screen = realloc(on->screen, on->used + (size_t)n + 1);
    assert_non_null(on->screen);
    memcpy(on->screen + on->used, bytes, (size_t)n);
    on->used += (size_t)n;
    on->screen[on->used] = '\0';
    return true;
}

bool terminal_expect(terminal *on, const char *text, size_t from)
{
    while (!strstr(on->screen + from, text)) {
        if (!read_screen(on, PATIENCE_MS)) {
            return strstr(on->screen + from, text) != NULL;
        }
    }
    return true;
}

int terminal_wait(terminal *on)
{
    while (read_screen(on, PATIENCE_MS)) {
    }
    /* Its code is settled when its side of the terminal is closed: this ends only
     * a program that hangs. */
    kill(on->child, SIGKILL);
    return exit_code(on->child);
}

void terminal_close(terminal *on)
{
    close(on->master);
    free(on->screen);
    on->screen = NULL;
}

/* ---- the group -------------------------------------------------------------- */

bool driver_main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PROGRAM\n", argv[0]);
        return false;
    }
    driver_program = argv[1];
    setenv("PROGRAM", driver_program, 1);
    signal(SIGPIPE, SIG_DFL);
    return true;
}

int driver_setup(void **state)
{
    (void)state;
    static const char *const models[] = {"moe.gguf", "slow.gguf", "endless.gguf", "broken.gguf", "differs.gguf",
                                         "stops.gguf", "alone.gguf"};
    if (!mkdtemp(driver_folder) || chdir(driver_folder) != 0) {
        return -1;
    }
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        driver_write(models[i], "", 0);
    }
    setenv("HYPURA_CACHE_DIR", driver_folder, 1);
    setenv("HYPURA_MODELS", driver_folder, 1);
    setenv("TERM", "dumb", 1);
    unsetenv("NO_COLOR");
    return 0;
}

int driver_teardown(void **state)
{
    (void)state;
    process run = start((const char *[]){"/bin/rm", "-rf", driver_folder, NULL}, NULL, NULL);
    driver_finish(&run);
    driver_clear(&run);
    return 0;
}
