/*
 * command.c - see command.h.
 */
#include "cli/command.h"

#include "base/size.h"
#include "base/status.h"
#include "cli/output.h"

#include <stdio.h>
#include <string.h>

const char hypura_size_notes[] = "SIZE is a number of bytes, or a number with K, M or G (powers of 1024).\n";

const char *const hypura_io_engines[] = {"uring", "pool", NULL};

bool hypura_command_begin(const hypura_syntax *syntax, int argc, char *const *argv, hypura_arguments *arguments,
                          hypura_error *error, int *exit_code)
{
    hypura_error_clear(error);
    if (hypura_options_parse(syntax, argc, argv, arguments, error) != HYPURA_OK) {
        *exit_code = hypura_command_fail(error);
        return false;
    }
    if (arguments->help) {
        hypura_options_help(syntax, stdout);
        *exit_code = HYPURA_EXIT_SUCCESS;
        return false;
    }
    return true;
}

bool hypura_command_begin_model(const hypura_syntax *syntax, const hypura_environment *environment, int argc,
                                char *const *argv, hypura_model_words *words, hypura_model_options *model,
                                hypura_error *error, int *exit_code)
{
    hypura_arguments arguments;
    if (!hypura_command_begin(syntax, argc, argv, &arguments, error, exit_code)) {
        return false;
    }
    hypura_local_files files;
    hypura_status status = hypura_environment_find_files(environment, arguments.operands[0], &files, error);
    if (status == HYPURA_OK && snprintf(words->path, sizeof words->path, "%s", files.path) >= HYPURA_PATH_BYTES) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the path of the model is too long (more than %d bytes)",
                             HYPURA_PATH_BYTES - 1);
    }
    if (status == HYPURA_OK && model) {
        status = hypura_adapters_begin_with(&words->adapters, &files, error);
        model->path = words->path;
        model->adapters = words->adapters.items;
        model->n_adapters = words->adapters.n;
        model->gpu_misses = hypura_gpu_misses_of(words->gpu_misses);
        model->cache_dir = hypura_command_cache_dir(environment);
    }
    hypura_local_files_clear(&files);
    if (status != HYPURA_OK) {
        *exit_code = hypura_command_fail(error);
    }
    return status == HYPURA_OK;
}

static hypura_status begin_with(hypura_adapter_list *adapters, const char *path, hypura_error *error)
{
    const int n = adapters->n;
    if (n == HYPURA_MAX_ADAPTERS) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the model has adapters, and with those of --lora it would be %d: %d at most",
                           n + 1, HYPURA_MAX_ADAPTERS);
    }
    if (strlen(path) >= HYPURA_ADAPTER_PATH_BYTES) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s: the path of the model's adapter is too long", path);
    }
    memcpy(adapters->paths[n], path, strlen(path) + 1);
    memmove(adapters->items + 1, adapters->items, (size_t)n * sizeof *adapters->items);
    adapters->items[0] = (hypura_adapter){.path = adapters->paths[n], .scale = 1.0f};
    adapters->n++;
    return HYPURA_OK;
}

hypura_status hypura_adapters_begin_with(hypura_adapter_list *adapters, const hypura_local_files *files, hypura_error *error)
{
    hypura_status status = HYPURA_OK;
    for (int i = HYPURA_MAX_ADAPTERS; i-- > 0 && status == HYPURA_OK;) {
        status = files->adapters[i] ? begin_with(adapters, files->adapters[i], error) : HYPURA_OK;
    }
    return status;
}

int hypura_command_fail(const hypura_error *error)
{
    hypura_output_error("%s", error->message[0] ? error->message : hypura_status_name(error->status));
    return error->status == HYPURA_ERR_USAGE ? HYPURA_EXIT_USAGE : HYPURA_EXIT_FAILURE;
}

int hypura_command_end(hypura_status status, const hypura_error *error)
{
    return status == HYPURA_OK ? HYPURA_EXIT_SUCCESS : hypura_command_fail(error);
}

const char *hypura_command_cache_dir(const hypura_environment *environment)
{
    return environment->cache_dir[0] ? environment->cache_dir : NULL;
}

