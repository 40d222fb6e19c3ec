/* engine_fixture.c - see engine_fixture.h. */
#include "engine_fixture.h"

#include "engine/prepare/estimate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/hypura-engine-XXXXXX";

static const char *existing(const char *dir, const char *name, const char *made_by)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (access(path, R_OK) != 0) {
        print_message("SKIPPED: %s is not there: %s makes it\n", path, made_by);
        skip();
    }
    return path;
}

const char *fixture_model(const char *name)
{
    const char *dir = getenv("HYPURA_TEST_MODELS");
    return existing(dir ? dir : HYPURA_MODELS, name, "make models");
}

const char *fixture_words(const char *name)
{
    return existing(HYPURA_WORDS, name, "tests/server/clients/made.py");
}

const char *fixture_arch(const char *name)
{
    return existing(HYPURA_ARCHS, name, "llama.cpp's test-llama-archs");
}

const char *fixture_cache_dir(void)
{
    (void)mkdir(HYPURA_TEST_CACHE, 0777);
    return HYPURA_TEST_CACHE;
}

const char *fixture_path(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

void fixture_write(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

char *fixture_read(const char *path, size_t *n)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    *n = (size_t)about.st_size;
    char *bytes = malloc(*n + 1);
    FILE *file = fopen(path, "rb");
    assert_non_null(bytes);
    assert_non_null(file);
    assert_int_equal(fread(bytes, 1, *n, file), *n);
    fclose(file);
    return bytes;
}

void fixture_ok(hypura_status status, const hypura_error *error)
{
    if (status != HYPURA_OK) {
        print_error("%s: %s\n", hypura_status_name(status), error->message);
    }
    assert_int_equal(status, HYPURA_OK);
}

hypura_verify_options fixture_verify_options(const char *path, bool repack, bool resize)
{
    static const char *const engine = "pool";
    static const uint32_t ubatch = 16;
    return (hypura_verify_options){.model.path = path,
                                   .ubatches = &ubatch,
                                   .n_ubatches = 1,
                                   .io_engines = &engine,
                                   .n_io_engines = 1,
                                   .tokens = 3,
                                   .no_repack = !repack,
                                   .repack = repack,
                                   .resize = resize,
                                   .model.n_threads = 2};
}

hypura_verify_report fixture_verify(hypura_verify_options options)
{
    hypura_verify_report report;
    hypura_error error;
    options.model.cache_dir = fixture_cache_dir();
    fixture_ok(hypura_verify(&options, &report, &error), &error);
    if (!report.identical) {
        print_error("%s\n", options.model.path);
    }
    assert_true(report.identical);
    return report;
}

void fixture_fails(hypura_status wanted, hypura_status status, const hypura_error *error, const char *text)
{
    if (status != wanted || !strstr(error->message, text)) {
        print_error("%s: %s\nwanted %s with '%s'\n", hypura_status_name(status), error->message,
                    hypura_status_name(wanted), text);
    }
    assert_int_equal(status, wanted);
    assert_int_equal(error->status, wanted);
    assert_non_null(strstr(error->message, text));
}

uint64_t fixture_floor(const hypura_model_options *options)
{
    hypura_preparation prepared;
    hypura_error error;
    fixture_ok(hypura_prepare(options, NULL, true, &prepared, &error), &error);
    const uint64_t bytes = prepared.plan->floor_weights_bytes;
    hypura_prepare_clear(&prepared);
    return bytes;
}

hypura_model *fixture_open(const hypura_model_options *wanted)
{
    hypura_model_options options = *wanted;
    hypura_model *model = NULL;
    hypura_error error;
    options.cache_dir = fixture_cache_dir();
    options.n_context = options.n_context > 0 ? options.n_context : 256;
    options.n_threads = 1;
    fixture_ok(hypura_model_open(&options, &model, &error), &error);
    return model;
}

hypura_result fixture_generate(hypura_model *model, const hypura_generate_options *wanted)
{
    hypura_result result;
    hypura_error error;
    fixture_ok(hypura_generate(model, wanted, &result, &error), &error);
    assert_non_null(result.text);
    return result;
}

int fixture_setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

int fixture_teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}
