/*
 * arguments.c - see arguments.h.
 */
#include "worker/arguments.h"

#include "base/size.h"
#include "base/status.h"
#include "engine/llama/speculation_shim.h"
#include "engine/prepare/speculation.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_BATCH 2048 /* tokens that llama.cpp's server hands over at once, unless it is told */
#define MAX_CONTEXTS 10   /* an answer takes that many at most, unless its request says how long it may be */

static bool parse_unsigned(const char *text, uint32_t *value)
{
    char *end;
    errno = 0;
    const unsigned long parsed = strtoul(text, &end, 10);
    *value = (uint32_t)parsed;
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && parsed <= INT32_MAX;
}

static bool parse_share(const char *text, float *value)
{
    char *end;
    errno = 0;
    *value = strtof(text, &end);
    return text[0] != '\0' && *end == '\0' && errno == 0 && *value >= 0.0f && *value <= 1.0f;
}

/* On all GPUs, or on each: 4G+8G. */
static bool take_vram(const char *text, hypura_worker_arguments *arguments)
{
    hypura_model_options *to = &arguments->model;
    if (!strchr(text, '+')) {
        return hypura_size_parse(text, &to->vram_bytes);
    }
    bool good = true;
    int n = 0;
    for (const char *item = text; item && good; n++) {
        char word[32];
        const size_t length = strcspn(item, "+");
        good = n < HYPURA_MAX_GPUS && length < sizeof(word);
        if (good) {
            memcpy(word, item, length);
            word[length] = '\0';
            good = hypura_size_parse(word, &to->gpu_vram_bytes[n]);
        }
        item = item[length] == '+' ? item + length + 1 : NULL;
    }
    return good;
}

/* NAME=LENT/BYTES/MOST, see engine/llama/gpu_share.h; once for each GPU. */
static bool take_gpu_share(const char *text, hypura_worker_arguments *arguments)
{
    hypura_gpu_shares *to = &arguments->shares;
    hypura_gpu_share *share = &to->list[to->n];
    const char *numbers = strrchr(text, '=');
    int end = 0;
    if (to->n == HYPURA_MAX_GPUS || !numbers || numbers == text || (size_t)(numbers - text) >= sizeof(share->name) ||
        sscanf(numbers, "=%" SCNu64 "/%" SCNu64 "/%" SCNu64 "%n", &share->lent_bytes, &share->bytes, &share->most_bytes,
               &end) != 3 ||
        numbers[end] != '\0') {
        return false;
    }
    memcpy(share->name, text, (size_t)(numbers - text));
    to->n++;
    return true;
}

static bool take_gpu_misses(const char *text, hypura_worker_arguments *arguments)
{
    const bool by_cpu = strcmp(text, "cpu") == 0;
    arguments->model.gpu_misses = by_cpu ? HYPURA_GPU_MISSES_CPU : HYPURA_GPU_MISSES_UPLOAD;
    return by_cpu || strcmp(text, "upload") == 0;
}

/* One more. */
static bool take_adapter(const char *text, hypura_worker_arguments *arguments)
{
    hypura_model_options *to = &arguments->model;
    if (to->n_adapters == HYPURA_MAX_ADAPTERS) {
        return false;
    }
    arguments->adapters[to->n_adapters++] = (hypura_adapter){.path = text, .scale = 1.0f};
    to->adapters = arguments->adapters;
    return true;
}

typedef struct known_option {
    const char *name;
    enum { FLAG, TEXT, SIZE, NUMBER, COUNT, INTEGER, SHARE, OTHER } kind; /* a COUNT is never 0 */
    union {
        bool *flag;
        const char **text;
        uint64_t *size;
        uint32_t *number;
        int *integer;
        float *share;
        bool (*other)(const char *text, hypura_worker_arguments *arguments);
    } to;
} known_option;

static bool take(const known_option *option, const char *value, hypura_worker_arguments *arguments)
{
    uint32_t number;
    switch (option->kind) {
    case FLAG:
        *option->to.flag = true;
        return true;
    case TEXT:
        *option->to.text = value;
        return true;
    case SIZE:
        return hypura_size_parse(value, option->to.size);
    case NUMBER:
        return parse_unsigned(value, option->to.number);
    case COUNT:
        return parse_unsigned(value, option->to.number) && *option->to.number > 0;
    case INTEGER:
        if (!parse_unsigned(value, &number)) {
            return false;
        }
        *option->to.integer = (int)number;
        return true;
    case SHARE:
        return parse_share(value, option->to.share);
    case OTHER:
        return option->to.other(value, arguments);
    }
    return false;
}

