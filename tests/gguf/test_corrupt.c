/*
 * test_corrupt.c - damaged and hostile files: each mutation ends in an error
 * that says what is wrong, and where.
 */
#include "gguf/map.h"
#include "gguf_file.h"

#include "ggml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Places in the file that all mutations start from. */
typedef struct marks {
    size_t magic, version, n_tensors, n_keys;
    size_t first_key; /* its length */
    size_t arch;      /* the length of its value */
    size_t blocks, experts, used, alignment, nextn, array, texts;
    gguf_tensor_at embedding, experts_up, experts_down;
} marks;

static void build(gguf_file *file, marks *at)
{
    gguf_begin(file, 3);
    *at = (marks){.magic = 0, .version = 4, .n_tensors = 8, .n_keys = 16, .first_key = 24};
    at->arch = gguf_key_text(file, "general.architecture", "llama");
    at->alignment = gguf_key_u32(file, "general.alignment", 32);
    at->blocks = gguf_key_u32(file, "llama.block_count", 2);
    at->experts = gguf_key_u32(file, "llama.expert_count", 2);
    at->used = gguf_key_u32(file, "llama.expert_used_count", 1);
    at->nextn = gguf_key_u32(file, "llama.nextn_predict_layers", 0);
    at->array = gguf_key_u32s(file, "llama.numbers", (const uint32_t[]){5, 6}, 2);
    at->texts = gguf_key_texts(file, "tokenizer.ggml.tokens", (const char *const[]){"a", "bc"}, 2);
    at->embedding = gguf_tensor(file, "token_embd.weight", GGUF_FILE_Q8_0, GGUF_SHAPE(64, 3));
    at->experts_up = gguf_tensor(file, "blk.0.ffn_up_exps.weight", GGUF_FILE_Q4_0, GGUF_SHAPE(32, 2, 2));
    at->experts_down = gguf_tensor(file, "blk.0.ffn_down_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(2, 3, 2, 1));
    gguf_end(file);
}

/* bytes low bytes of value at `mark` + plus. */
typedef struct mutation {
    const char *what;
    size_t mark; /* offset of the place in marks */
    size_t plus;
    uint64_t value;
    size_t bytes;
    const char *words[2]; /* in the message, besides the path */
} mutation;

#define AT(place) offsetof(marks, place)

static const mutation mutations[] = {
    {"magic", AT(magic), 0, 'X', 1, {"does not start with 'GGUF'"}},
    {"version 0", AT(version), 0, 0, 4, {"version 0 is not supported"}},
    {"version 1", AT(version), 0, 1, 4, {"version 1 is not supported"}},
    {"version 4", AT(version), 0, 4, 4, {"version 4 is not supported", "newer than this program"}},
    {"big endian", AT(version), 0, 0x03000000, 4, {"big endian", "little endian"}},
    {"tensor count", AT(n_tensors), 0, UINT64_MAX, 8, {"18446744073709551615 tensors", "truncated or damaged"}},
    {"tensor count that fits a larger file", AT(n_tensors), 0, 100, 8, {"100 tensors cannot fit"}},
    {"one tensor more", AT(n_tensors), 0, 4, 8, {"tensor 4 of 4"}},
    {"no tensors", AT(n_tensors), 0, 0, 8, {"holds 0 tensors"}},
    {"key count", AT(n_keys), 0, INT64_MAX, 8, {"9223372036854775807 keys", "truncated or damaged"}},
    {"one key less", AT(n_keys), 0, 7, 8, {"tensor 'tokenizer.ggml.tokens'", "has 9 dimensions"}},
    {"key name length", AT(first_key), 0, UINT64_MAX, 8, {"key 1 of 8", "its name has 18446744073709551615 bytes"}},
    {"key name past the end", AT(first_key), 0, 60000, 8, {"key 1 of 8", "needs 60000 bytes"}},
    {"empty key name", AT(first_key), 0, 0, 8, {"key 1 of 8", "name is empty"}},
    {"key name with a control character", AT(first_key), 9, 27, 1, {"key 1 of 8", "control characters"}},
    {"key name with a control character of two bytes",
     AT(first_key),
     9,
     0x85c2,
     2,
     {"key 1 of 8", "control characters"}},
    {"key name with a zero", AT(first_key), 9, 0, 1, {"key 1 of 8", "control characters"}},
    {"key name that is not UTF-8", AT(first_key), 9, 0xff, 1, {"key 1 of 8", "not UTF-8"}},
    {"no architecture", AT(first_key), 8, 'G', 1, {"general.architecture", "missing"}},
    {"architecture length", AT(arch), 0, UINT64_MAX, 8, {"key 'general.architecture'", "the file ends at"}},
    {"architecture with a control character", AT(arch), 8, 7, 1, {"general.architecture", "holds no name"}},
    {"value type", AT(blocks), (size_t)-4, 13, 4, {"key 'llama.block_count'", "value type 13 is unknown"}},
    {"value type beyond int", AT(blocks), (size_t)-4, UINT32_MAX, 4, {"llama.block_count", "type 4294967295"}},
    {"layers as a float", AT(blocks), (size_t)-4, 6, 4, {"llama.block_count", "is a float32, expected an integer"}},
    {"negative layers", AT(blocks), (size_t)-4, UINT64_C(0xffffffff00000005), 8, {"llama.block_count", "is negative"}},
    {"no layers", AT(blocks), 0, 0, 4, {"llama.block_count", "missing or 0"}},
    {"endless layers", AT(blocks), 0, UINT32_MAX, 4, {"llama.block_count", "at most 4096"}},
    {"experts missing", AT(experts), 0, 0, 4, {"llama.expert_used_count", "more than the 0 experts"}},
    {"endless experts", AT(experts), 0, UINT32_MAX, 4, {"llama.expert_count", "at most 65536"}},
    {"more experts used than there are", AT(used), 0, 3, 4, {"llama.expert_used_count", "more than the 2"}},
    {"no experts used", AT(used), 0, 0, 4, {"blk.0.ffn_up_exps.weight", "llama.expert_used_count"}},
    {"more predicting layers than layers", AT(nextn), 0, 3, 4, {"llama.nextn_predict_layers", "more than the 2"}},
    {"alignment 0", AT(alignment), 0, 0, 4, {"general.alignment", "not a power of two"}},
    {"alignment 24", AT(alignment), 0, 24, 4, {"general.alignment", "is 24, not a power of two"}},
    {"alignment that offsets break", AT(alignment), 0, 64, 4, {"ffn_up_exps", "no multiple of the alignment 64"}},
    {"endless alignment", AT(alignment), 0, UINT64_C(1) << 31, 4, {"general.alignment", "at most 1073741824"}},
    {"array element type", AT(array), 0, 77, 4, {"key 'llama.numbers'", "value type 77 is unknown"}},
    {"array of arrays", AT(array), 0, 9, 4, {"key 'llama.numbers'", "arrays of arrays"}},
    {"array count", AT(array), 4, UINT64_MAX, 8, {"key 'llama.numbers'", "18446744073709551615 values"}},
    {"array count whose product wraps", AT(array), 4, UINT64_C(1) << 62, 8, {"llama.numbers", "cannot fit"}},
    {"string count", AT(texts), 4, UINT64_C(1) << 61, 8, {"tokenizer.ggml.tokens", "cannot fit"}},
    {"string in an array", AT(texts), 12, UINT64_MAX, 8, {"tokenizer.ggml.tokens", "the file ends at"}},
    {"tensor name length", AT(embedding.name_bytes), 0, 64, 8, {"tensor 1 of 3", "its name has 64 bytes"}},
    {"empty tensor name", AT(embedding.name_bytes), 0, 0, 8, {"tensor 1 of 3", "name is empty"}},
    {"tensor name with a line break", AT(embedding.name), 3, '\n', 1, {"tensor 1 of 3", "control characters"}},
    {"tensor of a layer beyond the last", AT(experts_up.name), 4, '7', 1, {"blk.7.ffn_up_exps.weight", "of layer 7"}},
    {"dimensions", AT(embedding.n_dims), 0, 5, 4, {"tensor 'token_embd.weight'", "has 5 dimensions"}},
    {"endless dimensions", AT(embedding.n_dims), 0, UINT32_MAX, 4, {"token_embd.weight", "4294967295 dimensions"}},
    {"empty dimension", AT(embedding.ne), 8, 0, 8, {"token_embd.weight", "dimension 1 has 0 elements"}},
    {"negative dimension", AT(embedding.ne), 0, UINT64_MAX, 8, {"token_embd.weight", "dimension 0 has -1 elements"}},
    {"elements that wrap", AT(embedding.ne), 8, INT64_MAX, 8, {"token_embd.weight", "more elements than"}},
    {"elements that wrap to few", AT(embedding.ne), 8, UINT64_C(1) << 58, 8, {"token_embd.weight", "more elements"}},
    {"bytes that wrap", AT(experts_down.ne), 8, UINT64_C(1) << 60, 8, {"ffn_down_exps.weight", "more bytes than"}},
    {"bytes beyond any file", AT(experts_down.ne), 8, UINT64_C(1) << 59, 8, {"ffn_down_exps", "beyond what a file"}},
    {"row of a broken block", AT(embedding.ne), 0, 65, 8, {"token_embd.weight", "row of 65 values"}},
    {"type past the last", AT(embedding.type), 0, GGML_TYPE_COUNT, 4, {"token_embd.weight", "is unknown"}},
    {"unknown type", AT(embedding.type), 0, 1000, 4, {"token_embd.weight", "type number 1000 is unknown"}},
    {"negative type", AT(embedding.type), 0, UINT32_MAX, 4, {"token_embd.weight", "type number 4294967295 is unknown"}},
    {"removed type", AT(embedding.type), 0, 4, 4, {"token_embd.weight", "type number 4"}},
    {"offset off the alignment",
     AT(experts_up.offset),
     0,
     1,
     8,
     {"blk.0.ffn_up_exps.weight", "offset 1 is no multiple"}},
    {"overlap", AT(experts_up.offset), 0, 32, 8, {"blk.0.ffn_up_exps.weight", "without gap or overlap"}},
    {"gap", AT(experts_down.offset), 0, UINT64_C(1) << 40, 8, {"ffn_down_exps.weight", "without gap or overlap"}},
    {"offset that wraps", AT(experts_down.offset), 0, UINT64_MAX - 31, 8, {"ffn_down_exps.weight", "without gap"}},
    {"data past the end", AT(experts_down.ne), 8, 1000, 8, {"blk.0.ffn_down_exps.weight", "needs 16000 bytes"}},
};

static hypura_status open_bytes(const void *data, size_t bytes, hypura_error *error)
{
    const gguf_file file = {.data = (uint8_t *)(uintptr_t)data, .bytes = bytes};
    const gguf_folder_entry entries[] = {{"m.gguf", &file}, {0}};
    gguf_folder folder = {entries};
    hypura_map *map = NULL;
    hypura_status status = hypura_map_open_from(gguf_folder_open, &folder, "m.gguf", &map, error);
    assert_int_equal(status == HYPURA_OK, map != NULL);
    hypura_map_close(map);
    return status;
}

static void test_sound(void **state)
{
    (void)state;
    gguf_file file;
    marks at;
    build(&file, &at);
    hypura_error error = {0};
    if (open_bytes(file.data, file.bytes, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    gguf_file_free(&file);
}

static void test_mutations(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mutations) / sizeof(mutations[0]); i++) {
        const mutation *m = &mutations[i];
        gguf_file file;
        marks at;
        build(&file, &at);
        size_t place;
        memcpy(&place, (const char *)&at + m->mark, sizeof(place));
        gguf_patch(&file, place + m->plus, m->value, m->bytes);
        hypura_error error = {0};
        hypura_status status = open_bytes(file.data, file.bytes, &error);
        bool told = strncmp(error.message, "m.gguf: ", 8) == 0;
        for (int j = 0; j < 2 && m->words[j] != NULL; j++) {
            told = told && strstr(error.message, m->words[j]) != NULL;
        }
        if (status != HYPURA_ERR_FORMAT || error.status != status || !told) {
            fail_msg("%s: %s: %s", m->what, hypura_status_name(status), error.message);
        }
        gguf_file_free(&file);
    }
}

/* What people have in a model's place: the message says what it is. */
static void test_mistaken(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t bytes;
        const char *word;
    } files[] = {
#define FILE_OF(text, word) {text, sizeof(text) - 1, word}
        FILE_OF("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        FILE_OF("<!DOCTYPE html><html><title>404</title></html>", "a web page"),
        FILE_OF("<html></html>", "a web page"),
        FILE_OF("PK\3\4" "archive/data.pkl", "PyTorch"),
        FILE_OF("\x50\0\0\0\0\0\0\0{\"__metadata__\":{}}", "safetensors"),
        FILE_OF("tjgg\3\0\0\0", "an old form"),
        FILE_OF("\x50\0\0\0\0\0\0\1{\"__metadata__\":{}}", "it is no GGUF model"), /* no header is so long */
        FILE_OF("\x50\0\0\0\0\0\0", "it is no GGUF model"),
        FILE_OF("abcd", "it is no GGUF model"),
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        hypura_error error = {0};
        assert_int_equal(open_bytes(files[i].data, files[i].bytes, &error), HYPURA_ERR_FORMAT);
        if (!strstr(error.message, files[i].word) || !strstr(error.message, "does not start with 'GGUF'")) {
            fail_msg("%zu: %s", i, error.message);
        }
    }
}

/* Ends and frees the file. */
static void expect_words(gguf_file *file, const char *words)
{
    gguf_end(file);
    hypura_error error = {0};
    assert_int_equal(open_bytes(file->data, file->bytes, &error), HYPURA_ERR_FORMAT);
    if (strstr(error.message, words) == NULL) {
        fail_msg("%s", error.message);
    }
    gguf_file_free(file);
}

static void begin_model(gguf_file *file)
{
    gguf_begin(file, 3);
    gguf_key_text(file, "general.architecture", "llama");
    gguf_key_u32(file, "llama.block_count", 1);
}

static void test_duplicates(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    gguf_tensor(&file, "b", GGUF_FILE_F32, GGUF_SHAPE(1));
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(2));
    expect_words(&file, "m.gguf: tensor 'a' occurs twice");

    begin_model(&file);
    gguf_key_u32(&file, "llama.context_length", 1);
    gguf_key_u32(&file, "llama.block_count", 2);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "m.gguf: key 'llama.block_count' occurs twice");
}

