/*
 * tiny.c - `mkmodel tiny`: the models that tests run on, each below 5 MB, all but one below 1 MB.
 *
 * Together they cover what the handling of weights depends on: every common quant
 * format, slices that are multiples of no disk block, types mixed within an expert,
 * fused gate and up, shared experts, dense layers ahead of experts, tied
 * embeddings, split files, and no vocabulary.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "mkmodel.h"
#include "random_model.h"
#include "vocab.h"

enum { N_VOCAB = VOCAB_BYTES_TOKENS };

/* clang-format off */
/* moe_odd has slices of 4440 bytes in f16; moe_k has rows of whole K-quant blocks in
 * every matrix, moe_kmix not in the down matrix, which becomes q8_0. */
static const model_shape
    /*                            layers embd heads kv head  ff       experts k ff shared lead  vocab context rope  tied   fused */
    moe       = {"moe",       "llama",         3,  64, 2, 1, 32,   0,       8, 2,  32,   0, 0, N_VOCAB, 512, 1e4f, false, false},
    moe_tied  = {"moe-tied",  "llama",         3,  64, 2, 1, 32,   0,       8, 2,  32,   0, 0, N_VOCAB, 512, 1e4f, true,  false},
    moe_odd   = {"moe-odd",   "llama",         3,  60, 3, 1, 20,   0,       5, 3,  37,   0, 0, N_VOCAB, 512, 1e4f, false, false},
    moe_k     = {"moe-k",     "llama",         2, 256, 4, 1, 64,   0,       3, 2, 256,   0, 0, N_VOCAB, 512, 1e4f, true,  false},
    moe_kmix  = {"moe-kmix",  "llama",         2, 256, 4, 1, 64,   0,       6, 2,  64,   0, 0, N_VOCAB, 512, 1e4f, true,  false},
    moe_lead  = {"moe-lead",  "ernie4_5-moe",  3,  64, 2, 1, 32, 160,       8, 2,  32,  64, 1, N_VOCAB, 512, 1e4f, true,  false},
    moe_fused = {"moe-fused", "deepseek2-ocr", 3,  64, 2, 2, 32, 160,       8, 2,  32,  32, 1, N_VOCAB, 512, 1e4f, false, true},
    moe_qwen3 = {"moe-qwen3", "qwen3moe",      3,  64, 4, 2, 32, 160,      16, 4,  32,   0, 0, N_VOCAB, 512, 1e4f, false, false},
    moe_deep  = {"moe-deep",  "qwen3moe",     12,  64, 4, 2, 32, 160,      16, 4,  96,   0, 0, N_VOCAB, 4096, 1e4f, false, false},
    moe_olmoe = {"moe-olmoe", "olmoe",         3,  64, 2, 2, 32,   0,      16, 4,  32,   0, 0, N_VOCAB, 512, 1e4f, false, false},
    dense     = {"dense",     "llama",         3,  64, 2, 1, 32, 160,       0, 0,   0,   0, 0, N_VOCAB, 512, 1e4f, false, false},
    dense_tied= {"dense-tied","qwen3",         3,  64, 4, 2, 32, 160,       0, 0,   0,   0, 0, N_VOCAB, 512, 1e4f, true,  false},
    dense_odd = {"dense-odd", "llama",         3,  60, 3, 1, 20, 149,       0, 0,   0,   0, 0, N_VOCAB, 512, 1e4f, false, false},
    dense_k   = {"dense-k",   "llama",         2, 256, 4, 1, 64, 256,       0, 0,   0,   0, 0, N_VOCAB, 512, 1e4f, false, false};

