/* play.c - see play.h. */
#include "play_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- what is done -------------------------------------------------------------------- */

/* Some tokens for a sequence, in parts; rows of all of them, of some, or of the last one. */
static void read_prompt(play_script *s, play_table *t, play_batch *b, uint32_t sequence, uint32_t n)
{
    const uint32_t wants = (uint32_t)rng_below(&s->r, 3);
    const uint32_t left = play_room(t, sequence);
    const uint32_t part = drawn_chance(&s->r, 60) ? t->n_batch : drawn_between(&s->r, 1, t->n_batch);
    n = n < left ? n : left;
    bool good = true;
    for (uint32_t done = 0; good && done < n;) {
        const uint32_t now = n - done < part ? n - done : part;
        const bool last = done + now == n;
        bool any = false;
        play_clear_batch(b);
        for (uint32_t i = 0; i < now; i++) {
            const bool wanted = wants == 0 || (wants == 1 && drawn_chance(&s->r, 20)) || (last && i + 1 == now);
            any = any || wanted;
            play_add_token(b, play_draw_token(s), t->sequences[sequence].length + (llama_pos)i, (llama_seq_id)sequence, wanted);
        }
        good = play_decode(s, t, b, !any && !last, false);
        done += now;
    }
}

static void answer(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    const uint32_t n = drawn_between(&s->r, 1, 14);
    for (uint32_t i = 0; i < n && play_room(t, sequence) > 0; i++) {
        play_clear_batch(b);
        play_add_token(b, play_draw_token(s), t->sequences[sequence].length, (llama_seq_id)sequence, true);
        if (!play_decode(s, t, b, false, false)) {
            return;
        }
    }
}

/* A token or a few of each sequence, in one batch. */
static void answer_together(play_script *s, play_table *t, play_batch *b)
{
    const uint32_t n = drawn_between(&s->r, 1, 8);
    const uint32_t most = drawn_chance(&s->r, 70) ? 1 : 4;
    for (uint32_t i = 0; i < n; i++) {
        play_clear_batch(b);
        for (uint32_t q = 0; q < t->n_sequences; q++) {
            const uint32_t tokens = drawn_between(&s->r, i == 0 ? 1 : 0, most);
            for (uint32_t k = 0; k < tokens && play_room(t, q) > most * t->n_sequences && (uint32_t)b->b.n_tokens < t->n_batch; k++) {
                play_add_token(b, play_draw_token(s), t->sequences[q].length + (llama_pos)k, (llama_seq_id)q,
                               k + 1 == tokens || drawn_chance(&s->r, 40));
            }
        }
        if (b->b.n_tokens == 0 || !play_decode(s, t, b, false, false)) {
            return;
        }
    }
}

static void go_back(play_table *t, uint32_t sequence, llama_pos to)
{
    if (t->sequences[sequence].length <= to) {
        return;
    }
    const bool can = t->can_go_back && llama_memory_seq_rm(t->memory, (llama_seq_id)sequence, to, -1);
    if (can) {
        t->sequences[sequence].length = to;
    } else {
        play_forget_sequence(t, sequence);
    }
}

/* Guesses, of which the first ones are taken. */
static void guess(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    const uint32_t n = drawn_between(&s->r, 2, 9);
    for (int turn = 0; turn < 3; turn++) {
        const llama_pos before = t->sequences[sequence].length;
        if (play_room(t, sequence) < n || n > t->n_batch) {
            return;
        }
        play_clear_batch(b);
        for (uint32_t i = 0; i < n; i++) {
            play_add_token(b, play_draw_token(s), before + (llama_pos)i, (llama_seq_id)sequence, true);
        }
        const llama_pos taken = before + (llama_pos)drawn_between(&s->r, 1, n);
        if (!play_decode(s, t, b, false, false)) {
            return;
        }
        go_back(t, sequence, taken);
    }
}

/* libllama moves keys with the next batch, and goes on where that fails: a token comes at once. */
static void shift(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    const llama_pos length = t->sequences[sequence].length;
    if (!t->can_go_back || !t->can_shift || length < 6) {
        return;
    }
    const llama_pos from = (llama_pos)rng_below(&s->r, (uint64_t)length / 2);
    const llama_pos n = 1 + (llama_pos)rng_below(&s->r, (uint64_t)(length - from) / 2);
    if (llama_memory_seq_rm(t->memory, (llama_seq_id)sequence, from, from + n)) {
        llama_memory_seq_add(t->memory, (llama_seq_id)sequence, from + n, -1, -n);
        t->sequences[sequence].length -= n;
        play_clear_batch(b);
        play_add_token(b, play_draw_token(s), t->sequences[sequence].length, (llama_seq_id)sequence, true);
        (void)play_decode(s, t, b, false, false);
    }
}

