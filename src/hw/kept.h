/*
 * kept.h - small files of the user's cache folder that several processes change: profiles, what was
 * learned, counts of experts. Who changes one reads it, changes that, and writes it, in a turn.
 *
 * What always holds: readers see the old file or the new one, whole, at any time. In a turn nobody
 * else changes a file of the folder. A turn ends with its process. Where the file system has no
 * locks (some of networks), or the folder cannot be written, turns are had by everybody at once: then
 * the last writer wins. Any thread.
 */
#ifndef HYPURA_HW_KEPT_H
#define HYPURA_HW_KEPT_H

#include "hypura.h"

/* Waits for it as long as others change something, a second at the most. False: they still do, and nothing is to be
 * written; else *turn is to be given to hypura_kept_end. */
bool hypura_kept_begin(const char *folder, int *turn);
void hypura_kept_end(int turn);

/* Writes text and a newline as the whole of a file, which a loss of power leaves as it was or whole. */
hypura_status hypura_kept_write(const char *path, const char *text, hypura_error *error);

/* Makes the folder and its parents where they are missing. */
hypura_status hypura_kept_make_folder(const char *path, hypura_error *error);

/* A string of any bytes, as names and paths are: where they are not UTF-8, "?" stands for all but ASCII. NULL when memory
 * is short. */
struct json_t *hypura_kept_text(const char *text);

#endif
