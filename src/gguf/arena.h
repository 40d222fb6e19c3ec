/*
 * arena.h - memory that is freed in one go. A map lives in one arena; what only
 * its making needs lives in others.
 */
#ifndef HYPURA_GGUF_ARENA_H
#define HYPURA_GGUF_ARENA_H

#include <stddef.h>

typedef struct hypura_arena {
    struct arena_block *last; /* newest block; NULL: empty */
    size_t used;              /* bytes of it that are handed out */
} hypura_arena;

/* n * bytes bytes aligned for any object, zeroed; NULL when memory is short or
 * the product does not fit. A zeroed hypura_arena is an empty one. */
void *hypura_arena_alloc(hypura_arena *arena, size_t n, size_t bytes);

/* A copy of the n bytes at text, terminated; NULL when memory is short. */
char *hypura_arena_text(hypura_arena *arena, const char *text, size_t n);

/* Frees every allocation; the arena is empty again. */
void hypura_arena_free(hypura_arena *arena);

#endif
