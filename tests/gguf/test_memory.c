/*
 * test_memory.c - memory runs out at every allocation in turn: always
 * HYPURA_ERR_MEMORY, and nothing is left behind. Linked with --wrap.
 */
#include "gguf/map.h"
#include "gguf_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Allocations that still succeed; negative: no limit. */
static long allowed = -1;
static long alive;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void __real_free(void *block);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void __wrap_free(void *block);

static bool allow(void)
{
    return allowed < 0 || allowed-- > 0;
}

void *__wrap_malloc(size_t bytes)
{
    void *block = allow() ? __real_malloc(bytes) : NULL;
    alive += block != NULL;
    return block;
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    void *block = allow() ? __real_calloc(n, bytes) : NULL;
    alive += block != NULL;
    return block;
}

void *__wrap_realloc(void *old, size_t bytes)
{
    void *block = allow() ? __real_realloc(old, bytes) : NULL;
    alive += block != NULL && old == NULL;
    return block;
}

void __wrap_free(void *block)
{
    alive -= block != NULL;
    __real_free(block);
}

static void build(gguf_file *file, int part)
{
    gguf_begin(file, 3);
    gguf_key_text(file, "general.architecture", "llama");
    gguf_key_u32(file, "llama.block_count", 40);
    gguf_key_u32(file, "llama.expert_count", 2);
    gguf_key_u32(file, "llama.expert_used_count", 1);
    gguf_key_u32(file, "split.no", (uint32_t)part);
    gguf_key_u32(file, "split.count", 2);
    /* Enough keys and tensors that their arrays and arenas grow. */
    for (int i = 0; i < 1200; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "key.%d", i);
        gguf_key_text(file, name, "text");
    }
    for (int i = 0; i < 40; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "blk.%d.ffn_%s_exps.weight", i, part == 0 ? "up" : "down");
        gguf_tensor(file, name, GGUF_FILE_F32, GGUF_SHAPE(1, 1, 2));
    }
    gguf_end(file);
}

static void test_every_allocation(void **state)
{
    (void)state;
    gguf_file files[2];
    build(&files[0], 0);
    build(&files[1], 1);
    const gguf_folder_entry entries[] = {
        {"m-00001-of-00002.gguf", &files[0]}, {"m-00002-of-00002.gguf", &files[1]}, {0}};
    gguf_folder folder = {entries};
    long before = alive;
    long n = 0;
    for (;; n++) {
        assert_true(n < 10000);
        hypura_map *map;
        hypura_error error = {0};
        allowed = n;
        hypura_status status = hypura_map_open_from(gguf_folder_open, &folder, entries[1].path, &map, &error);
        allowed = -1;
        if (status == HYPURA_OK) {
            assert_int_equal(map->n_bundles, 40);
            hypura_map_close(map);
            assert_int_equal(alive, before);
            break;
        }
        assert_int_equal(status, HYPURA_ERR_MEMORY);
        assert_non_null(strstr(error.message, "out of memory"));
        assert_null(map);
        assert_int_equal(alive, before);
    }
    /* As many failures as there were allocations. */
    assert_true(n > 10);
    gguf_file_free(&files[0]);
    gguf_file_free(&files[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
