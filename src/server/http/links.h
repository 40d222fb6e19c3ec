/*
 * links.h - the open sockets, and when the next request on each has to be whole. A thread of its own cuts off
 * those that are too slow: an idle limit alone would let them send a byte now and then for ever.
 *
 *     add --> (a deadline: resting, or a request that arrives) <--> (none: an answer is made) --> remove
 *
 * What always holds: a socket is looked at between add and remove alone, so its number belongs to nobody else.
 */
#ifndef HYPURA_SERVER_HTTP_LINKS_H
#define HYPURA_SERVER_HTTP_LINKS_H

#include "hypura.h"

typedef struct http_links http_links;
typedef struct http_link http_link;

hypura_status http_links_open(http_links **links, hypura_error *error);
/* All were removed. NULL is allowed. */
void http_links_close(http_links *links);

/* Without a deadline. NULL when memory is short. */
http_link *http_link_add(http_links *links, int fd);
/* Before the socket is closed. */
void http_link_remove(http_links *links, http_link *link);
/* From now; 0: none. */
void http_link_deadline(http_links *links, http_link *link, uint64_t seconds);
uint32_t http_links_count(http_links *links);

#endif
