/*
 * internal.h - a fleet and its members, as fleet.c (who uses what, ending), load.c, memory.c (the memory
 * they share) and gpu.c (that of GPUs) see them. Everything here is called with the fleet's lock held, but for what
 * says otherwise.
 */
#ifndef HYPURA_SERVER_FLEET_INTERNAL_H
#define HYPURA_SERVER_FLEET_INTERNAL_H

#include "server/fleet/fleet.h"
#include "server/process/run_folder.h"

#include <pthread.h>

/* Waits look at the world again after this long: cancelled requests tell nobody. */
#define FLEET_WAIT_US (UINT64_C(500) * 1000)
/* A model that has waited for memory this long has the next turn: others take no new requests until it is loaded. */
#define FLEET_PATIENCE_US (UINT64_C(5000) * 1000)

/* Who last asked this long ago for what runs to be loaded in another way is taken to have gone: others have it again as it is. */
#define FLEET_TAKEOVER_US (4 * FLEET_WAIT_US)

typedef enum member_state {
    MEMBER_LOADING = 0,
    MEMBER_READY,
    MEMBER_ENDING,
} member_state;

/* A GPU that a member uses. */
typedef struct fleet_gpu {
    char name[64];
    uint64_t bytes;        /* of its memory: granted, or taken once it is loaded */
    uint64_t granted_bytes;
    uint64_t wanted_bytes; /* all that it could use */
    uint64_t free_bytes;   /* for it and all others, when it was planned */
} fleet_gpu;

struct fleet_member {
    fleet_member *next;
    server_fleet *fleet;
    const hypura_model_entry *entry; /* held */
    member_state state;
    server_engine *engine; /* NULL until started */
    prefix_session *prefix;
    bool ended;    /* its process is no more */
    bool retiring; /* unloaded while it is in use: to end with its last use */
    bool modest;   /* loaded anew to have more: nobody ends, or gives anything up, for that */
    fleet_settings settings; /* as asked for */
    adapter_scales adapter_scales; /* that its engine begins with, see adapter_scale.h */
    char speculation[128];   /* once it is loaded: what guesses */
    uint32_t n_users;
    uint64_t memory_bytes;
    uint64_t granted_bytes; /* of it, when it was loaded */
    uint64_t wanted_bytes; /* with all of its weights held */
    int n_gpus;
    fleet_gpu gpus[HYPURA_MAX_GPUS];
    uint64_t used_us;      /* when it was last given back */
    uint64_t expires_us;   /* UINT64_MAX: never */
    uint64_t awaited_us;   /* when somebody last waited for it to be idle, to load it in another way: what it was told stays */
    uint64_t waits_us;     /* since when it waits for others' memory; 0: it does not */
};

struct server_fleet {
    hypura_server_options options;
    hypura_models *models;
    run_folder run_folder;
    uint64_t memory_bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    fleet_member *members;
    uint64_t n_gpu_changes; /* of who holds what of GPUs, so far */
    uint64_t shared_us;     /* when a member last ended that was used a moment before, for another one's share of a GPU; 0: never */
    uint64_t n_loads;
    uint64_t n_deaths;
    uint32_t n_waiting;
    bool closing;
    pthread_t keeper;
    pthread_t foreteller;
    bool foretells; /* there is one */
};

/* Nobody uses it: it may give up memory, or end. */
static inline bool fleet_is_idle(const fleet_member *member)
{
    return member->state == MEMBER_READY && member->n_users == 0;
}

/* The idle one of these that was longest not used; NULL: none. */
fleet_member *fleet_longest_idle(server_fleet *fleet, bool (*of_these)(const fleet_member *member, const void *user),
                                 const void *user);
/* What is wished for, and what the model was made with where nothing is. With or without the lock. */
fleet_settings fleet_settings_of(const fleet_wish *wish);
/* Waits for something to change, as self, which is to be loaded. Gives up the lock meanwhile. HYPURA_ERR_CANCELLED when nobody
 * wants it any more. */
hypura_status fleet_wait(server_fleet *fleet, fleet_member *self, bool (*cancelled)(void *user), void *user, hypura_error *error);
/* Ends its engine and takes it off the list. Gives up the lock meanwhile. */
void fleet_end_member(server_fleet *fleet, fleet_member *member);

