/* play_decode.c - see play_internal.h. */
#include "play_internal.h"

#include "base/status.h"
#include "pager/pager.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- outputs ----------------------------------------------------------------------- */

void play_record_clear(play_record *record)
{
    free(record->values);
    free(record->rows);
    memset(record, 0, sizeof *record);
}

void play_fail(play_script *s, const char *format, ...)
{
    if (s->p->result.failure[0] != '\0') {
        return;
    }
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(s->p->result.failure, sizeof s->p->result.failure, "op %d (%s): %s", s->op, s->name, text);
}

static void keep(play_record *record, int op, const float *values, size_t n)
{
    if (record->n_rows == record->most_rows) {
        record->most_rows = record->most_rows * 2 + 64;
        record->rows = realloc(record->rows, record->most_rows * sizeof *record->rows);
    }
    while (record->n_values + n > record->most_values) {
        record->most_values = record->most_values * 2 + 65536;
        record->values = realloc(record->values, record->most_values * sizeof *record->values);
    }
    memcpy(record->values + record->n_values, values, n * sizeof *values);
    record->rows[record->n_rows++] = (struct play_row){record->n_values, n, op};
    record->n_values += n;
}

void play_put_out(play_script *s, const float *values, size_t n)
{
    play_record *record = s->p->record;
    play_result *result = &s->p->result;
    result->n_rows++;
    result->n_values += n;
    if (s->p->plain) {
        keep(record, s->op, values, n);
        return;
    }
    if (s->row >= record->n_rows || record->rows[s->row].op != s->op || record->rows[s->row].n != n) {
        play_fail(s, "puts out something else than plain libllama");
        return;
    }
    const float *kept = record->values + record->rows[s->row++].at;
    uint64_t differing = 0;
    double largest = 0.0;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&kept[i], &values[i], sizeof *values) != 0) {
            const double d = (double)kept[i] - (double)values[i];
            largest = d > largest ? d : -d > largest ? -d : largest;
            differing++;
        }
    }
    if (differing > 0 && result->n_differing == 0) {
        result->first_op = s->op;
        snprintf(result->first_text, sizeof result->first_text, "op %d (%s), row %zu: %llu of %zu, by %g", s->op, s->name, s->row - 1,
                 (unsigned long long)differing, n, largest);
    }
    result->n_differing += differing;
}

void play_skip_rows(play_script *s)
{
    const play_record *record = s->p->record;
    while (!s->p->plain && s->row < record->n_rows && record->rows[s->row].op <= s->op) {
        s->row++;
    }
}

/* ---- decoding ---------------------------------------------------------------------- */

void play_clear_batch(play_batch *b)
{
    b->b = (struct llama_batch){
        .token = b->tokens, .pos = b->places, .n_seq_id = b->n_ids, .seq_id = b->each, .logits = b->wanted};
}

void play_add_token(play_batch *b, llama_token token, llama_pos place, llama_seq_id sequence, bool wanted)
{
    const int i = b->b.n_tokens++;
    b->tokens[i] = token;
    b->places[i] = place;
    b->n_ids[i] = 1;
    b->ids[i] = sequence;
    b->each[i] = &b->ids[i];
    b->wanted[i] = wanted;
}

llama_token play_draw_token(play_script *s)
{
    return (llama_token)rng_below(&s->r, drawn_chance(&s->r, 80) ? s->n_common : (uint32_t)s->n_vocab);
}

uint32_t play_room(const play_table *t, uint32_t sequence)
{
    uint32_t used = 0;
    for (uint32_t i = 0; t->unified && i < t->n_sequences; i++) {
        used += (uint32_t)t->sequences[i].length;
    }
    used = t->unified ? used : (uint32_t)t->sequences[sequence].length;
    const uint32_t most = t->unified ? t->n_context : t->n_context / t->n_sequences;
    return used + 2 < most ? most - used - 2 : 0;
}

void play_forget(play_script *s, play_table *t)
{
    if (t->memory && !hypura_shim_forget(t->ctx)) {
        play_fail(s, "cannot be made to forget");
    }
    for (uint32_t i = 0; i < t->n_sequences; i++) {
        t->sequences[i].length = 0;
    }
    s->spoiled = false;
}

void play_forget_sequence(play_table *t, uint32_t i)
{
    llama_memory_seq_rm(t->memory, (llama_seq_id)i, -1, -1);
    t->sequences[i].length = 0;
}

/* The outputs that were wanted; of pooled embeddings one for each sequence. */
void play_put_out_wanted(play_script *s, play_table *t, const play_batch *b, bool embeddings)
{
    for (int i = 0; i < b->b.n_tokens; i++) {
        if (!b->wanted[i]) {
            continue;
        }
        const float *row = llama_get_logits_ith(t->ctx, i);
        if (row) {
            play_put_out(s, row, (size_t)s->n_vocab);
        }
        /* Where they are pooled libllama leaves what was in their memory before. */
        const bool   each = embeddings && llama_pooling_type(t->ctx) == LLAMA_POOLING_TYPE_NONE;
        const float *embedding = each ? llama_get_embeddings_ith(t->ctx, i) : NULL;
        if (embedding) {
            play_put_out(s, embedding, (size_t)llama_model_n_embd_out(llama_get_model(t->ctx)));
        }
    }
    for (uint32_t q = 0; embeddings && q < t->n_sequences; q++) {
        bool any = false;
        for (int i = 0; i < b->b.n_tokens && !any; i++) {
            any = b->ids[i] == (llama_seq_id)q;
        }
        const float *pooled = any && llama_pooling_type(t->ctx) != LLAMA_POOLING_TYPE_NONE
                                  ? llama_get_embeddings_seq(t->ctx, (llama_seq_id)q) : NULL;
        if (pooled) {
            play_put_out(s, pooled, (size_t)llama_model_n_embd_out(llama_get_model(t->ctx)));
        }
    }
}

hypura_status play_take_error(play_script *s, hypura_error *error)
{
    hypura_error_clear(error);
    return s->p->model->pager ? hypura_pager_take_error(s->p->model->pager, error) : HYPURA_OK;
}

/* What the tokens of a batch add to their sequences. */
void play_count_tokens(play_table *t, const play_batch *b)
{
    for (int i = 0; i < b->b.n_tokens; i++) {
        t->sequences[b->ids[i]].length = b->places[i] + 1;
    }
}

/* Plain libllama's answer counts; more: nobody looks at it now. */
bool play_decode(play_script *s, play_table *t, const play_batch *b, bool more, bool embeddings)
{
    hypura_error error;
    const int code = hypura_shim_decode(t->ctx, b->b, more);
    s->p->result.n_decodes++;
    const float told = (float)code;
    play_put_out(s, &told, 1);
    if (code != 0) {
        (void)play_take_error(s, &error);
        if (!s->p->plain && s->p->result.n_differing > 0) {
            play_fail(s, "fails (%d) to decode %d tokens: %s", code, b->b.n_tokens, error.message);
        }
        play_forget(s, t);
        return false;
    }
    play_count_tokens(t, b);
    if (!more) {
        play_put_out_wanted(s, t, b, embeddings);
    }
    return true;
}
