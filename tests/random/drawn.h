/*
 * drawn.h - what random numbers make: a tiny model, and one way to run it. The same seed makes the same, on any machine.
 */
#ifndef HYPURA_TEST_RANDOM_DRAWN_H
#define HYPURA_TEST_RANDOM_DRAWN_H

#include "hypura.h"

#include "rng.h"
#include "standin.h"

#include "llama.h"

enum { DRAWN_PATH_BYTES = 1024, DRAWN_ADAPTERS = 2 };

static inline bool drawn_chance(rng *r, uint32_t percent)
{
    return rng_below(r, 100) < percent;
}

static inline uint32_t drawn_between(rng *r, uint32_t low, uint32_t high)
{
    return low + (uint32_t)rng_below(r, high - low + 1);
}

typedef struct drawn_model {
    char path[DRAWN_PATH_BYTES];
    char draft[DRAWN_PATH_BYTES]; /* of the same vocabulary; "": none */
    char adapters[DRAWN_ADAPTERS][DRAWN_PATH_BYTES];
    int  n_adapters;
    bool is_mixture;
    bool has_text;
    bool optimized; /* there is a sidecar */
    uint32_t most_context;
    char text[256]; /* what it is */
} drawn_model;

typedef struct drawn_files {
    const char *folder;  /* for what is made; empty when a case begins */
    const char *archs;   /* models of every architecture; NULL: they are left out */
    const char *mkmodel; /* the program */
} drawn_files;

/* Makes it, or takes one of the architectures. False, having told why, where that fails. */
bool drawn_make_model(rng *r, const drawn_files *files, drawn_model *model);

/* How a model is run; what depends on its plan is a share. */
typedef struct drawn_run {
    hypura_model_options options; /* without budgets */
    const char    *gpus;          /* "none", or their names */
    standin_faults faults;        /* how the stand-ins are, all the time */
    uint32_t       weights_permille; /* of what lies between the floor and all; above 1000: no limit */
    uint32_t       memory_permille;  /* the same of everything */
    uint32_t       vram_percent;     /* above 100: no limit */
    bool           each_gpu;         /* limits on each */
    bool           keeps;            /* what runs use is stored, and read by the next */
    bool           single_groups;
    bool           always_wide;
    uint32_t       short_percent; /* of reads that give less than they could */
    uint32_t       sleep_percent; /* of reads that come late */
    int            n_contexts;
    struct llama_context_params contexts[2];
    bool           drops_cache; /* of the page cache, before it runs */
    hypura_speculation speculation; /* types NULL: none */
    char           text[512];
} drawn_run;

/* gpus: always these; NULL: drawn of the stand-ins. */
void drawn_choose_run(rng *r, const drawn_model *model, const char *gpus, drawn_run *run);
/* One thing of it by name ("late", 0), to find out which ones a result takes. False: no such name. */
bool drawn_change(drawn_run *run, const char *name, uint32_t value);

#endif
