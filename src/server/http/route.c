/*
 * route.c - which route a request takes.
 */
#include "server/http/internal.h"

#include <stdio.h>
#include <string.h>

static bool path_fits(const char *pattern, const char *path)
{
    const size_t length = strlen(pattern);
    return pattern[length - 1] == '*' ? strncmp(pattern, path, length - 1) == 0 : strcmp(pattern, path) == 0;
}

/* What GET answers, HEAD does, without the body; but nothing is computed for it. */
static bool answers_head(const http_route *route)
{
    return strcmp(route->method, "GET") == 0 && (route->flags & ROUTE_MODEL) == 0;
}

static bool takes(const http_route *route, const char *method)
{
    return strcmp(route->method, method) == 0 || (strcmp(method, "HEAD") == 0 && answers_head(route));
}

const http_route *http_find_route(const http_routes *routes, const char *method, const char *path, bool *known_path)
{
    *known_path = false;
    for (size_t i = 0; i < routes->n; i++) {
        if (path_fits(routes->all[i].path, path)) {
            *known_path = true;
            if (takes(&routes->all[i], method)) {
                return &routes->all[i];
            }
        }
    }
    return NULL;
}

void http_list_methods(const http_routes *routes, const char *path, char *text, size_t capacity)
{
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < routes->n; i++) {
        const char *methods = answers_head(&routes->all[i]) ? "GET, HEAD" : routes->all[i].method;
        if (path_fits(routes->all[i].path, path) && !strstr(text, methods) && n + strlen(methods) + 3 < capacity) {
            n += (size_t)snprintf(text + n, capacity - n, "%s%s", n > 0 ? ", " : "", methods);
        }
    }
}
