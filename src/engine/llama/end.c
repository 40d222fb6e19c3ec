/*
 * end.c - see end.h. What always holds: an assertion of llama.cpp's own ends the process as without us, with its trace.
 */
#include "engine/llama/end.h"

#include "engine/llama/gpu.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_shim.h"
#include "hw/patience.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

static _Atomic(hypura_end_fn) told;
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;
static char names[256] = "the GPU";

void hypura_end_name(const char *gpus)
{
    if (gpus[0] != '\0') {
        pthread_mutex_lock(&naming);
        (void)snprintf(names, sizeof(names), "%s", gpus);
        pthread_mutex_unlock(&naming);
    }
}

static void tell(const char *message)
{
    const hypura_end_fn end = atomic_load(&told);
    char gpus[sizeof(names)];
    hypura_error error = {0};
    pthread_mutex_lock(&naming);
    (void)snprintf(gpus, sizeof(gpus), "%s", names);
    pthread_mutex_unlock(&naming);
    (void)hypura_log_fail(&error, HYPURA_ERR_BACKEND, "%s", message);
    hypura_gpus_explain(gpus, true, &error);
    if (end) {
        end(&error);
    }
}

static void tell_silence(const char *gpu, const hypura_error *reason)
{
    hypura_error error = *reason;
    hypura_gpus_explain(gpu, true, &error);
    hypura_end_now(&error);
}

void hypura_end_now(const hypura_error *error)
{
    const hypura_end_fn end = atomic_load(&told);
    if (end) {
        end(error);
    }
}

void hypura_on_end(hypura_end_fn end)
{
    atomic_store(&told, end);
    hypura_shim_on_end(end ? tell : NULL);
    hypura_patience_on_end(end ? tell_silence : NULL);
}
