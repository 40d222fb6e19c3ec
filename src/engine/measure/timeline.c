/*
 * timeline.c - see timeline.h.
 */
#include "engine/measure/timeline.h"

#include "base/clock.h"
#include "base/new_file.h"

static const char *const names[] = {
    [HYPURA_GPU_HAND_OVER] = "hand-over",
    [HYPURA_GPU_REPEAT] = "repeat",
    [HYPURA_GPU_WAIT] = "wait",
    [HYPURA_GPU_FORESEE] = "foresee",
    [HYPURA_GPU_PRESENT] = "present",
    [HYPURA_GPU_COMPUTE] = "compute",
};

void hypura_timeline_begin(hypura_timeline *timeline)
{
    timeline->n = 0;
    timeline->begin_us = hypura_clock_us();
}

void hypura_timeline_note(void *user, hypura_gpu_work work, int layer, uint64_t begin_us, uint64_t end_us)
{
    hypura_timeline *timeline = user;
    if (timeline->n < HYPURA_TIMELINE_SPANS) {
        const int i = timeline->n++;
        timeline->spans[i].work = work;
        timeline->spans[i].layer = layer;
        timeline->spans[i].begin_us = begin_us;
        timeline->spans[i].end_us = end_us;
    }
}

hypura_status hypura_timeline_write(const hypura_timeline *timeline, const char *path, hypura_error *error)
{
    hypura_new_file file;
    const hypura_status status = hypura_new_file_open(&file, path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    for (int i = 0; i < timeline->n; i++) {
        (void)fprintf(file.to, "%s %d %llu %llu\n", names[timeline->spans[i].work], timeline->spans[i].layer,
                      (unsigned long long)(timeline->spans[i].begin_us - timeline->begin_us),
                      (unsigned long long)(timeline->spans[i].end_us - timeline->begin_us));
    }
    return hypura_new_file_close(&file, error);
}
