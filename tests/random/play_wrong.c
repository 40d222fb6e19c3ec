/* play_wrong.c - see play_internal.h. */
#include "play_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

/* ---- what goes wrong on one side alone -------------------------------------------------- */

typedef struct stopping {
    int left; /* times it is asked until it says so */
} stopping;

static bool stops(void *user)
{
    stopping *stop = user;
    return stop->left-- <= 0;
}

/* The same tokens, with something that goes wrong under way; with more perhaps behind it, for who comes next. */
static void decode_risky(play_script *s, play_table *t, play_batch *b, uint32_t sequence, uint32_t n, bool more)
{
    const uint32_t left = play_room(t, sequence);
    n = n < left ? n : left;
    n = n < t->n_batch ? n : t->n_batch;
    if (n == 0) {
        return;
    }
    play_clear_batch(b);
    for (uint32_t i = 0; i < n; i++) {
        play_add_token(b, play_draw_token(s), t->sequences[sequence].length + (llama_pos)i, (llama_seq_id)sequence,
                       !more && (i + 1 == n || drawn_chance(&s->r, 30)));
    }
    if (s->p->plain) {
        (void)play_decode(s, t, b, more, false);
        return;
    }
    hypura_error error;
    const int code = hypura_shim_decode(t->ctx, b->b, more);
    if (s->p->verbose) {
        printf("    %u tokens: %d\n", n, code);
    }
    if (code == 0 && !s->spoiled) {
        const float told = 0.0f;
        play_put_out(s, &told, 1);
        play_count_tokens(t, b);
        play_put_out_wanted(s, t, b, false);
        return;
    }
    (void)play_take_error(s, &error);
    const play_record *record = s->p->record;
    const bool plain_failed = s->row < record->n_rows && record->rows[s->row].op == s->op &&
                              record->values[record->rows[s->row].at] != 0.0f;
    play_skip_rows(s);
    if (plain_failed) {
        play_forget(s, t);
        return;
    }
    s->spoiled = true;
    s->p->result.n_errors += code != 2 && code != 0;
    s->p->result.n_cancelled += code == 2;
    play_count_tokens(t, b);
}

void play_cancel(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    stopping stop = {.left = (int)drawn_between(&s->r, 0, 50)};
    const llama_pos before = t->sequences[sequence].length;
    const uint32_t n = drawn_chance(&s->r, 60) ? 1 : drawn_between(&s->r, 2, 40);
    const bool simple = t->can_go_back && llama_model_n_swa(llama_get_model(t->ctx)) == 0;
    if (!s->p->plain) {
        llama_set_abort_callback(t->ctx, stops, &stop);
    }
    decode_risky(s, t, b, sequence, n, false);
    llama_set_abort_callback(t->ctx, NULL, NULL);
    if (simple && drawn_chance(&s->r, 70)) {
        if (!llama_memory_seq_rm(t->memory, (llama_seq_id)sequence, before, -1)) {
            play_fail(s, "cannot take back what was cancelled");
        }
        t->sequences[sequence].length = before;
        s->spoiled = false;
    } else {
        play_forget(s, t);
    }
}

void play_fail_a_read(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    const int after = (int)drawn_between(&s->r, 0, drawn_chance(&s->r, 50) ? 6 : 60);
    const uint32_t n = drawn_chance(&s->r, 60) ? 1 : drawn_between(&s->r, 2, 40);
    const uint32_t turns = drawn_between(&s->r, 1, 5);
    if (s->p->reads) {
        atomic_store(&s->p->reads->fails_after, after);
    }
    for (uint32_t i = 0; i < turns; i++) {
        const bool more = i + 1 < turns && drawn_chance(&s->r, 30);
        decode_risky(s, t, b, sequence, i == 0 || more ? n : 1, more);
        s->op++; /* rows of each turn count by themselves */
    }
    if (s->p->reads) {
        atomic_store(&s->p->reads->fails_after, -1);
    }
    hypura_error error;
    (void)play_take_error(s, &error);
    play_forget(s, t);
}

