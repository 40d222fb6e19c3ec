/*
 * lost.c - see lost.h. What always holds: nothing that was thrown or aborted by a GPU's backend is taken for an answer.
 */
#include "worker/lost.h"

#include "engine/gpu.h"
#include "engine/llama_log.h"
#include "worker/shim.h"

#include "ggml.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static hypura_control *told;
static const char *names;

static _Noreturn void end(bool lost, const char *reason)
{
    hypura_error error = {0};
    hypura_log_fail(&error, HYPURA_ERR_BACKEND, "%s", reason);
    hypura_gpus_explain(names, lost, &error);
    hypura_control_failed(told, &error);
    fprintf(stderr, "hypura-engine: %s\n", error.message);
    _exit(1);
}

/* Of what the driver refuses: "FILE:LINE: CUDA error", after ggml has logged what. Else it is an assertion. */
static void on_abort(const char *message)
{
    static const char driver[] = " error";
    const size_t n = strlen(message);
    const size_t tail = sizeof(driver) - 1;
    end(n > tail && strcmp(message + n - tail, driver) == 0, message);
}

static void on_silence(const char *reason)
{
    end(true, reason);
}

void hypura_lost_watch(hypura_control *control, const char *gpus)
{
    if (gpus[0] == '\0') {
        return;
    }
    told = control;
    names = gpus;
    (void)ggml_set_abort_callback(on_abort);
    hypura_shim_watch(on_silence);
}
