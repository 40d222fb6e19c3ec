/*
 * gpu_guard.cpp - see gpu_guard.h. Backends of GPUs are C++ and throw where a
 * device is lost or its memory runs out. What they throw passes the executor's C
 * frames (compiled to let it) and ends here, so that locks are given back.
 */
#include "backend/gpu_guard.h"

#include "ggml-impl.h"

#include <exception>

enum ggml_status gpu_guard(enum ggml_status (*call)(void *user), void *user)
{
    try {
        return call(user);
    } catch (const std::exception &e) {
        GGML_LOG_ERROR("hypura: the GPU failed: %s\n", e.what());
    } catch (...) {
        GGML_LOG_ERROR("hypura: the GPU failed\n");
    }
    return GGML_STATUS_FAILED;
}
