/*
 * bench_metrics.c - samples to metrics, metrics to spreads. Pure.
 *
 * The bound of a token is what remains when reads and computing overlap fully:
 *
 *     token = compute + read wait + overhead        as measured
 *     bound = max(compute, bytes read / direct rate)
 *
 * Compute is taken from the same run, as what is neither of the other two: it holds
 * everything outside the pager's nodes, attention and sampling included. Where experts are paged over a GPU
 * it holds the waits for uploads, too, so that there is no bound; link_busy tells what uploads alone take.
 */
#include "engine/measure/bench.h"

#include "base/median.h"

#include <math.h>
#include <string.h>

static const char *const names[HYPURA_N_METRICS] = {
    [HYPURA_METRIC_DECODE_TOK_S] = "decode_tok_s",
    [HYPURA_METRIC_DECODE_COLD_TOK_S] = "decode_cold_tok_s",
    [HYPURA_METRIC_PREFILL_TOK_S] = "prefill_tok_s",
    [HYPURA_METRIC_HIT_RATE_BYTES] = "hit_rate_bytes",
    [HYPURA_METRIC_BYTES_PER_TOKEN] = "bytes_per_token",
    [HYPURA_METRIC_BOUND_TOK_S] = "bound_tok_s",
    [HYPURA_METRIC_BOUND_SHARE] = "bound_share",
    [HYPURA_METRIC_COMPUTE_S] = "compute_s",
    [HYPURA_METRIC_READ_WAIT_S] = "read_wait_s",
    [HYPURA_METRIC_OVERHEAD_S] = "overhead_s",
    [HYPURA_METRIC_PLACED_SHARE] = "placed_share",
    [HYPURA_METRIC_STORAGE_S] = "storage_s",
    [HYPURA_METRIC_DEVICE_BUSY] = "device_busy",
    [HYPURA_METRIC_AHEAD_BYTES_PER_TOKEN] = "ahead_bytes_per_token",
    [HYPURA_METRIC_AHEAD_USEFUL] = "ahead_useful",
    [HYPURA_METRIC_PREFILL_BYTES_PER_TOKEN] = "prefill_bytes_per_token",
    [HYPURA_METRIC_PREFILL_READS_PER_WEIGHT] = "prefill_reads_per_weight",
    [HYPURA_METRIC_PREFILL_BOUND_TOK_S] = "prefill_bound_tok_s",
    [HYPURA_METRIC_PREFILL_BOUND_SHARE] = "prefill_bound_share",
    [HYPURA_METRIC_DIRECT_BYTES_PER_S] = "direct_bytes_per_s",
    [HYPURA_METRIC_CPU_S] = "cpu_s",
    [HYPURA_METRIC_PREFILL_CPU_S] = "prefill_cpu_s",
    [HYPURA_METRIC_OTHERS] = "others",
    [HYPURA_METRIC_PEAK_RSS_BYTES] = "peak_rss_bytes",
    [HYPURA_METRIC_VRAM_HIT_RATE_BYTES] = "vram_hit_rate_bytes",
    [HYPURA_METRIC_UPLOADED_BYTES_PER_TOKEN] = "uploaded_bytes_per_token",
    [HYPURA_METRIC_READBACKS_PER_TOKEN] = "readbacks_per_token",
    [HYPURA_METRIC_READBACK_S] = "readback_s",
    [HYPURA_METRIC_SUBMIT_S] = "submit_s",
    [HYPURA_METRIC_FORESEEN_BYTES_PER_TOKEN] = "foreseen_bytes_per_token",
    [HYPURA_METRIC_FORESEEN_USEFUL] = "foreseen_useful",
    [HYPURA_METRIC_ASKED_BY_GPU_PER_TOKEN] = "asked_by_gpu_per_token",
    [HYPURA_METRIC_ASKED_BY_HOST_PER_TOKEN] = "asked_by_host_per_token",
    [HYPURA_METRIC_AHEAD_PER_TOKEN] = "ahead_per_token",
    [HYPURA_METRIC_REPEATED_PER_TOKEN] = "repeated_per_token",
    [HYPURA_METRIC_CPU_ROWS_PER_TOKEN] = "cpu_rows_per_token",
    [HYPURA_METRIC_CPU_LAYERS_PER_TOKEN] = "cpu_layers_per_token",
    [HYPURA_METRIC_CPU_ROWS_S] = "cpu_rows_s",
    [HYPURA_METRIC_NOT_CPU_PER_TOKEN] = "not_cpu_layers_per_token",
    [HYPURA_METRIC_BESIDE_BYTES_PER_TOKEN] = "beside_bytes_per_token",
    [HYPURA_METRIC_PREFILL_UPLOADED_BYTES_PER_TOKEN] = "prefill_uploaded_bytes_per_token",
    [HYPURA_METRIC_LINK_BUSY] = "link_busy",
};

