/*
 * guard.h - who may talk to the server: pure decisions about headers.
 *
 * A web page anywhere can make a browser send requests to this machine. Two checks keep
 * such pages out: the Host header has to name this machine as its user would (a page that
 * rebinds its own name to 127.0.0.1 sends its own name), and a request with an Origin
 * header has to come from an allowed origin, or from the server's own page.
 */
#ifndef HYPURA_SERVER_HTTP_GUARD_H
#define HYPURA_SERVER_HTTP_GUARD_H

#include <stdbool.h>

/* host is a Host header, "name:port"; NULL (HTTP/1.0) is allowed. Names of this machine are localhost, names that end
 * in .localhost, what containers call it, and every address written as numbers. listen_hosts is what the server was told
 * to listen on, by comma: these names are allowed, and when the server can be reached from other machines (open: it
 * checks keys then) any name is. */
bool guard_host_allowed(const char *host, const char *listen_hosts, bool open);

/* origin is an Origin header, NULL: not a web page's. Allowed are pages from this machine (http or https, as above),
 * programs of this machine that are made of web pages (app://, tauri://, vscode-webview://, vscode-file://: no page of
 * the web has such an origin), and the origins listed, where "*" is any. allowed ends with NULL. */
bool guard_origin_allowed(const char *origin, const char *const *allowed);

/* Whether that page is the server's own, as a browser of another machine sees it: its origin is what it asks for. A name
 * may be one that its owner lets mean this machine, so without a key only an address written as numbers counts. */
bool guard_origin_is_own(const char *origin, const char *host, bool has_key);

/* Whether the header "Authorization: Bearer KEY" or "x-api-key: KEY" carries one of the keys, which end with NULL; in a
 * time that does not depend on which one or on where they differ. */
bool guard_key_matches(const char *authorization, const char *x_api_key, const char *const *keys);

#endif
