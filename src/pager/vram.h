/*
 * vram.h - experts in a GPU's memory, one of these for each GPU: slots that keep what was used last, and
 * stages that take a whole layer while a batch passes through it. Both are filled
 * from the pager's pools in RAM, which read what they lack from the drive:
 *
 *     slot or stage  <---upload---  slot in RAM  <---read---  file
 *         ^      ^
 *         '------'-- copies on the GPU: what slots hold, and what of a prompt is to stay
 *
 * A slot holds all matrices of one expert under one index: the matrices of a pool
 * of slots are tensors [ne0, ne1, n_slots] of the same number of slots, so that a
 * layer's products share one tensor of ids. A stage has a tensor's own shape, so
 * that ids and what kernels derive from the number of experts stay as they are. Where
 * the plan says so it lies at the end of these tensors: slots there give way to it.
 *
 * Owned by the pager; all calls come between hypura_pager_enter and leave. Work is
 * queued on one instance of the device's backend, which runs it in order. Where that
 * one would upload and compute by turns, experts come through a second instance: its
 * uploads begin at once, beside what is computed, and what is queued next waits for them.
 * What is queued on one GPU goes on while the next one is given work. RAM serves all.
 *
 * The device turns ids into slots by itself with a table a bundle: entry e is the slot
 * of expert e, where a slot holds it, and any slot else.
 *
 * What always holds:
 *  1. A slot's key is in the cache only when its bytes and its entry in the table are
 *     there or queued before whatever is queued next: what computes with present
 *     experts alone never computes with bytes of another one. Work already queued may
 *     still compute with a slot that is filled anew, where its result is not used.
 *  2. A slot in RAM stays leased until the upload from it has ended.
 *  3. All memory of slots and stages is zero before its first use: kernels may read
 *     past the end of an expert, and must not meet NaN there.
 *  4. Behind a graph that failed, or a wait that threw, no key is in the cache: nobody knows what of the
 *     bytes has arrived. Nor is there a lease of RAM that nothing was sent from.
 */
#ifndef HYPURA_PAGER_VRAM_H
#define HYPURA_PAGER_VRAM_H

#include "pager/pager.h"

struct ggml_tensor;
struct ggml_backend;

/* device: a ggml_backend_dev_t, the plan's GPU of that number. Takes all memory that the
 * plan names there. */
hypura_status hypura_vram_open(hypura_pager *pager, void *device, int gpu, hypura_vram **vram, hypura_error *error);
void          hypura_vram_close(hypura_vram *vram);

/* What follows is queued on this instance; what another one was given before has
 * ended when it returns. */
void hypura_vram_begin(hypura_vram *vram, struct ggml_backend *backend);
/* The instance is about to be freed: waits for what it has queued. */
void hypura_vram_forget(hypura_vram *vram, const struct ggml_backend *backend);
/* Ids have arrived that were computed before what was queued last. */
void hypura_vram_arrived(hypura_vram *vram);
/* Waits for everything queued so far. */
void hypura_vram_settle(hypura_vram *vram);
/* The caller has waited for everything queued so far, or for everything queued
 * before the last use of a stage. */
void hypura_vram_settled(hypura_vram *vram);
void hypura_vram_stage_settled(hypura_vram *vram, int set);

/* From now on uploads of several experts to slots bring this matrix of a bundle after all others, and
 * what is queued waits for it from the next join on; -1: what is queued waits for all. */
void hypura_vram_defer(hypura_vram *vram, int matrix);
bool hypura_vram_has_deferred(const hypura_vram *vram);
void hypura_vram_join(hypura_vram *vram);

/* Whether uploads begin while what was queued before is computed: through an instance of their own, or as this one's
 * device copies beside what it computes. */
bool hypura_vram_uploads_beside(const hypura_vram *vram);

/* Whether a bundle's experts pass through slots here. */
bool hypura_vram_has_slots(const hypura_vram *vram, int bundle);
/* Tensors of matrix `index` of a bundle. Slots: ne[2] is the number of slots, or more. */
struct ggml_tensor *hypura_vram_slots(hypura_vram *vram, int bundle, int index);
struct ggml_tensor *hypura_vram_stage(hypura_vram *vram, int bundle, int index, int set);
int                 hypura_vram_n_stages(const hypura_vram *vram);

