/*
 * adapter.h - what a LoRA adapter's file says of itself, checked against the model that it is for.
 *
 * An adapter has two matrices for each weight that it changes: "NAME.lora_a" and "NAME.lora_b", whose product is added
 * to the weight's. llama.cpp looks at their sizes only in part, and ends the process where it computes with what
 * cannot be: what passes here can.
 */
#ifndef HYPURA_GGUF_ADAPTER_H
#define HYPURA_GGUF_ADAPTER_H

#include "hypura.h"

/* HYPURA_ERR_FORMAT where the file is damaged or no adapter, HYPURA_ERR_UNSUPPORTED where it is one for another model,
 * or of another kind than LoRA. */
hypura_status hypura_adapter_check_file(const char *path, const hypura_map *map, hypura_error *error);

#endif
