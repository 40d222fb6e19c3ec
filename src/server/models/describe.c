/*
 * describe.c - see store.h: everything a GGUF says of itself, as /api/show gives it.
 *
 * ggml reads it here, after our own reader has found the header sound (an entry
 * without a problem): ours keeps what placing weights needs alone.
 */
#include "server/models/store_internal.h"

#include "base/status.h"
#include "server/models/card.h"

#include <gguf.h>
#include <math.h>
#include <string.h>

/* Text that is no UTF-8 has no place in JSON. */
static json_t *text_value(const char *text)
{
    json_t *value = json_string(text);
    return value != NULL ? value : json_null();
}

static json_t *integer_value(uint64_t value)
{
    return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

static json_t *real_value(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *element(enum gguf_type type, const void *data, size_t i)
{
    switch (type) {
    case GGUF_TYPE_UINT8:
        return json_integer(((const uint8_t *)data)[i]);
    case GGUF_TYPE_INT8:
        return json_integer(((const int8_t *)data)[i]);
    case GGUF_TYPE_UINT16:
        return json_integer(((const uint16_t *)data)[i]);
    case GGUF_TYPE_INT16:
        return json_integer(((const int16_t *)data)[i]);
    case GGUF_TYPE_UINT32:
        return json_integer(((const uint32_t *)data)[i]);
    case GGUF_TYPE_INT32:
        return json_integer(((const int32_t *)data)[i]);
    case GGUF_TYPE_UINT64:
        return integer_value(((const uint64_t *)data)[i]);
    case GGUF_TYPE_INT64:
        return json_integer(((const int64_t *)data)[i]);
    case GGUF_TYPE_FLOAT32:
        return real_value((double)((const float *)data)[i]);
    case GGUF_TYPE_FLOAT64:
        return real_value(((const double *)data)[i]);
    case GGUF_TYPE_BOOL:
        return json_boolean(((const int8_t *)data)[i] != 0);
    default:
        return json_null();
    }
}

static json_t *array_value(const struct gguf_context *gguf, int64_t key, bool verbose)
{
    if (!verbose) {
        return json_null();
    }
    json_t *array = json_array();
    enum gguf_type type = gguf_get_arr_type(gguf, key);
    size_t n = gguf_get_arr_n(gguf, key);
    for (size_t i = 0; i < n && array != NULL; i++) {
        json_t *value = type == GGUF_TYPE_STRING ? text_value(gguf_get_arr_str(gguf, key, i))
                                                 : element(type, gguf_get_arr_data(gguf, key), i);
        (void)json_array_append_new(array, value);
    }
    return array;
}

/* Every key but the chat template, which has a place of its own. */
static json_t *all_keys(const struct gguf_context *gguf, bool verbose)
{
    json_t *info = json_object();
    int64_t n = gguf_get_n_kv(gguf);
    for (int64_t key = 0; key < n && info != NULL; key++) {
        const char *name = gguf_get_key(gguf, key);
        enum gguf_type type = gguf_get_kv_type(gguf, key);
        if (strcmp(name, "tokenizer.chat_template") == 0) {
            continue;
        }
        json_t *value = type == GGUF_TYPE_ARRAY    ? array_value(gguf, key, verbose)
                        : type == GGUF_TYPE_STRING ? text_value(gguf_get_val_str(gguf, key))
                                                   : element(type, gguf_get_val_data(gguf, key), 0);
        (void)json_object_set_new(info, name, value);
    }
    return info;
}

static const char *template_of(const struct gguf_context *gguf)
{
    int64_t key = gguf_find_key(gguf, "tokenizer.chat_template");
    return key >= 0 && gguf_get_kv_type(gguf, key) == GGUF_TYPE_STRING ? gguf_get_val_str(gguf, key) : NULL;
}

static bool true_key(const struct gguf_context *gguf, const char *name)
{
    int64_t key = gguf_find_key(gguf, name);
    return key >= 0 && gguf_get_kv_type(gguf, key) == GGUF_TYPE_BOOL && gguf_get_val_bool(gguf, key);
}

static bool contains(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n && text != NULL; i++) {
        if (strstr(text, words[i]) != NULL) {
            return true;
        }
    }
    return false;
}

enum {
    CAN_EMBED = 1,
    CAN_COMPLETE = 2,
    CAN_CALL_TOOLS = 4,
    CAN_THINK = 8,
    CAN_INSERT = 16,
    CAN_SEE = 32,
    CAN_HEAR = 64,
};

static const struct {
    unsigned bit;
    const char *name;
} capability_names[] = {{CAN_EMBED, "embedding"}, {CAN_COMPLETE, "completion"}, {CAN_CALL_TOOLS, "tools"},
                        {CAN_THINK, "thinking"},  {CAN_INSERT, "insert"},       {CAN_SEE, "vision"},
                        {CAN_HEAR, "audio"}};

enum { N_CAPABILITIES = sizeof capability_names / sizeof *capability_names };

/* Told from the file as Ollama tells them: by keys, and by what the template uses. */
static unsigned capabilities(const struct gguf_context *gguf, const struct gguf_context *projector,
                             const hypura_model_entry *entry)
{
    static const char *const tool_words[] = {"tools"};
    static const char *const thinking_words[] = {"<think>", "enable_thinking", "reasoning_content", "<|channel|>"};
    const char *own = hypura_model_entry_jinja(entry);
    const char *template = own != NULL ? own : template_of(gguf);
    char pooling[128];
    (void)snprintf(pooling, sizeof pooling, "%s.pooling_type", entry->family);
    unsigned can = gguf_find_key(gguf, pooling) >= 0 ? CAN_EMBED : CAN_COMPLETE;
    if (contains(template, tool_words, 1)) {
        can |= CAN_CALL_TOOLS;
    }
    if (contains(template, thinking_words, sizeof thinking_words / sizeof *thinking_words)) {
        can |= CAN_THINK;
    }
    if (gguf_find_key(gguf, "tokenizer.ggml.fim_pre_token_id") >= 0 ||
        gguf_find_key(gguf, "tokenizer.ggml.prefix_token_id") >= 0) {
        can |= CAN_INSERT;
    }
    if (projector != NULL && true_key(projector, "clip.has_vision_encoder")) {
        can |= CAN_SEE;
    }
    if (projector != NULL && true_key(projector, "clip.has_audio_encoder")) {
        can |= CAN_HEAR;
    }
    return can;
}

static json_t *list_capabilities(unsigned can)
{
    json_t *list = json_array();
    for (size_t i = 0; i < N_CAPABILITIES; i++) {
        if (can & capability_names[i].bit) {
            (void)json_array_append_new(list, json_string(capability_names[i].name));
        }
    }
    return list;
}

static json_t *list_tensors(const struct gguf_context *gguf)
{
    json_t *list = json_array();
    const int64_t n = gguf_get_n_tensors(gguf);
    for (int64_t i = 0; i < n && list != NULL; i++) {
        const int64_t *ne = gguf_get_tensor_ne(gguf, i);
        json_t *shape = json_array();
        int n_dims = GGML_MAX_DIMS;
        while (n_dims > 1 && ne[n_dims - 1] == 1) {
            n_dims--;
        }
        for (int dim = 0; dim < n_dims; dim++) {
            (void)json_array_append_new(shape, json_integer(ne[dim]));
        }
        (void)json_array_append_new(list,
                                    json_pack("{s:o, s:s, s:o}", "name", text_value(gguf_get_tensor_name(gguf, i)),
                                              "type", ggml_type_name(gguf_get_tensor_type(gguf, i)), "shape", shape));
    }
    return list;
}

static struct gguf_context *open_header(const char *path)
{
    struct gguf_init_params parameters = {.no_alloc = true, .ctx = NULL};
    return path != NULL ? gguf_init_from_file(path, parameters) : NULL;
}

hypura_status hypura_models_can(hypura_models *models, const hypura_model_entry *entry, const char *capability,
                                bool *can, hypura_error *error)
{
    hypura_os_identity identity;
    unsigned known = 0;
    *can = false;
    (void)pthread_mutex_lock(&models->mutex);
    hypura_known_card *card = hypura_store_known(models, entry->path, &identity);
    /* Known of the file: a template of the entry's own may say something else. */
    const bool cached = hypura_model_entry_jinja(entry) == NULL;
    known = card != NULL && cached ? card->capabilities : 0;
    (void)pthread_mutex_unlock(&models->mutex);
    if (known == 0) {
        struct gguf_context *gguf = open_header(entry->path);
        if (gguf == NULL) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: ggml does not read its header", entry->path);
        }
        known = capabilities(gguf, NULL, entry);
        gguf_free(gguf);
        (void)pthread_mutex_lock(&models->mutex);
        card = hypura_store_known(models, entry->path, &identity);
        if (card != NULL && cached) {
            card->capabilities = known;
        }
        (void)pthread_mutex_unlock(&models->mutex);
    }
    for (size_t i = 0; i < N_CAPABILITIES; i++) {
        *can = *can || ((known & capability_names[i].bit) && strcmp(capability_names[i].name, capability) == 0);
    }
    return HYPURA_OK;
}

