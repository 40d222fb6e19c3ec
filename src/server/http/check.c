/*
 * check.c - what a request's head decides, before any of its body is looked at: host, origin, route and key.
 */
#include "server/http/internal.h"

#include "base/host.h"
#include "server/http/guard.h"

#include <string.h>

/* A browser asks before it sends a request of another page's. */
static void answer_preflight(http_exchange *exchange)
{
    http_set_header(exchange, "Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE, OPTIONS");
    const char *wanted = http_header(exchange, "Access-Control-Request-Headers");
    http_set_header(exchange, "Access-Control-Allow-Headers", wanted ? wanted : "Authorization, Content-Type");
    http_set_header(exchange, "Access-Control-Max-Age", "600");
    http_reply(exchange, 200, "", "", 0);
}

bool http_check_head(http_exchange *exchange)
{
    const http_options *options = &exchange->daemon->options;
    const char *origin = http_header(exchange, "Origin");
    const char *host = http_header(exchange, "Host");
    bool known_path;
    exchange->route = http_find_route(options->routes, exchange->method, exchange->path, &known_path);
    if (!guard_host_allowed(host, options->hosts, !hypura_hosts_are_loopback(options->hosts))) {
        http_fail(exchange, 403, "the Host header names another machine (a page that pretends to be this one?)");
        return false;
    }
    if (!guard_origin_allowed(origin, options->origins) && !guard_origin_is_own(origin, host, options->api_keys != NULL)) {
        http_fail(exchange, 403, "pages of %.200s may not use this server (--origins allows some)", origin);
        return false;
    }
    if (exchange->path_is_cut) {
        http_fail(exchange, 400, "the path has a zero byte in it");
        return false;
    }
    exchange->allowed_origin = origin ? strdup(origin) : NULL;
    if (strcmp(exchange->method, "OPTIONS") == 0) {
        answer_preflight(exchange);
        return false;
    }
    if (!exchange->route) {
        char methods[64];
        http_list_methods(options->routes, exchange->path, methods, sizeof methods);
        if (known_path) {
            http_set_header(exchange, "Allow", methods);
        }
        http_fail(exchange, known_path ? 405 : 404, "%s %.200s is not part of this API", exchange->method,
                  exchange->path);
        return false;
    }
    if (options->api_keys && !(exchange->route->flags & ROUTE_PUBLIC) &&
        !guard_key_matches(http_header(exchange, "Authorization"), http_header(exchange, "x-api-key"),
                           options->api_keys)) {
        http_set_header(exchange, "WWW-Authenticate", "Bearer");
        http_fail(exchange, 401, "the API key is missing or wrong");
        return false;
    }
    return true;
}
