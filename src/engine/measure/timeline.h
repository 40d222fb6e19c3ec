/*
 * timeline.h - what the host did while one token was computed over a GPU, for looking at
 * it. Memory is of a fixed size; stretches beyond it are dropped.
 */
#ifndef HYPURA_ENGINE_MEASURE_TIMELINE_H
#define HYPURA_ENGINE_MEASURE_TIMELINE_H

#include "backend/gpu.h"

#define HYPURA_TIMELINE_SPANS 4096

typedef struct hypura_timeline {
    uint64_t begin_us; /* of the token */
    int      n;
    struct {
        hypura_gpu_work work;
        int             layer;
        uint64_t        begin_us;
        uint64_t        end_us;
    } spans[HYPURA_TIMELINE_SPANS];
} hypura_timeline;

/* A token begins: what was noted before is forgotten. */
void hypura_timeline_begin(hypura_timeline *timeline);
/* A hypura_gpu_watch_fn; user is a hypura_timeline. */
void hypura_timeline_note(void *user, hypura_gpu_work work, int layer, uint64_t begin_us, uint64_t end_us);
/* Text, one line for each stretch, in us since the token began: "WORK LAYER BEGIN END". */
hypura_status hypura_timeline_write(const hypura_timeline *timeline, const char *path, hypura_error *error);

#endif
