/*
 * reader.c - walks the header of a GGUF once, front to back.
 *
 * The file is not trusted. What always holds:
 *  - Every count and length is compared with the bytes left in the file before
 *    anything is allocated or skipped, and arrays grow only as elements are
 *    read: memory stays below a constant times the size of the header.
 *  - No sum or product of numbers from the file is formed unchecked.
 *  - A tensor that is reported lies wholly inside the file, at an aligned offset,
 *    and shares no byte with another.
 *  - Names are printable UTF-8 without control characters.
 */
#include "gguf/reader.h"

#include "base/size.h"
#include "base/status.h"

#include "ggml.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_BYTES = 64 * 1024,
    DEFAULT_ALIGNMENT = 32,
    MAX_KEY_BYTES = 65535,      /* the format's own limit */
    MAX_KEPT_TEXT_BYTES = 1024, /* longer strings are walked over */
    MAX_KEPT_ELEMENTS = 65536,  /* longer arrays are no per-layer numbers */
    MIN_KEY_BYTES = 8 + 1 + 4 + 1,
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8,
};

/* Position in the file. `place` says, in messages, what is being read. */
typedef struct cursor {
    const hypura_source *source;
    uint64_t offset; /* of the next byte */
    uint8_t *buffer;
    uint64_t buffer_offset; /* of buffer[0] */
    size_t buffer_bytes;
    char place[160];
    hypura_error *error;
} cursor;

const char *hypura_gguf_type_name(hypura_gguf_type type)
{
    static const char *const names[HYPURA_GGUF_TYPES] = {
        [HYPURA_GGUF_UINT8] = "uint8",     [HYPURA_GGUF_INT8] = "int8",     [HYPURA_GGUF_UINT16] = "uint16",
        [HYPURA_GGUF_INT16] = "int16",     [HYPURA_GGUF_UINT32] = "uint32", [HYPURA_GGUF_INT32] = "int32",
        [HYPURA_GGUF_FLOAT32] = "float32", [HYPURA_GGUF_BOOL] = "bool",     [HYPURA_GGUF_STRING] = "string",
        [HYPURA_GGUF_ARRAY] = "array",     [HYPURA_GGUF_UINT64] = "uint64", [HYPURA_GGUF_INT64] = "int64",
        [HYPURA_GGUF_FLOAT64] = "float64",
    };
    return (unsigned)type < HYPURA_GGUF_TYPES ? names[type] : "unknown";
}

/* Bytes of a value of fixed size, 0 for strings and arrays. */
static uint64_t type_bytes(hypura_gguf_type type)
{
    switch (type) {
    case HYPURA_GGUF_UINT8:
    case HYPURA_GGUF_INT8:
    case HYPURA_GGUF_BOOL:
        return 1;
    case HYPURA_GGUF_UINT16:
    case HYPURA_GGUF_INT16:
        return 2;
    case HYPURA_GGUF_UINT32:
    case HYPURA_GGUF_INT32:
    case HYPURA_GGUF_FLOAT32:
        return 4;
    case HYPURA_GGUF_UINT64:
    case HYPURA_GGUF_INT64:
    case HYPURA_GGUF_FLOAT64:
        return 8;
    default:
        return 0;
    }
}

static bool type_is_integer(hypura_gguf_type type)
{
    return type_bytes(type) != 0 && type != HYPURA_GGUF_FLOAT32 && type != HYPURA_GGUF_FLOAT64 &&
           type != HYPURA_GGUF_BOOL;
}

static bool type_is_signed(hypura_gguf_type type)
{
    return type == HYPURA_GGUF_INT8 || type == HYPURA_GGUF_INT16 || type == HYPURA_GGUF_INT32 ||
           type == HYPURA_GGUF_INT64;
}

/* ---- the cursor ---- */

/* Fails with "PATH: PLACE: message". */
#define FAIL(c, ...)                                                                                                   \
    (hypura_fail((c)->error, HYPURA_ERR_FORMAT, __VA_ARGS__),                                                          \
     hypura_fail_prefix((c)->error, "%s: %s", (c)->source->path, (c)->place), HYPURA_ERR_FORMAT)