const char *hypura_metric_name(hypura_metric metric)
{
    return metric >= 0 && metric < HYPURA_N_METRICS ? names[metric] : "unknown";
}

/* Of one token of a window; NaN where it is not known. */
typedef struct token_cost {
    double total_s;
    double compute_s;
    double read_wait_s;
    double overhead_s;
    double bytes;
    double storage_s;
} token_cost;

static double ratio(double part, double whole)
{
    return whole > 0.0 ? part / whole : NAN;
}

static token_cost cost_of(const hypura_bench_window *window, const hypura_bench_sample *sample)
{
    const double n = window->n_tokens;
    token_cost cost = {.total_s = ratio(window->seconds, n),
                       .compute_s = NAN,
                       .read_wait_s = NAN,
                       .overhead_s = NAN,
                       .bytes = ratio((double)window->drive_bytes, n),
                       .storage_s = NAN};
    if (sample->paged) {
        const hypura_statistics *s = &window->statistics;
        cost.read_wait_s = ratio(s->read_wait_s, n);
        cost.overhead_s = ratio(s->overhead_s, n);
        cost.compute_s = fmax(cost.total_s - cost.read_wait_s - cost.overhead_s, 0.0);
        cost.bytes = ratio((double)s->bytes_read, n);
        cost.storage_s = ratio(cost.bytes, sample->direct_bytes_per_s);
    }
    return cost;
}

static double placed_share(const hypura_statistics *s)
{
    return ratio(s->placed_s, s->compute_s + s->read_wait_s + s->overhead_s);
}

static double bound_of(const token_cost *cost)
{
    /* fmax would take the other one for a NaN. */
    return isnan(cost->storage_s) ? NAN : ratio(1.0, fmax(cost->compute_s, cost->storage_s));
}

static double hit_rate(const hypura_bench_sample *sample)
{
    const hypura_statistics *s = &sample->warm.statistics;
    if (!sample->paged) {
        return NAN;
    }
    return s->bytes_needed > 0 ? (double)s->bytes_hit / (double)s->bytes_needed : 1.0;
}

/* NaN where no experts are paged over a GPU. */
static void evaluate_gpu(const hypura_bench_sample *sample, double *values)
{
    const hypura_statistics *s = &sample->warm.statistics;
    const hypura_statistics *prefill = &sample->prefill.statistics;
    const bool over_gpu = s->vram_bytes_needed > 0 || prefill->vram_bytes_needed > 0;
    const double n = over_gpu ? sample->warm.n_tokens : 0.0;
    values[HYPURA_METRIC_VRAM_HIT_RATE_BYTES] = ratio((double)s->vram_bytes_hit, (double)s->vram_bytes_needed);
    values[HYPURA_METRIC_UPLOADED_BYTES_PER_TOKEN] = ratio((double)s->bytes_uploaded, n);
    values[HYPURA_METRIC_READBACKS_PER_TOKEN] = ratio((double)s->n_readbacks, n);
    values[HYPURA_METRIC_READBACK_S] = ratio(s->readback_s, n);
    values[HYPURA_METRIC_SUBMIT_S] = ratio(s->submit_s, n);
    values[HYPURA_METRIC_FORESEEN_BYTES_PER_TOKEN] = ratio((double)s->foreseen_bytes_uploaded, n);
    values[HYPURA_METRIC_FORESEEN_USEFUL] = ratio((double)s->foreseen_bytes_useful, (double)s->foreseen_bytes_uploaded);
    values[HYPURA_METRIC_ASKED_BY_GPU_PER_TOKEN] = ratio((double)s->n_asked_by_gpu, n);
    values[HYPURA_METRIC_ASKED_BY_HOST_PER_TOKEN] = ratio((double)s->n_asked_by_host, n);
    values[HYPURA_METRIC_AHEAD_PER_TOKEN] = ratio((double)s->n_ahead, n);
    values[HYPURA_METRIC_REPEATED_PER_TOKEN] = ratio((double)s->n_repeated, n);
    values[HYPURA_METRIC_CPU_ROWS_PER_TOKEN] = ratio((double)s->n_cpu_rows, n);
    values[HYPURA_METRIC_CPU_LAYERS_PER_TOKEN] = ratio((double)s->n_cpu_layers, n);
    values[HYPURA_METRIC_CPU_ROWS_S] = ratio(s->cpu_rows_s, n);
    values[HYPURA_METRIC_NOT_CPU_PER_TOKEN] = ratio((double)(s->n_not_cpu_chain + s->n_not_cpu_ram), n);
    values[HYPURA_METRIC_BESIDE_BYTES_PER_TOKEN] = ratio((double)s->beside_bytes_uploaded, n);
    values[HYPURA_METRIC_PREFILL_UPLOADED_BYTES_PER_TOKEN] =
        ratio((double)prefill->bytes_uploaded, over_gpu ? sample->prefill.n_tokens : 0.0);
    values[HYPURA_METRIC_LINK_BUSY] =
        over_gpu ? ratio((double)s->bytes_uploaded, sample->upload_bytes_per_s * sample->warm.seconds) : NAN;
    if (over_gpu) {
        values[HYPURA_METRIC_BOUND_TOK_S] = values[HYPURA_METRIC_BOUND_SHARE] = NAN;
        values[HYPURA_METRIC_PREFILL_BOUND_TOK_S] = values[HYPURA_METRIC_PREFILL_BOUND_SHARE] = NAN;
    }
}