/* Adapters and projectors are GGUFs too. */
static void test_other_files(void **state)
{
    (void)state;
    static const char *const types[] = {"adapter", "mmproj", "\x1b[31m"};
    static const char *const words[] = {"it is no language model (general.type is 'adapter'); give the model, and this with --lora",
                                        "it is no language model (general.type is 'mmproj'); give the model",
                                        "it is no language model"};
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        gguf_file file;
        gguf_begin(&file, 3);
        gguf_key_text(&file, "general.architecture", "llama");
        gguf_key_text(&file, "general.type", types[i]);
        gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
        expect_words(&file, words[i]);
    }
    gguf_file file;
    gguf_begin(&file, 2);
    gguf_key_text(&file, "general.architecture", "clip");
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "give the model that it makes see, and this with --mmproj");
}

/* Keys that a map asks for have to be what they are asked for as. */
static void test_types_of_keys(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *words;
    } texts[] = {
        {"general.alignment", "key 'general.alignment' is a string, expected an integer"},
        {"split.count", "key 'split.count' is a string, expected an integer"},
        {"llama.expert_count", "key 'llama.expert_count' is a string, expected an integer"},
        {"llama.context_length", "key 'llama.context_length' is a string, expected an integer"},
    };
    gguf_file file;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        begin_model(&file);
        gguf_key_text(&file, texts[i].name, "32");
        gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
        expect_words(&file, texts[i].words);
    }
    begin_model(&file);
    gguf_key_u32(&file, "general.name", 5);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "key 'general.name' is a uint32, expected a string");

    begin_model(&file);
    gguf_key_texts(&file, "general.name", (const char *const[]){"a", "b"}, 2);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "key 'general.name' is an array of 2 string, expected a string");

    begin_model(&file);
    gguf_key_u32s(&file, "split.count", (const uint32_t[]){2, 2}, 2);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "key 'split.count' is an array of 2 uint32, expected an integer");

    begin_model(&file);
    gguf_key_u32s(&file, "llama.expert_count", NULL, 0);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "key 'llama.expert_count' is an array of 0 uint32");

    char name[2000];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    begin_model(&file);
    gguf_key_text(&file, "general.name", name);
    gguf_tensor(&file, "a", GGUF_FILE_F32, GGUF_SHAPE(1));
    expect_words(&file, "key 'general.name' is too long (1999 bytes)");
}

