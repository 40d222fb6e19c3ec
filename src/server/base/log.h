/*
 * log.h - the server's own log: one line on standard error for each thing that happened.
 *
 *     2026-01-31T12:00:00.123Z warn  qwen3:30b: the engine ended by signal 9
 *
 * What always holds: a line is written whole, whatever other threads do; nothing of a
 * prompt, an answer or a key is ever logged.
 */
#ifndef HYPURA_SERVER_BASE_LOG_H
#define HYPURA_SERVER_BASE_LOG_H

#include "hypura.h"

typedef enum server_log_level {
    LOG_ERROR = 0,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
} server_log_level;

/* "error", "warn", "info", "debug"; false for other words. */
bool server_log_parse(const char *word, server_log_level *level);
/* Lines above this level are dropped. For the process; before the server opens. */
void server_log_set(server_log_level level);
void server_log(server_log_level level, const char *format, ...) HYPURA_PRINTF(2, 3);

#endif
