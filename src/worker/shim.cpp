/*
 * shim.cpp - see shim.h. The only C++ of the worker.
 */
#include "worker/shim.h"

#include <cstdio>
#include <exception>

/* Of llama.cpp's target llama-server-impl, which installs no header for it. */
int llama_server(int argc, char **argv);

int hypura_shim_server(int argc, char **argv)
{
    try {
        return llama_server(argc, argv);
    } catch (const std::exception &e) {
        std::fprintf(stderr, "hypura-engine: %s\n", e.what());
        return 1;
    }
}
