/*
 * figures.h - what a server tells of itself, and the two forms it is told in:
 * GET /api/hypura/status (JSON) and GET /metrics (Prometheus' text format 0.0.4).
 *
 * Pure: whoever owns the figures fills the structs, these functions render them.
 * Counters only grow while the thing that they count lives; rates and shares are
 * the reader's to take, between two readings. docs/api.md describes each figure.
 */
#ifndef HYPURA_SERVER_ENDPOINT_FIGURES_H
#define HYPURA_SERVER_ENDPOINT_FIGURES_H

#include "hypura.h"

#include <jansson.h>

/* What a model takes of one of its GPUs; what that was asked for is in paging.gpus. */
typedef struct hypura_figures_gpu {
    char     name[64];
    uint64_t weight_bytes;
    uint64_t slot_bytes;
    uint64_t other_bytes;
} hypura_figures_gpu;

/* A model that has a child, or is about to. */
typedef struct hypura_figures_model {
    const char *name;
    const char *state; /* "loading", "ready", "stopping", "failed" */
    const char *mode;  /* hypura_mode_name; "" until it is known */
    const char *speculation; /* what guesses, hypura_speculation_types; "" or NULL: nothing */
    int64_t     pid;   /* of the child; 0: none */
    double      load_share; /* of loading, 0 to 1 */
    int64_t     expires_unix_s; /* when it is unloaded if nobody asks; 0: never */
    /* requests */
    uint32_t n_slots; /* that it computes at once at most */
    uint32_t n_busy;  /* of them, in use */
    uint32_t n_waiting;
    /* where its weights lie, and what else takes memory */
    uint64_t resident_bytes;
    uint64_t pinned_bytes;
    uint64_t pool_bytes;
    uint64_t ring_bytes;
    uint64_t drive_bytes; /* weights that are on the drive alone */
    uint64_t kv_bytes;
    uint64_t compute_bytes;
    uint64_t overhead_bytes; /* without draft_bytes */
    uint64_t draft_bytes;
    uint64_t vram_weight_bytes; /* of the GPUs' memory: weights that stay there, slots for experts, and the rest */
    uint64_t vram_slot_bytes;
    uint64_t vram_other_bytes;
    int                n_gpus;
    hypura_figures_gpu gpus[HYPURA_MAX_GPUS]; /* in the order of their layers */
    uint32_t n_expert_slots; /* of all pools */
    uint32_t n_experts;      /* that share them, over all layers */
    /* counters, since the child started */
    uint64_t          prompt_tokens;
    uint64_t          generated_tokens;
    uint64_t          drafted_tokens;  /* guessed, and of these */
    uint64_t          accepted_tokens; /* those that came to be */
    hypura_statistics paging;
} hypura_figures_model;

typedef struct hypura_figures_route {
    const char *route;      /* "/api/chat" */
    uint64_t    n_answers[6]; /* by hundreds of the status: [2] is 2xx; [0] those cut off */
    double      answer_s;   /* time of all answers together */
} hypura_figures_route;

typedef struct hypura_figures {
    double   uptime_s;
    bool     ready; /* accepts requests; false while it ends */
    uint64_t memory_budget_bytes; /* shared by all models */
    uint64_t memory_used_bytes;   /* granted to models */
    double   direct_bytes_per_s;  /* the drive's measured rate; 0: not measured */
    uint32_t n_connections;
    uint32_t max_connections;
    uint32_t n_requests; /* being answered */
    uint32_t n_waiting;  /* for a model */
    uint32_t max_waiting;
    uint64_t n_rejected; /* 429 and 503, since it started */
    uint64_t n_loads;    /* children that were started */
    uint64_t n_deaths;   /* of them, ended by themselves */
    size_t                      n_models;
    const hypura_figures_model *models;
    size_t                      n_routes;
    const hypura_figures_route *routes;
} hypura_figures;

/* A new reference; NULL when memory is short. */
json_t *hypura_figures_json(const hypura_figures *figures);

/* Text to free; NULL when memory is short. */
char *hypura_figures_metrics(const hypura_figures *figures);

#endif
