/*
 * split.c - part names as llama.cpp's llama_split_path writes them.
 */
#include "gguf/split.h"

#include <stdio.h>
#include <string.h>

#define SUFFIX       "-00000-of-00000.gguf"
#define SUFFIX_BYTES (sizeof(SUFFIX) - 1)

/* Five digits, or -1. */
static int parse_digits(const char *text)
{
    int value = 0;
    for (int i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

bool hypura_split_parse(const char *path, hypura_split_name *name)
{
    size_t bytes = strlen(path);
    if (bytes <= SUFFIX_BYTES) {
        return false;
    }
    const char *suffix = path + bytes - SUFFIX_BYTES;
    int part = parse_digits(suffix + 1);
    int n_parts = parse_digits(suffix + 10);
    if (suffix[0] != '-' || memcmp(suffix + 6, "-of-", 4) != 0 || strcmp(suffix + 15, ".gguf") != 0 || part < 1 ||
        n_parts < part) {
        return false;
    }
    *name = (hypura_split_name){.prefix_bytes = bytes - SUFFIX_BYTES, .part = part, .n_parts = n_parts};
    return true;
}

char *hypura_split_path(hypura_arena *arena, const char *path, const hypura_split_name *name, int part)
{
    size_t bytes = name->prefix_bytes + SUFFIX_BYTES + 1;
    char *result = hypura_arena_alloc(arena, bytes, 1);
    if (result != NULL) {
        memcpy(result, path, name->prefix_bytes);
        (void)snprintf(result + name->prefix_bytes, SUFFIX_BYTES + 1, "-%05d-of-%05d.gguf", part, name->n_parts);
    }
    return result;
}
