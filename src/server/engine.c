/*
 * engine.c - see engine.h.
 */
#include "server/engine.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "base/waiting.h"
#include "os/os.h"
#include "server/log.h"
#include "server/upstream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define MAX_WORDS    80
#define FOLDER_BYTES 80 /* the path of a socket has 108 bytes at most */
#define POLL_US      (UINT64_C(20) * 1000)
#define END_US       (UINT64_C(10) * 1000 * 1000)
#define RESIZE_US    (UINT64_C(20) * 1000 * 1000)

struct server_engine {
    char name[128];
    char folder[FOLDER_BYTES];
    char socket[FOLDER_BYTES + 16];
    char live_path[FOLDER_BYTES + 16];
    char template_path[FOLDER_BYTES + 16];
    hypura_live *live;
    pid_t pid;
    int input;  /* its standard input */
    int output; /* what it prints */
    int log;    /* copied there; -1: to our log */
    void (*on_end)(void *user);
    void *user;
    pthread_t watcher;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    bool ended;
    int wait_status;
    char last_line[256]; /* that it printed: often the reason of its end */
};

/* ---- its command line ------------------------------------------------------------ */

typedef struct words {
    int n;
    const char *items[MAX_WORDS + 1];
    char numbers[16][24];
    char share[24];
    int n_numbers;
    char sizes[HYPURA_MAX_GPUS * 24]; /* joined by + */
} words;

static void add_text(words *to, const char *option, const char *value)
{
    if (value) {
        to->items[to->n++] = option;
        to->items[to->n++] = value;
    }
}

static void add_number(words *to, const char *option, uint64_t value)
{
    if (value > 0) {
        char *text = to->numbers[to->n_numbers++];
        snprintf(text, sizeof(to->numbers[0]), "%" PRIu64, value);
        add_text(to, option, text);
    }
}

/* Those before the first 0. */
static void add_sizes(words *to, const char *option, const uint64_t *values, int n)
{
    size_t used = 0;
    for (int i = 0; i < n && values[i] > 0; i++) {
        used += (size_t)snprintf(to->sizes + used, sizeof(to->sizes) - used, "%s%" PRIu64, i > 0 ? "+" : "", values[i]);
    }
    add_text(to, option, used > 0 ? to->sizes : NULL);
}

static void add_speculation(words *to, const hypura_speculation *speculation)
{
    add_text(to, "--draft", speculation->draft);
    add_text(to, "--spec-type", speculation->types);
    add_number(to, "--draft-max", speculation->n_max);
    if (speculation->p_min > 0.0f) {
        snprintf(to->share, sizeof(to->share), "%.9g", (double)speculation->p_min);
        add_text(to, "--draft-p-min", to->share);
    }
}

static void common_words(const engine_options *options, words *to)
{
    memset(to, 0, sizeof(*to));
    to->items[to->n++] = options->program;
    add_text(to, "--model", options->path);
    add_number(to, "--memory", options->memory_bytes);
    add_number(to, "--weights", options->weights_bytes);
    add_number(to, "--reserve", options->reserve_bytes);
    add_number(to, "--context", options->n_context);
    add_number(to, "--batch", options->n_batch);
    add_number(to, "--parallel", options->n_parallel);
    add_number(to, "--threads", (uint64_t)options->n_threads);
    add_number(to, "--io-limit", options->io_limit_bytes_per_s);
    add_text(to, "--gpu", options->gpu);
    add_number(to, "--vram", options->vram_bytes);
    add_sizes(to, "--vram", options->gpu_vram_bytes, HYPURA_MAX_GPUS);
    add_text(to, "--gpu-misses", options->gpu_misses == HYPURA_GPU_MISSES_CPU ? "cpu" : NULL);
    add_text(to, "--io-engine", options->io_engine);
    add_text(to, "--cache-dir", options->cache_dir);
    add_speculation(to, &options->speculation);
}

