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

/* Forgets this thread's error lines. */
void hypura_log_clear(void);

/* How often, on this thread, libllama could not change what its memory holds, the positions of keys above all, which it logs and
 * goes on behind: what is computed then is other text. */
uint64_t hypura_log_n_memory_failures(void);

/* hypura_fail, ending in ": " and llama.cpp's own reason where there is one: this thread's
 * error lines since clear, oldest first, joined by "; ". */
hypura_status hypura_log_fail(hypura_error *error, hypura_status status, const char *format, ...) HYPURA_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif

#endif
