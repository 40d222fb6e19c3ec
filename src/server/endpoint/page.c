/*
 * page.c - what lies at /: the page for browsers, a line for everything else.
 */
#include "server/endpoint/page.h"
#include "server/endpoint/routes.h"

#include <stdio.h>
#include <string.h>

void endpoint_root(http_exchange *exchange)
{
    static const char line[] = "Hypura is running";
    char tag[80];
    const char *accept = http_header(exchange, "Accept");
    const char *known = http_header(exchange, "If-None-Match");
    http_set_header(exchange, "Vary", "Accept");
    if (!accept || !strstr(accept, "text/html")) {
        http_reply(exchange, 200, "text/plain; charset=utf-8", line, sizeof line - 1);
        return;
    }
    snprintf(tag, sizeof tag, "\"%.32s\"", hypura_page_digest);
    http_set_header(exchange, "ETag", tag);
    http_set_header(exchange, "Cache-Control", "no-cache");
    http_set_header(exchange, "Content-Security-Policy", HYPURA_PAGE_POLICY);
    http_set_header(exchange, "Referrer-Policy", "no-referrer");
    if (known && strstr(known, tag)) {
        http_reply(exchange, 304, "", "", 0);
        return;
    }
    http_reply(exchange, 200, "text/html; charset=utf-8", (const char *)hypura_page, hypura_page_bytes);
}
