/*
 * candidates.c - see candidates.h.
 */
#include "predict/candidates.h"

#include <math.h>

void hypura_candidates_add_bias(float *scores, uint32_t n, const float *bias, uint32_t n_experts, bool on_probability)
{
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = (on_probability ? 1.0f / (1.0f + expf(-scores[i])) : scores[i]) + bias[i % n_experts];
    }
}

void hypura_candidates_pick(const float *scores, uint32_t n_scores, uint32_t *candidates, uint32_t n)
{
    uint32_t picked = 0;
    for (uint32_t i = 0; i < n_scores && n > 0; i++) {
        if (picked == n && !(scores[i] > scores[candidates[n - 1]])) {
            continue;
        }
        uint32_t at = picked < n ? picked++ : n - 1;
        for (; at > 0 && scores[candidates[at - 1]] < scores[i]; at--) {
            candidates[at] = candidates[at - 1];
        }
        candidates[at] = i;
    }
}

bool hypura_candidates_contain(const uint32_t *candidates, uint32_t n, uint32_t expert)
{
    for (uint32_t i = 0; i < n; i++) {
        if (candidates[i] == expert) {
            return true;
        }
    }
    return false;
}
