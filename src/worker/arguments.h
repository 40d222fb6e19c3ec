/*
 * arguments.h - the worker's command line, and llama.cpp's server's made of it.
 */
#ifndef HYPURA_WORKER_ARGUMENTS_H
#define HYPURA_WORKER_ARGUMENTS_H

#include "engine/prepare/estimate.h"

typedef struct hypura_worker_arguments {
    hypura_model_options model;
    hypura_gpu_shares shares; /* what other models leave of GPUs */
    const char *name;         /* what answers call the model */
    const char *socket;       /* ends in .sock */
    const char *live;         /* see live.h */
    const char *slots_folder; /* states of conversations go there; NULL: none are kept */
    hypura_adapter adapters[HYPURA_MAX_ADAPTERS]; /* LoRA, which model points to */
    const char *template;     /* a file, in Jinja, in place of the model's own; NULL: that one */
    const char *defaults;     /* JSON, see defaults.h; NULL: none */
    uint32_t n_sequences;     /* conversations computed together at most */
    uint64_t reserve_bytes;   /* memory for prompts that no slot holds */
    bool context_shift;       /* answers may go on beyond their context */
    bool embeddings;          /* also answers with embeddings, */
    bool reranking;           /* or with how well documents fit a question */
    bool pool_last;           /* the model does not say how its embeddings are pooled: the last token's is taken */
    bool check_grammar;       /* the same, of a grammar or a schema */
    bool check_template;      /* tell whether standard input is one that can be used, and end: nothing else matters then */
    bool estimate;            /* print what the model would take, as JSON, and end */
    bool verbose;
} hypura_worker_arguments;

/* Strings point into argv. Fails with HYPURA_ERR_USAGE. */
hypura_status hypura_worker_parse(int argc, char **argv, hypura_worker_arguments *arguments, hypura_error *error);

#define HYPURA_WORKER_MAX_WORDS 160

/* A command line whose words live in `text`. */
typedef struct hypura_worker_words {
    int n;
    char *words[HYPURA_WORKER_MAX_WORDS + 1]; /* ends with NULL */
    char text[24 * HYPURA_WORKER_MAX_WORDS];  /* of the numbers */
    size_t text_bytes;
    char adapters[HYPURA_MAX_ADAPTERS * (2 * 4096 + 8)]; /* paths by comma, quoted where they have to be */
} hypura_worker_words;

/* The server's command line. Its context is what was prepared; what it can spend beside the model is reserve_bytes. */
void hypura_worker_server_words(const hypura_worker_arguments *arguments, const hypura_preparation *prepared,
                                hypura_worker_words *words);
/* An option and its value, which the words then hold a copy of, or which lives as long as they do. What does not fit is
 * left out: the words are full then. */
void hypura_worker_add_copy(hypura_worker_words *words, const char *option, const char *value);
void hypura_worker_add_text(hypura_worker_words *words, const char *option, const char *value);

#endif
