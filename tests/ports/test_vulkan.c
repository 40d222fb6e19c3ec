/*
 * test_vulkan.c - plain libllama on ggml's Vulkan backend, loaded as a module, on
 * Mesa's device without a GPU: what the GPU tier is built over works by itself, its
 * experts are multiplied there, and the logits are those of the CPU but for rounding.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ggml-backend.h"
#include "hw/modules.h"
#include "llama.h"

#include <stdlib.h>
#include <string.h>

enum { N_PROMPT = 9, N_STEPS = 4 };

static ggml_backend_dev_t vulkan;

static void discard_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user;
}

/* Counts the multiplications with experts whose results lie on the device. */
static bool on_node(struct ggml_tensor *tensor, bool ask, void *user)
{
    if (ask) {
        return tensor->op == GGML_OP_MUL_MAT_ID;
    }
    ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(tensor->buffer);
    *(int *)user += ggml_backend_buft_get_device(type) == vulkan;
    return true;
}

/* Logits of each step, n_vocab apart; n_there as above. */
static float *logits_of(const char *path, ggml_backend_dev_t device, int *n_vocab, int *n_there)
{
    ggml_backend_dev_t devices[] = {device, NULL};
    struct llama_model_params how = llama_model_default_params();
    how.devices = devices;
    how.n_gpu_layers = 99;
    struct llama_model *model = llama_model_load_from_file(path, how);
    assert_non_null(model);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 64;
    params.n_threads = params.n_threads_batch = 1;
    params.cb_eval = on_node;
    params.cb_eval_user_data = n_there;
    *n_there = 0;
    struct llama_context *context = llama_init_from_model(model, params);
    assert_non_null(context);

    *n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    const size_t row_bytes = (size_t)*n_vocab * sizeof(float);
    float *logits = calloc(N_STEPS, row_bytes);
    assert_non_null(logits);
    llama_token tokens[N_PROMPT + N_STEPS];
    for (int i = 0; i < N_PROMPT + N_STEPS; i++) {
        tokens[i] = (3 + 17 * i) % *n_vocab;
    }
    for (int step = 0; step < N_STEPS; step++) {
        struct llama_batch batch =
            step == 0 ? llama_batch_get_one(tokens, N_PROMPT) : llama_batch_get_one(tokens + N_PROMPT + step, 1);
        assert_int_equal(llama_decode(context, batch), 0);
        memcpy(logits + (size_t)step * (size_t)*n_vocab, llama_get_logits_ith(context, -1), row_bytes);
    }
    llama_free(context);
    llama_model_free(model);
    return logits;
}

static void is_found(void **state)
{
    (void)state;
    assert_true(hypura_modules_load(HYPURA_MODULES) >= 1);
    const size_t n_devices = ggml_backend_dev_count();
    assert_non_null(vulkan = ggml_backend_dev_by_name("Vulkan0"));
    assert_non_null(strstr(ggml_backend_dev_description(vulkan), "llvmpipe"));
    /* Once only. */
    assert_true(hypura_modules_load(HYPURA_MODULES) >= 1);
    assert_int_equal(ggml_backend_dev_count(), n_devices);
    /* No modules are no error. */
    assert_true(hypura_modules_load("/nonexistent") >= 1);
}

static void computes_as_the_cpu(void **state)
{
    (void)state;
    static const char *const names[] = {"moe-q8_0.gguf", "dense-q4_0.gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", HYPURA_TINY, names[i]);
        int n_vocab = 0, n_there = 0, n_none = 0;
        float *there = logits_of(path, vulkan, &n_vocab, &n_there);
        float *here = logits_of(path, NULL, &n_vocab, &n_none);
        double error = 0, square = 0;
        for (int j = 0; j < n_vocab * N_STEPS; j++) {
            const double difference = (double)there[j] - (double)here[j];
            error += difference * difference;
            square += (double)here[j] * (double)here[j];
        }
        print_message("%s: %d results of experts on the device, error %.2g of the square\n", names[i], n_there, error / square);
        assert_true(square > 0);
        assert_true(error < 1e-3 * square);
        assert_int_equal(n_none, 0);
        assert_int_equal(n_there > 0, strstr(names[i], "moe") != NULL);
        free(there);
        free(here);
    }
}

int main(void)
{
    llama_log_set(discard_log, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_found),
        cmocka_unit_test(computes_as_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
