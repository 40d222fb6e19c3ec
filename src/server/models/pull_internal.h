/*
 * pull_internal.h - what a pull is going to fetch, and who finds that out.
 *
 *     pull.c           the pull itself
 *     pull_hub.c       what a repository of Hugging Face's kind holds
 *     pull_registry.c  what a manifest of Ollama's kind holds
 */
#ifndef HYPURA_SERVER_MODELS_PULL_INTERNAL_H
#define HYPURA_SERVER_MODELS_PULL_INTERNAL_H

#include "server/base/digest.h"
#include "server/base/fetch.h"
#include "server/models/pull.h"

typedef struct hypura_pull_file {
    char    *url;
    char     sha256[HYPURA_DIGEST_BYTES];
    uint64_t bytes;
    char     staged[48]; /* "model.gguf", "model-00002-of-00003.gguf", "model.mmproj.gguf" */
} hypura_pull_file;

typedef struct hypura_pull_plan {
    size_t            n_files;
    hypura_pull_file *files;
    json_t           *settings; /* as in hypura_model_entry */
} hypura_pull_plan;

/* Takes url over. What is listed twice alike is taken once; else HYPURA_ERR_FORMAT. */
hypura_status hypura_pull_plan_add(hypura_pull_plan *plan, char *url, const char *sha256, uint64_t bytes,
                                   const char *staged, hypura_error *error);

/* name: checked, "hf.co/user/repo:tag". */
hypura_status hypura_pull_plan_hub(hypura_fetch *fetch, const char *hub_url, const char *name, hypura_pull_plan *plan,
                                   hypura_error *error);
/* name: checked, "name:tag" or "user/name:tag". */
hypura_status hypura_pull_plan_registry(hypura_fetch *fetch, const char *registry_url, const char *name,
                                        hypura_pull_plan *plan, hypura_error *error);

/* A file of a repository. */
typedef struct hypura_hub_file {
    const char *path;
    const char *sha256; /* NULL: not published */
    uint64_t    bytes;
} hypura_hub_file;

/* Which files are the model that the tag means, and which its projector. Pure.
 * *first is the GGUF, or the first part of a split one; -1 when there is none.
 * *projector is -1 when there is none. */
void hypura_hub_choose(const hypura_hub_file *files, size_t n, const char *tag, long *first, long *projector);

#endif
