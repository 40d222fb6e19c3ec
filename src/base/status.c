/*
 * status.c - names of statuses and the one way of filling a hypura_error.
 *
 * What always holds: message is terminated, and empty exactly when status is
 * HYPURA_OK. A NULL error is allowed everywhere and changes no return value.
 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *hypura_status_name(hypura_status status)
{
    switch (status) {
    case HYPURA_OK:
        return "ok";
    case HYPURA_ERR_USAGE:
        return "usage";
    case HYPURA_ERR_IO:
        return "io";
    case HYPURA_ERR_FORMAT:
        return "format";
    case HYPURA_ERR_MEMORY:
        return "memory";
    case HYPURA_ERR_BUDGET:
        return "budget";
    case HYPURA_ERR_UNSUPPORTED:
        return "unsupported";
    case HYPURA_ERR_BACKEND:
        return "backend";
    case HYPURA_ERR_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

const char *hypura_version(void)
{
    return HYPURA_VERSION;
}

hypura_status hypura_fail(hypura_error *error, hypura_status status, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        error->status = status;
        (void)vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
    }
    return status;
}

/* Puts ": text" behind the first n characters, cut to what fits. n is what
 * snprintf returned for them. */
static void append(hypura_error *error, int n, const char *text)
{
    if (n < 0 || (size_t)n + 3 > sizeof error->message) {
        return;
    }
    size_t room = sizeof error->message - (size_t)n - 3;
    size_t bytes = strnlen(text, room);
    char *out = error->message + n;
    out[0] = ':';
    out[1] = ' ';
    memcpy(out + 2, text, bytes);
    out[2 + bytes] = '\0';
}

void hypura_fail_prefix(hypura_error *error, const char *format, ...)
{
    if (error == NULL) {
        return;
    }
    char old[sizeof error->message];
    memcpy(old, error->message, sizeof old);

    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    append(error, n, old);
}

/* strerror_r comes in two shapes; these two tell them apart by type. */
static inline const char *errno_text_gnu(const char *text, const char *buffer)
{
    (void)buffer;
    return text;
}

static inline const char *errno_text_xsi(int failed, const char *buffer)
{
    return failed ? "unknown error" : buffer;
}

#define errno_text(result, buffer) _Generic((result), char * : errno_text_gnu, int : errno_text_xsi)((result), (buffer))

hypura_status hypura_fail_errno(hypura_error *error, int errno_value, const char *format, ...)
{
    if (error != NULL) {
        char buffer[128] = "";
        const char *text = errno_text(strerror_r(errno_value, buffer, sizeof buffer), buffer);

        va_list arguments;
        va_start(arguments, format);
        error->status = HYPURA_ERR_IO;
        int n = vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        append(error, n, text);
    }
    return HYPURA_ERR_IO;
}

void hypura_error_clear(hypura_error *error)
{
    if (error != NULL) {
        error->status = HYPURA_OK;
        error->message[0] = '\0';
    }
}
