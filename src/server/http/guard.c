/*
 * guard.c - see guard.h.
 */
#include "server/http/guard.h"

#include "base/host.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define MAX_NAME HYPURA_HOST_BYTES

/* The name in "name", "name:port", "[address]:port". False when it is none of these. */
static bool take_name(const char *text, char *name)
{
    const char *begin = text;
    const char *end = NULL;
    if (*text == '[') {
        begin = text + 1;
        end = strchr(begin, ']');
        if (!end || (end[1] != '\0' && end[1] != ':')) {
            return false;
        }
    } else {
        end = begin + strcspn(begin, ":/");
        if (*end == '/') {
            return false;
        }
    }
    const size_t length = (size_t)(end - begin);
    const char *port = *end == ']' ? end + 1 : end;
    if (length == 0 || length >= MAX_NAME || (*port == ':' && port[1 + strspn(port + 1, "0123456789")] != '\0')) {
        return false;
    }
    memcpy(name, begin, length);
    name[length] = '\0';
    if (name[length - 1] == '.') {
        name[length - 1] = '\0'; /* localhost. is localhost */
    }
    return true;
}

static bool is_listed(const char *name, const char *hosts)
{
    char host[HYPURA_HOST_BYTES];
    bool found = false;
    while (!found && hypura_host_next(&hosts, host)) {
        found = strcasecmp(name, host) == 0;
    }
    return found;
}

/* What containers of this machine call it; nobody else can have these names. */
static bool is_name_for_containers(const char *name)
{
    return strcasecmp(name, "host.docker.internal") == 0 || strcasecmp(name, "host.containers.internal") == 0;
}

bool guard_host_allowed(const char *host, const char *listen_hosts, bool open)
{
    char name[MAX_NAME];
    if (!host || open) {
        return true;
    }
    return take_name(host, name) &&
           (hypura_host_is_local_name(name) || hypura_host_is_address(name) || is_name_for_containers(name) ||
            (listen_hosts && is_listed(name, listen_hosts)));
}

bool guard_origin_allowed(const char *origin, const char *const *allowed)
{
    static const char *const schemes[] = {"http://", "https://"};
    static const char *const programs[] = {"app://", "tauri://", "vscode-webview://", "vscode-file://"};
    char name[MAX_NAME];
    if (!origin) {
        return true;
    }
    for (; allowed && *allowed; allowed++) {
        if (strcmp(*allowed, "*") == 0 || strcasecmp(*allowed, origin) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        if (strncasecmp(origin, programs[i], strlen(programs[i])) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        const size_t n = strlen(schemes[i]);
        if (strncasecmp(origin, schemes[i], n) == 0 && take_name(origin + n, name)) {
            return hypura_host_is_loopback(name);
        }
    }
    return false;
}

bool guard_origin_is_own(const char *origin, const char *host, bool has_key)
{
    char name[MAX_NAME];
    const char *mark = origin ? strstr(origin, "://") : NULL;
    return mark && host && strncasecmp(origin, "http", 4) == 0 && strcasecmp(mark + 3, host) == 0 &&
           take_name(host, name) && (has_key || hypura_host_is_address(name));
}

static bool equal_in_constant_time(const char *given, const char *key)
{
    const size_t n = strlen(key);
    const size_t n_given = strlen(given);
    unsigned char differs = n != n_given;
    for (size_t i = 0; i < n_given; i++) {
        differs |= (unsigned char)(given[i] ^ key[n > 0 ? i % n : 0]);
    }
    return !differs;
}

bool guard_key_matches(const char *authorization, const char *x_api_key, const char *const *keys)
{
    static const char bearer[] = "Bearer ";
    const bool is_bearer = authorization && strncasecmp(authorization, bearer, sizeof(bearer) - 1) == 0;
    const char *given = is_bearer ? authorization + sizeof(bearer) - 1 : x_api_key;
    bool matches = false;
    for (; given && *keys; keys++) {
        matches |= equal_in_constant_time(given, *keys);
    }
    return matches;
}
