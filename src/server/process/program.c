/*
 * program.c - see program.h.
 */
#include "server/process/program.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/waiting.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- its command line ------------------------------------------------------------ */

void engine_words_add(engine_words *to, const char *option, const char *value)
{
    if (value) {
        to->items[to->n++] = option;
        to->items[to->n++] = value;
    }
}

static void add_number(engine_words *to, const char *option, uint64_t value)
{
    if (value > 0) {
        char *text = to->numbers[to->n_numbers++];
        snprintf(text, sizeof(to->numbers[0]), "%" PRIu64, value);
        engine_words_add(to, option, text);
    }
}

/* Of each GPU: those before the first 0. */
static void add_gpu_vram(engine_words *to, const uint64_t *vram_bytes)
{
    size_t used = 0;
    for (int g = 0; g < HYPURA_MAX_GPUS && vram_bytes[g] > 0; g++) {
        used += (size_t)snprintf(to->sizes + used, sizeof(to->sizes) - used, "%s%" PRIu64, g > 0 ? "+" : "", vram_bytes[g]);
    }
    engine_words_add(to, "--vram", used > 0 ? to->sizes : NULL);
}

static void add_shares(engine_words *to, const hypura_gpu_shares *shares)
{
    for (int i = 0; i < shares->n; i++) {
        const hypura_gpu_share *one = &shares->list[i];
        snprintf(to->shares[i], sizeof(to->shares[i]), "%s=%" PRIu64 "/%" PRIu64 "/%" PRIu64, one->name, one->lent_bytes,
                 one->bytes, one->most_bytes);
        engine_words_add(to, "--gpu-share", to->shares[i]);
    }
}

static void add_speculation(engine_words *to, const hypura_speculation *speculation)
{
    engine_words_add(to, "--draft", speculation->draft);
    engine_words_add(to, "--spec-type", speculation->types);
    add_number(to, "--draft-max", speculation->n_max);
    if (speculation->p_min > 0.0f) {
        snprintf(to->share, sizeof(to->share), "%.9g", (double)speculation->p_min);
        engine_words_add(to, "--draft-p-min", to->share);
    }
}

void engine_words_common(const engine_options *options, engine_words *to)
{
    memset(to, 0, sizeof(*to));
    to->items[to->n++] = options->program;
    engine_words_add(to, "--model", options->path);
    for (int i = 0; options->adapter_paths && options->adapter_paths[i]; i++) {
        engine_words_add(to, "--adapter", options->adapter_paths[i]);
    }
    add_number(to, "--memory", options->memory_bytes);
    add_number(to, "--weights", options->weights_bytes);
    add_number(to, "--reserve", options->reserve_bytes);
    add_number(to, "--context", options->n_context);
    engine_words_add(to, "--cache-type-k", options->kv_cache.type_k);
    engine_words_add(to, "--cache-type-v", options->kv_cache.type_v);
    add_number(to, "--batch", options->n_batch);
    add_number(to, "--parallel", options->n_parallel);
    add_number(to, "--threads", (uint64_t)options->n_threads);
    add_number(to, "--io-limit", options->io_limit_bytes_per_s);
    engine_words_add(to, "--gpu", options->gpu);
    add_number(to, "--vram", options->vram_bytes);
    add_gpu_vram(to, options->gpu_vram_bytes);
    engine_words_add(to, "--rpc", options->rpc);
    add_number(to, "--rpc-memory", options->rpc_bytes);
    add_shares(to, &options->shares);
    engine_words_add(to, "--gpu-misses", options->gpu_misses == HYPURA_GPU_MISSES_CPU ? "cpu" : NULL);
    engine_words_add(to, "--io-engine", options->io_engine);
    engine_words_add(to, "--cache-dir", options->cache_dir);
    add_speculation(to, &options->speculation);
}

/* ---- running it ------------------------------------------------------------------- */

