/*
 * hot.h - which experts a model used in earlier runs, kept in the cache folder: counts,
 * no weights. With them the pools are filled in the background as soon as a model is
 * open, the most used first; without them everything works as well.
 *
 * One text file of a few KB for each model file:
 *
 *     hypura experts 1 SIZE MTIME_NS BUNDLES
 *     LAYER COUNT COUNT ...                      one line for each bundle
 *
 * Counts of earlier runs weigh half with every run. A file that does not fit the
 * model, or makes no sense, is as good as none.
 */
#ifndef HYPURA_ENGINE_MODEL_HOT_H
#define HYPURA_ENGINE_MODEL_HOT_H

#include "pager/pager.h"

/* Names the experts to the pager. Only a lack of memory is an error. */
hypura_status hypura_hot_load(const char *cache_dir, const hypura_map *map, hypura_pager *pager, hypura_error *error);

/* Adds what the pager's experts were used for since it was opened; keeps the file as
 * it is where nothing was, or others keep changing files of the folder. */
hypura_status hypura_hot_save(const char *cache_dir, const hypura_map *map, hypura_pager *pager, hypura_error *error);

#endif
