/*
 * date.h - dates as RFC 3339 writes them, of UTC: 2026-01-31T12:00:00.123Z
 */
#ifndef HYPURA_BASE_DATE_H
#define HYPURA_BASE_DATE_H

#include <time.h>

#define HYPURA_DATE_BYTES 40

/* In text, of HYPURA_DATE_BYTES, which is returned. digits: of the fraction of the second, up to 9. What no calendar has is the
 * beginning of 1970. */
const char *hypura_date_format(struct timespec when, int digits, char *text);
/* The same of now. */
const char *hypura_date_now(int digits, char *text);

#endif