hypura_status hypura_worker_parse(int argc, char **argv, hypura_worker_arguments *arguments, hypura_error *error)
{
    hypura_model_options *model = &arguments->model;
    const known_option known[] = {
        {"model", TEXT, .to.text = &model->path},
        {"name", TEXT, .to.text = &arguments->name},
        {"socket", TEXT, .to.text = &arguments->socket},
        {"live", TEXT, .to.text = &arguments->live},
        {"slots", TEXT, .to.text = &arguments->slots_folder},
        {"projector", TEXT, .to.text = &model->projector},
        {"adapter", OTHER, .to.other = take_adapter},
        {"cache-type-k", TEXT, .to.text = &model->kv_cache.type_k},
        {"cache-type-v", TEXT, .to.text = &model->kv_cache.type_v},
        {"chat-template", TEXT, .to.text = &arguments->template},
        {"defaults", TEXT, .to.text = &arguments->defaults},
        {"io-engine", TEXT, .to.text = &model->io_engine},
        {"gpu", TEXT, .to.text = &model->gpu},
        {"vram", OTHER, .to.other = take_vram},
        {"gpu-share", OTHER, .to.other = take_gpu_share},
        {"gpu-misses", OTHER, .to.other = take_gpu_misses},
        {"rpc", TEXT, .to.text = &model->rpc},
        {"rpc-memory", SIZE, .to.size = &model->rpc_bytes},
        {"cache-dir", TEXT, .to.text = &model->cache_dir},
        {"memory", SIZE, .to.size = &model->memory_bytes},
        {"weights", SIZE, .to.size = &model->weights_bytes},
        {"io-limit", SIZE, .to.size = &model->io_limit_bytes_per_s},
        {"reserve", SIZE, .to.size = &arguments->reserve_bytes},
        {"context", NUMBER, .to.number = &model->n_context},
        {"batch", NUMBER, .to.number = &model->n_ubatch},
        {"parallel", COUNT, .to.number = &arguments->n_sequences},
        {"threads", INTEGER, .to.integer = &model->n_threads},
        {"draft", TEXT, .to.text = &model->speculation.draft},
        {"spec-type", TEXT, .to.text = &model->speculation.types},
        {"draft-max", COUNT, .to.number = &model->speculation.n_max},
        {"draft-p-min", SHARE, .to.share = &model->speculation.p_min},
        {"context-shift", FLAG, .to.flag = &arguments->context_shift},
        {"embeddings", FLAG, .to.flag = &arguments->embeddings},
        {"reranking", FLAG, .to.flag = &arguments->reranking},
        {"check-template", FLAG, .to.flag = &arguments->check_template},
        {"check-grammar", FLAG, .to.flag = &arguments->check_grammar},
        {"estimate", FLAG, .to.flag = &arguments->estimate},
        {"verbose", FLAG, .to.flag = &arguments->verbose},
    };
    enum { N_KNOWN = sizeof known / sizeof *known };
    struct option options[N_KNOWN + 1] = {{0}};
    for (int i = 0; i < N_KNOWN; i++) {
        options[i] = (struct option){.name = known[i].name, .has_arg = known[i].kind == FLAG ? no_argument : required_argument};
    }
    *arguments = (hypura_worker_arguments){.n_sequences = 1};
    int index = 0;
    opterr = 0;
    for (int met; (met = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (met == '?') {
            return hypura_fail(error, HYPURA_ERR_USAGE,
                               "%s is not an option of hypura-engine, which hypura serve starts", argv[optind - 1]);
        }
        if (!take(&known[index], optarg, arguments)) {
            return hypura_fail(error, HYPURA_ERR_USAGE, "--%s %s cannot be understood", options[index].name, optarg);
        }
    }
    if (optind == argc && (arguments->check_template || arguments->check_grammar)) {
        return HYPURA_OK;
    }
    if (optind < argc || !arguments->model.path ||
        (!arguments->estimate && (!arguments->socket || !arguments->live || !arguments->name))) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "hypura-engine is started by hypura serve: --model, --name, --socket and --live are needed");
    }
    return HYPURA_OK;
}

static void add(hypura_worker_words *words, const char *word)
{
    if (words->n < HYPURA_WORKER_MAX_WORDS) {
        words->words[words->n++] = (char *)(uintptr_t)word; /* the server does not write to them */
        words->words[words->n] = NULL;
    }
}

void hypura_worker_add_text(hypura_worker_words *words, const char *option, const char *value)
{
    if (words->n + 2 <= HYPURA_WORKER_MAX_WORDS) {
        add(words, option);
        add(words, value);
    } else {
        words->n = HYPURA_WORKER_MAX_WORDS;
    }
}

void hypura_worker_add_copy(hypura_worker_words *words, const char *option, const char *value)
{
    char *text = words->text + words->text_bytes;
    const size_t bytes = strlen(value) + 1;
    if (bytes <= sizeof(words->text) - words->text_bytes) {
        memcpy(text, value, bytes);
        words->text_bytes += bytes;
        hypura_worker_add_text(words, option, text);
    } else {
        words->n = HYPURA_WORKER_MAX_WORDS;
    }
}

static void add_number(hypura_worker_words *words, const char *option, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    hypura_worker_add_copy(words, option, text);
}

/* As llama.cpp takes several, parted by commas. */
static char *add_quoted(char *to, const char *end, const char *path)
{
    const bool quoted = strpbrk(path, ",\"") != NULL;
    if (quoted && to < end) {
        *to++ = '"';
    }
    for (; *path != '\0' && to < end; path++) {
        *to++ = *path;
        if (*path == '"') {
            *to++ = '"';
        }
    }
    if (quoted) {
        *to++ = '"';
    }
    return to;
}

