/*
 * test_reads.c - every read of a model fails in turn, and of all some come short or late,
 * while the model opens and while it decodes, with both I/O engines. What comes of
 * it is the logits of an undisturbed run, bit for bit, or an error that names the
 * file and the tensor; and afterwards the same tokens give the right logits again.
 */
#include "faults_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum fault {
    FAULT_FAIL,  /* the read returns an error */
    FAULT_SHORT, /* fewer bytes than were asked for: the engine goes on from there */
    FAULT_LATE,  /* long after others that were started later */
    FAULT_DEAD,  /* this one and all after it fail, until the fault is taken away */
};

typedef struct disturbance {
    pthread_mutex_t lock;
    enum fault fault;
    uint64_t left;   /* reads before the one that is disturbed */
    uint64_t n_seen; /* since the fault was armed */
    bool armed;
    bool hit;
    bool slow; /* each failure takes its time, so that the last come when nobody waits any more */
} disturbance;

/* Of reads that fail each one counts; those that come short or late are every other one, with one engine the odd ones. */
static uint64_t first_of(enum fault fault, const char *engine)
{
    return (fault == FAULT_SHORT || fault == FAULT_LATE) && strcmp(engine, fault_engines[1]) == 0;
}

static uint64_t step_of(enum fault fault)
{
    return fault == FAULT_FAIL ? 1 : fault == FAULT_DEAD ? 7 : 2;
}

static int64_t disturb(void *user, uint64_t nth, int64_t result)
{
    disturbance *d = user;
    (void)nth; /* counts anew for each engine that is opened */
    pthread_mutex_lock(&d->lock);
    d->n_seen++;
    const bool now = d->armed && d->left == 0;
    d->left -= d->left > 0;
    d->hit = d->hit || now;
    d->armed = d->armed && (!now || d->fault == FAULT_DEAD);
    const enum fault fault = d->fault;
    pthread_mutex_unlock(&d->lock);
    if (!now) {
        return result;
    }
    switch (fault) {
    case FAULT_DEAD:
        nanosleep(&(struct timespec){.tv_nsec = d->slow ? 3000000 : 0}, NULL);
        return -EIO;
    case FAULT_FAIL:
        return -EIO;
    case FAULT_SHORT:
        return result > 700 ? 700 : result / 2;
    case FAULT_LATE:
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        break;
    }
    return result;
}

static void arm(disturbance *d, enum fault fault, uint64_t nth)
{
    pthread_mutex_lock(&d->lock);
    d->fault = fault;
    d->left = nth;
    d->n_seen = 0;
    d->armed = true;
    d->hit = false;
    pthread_mutex_unlock(&d->lock);
}

static void disarm(disturbance *d)
{
    pthread_mutex_lock(&d->lock);
    d->armed = false;
    pthread_mutex_unlock(&d->lock);
}

/* Reads may still be under way when a decode has ended: they are counted as well. */
static bool was_hit(disturbance *d, uint64_t *n_seen)
{
    pthread_mutex_lock(&d->lock);
    const bool hit = d->hit;
    *n_seen = d->n_seen;
    pthread_mutex_unlock(&d->lock);
    return hit;
}

/* Parts of a split model have names of their own. */
static void expect_file_named(const fault_case *c, const hypura_error *error)
{
    const size_t stem = strcspn(c->file, ".") < strlen("dense-split") ? strcspn(c->file, ".") : strlen("dense-split");
    char name[64] = "";
    strncat(name, c->file, stem);
    faults_expect(HYPURA_ERR_IO, error->status, error, name);
    faults_expect(HYPURA_ERR_IO, error->status, error, "nput/output error");
}

/* ---- while it opens ------------------------------------------------------- */

static void open_with(const fault_case *c, const char *engine, enum fault fault)
{
    disturbance d = {.lock = PTHREAD_MUTEX_INITIALIZER};
    hypura_script script;
    uint32_t n_failed = 0;
    faults_script(c, &script);
    for (uint64_t nth = first_of(fault, engine);; nth += step_of(fault)) {
        hypura_model *model = NULL;
        hypura_error error;
        arm(&d, fault, nth);
        const hypura_status status = faults_try_open(c, faults_model(c->file), engine, disturb, &d, &model, &error);
        uint64_t n_seen;
        if (!was_hit(&d, &n_seen)) {
            disarm(&d);
            assert_int_equal(status, HYPURA_OK);
            assert_true(n_seen > 0);
            hypura_model_close(model);
            break;
        }
        if (status != HYPURA_OK) {
            assert_true(fault == FAULT_FAIL);
            assert_null(model);
            expect_file_named(c, &error);
            n_failed++;
            continue;
        }
        assert_true(fault != FAULT_FAIL);
        faults_expect_right(model, &script);
        hypura_model_close(model);
    }
    assert_int_equal(n_failed > 0, fault == FAULT_FAIL);
    hypura_script_clear(&script);
}