hypura_option hypura_option_json(bool *json)
{
    return (hypura_option){"json", NULL, "print JSON", HYPURA_OPTION_FLAG, .to.flag = json};
}

hypura_option hypura_option_memory(uint64_t *bytes)
{
    return (hypura_option){"memory", "SIZE", "limit on everything the model takes (default: what is free)",
                           HYPURA_OPTION_SIZE, .to.size = bytes};
}

hypura_option hypura_option_weights(hypura_budget *budget)
{
    return (hypura_option){"weights", "SIZE", "limit on the weights alone; also N% of the file", HYPURA_OPTION_BUDGET,
                           .to.budget = budget};
}

hypura_option hypura_option_context(uint32_t *n_context)
{
    return (hypura_option){"context",
                           "N",
                           "tokens of context (default: 4096 or the model's own)",
                           HYPURA_OPTION_UNSIGNED,
                           .to.unsigned_integer = n_context,
                           .min = 1,
                           .max = INT32_MAX,
                           .also = "-c --ctx-size"};
}

hypura_option hypura_option_cache_type_k(hypura_kv_cache *kv_cache)
{
    return (hypura_option){"cache-type-k",
                           "TYPE",
                           "numbers of the KV cache, keys: f16, q8_0, q4_0 ... (default: f16)",
                           HYPURA_OPTION_CHOICE,
                           .to.string = &kv_cache->type_k,
                           .choices = hypura_kv_cache_types(),
                           .also = "-ctk"};
}

hypura_option hypura_option_cache_type_v(hypura_kv_cache *kv_cache)
{
    return (hypura_option){"cache-type-v",
                           "TYPE",
                           "the same, values; q8_0 of both takes half the memory",
                           HYPURA_OPTION_CHOICE,
                           .to.string = &kv_cache->type_v,
                           .choices = hypura_kv_cache_types(),
                           .also = "-ctv"};
}

hypura_option hypura_option_ubatch(uint32_t *n_ubatch)
{
    return (hypura_option){"ubatch",
                           "N",
                           "prompt tokens computed together (default: 512; 2048: experts over a GPU)",
                           HYPURA_OPTION_UNSIGNED,
                           .to.unsigned_integer = n_ubatch,
                           .min = 1,
                           .max = 65536,
                           .also = "-ub --ubatch-size"};
}

hypura_option hypura_option_lora(hypura_adapter_list *adapters)
{
    return (hypura_option){"lora",
                           "FILE[:SCALE]",
                           "apply this LoRA adapter (GGUF); again, or by comma: more of them",
                           HYPURA_OPTION_ADAPTERS,
                           .to.adapters = adapters,
                           .also = "--lora-scaled"};
}

hypura_option hypura_option_gpu(const char **gpu)
{
    return (hypura_option){"gpu", "NAME,...", "GPUs to use, as profile lists them, or none (default: as many as help)",
                           HYPURA_OPTION_STRING, .to.string = gpu};
}

hypura_option hypura_option_rpc(const char **servers)
{
    return (hypura_option){"rpc", "HOST:PORT,...", "memory of machines on which rpc-server runs; it trusts all: see there",
                           HYPURA_OPTION_STRING, .to.string = servers};
}

hypura_option hypura_option_rpc_memory(uint64_t *bytes)
{
    return (hypura_option){"rpc-memory", "SIZE", "limit on what each of these holds (default: what is free there)",
                           HYPURA_OPTION_SIZE, .to.size = bytes};
}

/* In the order of hypura_gpu_misses. */
static const char *const miss_computers[] = {"upload", "cpu", NULL};

hypura_option hypura_option_gpu_misses(const char **who)
{
    return (hypura_option){"gpu-misses", "HOW", "experts GPU memory lacks: upload, or cpu: other bits (default: upload)",
                           HYPURA_OPTION_CHOICE, .to.string = who, .choices = miss_computers};
}

hypura_gpu_misses hypura_gpu_misses_of(const char *who)
{
    return (hypura_gpu_misses)hypura_option_choice(miss_computers, who);
}

hypura_option hypura_option_vram(hypura_vram_limit *limit)
{
    return (hypura_option){"vram", "SIZE", "limit on GPU memory; also N% of the experts, or 4G+8G: of each GPU",
                           HYPURA_OPTION_VRAM, .to.vram = limit};
}

