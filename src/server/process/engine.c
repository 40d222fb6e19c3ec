/*
 * engine.c - see engine.h.
 */
#include "server/process/engine.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "os/os.h"
#include "server/base/log.h"
#include "server/process/program.h"
#include "server/process/upstream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOLDER_BYTES  80 /* the path of a socket has 108 bytes at most */
#define POLL_US       (UINT64_C(20) * 1000)
#define END_US        (UINT64_C(10) * 1000 * 1000)
#define FAILED_END_US (UINT64_C(30) * 1000 * 1000)
#define RESIZE_US     (UINT64_C(20) * 1000 * 1000)

struct server_engine {
    char name[128];
    char folder[FOLDER_BYTES];
    char socket[FOLDER_BYTES + 16];
    char live_path[FOLDER_BYTES + 16];
    char template_path[FOLDER_BYTES + 16];
    hypura_live *live;
    adapter_scale *scale; /* of what it computes */
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

static bool has_failed(const server_engine *engine, hypura_live_record *record)
{
    return hypura_live_read(engine->live, record) && record->state == HYPURA_LIVE_FAILED;
}

/* It ends, but a driver may take a second to give back each few GiB of its memory, which another engine is to find. */
static uint64_t most_us(const server_engine *engine, uint64_t timeout_us)
{
    hypura_live_record record;
    return timeout_us > 0 && timeout_us < FAILED_END_US && has_failed(engine, &record) ? FAILED_END_US : timeout_us;
}

bool engine_ends_within(server_engine *engine, uint64_t timeout_us)
{
    const uint64_t begin_us = hypura_clock_us();
    pthread_mutex_lock(&engine->lock);
    for (uint64_t waited_us = 0; !engine->ended && waited_us < most_us(engine, timeout_us);
         waited_us = hypura_clock_us() - begin_us) {
        (void)hypura_cond_wait(&engine->changed, &engine->lock, most_us(engine, timeout_us) - waited_us);
    }
    const bool ended = engine->ended;
    pthread_mutex_unlock(&engine->lock);
    return ended;
}

void engine_describe_end(server_engine *engine, char *text, size_t capacity)
{
    pthread_mutex_lock(&engine->lock);
    const int status = engine->wait_status;
    hypura_live_record record;
    if (has_failed(engine, &record)) {
        snprintf(text, capacity, "failed: %s", record.error.message);
    } else if (!engine->ended) {
        snprintf(text, capacity, "is running");
    } else if (WIFSIGNALED(status)) {
        snprintf(text, capacity, "was ended by signal %d", WTERMSIG(status));
    } else {
        snprintf(text, capacity, "ended with exit code %d%s%s", WEXITSTATUS(status),
                 engine->last_line[0] ? "; its last words: " : "", engine->last_line);
    }
    pthread_mutex_unlock(&engine->lock);
}

bool engine_refused(server_engine *engine, char *why, size_t capacity)
{
    hypura_live_record record;
    pthread_mutex_lock(&engine->lock);
    const bool refused =
        engine->ended && has_failed(engine, &record) && record.error.status == HYPURA_ERR_UNSUPPORTED;
    pthread_mutex_unlock(&engine->lock);
    if (refused) {
        snprintf(why, capacity, "%s", record.error.message);
    }
    return refused;
}

/* ---- starting and ending ----------------------------------------------------------------- */

static void engine_free(server_engine *engine)
{
    adapter_scale_close(engine->scale);
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
    engine_words line;
    engine_words_common(options, &line);
    line.waits = options->waits;
    engine_words_add(&line, "--name", options->name);
    engine_words_add(&line, "--socket", engine->socket);
    engine_words_add(&line, "--live", engine->live_path);
    engine_words_add(&line, "--slots", options->slots_folder);
    engine_words_add(&line, "--projector", options->projector_path);
    engine_words_add(&line, "--chat-template", options->chat_template ? engine->template_path : NULL);
    engine_words_add(&line, "--defaults", options->defaults);
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
    hypura_status status = engine_spawn(&line, in[0], out[1], out[1], &engine->pid, error);
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
    int n_adapters = 0;
    while (options->adapter_paths && options->adapter_paths[n_adapters]) {
        n_adapters++;
    }
    engine->scale = adapter_scale_open(n_adapters);
    hypura_status status = engine->scale ? make_folder(options, engine, error)
                                         : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for an engine");
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
            if (has_failed(engine, &record)) {
                return hypura_fail(error, record.error.status, "%s", record.error.message);
            }
            char end[ENGINE_END_BYTES];
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

adapter_scale *engine_adapter_scale(server_engine *engine)
{
    return engine->scale;
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