static hypura_status out_of_memory(const cursor *c)
{
    return hypura_fail(c->error, HYPURA_ERR_MEMORY, "%s: %s: out of memory", c->source->path, c->place);
}

static uint64_t bytes_left(const cursor *c)
{
    return c->source->bytes - c->offset;
}

static hypura_status check_left(const cursor *c, uint64_t bytes)
{
    if (bytes > bytes_left(c)) {
        return FAIL(c,
                    "needs %" PRIu64 " bytes at byte %" PRIu64 ", but the file ends at %" PRIu64
                    ": it is truncated or damaged, fetch it again",
                    bytes, c->offset, c->source->bytes);
    }
    return HYPURA_OK;
}

static hypura_status take(cursor *c, void *dst, size_t bytes)
{
    hypura_status status = check_left(c, bytes);
    uint8_t *to = dst;
    while (status == HYPURA_OK && bytes > 0) {
        uint64_t at = c->offset - c->buffer_offset;
        if (c->offset < c->buffer_offset || at >= c->buffer_bytes) {
            size_t want = bytes_left(c) < BUFFER_BYTES ? (size_t)bytes_left(c) : BUFFER_BYTES;
            status = hypura_source_read(c->source, c->offset, c->buffer, want, c->error);
            c->buffer_offset = c->offset;
            c->buffer_bytes = status == HYPURA_OK ? want : 0;
            continue;
        }
        size_t here = c->buffer_bytes - (size_t)at;
        here = here < bytes ? here : bytes;
        memcpy(to, c->buffer + at, here);
        to += here;
        bytes -= here;
        c->offset += here;
    }
    return status;
}

static hypura_status skip(cursor *c, uint64_t bytes)
{
    hypura_status status = check_left(c, bytes);
    if (status == HYPURA_OK) {
        c->offset += bytes;
    }
    return status;
}

/* Little endian number of 1 to 8 bytes. */
static hypura_status take_number(cursor *c, size_t bytes, uint64_t *value)
{
    uint8_t raw[8] = {0};
    hypura_status status = take(c, raw, bytes);
    *value = 0;
    for (size_t i = bytes; status == HYPURA_OK && i-- > 0;) {
        *value = *value << 8 | raw[i];
    }
    return status;
}

/* A string that has to be a name of 1 to max printable bytes. */
static hypura_status take_name(cursor *c, hypura_arena *arena, uint64_t max, const char **name)
{
    uint64_t bytes;
    hypura_status status = take_number(c, 8, &bytes);
    if (status != HYPURA_OK) {
        return status;
    }
    if (bytes == 0) {
        return FAIL(c, "its name is empty");
    }
    if (bytes > max) {
        return FAIL(c, "its name has %" PRIu64 " bytes, more than %" PRIu64, bytes, max);
    }
    status = check_left(c, bytes);
    if (status != HYPURA_OK) {
        return status;
    }
    char *text = hypura_arena_alloc(arena, (size_t)bytes + 1, 1);
    if (text == NULL) {
        return out_of_memory(c);
    }
    status = take(c, text, (size_t)bytes);
    if (status != HYPURA_OK) {
        return status;
    }
    if (!hypura_gguf_is_printable(text, (size_t)bytes)) {
        return FAIL(c, "its name holds control characters or is not UTF-8");
    }
    *name = text;
    return HYPURA_OK;
}

/* ---- keys ---- */

static hypura_status take_type(cursor *c, hypura_gguf_type *type)
{
    uint64_t number;
    hypura_status status = take_number(c, 4, &number);
    if (status == HYPURA_OK && number >= HYPURA_GGUF_TYPES) {
        return FAIL(c, "value type %" PRIu64 " is unknown (known: 0 to %d)", number, HYPURA_GGUF_TYPES - 1);
    }
    *type = (hypura_gguf_type)number;
    return status;
}

/* One integer, folded into key as its greatest so far. */
static hypura_status take_integer(cursor *c, hypura_gguf_key *key)
{
    size_t bytes = (size_t)type_bytes(key->element_type);
    uint64_t value;
    hypura_status status = take_number(c, bytes, &value);
    if (status != HYPURA_OK) {
        return status;
    }
    if (type_is_signed(key->element_type) && value >> (8 * bytes - 1) != 0) {
        key->negative = true;
    } else if (value > key->integer) {
        key->integer = value;
    }
    key->has_integer = true;
    return HYPURA_OK;
}

