/*
 * coactivation.c - see coactivation.h.
 *
 * A row of counts belongs to an expert of an earlier layer: how often each expert of the
 * later one came with it, in a byte each. When the row was used ROW_MOST times all of it is
 * halved, so that it forgets, and 512 experts of 48 layers take 25 MiB.
 */
#include "predict/coactivation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROW_MOST  250
#define SHRINK    2.0f   /* uses worth of belief that an expert is as likely as usual */
#define LEAST     0.5f   /* frequency, of one hardly seen, in those of one that is selected as often as any other */
#define FOLD      16     /* factors before a product becomes a logarithm: each is below 1e6 */

/* Of the log odds; fitted. */
#define BIAS      0.7
#define OF_CHANCE 1.1
static const double of_lift[HYPURA_COACTIVATION_LAYERS] = {1.5, 0.8}; /* nearest layer first */

#define LEAST_CHANCE 1e-6f /* that no token of a batch selects an expert: odds stay finite */

#define NO_LAYER UINT32_MAX

typedef struct layer_counts {
    uint32_t n_experts;
    uint8_t *rows[HYPURA_COACTIVATION_LAYERS]; /* experts of an earlier layer x n_experts; NULL: no such layer */
    uint8_t *uses[HYPURA_COACTIVATION_LAYERS]; /* of each row */
} layer_counts;

/* What the batch selected in one layer: its last tokens, n_used ids each. */
typedef struct selection {
    uint32_t  layer;
    uint32_t  n_batch; /* tokens of the whole batch */
    uint32_t  n_tokens;
    uint32_t  n_used;
    uint16_t *ids;
} selection;

struct hypura_coactivation {
    uint32_t     n_layers;
    uint32_t     n_used_most;
    selection    last[HYPURA_COACTIVATION_LAYERS + 1]; /* newest first */
    layer_counts layers[];
};

static uint64_t counts_bytes(uint32_t n_layers, const uint32_t *n_experts)
{
    uint64_t bytes = 0;
    for (uint32_t l = 1; l < n_layers; l++) {
        for (uint32_t before = 1; before <= HYPURA_COACTIVATION_LAYERS && before <= l; before++) {
            bytes += (uint64_t)n_experts[l - before] * (n_experts[l] + 1);
        }
    }
    return bytes;
}

static uint64_t ids_bytes(uint32_t n_used)
{
    return sizeof(uint16_t) * (uint64_t)n_used * HYPURA_COACTIVATION_TOKENS;
}

uint64_t hypura_coactivation_bytes(uint32_t n_layers, const uint32_t *n_experts, uint32_t n_used)
{
    return sizeof(hypura_coactivation) + n_layers * sizeof(layer_counts) + counts_bytes(n_layers, n_experts) +
           (HYPURA_COACTIVATION_LAYERS + 1) * ids_bytes(n_used);
}

hypura_coactivation *hypura_coactivation_open(uint32_t n_layers, const uint32_t *n_experts, uint32_t n_used)
{
    hypura_coactivation *seen = calloc(1, (size_t)hypura_coactivation_bytes(n_layers, n_experts, n_used));
    if (!seen) {
        return NULL;
    }
    uint16_t *ids = (uint16_t *)(void *)(seen->layers + n_layers);
    seen->n_layers = n_layers;
    seen->n_used_most = n_used;
    for (int i = 0; i <= HYPURA_COACTIVATION_LAYERS; i++) {
        seen->last[i] = (selection){.layer = NO_LAYER, .ids = ids};
        ids += (size_t)n_used * HYPURA_COACTIVATION_TOKENS;
    }
    uint8_t *counts = (uint8_t *)ids;
    for (uint32_t l = 0; l < n_layers; l++) {
        seen->layers[l].n_experts = n_experts[l];
        for (uint32_t before = 1; before <= HYPURA_COACTIVATION_LAYERS && before <= l; before++) {
            const uint32_t n_rows = n_experts[l - before];
            seen->layers[l].rows[before - 1] = counts;
            seen->layers[l].uses[before - 1] = counts + (size_t)n_rows * n_experts[l];
            counts += (size_t)n_rows * (n_experts[l] + 1);
        }
    }
    return seen;
}

void hypura_coactivation_close(hypura_coactivation *seen)
{
    free(seen);
}

/* ---- learning -------------------------------------------------------------- */

static void halve(uint8_t *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        row[i] /= 2;
    }
}

/* The oldest selection makes way; the tokens kept are the last ones of the batch. */
static selection *take(hypura_coactivation *seen, uint32_t layer, const hypura_selected *selected)
{
    const uint32_t n_used = selected->n_used < seen->n_used_most ? selected->n_used : seen->n_used_most;
    const uint32_t n =
        selected->n_tokens < HYPURA_COACTIVATION_TOKENS ? selected->n_tokens : HYPURA_COACTIVATION_TOKENS;
    const selection oldest = seen->last[HYPURA_COACTIVATION_LAYERS];
    memmove(seen->last + 1, seen->last, sizeof(oldest) * HYPURA_COACTIVATION_LAYERS);
    seen->last[0] = (selection){
        .layer = layer, .n_batch = selected->n_tokens, .n_tokens = n, .n_used = n_used, .ids = oldest.ids};
    for (uint32_t t = 0; t < n; t++) {
        const char *token = selected->ids + (selected->n_tokens - n + t) * selected->token_stride_bytes;
        for (uint32_t k = 0; k < n_used; k++) {
            seen->last[0].ids[t * n_used + k] = (uint16_t)*(const int32_t *)(const void *)(token + k * selected->rank_stride_bytes);
        }
    }
    return &seen->last[0];
}

