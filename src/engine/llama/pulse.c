/*
 * pulse.c - see pulse.h. Owned by the model; the lock guards all but what begin and end count.
 */
#include "engine/llama/pulse.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "engine/llama/end.h"
#include "engine/llama/gpu.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/llama_shim.h"
#include "hw/patience.h"
#include "os/os.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define S_US            UINT64_C(1000000)
#define ASK_US          (10 * S_US)   /* hardly anything but a prompt takes as long */
#define GRACE_US        S_US          /* a call that is told itself ends by then */
#define LEAST_WAIT_US   (300 * S_US)
#define MOST_WAIT_US    (3600 * S_US)
#define TOKENS_APART    20            /* so many times as long as all tokens of a batch one by one */

typedef enum pulse_state {
    PULSE_CALM,
    PULSE_ASKED,
    PULSE_FAILED, /* the question */
    PULSE_TOLD,   /* that a GPU is lost */
} pulse_state;

typedef struct pulse_gpu {
    ggml_backend_dev_t   device;
    ggml_backend_t       instance;
    ggml_backend_event_t event; /* NULL: it has none */
} pulse_gpu;

struct hypura_pulse {
    pthread_mutex_t lock;
    pthread_cond_t  changed;
    pthread_t       watcher;
    pthread_t       asker;
    int             n_threads; /* of these two, that run */
    bool            closing;
    int             n;
    pulse_gpu       gpus[HYPURA_MAX_GPUS];
    uint64_t        ask_us;
    uint64_t        wait_us;
    pulse_state     state;
    bool            asks;      /* a question has not ended */
    int             asked;     /* of the GPUs, which was last */
    uint64_t        silent_us; /* since a call began or ended, as far as it was seen */
    uint64_t        answered_us; /* of that, until the last answer, or the last failure of a question */
    uint64_t        waited_us; /* without an answer */
    hypura_error    failure;
    void (*save)(void *user);
    void *user;
};

/* ---- calls ----------------------------------------------------------------------- */

static atomic_int          n_calls;
static _Atomic(uint64_t)   n_turns; /* of calls that began or ended */
static _Atomic(const char *) awaited;
static _Atomic(uint64_t)   waiter; /* the thread of the call that began last */

void hypura_pulse_begin(const char *what)
{
    atomic_store_explicit(&awaited, what, memory_order_relaxed);
    atomic_store_explicit(&waiter, hypura_os_thread(), memory_order_relaxed);
    atomic_fetch_add_explicit(&n_calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_turns, 1, memory_order_relaxed);
}

void hypura_pulse_end(void)
{
    atomic_fetch_sub_explicit(&n_calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_turns, 1, memory_order_relaxed);
}

/* ---- questions ------------------------------------------------------------------- */

static void reach_event(void *user)
{
    const pulse_gpu *gpu = user;
    if (gpu->event) {
        ggml_backend_event_record(gpu->event, gpu->instance);
        ggml_backend_event_synchronize(gpu->event);
    } else {
        ggml_backend_synchronize(gpu->instance);
    }
}

/* Memory that is short says nothing of a GPU that is busy. */
static bool is_short_of_memory(const char *reason)
{
    return strstr(reason, "OutOf") || strstr(reason, "out of memory");
}

static void end_question(hypura_pulse *pulse, pulse_state state)
{
    pulse->state = pulse->state == PULSE_ASKED ? state : pulse->state;
    pulse->answered_us = pulse->silent_us;
}

/* With the lock, which it gives back while it asks. */
static void ask(hypura_pulse *pulse)
{
    for (int g = 0; g < pulse->n; g++) {
        pulse_gpu   *gpu = &pulse->gpus[g];
        hypura_error error = {0};
        pulse->asked = g;
        pthread_mutex_unlock(&pulse->lock);
        hypura_log_clear();
        const bool answers = hypura_shim_call(reach_event, gpu);
        if (!answers) {
            (void)hypura_log_fail(&error, HYPURA_ERR_BACKEND, "asked for a sign of life, it failed");
        }
        pthread_mutex_lock(&pulse->lock);
        if (!answers) {
            pulse->failure = error;
            end_question(pulse, is_short_of_memory(error.message) ? PULSE_CALM : PULSE_FAILED);
            return;
        }
    }
    end_question(pulse, PULSE_CALM);
    pulse->waited_us = 0;
}

