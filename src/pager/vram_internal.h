/*
 * vram_internal.h - what the files of slots in a GPU's memory share.
 *
 *     vram_open.c  memory on the device
 *     vram.c       slots, and what is uploaded to them and to stages
 *     vram_send.c  the copies of an upload, in few calls
 *     vram_stage.c   stages
 *     vram_keep.c    what a prompt selected most stays in slots
 *     vram_expect.c  what is uploaded before it is asked for
 *     vram_land.c    what is read straight into slots, where the host may write there
 *     vram_beside.c  what the processor computes
 *     vram_routers.c routers asked by the device
 *     vram_ids.c   ids on the device and on the host, tables from experts to slots
 *     vram_report.c  nodes that bring the host what it asks for
 */
#ifndef HYPURA_PAGER_VRAM_INTERNAL_H
#define HYPURA_PAGER_VRAM_INTERNAL_H

#include "pager/internal.h"
#include "pager/vram.h"

#include "ggml-backend.h"
#include "ggml.h"

#define MAX_PENDING  4096
#define MAX_EXPERTS  1024
#define MAX_BESIDE   512

/* Small tensors of a bundle on the device, and the host's memory for and beside them. */
enum { IDS_SLOTS, IDS_TABLE, IDS_GIVEN, N_IDS };
enum { N_PLACES = 2 };
enum { HOST_ARRIVALS = N_IDS, HOST_ASKED = HOST_ARRIVALS + N_PLACES, HOST_NOWHERE = HOST_ASKED + N_PLACES, N_HOST_IDS };

typedef struct vram_pool {
    hypura_cache         *cache;
    uint32_t              n_slots;
    uint32_t              n_lasting; /* of these; the others give way to stages */
    uint32_t              n_open;    /* n_lasting or n_slots: those that may hold a key now */
    uint32_t              n_full;    /* that hold one */
    uint32_t              n_keys;
    ggml_backend_buffer_t buffers[HYPURA_MAX_BUNDLE]; /* one for each matrix, or the first one's for all */
} vram_pool;

typedef struct vram_bundle {
    bool               paged;
    uint32_t           pool;
    uint32_t           first_key;
    uint32_t           max_pairs;
    struct ggml_tensor slots[HYPURA_MAX_BUNDLE];
    struct ggml_tensor stages[HYPURA_MAX_STAGES][HYPURA_MAX_BUNDLE];
    struct ggml_tensor ids[N_IDS]; /* on the device */
    struct ggml_tensor lookups[HYPURA_N_LEADS]; /* nodes that fill IDS_SLOTS from IDS_TABLE */
    int32_t           *values[N_HOST_IDS];
    struct ggml_tensor reports[N_PLACES]; /* nodes that bring ids to the host's memory */
} vram_bundle;

/* A slot in RAM that an upload reads from. */
typedef struct vram_lease {
    int      bundle;
    uint32_t slot;
    int      set;    /* of the stage it goes to; -1: to a slot */
    uint32_t index;  /* there */
    bool     passes; /* RAM need not keep it */
    bool     early;  /* handed over before the ids that the host waits for next */
} vram_lease;

/* Experts of a bundle that are in slots. */
typedef struct vram_held {
    uint32_t n;
    uint32_t experts[MAX_EXPERTS];
    uint32_t slots[MAX_EXPERTS];
} vram_held;

/* What passed through a stage last, and what of it was selected. */
typedef struct vram_batch {
    int      bundle; /* -1: nothing that is to be noted */
    uint32_t n_tokens;
    uint32_t n_used;
    uint32_t row; /* numbers from one token's ids to the next one's */
    int32_t *ids; /* on the host, when the stage has been read */
} vram_batch;

/* Slots of one pool. */
typedef struct vram_slots {
    uint32_t pool;
    uint32_t n;
    uint32_t list[MAX_EXPERTS];
} vram_slots;

/* What the processor computes in place of the GPU, where that is wanted. */
typedef struct vram_beside {
    ggml_backend_buffer_t buffer; /* pinned where the driver gives that; NULL: it computes none */
    size_t                n_floats; /* of each of: */
    float                *rows[HYPURA_N_ROW_SETS];
    ggml_backend_event_t *sent; /* of each bundle: its last upload has ended; NULL: there are none */
    uint32_t              n; /* uploads that may not have ended */
    uint32_t              allowed; /* of these */
    bool                  one_sent; /* in this graph, where uploads are in the way of what is computed */
    vram_lease            leases[MAX_BESIDE];
} vram_beside;

