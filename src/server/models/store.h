/*
 * store.h - the models that a server knows: a folder of GGUFs, files named on the
 * command line, and Ollama's own store, read in place.
 *
 *     open --> list, find, describe (any thread, any time) --> close
 *              copy, remove, create
 *
 * A model is an entry: a name, the files to open, the settings that go with it.
 * Entries never change; when the disk did, later calls give other entries. Folders
 * are looked at again as calls need it: a file that is dropped in is there.
 *
 * In the folder, hf.co/user/repo:Q4_K_M is hf.co/user/repo@Q4_K_M.gguf (or its
 * parts, @Q4_K_M-00001-of-00003.gguf ...), mario:latest is mario.gguf; beside it
 *
 *     STEM.json            settings: parameters, system, template, license, messages, draft
 *     STEM.mmproj.gguf     projector; one whose own name fits is found as well
 *     STEM.adapter.gguf    LoRA adapter, which is applied to the model; STEM.adapter-2.gguf ...: further ones
 *
 * What always holds:
 *  1. A name from a request is compared with names that exist. It becomes part of
 *     a path only after hypura_name_check, when something is made under it.
 *  2. A file below the folder, or in Ollama's, that leads out of it is not there.
 *  3. What is listed is complete: new files take their names when they are whole,
 *     the one that the listing looks for last.
 *  4. Nothing in Ollama's store, and no file named on the command line, is changed.
 *
 * Errors: HYPURA_ERR_USAGE is the caller's (a name that cannot be, or may mean
 * several models), HYPURA_ERR_UNSUPPORTED a request that will never be served,
 * HYPURA_ERR_FORMAT a file that is no model, HYPURA_ERR_IO the disk.
 */
#ifndef HYPURA_SERVER_MODELS_STORE_H
#define HYPURA_SERVER_MODELS_STORE_H

#include "hypura.h"

#include <jansson.h>

typedef struct hypura_models hypura_models;

typedef struct hypura_models_options {
    const char        *folder;        /* made when first needed; NULL: nothing can be made or removed */
    const char        *ollama_folder; /* its models folder (~/.ollama/models); NULL or missing: none */
    const char        *import_folder; /* paths in requests have to lie in it, or in folder; NULL: in folder alone */
    const char *const *paths;         /* GGUFs named on the command line */
    int                n_paths;
    bool               keep_unused; /* remove leaves what no model uses */
} hypura_models_options;

/* Copies the options. A path that is no model fails, and a file in place of folder; folders may be missing. */
hypura_status hypura_models_open(const hypura_models_options *options, hypura_models **models, hypura_error *error);
/* No other call is under way. Entries stay valid. */
void hypura_models_close(hypura_models *models);

typedef enum hypura_model_origin {
    HYPURA_MODEL_FOLDER = 0, /* ours: may be removed */
    HYPURA_MODEL_ALIAS,      /* another name for one of the others: goes without its files */
    HYPURA_MODEL_PATH,       /* named on the command line */
    HYPURA_MODEL_OLLAMA,     /* in Ollama's store */
} hypura_model_origin;

/* Held by reference; every string lives as long as the entry. */
typedef struct hypura_model_entry {
    const char         *name; /* normal form: "qwen3:30b", "mario:latest" */
    hypura_model_origin origin;
    const char         *path;           /* GGUF to open, absolute; the first part of a split model */
    const char         *projector_path; /* of images or sound; NULL: none */
    union {
        const char *adapter_path; /* the first LoRA that is applied to it; NULL: none */
        const char *adapter_paths[HYPURA_MAX_ADAPTERS + 1]; /* all of them, in their order; ends with NULL */
    };
    int                 n_adapters;
    uint64_t            adapter_id;     /* another one when these files are others; 0: none */
    int                 n_files;
    uint64_t            bytes;        /* all files together */
    char                modified[40]; /* RFC 3339, UTC */
    int64_t             modified_ns;
    /* 64 hexadecimal digits that change when the model does. Of an Ollama model its
     * manifest's SHA-256, as Ollama says; of others the SHA-256 of name, sizes,
     * modification times and settings: the files themselves would take minutes. */
    char digest[65];
    /* details */
    const char *format;                 /* "gguf" */
    const char *family;                 /* architecture: "qwen3moe" */
    char        parameter_size[16];     /* "30.5B" */
    char        quantization_level[16]; /* "Q4_K_M" */
    int64_t     context_length;
    /* Object with any of: parameters (object), system, template (strings), license
     * (string or array), messages (array), from, draft (strings). Empty when there are none. */
    json_t *settings;
} hypura_model_entry;

typedef struct hypura_model_list {
    size_t                     n;
    const hypura_model_entry **entries; /* last modified first */
} hypura_model_list;

/* All that a scan finds and that can be used; each entry is held until the list is cleared. Any thread. */
hypura_status hypura_models_list(hypura_models *models, hypura_model_list *list, hypura_error *error);
void          hypura_model_list_clear(hypura_model_list *list);

