/*
 * test_map.c - what a map says of sound files: numbers, places, roles, bundles.
 */
#include "gguf/map.h"
#include "gguf_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static hypura_map *open_file(const gguf_file *file)
{
    const gguf_folder_entry entries[] = {{"m.gguf", file}, {0}};
    gguf_folder folder = {entries};
    hypura_error error = {0};
    hypura_map *map;
    if (hypura_map_open_from(gguf_folder_open, &folder, "m.gguf", &map, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return map;
}

static void begin_model(gguf_file *file, uint32_t n_layers)
{
    gguf_begin(file, 3);
    gguf_key_text(file, "general.architecture", "llama");
    gguf_key_u32(file, "llama.block_count", n_layers);
}

static void begin_experts(gguf_file *file, uint32_t n_layers, uint32_t n_experts)
{
    begin_model(file, n_layers);
    gguf_key_u32(file, "llama.expert_count", n_experts);
    gguf_key_u32(file, "llama.expert_used_count", 1);
}

static const hypura_tensor *find(const hypura_map *map, const char *name)
{
    int i = hypura_map_find(map, name);
    assert_true(i >= 0);
    return &map->tensors[i];
}

static void test_numbers(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file, 7);
    gguf_key_text(&file, "general.name", "a name");
    gguf_key_u32(&file, "llama.context_length", 4096);
    gguf_key_raw(&file, "llama.embedding_length", 10, 576, 8);
    gguf_tensor(&file, "token_embd.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 3));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_string_equal(map->path, "m.gguf");
    assert_string_equal(map->arch, "llama");
    assert_string_equal(map->name, "a name");
    assert_int_equal(map->n_layers, 7);
    assert_int_equal(map->n_experts, 0);
    assert_int_equal(map->context_length, 4096);
    assert_int_equal(map->embedding_length, 576);
    assert_int_equal(map->n_files, 1);
    assert_string_equal(map->files[0], "m.gguf");
    assert_int_equal(map->file_bytes[0], file.bytes);
    assert_int_equal(map->n_tensors, 1);
    assert_int_equal(map->tensor_bytes, 24);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void test_missing_numbers_are_zero(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file, 1);
    gguf_tensor(&file, "token_embd.weight", GGUF_FILE_F32, GGUF_SHAPE(1));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_string_equal(map->name, "");
    assert_int_equal(map->context_length, 0);
    assert_int_equal(map->embedding_length, 0);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void test_name_is_made_printable(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"a\033[31mb", "a?[31mb"},
        {"\xc2\xb5 \xc3\xb6\xe2\x82\xac", "\xc2\xb5 \xc3\xb6\xe2\x82\xac"},
        {"\xc1\xb5", "??"}, /* too long a form */
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        gguf_file file;
        begin_model(&file, 1);
        gguf_key_text(&file, "general.name", names[i][0]);
        gguf_tensor(&file, "token_embd.weight", GGUF_FILE_F32, GGUF_SHAPE(1));
        gguf_end(&file);
        hypura_map *map = open_file(&file);
        assert_string_equal(map->name, names[i][1]);
        hypura_map_close(map);
        gguf_file_free(&file);
    }
}

/* Every kind of value is walked over to what follows it. */
static void test_other_keys_are_skipped(void **state)
{
    (void)state;
    char *long_text = malloc(5001);
    assert_non_null(long_text);
    memset(long_text, 'x', 5000);
    long_text[5000] = '\0';
    static const size_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    gguf_file file;
    gguf_begin(&file, 3);
    for (uint32_t type = 0; type < 13; type++) {
        char name[] = {'k', (char)('a' + type), '\0'};
        if (bytes[type] > 0) {
            gguf_key_raw(&file, name, type, UINT64_MAX, bytes[type]);
        }
    }
    gguf_key_text(&file, "tokenizer.chat_template", long_text);
    gguf_key_texts(&file, "tokenizer.ggml.tokens", (const char *const[]){"a", "", long_text}, 3);
    gguf_key_u32s(&file, "tokenizer.ggml.token_type", (const uint32_t[]){1, 2, 3}, 3);
    gguf_key_u32s(&file, "empty", NULL, 0);
    gguf_key_text(&file, "general.architecture", "llama");
    gguf_key_u32(&file, "llama.block_count", 3);
    gguf_tensor(&file, "token_embd.weight", GGUF_FILE_F32, GGUF_SHAPE(1));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_layers, 3);
    assert_int_equal(map->tensors[0].offset, file.bytes - 32);
    hypura_map_close(map);
    gguf_file_free(&file);
    free(long_text);
}

