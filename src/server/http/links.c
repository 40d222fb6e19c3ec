/*
 * links.c - see links.h.
 */
#include "server/http/links.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/status.h"
#include "base/thread.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#define SECOND_US UINT64_C(1000000)

struct http_link {
    hypura_link link;
    int fd;
    uint64_t deadline_us; /* 0: none */
};

struct http_links {
    pthread_mutex_t lock;
    pthread_cond_t closed;
    hypura_list all;
    bool closing;
    pthread_t watcher;
};

/* libmicrohttpd may not see that a sender ends in the middle of a request (with epoll it does not). */
static bool has_stopped_sending(int fd)
{
#ifdef POLLRDHUP
    struct pollfd state = {.fd = fd, .events = POLLRDHUP};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLERR | POLLHUP)) != 0;
#else
    (void)fd;
    return false;
#endif
}

static void *watch(void *user)
{
    http_links *links = user;
    pthread_mutex_lock(&links->lock);
    while (!links->closing) {
        const uint64_t now_us = hypura_clock_us();
        for (hypura_link *at = links->all.first; at; at = at->next) {
            http_link *link = (http_link *)at;
            if (link->deadline_us != 0 && (link->deadline_us < now_us || has_stopped_sending(link->fd))) {
                shutdown(link->fd, SHUT_RDWR); /* the thread of the sockets sees its end */
                link->deadline_us = 0;
            }
        }
        (void)hypura_cond_wait(&links->closed, &links->lock, SECOND_US);
    }
    pthread_mutex_unlock(&links->lock);
    return NULL;
}

hypura_status http_links_open(http_links **out, hypura_error *error)
{
    http_links *links = calloc(1, sizeof(*links));
    *out = NULL;
    if (!links) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a server");
    }
    pthread_mutex_init(&links->lock, NULL);
    hypura_cond_init(&links->closed);
    if (pthread_create(&links->watcher, NULL, watch, links) != 0) {
        pthread_cond_destroy(&links->closed);
        pthread_mutex_destroy(&links->lock);
        free(links);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no thread for a server");
    }
    *out = links;
    return HYPURA_OK;
}

void http_links_close(http_links *links)
{
    if (!links) {
        return;
    }
    hypura_thread_end(links->watcher, &links->lock, &links->closed, &links->closing);
    pthread_cond_destroy(&links->closed);
    pthread_mutex_destroy(&links->lock);
    free(links);
}

http_link *http_link_add(http_links *links, int fd)
{
    http_link *link = calloc(1, sizeof(*link));
    if (!link) {
        return NULL;
    }
    link->fd = fd;
    pthread_mutex_lock(&links->lock);
    hypura_list_add(&links->all, &link->link);
    pthread_mutex_unlock(&links->lock);
    return link;
}

void http_link_remove(http_links *links, http_link *link)
{
    pthread_mutex_lock(&links->lock);
    hypura_list_remove(&links->all, &link->link);
    pthread_mutex_unlock(&links->lock);
    free(link);
}

void http_link_deadline(http_links *links, http_link *link, uint64_t seconds)
{
    pthread_mutex_lock(&links->lock);
    link->deadline_us = seconds > 0 ? hypura_clock_us() + seconds * SECOND_US : 0;
    pthread_mutex_unlock(&links->lock);
}

uint32_t http_links_count(http_links *links)
{
    pthread_mutex_lock(&links->lock);
    const uint32_t n = links->all.n;
    pthread_mutex_unlock(&links->lock);
    return n;
}