void hypura_bench_evaluate(const hypura_bench_sample *sample, double *values)
{
    const token_cost warm = cost_of(&sample->warm, sample);
    const token_cost prefill = cost_of(&sample->prefill, sample);
    const double bound = bound_of(&warm);
    const double prefill_bound = bound_of(&prefill);
    values[HYPURA_METRIC_DECODE_TOK_S] = ratio(1.0, warm.total_s);
    values[HYPURA_METRIC_DECODE_COLD_TOK_S] = ratio(sample->cold.n_tokens, sample->cold.seconds);
    values[HYPURA_METRIC_PREFILL_TOK_S] = ratio(1.0, prefill.total_s);
    values[HYPURA_METRIC_HIT_RATE_BYTES] = hit_rate(sample);
    values[HYPURA_METRIC_BYTES_PER_TOKEN] = warm.bytes;
    values[HYPURA_METRIC_BOUND_TOK_S] = bound;
    values[HYPURA_METRIC_BOUND_SHARE] = values[HYPURA_METRIC_DECODE_TOK_S] / bound;
    values[HYPURA_METRIC_COMPUTE_S] = warm.compute_s;
    values[HYPURA_METRIC_READ_WAIT_S] = warm.read_wait_s;
    values[HYPURA_METRIC_OVERHEAD_S] = warm.overhead_s;
    values[HYPURA_METRIC_PLACED_SHARE] = placed_share(&sample->warm.statistics);
    values[HYPURA_METRIC_STORAGE_S] = warm.storage_s;
    values[HYPURA_METRIC_DEVICE_BUSY] =
        sample->paged ? ratio(sample->warm.statistics.device_busy_s, sample->warm.seconds) : NAN;
    values[HYPURA_METRIC_AHEAD_BYTES_PER_TOKEN] =
        sample->paged ? ratio((double)sample->warm.statistics.ahead_bytes_read, sample->warm.n_tokens) : NAN;
    values[HYPURA_METRIC_AHEAD_USEFUL] = ratio((double)sample->warm.statistics.ahead_bytes_useful,
                                               (double)sample->warm.statistics.ahead_bytes_read);
    values[HYPURA_METRIC_PREFILL_BYTES_PER_TOKEN] = prefill.bytes;
    values[HYPURA_METRIC_PREFILL_READS_PER_WEIGHT] = ratio((double)sample->prefill.statistics.bytes_read,
                                                           (double)sample->prefill.statistics.bytes_needed);
    values[HYPURA_METRIC_PREFILL_BOUND_TOK_S] = prefill_bound;
    values[HYPURA_METRIC_PREFILL_BOUND_SHARE] = values[HYPURA_METRIC_PREFILL_TOK_S] / prefill_bound;
    values[HYPURA_METRIC_DIRECT_BYTES_PER_S] = sample->direct_bytes_per_s > 0.0 ? sample->direct_bytes_per_s : NAN;
    values[HYPURA_METRIC_CPU_S] = ratio(sample->warm.cpu_seconds, sample->warm.n_tokens);
    values[HYPURA_METRIC_PREFILL_CPU_S] = ratio(sample->prefill.cpu_seconds, sample->prefill.n_tokens);
    values[HYPURA_METRIC_OTHERS] = sample->warm.others;
    values[HYPURA_METRIC_PEAK_RSS_BYTES] = sample->peak_rss_bytes > 0 ? (double)sample->peak_rss_bytes : NAN;
    evaluate_gpu(sample, values);
}

hypura_spread hypura_bench_spread(double *values, uint32_t n)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!isnan(values[i])) {
            values[known++] = values[i];
        }
    }
    if (known == 0) {
        return (hypura_spread){NAN, NAN, NAN};
    }
    const double median = hypura_median(values, (int)known);
    return (hypura_spread){.median = median, .min = values[0], .max = values[known - 1]};
}

const char *hypura_bench_bound_by(const hypura_spread *metrics)
{
    const double compute_s = metrics[HYPURA_METRIC_COMPUTE_S].median;
    const double storage_s = metrics[HYPURA_METRIC_STORAGE_S].median;
    if (isnan(compute_s) || isnan(storage_s) || isnan(metrics[HYPURA_METRIC_BOUND_SHARE].median)) {
        return NULL;
    }
    return storage_s > compute_s ? "storage" : "compute";
}