/* A header larger than the reader's buffer, with values across its edges. */
static void test_large_header(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file, 4000);
    for (int i = 0; i < 4000; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "blk.%d.ffn_up.weight", i);
        gguf_tensor(&file, name, GGUF_FILE_F32, GGUF_SHAPE(1 + i % 5, 2));
    }
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_tensors, 4000);
    for (int i = 0; i < 4000; i++) {
        assert_int_equal(map->tensors[i].layer, i);
        assert_int_equal(map->tensors[i].ne[0], 1 + i % 5);
        assert_int_equal(map->tensors[i].role, HYPURA_ROLE_FFN);
    }
    assert_int_equal(hypura_map_find(map, "blk.3999.ffn_up.weight"), 3999);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void check_placement(uint32_t version, uint32_t alignment)
{
    gguf_file file;
    gguf_begin(&file, version);
    gguf_key_text(&file, "general.architecture", "llama");
    gguf_key_u32(&file, "llama.block_count", 1);
    gguf_key_u32(&file, "general.alignment", alignment);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(3, 5));
    gguf_tensor(&file, "b", GGUF_FILE_Q4_0, GGUF_SHAPE(64, 2, 3));
    gguf_tensor(&file, "c", GGUF_FILE_Q8_0, GGUF_SHAPE(32, 1, 1, 2));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    const hypura_tensor *a = find(map, "a");
    const hypura_tensor *b = find(map, "b");
    const hypura_tensor *c = find(map, "c");
    assert_int_equal(a->bytes, 60);
    assert_int_equal(a->row_bytes, 12);
    assert_string_equal(a->type_name, "f32");
    assert_int_equal(a->offset % alignment, 0);
    assert_int_equal(a->offset, file.bytes - file.data_bytes);
    /* The data is a known sequence from its first byte. */
    assert_int_equal(file.data[a->offset + 1], 1);
    assert_int_equal(b->type, GGUF_FILE_Q4_0);
    assert_int_equal(b->row_bytes, 36);
    assert_int_equal(b->bytes, 216);
    assert_int_equal(b->n_dims, 3);
    assert_int_equal(b->ne[2], 3);
    assert_int_equal(b->ne[3], 1);
    assert_int_equal(b->offset, a->offset + (60 + alignment - 1) / alignment * alignment);
    assert_int_equal(c->bytes, 68);
    assert_int_equal(c->n_dims, 4);
    assert_int_equal(map->tensor_bytes, 60 + 216 + 68);
    assert_int_equal(hypura_map_find(map, "d"), -1);
    assert_int_equal(hypura_map_find(map, ""), -1);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void test_placement(void **state)
{
    (void)state;
    check_placement(2, 32);
    check_placement(3, 32);
    check_placement(3, 1);
    check_placement(3, 4096);
}

