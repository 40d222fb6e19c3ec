/*
 * test_split.c - models in several files: named by any part, refused when parts
 * are missing, mixed up or renamed.
 */
#include "gguf/map.h"
#include "gguf/split.h"
#include "gguf_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N_PARTS = 3 };

/* Keys of the parts, and what is wrong with them. */
typedef struct parts {
    gguf_file file[N_PARTS];
    uint32_t count[N_PARTS];
    uint32_t number[N_PARTS];
    uint32_t n_tensors[N_PARTS];
    bool twice; /* the last part repeats a tensor of the first */
} parts;

static const char *const paths[N_PARTS] = {
    "dir/m-00001-of-00003.gguf",
    "dir/m-00002-of-00003.gguf",
    "dir/m-00003-of-00003.gguf",
};

static const parts sound = {.count = {3, 3, 3}, .number = {0, 1, 2}, .n_tensors = {3, 3, 3}};

static void build(parts *p)
{
    for (int i = 0; i < N_PARTS; i++) {
        gguf_file *file = &p->file[i];
        gguf_begin(file, 3);
        if (i == 0) {
            gguf_key_text(file, "general.architecture", "llama");
            gguf_key_u32(file, "llama.block_count", 1);
            gguf_key_u32(file, "llama.expert_count", 2);
            gguf_key_u32(file, "llama.expert_used_count", 1);
        }
        gguf_key_raw(file, "split.no", 2, p->number[i], 2);
        gguf_key_raw(file, "split.count", 2, p->count[i], 2);
        gguf_key_raw(file, "split.tensors.count", 5, p->n_tensors[i], 4);
        if (i == 1) {
            gguf_tensor(file, "blk.0.ffn_down_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2, 2));
            gguf_tensor(file, "token_embd.weight", GGUF_FILE_F32, GGUF_SHAPE(7));
        }
        if (i == 2) {
            const char *name = p->twice ? "token_embd.weight" : "blk.0.ffn_up_exps.weight";
            gguf_tensor(file, name, GGUF_FILE_F32, GGUF_SHAPE(2, 2, 2));
        }
        gguf_end(file);
    }
}

static void free_parts(parts *p)
{
    for (int i = 0; i < N_PARTS; i++) {
        gguf_file_free(&p->file[i]);
    }
}

/* `without`: the part that is not there, or -1. */
static hypura_status open_parts(const parts *p, const char *path, int without, hypura_map **map, hypura_error *error)
{
    gguf_folder_entry entries[N_PARTS + 1] = {{0}};
    int n = 0;
    for (int i = 0; i < N_PARTS; i++) {
        if (i != without) {
            entries[n++] = (gguf_folder_entry){paths[i], &p->file[i]};
        }
    }
    gguf_folder folder = {entries};
    if (error) {
        *error = (hypura_error){0};
    }
    return hypura_map_open_from(gguf_folder_open, &folder, path, map, error);
}

static void test_any_part(void **state)
{
    (void)state;
    parts p = sound;
    build(&p);
    for (int named = 0; named < N_PARTS; named++) {
        hypura_map *map;
        hypura_error error;
        if (open_parts(&p, paths[named], -1, &map, &error) != HYPURA_OK) {
            fail_msg("%s", error.message);
        }
        assert_string_equal(map->path, paths[named]);
        assert_string_equal(map->arch, "llama");
        assert_int_equal(map->n_files, N_PARTS);
        for (int i = 0; i < N_PARTS; i++) {
            assert_string_equal(map->files[i], paths[i]);
            assert_int_equal(map->file_bytes[i], p.file[i].bytes);
        }
        assert_int_equal(map->n_tensors, 3);
        assert_int_equal(map->tensors[0].file, 1);
        assert_int_equal(map->tensors[1].file, 1);
        assert_int_equal(map->tensors[2].file, 2);
        assert_int_equal(map->tensors[2].offset, p.file[2].bytes - 32);
        /* Matrices of one bundle may lie in different files. */
        assert_int_equal(map->n_bundles, 1);
        assert_int_equal(map->bundles[0].tensors[0], 2);
        assert_int_equal(map->bundles[0].tensors[1], 0);
        assert_int_equal(map->tensor_bytes, 32 + 28 + 32);
        hypura_map_close(map);
    }
    free_parts(&p);
}

static void test_missing_part(void **state)
{
    (void)state;
    parts p = sound;
    build(&p);
    for (int without = 0; without < N_PARTS; without++) {
        hypura_map *map;
        hypura_error error;
        assert_int_equal(open_parts(&p, paths[(without + 1) % N_PARTS], without, &map, &error), HYPURA_ERR_IO);
        char words[64];
        (void)snprintf(words, sizeof(words), "part %d of 3 is missing", without + 1);
        assert_non_null(strstr(error.message, words));
        assert_non_null(strstr(error.message, paths[without]));
        assert_null(map);
        assert_int_equal(open_parts(&p, paths[(without + 1) % N_PARTS], without, &map, NULL), HYPURA_ERR_IO);
        assert_null(map);
    }
    free_parts(&p);
}

static void expect(parts p, const char *path, const char *file, const char *words)
{
    build(&p);
    hypura_map *map;
    hypura_error error;
    hypura_status status = open_parts(&p, path, -1, &map, &error);
    if (status != HYPURA_ERR_FORMAT || strstr(error.message, file) == NULL || strstr(error.message, words) == NULL) {
        fail_msg("%s", error.message);
    }
    free_parts(&p);
}

static void test_inconsistent_parts(void **state)
{
    (void)state;
    parts p = sound;
    p.number[1] = 2;
    expect(p, paths[0], paths[1], "part 2 of 3");
    p = sound;
    p.number[0] = 1;
    expect(p, paths[0], paths[0], "part 1 of 3");
    p = sound;
    p.count[2] = 4;
    expect(p, paths[0], paths[2], "part 3 of 3");
    p = sound;
    p.count[0] = 4;
    expect(p, paths[0], paths[0], "give the parts their names back");
    p = sound;
    p.n_tensors[2] = 4;
    expect(p, paths[1], paths[2], "split.tensors.count' is 4, but the 3 parts hold 3 tensors");
    p = sound;
    p.twice = true;
    expect(p, paths[1], "dir/m-0000", "tensor 'token_embd.weight' occurs twice");
}

/* A damaged part is named, not the one the user gave. */
static void test_damaged_part(void **state)
{
    (void)state;
    parts p = sound;
    build(&p);
    p.file[2].bytes -= 1;
    hypura_map *map;
    hypura_error error;
    assert_int_equal(open_parts(&p, paths[0], -1, &map, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, paths[2]));
    assert_non_null(strstr(error.message, "truncated"));
    free_parts(&p);
}

static void test_renamed_part(void **state)
{
    (void)state;
    parts p = sound;
    build(&p);
    const gguf_folder_entry entries[] = {{"renamed.gguf", &p.file[0]}, {0}};
    gguf_folder folder = {entries};
    hypura_map *map;
    hypura_error error = {0};
    assert_int_equal(hypura_map_open_from(gguf_folder_open, &folder, "renamed.gguf", &map, &error), HYPURA_ERR_FORMAT);
    assert_non_null(strstr(error.message, "renamed.gguf: is one of 3 parts"));
    free_parts(&p);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "m.gguf",
        "-00001-of-00002.gguf",
        "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf",
        "m-0001-of-00002.gguf",
        "m-00001-of-00002.bin",
        "m_00001-of-00002.gguf",
        "m-00001_of-00002.gguf",
        "m-0000a-of-00002.gguf",
        "m-00001-of-00002.gguf ",
    };
    hypura_split_name name;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(hypura_split_parse(wrong[i], &name));
    }
    assert_true(hypura_split_parse("a/b-00012-of-00345.gguf", &name));
    assert_int_equal(name.prefix_bytes, 3);
    assert_int_equal(name.part, 12);
    assert_int_equal(name.n_parts, 345);
    hypura_arena arena = {0};
    assert_string_equal(hypura_split_path(&arena, "a/b-00012-of-00345.gguf", &name, 7), "a/b-00007-of-00345.gguf");
    hypura_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_part),           cmocka_unit_test(test_missing_part),
        cmocka_unit_test(test_inconsistent_parts), cmocka_unit_test(test_damaged_part),
        cmocka_unit_test(test_renamed_part),       cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
