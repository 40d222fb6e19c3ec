/*
 * hypura.h - the public interface of libhypura.
 *
 * Hypura runs language models that do not fit in memory: it maps a GGUF file,
 * measures the machine, places every tensor on the tier that suits it, and runs
 * the model through llama.cpp with its own pager underneath.
 *
 *     profile ---+
 *     map -------+--> plan --> model (open, generate, statistics)
 *     budget ----+
 *
 * hypura_plan.h has all until the plan, hypura_measure.h proves and measures what comes of it, hypura_server.h serves it.
 *
 * What always holds:
 *  - Nothing here prints, exits or reads the environment. A call that can fail
 *    returns a hypura_status and, where it takes a hypura_error, fills it with a
 *    message that names the file, tensor or number at fault and what to try. It
 *    may be NULL.
 *  - All sizes are bytes, all times microseconds, unless a name says otherwise.
 *  - What hypura_..._name returns is a constant, as JSON has it: "unknown" for what is none of the values.
 *  - Objects are opened and closed in pairs. A closed or NULL object may be
 *    closed again as NULL. Different objects may be used from different threads;
 *    one object only from one thread at a time, unless its comment says more.
 */
#ifndef HYPURA_H
#define HYPURA_H

#include "hypura_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- a loaded model ----------------------------------------------------- */

typedef struct hypura_model hypura_model;

/* Why pools and pinned rows last changed their size. */
typedef enum hypura_budget_reason {
    HYPURA_BUDGET_FIXED = 0, /* a limit was given: nothing changes it */
    HYPURA_BUDGET_START,     /* as it was planned from what was free */
    HYPURA_BUDGET_ROOM,      /* grown: memory was free, and weights were missed */
    HYPURA_BUDGET_SQUEEZE,   /* shrunk: others took memory */
    HYPURA_BUDGET_PRESSURE,  /* shrunk: tasks stood still for lack of memory */
    HYPURA_BUDGET_SLOWER,    /* shrunk: the last growth made the model slower */
    HYPURA_BUDGET_ASKED,     /* hypura_model_resize */
} hypura_budget_reason;

HYPURA_API const char *hypura_budget_reason_name(hypura_budget_reason reason);

/* How weights are read from the drive, and why. */
typedef enum hypura_reads {
    HYPURA_READS_FIXED = 0,     /* as the file system and the drive allow: nothing to choose */
    HYPURA_READS_NOT_CACHED,    /* past the page cache, which does not hold the file */
    HYPURA_READS_ON_TRIAL,      /* past it and through it in turns, to measure both */
    HYPURA_READS_DIRECT_FASTER, /* past it, though it holds the file */
    HYPURA_READS_CACHED_FASTER, /* through it */
} hypura_reads;

HYPURA_API const char *hypura_reads_name(hypura_reads reads);

/* What one of the plan's GPUs was asked for. */
typedef struct hypura_gpu_statistics {
    uint64_t bytes_needed;   /* of experts, by computing */
    uint64_t bytes_hit;      /* of these, present in its memory */
    uint64_t bytes_uploaded;
    uint64_t link_bytes_sent; /* over the network to its server, where it is a remote one */
    uint64_t link_bytes_received;
    uint64_t n_link_answers; /* that were waited for */
} hypura_gpu_statistics;

