/*
 * server_fixture.c - see server_fixture.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "server_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static pid_t server = -1;

static struct sockaddr_in address_of(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_on(uint16_t port, uint16_t *bound)
{
    struct sockaddr_in address = address_of(port);
    socklen_t size = sizeof(address);
    const int on = 1;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *bound = ntohs(address.sin_port);
    return fd;
}

static int connect_to(uint16_t port)
{
    const struct sockaddr_in address = address_of(port);
    const int on = 1;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

uint16_t server_free_port(void)
{
    uint16_t port;
    (void)close(listen_on(0, &port));
    return port;
}

static void pause_ms(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

void server_start(uint16_t port, const char *memory)
{
    char number[8];
    int fd = -1;
    snprintf(number, sizeof(number), "%u", port);
    char *words[] = {"hypura",    "rpc-server", "--port", number, "--memory", (char *)(uintptr_t)memory,
                     "--threads", "1",          "--gpu",  "none", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    assert_int_equal(posix_spawn(&server, HYPURA_PROGRAM, &actions, NULL, words, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    for (int i = 0; fd < 0 && i < 1000; i++) {
        pause_ms(20);
        fd = connect_to(port);
    }
    assert_true(fd >= 0);
    (void)close(fd);
}

void server_kill(void)
{
    if (server > 0) {
        (void)kill(server, SIGKILL);
        (void)waitpid(server, NULL, 0);
        server = -1;
    }
}

/* ---- the way ------------------------------------------------------------------------- */

static struct {
    pthread_t thread;
    int listening;
    uint16_t to;
    atomic_uint_fast64_t left, passed;
    atomic_bool ends;
} way;

/* Some bytes; false where the connection is at its end. */
static bool forward(int from, int to)
{
    char bytes[65536];
    const ssize_t n = recv(from, bytes, sizeof(bytes), 0);
    if (n <= 0) {
        return false;
    }
    const uint64_t left = atomic_load(&way.left);
    const size_t now = (uint64_t)n < left ? (size_t)n : (size_t)left;
    atomic_fetch_add(&way.passed, now);
    if (left != UINT64_MAX) {
        atomic_store(&way.left, left - now);
    }
    for (size_t sent = 0; sent < now;) {
        const ssize_t more = send(to, bytes + sent, now - sent, MSG_NOSIGNAL);
        if (more <= 0) {
            return false;
        }
        sent += (size_t)more;
    }
    return now == (size_t)n;
}

static void forward_all(int client, int beyond)
{
    struct pollfd ready[2] = {{client, POLLIN, 0}, {beyond, POLLIN, 0}};
    bool open = atomic_load(&way.left) > 0;
    while (open && !atomic_load(&way.ends)) {
        if (poll(ready, 2, 50) <= 0) {
            continue;
        }
        for (int i = 0; i < 2 && open; i++) {
            open = ready[i].revents == 0 || forward(ready[i].fd, ready[1 - i].fd);
        }
    }
}

static void *serve_way(void *unused)
{
    (void)unused;
    while (!atomic_load(&way.ends)) {
        struct pollfd ready = {way.listening, POLLIN, 0};
        if (poll(&ready, 1, 50) <= 0) {
            continue;
        }
        const int client = accept(way.listening, NULL, NULL);
        const int on = 1;
        (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        const int beyond = connect_to(way.to);
        if (beyond >= 0) {
            forward_all(client, beyond);
            (void)close(beyond);
        }
        (void)close(client);
    }
    return NULL;
}

void way_open(uint16_t from, uint16_t to)
{
    uint16_t bound;
    way.listening = listen_on(from, &bound);
    way.to = to;
    atomic_store(&way.left, UINT64_MAX);
    atomic_store(&way.passed, 0);
    atomic_store(&way.ends, false);
    assert_int_equal(pthread_create(&way.thread, NULL, serve_way, NULL), 0);
}

uint64_t way_cut_after(uint64_t bytes)
{
    atomic_store(&way.left, bytes);
    return atomic_exchange(&way.passed, 0);
}

void way_close(void)
{
    atomic_store(&way.ends, true);
    assert_int_equal(pthread_join(way.thread, NULL), 0);
    (void)close(way.listening);
}

/* ---- a server that is none ----------------------------------------------------------- */

static struct {
    pthread_t thread;
    int listening;
    const void *bytes;
    size_t n;
    atomic_bool ends;
} answer;

static void *serve_answer(void *unused)
{
    (void)unused;
    struct pollfd ready = {answer.listening, POLLIN, 0};
    while (poll(&ready, 1, 50) <= 0 && !atomic_load(&answer.ends)) {
    }
    const int client = atomic_load(&answer.ends) ? -1 : accept(answer.listening, NULL, NULL);
    if (client >= 0 && answer.n > 0) {
        char asked[33]; /* a greeting */
        (void)recv(client, asked, sizeof(asked), MSG_WAITALL);
        (void)send(client, answer.bytes, answer.n, MSG_NOSIGNAL);
    }
    while (answer.n == 0 && !atomic_load(&answer.ends)) {
        pause_ms(20);
    }
    if (client >= 0) {
        (void)close(client);
    }
    return NULL;
}

void answer_open(uint16_t port, const void *bytes, size_t n)
{
    uint16_t bound;
    answer.listening = listen_on(port, &bound);
    answer.bytes = bytes;
    answer.n = n;
    atomic_store(&answer.ends, false);
    assert_int_equal(pthread_create(&answer.thread, NULL, serve_answer, NULL), 0);
}

void answer_close(void)
{
    atomic_store(&answer.ends, true);
    assert_int_equal(pthread_join(answer.thread, NULL), 0);
    (void)close(answer.listening);
}