/* Most pairs (token, selected expert) that `ids` of a bundle can hold. */
uint32_t hypura_vram_max_pairs(const hypura_vram *vram, int bundle);
/* The persistent tensor of a bundle's slot ids, filled with n_used x n_tokens of
 * *values; host memory for them lies at *values from one call to the next of this
 * bundle. */
int32_t            *hypura_vram_id_values(hypura_vram *vram, int bundle);
struct ggml_tensor *hypura_vram_send_ids(hypura_vram *vram, int bundle, int64_t n_used, int64_t n_tokens);

/* For one token, whose n_used ids the device reads by itself. A node that looks them up
 * in the bundle's table, into the persistent tensor; the node is the caller's to run and
 * has no source [1] yet. *ids: that tensor, as products read it. One for each graph that it
 * may lead: CUDA's backend knows graphs by their first node, and records anew what differs
 * from the last one. */
typedef enum hypura_vram_leads { HYPURA_LEADS_NONE, HYPURA_LEADS_WHOLE, HYPURA_LEADS_PART, HYPURA_N_LEADS } hypura_vram_leads;
struct ggml_tensor *hypura_vram_lookup(hypura_vram *vram, int bundle, hypura_vram_leads leads, struct ggml_tensor **ids);
/* Where the ids that a router selected arrive on the host; there are two such places. */
int32_t *hypura_vram_arrivals(hypura_vram *vram, int bundle, int place);
/* Where a copy to the host would wait until more is handed over, and the device can write into the host's memory: a node
 * that brings the ids to one of two other places there, or a row of floats, for the caller to run behind what computes
 * these. can_report: it can, these; else they are fetched. Numbers of one node, and of nodes, arrive in no order. */
bool                hypura_vram_can_report(hypura_vram *vram, int bundle, struct ggml_tensor *ids);
struct ggml_tensor *hypura_vram_report(hypura_vram *vram, int bundle, int place, struct ggml_tensor *ids);
int32_t            *hypura_vram_reported(hypura_vram *vram, int bundle, int place);
bool                hypura_vram_can_report_state(hypura_vram *vram, struct ggml_tensor *row);
struct ggml_tensor *hypura_vram_report_state(hypura_vram *vram, int turn, struct ggml_tensor *row);
float              *hypura_vram_reported_state(hypura_vram *vram, int turn);
/* Copies to the host, in their order, of what has been queued so far when the first of them
 * is begun with begin; beside what is queued next where the device can. await_fetch: waits
 * for all of them; fetched: and for all that is queued, and asked. */
void hypura_vram_begin_fetch(hypura_vram *vram);
void hypura_vram_fetch(hypura_vram *vram, const struct ggml_tensor *tensor, void *to, size_t bytes);
void hypura_vram_await_fetch(hypura_vram *vram);
void hypura_vram_fetched(hypura_vram *vram);
/* A bundle's router, asked by the device with what the experts of the bundle before it read: a row of floats there.
 * can_ask: it can, beside what it computes. ask: for all that a copy begun last waits for; the scores of all experts
 * arrive at one of two places on the host, in no order with other copies. await_asked: waits for all of them. */
bool          hypura_vram_can_ask(hypura_vram *vram, int bundle, struct ggml_tensor *row);
hypura_status hypura_vram_ask(hypura_vram *vram, int bundle, struct ggml_tensor *row, int place);
float        *hypura_vram_asked(hypura_vram *vram, int bundle, int place);
void          hypura_vram_await_asked(hypura_vram *vram);
/* Host memory for a hidden state: two of them, which take turns. */
float *hypura_vram_state(hypura_vram *vram, int turn);
/* Ids from elsewhere than a router: host memory for a bundle's, a tensor of them, and the
 * copy of all bundles' to the device. */
int32_t            *hypura_vram_given_values(hypura_vram *vram, int bundle);
struct ggml_tensor *hypura_vram_given(hypura_vram *vram, int bundle);
void                hypura_vram_send_given(hypura_vram *vram);

/* Tells the caches what one token selected last and had uploaded, which takes longer than looking it up: when a GPU has
 * something to compute. Else they are told before the next selection, or upload. */
void hypura_vram_tell(hypura_vram *vram);
/* Makes experts[0..n), distinct and at most as many as slots, present in slots. They
 * are what n_tokens selected together. *n_missing of them were not there before. */
hypura_status hypura_vram_load(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                               uint32_t *slots, uint32_t *n_missing);

