/*
 * layer.h - layers of Ollama's manifests, in its own store and in a registry alike.
 */
#ifndef HYPURA_SERVER_MODELS_LAYER_H
#define HYPURA_SERVER_MODELS_LAYER_H

#include <jansson.h>
#include <stdbool.h>

/* What the media type application/vnd.ollama.image.KIND says; "" for another. */
const char *hypura_layer_kind(const json_t *layer);

/* True for the kinds that are settings: template, system, params, messages, license. */
bool hypura_layer_is_setting(const char *kind);

/* Puts the content of such a layer into the settings of a model; what is not what
 * its kind says is left out. */
void hypura_layer_add_setting(json_t *settings, const char *kind, const char *text, size_t bytes);

#endif