typedef struct hypura_statistics {
    uint64_t bytes_read;   /* from the drive by the pager, this model, since open or reset */
    uint64_t bytes_needed; /* weights that computing asked the pager for; of a dense model all that it computed with */
    uint64_t bytes_hit;    /* of these, present when asked for */
    uint64_t n_reads;
    uint64_t n_evictions;
    double   read_wait_s; /* computing stood still for reads */
    double   compute_s;   /* inside Hypura's nodes */
    double   overhead_s;  /* inside Hypura, neither of the two */
    double   placed_s;    /* of these three together, while each thread kept to a processor of its own */
    double   device_busy_s;
    uint64_t trunk_bytes_read; /* at open */
    uint64_t pool_bytes;       /* that the pools of experts take now */
    uint64_t pinned_bytes;     /* and the rows kept of dense weights that stream */
    uint32_t n_resizes;        /* changes of the two since open */
    hypura_budget_reason budget_reason;
    char     cache_policy[16];     /* that ranks experts now; "" where none are paged */
    uint64_t ahead_bytes_read;   /* of bytes_read: of experts not asked for yet */
    uint64_t ahead_bytes_useful; /* of these, asked for by the layer they were read for */
    char     foresight[8];       /* "trying", "on", "off" */
    char     foresight_by[16];   /* who guesses: "routers", "co-activation" */
    double   foresight_gain;     /* share of the time of a pass through the layers that it saved when last tried */
    char     io_engine[16];
    bool     direct_io;
    hypura_reads reads;
    bool     records;           /* experts are read as records, from the sidecar that hypura_optimize made */
    char     records_note[256]; /* why a sidecar that is there is not used, or "" */
    /* over GPUs, of all together; bytes_needed and bytes_hit are then of what their memory lacked */
    uint64_t locked_bytes;      /* of the expert pools in RAM, in memory that the driver pinned */
    uint64_t vram_bytes_needed; /* of experts, by computing */
    uint64_t vram_bytes_hit;    /* of these, present in the memory of the GPU that asked */
    uint64_t bytes_uploaded;
    uint64_t bytes_landed;      /* read straight into slots there: memory that host and GPU share */
    uint64_t bytes_copied;      /* within the GPU's memory, from slots to stages and back */
    uint64_t n_readbacks;       /* of selected experts */
    double   readback_s;        /* waiting for them: the GPU computing what leads to them included */
    double   submit_s;          /* from there until the GPU had its next work: it stood still */
    uint64_t n_ahead;           /* read-backs during which it went on computing, with what it held */
    uint64_t n_repeated;        /* of these, where an expert was missing: computed again */
    uint64_t foreseen_bytes_uploaded; /* of bytes_uploaded: of experts not asked for yet */
    uint64_t foreseen_bytes_useful;   /* of these, then asked for */
    uint64_t n_asked_by_gpu;  /* routers of a next layer that were asked for that: by the GPU itself */
    uint64_t n_asked_by_host; /* by the host: the GPU lacks an operation, or the router lies elsewhere */
    /* with HYPURA_GPU_MISSES_CPU */
    uint64_t n_cpu_rows;      /* of a token and an expert, that the CPU computed */
    uint64_t n_cpu_layers;    /* in so many passes through a layer */
    double   cpu_rows_s;      /* for them */
    uint64_t n_not_cpu_chain; /* passes that lacked experts and had them uploaded all the same: operations it may not know */
    uint64_t n_not_cpu_ram;   /* or RAM has no room for what is missing at once */
    uint64_t beside_bytes_uploaded; /* of bytes_uploaded: for later tokens, nobody waited */
    hypura_gpu_statistics gpus[HYPURA_MAX_GPUS]; /* the three above of each, in the plan's order */
    uint64_t peak_rss_bytes; /* most memory that this process ever held; 0: not known */
} hypura_statistics;

/* Of the sums above, what the weights of a layer have in them. */
typedef struct hypura_layer_hits {
    uint64_t bytes_needed;
    uint64_t bytes_hit;
    uint64_t vram_bytes_needed;
    uint64_t vram_bytes_hit;
} hypura_layer_hits;

/* llama.cpp ends the process where a driver refuses what it is asked for on the way, as of a GPU that is lost. Most of
 * that becomes a hypura_status; where nothing can, while memory of that GPU is freed above all, end is called before, once,
 * on the thread that it happened on. It may end the process itself. NULL: the reason goes to standard error, as by itself.
 *
 * Nor can a call return that waits for a GPU which never answers: end is called for it on a thread of the library, once for
 * a model, when the GPU has failed to give a sign of life, and once for a call that lists or measures GPUs, or plans with
 * them. The call waits on where end returns, or is NULL. */
typedef void (*hypura_end_fn)(const hypura_error *error);
HYPURA_API void hypura_on_end(hypura_end_fn end);
/* How long a sign of life may take, of GPUs that are looked at, or used by models that are opened, from now on; a driver
 * may give it only behind all that its GPU computes. 0, and where it was never called: 300 s, or 20 times what as many
 * tokens as are computed at once would take one by one, an hour at most. What fails at once is told sooner: after 10 s, or
 * a third of these seconds. */
HYPURA_API void hypura_gpu_wait(double seconds);

/* Blocks until its weights are there, and fails before that where they cannot be. What options point to has to live until
 * it returns. Map and plan live as long as the model. Statistics count since open, or since they were reset. */
HYPURA_API hypura_status      hypura_model_open(const hypura_model_options *options, hypura_model **model,
                                                hypura_error *error);
HYPURA_API void               hypura_model_close(hypura_model *model);
HYPURA_API const hypura_map  *hypura_model_map(const hypura_model *model);
HYPURA_API const hypura_plan *hypura_model_plan(const hypura_model *model);
HYPURA_API void               hypura_model_statistics(const hypura_model *model, hypura_statistics *statistics);
HYPURA_API void               hypura_model_reset_statistics(hypura_model *model);
/* Fills in the first n layers; those that nothing was paged of, and those that do not
 * exist, are 0. */
HYPURA_API void               hypura_model_layer_hits(const hypura_model *model, hypura_layer_hits *layers, int n);

/* How much of the weights that are paged is in memory: pools of experts and rows kept
 * of dense weights. Everything else that a model takes stays as it is. */
typedef struct hypura_held {
    uint64_t now_bytes;
    uint64_t least_bytes; /* with less it could not run */
    uint64_t most_bytes;  /* all of them; all three are 0 where nothing is paged */
} hypura_held;

