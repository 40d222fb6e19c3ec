/*
 * play_internal.h - what the files of random work share.
 *
 *     play.c         which piece of work comes next, and what each does
 *     play_decode.c  batches, what they put out, and the comparison
 *     play_wrong.c   what one side alone does: reads and GPUs that fail, ends of a computation, sizes that change
 *
 * What always holds: both sides draw the same numbers, whatever happens on one of them alone.
 */
#ifndef HYPURA_TEST_RANDOM_PLAY_INTERNAL_H
#define HYPURA_TEST_RANDOM_PLAY_INTERNAL_H

#include "play.h"

#include "engine/measure/unrest.h"

enum { MOST_TOKENS = 4096 };

/* A sequence. */
typedef struct play_line {
    llama_pos length;
    uint8_t  *saved; /* a state, and the length with it */
    size_t    saved_bytes;
    llama_pos saved_length;
} play_line;

/* One context as a script knows it. */
typedef struct play_table {
    struct llama_context *ctx;
    llama_memory_t memory; /* NULL: it has none */
    play_line sequences[PLAY_SEQUENCES];
    uint32_t n_sequences;
    uint32_t n_context, n_batch, n_ubatch;
    bool     unified;
    bool     can_shift;
    bool     can_go_back; /* tokens can be taken back one by one */
} play_table;

typedef struct play_batch {
    struct llama_batch b;
    llama_token   tokens[MOST_TOKENS];
    llama_pos     places[MOST_TOKENS];
    int32_t       n_ids[MOST_TOKENS];
    llama_seq_id  ids[MOST_TOKENS];
    llama_seq_id *each[MOST_TOKENS + 1];
    int8_t        wanted[MOST_TOKENS];
} play_batch;

typedef struct play_script {
    play   *p;
    rng     r;
    int     op; /* at which it is */
    play_table tables[PLAY_CONTEXTS];
    size_t  row; /* to be compared next */
    int32_t n_vocab;
    uint32_t n_common; /* tokens are drawn of so many */
    hypura_unrest *unrest;
    play_batch *other; /* for what is done beside */
    const char *name; /* of the op */
    bool    spoiled;  /* something failed on this side alone: what follows says nothing until all is forgotten */
} play_script;

/* ---- play_decode.c ---------------------------------------------------------------- */

/* What should not have happened; the first of these counts. */
void play_fail(play_script *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Numbers that both sides have to have. */
void play_put_out(play_script *s, const float *values, size_t n);
/* Those of this piece of work that plain libllama put out are not compared. */
void play_skip_rows(play_script *s);
void play_clear_batch(play_batch *b);
void play_add_token(play_batch *b, llama_token token, llama_pos place, llama_seq_id sequence, bool wanted);
llama_token play_draw_token(play_script *s);
/* How many tokens more a sequence may have. */
uint32_t play_room(const play_table *t, uint32_t sequence);
void play_forget(play_script *s, play_table *t);
void play_forget_sequence(play_table *t, uint32_t i);
/* What the tokens of a batch add to their sequences; and what it put out, of pooled embeddings one row for each sequence. */
void play_count_tokens(play_table *t, const play_batch *b);
void play_put_out_wanted(play_script *s, play_table *t, const play_batch *b, bool embeddings);
/* The pager's, which is cleared. */
hypura_status play_take_error(play_script *s, hypura_error *error);
/* False where it failed, as it has to on both sides. more: nobody looks at it now. */
bool play_decode(play_script *s, play_table *t, const play_batch *b, bool more, bool embeddings);

/* ---- play_wrong.c ----------------------------------------------------------------- */

void play_cancel(play_script *s, play_table *t, play_batch *b, uint32_t sequence);
void play_fail_a_read(play_script *s, play_table *t, play_batch *b, uint32_t sequence);
void play_fail_a_gpu(play_script *s, play_table *t, play_batch *b, uint32_t sequence);
void play_resize(play_script *s);
/* In two contexts, by two threads. */
void play_decode_at_once(play_script *s, play_batch *b[2]);

#endif