/* ---- load.c ------------------------------------------------------------------------ */

/* member is in the list, LOADING, and stays so: the caller makes it READY, or removes it when this fails. */
hypura_status fleet_load(server_fleet *fleet, fleet_member *member, bool (*cancelled)(void *user), void *user, hypura_error *error);

/* HYPURA_ERR_BUDGET where a model, as it is loaded by itself, needs more memory than the fleet has, as a request for it is
 * told. Without the lock; asks an engine, which takes a moment. */
hypura_status fleet_check_floor(server_fleet *fleet, const hypura_model_entry *entry, hypura_error *error);

/* ---- memory.c ------------------------------------------------------------------ */

uint64_t fleet_free_bytes(const server_fleet *fleet);
/* What an engine really takes: less than was granted, where everything fits. */
uint64_t fleet_taken_bytes(const server_engine *engine, uint64_t granted);
/* Grants self what it wants, or what there is above its floor; others shrink and end for that. Gives up the lock
 * meanwhile. HYPURA_ERR_BUDGET when it can never fit. */
hypura_status fleet_make_room(server_fleet *fleet, fleet_member *self, const engine_estimate *estimate,
                              bool (*cancelled)(void *user), void *user, hypura_error *error);
/* Whether a model has waited for memory so long that those that hold it are to come to their end. */
bool fleet_somebody_waits(const server_fleet *fleet);
/* A model that can never fit, as Ollama words it; reason: what it needs, and what to try. With or without the lock. */
hypura_status fleet_fail_too_large(const server_fleet *fleet, const fleet_member *member, const char *reason,
                                   hypura_error *error);
/* The same, of one whose floor is known. */
hypura_status fleet_fail_below_floor(const server_fleet *fleet, const fleet_member *member, const engine_estimate *estimate,
                                     hypura_error *error);
/* Memory that nobody waits for goes to a member that was loaded or left with less than it wants. Gives up the lock
 * meanwhile. False when there is none that grew. */
bool fleet_grow_one(server_fleet *fleet);

/* ---- gpu.c ----------------------------------------------------------------------- */

/* Waits until no other member loads onto a GPU, and writes down for an estimate what others hold there and would give back:
 * what it says of GPUs is right as long as n_gpu_changes stays. Gives up the lock meanwhile. */
hypura_status fleet_gpus_lend(server_fleet *fleet, fleet_member *self, bool (*cancelled)(void *user), void *user,
                              hypura_gpu_shares *shares, hypura_error *error);
/* Grants self what it wants of GPUs, or what there is above its floor; others end for that. Gives up the lock meanwhile. */
hypura_status fleet_gpus_make_room(server_fleet *fleet, fleet_member *self, const engine_estimate *estimate,
                                   bool (*cancelled)(void *user), void *user, hypura_error *error);
/* It was granted less than it wants. */
bool fleet_gpus_squeezed(const fleet_member *member);
/* Tells an engine what was granted. names: of the GPUs, lives as long as options. */
void fleet_gpus_tell(const server_fleet *fleet, const fleet_member *self, char *names, size_t capacity, engine_options *options);
/* Once it is loaded: what it really takes. */
void fleet_gpus_taken(server_fleet *fleet, fleet_member *member);
uint64_t fleet_gpus_bytes(const fleet_member *member);
/* An idle member that was left with clearly less than it could have now, and cannot grow while it is loaded: it is to be
 * loaded anew. NULL: there is none, or somebody waits. */
fleet_member *fleet_find_cramped(server_fleet *fleet);

/* ---- speculation.c: without the lock, of a member that is LOADING -------------- */

/* What the model and the server ask for. *draft: holds the model's own, whose path chosen points to; or NULL. */
hypura_status fleet_choose_speculation(server_fleet *fleet, const fleet_member *member, hypura_speculation *chosen,
                                       const hypura_model_entry **draft, hypura_error *error);
/* Leaves the draft out where it is not for this model, unless it is the model's own: HYPURA_ERR_UNSUPPORTED. */
hypura_status fleet_check_draft(const fleet_member *member, const engine_estimate *estimate, hypura_speculation *chosen,
                                hypura_error *error);
void fleet_describe_speculation(const hypura_speculation *chosen, char *text, size_t capacity);

#endif
