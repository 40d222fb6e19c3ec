/*
 * shape.c - `mkmodel shape` and `mkmodel list`: random weights in the shape of real
 * models, for measuring what does not depend on what the weights say.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "filler.h"
#include "mkmodel.h"
#include "random_model.h"

enum { MAX_LAYERS = 512 /* LLAMA_MAX_LAYERS */ };

/* Dimensions as published with the models (config.json); the small ones are ours, and wide-moe: experts and routers of the
 * largest mixtures in few layers. */
/* clang-format off */
static const model_shape shapes[] = {
    /*                         layers  embd heads  kv head    ff       experts k  ff  shared lead   vocab context rope */
    {"mixtral-8x7b",  "llama",     32, 4096,  32,   8, 128,     0,       8, 2, 14336,   0, 0,  32000,  32768, 1e6f, false, false},
    {"llama-70b",     "llama",     80, 8192,  64,   8, 128, 28672,       0, 0,     0,   0, 0, 128256,   8192, 5e5f, false, false},
    {"llama-8b",      "llama",     32, 4096,  32,   8, 128, 14336,       0, 0,     0,   0, 0, 128256,   8192, 5e5f, false, false},
    {"qwen3-30b-a3b", "qwen3moe",  48, 2048,  32,   4, 128,  6144,     128, 8,   768,   0, 0, 151936,  40960, 1e6f, false, false},
    {"olmoe-1b-7b",   "olmoe",     16, 2048,  16,  16, 128,     0,      64, 8,  1024,   0, 0,  50304,   4096, 1e4f, false, false},
    {"wide-moe",      "qwen3moe",   8, 7168,  64,   8, 128,     0,     256, 8,  2048,   0, 0,   4096,   8192, 1e6f, false, false},
    {"small-moe",     "qwen3moe",  12,  512,   8,   4,  64,  1536,      32, 4,   512,   0, 0,   4096,   8192, 1e6f, false, false},
    {"small-dense",   "llama",     24, 1024,  16,   4,  64,  2816,       0, 0,     0,   0, 0,  16384,   8192, 5e5f, false, false},
    {"qwen3-tiny",    "qwen3moe",   4,  256,   4,   2,  64,   768,      16, 4,   256,   0, 0,    512,   4096, 1e6f, false, false},
    {"llama-tiny",    "llama",      4,  256,   4,   2,  64,   768,       0, 0,     0,   0, 0,    512,   4096, 5e5f, false, false},
};
/* clang-format on */

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static int parse_short(const char *option, const char *text, uint64_t high, uint32_t *value)
{
    uint64_t n = *value;
    const int rc = mk_parse_u64(option, text, 1, high, &n);
    *value = (uint32_t)n;
    return rc;
}

static int take(void *user, int option, const char *text)
{
    random_model_options *o = user;
    switch (option) {
    case 'l':
        return parse_short("--layers", text, MAX_LAYERS, &o->n_layers);
    case 't':
        o->type = filler_parse_type(text);
        return o->type != GGML_TYPE_COUNT
                   ? MK_OK
                   : mk_usage_error("--type: '%s' is no type that can be made of random numbers, such as q4_K", text);
    case 's':
        return mk_parse_u64("--seed", text, 0, UINT64_MAX, &o->seed);
    case 'n':
        return parse_short("--parts", text, 99, &o->n_parts);
    case 'v':
        o->vocab_from = text;
        return MK_OK;
    case 'x':
        o->no_vocab = true;
        return MK_OK;
    case 'w':
        o->words = true;
        return MK_OK;
    default:
        o->progress = true;
        return MK_OK;
    }
}

static int parse(int argc, char **argv, random_model_options *o, const char *found[2])
{
    static const struct option options[] = {
        {"layers", required_argument, NULL, 'l'},     {"type", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},       {"parts", required_argument, NULL, 'n'},
        {"vocab-from", required_argument, NULL, 'v'}, {"no-vocab", no_argument, NULL, 'x'},
        {"words", no_argument, NULL, 'w'},            {"progress", no_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    const mk_words words = {.options = options, .take = take, .user = o, .names = {"NAME", "OUT"}};
    const int rc = mk_parse_words(&words, argc, argv, found);
    return rc == MK_OK && (o->vocab_from != NULL) + o->no_vocab + o->words > 1
               ? mk_usage_error("shape: --vocab-from, --no-vocab and --words exclude each other")
               : rc;
}

int mk_shape(int argc, char **argv)
{
    random_model_options o = {.type = GGML_TYPE_Q4_K, .seed = 1};
    const char *found[2];
    int rc = parse(argc, argv, &o, found);
    if (rc != MK_OK) {
        return rc;
    }
    for (size_t i = 0; i < N_SHAPES; i++) {
        if (strcmp(shapes[i].name, found[0]) == 0) {
            return random_model_write(&shapes[i], &o, found[1]);
        }
    }
    return mk_usage_error("shape: unknown name '%s'; 'mkmodel list' tells them", found[0]);
}

int mk_list(int argc, char **argv)
{
    if (argc != 1) {
        return mk_usage_error("list: unexpected argument '%s'", argv[1]);
    }
    printf("%-16s %-14s %6s %6s %7s %5s %6s %7s\n", "NAME", "ARCHITECTURE", "LAYERS", "EMBD", "EXPERTS", "TOP-K", "FF",
           "VOCAB");
    for (size_t i = 0; i < N_SHAPES; i++) {
        const model_shape *s = &shapes[i];
        printf("%-16s %-14s %6" PRIu32 " %6" PRIu32 " %7" PRIu32 " %5" PRIu32 " %6" PRIu32 " %7" PRIu32 "\n", s->name,
               s->arch, s->n_layers, s->n_embd, s->n_experts, s->top_k, s->n_experts > 0 ? s->n_ff_expert : s->n_ff,
               s->n_vocab);
    }
    return fflush(stdout) == 0 ? MK_OK : mk_fail("cannot write to standard output");
}