static void test_roles(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        hypura_role role;
        int layer;
    } cases[] = {
        {"token_embd.weight", HYPURA_ROLE_EMBEDDING, -1},
        {"per_layer_token_embd.weight", HYPURA_ROLE_LAYER_EMBEDDING, -1},
        {"output.weight", HYPURA_ROLE_OUTPUT, -1},
        {"output_norm.weight", HYPURA_ROLE_TRUNK, -1},
        {"position_embd.weight", HYPURA_ROLE_TRUNK, -1},
        {"blk.0.attn_q.weight", HYPURA_ROLE_TRUNK, 0},
        {"blk.0.ffn_norm.weight", HYPURA_ROLE_TRUNK, 0},
        {"blk.0.ffn_norm_exps.weight", HYPURA_ROLE_TRUNK, 0},
        {"blk.1.ffn_gate.weight", HYPURA_ROLE_FFN, 1},
        {"blk.1.ffn_up.weight", HYPURA_ROLE_FFN, 1},
        {"blk.1.ffn_down.weight", HYPURA_ROLE_FFN, 1},
        {"blk.1.ffn_down.bias", HYPURA_ROLE_TRUNK, 1},
        {"blk.1.ffn_down.scale", HYPURA_ROLE_TRUNK, 1},
        {"blk.1.channel_mix_key.weight", HYPURA_ROLE_FFN, 1},
        {"enc.blk.1.ffn_up.weight", HYPURA_ROLE_FFN, 1},
        {"dec.blk.1.ffn_up.weight", HYPURA_ROLE_FFN, 1},
        {"dec.blk.1.ffn_up_exps.weight", HYPURA_ROLE_TRUNK, 1},
        {"blk.1.ffn_gate_inp.weight", HYPURA_ROLE_ROUTER, 1},
        {"blk.1.exp_probs_b.bias", HYPURA_ROLE_ROUTER, 1},
        {"blk.1.ffn_gate_inp_shexp.weight", HYPURA_ROLE_TRUNK, 1},
        {"blk.1.ffn_up_shexp.weight", HYPURA_ROLE_SHARED_EXPERT, 1},
        {"blk.1.ffn_gate_exps.weight", HYPURA_ROLE_EXPERT, 1},
        {"blk.1.ffn_gate_exps.bias", HYPURA_ROLE_TRUNK, 1},
        {"blk.1.ffn_gate_exps.scale", HYPURA_ROLE_TRUNK, 1},
        {"blk.1.ffn_up_exps.weight", HYPURA_ROLE_EXPERT, 1},
        {"blk.1.ffn_gate_up_exps.weight", HYPURA_ROLE_EXPERT, 1},
        {"blk.1.ffn_down_chexps.weight", HYPURA_ROLE_EXPERT, 1},
        {"blk.1.nextn.eh_proj.weight", HYPURA_ROLE_MTP, 1},
        {"nextn.pre_projection.weight", HYPURA_ROLE_MTP, -1},
        {"blk.01.ffn_up.weight", HYPURA_ROLE_TRUNK, -1},
        {"blk.1", HYPURA_ROLE_TRUNK, -1},
        {"blk..ffn_up.weight", HYPURA_ROLE_TRUNK, -1},
        {"blk.1x.ffn_up.weight", HYPURA_ROLE_TRUNK, -1},
        {"blk.99999999999.ffn_up.weight", HYPURA_ROLE_TRUNK, -1},
    };
    enum { N = sizeof(cases) / sizeof(cases[0]) };
    gguf_file file;
    begin_experts(&file, 2, 2);
    for (int i = 0; i < N; i++) {
        gguf_tensor(&file, cases[i].name, GGUF_FILE_F32, GGUF_SHAPE(3, 2, 2));
    }
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    for (int i = 0; i < N; i++) {
        const hypura_tensor *t = &map->tensors[i];
        assert_string_equal(t->name, cases[i].name);
        if (t->role != cases[i].role || t->layer != cases[i].layer) {
            fail_msg("%s is %s of layer %d", t->name, hypura_role_name(t->role), t->layer);
        }
        assert_int_equal(t->bundle >= 0, t->role == HYPURA_ROLE_EXPERT);
        assert_int_equal(t->expert_bytes, t->role == HYPURA_ROLE_EXPERT ? 24 : 0);
    }
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void test_role_names_differ(void **state)
{
    (void)state;
    for (int i = HYPURA_ROLE_TRUNK; i <= HYPURA_ROLE_MTP; i++) {
        assert_string_not_equal(hypura_role_name((hypura_role)i), "unknown");
        for (int j = HYPURA_ROLE_TRUNK; j < i; j++) {
            assert_string_not_equal(hypura_role_name((hypura_role)i), hypura_role_name((hypura_role)j));
        }
    }
    assert_string_equal(hypura_role_name((hypura_role)99), "unknown");
}