static void *ask_all(void *user)
{
    hypura_pulse *pulse = user;
    pthread_mutex_lock(&pulse->lock);
    while (!pulse->closing) {
        if (pulse->state == PULSE_ASKED) {
            pulse->asks = true;
            ask(pulse);
            pulse->asks = false;
            pthread_cond_broadcast(&pulse->changed);
        } else {
            (void)hypura_cond_wait(&pulse->changed, &pulse->lock, UINT64_MAX);
        }
    }
    pthread_mutex_unlock(&pulse->lock);
    return NULL;
}

/* ---- the clock --------------------------------------------------------------------- */

static void tell(hypura_pulse *pulse)
{
    hypura_error error = pulse->failure;
    if (pulse->state != PULSE_FAILED) {
        (void)hypura_fail(&error, HYPURA_ERR_BACKEND,
                          "asked for a sign of life, it gave none for %.0f s (HYPURA_GPU_SECONDS gives one as slow more)",
                          (double)(pulse->waited_us - pulse->ask_us) / (double)S_US);
    }
    hypura_fail_prefix(&error, "in %.0f s of waiting %s", (double)pulse->silent_us / (double)S_US,
                       atomic_load_explicit(&awaited, memory_order_relaxed));
    hypura_gpus_explain(ggml_backend_dev_name(pulse->gpus[pulse->asked].device), true, &error);
    pulse->state = PULSE_TOLD;
    if (pulse->save) {
        pulse->save(pulse->user);
    }
    pthread_cond_broadcast(&pulse->changed);
    pthread_mutex_unlock(&pulse->lock);
    hypura_end_now(&error);
    pthread_mutex_lock(&pulse->lock);
}

/* So much time has passed in a call in which none other began or ended, and so much of it other threads computed. */
static void wait_longer(hypura_pulse *pulse, uint64_t us, uint64_t busy_us)
{
    pulse->silent_us += us;
    switch (pulse->state) {
    case PULSE_CALM:
    case PULSE_ASKED:
        pulse->waited_us = hypura_patience_count(pulse->waited_us, us, busy_us);
        if (pulse->waited_us >= pulse->wait_us + pulse->ask_us) {
            tell(pulse);
        } else if (pulse->state == PULSE_CALM && pulse->silent_us - pulse->answered_us >= pulse->ask_us) {
            pulse->state = PULSE_ASKED;
            pthread_cond_broadcast(&pulse->changed);
        }
        break;
    case PULSE_FAILED:
        if (pulse->silent_us - pulse->answered_us >= GRACE_US) {
            tell(pulse);
        }
        break;
    case PULSE_TOLD:
        break;
    }
}

static void *watch(void *user)
{
    hypura_pulse *pulse = user;
    const uint64_t tick_us = pulse->ask_us / 10;
    uint64_t       seen = 0;
    pthread_mutex_lock(&pulse->lock);
    while (!pulse->closing) {
        const uint64_t begin_us = hypura_clock_us();
        const uint64_t thread = atomic_load_explicit(&waiter, memory_order_relaxed);
        const uint64_t begin_busy_us = hypura_os_other_threads_us(thread);
        (void)hypura_cond_wait(&pulse->changed, &pulse->lock, tick_us);
        const uint64_t us = hypura_clock_us() - begin_us;
        const uint64_t end_busy_us = hypura_os_other_threads_us(thread);
        const uint64_t busy_us = end_busy_us > begin_busy_us ? end_busy_us - begin_busy_us : 0;
        const uint64_t turns = atomic_load_explicit(&n_turns, memory_order_relaxed);
        if (turns != seen || atomic_load_explicit(&n_calls, memory_order_relaxed) == 0) {
            seen = turns;
            pulse->silent_us = pulse->answered_us = pulse->waited_us = 0;
            pulse->state = pulse->state == PULSE_FAILED ? PULSE_CALM : pulse->state; /* the call was told itself, or goes on */
        } else {
            wait_longer(pulse, us < 2 * tick_us ? us : 2 * tick_us, busy_us);
        }
    }
    pthread_mutex_unlock(&pulse->lock);
    return NULL;
}

/* ---- open and close ------------------------------------------------------------------ */

/* What a question needs of a GPU it takes now, and not when that fails. */
static hypura_status open_gpu(pulse_gpu *gpu, ggml_backend_dev_t device, hypura_error *error)
{
    gpu->device = device;
    gpu->instance = ggml_backend_dev_init(device, NULL);
    if (!gpu->instance) {
        return hypura_log_fail(error, HYPURA_ERR_BACKEND, "%s cannot be used", ggml_backend_dev_name(device));
    }
    struct ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device, &props);
    gpu->event = props.caps.events ? ggml_backend_event_new(device) : NULL;
    return HYPURA_OK;
}

