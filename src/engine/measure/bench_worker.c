/*
 * bench_worker.c - a run in a process of its own.
 *
 *     hypura_bench_run_apart            hypura_bench_worker
 *        | group, socket pair, fork        |
 *        |---- task ---------------------->| hypura_bench_run
 *        |     progress, cancel            |
 *        |<--- reply: status and sample ---|
 *        | waits for its end, removes the group
 *
 * What always holds: when run_apart returns, the process has ended and its group
 * is gone. Both ends are the same build: plain data travels as it lies in memory,
 * and each message begins with its size.
 */
#include "engine/measure/bench.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/waiting.h"
#include "os/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

enum {
    POLL_MS = 200,
    EXIT_NO_GROUP = 126,
    EXIT_NO_PROGRAM = 127,
};

extern char **environ;

typedef struct request {
    uint64_t bytes; /* of this */
    hypura_bench_task task;
} request;

typedef struct reply {
    uint64_t bytes; /* of this */
    hypura_error error;
    hypura_bench_sample sample;
} reply;

/* ---- the process that runs ----------------------------------------------- */

static hypura_status read_whole(int fd, void *data, size_t bytes, hypura_error *error)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = read(fd, (char *)data + done, bytes - done);
        if (n == 0) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "a worker of a bench was given nothing to do");
        }
        if (n < 0 && errno != EINTR) {
            return hypura_fail_errno(error, errno, "a worker of a bench cannot read what to do");
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return HYPURA_OK;
}

static hypura_status write_whole(int fd, const void *data, size_t bytes, hypura_error *error)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = write(fd, (const char *)data + done, bytes - done);
        if (n < 0 && errno != EINTR) {
            return hypura_fail_errno(error, errno, "a worker of a bench cannot tell what came out");
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return HYPURA_OK;
}

hypura_status hypura_bench_worker(int input, int output, hypura_error *error)
{
    request *asked = calloc(1, sizeof(*asked));
    reply *answer = calloc(1, sizeof(*answer));
    hypura_status status = asked && answer ? read_whole(input, asked, sizeof(*asked), error)
                                           : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a run of a bench");
    if (status == HYPURA_OK && asked->bytes != sizeof(*asked)) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "a worker of a bench was started by another version of it");
    }
    if (status == HYPURA_OK) {
        answer->bytes = sizeof(*answer);
        (void)hypura_bench_run(&asked->task, &answer->sample, &answer->error);
        status = write_whole(output, answer, sizeof(*answer), error);
    }
    free(asked);
    free(answer);
    return status;
}

/* ---- the process that waits ---------------------------------------------- */

/* Between fork and exec: async-signal-safe calls alone. */
static _Noreturn void become_worker(const char *const *command, char *const *variables, int fd,
                                    const hypura_os_group *group, bool confined)
{
#ifdef __linux__
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    if (confined && !hypura_os_group_enter(group)) {
        _exit(EXIT_NO_GROUP);
    }
    if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0) {
        _exit(EXIT_NO_PROGRAM);
    }
    execve(command[0], (char *const *)(uintptr_t)command, variables);
    _exit(EXIT_NO_PROGRAM);
}

static hypura_status send_request(int fd, const hypura_bench_task *task, hypura_error *error)
{
    request *asked = calloc(1, sizeof(*asked));
    if (!asked) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a run of a bench");
    }
    asked->bytes = sizeof(*asked);
    asked->task = *task;
    /* Smaller than the buffer of any socket, so it does not wait for the worker. */
    const ssize_t n = send(fd, asked, sizeof(*asked), MSG_NOSIGNAL);
    const int e = errno;
    free(asked);
    if (n == (ssize_t)sizeof(*asked)) {
        return HYPURA_OK;
    }
    return hypura_fail_errno(error, n < 0 ? e : EPIPE, "a run of the bench could not be started");
}

