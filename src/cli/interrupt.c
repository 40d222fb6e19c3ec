/*
 * interrupt.c - see interrupt.h. Waiting uses the self-pipe method (D. J.
 * Bernstein): a handler may run on any thread of the process, so interrupting a
 * system call of this one cannot be relied on.
 */
#include "cli/interrupt.h"

#include "base/status.h"
#include "cli/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static atomic_int pending; /* SIGINTs not yet taken */
static atomic_bool terminated;
static atomic_int received; /* of all kinds, ever */
static int wake[2] = {-1, -1}; /* the handlers write, wait reads */

static void handle(int number)
{
    int saved = errno;
    atomic_fetch_add(&received, 1);
    if (number == SIGINT) {
        if (atomic_fetch_add(&pending, 1) >= 2) {
            _exit(1);
        }
    } else {
        atomic_store(&terminated, true);
    }
    /* A full pipe is one that will wake the reader. */
    ssize_t ignored = write(wake[1], "", 1);
    (void)ignored;
    errno = saved;
}

/* What is written when a mapped file is gone. */
static char lost[HYPURA_PATH_BYTES + 128];
static size_t lost_bytes;

static void handle_lost(int number, siginfo_t *about, void *context)
{
    (void)context;
    if (about->si_code != BUS_ADRERR) {
        signal(number, SIG_DFL); /* returning does again what led here */
        return;
    }
    ssize_t ignored = write(STDERR_FILENO, lost, lost_bytes);
    (void)ignored;
    _exit(1);
}

void hypura_interrupt_watch(const char *path)
{
    struct sigaction action = {.sa_sigaction = handle_lost, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    int n = snprintf(lost, sizeof lost,
                     "hypura: %s: a mapped part cannot be read any more: it was truncated, or its drive failed\n", path);
    lost_bytes = n > 0 && (size_t)n < sizeof lost ? (size_t)n : 0;
    sigaction(SIGBUS, &action, NULL);
}

void hypura_interrupt_let_writes_fail(void)
{
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigemptyset(&action.sa_mask);
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

hypura_status hypura_interrupt_open(hypura_error *error)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    if (wake[0] >= 0) {
        return HYPURA_OK;
    }
    if (pipe(wake) != 0) {
        return hypura_fail_errno(error, errno, "cannot make a pipe for signals");
    }
    for (int i = 0; i < 2; i++) {
        fcntl(wake[i], F_SETFL, fcntl(wake[i], F_GETFL) | O_NONBLOCK);
        fcntl(wake[i], F_SETFD, FD_CLOEXEC);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction before;
        struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
        sigemptyset(&action.sa_mask);
        /* nohup and background jobs of a shell ask for a signal to be ignored. */
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
    return HYPURA_OK;
}

bool hypura_interrupted(void)
{
    return atomic_load(&pending) > 0 || atomic_load(&terminated);
}

bool hypura_terminated(void)
{
    return atomic_load(&terminated);
}

int hypura_interrupts(void)
{
    return atomic_load(&received);
}

static void drain(void)
{
    char bytes[16];
    while (wake[0] >= 0 && read(wake[0], bytes, sizeof bytes) > 0) {
    }
}

void hypura_interrupt_clear(void)
{
    /* In this order, a signal between the two is still seen as pending. */
    atomic_store(&pending, 0);
    drain();
}

bool hypura_interrupt_wait(int descriptor)
{
    struct pollfd waits[2] = {{.fd = descriptor, .events = POLLIN}, {.fd = wake[0], .events = POLLIN}};
    while (!hypura_interrupted()) {
        int n = poll(waits, wake[0] >= 0 ? 2 : 1, -1);
        if (n > 0 && waits[0].revents != 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return true; /* the read that follows says what is wrong */
        }
        drain();
    }
    return false;
}
