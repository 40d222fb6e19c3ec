/*
 * look.h - how threads of a team wait for reads: asleep, or looking for their end. Pure.
 *
 * Waking a thread takes a while, and while it is asleep its processor may be given to
 * another guest of the host. A thread that looks is there at once, and holds a processor
 * that nobody else can have. So threads look where processors are to spare, and for the
 * last part of a wait alone.
 */
#ifndef HYPURA_PREDICT_LOOK_H
#define HYPURA_PREDICT_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#define LOOK_US       1000 /* at most */
#define LOOK_AFTER    0.7  /* of the time that reading should take */
#define LOOK_EARLY_US 150  /* less that, in which a thread that slept is awake */
#define LOOK_SLEEP_US 100  /* shorter sleep is none */

/* Asleep for so long, then looking, unless it ends before; asleep again when it has not ended by then. */
typedef struct hypura_look {
    uint32_t sleep_us;
    uint32_t look_us;
} hypura_look;

/* Whether processors are left to others while so many threads compute, and so many more read or
 * repack: half as many as compute. */
bool hypura_look_has_room(int n_cpus, int n_compute, int n_other);

#define LOOK_PLACES_LEAST 8 /* threads */

/* Whether each of those that compute is to keep to a processor of its own: where there are as many, and so many that one of
 * them is often late. With fewer the others have room to go elsewhere. */
bool hypura_look_needs_places(int n_processors, int n_compute);

#define LOOK_OTHERS_MOST 0.6 /* of the time of all processors */

/* Whether they had better run anywhere: of elapsed_us others had so much of all processors. */
bool hypura_look_gives_places_up(uint64_t elapsed_us, uint64_t others_us);

/* Where there is room. pending_us: in what time all is there that was asked for, 0: not known. */
hypura_look hypura_look_for(uint64_t pending_us);

#endif