/* What one token selected last, or had uploaded: a cache is told of it when the host has time. */
typedef struct vram_untold {
    int      bundle; /* -1: nothing */
    uint32_t n;
    uint32_t experts[MAX_EXPERTS];
} vram_untold;

/* What has to be known of one of ggml's backends, see vram_open.c. */
typedef struct vram_manners {
    const char *backend;
    bool        copies_beside;   /* another instance of it copies while one computes */
    bool        copies_overtake; /* uploads may, what their own instance computes: see vram_order_copies, vram_hold_copies */
    bool        reports;         /* a copy to the host waits for what is handed over next, and for uploads: see vram_report.c */
    uint32_t    remap_tokens;    /* up to so many read slots through remapped ids; more pass through a stage */
} vram_manners;

struct hypura_vram {
    hypura_pager              *pager;
    ggml_backend_dev_t         device;
    int                        gpu; /* of the plan */
    ggml_backend_buffer_type_t type;
    ggml_backend_t             backend;  /* what everything queued was queued on */
    ggml_backend_t             uploader; /* experts come through it, beside what backend computes; NULL: through backend */
    ggml_backend_event_t       uploaded; /* what backend waits for before it goes on */
    ggml_backend_event_t       uploaded_late; /* the same, for what was deferred */
    int                        late_matrix;   /* that is deferred; -1: none */
    bool                       has_late;      /* backend does not wait for uploaded_late yet */
    ggml_backend_t             reader;   /* other copies than uploads go through it, while backend computes on; or NULL */
    ggml_backend_event_t       computed; /* what reader waits for */
    bool                       slots_changed; /* by uploads that reader does not wait for yet */
    ggml_backend_event_t       copied;   /* from slots to a stage, through reader; or, where uploads overtake, from a stage to slots */
    const vram_manners        *manners;
    bool                       overtakes; /* uploads do, as seen: they are beside what is computed without another instance */
    uint32_t                   n_pools;
    vram_pool                  pools[HYPURA_MAX_VRAM_POOLS];
    vram_bundle               *bundles;
    ggml_backend_buffer_t      stages[HYPURA_MAX_STAGES][HYPURA_MAX_BUNDLE]; /* as those of a pool */
    vram_batch                 batches[HYPURA_MAX_STAGES];
    ggml_backend_buffer_t      batch_ids;
    size_t                     batch_bytes; /* of each */
    ggml_backend_buffer_t      ids[N_IDS];
    ggml_backend_buffer_t      values[N_HOST_IDS]; /* pinned where the driver gives that */
    struct ggml_tensor         all_given;
    uint32_t                   n_pending;
    vram_lease                 pending[MAX_PENDING];
    struct ggml_context       *copies; /* nodes that copy slots to a stage, made anew for each */
    vram_beside                beside;
    bool                       visited_ram; /* RAM was told of what is uploaded next */
    vram_untold                untold;     /* slots */
    vram_untold                untold_ram;
    vram_slots                 in_use; /* that the layer loaded last reads */
    bool                       staged; /* stages were used since begin */
    bool                       early;    /* uploads now are of what was not asked for */
    bool                       can_land; /* see vram_land.c */
    bool                       landing;  /* what is read now goes straight to slots */
    bool                       told_ram; /* RAM reads ahead what was expected and is not there */
    int                        foreseen_bundle; /* what was uploaded before it was asked for; -1: nothing */
    uint32_t                   n_foreseen;
    uint32_t                   foreseen[MAX_EXPERTS];
    ggml_backend_t             asker;    /* routers are asked through it; NULL: none is */
    struct ggml_cgraph       **routers;  /* that ask those of bundles; NULL: such a one is not asked */
    struct ggml_context       *router_nodes;
    ggml_backend_buffer_t      router_buffer;
    size_t                     scores_bytes; /* of each of two places in it, which take turns for each bundle */
    float                     *states[2]; /* on the host */
    ggml_backend_buffer_t      state_buffer;
    void                      *report_memory; /* the host's, in which all reports lie */
    ggml_backend_buffer_t      report_buffer; /* the same, as the device sees it; NULL: it cannot */
    struct ggml_tensor         state_reports[2];
    vram_held                  held;
    uint32_t                   missing[MAX_EXPERTS];
    int                        leased_bundle; /* of ram_slots that are leased and not sent from; -1: there are none */
    uint32_t                   n_leased;
    uint32_t                   ram_slots[MAX_EXPERTS];
};

/* vram.c: uploads experts[0..n) of a bundle to these indices of slots (set -1) or of a stage,
 * those present in RAM first, which keeps no copy of those that pass. Both lists are used up. */
