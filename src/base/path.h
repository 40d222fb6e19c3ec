/*
 * path.h - paths and names of files as text; no file is looked at.
 */
#ifndef HYPURA_BASE_PATH_H
#define HYPURA_BASE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* What follows the last slash; points into path. */
static inline const char *hypura_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* FOLDER/NAME. False when that does not fit: path is cut then. */
static inline bool hypura_path_join(char *path, size_t capacity, const char *folder, const char *name)
{
    const int n = snprintf(path, capacity, "%s/%s", folder, name);
    return n > 0 && (size_t)n < capacity;
}

/* Whether text ends so, with something before it; as it is written, or in either case. */
static inline bool hypura_ends_with(const char *text, const char *ending)
{
    const size_t n = strlen(text);
    const size_t m = strlen(ending);
    return n > m && strcmp(text + n - m, ending) == 0;
}

static inline bool hypura_ends_with_any_case(const char *text, const char *ending)
{
    const size_t n = strlen(text);
    const size_t m = strlen(ending);
    return n > m && strcasecmp(text + n - m, ending) == 0;
}

#endif
