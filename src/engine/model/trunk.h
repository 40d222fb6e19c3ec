/*
 * trunk.h - moves the weights that stay from the file mapping into memory.
 */
#ifndef HYPURA_ENGINE_MODEL_TRUNK_H
#define HYPURA_ENGINE_MODEL_TRUNK_H

#include "pager/pager.h"

#include "llama.h"

/* After a PAGED load: replaces every page of the mapping that holds a weight by
 * anonymous memory and reads it there with direct reads, so that no weight that
 * stays lies in page cache the kernel may drop. bytes gets what that memory takes.
 * Fails when a weight that the plan streams was left in the mapping. */
hypura_status hypura_trunk_load(const struct llama_model *model, const hypura_map *map, const hypura_plan *plan,
                                hypura_pager *pager, hypura_progress_fn progress, void *progress_user, uint64_t *bytes,
                                hypura_error *error);

/* Brings what libllama has allocated on the CPU for weights into huge pages: every token
 * reads all of them, and with small pages decoding waits for the page tables too. */
void hypura_trunk_collapse(const struct llama_model *model);

#endif