hypura_status hypura_model_describe(const hypura_model_entry *entry, bool verbose, json_t **description,
                                    hypura_error *error)
{
    hypura_card card;
    *description = NULL;
    /* The file may have changed since the entry was made. */
    hypura_card_read(entry->path, &card);
    if (card.kind != HYPURA_CARD_MODEL) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s", card.problem);
    }
    struct gguf_context *gguf = open_header(entry->path);
    if (gguf == NULL) {
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: ggml does not read its header", entry->path);
    }
    struct gguf_context *projector = open_header(entry->projector_path);
    json_t *info = all_keys(gguf, verbose);
    (void)json_object_set_new(info, "general.parameter_count", integer_value(card.n_parameters));
    const char *template = template_of(gguf);
    *description = json_pack("{s:o*, s:o*}", "model_info", info, "capabilities",
                             list_capabilities(capabilities(gguf, projector, entry)));
    if (template != NULL) {
        (void)json_object_set_new(*description, "template", text_value(template));
    }
    if (verbose) {
        (void)json_object_set_new(*description, "tensors", list_tensors(gguf));
    }
    if (projector != NULL) {
        (void)json_object_set_new(*description, "projector_info", all_keys(projector, verbose));
        gguf_free(projector);
    }
    gguf_free(gguf);
    return *description != NULL ? HYPURA_OK
                                : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to describe %s", entry->name);
}