static void opening(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        for (int e = 0; e < 2; e++) {
            if (hypura_io_engine_available(fault_engines[e])) {
                for (enum fault fault = FAULT_FAIL; fault <= FAULT_LATE; fault++) {
                    open_with(&fault_cases[i], fault_engines[e], fault);
                }
            }
        }
    }
}

/* ---- while it decodes ----------------------------------------------------- */

static void decode_with(const fault_case *c, const char *engine, enum fault fault)
{
    disturbance d = {.lock = PTHREAD_MUTEX_INITIALIZER};
    hypura_script script;
    uint32_t n_failed = 0;
    uint64_t n_seen = 0;
    bool ended = false;
    faults_script(c, &script);
    hypura_model *model = faults_open(c, faults_model(c->file), engine, disturb, &d);
    faults_expect_right(model, &script); /* from here on the caches are warm */
    for (uint64_t nth = first_of(fault, engine); !ended; nth += step_of(fault)) {
        hypura_error error;
        uint64_t differing = 0;
        arm(&d, fault, nth);
        const hypura_status status = hypura_script_follow(model, &script, &differing, &error);
        ended = !was_hit(&d, &n_seen);
        disarm(&d);
        assert_int_equal(differing, 0); /* nor in the rows before the failure */
        if (status != HYPURA_OK) {
            assert_true(fault == FAULT_FAIL || fault == FAULT_DEAD);
            expect_file_named(c, &error);
            faults_expect(HYPURA_ERR_IO, status, &error, "tensor ");
            faults_expect_right(model, &script);
            n_failed++;
        }
    }
    assert_true(n_seen > 30);
    /* What failed before it was asked for, a guess or the ring's, is read again: how often that is depends on the load. */
    const bool all_asked_for = c->mode == HYPURA_MODE_EXPERTS && !faults_foresees(engine);
    if (fault == FAULT_DEAD) {
        assert_true(n_failed > 2); /* of 5 and more: before every seventh read */
    } else if (fault == FAULT_FAIL) {
        assert_true(n_failed > 30 || !all_asked_for);
    } else {
        assert_int_equal(n_failed, 0);
    }
    hypura_model_close(model);
    hypura_script_clear(&script);
}

static void decoding(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        for (int e = 0; e < 2; e++) {
            if (hypura_io_engine_available(fault_engines[e])) {
                for (enum fault fault = FAULT_FAIL; fault <= FAULT_DEAD; fault++) {
                    decode_with(&fault_cases[i], fault_engines[e], fault);
                }
            }
        }
    }
}

/* Reads that fail after the decode that wanted them has ended are nobody's failure:
 * what goes wrong later is told for its own reason. */
static void old_failures_are_not_told_again(void **state)
{
    (void)state;
    for (int i = 0; i < n_fault_cases; i++) {
        const fault_case *c = &fault_cases[i];
        disturbance d = {.lock = PTHREAD_MUTEX_INITIALIZER, .slow = true};
        hypura_script script;
        hypura_error error;
        uint64_t differing;
        faults_script(c, &script);
        hypura_model *model = faults_open(c, faults_model(c->file), NULL, disturb, &d);
        for (uint64_t nth = 0; nth < 30; nth += 3) {
            arm(&d, FAULT_DEAD, nth);
            assert_int_equal(hypura_script_follow(model, &script, &differing, &error), HYPURA_ERR_IO);
            nanosleep(&(struct timespec){.tv_nsec = 40000000}, NULL);
            disarm(&d);
            faults_expect_right(model, &script);
            const llama_token none = 1 << 30; /* beyond every vocabulary */
            faults_expect(HYPURA_ERR_BACKEND, hypura_model_decode(model, &none, 1, false, &error), &error, "invalid token");
        }
        hypura_status status = HYPURA_OK;
        while (status == HYPURA_OK) {
            status = hypura_model_decode(model, script.tokens, 1, false, &error);
        }
        faults_expect(HYPURA_ERR_USAGE, status, &error, "context");
        hypura_model_close(model);
        hypura_script_clear(&script);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opening),
        cmocka_unit_test(decoding),
        cmocka_unit_test(old_failures_are_not_told_again),
    };
    return cmocka_run_group_tests_name("faults reads", tests, faults_setup, faults_teardown);
}