static void test_shapes_of_experts(void **state)
{
    (void)state;
    gguf_file file;
    begin_model(&file);
    gguf_tensor(&file, "blk.0.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(1, 1, 2));
    expect_words(&file, "tensor 'blk.0.ffn_up_exps.weight' holds experts, but key 'llama.expert_count' is missing");

    begin_model(&file);
    gguf_tensor(&file, "blk.0.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(1, 3, 2, 5));
    expect_words(&file, "tensor 'blk.0.ffn_up_exps.weight' holds experts, but its shape 1 x 3 x 2 x 5 is not");

    begin_model(&file);
    gguf_tensor(&file, "blk.0.ffn_up_exps.weight", GGUF_FILE_F32, GGUF_SHAPE(1, 1, 65537));
    expect_words(&file, "its shape 1 x 1 x 65537 x 1 is not");
}

/* Cut after any byte, the file is refused, and what lies behind the cut is never
 * looked at: the copy ends there. */
static void test_truncation(void **state)
{
    (void)state;
    gguf_file file;
    marks at;
    build(&file, &at);
    size_t data = file.bytes - file.data_bytes;
    /* The last tensor's padding may be missing. */
    size_t needed = file.bytes - (file.alignment - 48 % file.alignment) % file.alignment;
    for (size_t n = 0; n < needed; n++) {
        uint8_t *copy = malloc(n > 0 ? n : 1);
        assert_non_null(copy);
        memcpy(copy, file.data, n);
        hypura_error error = {0};
        hypura_status status = open_bytes(copy, n, &error);
        free(copy);
        if (status != HYPURA_ERR_FORMAT || strncmp(error.message, "m.gguf: ", 8) != 0) {
            fail_msg("cut at %zu: %s", n, error.message);
        }
        if (strstr(error.message, "truncated") == NULL) {
            fail_msg("cut at %zu: %s", n, error.message);
        }
        if (n >= data) {
            char actual[64];
            (void)snprintf(actual, sizeof(actual), "the file has %zu", n);
            assert_non_null(strstr(error.message, actual));
            assert_non_null(strstr(error.message, "tensor '"));
        }
    }
    hypura_error error = {0};
    assert_int_equal(open_bytes(file.data, needed, &error), HYPURA_OK);
    gguf_file_free(&file);
}

/* Whatever single byte is flipped: a map or an error, and nothing worse. */
static void test_flipped_bytes(void **state)
{
    (void)state;
    gguf_file file;
    marks at;
    build(&file, &at);
    size_t header = file.bytes - file.data_bytes;
    int refused = 0;
    for (size_t i = 0; i < header; i++) {
        for (int bit = 0; bit < 8; bit++) {
            file.data[i] ^= (uint8_t)(1 << bit);
            hypura_error error = {0};
            if (open_bytes(file.data, file.bytes, &error) != HYPURA_OK) {
                assert_true(error.message[0] != '\0');
                refused++;
            }
            file.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_true(refused > 0);
    gguf_file_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_mistaken),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_types_of_keys),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_shapes_of_experts),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_flipped_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
