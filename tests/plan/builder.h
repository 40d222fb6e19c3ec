/*
 * builder.h - models made by hand: a map and a survey of a few tensors.
 */
#ifndef TESTS_PLAN_BUILDER_H
#define TESTS_PLAN_BUILDER_H

#include "plan/plan.h"

#define BUILDER_MAX_TENSORS 512
#define BUILDER_MAX_BUNDLES 64

typedef struct builder {
    hypura_tensor tensors[BUILDER_MAX_TENSORS];
    hypura_use uses[BUILDER_MAX_TENSORS];
    hypura_bundle bundles[BUILDER_MAX_BUNDLES];
    hypura_map map;
    hypura_survey survey;
    hypura_profile profile;
    uint32_t next_order;
} builder;

/* An empty model on a machine of 100 GB/s memory and a 2 GB/s drive. */
void builder_init(builder *b);

/* Each returns the index of the tensor (of the bundle for builder_experts). */
int builder_tensor(builder *b, hypura_role role, int layer, uint64_t n_rows, uint64_t row_bytes, uint32_t flags);
int builder_fixed(builder *b, uint64_t bytes);
int builder_ffn(builder *b, int layer, uint64_t n_rows, uint64_t row_bytes);
int builder_attention(builder *b, int layer, uint64_t n_rows, uint64_t row_bytes);
int builder_experts(builder *b, int layer, int n_experts, int n_matrices, const uint64_t *matrix_bytes);

/* So many layers of an FFN weight of these rows, and 1000 bytes that stay. */
void builder_dense(builder *b, int n_layers, uint64_t n_rows, uint64_t row_bytes);

/* An embedding and an output of 8 MiB, and twelve layers of 2 MiB attention and an FFN of 8 MiB or 32 experts of 768 KiB, of
 * which a token uses four. On a GPU 1 MiB of cache for each layer, and 4 MiB to compute in. */
#define BUILDER_LAYERS 12
void builder_layers(builder *b, bool mixture);

hypura_status builder_solve(const builder *b, const hypura_plan_options *options, hypura_plan **plan,
                            hypura_error *error);
/* Fails the test when there is no plan. */
hypura_plan *builder_wanted(const builder *b, const hypura_plan_options *options);
/* With a limit on weights alone; fails the test when there is no plan. */
hypura_plan *builder_plan(const builder *b, uint64_t weights_bytes);
/* The same, paging forced. */
hypura_plan *builder_forced(const builder *b, uint64_t weights_bytes);
/* Fewest bytes of weights, as a plan with room for everything tells. */
uint64_t builder_floor(const builder *b, bool force_paging);

/* What a plan must always be, whatever the model: see the assertions. */
void builder_check(const builder *b, const hypura_plan *plan, uint64_t weights_bytes);

#endif
