/*
 * arguments.c - see arguments.h.
 */
#include "worker/arguments.h"

#include "base/size.h"
#include "base/status.h"
#include "engine/speculation.h"
#include "engine/speculation_shim.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_BATCH 2048 /* tokens that llama.cpp's server hands over at once, unless it is told */
#define OPTION_ADAPTER 256
#define OPTION_TYPE_K 257
#define OPTION_TYPE_V 258
#define OPTION_CHECK_GRAMMAR 259
#define OPTION_RPC 260
#define OPTION_RPC_MEMORY 261
#define OPTION_GPU_SHARE 262
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
static bool take_vram(const char *text, hypura_model_options *to)
{
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

/* NAME=LENT/BYTES/MOST, see engine/gpu_share.h; once for each GPU. */
static bool take_share(const char *text, hypura_gpu_shares *to)
{
    hypura_gpu_share *share = &to->list[to->n];
    const char *numbers = strrchr(text, '=');
    int end = 0;
    if (to->n == HYPURA_MAX_GPUS || !numbers || numbers == text || (size_t)(numbers - text) >= sizeof(share->name) ||
        sscanf(numbers, "=%" SCNu64 "/%" SCNu64 "/%" SCNu64 "%n", &share->lent_bytes, &share->bytes, &share->most_bytes, &end) != 3 ||
        numbers[end] != '\0') {
        return false;
    }
    memcpy(share->name, text, (size_t)(numbers - text));
    to->n++;
    return true;
}

static bool take(int option, const char *value, hypura_worker_arguments *to)
{
    uint32_t number = 0;
    switch (option) {
    case 'm':
        to->model.path = value;
        return true;
    case 'n':
        to->name = value;
        return true;
    case 's':
        to->socket = value;
        return true;
    case 'l':
        to->live = value;
        return true;
    case 'f':
        to->slots_folder = value;
        return true;
    case 'p':
        to->projector = value;
        to->model.projector = value;
        return true;
    case OPTION_ADAPTER:
        if (to->model.n_adapters == HYPURA_MAX_ADAPTERS) {
            return false;
        }
        to->adapters[to->model.n_adapters++] = (hypura_adapter){.path = value, .scale = 1.0f};
        to->model.adapters = to->adapters;
        return true;
    case OPTION_TYPE_K:
        to->model.kv_cache.type_k = value;
        return true;
    case OPTION_TYPE_V:
        to->model.kv_cache.type_v = value;
        return true;
    case 'T':
        to->template = value;
        return true;
    case 'D':
        to->defaults = value;
        return true;
    case 'i':
        to->model.io_engine = value;
        return true;
    case 'd':
        to->model.cache_dir = value;
        return true;
    case 'M':
        return hypura_size_parse(value, &to->model.memory_bytes);
    case 'W':
        return hypura_size_parse(value, &to->model.weights_bytes);
    case 'L':
        return hypura_size_parse(value, &to->model.io_limit_bytes_per_s);
    case 'g':
        to->model.gpu = value;
        return true;
    case OPTION_RPC:
        to->model.rpc = value;
        return true;
    case OPTION_RPC_MEMORY:
        return hypura_size_parse(value, &to->model.rpc_bytes);
    case 'V':
        return take_vram(value, &to->model);
    case OPTION_GPU_SHARE:
        return take_share(value, &to->shares);
    case 'G':
        to->model.gpu_misses = strcmp(value, "cpu") == 0 ? HYPURA_GPU_MISSES_CPU : HYPURA_GPU_MISSES_UPLOAD;
        return strcmp(value, "cpu") == 0 || strcmp(value, "upload") == 0;
    case 'R':
        return hypura_size_parse(value, &to->reserve_bytes);
    case 'c':
        return parse_unsigned(value, &to->model.n_context);
    case 'b':
        return parse_unsigned(value, &to->model.n_ubatch);
    case 'P':
        return parse_unsigned(value, &to->n_sequences) && to->n_sequences > 0;
    case 't':
        to->model.n_threads = parse_unsigned(value, &number) ? (int)number : -1;
        return to->model.n_threads >= 0;
    case 'a':
        to->model.speculation.draft = value;
        return true;
    case 'A':
        to->model.speculation.types = value;
        return true;
    case 'x':
        return parse_unsigned(value, &to->model.speculation.n_max) && to->model.speculation.n_max > 0;
    case 'y':
        return parse_share(value, &to->model.speculation.p_min);
    case 'S':
        to->context_shift = true;
        return true;
    case 'e':
        to->embeddings = true;
        return true;
    case 'r':
        to->reranking = true;
        return true;
    case 'C':
        to->check_template = true;
        return true;
    case OPTION_CHECK_GRAMMAR:
        to->check_grammar = true;
        return true;
    case 'E':
        to->estimate = true;
        return true;
    case 'v':
        to->verbose = true;
        return true;
    default:
        return false;
    }
}

hypura_status hypura_worker_parse(int argc, char **argv, hypura_worker_arguments *arguments, hypura_error *error)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},
        {"name", required_argument, NULL, 'n'},
        {"socket", required_argument, NULL, 's'},
        {"live", required_argument, NULL, 'l'},
        {"slots", required_argument, NULL, 'f'},
        {"projector", required_argument, NULL, 'p'},
        {"adapter", required_argument, NULL, OPTION_ADAPTER},
        {"cache-type-k", required_argument, NULL, OPTION_TYPE_K},
        {"cache-type-v", required_argument, NULL, OPTION_TYPE_V},
        {"chat-template", required_argument, NULL, 'T'},
        {"defaults", required_argument, NULL, 'D'},
        {"io-engine", required_argument, NULL, 'i'},
        {"gpu", required_argument, NULL, 'g'},
        {"vram", required_argument, NULL, 'V'},
        {"gpu-share", required_argument, NULL, OPTION_GPU_SHARE},
        {"gpu-misses", required_argument, NULL, 'G'},
        {"rpc", required_argument, NULL, OPTION_RPC},
        {"rpc-memory", required_argument, NULL, OPTION_RPC_MEMORY},
        {"cache-dir", required_argument, NULL, 'd'},
        {"memory", required_argument, NULL, 'M'},
        {"weights", required_argument, NULL, 'W'},
        {"io-limit", required_argument, NULL, 'L'},
        {"reserve", required_argument, NULL, 'R'},
        {"context", required_argument, NULL, 'c'},
        {"batch", required_argument, NULL, 'b'},
        {"parallel", required_argument, NULL, 'P'},
        {"threads", required_argument, NULL, 't'},
        {"draft", required_argument, NULL, 'a'},
        {"spec-type", required_argument, NULL, 'A'},
        {"draft-max", required_argument, NULL, 'x'},
        {"draft-p-min", required_argument, NULL, 'y'},
        {"context-shift", no_argument, NULL, 'S'},
        {"embeddings", no_argument, NULL, 'e'},
        {"reranking", no_argument, NULL, 'r'},
        {"check-template", no_argument, NULL, 'C'},
        {"check-grammar", no_argument, NULL, OPTION_CHECK_GRAMMAR},
        {"estimate", no_argument, NULL, 'E'},
        {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    *arguments = (hypura_worker_arguments){.n_sequences = 1};
    int index = 0;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (option == '?') {
            return hypura_fail(error, HYPURA_ERR_USAGE,
                               "%s is not an option of hypura-engine, which hypura serve starts", argv[optind - 1]);
        }
        if (!take(option, optarg, arguments)) {
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

void hypura_worker_server_words(const hypura_worker_arguments *arguments, const hypura_preparation *prepared,
                                hypura_worker_words *words)
{
    const hypura_context_options *context = &prepared->context;
    memset(words, 0, sizeof(*words));
    add(words, "hypura-engine");
    hypura_worker_add_text(words, "--model", arguments->model.path);
    hypura_worker_add_text(words, "--alias", arguments->name);
    hypura_worker_add_text(words, "--host", arguments->socket);
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
    /* Sizes are ours: they were planned for. */
    hypura_worker_add_text(words, "--fit", "off");
    add(words, "--offline");
    add(words, "--no-ui");
    hypura_worker_add_text(words, "--cors-origins", "http://localhost"); /* pages speak with the front */
    add(words, "--metrics");
    add(words, "--slots");
    if (arguments->slots_folder) {
        hypura_worker_add_text(words, "--slot-save-path", arguments->slots_folder);
    }
    if (arguments->projector) {
        hypura_worker_add_text(words, "--mmproj", arguments->projector);
        /* Where it was planned. */
        if (prepared->gpus.n_here > 0) {
            hypura_worker_add_text(words, "--mmproj-device", ggml_backend_dev_name(prepared->gpus.devices[0]));
        } else {
            add(words, "--no-mmproj-offload");
        }
    }
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
