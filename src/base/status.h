/*
 * status.h - filling a hypura_error. Every layer reports through these.
 */
#ifndef HYPURA_BASE_STATUS_H
#define HYPURA_BASE_STATUS_H

#include "hypura.h"

/* Writes the message (truncated if long) and returns status, so that a failing
 * function can `return hypura_fail(...)`. error may be NULL. */
hypura_status hypura_fail(hypura_error *error, hypura_status status, const char *format, ...) HYPURA_PRINTF(3, 4);

/* Puts "prefix: " before the message already there; its status stays. error may be NULL, so that the caller returns the
 * status that it has. */
void hypura_fail_prefix(hypura_error *error, const char *format, ...) HYPURA_PRINTF(2, 3);

/* As hypura_fail with HYPURA_ERR_IO, ending in ": " and the text of errno_value. */
hypura_status hypura_fail_errno(hypura_error *error, int errno_value, const char *format, ...) HYPURA_PRINTF(3, 4);

void hypura_error_clear(hypura_error *error);

#endif