hypura_status vram_upload(hypura_vram *vram, int bundle, int set, uint32_t *experts, uint32_t *indices, uint32_t n,
                          bool pass);
/* vram_send.c: copies the experts of these leases, all of one bundle to one place, but for the late
 * matrix (-1: there is none); one matrix of them. */
void vram_send_experts(hypura_vram *vram, int late, const vram_lease *leases, uint32_t n);
void vram_send_matrix(hypura_vram *vram, int matrix, const vram_lease *leases, uint32_t n);
/* vram.c: notes what was selected of a bundle. n_uses, ages: as in cache.h, or NULL. */
void vram_visit(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                const uint32_t *n_uses, const uint32_t *ages);
/* vram.c: what is queued next comes after the uploads so far. */
void vram_join_uploads(hypura_vram *vram);
/* vram_stage.c: copies experts from slots to a stage at their own index, or back, on the device. */
hypura_status vram_copy(hypura_vram *vram, int bundle, int set, const vram_held *held, bool to_slots);
/* vram_stage.c: RAM cannot hold all experts of this size. */
bool          vram_ram_is_short(const hypura_vram *vram, int bundle);
bool          vram_can_copy(const hypura_vram *vram, int bundle);
/* vram_routers.c: copies of routers on the device, where it has room for them. */
hypura_status vram_open_routers(hypura_vram *vram, hypura_error *error);
void          vram_close_routers(hypura_vram *vram);
/* vram_keep.c: the host's memory for ids of batches. */
hypura_status vram_open_batches(hypura_vram *vram, hypura_error *error);
/* vram_land.c: leases experts in RAM, into vram->ram_slots; those that RAM lacks are read into these slots of
 * the GPU where vram->landing says so. landed: such a one is there. */
bool          vram_can_land(const hypura_vram *vram);
uint32_t      vram_lease_experts(hypura_vram *vram, int bundle, const uint32_t *experts, const uint32_t *indices, uint32_t n);
bool          vram_is_landing(const hypura_vram *vram, int bundle, uint32_t ram_slot);
void          vram_landed(hypura_vram *vram, int bundle, uint32_t expert, uint32_t index, uint32_t ram_slot);
/* vram_beside.c: memory for it; its uploads have all ended, or are not to be waited for. */
hypura_status vram_open_beside(hypura_vram *vram, hypura_error *error);
void          vram_close_beside(hypura_vram *vram);
void          vram_beside_ended(hypura_vram *vram);
/* vram.c: ends the uploads of all GPUs, so that slots in RAM are free again; false when there were none. */
bool          vram_settle_all(const hypura_pager *pager);
/* vram.c: gives back leases of RAM that nothing was sent from. */
void          vram_release_leased(hypura_vram *vram);
/* vram_expect.c: compares what was expected of a bundle with what it selected. Returns how many came so. */
uint32_t vram_settle_foreseen(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n);
/* Statistics of what was needed of a bundle. */
void          vram_count(hypura_vram *vram, int bundle, uint32_t n_needed, uint32_t n_hit, bool copied);
/* A slot for a key. */
uint32_t      vram_insert(vram_pool *pool, uint32_t key);
/* Slots give way to stages that lie there, and come back, without keys. */
void          vram_close_slots(hypura_vram *vram, vram_pool *pool);
void          vram_open_slots(hypura_vram *vram, vram_pool *pool);

/* Memory of the device, zeroed; NULL with *error set. */
ggml_backend_buffer_t vram_take(hypura_vram *vram, size_t bytes, const char *what, hypura_error *error);
bool                  vram_place_at(struct ggml_tensor *tensor, ggml_backend_buffer_t buffer, size_t offset);

hypura_status vram_open_ids(hypura_vram *vram, hypura_error *error);
void          vram_close_ids(hypura_vram *vram);
/* An entry of a bundle's table on the host, and the copy of all its entries. */
void vram_set_entry(hypura_vram *vram, int bundle, uint32_t expert, uint32_t slot);
void vram_send_table(hypura_vram *vram, int bundle);
/* vram_report.c: the host's memory that the device writes into, where it can. */
hypura_status vram_open_reports(hypura_vram *vram, hypura_error *error);
void          vram_close_reports(hypura_vram *vram);
/* vram_ids.c: whether uploads overtake what their own instance was given before, as seen. */
bool vram_sees_overtaking(hypura_vram *vram);
/* What is queued next sees what copies have written so far. */
void vram_order_copies(hypura_vram *vram);
/* Copies to the device from now on come behind what is queued. */
void vram_hold_copies(hypura_vram *vram);

#endif
