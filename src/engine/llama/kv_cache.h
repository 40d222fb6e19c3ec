/*
 * kv_cache.h - as what llama.cpp's KV cache keeps keys and values: names for users, types for ggml. Pure.
 */
#ifndef HYPURA_ENGINE_LLAMA_KV_CACHE_H
#define HYPURA_ENGINE_LLAMA_KV_CACHE_H

#include "hypura.h"

#include <ggml.h>

#define HYPURA_KV_CACHE_NAME 16 /* bytes that hold each name */

/* HYPURA_ERR_USAGE tells which name is none, and all there are. */
hypura_status hypura_kv_cache_check(const hypura_kv_cache *kv_cache, hypura_error *error);

/* The same types, by names that are never NULL and live for ever. */
hypura_kv_cache hypura_kv_cache_named(const hypura_kv_cache *kv_cache);

/* name: one of hypura_kv_cache_types, or NULL for f16. */
enum ggml_type hypura_kv_cache_type(const char *name);

#endif
