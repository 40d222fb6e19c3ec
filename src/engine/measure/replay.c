/*
 * replay.c - see replay.h.
 *
 * Three kinds of model are played:
 *     decoder           prompt in pieces, then one token at a time; logits
 *     encoder-decoder   prompt through the encoder (embeddings), then as a decoder
 *     no memory         prompt once; logits of a diffusion model, else embeddings
 */
#include "engine/measure/replay.h"

#include "base/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Called with each row of output in order. */
typedef void (*row_fn)(void *user, uint32_t row, const float *values, size_t n);

typedef struct player {
    hypura_model *model;
    row_fn on_row;
    void *user;
    uint32_t n_rows; /* so far */
} player;

static bool puts_out_embeddings(const hypura_model *model)
{
    return !llama_get_memory(model->ctx) && !llama_model_is_diffusion(model->llama);
}

bool hypura_replay_needs_whole_prompt(const hypura_model *model)
{
    return !llama_get_memory(model->ctx) || llama_model_has_encoder(model->llama);
}

static size_t n_embeddings(const hypura_model *model)
{
    return (size_t)llama_model_n_embd_out(model->llama);
}

static size_t n_logits(const hypura_model *model)
{
    return (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model->llama));
}

static hypura_status put_out(player *p, uint32_t n, bool embeddings, hypura_error *error)
{
    struct llama_context *ctx = p->model->ctx;
    for (uint32_t i = 0; i < n; i++) {
        const float *row =
            embeddings ? llama_get_embeddings_ith(ctx, (int32_t)i) : llama_get_logits_ith(ctx, (int32_t)i);
        if (!row) {
            return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s puts out no %s to compare",
                               p->model->prepared.map->path, embeddings ? "embeddings" : "logits");
        }
        p->on_row(p->user, p->n_rows++, row, embeddings ? n_embeddings(p->model) : n_logits(p->model));
    }
    return HYPURA_OK;
}

static hypura_status decode(player *p, const llama_token *tokens, uint32_t n, hypura_error *error)
{
    const bool embeddings = puts_out_embeddings(p->model);
    const uint32_t most = p->model->prepared.context.n_ubatch;
    hypura_status status = HYPURA_OK;
    for (uint32_t done = 0; done < n && status == HYPURA_OK;) {
        const uint32_t piece = n - done < most ? n - done : most;
        status = hypura_model_decode(p->model, tokens + done, piece, true, error);
        if (status == HYPURA_OK) {
            status = put_out(p, piece, embeddings, error);
        }
        done += piece;
    }
    return status;
}

/* The tokens after the prompt are read one at a time, because the row before a
 * token may be what decides it. */
static hypura_status play(player *p, const hypura_script *script, hypura_error *error)
{
    struct llama_context *ctx = p->model->ctx;
    hypura_status status = HYPURA_OK;
    if (llama_get_memory(ctx)) {
        (void)hypura_shim_forget(ctx);
    }
    llama_set_embeddings(ctx, puts_out_embeddings(p->model));

    const bool encoder = llama_model_has_encoder(p->model->llama);
    if (encoder) {
        const bool alone = !llama_model_has_decoder(p->model->llama);
        if (alone) {
            llama_set_embeddings(ctx, true);
        }
        status = hypura_model_encode(p->model, script->tokens, script->n_prompt, error);
        if (status == HYPURA_OK) {
            status = put_out(p, script->n_prompt, true, error);
        }
    } else {
        status = decode(p, script->tokens, script->n_prompt, error);
    }
    for (uint32_t i = 0; i < script->n_steps && status == HYPURA_OK; i++) {
        status = decode(p, script->tokens + script->n_prompt + i, 1, error);
    }
    return status;
}

/* ---- writing ------------------------------------------------------------ */

static uint64_t hash_row(const float *values, size_t n)
{
    uint64_t hash = UINT64_C(0xCBF29CE484222325);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        hash = (hash ^ bits) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    return hash;
}

static llama_token greedy(const float *values, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (values[i] > values[best]) {
            best = i;
        }
    }
    return (llama_token)best;
}

static void keep_row(void *user, uint32_t row, const float *values, size_t n)
{
    hypura_script *s = user;
    if (s->rows) {
        memcpy(s->rows + (size_t)row * s->row_floats, values, n * sizeof(*values));
    } else {
        s->hashes[row] = hash_row(values, n);
    }
    /* Row i decides token i + 1, once the prompt has been read. */
    if (row + 1 >= s->n_prompt && s->n_filled == row + 1 && s->n_filled < s->n_rows) {
        s->tokens[s->n_filled++] = greedy(values, n);
    }
}