hypura_option hypura_option_threads(int *n_threads)
{
    return (hypura_option){"threads",
                           "N",
                           "threads that compute (default: one for each core)",
                           HYPURA_OPTION_INT,
                           .to.integer = n_threads,
                           .min = 1,
                           .max = 512,
                           .also = "-t"};
}

hypura_option hypura_option_io_engine(const char **name)
{
    return (hypura_option){"io-engine", "NAME", "what reads: uring or pool (default: the faster one)", HYPURA_OPTION_CHOICE,
                           .to.string = name, .choices = hypura_io_engines};
}

hypura_option hypura_option_models(const char **folder)
{
    return (hypura_option){"models", "DIR", "folder of models (default: HYPURA_MODELS)", HYPURA_OPTION_STRING,
                           .to.string = folder};
}

hypura_option hypura_option_hub(const char **url)
{
    return (hypura_option){"hub", "URL", "pull hf.co/... from there (default: HF_ENDPOINT, or https://huggingface.co)",
                           HYPURA_OPTION_STRING, .to.string = url};
}

hypura_option hypura_option_registry(const char **url)
{
    return (hypura_option){"registry", "URL", "pull other names from there (default: https://registry.ollama.ai)",
                           HYPURA_OPTION_STRING, .to.string = url};
}

hypura_option hypura_option_draft(hypura_speculation_arguments *arguments)
{
    return (hypura_option){"draft",
                           "MODEL",
                           "small model of the same vocabulary that guesses tokens, see --draft-max",
                           HYPURA_OPTION_STRING,
                           .to.string = &arguments->draft,
                           .also = "-md --model-draft --spec-draft-model"};
}

hypura_option hypura_option_spec_type(hypura_speculation_arguments *arguments)
{
    return (hypura_option){"spec-type",
                           "LIST",
                           "guess from the text itself: ngram-simple, -map-k, -map-k4v, -mod, -cache",
                           HYPURA_OPTION_CHOICES,
                           .to.choice_list = &arguments->types,
                           .choices = hypura_speculation_types()};
}

hypura_option hypura_option_draft_max(hypura_speculation_arguments *arguments)
{
    return (hypura_option){"draft-max",
                           "N",
                           "tokens guessed at once at most (default: 8)",
                           HYPURA_OPTION_UNSIGNED,
                           .to.unsigned_integer = &arguments->n_max,
                           .min = 1,
                           .max = 1024,
                           .also = "--spec-draft-n-max"};
}

hypura_option hypura_option_draft_p_min(hypura_speculation_arguments *arguments)
{
    return (hypura_option){"draft-p-min",
                           "F",
                           "a draft ends before a token less likely than this (default: 0)",
                           HYPURA_OPTION_FLOAT,
                           .to.real = &arguments->p_min,
                           .min = 0,
                           .max = 1,
                           .also = "--spec-draft-p-min"};
}

static const char draft_simple[] = "draft-simple"; /* what --draft means by itself */

hypura_status hypura_speculation_resolve(const hypura_environment *environment, hypura_speculation_arguments *arguments,
                                         hypura_speculation *speculation, hypura_error *error)
{
    size_t used = 0;
    for (int i = 0; i < arguments->types.n; i++) {
        const char *name = arguments->types.items[i];
        if (strcmp(name, draft_simple) == 0) {
            if (!arguments->draft) {
                return hypura_fail(error, HYPURA_ERR_USAGE, "option --spec-type: %s needs a --draft", draft_simple);
            }
        } else if (used + strlen(name) + 2 <= sizeof arguments->names) {
            used += (size_t)snprintf(arguments->names + used, sizeof arguments->names - used, "%s%s", used ? "," : "", name);
        }
    }
    if (!arguments->draft && arguments->types.n == 0 && (arguments->n_max > 0 || arguments->p_min > 0.0f)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "--%s is of a --draft or a --spec-type, and there is none",
                           arguments->n_max > 0 ? "draft-max" : "draft-p-min");
    }
    *speculation = (hypura_speculation){.types = used > 0 ? arguments->names : NULL,
                                        .n_max = arguments->n_max,
                                        .p_min = arguments->p_min};
    if (!arguments->draft || !environment) {
        speculation->draft = arguments->draft;
        return HYPURA_OK;
    }
    speculation->draft = arguments->path;
    hypura_status status = hypura_environment_find_model(environment, arguments->draft, arguments->path, error);
    if (status != HYPURA_OK) {
        hypura_fail_prefix(error, "option --draft");
    }
    return status;
}

