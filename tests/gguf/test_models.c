/*
 * test_models.c - real files, where they have been made: the demonstration
 * models (make models) and the tiny ones that llama.cpp's test-llama-archs
 * writes for every architecture it knows. Compared with gguf.h, llama.cpp's own
 * reader.
 */
#include "hypura.h"

#include "gguf.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static hypura_map *open_map(const char *path)
{
    hypura_map *map;
    hypura_error error = {0};
    if (hypura_map_open(path, &map, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return map;
}

static void compare(const char *path, const hypura_map *map)
{
    struct gguf_context *gguf = gguf_init_from_file(path, (struct gguf_init_params){.no_alloc = true});
    assert_non_null(gguf);
    assert_int_equal(map->n_tensors, gguf_get_n_tensors(gguf));
    uint64_t bytes = 0;
    for (int i = 0; i < map->n_tensors; i++) {
        const hypura_tensor *t = &map->tensors[i];
        assert_string_equal(t->name, gguf_get_tensor_name(gguf, i));
        assert_int_equal(t->type, gguf_get_tensor_type(gguf, i));
        assert_int_equal(t->bytes, gguf_get_tensor_size(gguf, i));
        assert_int_equal(t->offset, gguf_get_data_offset(gguf) + gguf_get_tensor_offset(gguf, i));
        bytes += t->bytes;
    }
    assert_int_equal(map->tensor_bytes, bytes);
    gguf_free(gguf);
}

static int count(const hypura_map *map, hypura_role role)
{
    int n = 0;
    for (int i = 0; i < map->n_tensors; i++) {
        n += map->tensors[i].role == role;
    }
    return n;
}

/* True when the model is there. */
static bool have(const char *path)
{
    if (access(path, R_OK) != 0) {
        print_message("%s is not there: make models makes it\n", path);
        return false;
    }
    return true;
}

static void test_dense_model(void **state)
{
    (void)state;
    const char *path = HYPURA_MODELS "/smollm2-135m.gguf";
    if (!have(path)) {
        skip();
    }
    hypura_map *map = open_map(path);
    compare(path, map);
    assert_string_equal(map->arch, "llama");
    assert_int_equal(map->n_layers, 30);
    assert_int_equal(map->n_experts, 0);
    assert_int_equal(map->n_bundles, 0);
    assert_int_equal(map->embedding_length, 576);
    assert_int_equal(map->n_tensors, 272);
    assert_int_equal(count(map, HYPURA_ROLE_FFN), 90);
    assert_int_equal(count(map, HYPURA_ROLE_EMBEDDING), 1);
    assert_int_equal(count(map, HYPURA_ROLE_OUTPUT), 0);
    hypura_map_close(map);
}

static void test_expert_model(void **state)
{
    (void)state;
    const char *path = HYPURA_MODELS "/smollm2-8x135m.gguf";
    if (!have(path)) {
        skip();
    }
    hypura_map *map = open_map(path);
    compare(path, map);
    assert_int_equal(map->n_experts, 8);
    assert_int_equal(map->n_experts_used, 2);
    assert_int_equal(map->n_bundles, 30);
    for (int i = 0; i < map->n_bundles; i++) {
        assert_int_equal(map->bundles[i].layer, i);
        assert_int_equal(map->bundles[i].n_experts, 8);
        assert_int_equal(map->bundles[i].n_tensors, 3);
    }
    hypura_map_close(map);
}

/* A file is read as llama.cpp reads it, and whatever llama.cpp multiplies by
 * selected experts is an expert matrix in a bundle. */
static void check_architecture(const char *path)
{
    hypura_map *map = open_map(path);
    compare(path, map);
    int experts = 0;
    for (int i = 0; i < map->n_tensors; i++) {
        const hypura_tensor *t = &map->tensors[i];
        bool matrix = strstr(t->name, "exps.weight") != NULL && strstr(t->name, "norm") == NULL;
        if (matrix != (t->role == HYPURA_ROLE_EXPERT) || matrix != (t->bundle >= 0)) {
            fail_msg("%s: %s is %s in bundle %d", path, t->name, hypura_role_name(t->role), t->bundle);
        }
        experts += matrix;
    }
    assert_int_equal(experts > 0, map->n_bundles > 0);
    assert_int_equal(experts > 0, map->n_experts > 0);
    /* An expert has a matrix into the hidden layer and one out of it. */
    for (int i = 0; i < map->n_bundles; i++) {
        const hypura_bundle *bundle = &map->bundles[i];
        assert_true(bundle->n_tensors >= 2);
        assert_non_null(strstr(map->tensors[bundle->tensors[bundle->n_tensors - 1]].name, "ffn_down"));
    }
    hypura_map_close(map);
}

static void test_architectures(void **state)
{
    (void)state;
    DIR *folder = opendir(HYPURA_ARCHS);
    int n = 0;
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (strstr(entry->d_name, ".gguf") != NULL) {
            char path[4096];
            (void)snprintf(path, sizeof(path), "%s/%s", HYPURA_ARCHS, entry->d_name);
            check_architecture(path);
            n++;
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    if (n == 0) {
        print_message("%s holds no models: test-llama-archs -o writes them\n", HYPURA_ARCHS);
        skip();
    }
    print_message("%d models\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_model),
        cmocka_unit_test(test_expert_model),
        cmocka_unit_test(test_architectures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
