/*
 * beforehand.h - what can be told to be wrong with a first prompt before a weight is read: its grammar, its template, what
 * it shows, its length.
 */
#ifndef HYPURA_ENGINE_ANSWER_BEFOREHAND_H
#define HYPURA_ENGINE_ANSWER_BEFOREHAND_H

#include "engine/answer/media.h"

/* model: loaded without weights. options->prompt may be NULL: it is not known yet. media: NULL where nothing can be
 * shown. */
hypura_status hypura_beforehand_check(const hypura_generate_options *options, const struct llama_model *model,
                                      const hypura_media *media, uint32_t n_context, hypura_error *error);

#endif
