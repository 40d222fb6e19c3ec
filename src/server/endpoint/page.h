/*
 * page.h - the page that browsers get at /: page/index.html, embedded by the build.
 */
#ifndef HYPURA_SERVER_ENDPOINT_PAGE_H
#define HYPURA_SERVER_ENDPOINT_PAGE_H

#include <stddef.h>

extern const unsigned char hypura_page[]; /* UTF-8 */
extern const size_t        hypura_page_bytes;
extern const char          hypura_page_digest[]; /* for ETag */

/* Its Content-Security-Policy: scripts and styles are its own, it speaks to this
 * server alone, and no other page may frame it. */
#define HYPURA_PAGE_POLICY                                                                                             \
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "   \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

#endif
