/*
 * map.h - the model map over any source of bytes. hypura_map_open is this with
 * the file system.
 *
 *     source.c (bytes) --> reader.c, keys.c (one header) --> map.c, with split.c (parts), role.c (what a tensor is for) and
 *     bundle.c (which experts' matrices go together)
 *
 * Of other files: adapter.c, projector.c, and records.c (the sidecar that optimize makes).
 */
#ifndef HYPURA_GGUF_MAP_H
#define HYPURA_GGUF_MAP_H

#include "gguf/source.h"

/* As hypura_map_open. `open` is called for path and, for a split model, for each
 * of its parts. */
hypura_status hypura_map_open_from(hypura_source_open_fn open, void *user, const char *path, hypura_map **map,
                                   hypura_error *error);

#endif