HYPURA_API hypura_held hypura_model_held(const hypura_model *model);

/* Makes them take at most so many bytes, within the limits of hypura_held, and returns
 * what they take then. Any thread, also while others generate with the model: they go
 * on, with the same results. Blocks until what is to go is gone and what is to come
 * has its memory (some 100 ms for a GiB); one that comes meanwhile ends a growth. */
HYPURA_API uint64_t hypura_model_resize(hypura_model *model, uint64_t held_bytes);

typedef struct hypura_sampling {
    float    temperature; /* 0: greedy */
    float    top_p;       /* 1: off */
    float    min_p;       /* 0: off */
    int      top_k;       /* 0: off */
    uint32_t seed;
    /* of the last 64 tokens */
    float    repeat_penalty;    /* divides what speaks for each of them; 0 and 1: off */
    float    frequency_penalty; /* taken off it as often as it occurs; 0: off */
    float    presence_penalty;  /* taken off it once; 0: off */
} hypura_sampling;

/* repeat_penalty as it counts: 0, as whoever leaves it out says it, is 1. */
HYPURA_API float hypura_repeat_penalty(const hypura_sampling *sampling);

/* Called for each piece of text as it is generated (UTF-8, whole characters).
 * Returning false ends the answer; what was generated so far stays valid. */
typedef bool (*hypura_text_fn)(void *user, const char *text, size_t text_bytes);

/* A picture (PNG, JPEG, BMP, GIF) or a sound (WAV, MP3, FLAC), as a file has it. */
typedef struct hypura_medium {
    const char *name; /* for errors */
    const void *data;
    size_t      bytes;
} hypura_medium;

typedef struct hypura_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *text;
    const char *thought; /* of an assistant, before its text; NULL: none */
    const hypura_medium *media; /* shown before the text */
    int         n_media;
} hypura_message;

/* Whether a model that can think before it answers does, and how much; its chat template sees to it. */
typedef enum hypura_thinking {
    HYPURA_THINKING_AUTO = 0, /* as its template does by itself; not where the answer has a grammar */
    HYPURA_THINKING_ON,       /* an error where the template knows no thoughts, as are the last three */
    HYPURA_THINKING_OFF,      /* where the template can leave them out */
    HYPURA_THINKING_LOW,      /* on, where the template makes a difference: its reasoning_effort */
    HYPURA_THINKING_MEDIUM,
    HYPURA_THINKING_HIGH,
} hypura_thinking;

typedef struct hypura_generate_options {
    const char     *prompt;
    const hypura_medium *media; /* shown before the prompt; copied. They take the projector of the model's options */
    int             n_media;
    bool            raw; /* no chat template */
    /* Of the conversation that this prompt begins; later ones' do not count. */
    const char     *system;        /* NULL: none */
    const hypura_message *history; /* said before; the system text is one of them then */
    int             n_history;
    const char     *chat_template; /* Jinja, in place of the model's own; NULL: that */
    /* What the answer has to be, to its end; one of them. */
    const char     *grammar;     /* GBNF, from its rule "root"; NULL: none */
    const char     *json_schema; /* NULL: none */
    const char *const *stop;     /* texts that end the answer and are no part of it; none is "" */
    int             n_stop;
    uint32_t        max_tokens; /* 0: until the model ends or the context is full */
    hypura_thinking thinking;
    hypura_sampling sampling;
    hypura_text_fn  on_text;
    hypura_text_fn  on_thought; /* what the model thinks before its answer, which is no part of it; NULL: nobody is told */
    void           *on_text_user; /* for both */
    /* Asked very often, by the calling thread, also in the middle of a token: returning
     * false ends the answer as on_text does. Told how much of the prompt was read. */
    hypura_progress_fn progress;
    void              *progress_user;
} hypura_generate_options;

typedef struct hypura_result {
    uint32_t prompt_tokens;
    uint32_t tokens;
    double   prompt_s;
    double   decode_s; /* without the time that on_text took */
    uint64_t bytes_read; /* of weights, while the answer was computed */
    /* with speculation */
    uint32_t n_passes; /* through the model: each reads weights once */
    uint32_t n_drafted;  /* tokens guessed, and of these those that came to be */
    uint32_t n_accepted;
    double   draft_s; /* of decode_s, guessing */
    char    *text; /* whole answer; free with hypura_result_clear */
    char    *thought; /* the same; NULL: the model has none */
    bool     stopped_by_user;
    bool     context_full;
} hypura_result;

/* Answers one prompt. With raw false the prompt becomes a user message of the
 * conversation held by the model; hypura_model_reset starts a new one. */
HYPURA_API hypura_status hypura_generate(hypura_model *model, const hypura_generate_options *options,
                                         hypura_result *result, hypura_error *error);
HYPURA_API void          hypura_result_clear(hypura_result *result);
HYPURA_API void          hypura_model_reset(hypura_model *model);

#ifdef __cplusplus
}
#endif

#endif
