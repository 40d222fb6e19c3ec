/*
 * lost.c - see lost.h. What always holds: nothing that was thrown or aborted by a GPU's backend is taken for an answer.
 */
#include "worker/lost.h"

#include "engine/llama/end.h"
#include "engine/llama/gpu.h"
#include "engine/llama/llama_log.h"
#include "hw/remote.h"
#include "worker/shim.h"

#include <stdio.h>
#include <unistd.h>

static hypura_control *told;
static const char *names;

static void end(const hypura_error *error)
{
    hypura_control_failed(told, error);
    fprintf(stderr, "hypura-engine: %s\n", error->message);
    _exit(1);
}

static void on_silence(const char *reason)
{
    hypura_error error = {0};
    (void)hypura_log_fail(&error, HYPURA_ERR_BACKEND, "%s", reason);
    hypura_gpus_explain(names, true, &error);
    end(&error);
}

void hypura_lost_watch(hypura_control *control, const char *gpus)
{
    if (gpus[0] == '\0') {
        return;
    }
    told = control;
    names = gpus;
    hypura_end_name(gpus);
    hypura_on_end(end);
    hypura_remote_on_lost(end);
    hypura_shim_watch(on_silence);
}
