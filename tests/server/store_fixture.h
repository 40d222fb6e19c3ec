/*
 * store_fixture.h - a folder for each test, with little models in it.
 */
#ifndef HYPURA_TESTS_STORE_FIXTURE_H
#define HYPURA_TESTS_STORE_FIXTURE_H

#include "server/models/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

extern char fixture_folder[64]; /* absolute */

int fixture_make(void **state);
int fixture_remove(void **state);

/* A path below the folder; good until the eighth call after it. */
const char *fixture_path(const char *below);
/* Writes a file below the folder, with the folders above it. */
void fixture_write(const char *below, const void *data, size_t bytes);
void fixture_write_text(const char *below, const char *text);
bool fixture_exists(const char *below);
/* Regular files below a folder below the folder; hidden ones too. */
int fixture_count_files(const char *below);

/* A GGUF of a few hundred bytes that reads as a model; of `arch` "clip" as a
 * projector to `width`. The name is part of its bytes. */
typedef struct fixture_gguf {
    const char *arch; /* NULL: "llama" */
    const char *name;
    uint32_t width;     /* 0: 8 */
    uint32_t file_type; /* 0: none */
    const char *chat_template;
    int part;    /* from 1; 0: not split */
    int n_parts;
    bool adapter; /* LoRA for one of this architecture and width */
} fixture_gguf;

void fixture_write_gguf(const char *below, const fixture_gguf *gguf);

/* A layer for fixture_write_manifest, written as a blob of Ollama's store at "ollama". */
typedef struct fixture_layer {
    const char *type; /* "model" */
    const char *text; /* NULL: a GGUF */
    const fixture_gguf *gguf;
} fixture_layer;

/* below: "registry.ollama.ai/library/qwen3/30b". Layers end with a NULL type. */
void fixture_write_manifest(const char *below, const fixture_layer *layers);

/* A store over "models" and "ollama" of the folder. */
hypura_models *fixture_open(void);
/* The entry of that name, which has to be there. */
const hypura_model_entry *fixture_find(hypura_models *models, const char *name);
bool fixture_has(hypura_models *models, const char *name);
/* How many are listed. */
size_t fixture_count(hypura_models *models);

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_remove)

#endif
