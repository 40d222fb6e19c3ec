/*
 * control.c - see control.h.
 */
#include "worker/control.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TELL_US     (UINT64_C(250) * 1000)
#define END_SECONDS 2 /* the server gets this long to end by itself: nobody is left whom it could answer */

struct hypura_control {
    hypura_worker_model *model;
    hypura_live *live;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    hypura_live_record record;
    bool closing;
    uint64_t (*turns)(void); /* NULL: nobody counts them */
    uint64_t last_turn;
    uint64_t turn_us; /* that the last one has taken, as far as it was seen */
    uint64_t most_turn_us;
    uint64_t looked_us; /* when it was last seen */
    bool obeying; /* a command is being carried out, with what the model has open */
    pthread_t teller;
};

/* With the lock held. */
static void tell(hypura_control *control)
{
    hypura_pager *pager = atomic_load(&control->model->pager);
    if (pager) {
        hypura_pager_statistics(pager, &control->record.statistics);
        control->record.held = hypura_pager_held(pager);
    }
    if (control->record.state == HYPURA_LIVE_LOADING && atomic_load(&control->model->loaded)) {
        control->record.state = HYPURA_LIVE_LOADED;
    }
    hypura_live_write(control->live, &control->record);
}

static _Noreturn void end(hypura_control *control, const hypura_error *error)
{
    control->record.state = HYPURA_LIVE_FAILED;
    control->record.error = *error;
    tell(control);
    fprintf(stderr, "hypura-engine: %s\n", error->message);
    _exit(1);
}

/* A model that was written to while in use answers with mixed weights from then on: nobody may get such an answer. */
static void check_files(hypura_control *control)
{
    hypura_error error = {0};
    hypura_pager *pager = atomic_load(&control->model->pager);
    if (pager && hypura_pager_check_files(pager, false, &error) != HYPURA_OK) {
        end(control, &error);
    }
}

/* Once in TELL_US, and after each command. */
static void check_turns(hypura_control *control)
{
    const uint64_t turn = control->turns ? control->turns() : 0;
    const uint64_t now_us = hypura_clock_us();
    const uint64_t passed_us = now_us - control->looked_us;
    const uint64_t seen_us = passed_us < TELL_US ? passed_us : TELL_US; /* a process that was stopped took no more */
    control->turn_us = turn % 2 == 1 && turn == control->last_turn ? control->turn_us + seen_us : 0;
    control->last_turn = turn;
    control->looked_us = now_us;
    if (control->turn_us > control->most_turn_us) {
        hypura_error error = {0};
        (void)hypura_fail(&error, HYPURA_ERR_UNSUPPORTED,
                          "a grammar, a schema or tools stand for so much that one token by them takes more than %g s: "
                          "write them with fewer parts that may be left out, or repeated",
                          (double)control->most_turn_us / 1e6);
        end(control, &error);
    }
}

static void *tell_all(void *user)
{
    hypura_control *control = user;
    pthread_mutex_lock(&control->lock);
    while (!control->closing) {
        tell(control);
        check_files(control);
        check_turns(control);
        (void)hypura_cond_wait(&control->wake, &control->lock, TELL_US);
    }
    pthread_mutex_unlock(&control->lock);
    return NULL;
}

/* It blocks until the memory is given back, or taken. */
static void carry_out(hypura_control *control, const char *line)
{
    unsigned long long bytes;
    hypura_pager *pager = atomic_load(&control->model->pager);
    if (pager && sscanf(line, "resize %llu", &bytes) == 1) {
        (void)hypura_pager_resize(pager, bytes);
    }
}

/* False when the model is about to be closed. */
static bool obey(hypura_control *control, const char *line)
{
    pthread_mutex_lock(&control->lock);
    const bool stays = !control->closing;
    if (stays) {
        control->obeying = true;
        pthread_mutex_unlock(&control->lock);
        carry_out(control, line);
        pthread_mutex_lock(&control->lock);
        control->obeying = false;
        control->record.n_commands++;
        tell(control);
        pthread_cond_broadcast(&control->wake);
    }
    pthread_mutex_unlock(&control->lock);
    return stays;
}