static void copy_sequence(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    (void)b;
    const uint32_t to = (uint32_t)rng_below(&s->r, t->n_sequences);
    /* of one that shares cells later ones would be counted twice */
    if (to == sequence || play_room(t, to) < (uint32_t)t->sequences[sequence].length + 4) {
        return;
    }
    play_forget_sequence(t, to);
    llama_memory_seq_cp(t->memory, (llama_seq_id)sequence, (llama_seq_id)to, -1, -1);
    t->sequences[to].length = t->sequences[sequence].length;
}

/* A state is the same bytes on both sides. */
static void save(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    (void)b;
    play_line *q = &t->sequences[sequence];
    const size_t bytes = llama_state_seq_get_size(t->ctx, (llama_seq_id)sequence);
    free(q->saved);
    q->saved = malloc(bytes + 1);
    q->saved_bytes = llama_state_seq_get_data(t->ctx, q->saved, bytes, (llama_seq_id)sequence);
    q->saved_length = q->length;
    uint64_t hash = q->saved_bytes;
    for (size_t i = 0; i < q->saved_bytes; i++) {
        hash = (hash ^ q->saved[i]) * UINT64_C(0x100000001B3);
    }
    const float told[] = {(float)(hash & 0xFFFFFF), (float)(hash >> 24 & 0xFFFFFF), (float)q->saved_bytes};
    play_put_out(s, told, 3);
}

static void restore(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    (void)b;
    const uint32_t from = (uint32_t)rng_below(&s->r, t->n_sequences);
    const play_line *q = &t->sequences[from];
    if (!q->saved || q->saved_bytes == 0 || play_room(t, sequence) < (uint32_t)q->saved_length + 4) {
        return;
    }
    play_forget_sequence(t, sequence);
    const size_t taken = llama_state_seq_set_data(t->ctx, q->saved, q->saved_bytes, (llama_seq_id)sequence);
    const float told = (float)taken;
    play_put_out(s, &told, 1);
    t->sequences[sequence].length = taken > 0 ? q->saved_length : 0;
}

static void change_adapters(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    (void)b, (void)sequence;
    float scales[DRAWN_ADAPTERS];
    const int n = (int)rng_below(&s->r, (uint64_t)s->p->n_adapters + 1);
    for (int i = 0; i < DRAWN_ADAPTERS; i++) {
        scales[i] = (float)drawn_between(&s->r, 1, 20) / 10.0f;
    }
    const bool at_once = drawn_chance(&s->r, 50);
    const bool good = at_once ? hypura_shim_apply_adapters(t->ctx, s->p->adapters, n, scales)
                              : llama_set_adapters_lora(t->ctx, s->p->adapters, (size_t)n, scales) == 0;
    if (!good) {
        play_fail(s, "%d adapters cannot be applied", n);
    }
}

static void embed(play_script *s, play_table *t, play_batch *b, uint32_t sequence)
{
    uint32_t n = drawn_between(&s->r, 1, 20);
    n = n < t->n_ubatch ? n : t->n_ubatch;
    if (play_room(t, sequence) < n) {
        return;
    }
    llama_set_embeddings(t->ctx, true);
    play_clear_batch(b);
    for (uint32_t i = 0; i < n; i++) {
        play_add_token(b, play_draw_token(s), t->sequences[sequence].length + (llama_pos)i, (llama_seq_id)sequence, true);
    }
    (void)play_decode(s, t, b, false, true);
    llama_set_embeddings(t->ctx, false);
}

/* ---- the script ------------------------------------------------------------------------- */

static void open_table(const play_script *s, play_table *t, struct llama_context *ctx)
{
    const struct llama_model *model = llama_get_model(ctx);
    t->ctx = ctx;
    t->memory = llama_get_memory(ctx);
    t->n_sequences = llama_n_seq_max(ctx) < PLAY_SEQUENCES ? llama_n_seq_max(ctx) : PLAY_SEQUENCES;
    t->n_context = llama_n_ctx(ctx);
    t->n_batch = llama_n_batch(ctx) < MOST_TOKENS ? llama_n_batch(ctx) : MOST_TOKENS;
    t->n_ubatch = llama_n_ubatch(ctx);
    t->unified = llama_n_ctx_seq(ctx) == llama_n_ctx(ctx);
    t->can_shift = t->memory && llama_memory_can_shift(t->memory) && s->p->can_shift;
    t->can_go_back = t->memory && !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model);
}

