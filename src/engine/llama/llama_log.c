/*
 * llama_log.c - see llama_log.h. What always holds: nothing is printed by us; the text kept is
 * terminated; the first error of a call is kept in preference to later ones,
 * because llama.cpp reports the cause first and what failed with it afterwards.
 */
#include "engine/llama/llama_log.h"

#include "base/status.h"
#include "engine/llama/llama_shim.h"

#include "mtmd-helper.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char errors[384];
static _Thread_local size_t errors_bytes;
static _Thread_local bool memory_failed;
static _Thread_local enum ggml_log_level last_level;
static pthread_once_t installed = PTHREAD_ONCE_INIT;
static ggml_log_callback other; /* who hears all of it too; NULL: nobody */
static void *other_user;

/* llama.cpp puts the name of its function before most messages. */
static const char *skip_function_name(const char *text)
{
    const char *p = text;
    while (isalnum((unsigned char)*p) || *p == '_') {
        p++;
    }
    return p > text && p[0] == ':' && p[1] == ' ' ? p + 2 : text;
}

static void append(const char *text, size_t bytes)
{
    size_t room = sizeof(errors) - 1 - errors_bytes;
    if (bytes > room) {
        bytes = room;
    }
    for (size_t i = 0; i < bytes; i++) {
        errors[errors_bytes++] = text[i] == '\n' ? ' ' : text[i];
    }
    errors[errors_bytes] = '\0';
}

static void on_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (other) {
        other(level, text, other_user);
    }
    const bool continues = level == GGML_LOG_LEVEL_CONT;
    if (!continues) {
        last_level = level;
    }
    if (last_level != GGML_LOG_LEVEL_ERROR || !text) {
        return;
    }
    const char *start = continues ? text : skip_function_name(text);
    size_t bytes = strlen(start);
    while (bytes > 0 && isspace((unsigned char)start[bytes - 1])) {
        bytes--;
    }
    if (bytes == 0) {
        return;
    }
    memory_failed = memory_failed || strstr(text, "K-shift") || strstr(text, "memory update");
    if (!continues && errors_bytes > 0) {
        append("; ", 2);
    }
    append(start, bytes);
}

static void install(void)
{
    mtmd_helper_log_set(on_log, NULL);
    llama_log_set(on_log, NULL); /* sets ggml's callback too */
    hypura_shim_silence_common();
    llama_backend_init();
}

void hypura_log_install(void)
{
    pthread_once(&installed, install);
}

void hypura_log_share(void)
{
    ggml_log_callback now;
    void *user;
    llama_log_get(&now, &user);
    if (now != on_log) {
        other = now;
        other_user = user;
        llama_log_set(on_log, NULL);
    }
}

void hypura_log_clear(void)
{
    errors_bytes = 0;
    errors[0] = '\0';
    memory_failed = false;
    last_level = GGML_LOG_LEVEL_NONE;
}

bool hypura_log_memory_failed(void)
{
    return memory_failed;
}

hypura_status hypura_log_fail(hypura_error *error, hypura_status status, const char *format, ...)
{
    char message[256];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    const char *reason = errors_bytes > 0 ? errors : hypura_shim_guard_message();
    if (reason[0] == '\0') {
        return hypura_fail(error, status, "%s", message);
    }
    return hypura_fail(error, status, "%s: %s", message, reason);
}