/* The selection of the layer `before` this one, of the same batch; NULL where that was not told. */
static const selection *earlier(const hypura_coactivation *seen, uint32_t layer, uint32_t n_batch, uint32_t before)
{
    const uint32_t at = seen->last[0].layer == layer ? before : before - 1;
    const selection *found = &seen->last[at];
    return before <= layer && found->layer == layer - before && found->n_batch == n_batch ? found : NULL;
}

static void count(uint8_t *row, uint8_t *uses, uint32_t n_experts, const uint16_t *ids, uint32_t n)
{
    if (*uses == ROW_MOST) {
        halve(row, n_experts);
        *uses /= 2;
    }
    ++*uses;
    for (uint32_t k = 0; k < n; k++) {
        row[ids[k]]++;
    }
}

void hypura_coactivation_note(hypura_coactivation *seen, uint32_t layer, const hypura_selected *selected)
{
    if (layer == seen->last[0].layer) {
        return;
    }
    const selection *now = take(seen, layer, selected);
    layer_counts    *counts = &seen->layers[layer];
    for (uint32_t before = 1; before <= HYPURA_COACTIVATION_LAYERS; before++) {
        const selection *then = earlier(seen, layer, now->n_batch, before);
        for (uint32_t t = 0; then && t < now->n_tokens; t++) {
            for (uint32_t k = 0; k < then->n_used; k++) {
                const uint32_t row = then->ids[t * then->n_used + k];
                count(counts->rows[before - 1] + (size_t)row * counts->n_experts, counts->uses[before - 1] + row,
                      counts->n_experts, now->ids + t * now->n_used, now->n_used);
            }
        }
    }
}

/* ---- guessing -------------------------------------------------------------- */

bool hypura_coactivation_knows(const hypura_coactivation *seen, uint32_t layer)
{
    const selection *last = &seen->last[0];
    return layer > 0 && layer < seen->n_layers && last->layer == layer - 1 && last->n_batch == last->n_tokens &&
           last->n_used > 0;
}

static double log_odds(double chance)
{
    const double inside = chance < 0.003 ? 0.003 : chance > 0.99 ? 0.99 : chance;
    return log(inside / (1.0 - inside));
}

/* What one token selected in an earlier layer. */
typedef struct row_of_ids {
    const uint16_t *ids; /* NULL: that layer was not told */
    uint32_t        n;
} row_of_ids;

static row_of_ids token_row(const selection *then, uint32_t token)
{
    return then ? (row_of_ids){then->ids + (size_t)token * then->n_used, then->n_used} : (row_of_ids){NULL, 0};
}

/* Of the rows of one earlier layer: how much each of its experts was used, as a sum of logarithms. */
static double log_uses(const layer_counts *counts, uint32_t before, row_of_ids then)
{
    double sum = 0.0;
    for (uint32_t k = 0; k < then.n; k++) {
        sum += log(counts->uses[before - 1][then.ids[k]] + SHRINK);
    }
    return sum;
}

/* The same of what came with them: (uses with the expert + belief) / how usual it is. */
static double log_uses_with(const layer_counts *counts, uint32_t before, row_of_ids then, uint32_t expert, double usual)
{
    const uint8_t *column = counts->rows[before - 1] + expert;
    double product = 1.0;
    double sum = 0.0;
    for (uint32_t k = 0; k < then.n; k++) {
        product *= column[(size_t)then.ids[k] * counts->n_experts] / usual + SHRINK;
        if (k % FOLD == FOLD - 1) {
            sum += log(product);
            product = 1.0;
        }
    }
    return sum + log(product);
}

/* Log odds of every expert for one token of the batch; where there are more, the chance that none of those up to
 * this one selects it. */
static void score_token(const hypura_coactivation *seen, uint32_t layer, uint32_t token, const float *chances,
                        const float *frequencies, float *scores)
{
    const layer_counts *counts = &seen->layers[layer];
    const uint32_t n_batch = seen->last[0].n_batch;
    row_of_ids then[HYPURA_COACTIVATION_LAYERS];
    double of_all[HYPURA_COACTIVATION_LAYERS];
    for (uint32_t before = 1; before <= HYPURA_COACTIVATION_LAYERS; before++) {
        then[before - 1] = token_row(earlier(seen, layer, n_batch, before), token);
        of_all[before - 1] = log_uses(counts, before, then[before - 1]);
    }
    const float least = LEAST * (float)then[0].n / (float)counts->n_experts;
    for (uint32_t e = 0; e < counts->n_experts; e++) {
        const double usual = frequencies[e] > least ? frequencies[e] : least;
        double score = BIAS + OF_CHANCE * log_odds(chances[e]);
        double lift = 0.0; /* where there is no layer further before, that of the nearest stands for it */
        for (uint32_t before = 1; before <= HYPURA_COACTIVATION_LAYERS; before++) {
            const row_of_ids from = then[before - 1];
            if (from.ids) {
                lift = (log_uses_with(counts, before, from, e, usual) - of_all[before - 1]) / from.n;
            }
            score += of_lift[before - 1] * lift;
        }
        scores[e] = (float)(n_batch == 1 ? score : (token == 0 ? 1.0 : scores[e]) / (1.0 + exp(score)));
    }
}

void hypura_coactivation_score(const hypura_coactivation *seen, uint32_t layer, const float *chances,
                               const float *frequencies, float *scores)
{
    const uint32_t n_tokens = seen->last[0].n_tokens;
    for (uint32_t t = 0; t < n_tokens; t++) {
        score_token(seen, layer, t, chances, frequencies, scores);
    }
    for (uint32_t e = 0; n_tokens > 1 && e < seen->layers[layer].n_experts; e++) {
        scores[e] = logf((1.0f - scores[e] + LEAST_CHANCE) / (scores[e] + LEAST_CHANCE));
    }
}
