/*
 * live.h - what a worker tells the front about itself while it runs: one record in
 * a file that both map.
 *
 * The worker alone writes, whole records, several times a second and at every change
 * of state; anyone may read. A reader never blocks the writer and never sees half of
 * a record: `sequence` is odd while one is written, and a reader that met a change
 * reads again.
 *
 *     LOADING --> LOADED --> (the process ends)
 *        '------> FAILED --> (the process ends)
 */
#ifndef HYPURA_WORKER_LIVE_H
#define HYPURA_WORKER_LIVE_H

#include "hypura.h"

typedef enum hypura_live_state {
    HYPURA_LIVE_LOADING = 0,
    HYPURA_LIVE_LOADED, /* the weights are there; the server opens for requests */
    HYPURA_LIVE_FAILED, /* `error` tells why */
} hypura_live_state;

typedef struct hypura_live_record {
    hypura_live_state state;
    uint64_t done_bytes; /* LOADING: weights read so far, of total_bytes */
    uint64_t total_bytes;
    hypura_error error;
    uint32_t n_context;   /* tokens of one conversation */
    uint32_t n_sequences; /* conversations computed together */
    hypura_plan plan; /* figures only: placements and order are NULL, and bound_by is in the field below */
    char bound_by[16];
    hypura_statistics statistics;
    hypura_held held; /* weights that are paged: how much of them is in memory */
    uint32_t n_commands; /* commands carried out so far, see control.h */
} hypura_live_record;

/* The mapped file. Opaque; made by create, found by open. */
typedef struct hypura_live hypura_live;

/* Makes the file anew (the front, before it starts the worker) and maps it. */
hypura_status hypura_live_create(const char *path, hypura_live **live, hypura_error *error);
/* Maps a file that create has made (the worker). */
hypura_status hypura_live_open(const char *path, hypura_live **live, hypura_error *error);
/* Unmaps. NULL is allowed. */
void hypura_live_close(hypura_live *live);

/* One writer at a time. */
void hypura_live_write(hypura_live *live, const hypura_live_record *record);
/* Any thread. False when no whole record could be read: the writer died in the middle of one. */
bool hypura_live_read(const hypura_live *live, hypura_live_record *record);

#endif
