/*
 * experts.h - the work on one chain, shared by experts.c, which leases slots and
 * decides what is computed when, and expert_rows.c, which computes it.
 */
#ifndef HYPURA_BACKEND_EXPERTS_H
#define HYPURA_BACKEND_EXPERTS_H

#include "backend/internal.h"

#define MAX_COPIES 4
#define EXPERT_BATCH_ROWS 4 /* that kernels for several rows take together; groups have room for as many more */

typedef struct expert_rows {
    uint32_t expert;
    uint32_t slot; /* UINT32_MAX: not leased */
    uint32_t first;
    uint32_t n; /* pairs[first .. first + n) */
    bool     present; /* when that was last looked for */
    bool     done;
} expert_rows;

typedef struct chain_work {
    backend_instance *instance;
    const backend_chain *chain;
    hypura_pager     *pager;
    int               bundle;
    uint32_t          n_pairs;
    uint32_t          n_experts; /* distinct ones */
    expert_rows      *experts;
    int32_t          *pairs; /* token * n_used + rank, by expert, ascending within each */
    uint32_t         *wanted; /* scratch for leases */
    uint32_t         *slots;
    uint32_t         *n_uses; /* for the pager, with ages */
    uint32_t         *ages;
    uint32_t         *foreseen; /* experts of the next layer */
    uint32_t          group_rows; /* most rows gathered at once */
    bool              scattered; /* slots have no common distance: no node takes several */
    uint32_t          batched; /* bit for each product of the chain that expert_batch.c computes */
    /* sources whose memory a result of the chain shares, copied before the first group */
    int                       n_copies;
    const struct ggml_tensor *originals[MAX_COPIES];
    struct ggml_tensor        copies[MAX_COPIES];
} chain_work;

/* A node that waits for matrices of a leased slot, and all threads of the team in it. */
typedef struct expert_wait {
    const chain_work *work;
    uint32_t          slot;
    uint32_t          matrices;
    hypura_status     status;
    uint64_t          waited_us;
} expert_wait;

/* A group's rows: experts[members[0 .. n)] one after the other. */
typedef struct row_group {
    uint32_t  n;
    uint32_t *members;
    uint32_t  n_rows;
    bool      waits;     /* for its one expert, which is still being read */
    int32_t  *pairs;     /* of each row */
    struct ggml_tensor *compact[CHAIN_MAX_NODES]; /* results, in the group's rows */
    struct ggml_tensor *slot_ids;   /* remap form */
    struct ggml_tensor *expert_ids; /* as the router gave them */
    int                 n_sources;
    const struct ggml_tensor *sources[CHAIN_MAX_NODES];
    struct ggml_tensor       *gathered[CHAIN_MAX_NODES];
    uint32_t            awaited; /* matrices that a node waits for */
    int                 n_waits;
    expert_wait         wait[CHAIN_MAX_NODES];
} row_group;

/* Test instrument, see backend_set_single_groups. */
extern bool experts_single_groups;

/* Slots x rows up to which one node serves a group, and the backend's own scratch memory is large enough. */
extern uint64_t experts_most_scratch;

static inline bool expert_ready(const chain_work *work, const expert_rows *expert)
{
    return hypura_pager_expert_ready(work->pager, work->bundle, expert->slot, UINT32_MAX);
}

/* ---- expert_batch.c --------------------------------------------------------- */

/* Finds out which products of the chain may take several rows of an expert together: work->batched. Once slots are
 * leased; it uses the instance's memory for rows. */
void expert_batch_decide(chain_work *work);

/* Rows to compute together for an expert of n in product `index` of the chain, a few more than n at most, whose results
 * are of no use; 0: they go one by one. */
uint32_t expert_batch_size(const chain_work *work, int index, uint32_t n);

/* n rows as one matrix, and a node as its product with the weights. */
struct ggml_tensor *expert_batch_rows(backend_instance *instance, const struct ggml_tensor *rows, uint32_t first,
                                      uint32_t n);
void expert_batch_product(struct ggml_tensor *node, struct ggml_tensor *weights, struct ggml_tensor *rows);

/* ---- expert_rows.c ---------------------------------------------------------- */

/* Slots [first, first + n) of a product's matrix as one expert tensor. */
struct ggml_tensor *expert_weights(const chain_work *work, const chain_node *product, uint32_t first, uint32_t n);

/* The slots that hold the experts of those members, or of all n when members is NULL. */
void expert_slot_range(const chain_work *work, const uint32_t *members, uint32_t n, uint32_t *first, uint32_t *count);

/* Numbers of one row of all that a chain puts out and reads. */
size_t expert_rows_width(const backend_chain *chain);

/* Memory for the rows of the largest group and for the sources that its results would
 * overwrite, which are copied; before the first group. nodes_first: libllama's nodes run before
 * it, and write all their results. False when memory runs out. */
bool expert_rows_begin(chain_work *work, bool nodes_first);

/* Takes a group through the whole chain and writes the rows that libllama keeps to where
 * it keeps them. Waits for the matrices of a group that is still being read. */
enum ggml_status expert_rows_run(chain_work *work, row_group *group);

#endif