/* Not through a stream: exit() of newer C libraries waits for the lock of one that somebody reads from. */
static void *hear_all(void *user)
{
    hypura_control *control = user;
    char text[128];
    size_t used = 0;
    for (ssize_t n; (n = read(STDIN_FILENO, text + used, sizeof(text) - 1 - used)) != 0;) {
        if (n < 0 && errno != EINTR) {
            break;
        }
        used += n > 0 ? (size_t)n : 0;
        text[used] = '\0';
        char *line = text;
        for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
            *end = '\0';
            if (!obey(control, line)) {
                return NULL;
            }
        }
        used = strlen(line);
        memmove(text, line, used);
        if (used == sizeof(text) - 1) {
            used = 0; /* nothing that the front says is as long */
        }
    }
    kill(getpid(), SIGTERM);
    sleep(END_SECONDS);
    _exit(1);
}

static bool on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    hypura_control *control = user;
    pthread_mutex_lock(&control->lock);
    control->record.done_bytes = done;
    control->record.total_bytes = total;
    pthread_mutex_unlock(&control->lock);
    return true;
}

/* Before anybody is answered: who asks then what it takes is not told that it is being loaded. */
static void on_loaded(void *user)
{
    hypura_control *control = user;
    pthread_mutex_lock(&control->lock);
    tell(control);
    pthread_mutex_unlock(&control->lock);
}

static void describe(const hypura_worker_model *model, hypura_live_record *record)
{
    const hypura_plan *plan = model->prepared.plan;
    const hypura_context_options *context = &model->prepared.context;
    record->n_context = context->n_context / context->n_sequences;
    record->n_sequences = context->n_sequences;
    record->plan = *plan;
    record->plan.placements = NULL;
    record->plan.order = NULL;
    record->plan.bound_by = NULL;
    snprintf(record->bound_by, sizeof(record->bound_by), "%s", plan->bound_by ? plan->bound_by : "");
}

hypura_status hypura_control_open(hypura_worker_model *model, hypura_live *live, hypura_control **out,
                                  hypura_error *error)
{
    hypura_control *control = calloc(1, sizeof(*control));
    *out = NULL;
    if (!control) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a worker");
    }
    control->model = model;
    control->live = live;
    describe(model, &control->record);
    model->progress = on_progress;
    model->progress_user = control;
    model->on_loaded = on_loaded;
    pthread_mutex_init(&control->lock, NULL);
    hypura_cond_init(&control->wake);
    pthread_t hearer;
    if (pthread_create(&control->teller, NULL, tell_all, control) != 0 ||
        pthread_create(&hearer, NULL, hear_all, control) != 0) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no thread for a worker"); /* the process ends now */
    }
    pthread_detach(hearer);
    *out = control;
    return HYPURA_OK;
}

void hypura_control_watch(hypura_control *control, uint64_t (*turns)(void), uint64_t most_us)
{
    pthread_mutex_lock(&control->lock);
    control->turns = turns;
    control->most_turn_us = most_us;
    pthread_mutex_unlock(&control->lock);
}

void hypura_control_failed(hypura_control *control, const hypura_error *error)
{
    pthread_mutex_lock(&control->lock);
    control->record.state = HYPURA_LIVE_FAILED;
    control->record.error = *error;
    tell(control);
    pthread_mutex_unlock(&control->lock);
}

void hypura_control_close(hypura_control *control)
{
    pthread_mutex_lock(&control->lock);
    control->closing = true;
    pthread_cond_broadcast(&control->wake);
    while (control->obeying) {
        pthread_cond_wait(&control->wake, &control->lock);
    }
    pthread_mutex_unlock(&control->lock);
    pthread_join(control->teller, NULL);
}