/* Ours, but for variables of llama.cpp, which would change what was planned, and with how threads wait. */
static char **engine_environment(const words *line)
{
    bool longer = false;
    for (int i = 0; i < line->n; i++) {
        longer = longer || strcmp(line->items[i], "--gpu-misses") == 0; /* is given for the CPU alone */
    }
    char **variables = hypura_waiting_environment(environ, longer);
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

/* in and out become its standard input and output (and error). */
static hypura_status spawn(const words *line, int in, int out, int error_to, pid_t *pid, hypura_error *error)
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

/* ---- estimating --------------------------------------------------------------------- */

/* The end of all that comes, half of the capacity at least: what matters is the last line. */
static void read_end(int fd, char *text, size_t capacity)
{
    size_t used = 0;
    for (ssize_t n; (n = read(fd, text + used, capacity - 1 - used)) != 0;) {
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

hypura_status engine_estimate_get(const engine_options *options, engine_estimate *estimate, hypura_error *error)
{
    words line;
    char text[4096];
    int output[2];
    pid_t pid = -1;
    common_words(options, &line);
    line.items[line.n++] = "--estimate";
    if (!hypura_os_pipe(output)) {
        return hypura_fail_errno(error, errno, "no pipe to an engine");
    }
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    hypura_status status = spawn(&line, null, output[1], output[1], &pid, error);
    close(null);
    close(output[1]);
    int wait_status = -1;
    if (status == HYPURA_OK) {
        read_end(output[0], text, sizeof text);
        while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
        }
    }
    close(output[0]);
    if (status != HYPURA_OK) {
        return status;
    }
    const char *message = last_message(text);
    json_t *told = json_loads(message, 0, NULL);
    json_int_t memory;
    json_int_t floor;
    int n_parallel;
    int code;
    const char *reason;
    if (wait_status == 0 && json_unpack(told, "{s:I, s:I, s:i, s:s}", "memory_bytes", &memory, "floor_memory_bytes",
                                        &floor, "n_sequences", &n_parallel, "draft_unfit", &reason) == 0) {
        *estimate = (engine_estimate){
            .memory_bytes = (uint64_t)memory, .floor_bytes = (uint64_t)floor, .n_parallel = (uint32_t)n_parallel};
        snprintf(estimate->draft_unfit, sizeof(estimate->draft_unfit), "%s", reason);
    } else if (json_unpack(told, "{s:i, s:s}", "status", &code, "message", &reason) == 0) {
        status = hypura_fail(error, (hypura_status)code, "%s", reason);
    } else {
        status = hypura_fail(error, HYPURA_ERR_BACKEND, "%s cannot be looked at: its engine says: %s", options->name,
                             message);
    }
    json_decref(told);
    return status;
}

/* ---- watching ------------------------------------------------------------------------ */

static void hear_line(server_engine *engine, const char *line)
{
    if (line[0] == '\0') {
        return;
    }
    pthread_mutex_lock(&engine->lock);
    snprintf(engine->last_line, sizeof(engine->last_line), "%s", line);
    pthread_mutex_unlock(&engine->lock);
    if (engine->log < 0) {
        server_log(LOG_DEBUG, "%s: %s", engine->name, line);
    }
}

static void hear(server_engine *engine)
{
    char text[2048];
    size_t used = 0;
    for (ssize_t n; (n = read(engine->output, text + used, sizeof text - 1 - used)) != 0;) {
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            break;
        }
        if (engine->log >= 0) {
            ssize_t ignored = write(engine->log, text + used, (size_t)n);
            (void)ignored;
        }
        used += (size_t)n;
        text[used] = '\0';
        char *line = text;
        for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            hear_line(engine, line);
        }
        used = strlen(line);
        memmove(text, line, used);
        if (used == sizeof text - 1) {
            used = 0; /* a line without end */
        }
    }
}

