/*
 * llama_log.h - what llama.cpp and ggml say, kept instead of printed.
 *
 * Each thread keeps the error lines of the calls it makes into llama.cpp, so two
 * models opened at once do not mix up their reasons.
 */
#ifndef HYPURA_ENGINE_LLAMA_LLAMA_LOG_H
#define HYPURA_ENGINE_LLAMA_LLAMA_LOG_H

#include "hypura.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Takes over the log callbacks of llama.cpp and ggml and starts libllama; once
 * for the process, any thread. Every use of libllama comes after it. */
void hypura_log_install(void);

/* After somebody else took the callbacks over: errors are kept again, and all goes on to that one. */
void hypura_log_share(void);

/* Forgets this thread's error lines, and what they said of memory. */
void hypura_log_clear(void);

/* Whether this thread's error lines since clear say that libllama could not change what its memory holds, the positions of keys
 * above all. It goes on behind that: some keys may be where they were and some not, and what is computed with them is other
 * text. To be asked behind each batch that was begun with a clear log. */
bool hypura_log_memory_failed(void);

/* hypura_fail, ending in ": " and llama.cpp's own reason where there is one: this thread's
 * error lines since clear, oldest first, joined by "; ". */
hypura_status hypura_log_fail(hypura_error *error, hypura_status status, const char *format, ...) HYPURA_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif

#endif
