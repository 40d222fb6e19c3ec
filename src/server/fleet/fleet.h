/*
 * fleet.h - the loaded models: which engine runs, who uses it, and the memory they share.
 *
 *              acquire                     expiry, unload, or memory is needed
 *     (none) ----------> LOADING --> READY ----------------------------------> ENDING --> (none)
 *                           |          |  the process died
 *                           '----------+--------------------------------------------------> (none)
 *
 * What always holds:
 *  1. memory_bytes of all members is at most the fleet's. For a model to be loaded, idle ones first give up what they
 *     page and then go, the longest unused first; it is refused only when what is left is below its floor and nobody's
 *     end can be waited for. Memory that nobody waits for goes back to those that page.
 *     What they take of GPUs is shared in the same way, see gpu.c.
 *  2. A member that is in use is neither ended nor started anew.
 *  3. A member whose process died is never handed out again; the next acquire starts another.
 *  4. Settings of loading (context, threads, batch, what it answers with) that differ from what runs wait until it is idle, and
 *     others behind them. What a request does not ask for stays as it runs; what the model was made with does not.
 *  5. A model that waits for memory gets it, however busy the others are: after a time they take no new requests.
 */
#ifndef HYPURA_SERVER_FLEET_FLEET_H
#define HYPURA_SERVER_FLEET_FLEET_H

#include "hypura_server.h"
#include "server/fleet/prefix.h"
#include "server/models/store.h"
#include "server/process/engine.h"

typedef struct server_fleet server_fleet;
typedef struct fleet_member fleet_member;

/* models: in which names of drafts are looked up. */
hypura_status fleet_open(const hypura_server_options *options, hypura_models *models, server_fleet **opened,
                         hypura_error *error);
/* Warns in the log of each model named when the server was started that can never be loaded: its floor is above the fleet's
 * memory. Returns at once; once for a fleet. */
void fleet_foretell(server_fleet *fleet);
/* Ends all engines. Nothing is in use any more. */
void fleet_close(server_fleet *fleet);

/* What can be chosen when a model is loaded. 0: whatever runs, or the default. */
typedef struct fleet_settings {
    uint32_t n_context; /* tokens of one conversation */
    uint32_t n_batch;   /* tokens of a prompt that are computed together at most */
    uint32_t n_threads;
    bool embeddings; /* it also answers with these, */
    bool reranking;  /* or with these: its tokens' states are pooled for one of the two */
} fleet_settings;

typedef struct fleet_wish {
    const hypura_model_entry *entry;
    fleet_settings settings;
} fleet_wish;

/* A model in use. Valid from acquire to release. */
typedef struct fleet_lease {
    fleet_member *member;
    server_engine *engine;
    const char *socket;
    prefix_session *prefix; /* NULL: no conversations are kept */
    uint64_t load_us;       /* this request waited for loading */
} fleet_lease;

/* Blocks until the model is ready. cancelled is asked now and then. */
hypura_status fleet_acquire(server_fleet *fleet, const fleet_wish *wish, bool (*cancelled)(void *user), void *user,
                            fleet_lease *lease, hypura_error *error);

/* keep_alive_s: how long the model stays when nobody uses it; below 0: for ever; NAN: as the server was told. */
void fleet_release(server_fleet *fleet, fleet_lease *lease, double keep_alive_s);

/* Ends the model, or lets it end with its last use. */
void fleet_unload(server_fleet *fleet, const hypura_model_entry *entry);

typedef struct fleet_info {
    const hypura_model_entry *entry; /* held: release it */
    bool ready;
    uint32_t n_users;
    uint64_t memory_bytes;
    double expires_s; /* from now; below 0: never; NAN: in use */
    int pid;
    char speculation[128]; /* what guesses, as hypura_speculation_types names it, by comma; "": nothing */
    char socket[108]; /* of its engine; "" while there is none */
    bool has_live;
    hypura_live_record live;
} fleet_info;

/* Whether it is loaded, or loads. */
bool fleet_has(server_fleet *fleet, const hypura_model_entry *entry);

/* What is loaded now. Free with fleet_list_clear. */
size_t fleet_list(server_fleet *fleet, fleet_info **infos);
void fleet_list_clear(fleet_info *infos, size_t n);

typedef struct fleet_counts {
    uint64_t memory_bytes; /* of all models at most */
    uint64_t used_bytes;
    uint64_t n_loads;
    uint64_t n_deaths;  /* engines that ended by themselves */
    uint32_t n_waiting; /* requests that wait for a model */
} fleet_counts;

void fleet_count(server_fleet *fleet, fleet_counts *counts);

#endif