hypura_status hypura_limits_check(uint64_t memory_bytes, const hypura_budget *weights, hypura_error *error)
{
    return memory_bytes > 0 && (weights->bytes > 0 || weights->percent > 0)
               ? hypura_fail(error, HYPURA_ERR_USAGE, "--memory and --weights exclude each other")
               : HYPURA_OK;
}

/* Bytes of all the files that the model at path consists of. */
static hypura_status model_bytes(const char *path, uint64_t *bytes, hypura_error *error)
{
    hypura_map *map = NULL;
    hypura_status status = hypura_map_open(path, &map, error);
    *bytes = 0;
    for (int i = 0; status == HYPURA_OK && i < map->n_files; i++) {
        if (!hypura_size_add(*bytes, map->file_bytes[i], bytes)) {
            status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s: its files are larger than 2^64 bytes", path);
        }
    }
    hypura_map_close(map);
    return status;
}

hypura_status hypura_budgets_resolve(const hypura_budget *budgets, int n, const char *path, uint64_t *bytes,
                                     hypura_error *error)
{
    uint64_t whole = 0;
    for (int i = 0; i < n; i++) {
        bytes[i] = budgets[i].bytes;
        if (budgets[i].percent > 0.0) {
            hypura_status status = whole ? HYPURA_OK : model_bytes(path, &whole, error);
            if (status != HYPURA_OK) {
                return status;
            }
            /* At least a byte: 0 would mean no limit. */
            double part = (double)whole * (budgets[i].percent / 100.0);
            bytes[i] = part < 1.0 ? 1 : part >= (double)whole ? whole : (uint64_t)part;
        }
    }
    return HYPURA_OK;
}

hypura_status hypura_vram_resolve(const hypura_vram_limit *limits, int n, const hypura_model_options *model,
                                  uint64_t *bytes, uint64_t (*each)[HYPURA_MAX_GPUS], hypura_error *error)
{
    hypura_plan *plan = NULL;
    hypura_status status = HYPURA_OK;
    for (int i = 0; i < n && status == HYPURA_OK; i++) {
        bytes[i] = limits[i].all.bytes;
        memcpy(each[i], limits[i].each, sizeof each[i]);
        if (limits[i].all.percent > 0.0) {
            status = plan ? HYPURA_OK : hypura_estimate(model, &plan, error);
            if (status == HYPURA_OK && !plan->gpu[0]) {
                status = hypura_fail(error, HYPURA_ERR_USAGE, "option --vram: there is no GPU to take a part of");
            }
            bytes[i] = status == HYPURA_OK ? hypura_plan_vram_at(plan, (uint32_t)(limits[i].all.percent + 0.5)) : 0;
        }
    }
    hypura_plan_free(plan);
    return status;
}

void hypura_vram_note(const hypura_model_options *model, const hypura_plan *plan)
{
    bool limited = model->vram_bytes > 0;
    for (int g = 0; g < HYPURA_MAX_GPUS; g++) {
        limited = limited || model->gpu_vram_bytes[g] > 0;
    }
    if (limited && plan->gpu[0] == '\0') {
        hypura_output_note("GPU        none computes here: there is none, or --vram is less than it needs at least");
    }
    if (model->gpu_misses == HYPURA_GPU_MISSES_CPU && plan->n_vram_pools == 0) {
        hypura_output_note("GPU        --gpu-misses is of no use here: no experts are paged over one");
    }
}

hypura_status hypura_vram_apply(const hypura_vram_limit *limit, hypura_model_options *model, hypura_error *error)
{
    uint64_t bytes = 0;
    const hypura_status status = hypura_vram_resolve(limit, 1, model, &bytes, &model->gpu_vram_bytes, error);
    model->vram_bytes = bytes;
    return status;
}
