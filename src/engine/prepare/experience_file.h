/*
 * experience_file.h - cache_dir/experience.json, for the two files that keep something in it:
 * rates (experience_rates.c) and lessons (experience.c).
 *
 *     {"version":3, "cpu":"..", "rates":[{"type","columns","rows","used","batch","threads","repack","bytes_per_s",
 *     "disturbed","measured_unix_s"}], "others":[{"model","filled","threads","seconds","disturbed","measured_unix_s"}],
 *     "repacking":[{"type","bytes_per_s"}],
 *      "models":[{"model":"..","threads","repack","lessons":[{..}]}]} (repack: enum hypura_form)
 *
 * `disturbed` counts the measurements, minutes apart, that found no moment without other work on the
 * machine; 0: one did. measured_unix_s: the last one.
 *
 * What always holds stands in experience.h. Any thread; nothing is kept between calls.
 */
#ifndef HYPURA_ENGINE_PREPARE_EXPERIENCE_FILE_H
#define HYPURA_ENGINE_PREPARE_EXPERIENCE_FILE_H

#include "hypura.h"

#include <jansson.h>

/* A new reference, of an empty file where there is none; NULL when memory is short. */
json_t *experience_load(const char *cache_dir);

/* Reads what is stored now, lets `change` change it, and stores that; other processes wait meanwhile. Nothing happens where
 * cache_dir is NULL, cannot be written, or others keep changing files of it. */
typedef void (*experience_change)(json_t *root, void *user);
void experience_update(const char *cache_dir, experience_change change, void *user);

/* Adds an entry, which it takes over; the oldest leaves when there are too many. */
void experience_append(json_t *array, json_t *entry, size_t most);

/* Of an entry: a number, 0 where it has none of that name. */
double experience_number(const json_t *entry, const char *key);

/* The entry of an array which has of all these keys (NULL ends them) what `of` has; borrowed, NULL when there is none. */
json_t *experience_find(const json_t *array, const json_t *of, const char *const *keys);

/* What entries call a model; a new reference, NULL when memory is short. */
json_t *experience_name(const hypura_map *map);

#endif
