/*
 * engine.h - one process hypura-engine: starting, watching and ending it. What it may be used for, fleet.h decides.
 *
 *     start --> (ready, asked by the one who starts it) --> ended (by us, or by itself)
 *
 * Its folder is private to the user and holds its socket and its record (worker/live.h). A thread of ours hears what it
 * prints and waits for its end. It ends by itself when our end of its standard input closes, however we ended.
 */
#ifndef HYPURA_SERVER_PROCESS_ENGINE_H
#define HYPURA_SERVER_PROCESS_ENGINE_H

#include "base/waiting.h"
#include "engine/llama/gpu_share.h"
#include "hypura.h"
#include "server/process/adapter_scale.h"
#include "worker/live.h"

#include <jansson.h>

/* Of what engine_describe_end writes: any message, and some words around it. */
#define ENGINE_END_BYTES (sizeof(((hypura_error *)0)->message) + 64)

typedef struct server_engine server_engine;

typedef struct engine_options {
    const char *program;
    const char *run_folder; /* private; the engine's own folder is made in it */
    const char *name;       /* of the model */
    const char *path;
    const char *projector_path; /* NULL: none */
    const char *const *adapter_paths; /* LoRA; ends with NULL. NULL: none */
    const char *slots_folder;   /* NULL: none */
    const char *chat_template;  /* Jinja, in place of the file's own; NULL: that one */
    const char *defaults;       /* JSON: of requests, as llama.cpp's server calls them; NULL: none */
    const char *io_engine;
    const char *cache_dir;
    const char *gpu;      /* as in hypura_server_options */
    const char *log_path; /* what it prints is appended there; NULL: its lines go to our log, at level debug */
    uint64_t memory_bytes;
    uint64_t weights_bytes;
    uint64_t reserve_bytes;
    uint64_t vram_bytes;
    uint64_t gpu_vram_bytes[HYPURA_MAX_GPUS];
    hypura_gpu_shares shares; /* what other models leave of GPUs */
    hypura_gpu_misses gpu_misses;
    const char *rpc;
    uint64_t rpc_bytes;
    uint64_t io_limit_bytes_per_s;
    uint32_t n_context;
    hypura_kv_cache kv_cache;
    uint32_t n_batch; /* 0: the default */
    uint32_t n_parallel;
    int n_threads;
    hypura_speculation speculation;
    hypura_waiting waits; /* its threads for each other */
    bool context_shift;
    bool embeddings;
    bool reranking;
} engine_options;

/* What a model would take of a GPU that has memory of its own. */
typedef struct engine_gpu {
    char name[64];        /* ggml's, of the device */
    uint64_t bytes;       /* all that it could use, within the limits */
    uint64_t floor_bytes; /* with less it would be used in another way; 0: any number will do */
    uint64_t free_bytes;  /* there, for it and all other models of the server */
} engine_gpu;

/* What a model would take, from hypura-engine --estimate. */
typedef struct engine_estimate {
    uint64_t memory_bytes; /* with everything held, or with all that the limits allow */
    uint64_t floor_bytes;  /* least that can run */
    uint32_t n_parallel;   /* of the conversations asked for, those that fit */
    bool computes_alone;   /* with all that memory: see engine/prepare/idle.h */
    int n_gpus;            /* that it would use */
    engine_gpu gpus[HYPURA_MAX_GPUS];
    /* Why the draft model cannot be this one's: the rest is what it takes without; "": it can, or none was asked for. */
    char draft_unfit[512];
} engine_estimate;

hypura_status engine_estimate_get(const engine_options *options, engine_estimate *estimate, hypura_error *error);

/* Whether llama.cpp can write conversations in a template in Jinja. HYPURA_ERR_USAGE tells where not. */
hypura_status engine_check_template(const char *program, const char *text, hypura_error *error);
/* The same for {"grammar": TEXT} or {"json_schema": ANY}. A grammar that names tokens, which a model alone knows, is taken
 * for good. */
hypura_status engine_check_grammar(const char *program, const json_t *told, hypura_error *error);

/* on_end is called once, from the engine's own thread, when the process is no more. */
hypura_status engine_start(const engine_options *options, void (*on_end)(void *user), void *user,
                           server_engine **started, hypura_error *error);
/* Blocks until it answers requests. Fails when it ends before, or when cancelled returns true. */
hypura_status engine_wait_ready(server_engine *engine, bool (*cancelled)(void *user), void *user, hypura_error *error);
/* Asks it to end, kills it if it does not, and waits for that; frees it. */
void engine_stop(server_engine *engine);

/* Any thread, until stop. */
const char *engine_socket(const server_engine *engine);
/* Whether it ended; waits that long: a connection breaks off a moment before the process is seen to end. Longer, where it
 * has said that it failed. */
bool engine_ends_within(server_engine *engine, uint64_t timeout_us);
/* Why it ended: "was ended by signal 9", "failed: " and its own words. ENGINE_END_BYTES take it whole. */
void engine_describe_end(server_engine *engine, char *text, size_t capacity);
/* Whether it ended by what a request asked of it, and what that was. */
bool engine_refused(server_engine *engine, char *why, size_t capacity);
bool engine_live(const server_engine *engine, hypura_live_record *record);
int engine_pid(const server_engine *engine);
adapter_scale *engine_adapter_scale(server_engine *engine);
/* Makes what it pages hold so many bytes at most (hypura_model_resize). Blocks until that is done; false when the
 * engine has not done it in time. */
bool engine_resize(server_engine *engine, uint64_t held_bytes);

#endif
