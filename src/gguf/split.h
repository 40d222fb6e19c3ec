/*
 * split.h - names of the parts of a split model: PREFIX-00002-of-00005.gguf.
 */
#ifndef HYPURA_GGUF_SPLIT_H
#define HYPURA_GGUF_SPLIT_H

#include "gguf/arena.h"

#include <stdbool.h>
#include <stddef.h>

/* A part is numbered by 16 bits in its own keys. */
#define HYPURA_SPLIT_MAX_PARTS 65535

typedef struct hypura_split_name {
    size_t prefix_bytes; /* of the path, before "-00002-of-" */
    int part;            /* from 1 */
    int n_parts;
} hypura_split_name;

/* False when the path does not end as a part's does. */
bool hypura_split_parse(const char *path, hypura_split_name *name);

/* Path of another part (from 1) of the same model; NULL when memory is short. */
char *hypura_split_path(hypura_arena *arena, const char *path, const hypura_split_name *name, int part);

#endif
