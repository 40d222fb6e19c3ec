/*
 * hypura_server.h - the server behind `hypura serve`: HTTP for Ollama's, OpenAI's and Anthropic's clients, in front of
 * one process for each loaded model.
 *
 *     open (listens, serves) --> drain --> close
 *
 * The process that opens it must have SIGPIPE ignored. One server in a process.
 */
#ifndef HYPURA_SERVER_H
#define HYPURA_SERVER_H

#include "hypura.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hypura_server hypura_server;

typedef struct hypura_server_options {
    /* who may come */
    const char *host;           /* addresses to listen on, by comma; NULL: 127.0.0.1 */
    uint16_t port;              /* 0: any that is free */
    const char *const *api_keys; /* any of them will do; ends with NULL. NULL: none is wanted */
    bool no_auth;               /* listen beyond this machine without a key */
    const char *const *origins; /* of web pages that may use it, beside those of this machine; ends with NULL */
    /* models */
    const char *models_folder; /* NULL: none */
    const char *ollama_folder; /* Ollama's models folder, read in place; NULL: none */
    const char *import_folder; /* GGUFs below it may be named in /api/create; NULL: none */
    const char *const *paths;  /* GGUFs of their own */
    int n_paths;
    /* For llama.cpp's routes, in place of a name that no model has, or of none; NULL: none. */
    const char *default_model;
    const char *hub_url;      /* where hf.co/... is pulled from; NULL: https://huggingface.co */
    const char *hub_token;    /* NULL: none */
    const char *registry_url; /* where other names are pulled from; NULL: https://registry.ollama.ai */
    bool keep_unused;         /* files that no model has used for long stay, when it opens and when a model is removed */
    /* how they run */
    const char *engine;     /* the program hypura-engine */
    uint64_t memory_bytes;  /* of all loaded models together; 0: nine tenths of what is free now */
    uint64_t weights_bytes; /* limit on the weights of each model; 0: none */
    double weights_percent; /* the same, of the model's files; 0: none */
    uint32_t n_context;     /* tokens of one conversation; 0: 4096 or the model's own, whichever is less */
    hypura_kv_cache kv_cache;
    uint32_t n_ubatch;      /* tokens of a prompt computed together at most; 0: as in hypura_model_options */
    uint32_t n_parallel;    /* conversations that a model computes together; 0: 4 */
    int n_threads;          /* 0: one for each core */
    /* Of every model that writes text; the draft, a file or a name, of those alone that it fits. */
    hypura_speculation speculation;
    bool context_shift;     /* an answer that reaches the end of its context goes on without what is oldest */
    const char *gpu;        /* ggml's names of the GPUs to use; "none": none; NULL: as in hypura_model_options */
    uint64_t vram_bytes;    /* of all loaded models together, of all of them; 0: what is free there */
    uint64_t gpu_vram_bytes[HYPURA_MAX_GPUS]; /* and of each of those named; all 0: no such limit */
    hypura_gpu_misses gpu_misses; /* of each model, as in hypura_model_options */
    const char *rpc;        /* the same; one model at a time can use a server */
    uint64_t rpc_bytes;
    const char *io_engine;  /* NULL: the profile's choice */
    uint64_t io_limit_bytes_per_s;
    double keep_alive_s;      /* a model that nobody uses is unloaded after this; below 0: never */
    const char *cache_dir;    /* profile of the machine; NULL: none */
    const char *state_folder; /* states of conversations, for later; NULL: none are kept */
    uint64_t state_bytes;     /* they may take on the disk */
    /* limits */
    uint32_t max_requests;   /* computed or waiting at the same time; 0: 128 */
    uint64_t max_body_bytes; /* 0: 64 MiB */
    /* log */
    const char *log_level; /* "error", "warn", "info", "debug"; NULL: info */
    const char *child_log; /* file for everything the engines print; NULL: warnings go to the log, at level debug */
} hypura_server_options;

/* Strings live until close. */
HYPURA_API hypura_status hypura_server_open(const hypura_server_options *options, hypura_server **server,
                                            hypura_error *error);
/* Where it listens: one that was free, where the options say 0. */
HYPURA_API uint16_t hypura_server_port(const hypura_server *server);
/* Takes no new requests and blocks until those running have ended: true; or for so long. May be called again. */
HYPURA_API bool hypura_server_drain(hypura_server *server, double seconds);
/* Ends the engines and frees everything. NULL is allowed. */
HYPURA_API void hypura_server_close(hypura_server *server);

/* ---- the models of this machine ----------------------------------------- */

typedef struct hypura_local_options {
    const char *models_folder; /* NULL: none */
    const char *ollama_folder; /* as above; NULL: none */
    const char *hub_url;       /* as above */
    const char *hub_token;
    const char *registry_url;
    bool keep_unused; /* as above */
} hypura_local_options;

typedef struct hypura_local_model {
    const char *name; /* "hf.co/user/repository:Q4_K_M" */
    const char *path; /* of its GGUF, the first part of a split one */
    uint64_t    bytes;
    const char *architecture;
    const char *parameters;   /* "30.5B"; "" when it is not known */
    const char *quantization; /* "Q4_K_M", the same */
    const char *modified;     /* RFC 3339, UTC */
} hypura_local_model;

/* The last modified first. Strings live during the call; returning false ends it. */
typedef bool (*hypura_local_fn)(void *user, const hypura_local_model *model);
HYPURA_API hypura_status hypura_local_list(const hypura_local_options *options, hypura_local_fn visit, void *user,
                                           hypura_error *error);