static void *watch(void *user)
{
    server_engine *engine = user;
    int status = 0;
    siginfo_t end;
    hear(engine);
    while (waitid(P_PID, (id_t)engine->pid, &end, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
    pthread_mutex_lock(&engine->lock); /* once it is reaped, its number may be another process's: nobody may kill that */
    while (waitpid(engine->pid, &status, 0) < 0 && errno == EINTR) {
    }
    engine->ended = true;
    engine->wait_status = status;
    pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
    engine->on_end(engine->user);
    return NULL;
}

bool engine_ends_within(server_engine *engine, uint64_t timeout_us)
{
    const uint64_t begin_us = hypura_clock_us();
    pthread_mutex_lock(&engine->lock);
    for (uint64_t waited_us = 0; !engine->ended && waited_us < timeout_us; waited_us = hypura_clock_us() - begin_us) {
        (void)hypura_cond_wait(&engine->changed, &engine->lock, timeout_us - waited_us);
    }
    const bool ended = engine->ended;
    pthread_mutex_unlock(&engine->lock);
    return ended;
}

void engine_describe_end(server_engine *engine, char *text, size_t capacity)
{
    pthread_mutex_lock(&engine->lock);
    const int status = engine->wait_status;
    if (!engine->ended) {
        snprintf(text, capacity, "is running");
    } else if (WIFSIGNALED(status)) {
        snprintf(text, capacity, "was ended by signal %d", WTERMSIG(status));
    } else {
        snprintf(text, capacity, "ended with exit code %d%s%s", WEXITSTATUS(status),
                 engine->last_line[0] ? "; its last words: " : "", engine->last_line);
    }
    pthread_mutex_unlock(&engine->lock);
}

/* ---- starting and ending ----------------------------------------------------------------- */

static void engine_free(server_engine *engine)
{
    hypura_live_close(engine->live);
    unlink(engine->live_path);
    unlink(engine->socket);
    unlink(engine->template_path);
    rmdir(engine->folder);
    if (engine->input >= 0) {
        close(engine->input);
    }
    if (engine->output >= 0) {
        close(engine->output);
    }
    if (engine->log >= 0) {
        close(engine->log);
    }
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

static hypura_status make_folder(const engine_options *options, server_engine *engine, hypura_error *error)
{
    const int n = snprintf(engine->folder, sizeof(engine->folder), "%s/XXXXXX", options->run_folder);
    if (n < 0 || (size_t)n >= sizeof(engine->folder)) {
        engine->folder[0] = '\0';
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is too long a path for sockets", options->run_folder);
    }
    if (!mkdtemp(engine->folder)) {
        const int code = errno;
        engine->folder[0] = '\0';
        return hypura_fail_errno(error, code, "no folder for an engine can be made in %s", options->run_folder);
    }
    snprintf(engine->socket, sizeof(engine->socket), "%s/x.sock", engine->folder);
    snprintf(engine->live_path, sizeof(engine->live_path), "%s/live", engine->folder);
    snprintf(engine->template_path, sizeof(engine->template_path), "%s/template", engine->folder);
    return hypura_live_create(engine->live_path, &engine->live, error);
}

static hypura_status write_template(const server_engine *engine, const char *text, hypura_error *error)
{
    FILE *file = fopen(engine->template_path, "we");
    const bool written = file && fputs(text, file) >= 0;
    if (!file || fclose(file) != 0 || !written) {
        return hypura_fail_errno(error, errno, "%s cannot be written", engine->template_path);
    }
    return HYPURA_OK;
}

static hypura_status run_program(const engine_options *options, server_engine *engine, hypura_error *error)
{
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    words line;
    common_words(options, &line);
    add_text(&line, "--name", options->name);
    add_text(&line, "--socket", engine->socket);
    add_text(&line, "--live", engine->live_path);
    add_text(&line, "--slots", options->slots_folder);
    add_text(&line, "--projector", options->projector_path);
    add_text(&line, "--chat-template", options->chat_template ? engine->template_path : NULL);
    add_text(&line, "--defaults", options->defaults);
    if (options->context_shift) {
        line.items[line.n++] = "--context-shift";
    }
    if (options->embeddings) {
        line.items[line.n++] = "--embeddings";
    }
    if (options->reranking) {
        line.items[line.n++] = "--reranking";
    }
    if (options->log_path) {
        line.items[line.n++] = "--verbose";
        engine->log = open(options->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (engine->log < 0) {
            return hypura_fail_errno(error, errno, "%s cannot be written", options->log_path);
        }
    }
    if (!hypura_os_pipe(in) || !hypura_os_pipe(out)) {
        const int code = errno;
        if (in[0] >= 0) {
            close(in[0]);
            close(in[1]);
        }
        return hypura_fail_errno(error, code, "no pipe to an engine");
    }
    engine->input = in[1];
    engine->output = out[0];
    hypura_status status = spawn(&line, in[0], out[1], out[1], &engine->pid, error);
    close(in[0]);
    close(out[1]);
    return status;
}

hypura_status engine_start(const engine_options *options, void (*on_end)(void *user), void *user,
                           server_engine **started, hypura_error *error)
{
    server_engine *engine = calloc(1, sizeof(*engine));
    *started = NULL;
    if (!engine) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for an engine");
    }
    engine->input = engine->output = engine->log = -1;
    engine->on_end = on_end;
    engine->user = user;
    snprintf(engine->name, sizeof(engine->name), "%s", options->name);
    pthread_mutex_init(&engine->lock, NULL);
    hypura_cond_init(&engine->changed);
    hypura_status status = make_folder(options, engine, error);
    if (status == HYPURA_OK && options->chat_template) {
        status = write_template(engine, options->chat_template, error);
    }
    if (status == HYPURA_OK) {
        status = run_program(options, engine, error);
    }
    if (status == HYPURA_OK && pthread_create(&engine->watcher, NULL, watch, engine) != 0) {
        kill(engine->pid, SIGKILL);
        (void)waitpid(engine->pid, NULL, 0);
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no thread for an engine");
    }
    if (status != HYPURA_OK) {
        engine_free(engine);
        return status;
    }
    *started = engine;
    return HYPURA_OK;
}

hypura_status engine_wait_ready(server_engine *engine, bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    for (;;) {
        if (upstream_healthy(engine->socket)) {
            return HYPURA_OK;
        }
        if (cancelled(user)) {
            return hypura_fail(error, HYPURA_ERR_CANCELLED, "%s: loading was given up", engine->name);
        }
        pthread_mutex_lock(&engine->lock);
        if (!engine->ended) {
            (void)hypura_cond_wait(&engine->changed, &engine->lock, POLL_US);
        }
        const bool ended = engine->ended;
        pthread_mutex_unlock(&engine->lock);
        if (ended) {
            hypura_live_record record;
            if (engine_live(engine, &record) && record.state == HYPURA_LIVE_FAILED) {
                return hypura_fail(error, record.error.status, "%s", record.error.message);
            }
            char end[384];
            engine_describe_end(engine, end, sizeof end);
            return hypura_fail(error, HYPURA_ERR_BACKEND, "%s cannot be loaded: its engine %s", engine->name, end);
        }
    }
}

void engine_stop(server_engine *engine)
{
    const uint64_t begin_us = hypura_clock_us();
    bool killed = false;
    pthread_mutex_lock(&engine->lock);
    if (!engine->ended) {
        kill(engine->pid, SIGTERM);
    }
    while (!engine->ended) {
        const uint64_t waited_us = hypura_clock_us() - begin_us;
        if (waited_us >= END_US && !killed) {
            server_log(LOG_WARN, "%s: its engine does not end and is killed", engine->name);
            kill(engine->pid, SIGKILL);
            killed = true;
        }
        (void)hypura_cond_wait(&engine->changed, &engine->lock, killed ? END_US : END_US - waited_us);
    }
    pthread_mutex_unlock(&engine->lock);
    pthread_join(engine->watcher, NULL);
    engine_free(engine);
}

/* ---- what it is ----------------------------------------------------------------------------- */

const char *engine_socket(const server_engine *engine)
{
    return engine->socket;
}

bool engine_live(const server_engine *engine, hypura_live_record *record)
{
    return hypura_live_read(engine->live, record);
}

int engine_pid(const server_engine *engine)
{
    return engine->pid;
}

bool engine_resize(server_engine *engine, uint64_t held_bytes)
{
    hypura_live_record record;
    char line[48];
    const int n = snprintf(line, sizeof line, "resize %" PRIu64 "\n", held_bytes);
    if (!engine_live(engine, &record) || write(engine->input, line, (size_t)n) != n) {
        return false;
    }
    const uint32_t n_before = record.n_commands;
    const uint64_t begin_us = hypura_clock_us();
    while (hypura_clock_us() - begin_us < RESIZE_US) {
        if (engine_live(engine, &record) && record.n_commands != n_before) {
            return true;
        }
        if (engine_ends_within(engine, POLL_US)) {
            return false;
        }
    }
    return false;
}
