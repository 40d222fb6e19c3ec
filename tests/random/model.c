/* model.c - see drawn.h: models. */
#include "drawn.h"

#include "mkmodel.h"
#include "random_model.h"
#include "vocab.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What random_model.c reports with; the program has its own. */
volatile sig_atomic_t mk_interrupted;

int mk_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    return MK_FAILURE;
}

int mk_usage_error(const char *format, ...)
{
    (void)format;
    return MK_USAGE;
}

/* ---- a shape ------------------------------------------------------------------- */

typedef struct kind {
    const char *arch;
    bool mixture, shared, shared_is_count, lead, fused;
} kind;

static const kind kinds[] = {
    {"llama", true, false, false, false, false},       {"qwen3moe", true, false, false, false, false},
    {"qwen3moe", true, false, false, false, false},    {"olmoe", true, false, false, false, false},
    {"ernie4_5-moe", true, true, false, true, false},  {"deepseek2-ocr", true, true, true, true, true},
    {"deepseek2-ocr", true, true, true, true, false},  {"llama", false, false, false, false, false},
    {"qwen3", false, false, false, false, false},
};

static const enum ggml_type types[] = {
    GGML_TYPE_F32,  GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q4_0,   GGML_TYPE_Q4_0,    GGML_TYPE_Q4_1,   GGML_TYPE_Q5_0,
    GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, GGML_TYPE_Q2_K,   GGML_TYPE_Q3_K,    GGML_TYPE_Q4_K,   GGML_TYPE_Q4_K,
    GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_MXFP4, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,
};

enum { N_KINDS = sizeof kinds / sizeof *kinds, N_TYPES = sizeof types / sizeof *types };

static uint32_t pick(rng *r, const uint32_t *values, uint32_t n)
{
    return values[rng_below(r, n)];
}
#define PICK(r, ...) pick(r, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* Widths that fit a type's blocks, or none of them. */
static void draw_widths(rng *r, const kind *k, bool blocks_of_256, bool odd, model_shape *s)
{
    s->head_size = odd ? PICK(r, 20, 36) : blocks_of_256 ? 64 : PICK(r, 32, 64);
    /* whose heads make up the width, each with keys of its own */
    const bool all = strcmp(k->arch, "olmoe") == 0 || strcmp(k->arch, "deepseek2-ocr") == 0;
    s->n_heads = odd ? 3 : blocks_of_256 ? 4 : PICK(r, 2, 4);
    s->n_heads_kv = all ? s->n_heads : odd ? 1 : PICK(r, 1, 2);
    s->n_embd = odd || all ? s->head_size * s->n_heads : blocks_of_256 ? 256 : PICK(r, 64, 96, 128);
    s->n_ff = odd ? PICK(r, 149, 51) : blocks_of_256 ? PICK(r, 256, 512) : PICK(r, 96, 160, 320);
    s->n_ff_expert = odd ? PICK(r, 37, 61) : blocks_of_256 ? PICK(r, 64, 256) : PICK(r, 32, 64, 96, 160);
    s->n_ff_shared = !k->shared ? 0 : k->shared_is_count ? s->n_ff_expert * PICK(r, 1, 2) : odd ? 53 : PICK(r, 32, 64);
}