static hypura_status take_text(cursor *c, hypura_arena *arena, hypura_gguf_key *key)
{
    hypura_status status = take_number(c, 8, &key->n);
    if (status != HYPURA_OK) {
        return status;
    }
    if (key->n > MAX_KEPT_TEXT_BYTES) {
        return skip(c, key->n);
    }
    char text[MAX_KEPT_TEXT_BYTES];
    status = take(c, text, (size_t)key->n);
    if (status == HYPURA_OK) {
        key->text = hypura_arena_text(arena, text, (size_t)key->n);
        status = key->text == NULL ? out_of_memory(c) : HYPURA_OK;
    }
    return status;
}

static hypura_status take_array(cursor *c, hypura_gguf_key *key)
{
    hypura_status status = take_type(c, &key->element_type);
    if (status != HYPURA_OK) {
        return status;
    }
    if (key->element_type == HYPURA_GGUF_ARRAY) {
        return FAIL(c, "arrays of arrays are not supported");
    }
    status = take_number(c, 8, &key->n);
    if (status != HYPURA_OK) {
        return status;
    }
    bool strings = key->element_type == HYPURA_GGUF_STRING;
    uint64_t element_bytes = strings ? 8 : type_bytes(key->element_type);
    if (key->n > bytes_left(c) / element_bytes) {
        return FAIL(c,
                    "an array of %" PRIu64 " values cannot fit the %" PRIu64
                    " bytes left: the file is truncated or damaged, fetch it again",
                    key->n, bytes_left(c));
    }
    if (type_is_integer(key->element_type) && key->n <= MAX_KEPT_ELEMENTS) {
        for (uint64_t i = 0; status == HYPURA_OK && i < key->n; i++) {
            status = take_integer(c, key);
        }
        return status;
    }
    if (!strings) {
        return skip(c, key->n * element_bytes);
    }
    for (uint64_t i = 0; status == HYPURA_OK && i < key->n; i++) {
        uint64_t bytes;
        status = take_number(c, 8, &bytes);
        status = status == HYPURA_OK ? skip(c, bytes) : status;
    }
    return status;
}

static hypura_status take_key(cursor *c, hypura_arena *arena, hypura_gguf_key *key)
{
    *key = (hypura_gguf_key){.n = 1};
    hypura_status status = take_name(c, arena, MAX_KEY_BYTES, &key->name);
    if (status != HYPURA_OK) {
        return status;
    }
    (void)snprintf(c->place, sizeof(c->place), "key '%.96s'", key->name);
    status = take_type(c, &key->type);
    if (status != HYPURA_OK) {
        return status;
    }
    key->element_type = key->type;
    if (key->type == HYPURA_GGUF_STRING) {
        return take_text(c, arena, key);
    }
    if (key->type == HYPURA_GGUF_ARRAY) {
        return take_array(c, key);
    }
    return type_is_integer(key->type) ? take_integer(c, key) : skip(c, type_bytes(key->type));
}

/* Room for one more element of `bytes` bytes after n; *items may move. */
static bool grow(void *items_pointer, int n, size_t bytes)
{
    if (n > 0 && (n < 16 || (n & (n - 1)) != 0)) {
        return true;
    }
    void **items = items_pointer;
    size_t capacity = n == 0 ? 16 : (size_t)n * 2;
    void *moved = capacity > SIZE_MAX / bytes ? NULL : realloc(*items, capacity * bytes);
    if (moved == NULL) {
        return false;
    }
    *items = moved;
    return true;
}

static hypura_status take_keys(cursor *c, uint64_t n, hypura_gguf *gguf)
{
    for (uint64_t i = 0; i < n; i++) {
        (void)snprintf(c->place, sizeof(c->place), "key %" PRIu64 " of %" PRIu64, i + 1, n);
        if (!grow(&gguf->keys, gguf->n_keys, sizeof(gguf->keys[0]))) {
            return out_of_memory(c);
        }
        hypura_status status = take_key(c, &gguf->arena, &gguf->keys[gguf->n_keys]);
        if (status != HYPURA_OK) {
            return status;
        }
        gguf->n_keys++;
    }
    return hypura_gguf_sort_keys(gguf, c->error);
}

