/*
 * log.c - see log.h.
 */
#include "server/base/log.h"

#include "base/date.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {"error", "warn", "info", "debug"};
static atomic_int threshold = LOG_INFO;

bool server_log_parse(const char *word, server_log_level *level)
{
    for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
        if (strcmp(word, names[i]) == 0) {
            *level = (server_log_level)i;
            return true;
        }
    }
    return false;
}

void server_log_set(server_log_level level)
{
    atomic_store(&threshold, (int)level);
}

static bool is_wanted(server_log_level level)
{
    return (int)level <= atomic_load(&threshold);
}

void server_log(server_log_level level, const char *format, ...)
{
    char line[1024];
    char date[HYPURA_DATE_BYTES];
    if (!is_wanted(level)) {
        return;
    }
    size_t n = (size_t)snprintf(line, sizeof line, "%s %-5s ", hypura_date_now(3, date), names[level]);
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(line + n, sizeof line - n - 1, format, arguments);
    va_end(arguments);
    const size_t room = sizeof line - n - 2;
    n += written < 0 ? 0 : (size_t)written < room ? (size_t)written : room;
    for (size_t i = 0; i < n; i++) {
        line[i] = (unsigned char)line[i] < ' ' ? ' ' : line[i]; /* a name in a request must not forge a line */
    }
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
}