/* Few experts of a bundle that will probably be asked for next, the likeliest first: those
 * that RAM holds come into slots, and what is queued next comes after their uploads; what
 * was queued before goes on. Those that it lacks are read from the drive. n_runs: how often the
 * layer before is computed until then, once or again: the link carries as much in each. */
hypura_status hypura_vram_expect(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n, uint32_t n_runs);
/* The same of the likeliest by what the layers before selected that no slot holds, one in each run: one upload
 * hardly takes longer than a layer is computed, and a wrong one costs next to nothing then. */
hypura_status hypura_vram_expect_companions(hypura_vram *vram, int bundle, uint32_t n_runs);
/* How many came for a bundle that was not asked for since. */
uint32_t      hypura_vram_n_expected(const hypura_vram *vram, int bundle);

/* Where the processor computes what slots lack (gpu_misses of the pager's options), in place of
 * load. Which of experts[0..n) that is; nothing changes. */
uint32_t hypura_vram_find_missing(const hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n,
                                  uint32_t *missing);
/* Slots in RAM for all of them, of which some may still be read; false, and no lease, where RAM
 * has no room for all: load will do. Until send_beside. */
bool hypura_vram_lease(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                       uint32_t *ram_slots);
/* The layer computes with what slots hold alone: slots[i], else HYPURA_CACHE_NONE. Returns how many. */
uint32_t hypura_vram_pass(hypura_vram *vram, int bundle, uint32_t n_tokens, const uint32_t *experts, uint32_t n,
                          uint32_t *slots);
/* Of those leased, what is expected sooner than what slots hold comes into slots for later
 * tokens; what is queued does not wait for it. Ends the leases. */
hypura_status hypura_vram_send_beside(hypura_vram *vram, int bundle, const uint32_t *experts, uint32_t n);
/* Before anything of a bundle is queued, or of any (-1): such uploads to it have ended. */
void hypura_vram_settle_beside(hypura_vram *vram, int bundle);
/* Host memory for rows that its products read, of layers in turn, and that it puts out; how many
 * numbers fit. send_rows: n of the latter over rows of a tensor, from the same one on, behind what was queued
 * before begin_rows, for what is queued next; sent: these were all. */
typedef enum hypura_vram_row_sets {
    HYPURA_ROWS_READ,
    HYPURA_ROWS_READ_NEXT,
    HYPURA_ROWS_COMPUTED,
    HYPURA_ROWS_BIASES, /* of the experts it computes, for each of two operations that add them */
    HYPURA_ROWS_BIASES_NEXT,
    HYPURA_N_ROW_SETS,
} hypura_vram_row_sets;
size_t hypura_vram_row_floats(const hypura_vram *vram);
float *hypura_vram_rows(hypura_vram *vram, int which);
void   hypura_vram_begin_rows(hypura_vram *vram);
void   hypura_vram_send_rows(hypura_vram *vram, struct ggml_tensor *tensor, size_t first, size_t n);
void   hypura_vram_rows_sent(hypura_vram *vram);
/* Rows of a weight on the GPU, one behind the other, to one of these sets; waited for, but not what is queued
 * where the device copies beside it. */
void   hypura_vram_read_weights(hypura_vram *vram, const struct ggml_tensor *weights, const uint32_t *rows, uint32_t n,
                                int which);

/* The same as load, in a stage, at the expert's own index. */
hypura_status hypura_vram_fill_stage(hypura_vram *vram, int bundle, int set, const uint32_t *experts, uint32_t n);

/* What a batch selects of the bundle in a stage: begins the copy of its ids [n_used, n_tokens] to
 * the host; or a place for them, one token's behind the other's, NULL where there is no room. All
 * that they name is in the stage. */
void     hypura_vram_note_batch(hypura_vram *vram, int bundle, int set, const struct ggml_tensor *ids);
int32_t *hypura_vram_give_batch(hypura_vram *vram, int bundle, int set, uint32_t n_used, uint32_t n_tokens);
bool     hypura_vram_has_batches(const hypura_vram *vram);
/* The caller has waited for the last use of a stage, or of all: what was selected there and is
 * expected sooner than what slots hold stays, in these. */
hypura_status hypura_vram_keep(hypura_vram *vram, int set);
hypura_status hypura_vram_keep_all(hypura_vram *vram);

/* A graph failed, perhaps in the midst of a call above, out of which something was thrown, or a wait for it did: no expert is
 * present. */
void hypura_vram_failed(hypura_vram *vram);

#endif
