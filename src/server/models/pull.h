/*
 * pull.h - models brought into the folder from where they are published.
 *
 *     hf.co/user/repo[:quant]    GGUFs of a repository of Hugging Face's kind
 *     name[:tag], user/name      models of a registry of Ollama's kind
 *
 * A pull asks what there is, fetches what is missing to .partial/sha256-HEX, and
 * gives it its name once every hash is right. What is broken off is resumed by the
 * next pull. One that is under way in another thread or process is waited for.
 */
#ifndef HYPURA_SERVER_MODELS_PULL_H
#define HYPURA_SERVER_MODELS_PULL_H

#include "server/models/store.h"

/* What is being done, as Ollama tells it: "pulling manifest", "pulling 6a0746a1ec1a",
 * "verifying sha256 digest", "writing manifest", "success". */
typedef struct hypura_pull_step {
    const char *status;
    const char *digest; /* "sha256:..." of the file being pulled; else NULL */
    uint64_t    total_bytes;
    uint64_t    completed_bytes;
    /* the same of all files together */
    uint64_t    model_bytes;
    uint64_t    model_completed_bytes;
} hypura_pull_step;

/* Called for each step, and while a file comes in about ten times a second. False
 * ends the pull with HYPURA_ERR_CANCELLED. */
typedef bool (*hypura_pull_report_fn)(void *user, const hypura_pull_step *step);
/* Called once it is known what is to be fetched, before any of it is: so many bytes, and how many of them an earlier pull
 * left. */
typedef void (*hypura_pull_planned_fn)(void *user, size_t n_files, uint64_t bytes, uint64_t there_bytes);

typedef struct hypura_pull_options {
    const char           *name;         /* as typed */
    const char           *hub_url;      /* NULL: https://huggingface.co */
    const char           *hub_token;    /* NULL: none */
    const char           *registry_url; /* NULL: https://registry.ollama.ai */
    uint64_t              pause_us;     /* before a failed download is tried again; 0: half a second */
    hypura_pull_report_fn report;
    hypura_pull_planned_fn planned; /* NULL: nobody asks */
    void                 *user;
} hypura_pull_options;

/* Blocks until the model is there. HYPURA_ERR_USAGE: there is no such model, or it is
 * not to be had without a token; HYPURA_ERR_FORMAT: what came has another hash;
 * HYPURA_ERR_UNSUPPORTED: no GGUF in it, no hash published, or no models folder;
 * HYPURA_ERR_IO: the network, the other server, or the disk. */
hypura_status hypura_models_pull(hypura_models *models, const hypura_pull_options *options, hypura_error *error);

#endif