static bool make_shape(rng *r, const char *path, uint64_t seed, const model_shape *like, drawn_model *m)
{
    const kind *k = like ? &kinds[N_KINDS - 1 - rng_below(r, 2)] : &kinds[rng_below(r, N_KINDS)];
    random_model_options o = {.type = types[rng_below(r, N_TYPES)], .seed = seed, .quiet = true};
    model_shape s = {.name = "random", .arch = k->arch, .n_vocab = VOCAB_BYTES_TOKENS, .n_context = 4096, .rope_base = 1e4f};
    o.mixed = drawn_chance(r, 45);
    o.other_type = types[rng_below(r, N_TYPES)];
    const bool blocks_of_256 = ggml_blck_size(o.type) == 256 || (o.mixed && ggml_blck_size(o.other_type) == 256);
    draw_widths(r, k, blocks_of_256, !blocks_of_256 && drawn_chance(r, 15), &s);
    s.n_layers = like ? 2 : PICK(r, 1, 2, 3, 4, 6, 8, 12);
    s.n_dense_lead = k->lead ? (s.n_layers > 1 ? PICK(r, 0, 1) : 0) : 0;
    if (strcmp(k->arch, "deepseek2-ocr") == 0 && s.n_layers > 1) {
        s.n_dense_lead = 1;
    }
    s.n_experts = k->mixture ? PICK(r, 2, 3, 4, 5, 8, 8, 16, 16, 32, 64) : 0;
    s.top_k = k->mixture ? drawn_between(r, 1, s.n_experts < 8 ? s.n_experts : 8) : 0;
    s.tied = drawn_chance(r, 30) && strcmp(k->arch, "olmoe") != 0;
    s.fused_gate_up = k->fused;
    s.n_vocab += drawn_chance(r, 30) ? PICK(r, 1, 61, 253) : 0;
    o.n_parts = drawn_chance(r, 12) ? PICK(r, 2, 3) : 1;
    o.no_vocab = !like && drawn_chance(r, 10);
    if (like) {
        s.n_vocab = like->n_vocab;
        o.n_parts = 1;
    }
    if (random_model_write(&s, &o, path) != MK_OK) {
        return false;
    }
    if (like) {
        return true;
    }
    if (o.n_parts > 1) {
        char *end = m->path + strlen(m->path) - strlen(".gguf");
        snprintf(end, (size_t)(m->path + sizeof m->path - end), "-00001-of-%05u.gguf", o.n_parts);
    }
    m->is_mixture = k->mixture;
    m->has_text = !o.no_vocab;
    m->most_context = s.n_context;
    snprintf(m->text, sizeof m->text, "%s %s%s%s layers %u embd %u ff %u/%u/%u experts %u of %u lead %u vocab %u parts %u%s%s", s.arch,
             ggml_type_name(o.type), o.mixed ? "+" : "", o.mixed ? ggml_type_name(o.other_type) : "", s.n_layers, s.n_embd, s.n_ff,
             s.n_ff_expert, s.n_ff_shared, s.top_k, s.n_experts, s.n_dense_lead, s.n_vocab, o.n_parts, s.tied ? " tied" : "",
             s.fused_gate_up ? " fused" : "");
    if (m->has_text && drawn_chance(r, 30)) {
        char draft[DRAWN_PATH_BYTES];
        snprintf(draft, sizeof draft, "%.*sdraft.gguf", (int)(strlen(path) - strlen("model.gguf")), path);
        if (!make_shape(r, draft, seed + 1, &s, m)) {
            return false;
        }
        snprintf(m->draft, sizeof m->draft, "%s", draft);
    }
    return true;
}

/* ---- an architecture --------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool take_arch(rng *r, const char *folder, drawn_model *m)
{
    enum { MOST = 512 };
    char *names[MOST];
    int   n = 0;
    DIR  *dir = opendir(folder);
    for (struct dirent *e; dir && n < MOST && (e = readdir(dir));) {
        if (strstr(e->d_name, ".gguf") && !strstr(e->d_name, ".records")) {
            names[n++] = strdup(e->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
    if (n == 0) {
        printf("no model in %s\n", folder);
        return false;
    }
    qsort(names, (size_t)n, sizeof *names, by_name);
    const char *name = names[rng_below(r, (uint64_t)n)];
    snprintf(m->path, sizeof m->path, "%s/%s", folder, name);
    snprintf(m->text, sizeof m->text, "%s", name);
    m->is_mixture = strstr(name, "-moe.gguf") != NULL;
    for (int i = 0; i < n; i++) {
        free(names[i]);
    }
    return true;
}

/* ---- both, and adapters ------------------------------------------------------------ */

static bool make_adapter(rng *r, const drawn_files *files, drawn_model *m, int i)
{
    char command[4 * DRAWN_PATH_BYTES];
    snprintf(m->adapters[i], DRAWN_PATH_BYTES, "%s/adapter-%d.gguf", files->folder, i);
    snprintf(command, sizeof command, "'%s' lora '%s' '%s' --rank %u --seed %u %s > /dev/null 2>&1", files->mkmodel, m->path,
             m->adapters[i], drawn_between(r, 1, 8), drawn_between(r, 1, 1000), drawn_chance(r, 30) ? "--embeddings" : "");
    return system(command) == 0;
}

bool drawn_make_model(rng *r, const drawn_files *files, drawn_model *m)
{
    memset(m, 0, sizeof *m);
    const uint64_t seed = rng_next(r);
    snprintf(m->path, sizeof m->path, "%s/model.gguf", files->folder);
    const bool made = files->archs && drawn_chance(r, 25) ? take_arch(r, files->archs, m) : make_shape(r, m->path, seed, NULL, m);
    if (!made) {
        return false;
    }
    const int n = drawn_chance(r, 20) ? (int)drawn_between(r, 1, DRAWN_ADAPTERS) : 0;
    while (m->n_adapters < n && make_adapter(r, files, m, m->n_adapters)) {
        m->n_adapters++;
    }
    m->optimized = m->is_mixture && m->most_context > 0 && drawn_chance(r, 20);
    return true;
}
