/*
 * date.c - see date.h.
 */
#include "base/date.h"

#include <stdio.h>

const char *hypura_date_format(struct timespec when, int digits, char *text)
{
    struct tm parts;
    char fraction[16];
    size_t n = 0;
    if (gmtime_r(&when.tv_sec, &parts)) {
        n = strftime(text, HYPURA_DATE_BYTES - sizeof fraction, "%Y-%m-%dT%H:%M:%S", &parts);
    }
    if (n == 0) {
        n = (size_t)snprintf(text, HYPURA_DATE_BYTES, "1970-01-01T00:00:00");
    }
    (void)snprintf(fraction, sizeof fraction, ".%09ld", when.tv_nsec);
    (void)snprintf(text + n, HYPURA_DATE_BYTES - n, "%.*sZ", digits > 0 ? digits + 1 : 0, fraction);
    return text;
}

const char *hypura_date_now(int digits, char *text)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return hypura_date_format(now, digits, text);
}