/* What a name stands for; NULL: none. Zero-initialise; clear frees. */
typedef struct hypura_local_files {
    char *path;      /* of its GGUF, as above */
    char *projector; /* of pictures or sound */
    char *adapters[HYPURA_MAX_ADAPTERS + 1]; /* LoRA that are applied to it, in this order; ends with NULL */
    char *settings;  /* JSON, an object of any of: parameters (object), system, template (Jinja), messages (array) */
} hypura_local_files;

/* The files of a model by its name, as the server takes it: whole, or a beginning that only one has. OK and no path when
 * none is meant. */
HYPURA_API hypura_status hypura_local_find(const hypura_local_options *options, const char *name,
                                           hypura_local_files *files, hypura_error *error);
HYPURA_API void          hypura_local_files_clear(hypura_local_files *files);
/* A projector in the folder of a model's file whose name says that it belongs to it; NULL: none. Free it. */
HYPURA_API hypura_status hypura_local_projector(const char *path, char **projector, hypura_error *error);
/* What a pull is about to fetch. */
typedef struct hypura_local_plan {
    size_t   n_files;
    uint64_t bytes;       /* of all of them */
    uint64_t there_bytes; /* that an earlier call left */
} hypura_local_plan;

/* Who is told of a pull; any may be NULL. */
typedef struct hypura_local_watch {
    /* Once, before anything is fetched; not for a model that is there as it is published. */
    void (*plan)(void *user, const hypura_local_plan *plan);
    hypura_progress_fn progress; /* bytes of all files together; 0 of 0 beside fetching */
    void *user;
} hypura_local_watch;

/* Fetches a model into the folder, as /api/pull does, and says where it is. What is broken off is resumed by the next
 * call. HYPURA_ERR_CANCELLED when progress returned false. */
HYPURA_API hypura_status hypura_local_pull(const hypura_local_options *options, const char *name,
                                           const hypura_local_watch *watch, char *path, size_t path_bytes,
                                           hypura_error *error);

/* Makes a model of the folder of another one, whose files it shares, with settings over that one's: a JSON object as in
 * hypura_local_files. HYPURA_ERR_USAGE: from is no model's name, or name cannot be one. */
HYPURA_API hypura_status hypura_local_save(const hypura_local_options *options, const char *from, const char *name,
                                           const char *settings, hypura_error *error);

/* Removes a model of the folder, by its whole name: its files and settings. HYPURA_ERR_USAGE: there is none;
 * HYPURA_ERR_UNSUPPORTED: it is Ollama's, or another name stands for it. */
HYPURA_API hypura_status hypura_local_remove(const hypura_local_options *options, const char *name, hypura_error *error);

/* Files of the folder that no model uses: downloads that were broken off, and files that were sent to a server for
 * /api/create more than a day ago. */
typedef struct hypura_local_files_unused {
    size_t   n_files;
    uint64_t bytes; /* that they take on the drive */
} hypura_local_files_unused;

/* Looks for them, and removes them if that is wanted; never what a pull or a server is using. */
HYPURA_API hypura_status hypura_local_unused(const hypura_local_options *options, bool remove,
                                             hypura_local_files_unused *unused, hypura_error *error);

/* ---- asking a running server -------------------------------------------- */

/* A conversation with a model of a server; one thread. */
typedef struct hypura_client hypura_client;

/* url as "http://127.0.0.1:8080"; api_key NULL: none. Nothing is sent yet. */
HYPURA_API hypura_status hypura_client_open(const char *url, const char *api_key, const char *model,
                                            hypura_client **client, hypura_error *error);
HYPURA_API void          hypura_client_close(hypura_client *client);
/* Begins a new conversation. */
HYPURA_API void          hypura_client_reset(hypura_client *client);
/* One request of the server's own API, such as "/api/hypura/status"; body NULL: GET, else POST of that JSON. *answer is
 * what came, with a NUL at its end: free() it. HYPURA_ERR_USAGE: the server refused the request. */
HYPURA_API hypura_status hypura_client_request(hypura_client *client, const char *path, const char *body, char **answer,
                                               hypura_error *error);
/* As hypura_generate, but for options->chat_template, which is the server's. prompt_s is the time until the first text
 * came. HYPURA_ERR_USAGE: the server refused the request. */
HYPURA_API hypura_status hypura_client_generate(hypura_client *client, const hypura_generate_options *options,
                                                hypura_result *result, hypura_error *error);

/* This machine's memory for hypura, and llama.cpp, on another one: see rpc in hypura_model_options, and what it says of
 * trust. */
typedef struct hypura_rpc_options {
    const char *host;     /* address to listen on; NULL: 127.0.0.1, for this machine alone */
    uint16_t port;        /* 0: 50052 */
    const char *gpu;      /* as in hypura_model_options; where there is none, the processor computes */
    uint64_t memory_bytes; /* clients are told of no more, of each device; 0: of what is free */
    int n_threads;        /* 0: one for each core */
} hypura_rpc_options;

/* Serves one client after the other until the process ends, and tells of them on standard output. Returns only where it
 * cannot begin. */
HYPURA_API hypura_status hypura_rpc_serve(const hypura_rpc_options *options, hypura_error *error);

#ifdef __cplusplus
}
#endif

#endif
