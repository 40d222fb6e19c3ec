/*
 * shim.h - llama.cpp's server as one C function.
 */
#ifndef HYPURA_WORKER_SHIM_H
#define HYPURA_WORKER_SHIM_H

#ifdef __cplusplus
extern "C" {
#endif

/* Runs the server until it is told to end (SIGTERM); returns its exit code. No C++ exception leaves it. */
int hypura_shim_server(int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
