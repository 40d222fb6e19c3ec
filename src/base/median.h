/*
 * median.h - the median of a few samples: what a single disturbed one does not move.
 */
#ifndef HYPURA_BASE_MEDIAN_H
#define HYPURA_BASE_MEDIAN_H

/* Of n > 0 values, none of them NaN, which it brings into ascending order. By insertion: for tens of them. */
static inline double hypura_median(double *values, int n)
{
    for (int i = 1; i < n; i++) {
        const double value = values[i];
        int at = i;
        for (; at > 0 && values[at - 1] > value; at--) {
            values[at] = values[at - 1];
        }
        values[at] = value;
    }
    return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

#endif
