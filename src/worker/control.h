/*
 * control.h - the two threads beside llama.cpp's server: one hears the front, one tells it how things are.
 *
 * Commands come as lines on standard input; live.n_commands counts those carried out:
 *
 *     resize BYTES    what pages may hold so much from now on (hypura_pager_resize)
 *
 * When standard input ends, the front is gone, and the process ends as on SIGTERM.
 */
#ifndef HYPURA_WORKER_CONTROL_H
#define HYPURA_WORKER_CONTROL_H

#include "worker/live.h"
#include "worker/model.h"

typedef struct hypura_control hypura_control;

/* Starts both threads; from here on they alone write to live. model is loaded by another thread meanwhile. */
hypura_status hypura_control_open(hypura_worker_model *model, hypura_live *live, hypura_control **control,
                                  hypura_error *error);
/* turns: odd while a token is chosen or a grammar read, see shim.h. What takes longer than most_us, by a grammar that stands
 * for more than anybody can follow, ends the process, as nobody else's token is computed meanwhile: HYPURA_ERR_UNSUPPORTED. */
void hypura_control_watch(hypura_control *control, uint64_t (*turns)(void), uint64_t most_us);
/* The model failed, for good: told before the process ends. */
void hypura_control_failed(hypura_control *control, const hypura_error *error);
/* Ends the thread that tells. The one that hears may be in a read and ends with the process: a command that it carries out
 * is waited for, later ones are not heard, and the model may be closed. */
void hypura_control_close(hypura_control *control);

#endif