/* Collects the reply; *got is short of its size when the process ended before. */
static hypura_status await_reply(int fd, hypura_progress_fn progress, void *progress_user, reply *answer, size_t *got,
                                 hypura_error *error)
{
    const uint64_t begin_us = hypura_clock_us();
    *got = 0;
    while (*got < sizeof(*answer)) {
        struct pollfd wanted = {.fd = fd, .events = POLLIN};
        const int ready = poll(&wanted, 1, POLL_MS);
        const uint64_t seconds = (hypura_clock_us() - begin_us) / 1000000;
        if (progress && !progress(progress_user, "measuring", seconds, 0)) {
            return hypura_fail(error, HYPURA_ERR_CANCELLED, "the bench was stopped");
        }
        if (ready <= 0) {
            continue;
        }
        const ssize_t n = read(fd, (char *)answer + *got, sizeof(*answer) - *got);
        if (n == 0) {
            break;
        }
        if (n < 0 && errno != EINTR) {
            return hypura_fail_errno(error, errno, "the outcome of a run of the bench cannot be read");
        }
        *got += n > 0 ? (size_t)n : 0;
    }
    return HYPURA_OK;
}

static hypura_status explain_end(int how, const char *program, uint64_t limit_bytes, hypura_error *error)
{
    const int signal = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP) {
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "the bench was stopped");
    }
    if (signal == SIGKILL) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "killed: it needs more than its limit of %llu bytes",
                           (unsigned long long)limit_bytes);
    }
    if (signal != 0) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "a run of the bench ended by signal %d", signal);
    }
    const int code = WIFEXITED(how) ? WEXITSTATUS(how) : -1;
    if (code == EXIT_NO_GROUP) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "the control group with the memory limit could not be entered");
    }
    return hypura_fail(error, HYPURA_ERR_BACKEND, "a run of the bench (%s) ended with exit code %d and no figures",
                       program, code);
}

/* Not stopped by signals of ours: waitpid is taken up again. */
static int wait_for(pid_t pid)
{
    int how = 0;
    while (waitpid(pid, &how, 0) < 0 && errno == EINTR) {
    }
    return how;
}

hypura_status hypura_bench_run_apart(const hypura_bench_task *task, const char *const *command, uint64_t limit_bytes,
                                     hypura_progress_fn progress, void *progress_user, hypura_bench_sample *sample,
                                     hypura_error *error)
{
    hypura_os_group group = {.dir = ""};
    int ends[2];
    if (limit_bytes > 0) {
        hypura_status status = hypura_os_group_open(limit_bytes, &group, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) {
        const int e = errno;
        hypura_os_group_close(&group);
        return hypura_fail_errno(error, e, "a run of the bench could not be started");
    }
    (void)fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(ends[1], F_SETFD, FD_CLOEXEC);

    hypura_status status;
    reply *answer = calloc(1, sizeof(*answer));
    const hypura_waiting waits = task->waits_longer ? HYPURA_WAITING_LONG : hypura_waiting_usual();
    char **variables =
        task->plain ? hypura_waiting_plain_environment(environ) : hypura_waiting_environment(environ, waits);
    const pid_t pid = answer && variables ? fork() : -1;
    if (pid == 0) {
        become_worker(command, variables, ends[1], &group, limit_bytes > 0);
    }
    const int fork_errno = answer && variables ? errno : ENOMEM;
    free(variables);
    (void)close(ends[1]);
    if (pid > 0) {
        size_t got = 0;
        status = send_request(ends[0], task, error);
        if (status == HYPURA_OK || error->status == HYPURA_ERR_IO) {
            /* A worker that ended before it read says more than the broken socket. */
            status = await_reply(ends[0], progress, progress_user, answer, &got, error);
        }
        if (got < sizeof(*answer) && status != HYPURA_OK) {
            (void)kill(pid, SIGKILL);
        }
        const int how = wait_for(pid);
        if (status == HYPURA_OK && (got < sizeof(*answer) || answer->bytes != sizeof(*answer))) {
            status = explain_end(how, command[0], limit_bytes, error);
        } else if (status == HYPURA_OK) {
            *sample = answer->sample;
            *error = answer->error;
            status = answer->error.status;
        }
    } else {
        status = hypura_fail_errno(error, fork_errno, "a run of the bench could not be started");
    }
    (void)close(ends[0]);
    free(answer);
    hypura_os_group_close(&group);
    return status;
}