/* Ours, but for variables of llama.cpp, which would change what was planned, and with how threads wait. */
static char **engine_environment(const engine_words *line)
{
    hypura_waiting how = line->waits;
    for (int i = 0; i < line->n; i++) {
        how = strcmp(line->items[i], "--gpu-misses") == 0 ? HYPURA_WAITING_LONG : how; /* is given for the CPU alone */
    }
    char **variables = hypura_waiting_environment(environ, how);
    size_t n_kept = 0;
    for (size_t i = 0; variables && variables[i]; i++) {
        if (strncmp(variables[i], "LLAMA_", 6) != 0 && strncmp(variables[i], "AIP_", 4) != 0) {
            variables[n_kept++] = variables[i];
        }
    }
    if (variables) {
        variables[n_kept] = NULL;
    }
    return variables;
}

hypura_status engine_spawn(const engine_words *line, int in, int out, int error_to, pid_t *pid, hypura_error *error)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t defaults;
    char **environment = engine_environment(line);
    if (!environment) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to start an engine");
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, error_to, STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    sigemptyset(&none);
    sigfillset(&defaults);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    /* A group of its own: Ctrl-C in a terminal is for the front, which ends its engines in order. */
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    const int code =
        posix_spawn(pid, line->items[0], &actions, &attributes, (char *const *)(uintptr_t)line->items, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(environment);
    return code == 0 ? HYPURA_OK : hypura_fail_errno(error, code, "%s cannot be started", line->items[0]);
}

/* Whether there is something to read, or the end, before that time; 0: without end. */
static bool waits_for(int fd, uint64_t until_us)
{
    struct pollfd poll_for = {.fd = fd, .events = POLLIN};
    for (;;) {
        const uint64_t now_us = hypura_clock_us();
        if (until_us > 0 && now_us >= until_us) {
            return false;
        }
        if (poll(&poll_for, 1, until_us > 0 ? (int)((until_us - now_us) / 1000) + 1 : -1) > 0) {
            return true;
        }
    }
}

/* The end of all that comes, half of the capacity at least: what matters is the last line. False when the time is up
 * before. */
static bool read_end(int fd, uint64_t until_us, char *text, size_t capacity)
{
    size_t used = 0;
    bool in_time;
    for (ssize_t n; (in_time = waits_for(fd, until_us)) && (n = read(fd, text + used, capacity - 1 - used)) != 0;) {
        if (n < 0 && errno != EINTR) {
            break;
        }
        used += n > 0 ? (size_t)n : 0;
        if (used + 1 == capacity) {
            memmove(text, text + capacity / 2, used - capacity / 2);
            used -= capacity / 2;
        }
    }
    text[used] = '\0';
    return in_time;
}

/* The message in the last line that the program printed. */
static const char *last_message(char *text)
{
    static const char prefix[] = "hypura-engine: ";
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') {
        text[--n] = '\0';
    }
    char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    return strncmp(line, prefix, sizeof(prefix) - 1) == 0 ? line + sizeof(prefix) - 1 : line;
}

hypura_status engine_ask(const engine_words *line, int in, int errors, uint64_t timeout_us, engine_answer *answer,
                         hypura_error *error)
{
    int output[2];
    pid_t pid = -1;
    *answer = (engine_answer){.wait_status = -1};
    if (!hypura_os_pipe(output)) {
        return hypura_fail_errno(error, errno, "no pipe to an engine");
    }
    hypura_status status = engine_spawn(line, in, output[1], errors < 0 ? output[1] : errors, &pid, error);
    close(output[1]);
    if (status == HYPURA_OK) {
        answer->late = !read_end(output[0], timeout_us > 0 ? hypura_clock_us() + timeout_us : 0, answer->text,
                                 sizeof(answer->text));
        if (answer->late) {
            kill(pid, SIGKILL);
        }
        while (waitpid(pid, &answer->wait_status, 0) < 0 && errno == EINTR) {
        }
    }
    close(output[0]);
    answer->message = last_message(answer->text);
    return status;
}
