/*
 * model.h - a loaded model, as the files of this folder share it.
 *
 *     model.c opens, closes and decodes; paged.c loads what streams, trunk.c what stays, hot.c experts of earlier runs
 *     generate.c answers, with drafting.c where tokens are guessed; trace.c records the experts that are selected
 */
#ifndef HYPURA_ENGINE_MODEL_MODEL_H
#define HYPURA_ENGINE_MODEL_MODEL_H

#include "engine/answer/conversation.h"
#include "engine/answer/media.h"
#include "engine/llama/llama_shim.h"
#include "engine/llama/pulse.h"
#include "engine/model/drafting.h"
#include "engine/model/paged_gpu.h"
#include "engine/model/trace.h"
#include "engine/prepare/estimate.h"
#include "pager/pager.h"

struct hypura_model {
    hypura_preparation prepared; /* map, sizes, plan */
    hypura_pager *pager;         /* NULL: Hypura is out of the path */
    hypura_gpus gpus;            /* the devices over GPUs; none where no experts are paged over them */
    hypura_pulse *pulse;         /* of the GPUs; NULL: there are none */
    struct llama_model *llama;
    struct llama_context *ctx;
    ggml_threadpool_t threadpool;
    char *cache_dir;     /* where runs are learned from, and the experts used are kept; NULL: nowhere */
    hypura_trace *trace; /* NULL: routes are not recorded */
    int8_t *every_token; /* n_ubatch ones: logits wanted for all */
    llama_pos *places;   /* n_ubatch positions, where they are not those that follow what the memory holds */
    llama_pos next_place; /* of the next token decoded; -1: as the memory has it */
    hypura_media *media; /* NULL: nothing can be shown */
    uint64_t trunk_bytes;
    bool lost;           /* a GPU that it lies on is */
    hypura_gpu_statistics traffic[HYPURA_MAX_GPUS]; /* of remote devices, before what its statistics count */
    hypura_conversation *conversation; /* NULL until the first answer */
    hypura_drafting *drafting;         /* NULL: nothing is guessed */
};

/* What hypura_model_open does not offer its callers. */
typedef struct hypura_model_extras {
    const hypura_profile *profile; /* already measured; NULL: measured or loaded */
    bool all_logits;               /* rows for every token of a ubatch, not one */
    uint32_t n_sequences;          /* that are decoded together, without all_logits; 0: 1 */
    hypura_io_hook io_hook;        /* test instrument, see io.h: sees every read of a weight */
    void *io_hook_user;
    hypura_foretell_fn foretell; /* see pager.h */
    void *foretell_user;
    ggml_backend_sched_eval_callback on_node; /* see hypura_context_options */
    void *on_node_user;
    const hypura_load_gpu *gpus; /* plain alone: those to use, and the layers of each; NULL: as the options say */
} hypura_model_extras;

/* hypura_model_open with them; who foretells and looks at reads or nodes lives as long as the model. */
hypura_status hypura_model_open_with(const hypura_model_options *options, const hypura_model_extras *extras,
                                     hypura_model **model, hypura_error *error);

/* Decodes n tokens after those that the context holds; logits for all of them, or
 * for the last one. n is at most the context's n_ubatch. After a failure what the
 * context holds is unknown: clear it. HYPURA_ERR_CANCELLED where the context's abort
 * callback wanted it: these tokens are then not in it. */
hypura_status hypura_model_decode(hypura_model *model, const llama_token *tokens, uint32_t n, bool all_logits,
                                  hypura_error *error);
/* A part of a prompt, with logits for its last token. Where it is not the last part a GPU
 * may still compute it when this returns, so that the next one is prepared meanwhile. */
hypura_status hypura_model_decode_part(hypura_model *model, const llama_token *tokens, uint32_t n, bool last,
                                       hypura_error *error);
/* The same for a batch that says by itself where its tokens belong and whose logits are wanted. */
hypura_status hypura_model_decode_batch(hypura_model *model, const struct llama_batch *batch, bool last,
                                        hypura_error *error);
/* Decodes what is shown, before other tokens. */
hypura_status hypura_model_show(hypura_model *model, const hypura_shown *shown, hypura_error *error);
/* As decode, for the encoder of a model; every token is an output. */
hypura_status hypura_model_encode(hypura_model *model, const llama_token *tokens, uint32_t n, hypura_error *error);

#endif