static uint32_t draw_length(rng *r, const play_table *t)
{
    const bool slow = t->n_ubatch < 8; /* a pass for every few tokens */
    if (slow) {
        return drawn_between(r, 1, 40);
    }
    if (drawn_chance(r, 55)) {
        return drawn_between(r, 1, 20);
    }
    return drawn_chance(r, 75) ? drawn_between(r, 20, 130) : drawn_between(r, 130, 1000);
}

static void prompt(play_script *s, play_table *t, play_batch *b, uint32_t q)
{
    if (play_room(t, q) < 4) {
        play_forget_sequence(t, q);
    }
    read_prompt(s, t, b, q, draw_length(&s->r, t));
}

static void together(play_script *s, play_table *t, play_batch *b, uint32_t q)
{
    (void)q;
    answer_together(s, t, b);
}

static void back(play_script *s, play_table *t, play_batch *b, uint32_t q)
{
    (void)b;
    go_back(t, q, (llama_pos)rng_below(&s->r, (uint64_t)t->sequences[q].length + 1));
}

static void drop(play_script *s, play_table *t, play_batch *b, uint32_t q)
{
    (void)b;
    if (drawn_chance(&s->r, 70)) {
        play_forget_sequence(t, q);
    } else {
        play_forget(s, t);
    }
}

static void resize(play_script *s, play_table *t, play_batch *b, uint32_t q)
{
    (void)t, (void)b, (void)q;
    play_resize(s);
}

static void at_once(play_script *s, play_table *t, play_batch *b, uint32_t q)
{
    (void)t, (void)q;
    if (s->p->n_contexts == 2 && !s->p->over_standins) { /* one thread at a time uses these */
        play_decode_at_once(s, (play_batch *[]){b, s->other});
    }
}

static const struct work {
    uint32_t percent;
    const char *name;
    void (*do_it)(play_script *s, play_table *t, play_batch *b, uint32_t sequence);
} works[] = {
    {34, "answer", answer},     {14, "prompt", prompt},        {6, "together", together}, {6, "guess", guess},
    {4, "back", back},          {2, "drop", drop},             {3, "shift", shift},       {2, "copy", copy_sequence},
    {3, "save", save},          {3, "restore", restore},       {3, "adapters", change_adapters}, {2, "embed", embed},
    {4, "cancel", play_cancel}, {4, "read", play_fail_a_read}, {4, "gpu", play_fail_a_gpu},      {4, "resize", resize},
    {2, "at once", at_once},
};

static void do_op(play_script *s, play_batch *b)
{
    play_table *t = &s->tables[rng_below(&s->r, (uint64_t)s->p->n_contexts)];
    const uint32_t q = (uint32_t)rng_below(&s->r, t->n_sequences);
    const struct work *work = works;
    for (uint32_t what = (uint32_t)rng_below(&s->r, 100); what >= work->percent; work++) {
        what -= work->percent;
    }
    s->name = work->name;
    if (s->p->verbose) {
        printf("  op %d %s of sequence %u (%d) %s\n", s->op, s->name, q, t->sequences[q].length, s->p->plain ? "plain" : "");
        fflush(stdout);
    }
    work->do_it(s, t, b, q);
}

bool play_all(play *p)
{
    play_script s = {.p = p, .r = rng_stream(p->seed, 7, 7), .name = ""};
    play_batch *b = malloc(sizeof *b);
    s.other = malloc(sizeof *s.other);
    p->result = (play_result){.first_op = -1};
    s.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(p->model->llama));
    s.n_common = drawn_chance(&s.r, 50) ? (uint32_t)s.n_vocab : drawn_between(&s.r, 1, 24);
    s.n_common = s.n_common < (uint32_t)s.n_vocab ? s.n_common : (uint32_t)s.n_vocab;
    for (int i = 0; i < p->n_contexts; i++) {
        open_table(&s, &s.tables[i], p->contexts[i]);
    }
    for (int i = 0; i < p->n_ops && p->result.failure[0] == '\0' && p->result.n_differing == 0; i++) {
        s.op = i * 8;
        do_op(&s, b);
    }
    (void)hypura_unrest_end(s.unrest);
    for (int i = 0; i < p->n_contexts; i++) {
        for (int q = 0; q < PLAY_SEQUENCES; q++) {
            free(s.tables[i].sequences[q].saved);
        }
    }
    free(b);
    free(s.other);
    return p->result.n_differing == 0 && p->result.failure[0] == '\0';
}