/* ---- tensors ---- */

static hypura_status take_shape(cursor *c, hypura_tensor *tensor)
{
    uint64_t n_dims;
    hypura_status status = take_number(c, 4, &n_dims);
    if (status != HYPURA_OK) {
        return status;
    }
    if (n_dims > 4) {
        return FAIL(c, "has %" PRIu64 " dimensions, at most 4 are allowed", n_dims);
    }
    tensor->n_dims = (int)n_dims;
    uint64_t elements = 1;
    for (int i = 0; i < 4; i++) {
        uint64_t ne = 1;
        status = i < tensor->n_dims ? take_number(c, 8, &ne) : HYPURA_OK;
        if (status != HYPURA_OK) {
            return status;
        }
        if (ne == 0 || ne > INT64_MAX) {
            return FAIL(c, "dimension %d has %" PRId64 " elements, expected at least 1", i, (int64_t)ne);
        }
        if (!hypura_size_mul(elements, ne, &elements) || elements > INT64_MAX) {
            return FAIL(c, "has more elements than 64 bits can count");
        }
        tensor->ne[i] = (int64_t)ne;
    }
    return HYPURA_OK;
}

static hypura_status take_tensor_type(cursor *c, hypura_tensor *tensor)
{
    uint64_t number;
    hypura_status status = take_number(c, 4, &number);
    if (status != HYPURA_OK) {
        return status;
    }
    if (number >= GGML_TYPE_COUNT) {
        return FAIL(c, "type number %" PRIu64 " is unknown to this llama.cpp (known: 0 to %d)", number,
                    GGML_TYPE_COUNT - 1);
    }
    enum ggml_type type = (enum ggml_type)number;
    uint64_t block_bytes = ggml_type_size(type);
    int64_t block = ggml_blck_size(type);
    if (block_bytes == 0 || block <= 0) {
        const char *name = ggml_type_name(type);
        return FAIL(c, "type number %" PRIu64 " (%s) is no longer supported: convert the model again", number,
                    name != NULL ? name : "removed");
    }
    if (tensor->ne[0] % block != 0) {
        return FAIL(c, "a row of %" PRId64 " values is no multiple of the %" PRId64 " values in a block of %s",
                    tensor->ne[0], block, ggml_type_name(type));
    }
    tensor->type = (int)number;
    tensor->type_name = ggml_type_name(type);
    uint64_t rows = (uint64_t)tensor->ne[1] * (uint64_t)tensor->ne[2] * (uint64_t)tensor->ne[3];
    if (!hypura_size_mul((uint64_t)(tensor->ne[0] / block), block_bytes, &tensor->row_bytes) ||
        !hypura_size_mul(tensor->row_bytes, rows, &tensor->bytes)) {
        return FAIL(c, "has more bytes than 64 bits can count");
    }
    return HYPURA_OK;
}

/* Leaves in tensor->offset the offset within the data. */
static hypura_status take_tensor(cursor *c, hypura_arena *names, hypura_tensor *tensor)
{
    *tensor = (hypura_tensor){.layer = -1, .bundle = -1};
    hypura_status status = take_name(c, names, GGML_MAX_NAME - 1, &tensor->name);
    if (status != HYPURA_OK) {
        return status;
    }
    (void)snprintf(c->place, sizeof(c->place), "tensor '%s'", tensor->name);
    status = take_shape(c, tensor);
    status = status == HYPURA_OK ? take_tensor_type(c, tensor) : status;
    return status == HYPURA_OK ? take_number(c, 8, &tensor->offset) : status;
}

/* Tensors follow each other, each padded to the alignment: llama.cpp accepts no
 * other placement. *end is where the data of the ones before ends. */
