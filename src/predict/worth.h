/*
 * worth.h - whether guessing what a layer lacks in a GPU's memory is worth the host's time. Pure: it is told what was
 * seen of layers as tokens pass.
 *
 *     host   ids of layer i | guesses i+1 | records i+1 ....... | ids of layer i+1
 *     GPU    layer i ........................................ | layer i+1 ......
 *
 * A layer that lacks something is computed twice, so a guess that has all of it gives a layer's time. It takes the host
 * some time, which the GPU waits for only where the host is late by then.
 *
 * What always holds: all that is not seen yet is taken for the best, so that it is tried.
 */
#ifndef HYPURA_PREDICT_WORTH_H
#define HYPURA_PREDICT_WORTH_H

#include <stdbool.h>

#define WORTH_WEIGHT 0.125F /* of the newest token, of one layer */
#define WORTH_LEAST  0.125F /* a layer that lacks something in fewer tokens is not guessed */

/* Of one GPU, over all layers. */
typedef struct hypura_worth {
    double layer_us; /* that a layer takes, computed once; 0: not seen */
    double guess_us; /* that the host takes for a guess */
    double late;     /* share of layers for which the GPU waits, or would wait, when the host guesses */
    double spared;   /* of the layers that were guessed and lacked something, the share computed once */
} hypura_worth;

/* A layer of a token, when its selection is known. */
typedef struct hypura_worth_seen {
    bool   guessed;
    bool   lacked; /* something, if nobody had guessed */
    bool   again;  /* it is computed a second time */
    double guess_us;
    double wait_us; /* of the host, for the selection; 0: it was there */
} hypura_worth_seen;

void hypura_worth_open(hypura_worth *worth);

/* lacks: the share of tokens in which a layer lacked something, of late; 1 at first. */
bool hypura_worth_guess(const hypura_worth *worth, float lacks);

/* Learns from a layer, of which lacks is; from the time between the selections of two layers, the first of which was
 * computed once. */
void hypura_worth_note(hypura_worth *worth, float *lacks, const hypura_worth_seen *seen);
void hypura_worth_note_layer(hypura_worth *worth, double us);

#endif
