/*
 * shim.h - llama.cpp's server as one C function, and what it computes, watched.
 */
#ifndef HYPURA_WORKER_SHIM_H
#define HYPURA_WORKER_SHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Runs the server until it is told to end (SIGTERM); returns its exit code. No C++ exception leaves it. */
int hypura_shim_server(int argc, char **argv);

/* From here on on_silence is called, with what was thrown, where the server computed and a device cannot be waited for any
 * more. It does not return. */
void hypura_shim_watch(void (*on_silence)(const char *reason));

/* Counts when a token's choice, or the reading of a grammar for it, begins and when it ends: odd while one is under way. */
uint64_t hypura_shim_sampler_turns(void);

#ifdef __cplusplus
}
#endif

#endif