static hypura_status check_placement(const cursor *c, const hypura_tensor *tensor, uint32_t alignment, uint64_t *end)
{
    if (tensor->offset % alignment != 0) {
        return FAIL(c, "its offset %" PRIu64 " is no multiple of the alignment %" PRIu32, tensor->offset, alignment);
    }
    if (tensor->offset != *end) {
        return FAIL(c,
                    "starts at byte %" PRIu64 " of the data, expected %" PRIu64
                    ": tensors must follow each other without gap or overlap",
                    tensor->offset, *end);
    }
    if (!hypura_size_add(*end, tensor->bytes, end) || *end > (uint64_t)INT64_MAX - alignment) {
        return FAIL(c, "its %" PRIu64 " bytes end beyond what a file can hold", tensor->bytes);
    }
    *end = hypura_round_up(*end, alignment);
    return HYPURA_OK;
}

static hypura_status take_tensors(cursor *c, uint64_t n, hypura_arena *names, hypura_gguf *gguf)
{
    uint64_t end = 0;
    for (uint64_t i = 0; i < n; i++) {
        (void)snprintf(c->place, sizeof(c->place), "tensor %" PRIu64 " of %" PRIu64, i + 1, n);
        if (!grow(&gguf->tensors, gguf->n_tensors, sizeof(gguf->tensors[0]))) {
            return out_of_memory(c);
        }
        hypura_tensor *tensor = &gguf->tensors[gguf->n_tensors];
        hypura_status status = take_tensor(c, names, tensor);
        status = status == HYPURA_OK ? check_placement(c, tensor, gguf->alignment, &end) : status;
        if (status != HYPURA_OK) {
            return status;
        }
        gguf->n_tensors++;
    }
    return HYPURA_OK;
}

/* Offsets become absolute, once it is known where the data starts. */
static hypura_status place_tensors(cursor *c, hypura_gguf *gguf)
{
    gguf->data_offset = hypura_round_up(c->offset, gguf->alignment);
    for (int i = 0; i < gguf->n_tensors; i++) {
        hypura_tensor *tensor = &gguf->tensors[i];
        (void)snprintf(c->place, sizeof(c->place), "tensor '%s'", tensor->name);
        uint64_t end;
        if (!hypura_size_add(tensor->offset, gguf->data_offset, &tensor->offset) ||
            !hypura_size_add(tensor->offset, tensor->bytes, &end) || end > c->source->bytes) {
            return FAIL(c,
                        "lies at byte %" PRIu64 " and needs %" PRIu64 " bytes, but the file has %" PRIu64
                        ": it is truncated, fetch it again",
                        tensor->offset, tensor->bytes, c->source->bytes);
        }
    }
    return HYPURA_OK;
}

/* ---- the header ---- */

/* Files that get a model's name by mistake, by their first four bytes. */
static const struct {
    char begin[5];
    const char *is;
} mistaken[] = {
    {"vers", "it may be a pointer of Git LFS in place of the model: git lfs pull fetches that"},
    {"<!DO", "it is a web page: fetch the model again, by the link to the file itself"},
    {"<!do", "it is a web page: fetch the model again, by the link to the file itself"},
    {"<htm", "it is a web page: fetch the model again, by the link to the file itself"},
    {"PK\3\4", "it is an archive, or a model of PyTorch: llama.cpp's convert_hf_to_gguf.py makes GGUFs of those"},
    {"lmgg", "it is a model of an old form of llama.cpp: convert the original again"},
    {"fmgg", "it is a model of an old form of llama.cpp: convert the original again"},
    {"tjgg", "it is a model of an old form of llama.cpp: convert the original again"},
    {"algg", "it is a LoRA adapter of an old form of llama.cpp, no model"},
};

/* magic: what is there in place of GGUF's. */
static hypura_status fail_magic(cursor *c, const char *magic)
{
    char next[5]; /* safetensors: eight bytes for the length of a header, which is JSON */
    const char *is = "it is no GGUF model";
    for (size_t i = 0; i < sizeof(mistaken) / sizeof(*mistaken); i++) {
        is = memcmp(magic, mistaken[i].begin, 4) == 0 ? mistaken[i].is : is;
    }
    if (bytes_left(c) >= sizeof(next) && take(c, next, sizeof(next)) == HYPURA_OK && memcmp(next, "\0\0\0\0{", 5) == 0) {
        is = "it is a model in safetensors: llama.cpp's convert_hf_to_gguf.py makes GGUFs of those";
    }
    return FAIL(c, "the file does not start with 'GGUF': %s", is);
}

