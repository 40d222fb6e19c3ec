/*
 * card.h - what a listing says of a GGUF, read from its header.
 */
#ifndef HYPURA_SERVER_MODELS_CARD_H
#define HYPURA_SERVER_MODELS_CARD_H

#include <stddef.h>
#include <stdint.h>

typedef enum hypura_card_kind {
    HYPURA_CARD_MODEL = 0,
    HYPURA_CARD_PROJECTOR,
    HYPURA_CARD_ADAPTER, /* LoRA: of use beside a model alone */
    HYPURA_CARD_BROKEN,
} hypura_card_kind;

typedef struct hypura_card {
    hypura_card_kind kind;
    char     problem[512]; /* BROKEN: why */
    char     family[72];
    char     parameter_size[16];
    char     quantization_level[16];
    uint64_t n_parameters;
    int64_t  context_length;
    int64_t  embedding_length; /* of a projector: what it projects to; 0: not told */
    uint64_t bytes;            /* all parts */
    int      n_files;
} hypura_card;

/* Reads the header of the file and of its parts. Always fills the card. */
void hypura_card_read(const char *path, hypura_card *card);

/* As Ollama writes a count of parameters: "30.5B", "134.52M", "7B". */
void hypura_card_format_parameters(uint64_t n_parameters, char *text, size_t capacity);

#endif