typedef enum hypura_find {
    HYPURA_FIND_TYPED = 0, /* also a beginning that only one model has: "qwen3", "qwen3:30b" */
    HYPURA_FIND_EXACT,     /* the name alone, for what changes or removes */
} hypura_find;

/* OK and *entry NULL when no model has that name (404). With EXACT also models whose
 * file is damaged, to be removed; their path may be "". HYPURA_ERR_USAGE when the
 * name may mean several, which the message lists; HYPURA_ERR_FORMAT with TYPED when
 * its file is damaged. Release the entry. */
hypura_status hypura_models_find(hypura_models *models, const char *name, hypura_find how,
                                 const hypura_model_entry **entry, hypura_error *error);
const hypura_model_entry *hypura_model_entry_hold(const hypura_model_entry *entry);
void                      hypura_model_entry_release(const hypura_model_entry *entry);
/* The template of conversations, in Jinja, that its settings have in place of the file's own; NULL: none. One in
 * Go's language (go_template.h) is for Ollama's routes alone. */
const char *hypura_model_entry_jinja(const hypura_model_entry *entry);

/* What /api/show tells of the file itself: {"model_info": {every key of the GGUF;
 * arrays only if verbose, else null}, "template": the chat template or absent,
 * "capabilities": ["completion", "tools", "vision", "thinking", "insert",
 * "embedding"], "projector_info": {..} if any, "tensors": [{"name", "type",
 * "shape"}] of its first file if verbose}. A new reference. */
hypura_status hypura_model_describe(const hypura_model_entry *entry, bool verbose, json_t **description,
                                    hypura_error *error);

/* Whether the model's own file, so neither "vision" nor "audio", has that capability of describe; read once. */
hypura_status hypura_models_can(hypura_models *models, const hypura_model_entry *entry, const char *capability,
                                bool *can, hypura_error *error);

/* ---- changes (store_change.c) ------------------------------------------- */

/* The model under a second name, in place of what has that name. Hard links where
 * the file system has them: either name may then be removed; else an alias. */
hypura_status hypura_models_copy(hypura_models *models, const hypura_model_entry *from, const char *name,
                                 hypura_error *error);

/* Removes files and settings of a model of the folder, or the alias, and what no model
 * has used for long. What is open stays readable to those that have it open.
 * HYPURA_ERR_UNSUPPORTED for others. */
hypura_status hypura_models_remove(hypura_models *models, const hypura_model_entry *entry, hypura_error *error);

typedef struct hypura_models_create_options {
    const char               *name;
    const hypura_model_entry *from; /* either: a model, shared as by copy */
    const char               *path; /* or: a GGUF on this machine, within import_folder (linked, cloned or copied) */
    const char *const        *blobs; /* or: SHA-256 (64 digits) of blobs put before: the model, then its projector */
    int                       n_blobs;
    const char *const        *adapters; /* SHA-256 of blobs: LoRA adapters for it, behind those of `from` */
    int                       n_adapters;
    const json_t             *settings; /* as in hypura_model_entry: over those of `from`; NULL: none */
    hypura_progress_fn        progress; /* bytes copied */
    void                     *progress_user;
} hypura_models_create_options;

hypura_status hypura_models_create(hypura_models *models, const hypura_models_create_options *options,
                                   hypura_error *error);

/* ---- what no model uses (store_unused.c) --------------------------------- */

typedef struct hypura_unused {
    size_t   n_files;
    uint64_t bytes; /* that they take on the drive */
} hypura_unused;

typedef enum hypura_unused_age {
    HYPURA_UNUSED_ANY = 0, /* every download that was broken off */
    HYPURA_UNUSED_LONG,    /* those alone that nobody went on with for a week */
} hypura_unused_age;

/* Downloads that were broken off, and files that were sent for a create more than a day ago; with `remove` they are
 * gone then. What a pull or a create of any process may be using is none of them. */
hypura_unused hypura_models_unused(const hypura_models *models, hypura_unused_age age, bool remove);

/* ---- blobs: files sent before a create (store_blob.c) -------------------- */

typedef struct hypura_blob hypura_blob;

/* True when it was put whole and not used yet; it is kept for another day then. digest: 64 hexadecimal digits, with
 * or without "sha256:". */
bool hypura_models_has_blob(hypura_models *models, const char *digest);

/* begin, write ..., commit or abandon; one thread. commit fails with
 * HYPURA_ERR_FORMAT, keeping nothing, when the bytes have another hash; it frees the
 * blob in any case, as abandon does. */
hypura_status hypura_blob_begin(hypura_models *models, const char *digest, hypura_blob **blob, hypura_error *error);
hypura_status hypura_blob_write(hypura_blob *blob, const void *data, size_t bytes, hypura_error *error);
hypura_status hypura_blob_commit(hypura_blob *blob, hypura_error *error);
void          hypura_blob_abandon(hypura_blob *blob);

#endif