static void check_bundle(const hypura_map *map, int i, int layer, int n_experts, uint64_t expert_bytes,
                         const char *const *names, int n)
{
    const hypura_bundle *bundle = &map->bundles[i];
    assert_int_equal(bundle->layer, layer);
    assert_int_equal(bundle->n_experts, n_experts);
    assert_int_equal(bundle->expert_bytes, expert_bytes);
    assert_int_equal(bundle->n_tensors, n);
    for (int j = 0; j < n; j++) {
        assert_string_equal(map->tensors[bundle->tensors[j]].name, names[j]);
        assert_int_equal(map->tensors[bundle->tensors[j]].bundle, i);
    }
}

/* Written in an order that is neither that of layers nor that of need. */
static void test_bundles(void **state)
{
    (void)state;
    gguf_file file;
    begin_experts(&file, 11, 4);
    gguf_tensor(&file, "blk.10.ffn_down_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(8, 3, 4));
    gguf_tensor(&file, "blk.10.ffn_gate_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(3, 8, 4));
    gguf_tensor(&file, "blk.2.ffn_down_exps.weight", GGUF_FILE_Q8_0, GGUF_SHAPE(32, 3, 4));
    gguf_tensor(&file, "blk.2.ffn_up_chexps.weight", GGUF_FILE_F32, GGUF_SHAPE(1, 1, 2));
    gguf_tensor(&file, "blk.2.ffn_gate_exps.weight", GGUF_FILE_Q4_0, GGUF_SHAPE(32, 2, 4));
    gguf_tensor(&file, "blk.2.ffn_up_exps.weight", GGUF_FILE_Q4_0, GGUF_SHAPE(32, 2, 4));
    gguf_tensor(&file, "blk.2.ffn_gate_chexps.weight", GGUF_FILE_F32, GGUF_SHAPE(1, 1, 2));
    gguf_tensor(&file, "blk.2.ffn_down_chexps.weight", GGUF_FILE_F32, GGUF_SHAPE(1, 1, 2));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_experts, 4);
    assert_int_equal(map->n_experts_used, 1);
    assert_int_equal(map->n_bundles, 3);
    check_bundle(
        map, 0, 2, 4, 36 + 36 + 102,
        (const char *const[]){"blk.2.ffn_gate_exps.weight", "blk.2.ffn_up_exps.weight", "blk.2.ffn_down_exps.weight"},
        3);
    check_bundle(map, 1, 2, 2, 12,
                 (const char *const[]){"blk.2.ffn_gate_chexps.weight", "blk.2.ffn_up_chexps.weight",
                                       "blk.2.ffn_down_chexps.weight"},
                 3);
    check_bundle(map, 2, 10, 4, 96 + 96,
                 (const char *const[]){"blk.10.ffn_gate_up_exps.weight", "blk.10.ffn_down_exps.weight"}, 2);
    assert_int_equal(find(map, "blk.2.ffn_down_exps.weight")->expert_bytes, 102);
    hypura_map_close(map);
    gguf_file_free(&file);
}

/* Matrices of other expert counts cannot share the selection. */
static void test_bundle_of_other_count(void **state)
{
    (void)state;
    gguf_file file;
    begin_experts(&file, 1, 4);
    gguf_tensor(&file, "blk.0.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2, 4));
    gguf_tensor(&file, "blk.0.ffn_down_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2, 3));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_bundles, 2);
    assert_int_equal(map->bundles[0].n_experts, 3);
    assert_int_equal(map->bundles[1].n_experts, 4);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void test_experts_of_each_layer(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file, 3);
    gguf_key_u32s(&file, "llama.expert_count", (const uint32_t[]){0, 8, 4}, 3);
    gguf_key_u32s(&file, "llama.expert_used_count", (const uint32_t[]){1, 2, 6}, 3);
    gguf_tensor(&file, "blk.1.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2, 8));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_experts, 8);
    assert_int_equal(map->n_experts_used, 6);
    hypura_map_close(map);
    gguf_file_free(&file);
}

/* Keys of experts without experts: dense. */
static void test_expert_keys_alone(void **state)
{
    (void)state;
    gguf_file file;
    begin_experts(&file, 1, 8);
    gguf_tensor(&file, "blk.0.ffn_up.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_experts, 0);
    assert_int_equal(map->n_experts_used, 0);
    assert_int_equal(map->n_bundles, 0);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void check_mtp(uint32_t nextn, hypura_role last_role, int n_bundles)
{
    gguf_file file;
    begin_experts(&file, 2, 2);
    gguf_key_u32(&file, "llama.nextn_predict_layers", nextn);
    gguf_tensor(&file, "blk.0.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2, 2));
    gguf_tensor(&file, "blk.1.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2, 2));
    gguf_tensor(&file, "blk.1.attn_q.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 2));
    gguf_end(&file);
    hypura_map *map = open_file(&file);
    assert_int_equal(map->n_layers, 2);
    assert_int_equal(map->n_bundles, n_bundles);
    assert_int_equal(map->tensors[0].role, HYPURA_ROLE_EXPERT);
    assert_int_equal(map->tensors[2].role, last_role);
    assert_int_equal(map->tensors[1].bundle, n_bundles == 2 ? 1 : -1);
    hypura_map_close(map);
    gguf_file_free(&file);
}

static void test_mtp_layers(void **state)
{
    (void)state;
    check_mtp(1, HYPURA_ROLE_MTP, 1);
    /* Nothing but such layers: they are the model. */
    check_mtp(2, HYPURA_ROLE_TRUNK, 2);
    check_mtp(0, HYPURA_ROLE_TRUNK, 2);
}

/* The same through the file system. */
static void test_real_file(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file, 1);
    gguf_tensor(&file, "token_embd.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 3));
    gguf_end(&file);
    char path[] = "/tmp/hypura-map-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, file.data, file.bytes), file.bytes);
    close(fd);
    hypura_map *map;
    hypura_error error = {0};
    assert_int_equal(hypura_map_open(path, &map, &error), HYPURA_OK);
    assert_string_equal(map->files[0], path);
    assert_int_equal(map->file_bytes[0], file.bytes);
    assert_int_equal(map->tensors[0].offset, file.bytes - 32);
    hypura_map_close(map);
    unlink(path);
    assert_int_equal(hypura_map_open(path, &map, &error), HYPURA_ERR_IO);
    assert_null(map);
    assert_non_null(strstr(error.message, path));
    assert_int_equal(hypura_map_open("/", &map, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "not a regular file"));
    assert_int_equal(hypura_map_open("/", &map, NULL), HYPURA_ERR_IO);
    assert_int_equal(hypura_map_open(NULL, &map, &error), HYPURA_ERR_USAGE);
    hypura_map_close(NULL);
    gguf_file_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_missing_numbers_are_zero),
        cmocka_unit_test(test_name_is_made_printable),
        cmocka_unit_test(test_other_keys_are_skipped),
        cmocka_unit_test(test_large_header),
        cmocka_unit_test(test_placement),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_role_names_differ),
        cmocka_unit_test(test_bundles),
        cmocka_unit_test(test_bundle_of_other_count),
        cmocka_unit_test(test_experts_of_each_layer),
        cmocka_unit_test(test_expert_keys_alone),
        cmocka_unit_test(test_mtp_layers),
        cmocka_unit_test(test_real_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