/* The same tokens on every machine: the high half of a 64-bit linear congruential
 * generator (Knuth's MMIX constants). */
void hypura_replay_fill(llama_token *tokens, uint32_t n, size_t n_vocab)
{
    uint64_t state = 42;
    for (uint32_t i = 0; i < n; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        tokens[i] = (llama_token)((state >> 33) % n_vocab);
    }
}

hypura_status hypura_script_write(hypura_model *model, uint32_t n_prompt, uint32_t n_steps, uint64_t *budget_bytes,
                                  hypura_script *script, hypura_error *error)
{
    const size_t n_vocab = n_logits(model);
    memset(script, 0, sizeof(*script));
    if (n_prompt == 0 || n_vocab == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a prompt of %u tokens from a vocabulary of %zu", n_prompt,
                           n_vocab);
    }
    const bool stepwise = llama_get_memory(model->ctx) && llama_model_has_decoder(model->llama);
    script->n_prompt = n_prompt;
    script->n_steps = stepwise ? n_steps : 0;
    script->n_rows = script->n_prompt + script->n_steps;
    script->row_floats = n_embeddings(model) > n_vocab ? n_embeddings(model) : n_vocab;
    script->n_filled = n_prompt;

    const uint64_t bytes = (uint64_t)script->n_rows * script->row_floats * sizeof(float);
    script->tokens = malloc((size_t)script->n_rows * sizeof(*script->tokens));
    if (bytes <= *budget_bytes) {
        *budget_bytes -= bytes;
        script->rows = calloc(script->n_rows, script->row_floats * sizeof(float));
    } else {
        script->hashes = calloc(script->n_rows, sizeof(*script->hashes));
    }
    if (!script->tokens || (!script->rows && !script->hashes)) {
        hypura_script_clear(script);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to keep the outputs of %u tokens", script->n_rows);
    }
    hypura_replay_fill(script->tokens, n_prompt, n_vocab);
    if (llama_model_has_encoder(model->llama) && script->n_steps > 0) {
        /* The decoder begins with a token of its own, not with what the encoder put out. */
        const llama_token start = llama_model_decoder_start_token(model->llama);
        script->tokens[script->n_filled++] = start != LLAMA_TOKEN_NULL ? start : 0;
    }
    player p = {.model = model, .on_row = keep_row, .user = script};
    hypura_status status = play(&p, script, error);
    if (status != HYPURA_OK) {
        hypura_script_clear(script);
    }
    return status;
}

/* ---- following ---------------------------------------------------------- */

typedef struct comparison {
    const hypura_script *script;
    hypura_difference found;
} comparison;

static void compare_row(void *user, uint32_t row, const float *values, size_t n)
{
    comparison *c = user;
    const hypura_script *s = c->script;
    if (!s->rows) {
        const bool same = s->hashes[row] == hash_row(values, n);
        c->found.differing += same ? 0 : n;
        c->found.largest = same ? c->found.largest : (double)NAN;
        return;
    }
    const float *kept = s->rows + (size_t)row * s->row_floats;
    if (memcmp(kept, values, n * sizeof(*values)) == 0) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const double difference = fabs((double)kept[i] - (double)values[i]);
        c->found.differing += memcmp(&kept[i], &values[i], sizeof(*values)) != 0;
        c->found.largest = difference > c->found.largest ? difference : c->found.largest;
    }
}

hypura_status hypura_script_compare(hypura_model *model, const hypura_script *script, hypura_difference *difference,
                                    hypura_error *error)
{
    comparison c = {.script = script};
    player p = {.model = model, .on_row = compare_row, .user = &c};
    hypura_status status = play(&p, script, error);
    *difference = c.found;
    return status;
}

hypura_status hypura_script_follow(hypura_model *model, const hypura_script *script, uint64_t *differing,
                                   hypura_error *error)
{
    hypura_difference difference;
    const hypura_status status = hypura_script_compare(model, script, &difference, error);
    *differing = difference.differing;
    return status;
}

void hypura_script_clear(hypura_script *script)
{
    free(script->tokens);
    free(script->rows);
    free(script->hashes);
    memset(script, 0, sizeof(*script));
}