/* Of an option that is given twice the last one counts. */
static void add_adapters(hypura_worker_words *words, const hypura_worker_arguments *arguments)
{
    char *to = words->adapters;
    const char *end = words->adapters + sizeof(words->adapters) - 4;
    for (int i = 0; i < arguments->model.n_adapters; i++) {
        if (i > 0 && to < end) {
            *to++ = ',';
        }
        to = add_quoted(to, end, arguments->adapters[i].path);
    }
    *to = '\0';
    hypura_worker_add_text(words, "--lora", words->adapters);
}

static void add_speculation(void *user, const char *option, const char *value)
{
    hypura_worker_add_copy(user, option, value);
}

/* Sizes are ours: they were planned for. */
static void add_sizes(hypura_worker_words *words, const hypura_worker_arguments *arguments, const hypura_preparation *prepared)
{
    const hypura_context_options *context = &prepared->context;
    add_number(words, "--ctx-size", context->n_context);
    add_number(words, "--parallel", context->n_sequences);
    if (context->kv_cache.type_k) {
        hypura_worker_add_text(words, "--cache-type-k", context->kv_cache.type_k);
    }
    if (context->kv_cache.type_v) {
        hypura_worker_add_text(words, "--cache-type-v", context->kv_cache.type_v);
    }
    if (context->n_ubatch > SERVER_BATCH) { /* which it is cut to else */
        add_number(words, "--batch-size", context->n_ubatch);
    }
    add_number(words, "--ubatch-size", context->n_ubatch);
    add_number(words, "--threads", (uint64_t)context->n_threads);
    add_number(words, "--threads-batch", (uint64_t)context->n_threads);
    if (!context->one_cache) {
        /* Each conversation has a cache of its own: what others say changes none of its sums. */
        add(words, "--no-kv-unified");
    } else {
        /* With caches apart libllama computes a batch in pieces, of conversations that follow one another, and of as
         * many tokens of each; every piece reads the weights that are not held. In one cache a batch is one piece. */
        add(words, "--kv-unified");
        add_number(words, "--kv-unified-per-slot", context->n_context / context->n_sequences);
    }
    add(words, "--no-cache-idle-slots");
    add_number(words, "--cache-ram", arguments->reserve_bytes >> 20);
    add_number(words, "--ctx-checkpoints", prepared->n_checkpoints);
    hypura_worker_add_text(words, "--fit", "off");
}

static void add_projector(hypura_worker_words *words, const hypura_worker_arguments *arguments,
                          const hypura_preparation *prepared)
{
    if (!arguments->model.projector) {
        return;
    }
    hypura_worker_add_text(words, "--mmproj", arguments->model.projector);
    /* Where it was planned. */
    if (prepared->gpus.n_here > 0) {
        hypura_worker_add_text(words, "--mmproj-device", ggml_backend_dev_name(prepared->gpus.devices[0]));
    } else {
        add(words, "--no-mmproj-offload");
    }
}

void hypura_worker_server_words(const hypura_worker_arguments *arguments, const hypura_preparation *prepared,
                                hypura_worker_words *words)
{
    const hypura_context_options *context = &prepared->context;
    memset(words, 0, sizeof(*words));
    add(words, "hypura-engine");
    hypura_worker_add_text(words, "--model", arguments->model.path);
    hypura_worker_add_text(words, "--alias", arguments->name);
    hypura_worker_add_text(words, "--host", arguments->socket);
    add_sizes(words, arguments, prepared);
    add(words, "--offline");
    add(words, "--no-ui");
    hypura_worker_add_text(words, "--cors-origins", "http://localhost"); /* pages speak with the front */
    add(words, "--metrics");
    add(words, "--slots");
    if (arguments->slots_folder) {
        hypura_worker_add_text(words, "--slot-save-path", arguments->slots_folder);
    }
    add_projector(words, arguments, prepared);
    if (arguments->model.n_adapters > 0) {
        add_adapters(words, arguments);
    }
    if (arguments->template) {
        hypura_worker_add_text(words, "--chat-template-file", arguments->template);
    }
    if (arguments->context_shift) {
        add(words, "--context-shift");
        /* As Ollama: a model that never ends would go on for ever. */
        add_number(words, "--predict", (uint64_t)context->n_context / context->n_sequences * MAX_CONTEXTS);
    }
    if (hypura_speculation_wanted(&arguments->model.speculation)) {
        hypura_shim_speculation_words(&arguments->model.speculation, add_speculation, words);
    }
    if (arguments->reranking) {
        add(words, "--reranking");
    }
    if (arguments->embeddings) {
        add(words, "--embeddings");
        if (arguments->pool_last) {
            hypura_worker_add_text(words, "--pooling", "last");
        }
    }
    if (!arguments->verbose) {
        add_number(words, "--log-verbosity", 2);
    }
}
