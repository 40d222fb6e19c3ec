/*
 * experience_file.h - cache_dir/experience.json, for the two files that keep something in it:
 * rates (experience_rates.c) and lessons (experience.c).
 *
 *     {"version":3, "cpu":"..", "rates":[{"type","columns","rows","used","batch","threads","repack","bytes_per_s",
 *     "disturbed"}], "others":[{"model","filled","threads","seconds","disturbed"}], "repacking":[{"type","bytes_per_s"}],
 *      "models":[{"model":"..","threads","repack","lessons":[{..}]}]} (repack: enum hypura_form)
 *
 * `disturbed` counts the measurements that found no moment without other work on the machine;
 * 0: one did.
 *
 * What always holds stands in experience.h. Any thread; nothing is kept between calls.
 */
#ifndef HYPURA_ENGINE_EXPERIENCE_FILE_H
#define HYPURA_ENGINE_EXPERIENCE_FILE_H

#include "hypura.h"

#include <jansson.h>

/* A new reference, of an empty file where there is none; NULL when memory is short. */
json_t *experience_load(const char *cache_dir);
void experience_save(const char *cache_dir, const json_t *root);

/* Adds an entry, which it takes over; the oldest leaves when there are too many. */
void experience_append(json_t *array, json_t *entry, size_t most);

/* Of an entry: a number, 0 where it has none of that name; whether an integer has this value. */
double experience_number(const json_t *entry, const char *key);
bool experience_is(const json_t *entry, const char *key, int64_t value);

/* The entry of a model with so many threads in an array, and with this value of one more key; borrowed, NULL when
 * there is none. */
json_t *experience_of_model(const json_t *array, const char *model, int n_threads, const char *key, int64_t value);

/* What entries call a model. */
void experience_name(const hypura_map *map, char *name, size_t capacity);

#endif
