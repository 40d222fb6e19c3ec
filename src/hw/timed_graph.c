/*
 * timed_graph.c - see timed_graph.h.
 */
#include "hw/timed_graph.h"

#include "base/clock.h"
#include "base/median.h"
#include "base/status.h"
#include "hw/since.h"
#include "os/os.h"

#include "ggml-alloc.h"
#include "ggml-cpu.h"

#include <string.h>
#include <time.h>

/* A run in which the threads had a processor for less of the time was disturbed, or they had nothing to do and slept: then
 * none of them waited for one. */
#define CALM_SHARE 0.9

enum { N_RUNS = 5, MOST_RUNS = 50 };

/* What takes less is run more often: a disturbance can last some hundredths of a second. */
#define LEAST_US 60000u

void timed_graph_close(timed_graph *g)
{
    ggml_backend_buffer_free(g->values);
    ggml_backend_buffer_free(g->weights);
    ggml_free(g->context);
    ggml_backend_free(g->backend);
    ggml_threadpool_free(g->threads);
}

hypura_status timed_graph_open(timed_graph *g, int n_threads, size_t n_tensors, hypura_error *error)
{
    const struct ggml_init_params params = {
        .mem_size = ggml_tensor_overhead() * n_tensors + ggml_graph_overhead_custom(n_tensors, false), .no_alloc = true};
    struct ggml_threadpool_params wanted = ggml_threadpool_params_default(n_threads);
    memset(g, 0, sizeof(*g));
    g->n_threads = n_threads;
    g->backend = ggml_backend_cpu_init();
    g->context = ggml_init(params);
    g->threads = ggml_threadpool_new(&wanted);
    if (!g->backend || !g->context || !g->threads) {
        timed_graph_close(g);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to measure %d threads with", n_threads);
    }
    ggml_backend_cpu_set_n_threads(g->backend, n_threads);
    ggml_backend_cpu_set_threadpool(g->backend, g->threads);
    g->graph = ggml_new_graph_custom(g->context, n_tensors, false);
    return HYPURA_OK;
}

ggml_backend_buffer_t timed_graph_values(struct ggml_context *context, hypura_error *error)
{
    ggml_backend_buffer_t values = ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_cpu_buffer_type());
    if (!values) {
        hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the values of what is to be measured");
        return NULL;
    }
    ggml_backend_buffer_clear(values, 0);
    return values;
}

hypura_status timed_graph_give_values(timed_graph *g, struct ggml_context *context, hypura_error *error)
{
    g->values = timed_graph_values(context, error);
    return g->values ? HYPURA_OK : HYPURA_ERR_MEMORY;
}

static uint64_t processor_us(void)
{
    struct timespec spent;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000u + (uint64_t)spent.tv_nsec / 1000u;
}

/* Threads had a processor whenever they had work, since *then, which becomes now. */
static bool none_waited(hypura_since *then, int n_threads)
{
    const hypura_since now = hypura_since_look(hypura_os_waited_us);
    double share;
    const bool none = hypura_since_share(then, &now, &share) && share <= (1.0 - CALM_SHARE) * n_threads;
    *then = now;
    return none;
}

/* The median of the runs that were not disturbed, after one that is not counted; where
 * there was none of these, the fastest. A thread that has to wait for its processor holds
 * all up, and what is measured is kept, so on a busy machine, where a run takes 20 times as long,
 * more runs are made until one was not disturbed. */
hypura_status timed_graph_run(timed_graph *g, uint64_t most_us, double *seconds, bool *disturbed, hypura_error *error)
{
    double calm_us[MOST_RUNS];
    double best_us = 0.0;
    int n_calm = 0;
    const uint64_t first_us = hypura_clock_us();
    hypura_since before = hypura_since_look(hypura_os_waited_us);
    for (int i = -1; i < N_RUNS || ((n_calm == 0 || hypura_clock_us() - first_us < LEAST_US) && i < MOST_RUNS); i++) {
        const uint64_t spent_us = processor_us();
        const uint64_t begin_us = hypura_clock_us();
        if (ggml_backend_graph_compute(g->backend, g->graph) != GGML_STATUS_SUCCESS) {
            return hypura_fail(error, HYPURA_ERR_BACKEND, "the CPU backend failed to compute what is to be measured");
        }
        const double us = (double)(hypura_clock_us() - begin_us + 1);
        const bool calm = (double)(processor_us() - spent_us) >= CALM_SHARE * us * g->n_threads ||
                          none_waited(&before, g->n_threads);
        if (i >= 0 && calm && n_calm < MOST_RUNS) {
            calm_us[n_calm++] = us;
        }
        best_us = i <= 0 || us < best_us ? us : best_us;
        if (hypura_clock_us() - first_us >= most_us) {
            break;
        }
    }
    *disturbed = n_calm == 0;
    *seconds = (n_calm > 0 ? hypura_median(calm_us, n_calm) : best_us) * 1e-6;
    return HYPURA_OK;
}