void play_fail_a_gpu(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    standin_faults faults = s->p->faults;
    const int after = (int)drawn_between(&s->r, 1, drawn_chance(&s->r, 50) ? 8 : 60);
    const uint32_t n = drawn_chance(&s->r, 60) ? 1 : drawn_between(&s->r, 2, 40);
    const uint32_t turns = drawn_between(&s->r, 1, 5);
    switch (rng_below(&s->r, 5)) {
    case 0:
        faults.fail_after = after;
        break;
    case 1:
        faults.copy_throws_after = after;
        break;
    case 2:
        faults.lose_after = after;
        faults.lost_device = after % 2;
        break;
    case 3:
        faults.abort_after = after;
        break;
    default:
        faults.wait_throws_after = after;
        break;
    }
    if (s->p->verbose) {
        printf("    fails %d copy %d lose %d (%d) abort %d wait %d\n", faults.fail_after, faults.copy_throws_after, faults.lose_after,
               faults.lost_device, faults.abort_after, faults.wait_throws_after);
    }
    if (!s->p->plain && s->p->over_standins) {
        standin_set_faults(&faults);
    }
    for (uint32_t i = 0; i < turns; i++) {
        const bool more = i + 1 < turns && drawn_chance(&s->r, 30);
        decode_risky(s, t, b, sequence, i == 0 || more ? n : 1, more);
        s->op++;
    }
    if (s->p->over_standins) {
        standin_set_faults(&s->p->faults);
    }
    hypura_error error;
    (void)play_take_error(s, &error);
    play_forget(s, t);
}

void play_resize(play_script *s)
{
    const uint64_t permille = rng_below(&s->r, 1100);
    const bool all_the_time = drawn_chance(&s->r, 20);
    const hypura_held held = hypura_model_held(s->p->model);
    if (s->p->plain || held.most_bytes == 0) {
        return;
    }
    hypura_error error;
    if (s->unrest) {
        (void)hypura_unrest_end(s->unrest);
        s->unrest = NULL;
    } else if (all_the_time && hypura_unrest_begin(s->p->model, &s->unrest, &error) != HYPURA_OK) {
        play_fail(s, "%s", error.message);
    }
    (void)hypura_model_resize(s->p->model, held.least_bytes + (held.most_bytes - held.least_bytes) * permille / 1000);
}

/* ---- two contexts at once ------------------------------------------------------------- */

typedef struct beside {
    play_table *t;
    play_batch *b;
    int    code;
} beside;

static void *decode_beside(void *user)
{
    beside *one = user;
    one->code = hypura_shim_decode(one->t->ctx, one->b->b, false);
    return NULL;
}

void play_decode_at_once(play_script *s, play_batch *b[2])
{
    beside two[2];
    pthread_t thread;
    for (int i = 0; i < 2; i++) {
        play_table *t = &s->tables[i];
        uint32_t n = drawn_between(&s->r, 1, 12);
        n = n < t->n_batch ? n : t->n_batch;
        if (play_room(t, 0) < n) {
            play_forget(s, t);
        }
        play_clear_batch(b[i]);
        for (uint32_t k = 0; k < n && k < play_room(t, 0); k++) {
            play_add_token(b[i], play_draw_token(s), t->sequences[0].length + (llama_pos)k, 0, true);
        }
        two[i] = (beside){t, b[i], 0};
    }
    const bool threads = !s->p->plain && pthread_create(&thread, NULL, decode_beside, &two[1]) == 0;
    (void)decode_beside(&two[0]);
    if (threads) {
        pthread_join(thread, NULL);
    } else {
        (void)decode_beside(&two[1]);
    }
    for (int i = 0; i < 2; i++) {
        const float told = (float)two[i].code;
        play_put_out(s, &told, 1);
        if (two[i].code == 0) {
            play_count_tokens(two[i].t, b[i]);
            play_put_out_wanted(s, two[i].t, b[i], false);
        } else {
            play_forget(s, two[i].t);
        }
    }
}

/* ---- reads ----------------------------------------------------------------------------- */

int64_t play_on_read(void *user, uint64_t nth, int64_t result)
{
    (void)nth;
    play_reads *reads = user;
    uint64_t random = atomic_fetch_add(&reads->random, UINT64_C(0x9E3779B97F4A7C15));
    random ^= random >> 31;
    random *= UINT64_C(0xBF58476D1CE4E5B9);
    random ^= random >> 29;
    if (random % 100 < reads->sleep_percent) {
        const struct timespec pause = {0, (long)(random >> 32) % 300000};
        (void)nanosleep(&pause, NULL);
    }
    if (atomic_load(&reads->fails_after) >= 0 && atomic_fetch_sub(&reads->fails_after, 1) == 0) {
        return -EIO;
    }
    if (result > 8192 && (random >> 8) % 100 < reads->short_percent) {
        return result / 2 / 4096 * 4096;
    }
    return result;
}
