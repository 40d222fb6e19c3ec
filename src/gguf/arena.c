/*
 * arena.c - a list of blocks, filled front to back. A request that does not fit
 * into the newest block opens a new one, at least BLOCK_BYTES large.
 */
#include "gguf/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)32 * 1024)

struct arena_block {
    struct arena_block *before;
    size_t bytes;
    alignas(max_align_t) unsigned char data[];
};

void *hypura_arena_alloc(hypura_arena *arena, size_t n, size_t bytes)
{
    size_t align = alignof(max_align_t);
    if (bytes != 0 && n > (SIZE_MAX / 2 - sizeof(struct arena_block)) / bytes) {
        return NULL;
    }
    size_t need = (n * bytes + align - 1) & ~(align - 1);
    if (arena->last == NULL || need > arena->last->bytes - arena->used) {
        size_t block_bytes = need > BLOCK_BYTES ? need : BLOCK_BYTES;
        struct arena_block *block = calloc(1, sizeof(*block) + block_bytes);
        if (block == NULL) {
            return NULL;
        }
        block->before = arena->last;
        block->bytes = block_bytes;
        arena->last = block;
        arena->used = 0;
    }
    void *result = arena->last->data + arena->used;
    arena->used += need;
    return result;
}

char *hypura_arena_text(hypura_arena *arena, const char *text, size_t n)
{
    if (n == SIZE_MAX) {
        return NULL;
    }
    char *copy = hypura_arena_alloc(arena, n + 1, 1);
    if (copy != NULL && n > 0) {
        memcpy(copy, text, n);
    }
    return copy;
}

void hypura_arena_free(hypura_arena *arena)
{
    while (arena->last != NULL) {
        struct arena_block *before = arena->last->before;
        free(arena->last);
        arena->last = before;
    }
    arena->used = 0;
}
