/*
 * ask.c - libhypura in one page: open a model within a budget, continue a text,
 * say what it cost.
 *
 *     ask MODEL.gguf BUDGET_BYTES "text to continue"
 *
 * cc ask.c $(pkg-config --cflags --libs hypura)
 */
#include "hypura.h"

#include <stdio.h>
#include <stdlib.h>

static bool print_text(void *user, const char *text, size_t text_bytes)
{
    return fwrite(text, 1, text_bytes, user) == text_bytes;
}

static int complain(const char *what, const hypura_error *error)
{
    fprintf(stderr, "%s: %s\n", what, error->message);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: ask MODEL.gguf BUDGET_BYTES TEXT\n");
        return 2;
    }
    const hypura_model_options open = {
        .path = argv[1],
        .weights_bytes = strtoull(argv[2], NULL, 10),
        .n_context = 256,
        .cache_dir = ".", /* the machine is measured once and the profile kept here */
    };
    hypura_model *model = NULL;
    hypura_error  error = {0};
    if (hypura_model_open(&open, &model, &error) != HYPURA_OK) {
        return complain("open", &error);
    }
    const hypura_generate_options generate = {
        .prompt = argv[3],
        .raw = true,
        .max_tokens = 16,
        .on_text = print_text,
        .on_text_user = stdout,
    };
    hypura_result result = {0};
    if (hypura_generate(model, &generate, &result, &error) != HYPURA_OK) {
        hypura_model_close(model);
        return complain("generate", &error);
    }
    hypura_statistics statistics;
    hypura_model_statistics(model, &statistics);
    const hypura_plan *plan = hypura_model_plan(model);
    printf("\n%s: %llu bytes of weights held, %llu read for %u tokens\n", hypura_mode_name(plan->mode),
           (unsigned long long)plan->weights_bytes, (unsigned long long)statistics.bytes_read,
           result.prompt_tokens + result.tokens);
    hypura_result_clear(&result);
    hypura_model_close(model);
    return 0;
}