static hypura_status open_gpus(hypura_pulse *pulse, const hypura_load_gpu *gpus, hypura_error *error)
{
    hypura_patience patience;
    hypura_status status = hypura_patience_open(&patience, true, NULL, "for it to be opened", error);
    while (status == HYPURA_OK && pulse->n < gpus->n_here) {
        hypura_patience_turn(&patience, ggml_backend_dev_name(gpus->devices[pulse->n]), "for it to be opened");
        status = open_gpu(&pulse->gpus[pulse->n], gpus->devices[pulse->n], error);
        pulse->n += status == HYPURA_OK;
    }
    hypura_patience_close(&patience);
    return status;
}

static void free_gpus(hypura_pulse *pulse)
{
    for (int g = 0; g < pulse->n; g++) {
        ggml_backend_event_free(pulse->gpus[g].event);
        ggml_backend_free(pulse->gpus[g].instance);
    }
}

static bool start_threads(hypura_pulse *pulse)
{
    if (pthread_create(&pulse->watcher, NULL, watch, pulse) != 0) {
        return false;
    }
    pulse->n_threads = 1;
    if (pthread_create(&pulse->asker, NULL, ask_all, pulse) != 0) {
        return false;
    }
    pulse->n_threads = 2;
    return true;
}

static uint64_t longest_wait(uint32_t n_tokens, double token_s)
{
    const uint64_t wished = hypura_patience_wished_us();
    const double   us = TOKENS_APART * n_tokens * token_s * (double)S_US;
    return wished > 0                    ? wished
           : us < (double)LEAST_WAIT_US  ? LEAST_WAIT_US
           : us < (double)MOST_WAIT_US   ? (uint64_t)us
                                         : MOST_WAIT_US;
}

hypura_status hypura_pulse_open(const hypura_load_gpu *gpus, uint32_t n_tokens, double token_s, hypura_pulse **out,
                                hypura_error *error)
{
    *out = NULL;
    if (gpus->n_here == 0) {
        return HYPURA_OK;
    }
    hypura_pulse *pulse = calloc(1, sizeof(*pulse));
    if (!pulse || hypura_cond_init(&pulse->changed) != 0) {
        free(pulse);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to watch %d GPUs", gpus->n_here);
    }
    (void)pthread_mutex_init(&pulse->lock, NULL);
    pulse->wait_us = longest_wait(n_tokens, token_s);
    pulse->ask_us = pulse->wait_us / 3 < ASK_US ? pulse->wait_us / 3 : ASK_US;
    hypura_status status = open_gpus(pulse, gpus, error);
    if (status == HYPURA_OK && !start_threads(pulse)) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "no thread to watch %d GPUs", gpus->n_here);
    }
    if (status != HYPURA_OK) {
        hypura_pulse_close(pulse, false);
        return status;
    }
    *out = pulse;
    return HYPURA_OK;
}

void hypura_pulse_keep(hypura_pulse *pulse, void (*save)(void *user), void *user)
{
    if (pulse) {
        pthread_mutex_lock(&pulse->lock);
        pulse->save = save;
        pulse->user = user;
        pthread_mutex_unlock(&pulse->lock);
    }
}

void hypura_pulse_close(hypura_pulse *pulse, bool lost)
{
    if (!pulse) {
        return;
    }
    hypura_pulse_begin("for an answer");
    pthread_mutex_lock(&pulse->lock);
    while (!lost && pulse->asks && pulse->state != PULSE_TOLD) {
        (void)hypura_cond_wait(&pulse->changed, &pulse->lock, UINT64_MAX);
    }
    pulse->closing = true;
    pthread_cond_broadcast(&pulse->changed);
    const bool asks = pulse->asks;
    pthread_mutex_unlock(&pulse->lock);
    hypura_pulse_end();
    if (pulse->n_threads > 0) {
        (void)pthread_join(pulse->watcher, NULL);
    }
    if (asks) {
        (void)pthread_detach(pulse->asker); /* its question may never end */
        return;
    }
    if (pulse->n_threads > 1) {
        (void)pthread_join(pulse->asker, NULL);
    }
    if (!lost) {
        free_gpus(pulse);
    }
    (void)pthread_mutex_destroy(&pulse->lock);
    (void)pthread_cond_destroy(&pulse->changed);
    free(pulse);
}