static const struct fixture {
    const char        *file; /* without .gguf */
    const model_shape *shape;
    enum ggml_type     type;
    uint32_t           n_parts;
    bool               no_vocab;
} fixtures[] = {
    {"moe-f32",          &moe,        GGML_TYPE_F32,    1, false},
    {"moe-f16",          &moe,        GGML_TYPE_F16,    1, false},
    {"moe-bf16",         &moe,        GGML_TYPE_BF16,   1, false},
    {"moe-q4_0",         &moe,        GGML_TYPE_Q4_0,   1, false},
    {"moe-q4_1",         &moe,        GGML_TYPE_Q4_1,   1, false},
    {"moe-q5_1",         &moe,        GGML_TYPE_Q5_1,   1, false},
    {"moe-q8_0",         &moe,        GGML_TYPE_Q8_0,   1, false},
    {"moe-mxfp4",        &moe,        GGML_TYPE_MXFP4,  1, false},
    {"moe-iq4_nl",       &moe,        GGML_TYPE_IQ4_NL, 1, false},
    {"moe-q4_K",         &moe_k,      GGML_TYPE_Q4_K,   1, false},
    {"moe-q6_K",         &moe_kmix,   GGML_TYPE_Q6_K,   1, false},
    {"moe-odd-f16",      &moe_odd,    GGML_TYPE_F16,    1, false},
    {"moe-odd-f32",      &moe_odd,    GGML_TYPE_F32,    1, false},
    {"moe-tied-q8_0",    &moe_tied,   GGML_TYPE_Q8_0,   1, false},
    {"moe-lead-q4_0",    &moe_lead,   GGML_TYPE_Q4_0,   1, false},
    {"moe-fused-q8_0",   &moe_fused,  GGML_TYPE_Q8_0,   1, false},
    {"moe-qwen3-q4_0",   &moe_qwen3,  GGML_TYPE_Q4_0,   1, false},
    {"moe-deep-q8_0",    &moe_deep,   GGML_TYPE_Q8_0,   1, false},
    {"moe-olmoe-q8_0",   &moe_olmoe,  GGML_TYPE_Q8_0,   1, false},
    {"moe-split-q4_0",   &moe,        GGML_TYPE_Q4_0,   3, false},
    {"moe-novocab-q4_0", &moe,        GGML_TYPE_Q4_0,   1, true},
    {"dense-f32",        &dense,      GGML_TYPE_F32,    1, false},
    {"dense-f16",        &dense,      GGML_TYPE_F16,    1, false},
    {"dense-bf16",       &dense,      GGML_TYPE_BF16,   1, false},
    {"dense-q4_0",       &dense,      GGML_TYPE_Q4_0,   1, false},
    {"dense-q4_1",       &dense,      GGML_TYPE_Q4_1,   1, false},
    {"dense-q5_1",       &dense,      GGML_TYPE_Q5_1,   1, false},
    {"dense-q8_0",       &dense,      GGML_TYPE_Q8_0,   1, false},
    {"dense-mxfp4",      &dense,      GGML_TYPE_MXFP4,  1, false},
    {"dense-iq4_nl",     &dense,      GGML_TYPE_IQ4_NL, 1, false},
    {"dense-q4_K",       &dense_k,    GGML_TYPE_Q4_K,   1, false},
    {"dense-q6_K",       &dense_k,    GGML_TYPE_Q6_K,   1, false},
    {"dense-odd-f16",    &dense_odd,  GGML_TYPE_F16,    1, false},
    {"dense-tied-q8_0",  &dense_tied, GGML_TYPE_Q8_0,   1, false},
    {"dense-split-q8_0", &dense,      GGML_TYPE_Q8_0,   2, false},
};
/* clang-format on */

int mk_tiny(int argc, char **argv)
{
    if (argc != 2 || argv[1][0] == '-') {
        return mk_usage_error("tiny: DIR is needed");
    }
    const char *folder = argv[1];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
        return mk_fail("cannot create folder '%s': %s", folder, strerror(errno));
    }
    int rc = MK_OK;
    for (size_t i = 0; rc == MK_OK && i < sizeof fixtures / sizeof fixtures[0]; i++) {
        const struct fixture *f = &fixtures[i];
        random_model_options o = {
            .type = f->type, .seed = i + 1, .n_parts = f->n_parts, .no_vocab = f->no_vocab, .quiet = true};
        char path[4096];
        int used = snprintf(path, sizeof path, "%s/%s.gguf", folder, f->file);
        rc =
            used < (int)sizeof path ? random_model_write(f->shape, &o, path) : mk_fail("name '%s' is too long", folder);
    }
    return rc;
}