static hypura_status take_version(cursor *c, uint32_t *version)
{
    char magic[4];
    hypura_status status = take(c, magic, sizeof(magic));
    if (status == HYPURA_OK && memcmp(magic, "GGUF", 4) != 0) {
        return fail_magic(c, magic);
    }
    uint64_t number = 0;
    status = status == HYPURA_OK ? take_number(c, 4, &number) : status;
    if (status != HYPURA_OK) {
        return status;
    }
    if (number != 0 && (number & 0xffff) == 0) {
        return FAIL(c, "the file is big endian, only little endian is supported: convert the model again");
    }
    if (number < 2 || number > 3) {
        return FAIL(c, "GGUF version %" PRIu64 " is not supported (2 and 3 are): %s", number,
                    number < 2 ? "convert the model again" : "the file is newer than this program, or damaged");
    }
    *version = (uint32_t)number;
    return HYPURA_OK;
}

/* Things that take at least min_bytes each, and are numbered by int. */
static hypura_status check_count(const cursor *c, const char *what, uint64_t n, uint64_t min_bytes)
{
    if (n > bytes_left(c) / min_bytes || n > INT_MAX / 2) {
        return FAIL(
            c, "%" PRIu64 " %s cannot fit the file's %" PRIu64 " bytes: it is truncated or damaged, fetch it again", n,
            what, c->source->bytes);
    }
    return HYPURA_OK;
}

static hypura_status read_alignment(cursor *c, hypura_gguf *gguf)
{
    uint64_t alignment;
    hypura_status status =
        hypura_gguf_integer(gguf, "general.alignment", DEFAULT_ALIGNMENT, (uint64_t)1 << 30, &alignment, c->error);
    if (status == HYPURA_OK && (alignment == 0 || (alignment & (alignment - 1)) != 0)) {
        return hypura_fail(c->error, HYPURA_ERR_FORMAT,
                           "%s: key 'general.alignment' is %" PRIu64 ", not a power of two", gguf->path, alignment);
    }
    gguf->alignment = (uint32_t)alignment;
    return status;
}

static hypura_status read_header(cursor *c, hypura_arena *names, hypura_gguf *gguf)
{
    uint64_t n_tensors = 0;
    uint64_t n_keys = 0;
    hypura_status status = take_version(c, &gguf->version);
    status = status == HYPURA_OK ? take_number(c, 8, &n_tensors) : status;
    status = status == HYPURA_OK ? take_number(c, 8, &n_keys) : status;
    status = status == HYPURA_OK ? check_count(c, "keys", n_keys, MIN_KEY_BYTES) : status;
    status = status == HYPURA_OK ? check_count(c, "tensors", n_tensors, MIN_TENSOR_BYTES) : status;
    status = status == HYPURA_OK ? take_keys(c, n_keys, gguf) : status;
    status = status == HYPURA_OK ? read_alignment(c, gguf) : status;
    status = status == HYPURA_OK ? take_tensors(c, n_tensors, names, gguf) : status;
    return status == HYPURA_OK ? place_tensors(c, gguf) : status;
}

hypura_status hypura_gguf_read(const hypura_source *source, hypura_arena *names, hypura_gguf *gguf, hypura_error *error)
{
    cursor c = {.source = source, .error = error, .place = "header"};
    *gguf = (hypura_gguf){.path = source->path};
    c.buffer = malloc(BUFFER_BYTES);
    hypura_status status = c.buffer == NULL ? out_of_memory(&c) : read_header(&c, names, gguf);
    free(c.buffer);
    if (status != HYPURA_OK) {
        hypura_gguf_clear(gguf);
    }
    return status;
}

void hypura_gguf_clear(hypura_gguf *gguf)
{
    free(gguf->keys);
    free(gguf->tensors);
    hypura_arena_free(&gguf->arena);
    *gguf = (hypura_gguf){0};
}
