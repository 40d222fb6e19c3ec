/*
 * fake_library.c - hypura.h without models, drives or llama.cpp, so that the
 * program's own logic is tested: what it hands to the library, and what it makes
 * of every answer. The name of the model file chooses the behaviour of opening
 * it, the prompt that of answering; a file still has to exist.
 *
 *     stops.gguf    a bench of it is stopped after the first cell
 *     moe.gguf      works            slow.gguf    opening reports progress for 1.2 s
 *     broken.gguf   is no model      endless.gguf the same until it is told to stop
 *     differs.gguf  does not verify
 */
#include "fake_library.h"
#include "hypura_measure.h"
#include "hypura_server.h"

#include "base/size.h"
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const hypura_tensor tensors[] = {
    {"token_embd.weight", 2, "q4_0", 2, {64, 100, 1, 1}, HYPURA_ROLE_EMBEDDING, -1, -1, 0, 4096, 3600, 36, 0},
    {"blk.0.attn_q.weight", 2, "q4_0", 2, {64, 64, 1, 1}, HYPURA_ROLE_TRUNK, 0, -1, 0, 8192, 2304, 36, 0},
    {"blk.0.ffn_up_exps.weight", 2, "q4_0", 3, {64, 32, 8, 1}, HYPURA_ROLE_EXPERT, 0, 0, 0, 12288, 9216, 36, 1152},
    {"blk.1.ffn_up_exps.weight", 2, "q4_0", 3, {64, 32, 8, 1}, HYPURA_ROLE_EXPERT, 1, 1, 0, 24576, 9216, 36, 1152},
};
static const hypura_bundle bundles[] = {{0, 8, 1, {2}, 1152}, {1, 8, 1, {3}, 1152}};

const char *hypura_role_name(hypura_role role)
{
    static const char *const names[] = {"trunk",           "ffn",    "expert", "shared_expert", "router", "embedding",
                                        "layer_embedding", "output", "mtp"};
    return names[role];
}

const char *hypura_mode_name(hypura_mode mode)
{
    static const char *const names[] = {"resident", "experts", "dense", "mixed"};
    return names[mode];
}

const char *hypura_form_name(hypura_form form)
{
    static const char *const names[] = {"file", "repacked", "output"};
    return names[form];
}

const char *const *hypura_speculation_types(void)
{
    static const char *const types[] = {"ngram-simple", "ngram-mod", "draft-simple", NULL};
    return types;
}

float hypura_repeat_penalty(const hypura_sampling *sampling)
{
    return sampling->repeat_penalty > 0.0f ? sampling->repeat_penalty : 1.0f;
}

const char *const *hypura_kv_cache_types(void)
{
    static const char *const types[] = {"f16", "q8_0", "q4_0", NULL};
    return types;
}

const char *hypura_budget_reason_name(hypura_budget_reason reason)
{
    return reason == HYPURA_BUDGET_SQUEEZE ? "squeeze" : "fixed";
}

const char *hypura_reads_name(hypura_reads reads)
{
    return reads == HYPURA_READS_NOT_CACHED ? "direct: not cached" : "fixed";
}

void fake_wait_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Threads that compute are told how to wait before the library is there: every command that computes sees to it. */
hypura_status fake_check_waiting(hypura_error *error)
{
#ifdef __linux__
    if (!getenv("GOMP_SPINCOUNT") && !getenv("OMP_WAIT_POLICY")) {
        return hypura_fail(error, HYPURA_ERR_BACKEND, "threads are not told how to wait");
    }
#endif
    (void)error;
    return HYPURA_OK;
}

bool fake_named(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, name) == 0;
}

/* ---- machine and map ------------------------------------------------------- */

hypura_status hypura_profile_get(const hypura_profile_options *options, hypura_profile *profile, hypura_error *error)
{
    (void)error;
    *profile = (hypura_profile){
        .version = 1,
        .cpu = "Fake CPU",
        .n_cpus = 2,
        .ram_total_bytes = (uint64_t)16 << 30,
        .ram_available_bytes = (uint64_t)8 << 30,
        .ram_limit_bytes = (uint64_t)12 << 30,
        .memory_bytes_per_s = 1e10,
        .io_engine = "uring",
        .direct_io = true,
        .io_align_offset_bytes = 512,
        .io_align_memory_bytes = 4096,
        .io_block_bytes = 1 << 20,
        .io_depth = 8,
        .direct_bytes_per_s = 1e9,
        .read_latency_us = options->force ? 77.0 : 80.0,
        .measured_unix_s = 1700000000,
        .n_devices = 1,
        .devices = {{"CPU", "Fake CPU", "cpu", 1, 2}},
    };
    snprintf(profile->storage_path, sizeof profile->storage_path, "%s",
             options->cache_dir ? options->cache_dir : "(nowhere)");
    return HYPURA_OK;
}

hypura_status fake_check_file(const char *path, hypura_error *error)
{
    if (access(path, R_OK) != 0) {
        return hypura_fail_errno(error, errno, "cannot open %s", path);
    }
    return fake_named(path, "broken.gguf") ? hypura_fail(error, HYPURA_ERR_FORMAT, "%s is not a GGUF file", path)
                                           : HYPURA_OK;
}

hypura_status hypura_map_open(const char *path, hypura_map **map, hypura_error *error)
{
    static const uint64_t file_bytes[] = {(uint64_t)1 << 30};
    hypura_status status = fake_check_file(path, error);
    if (status != HYPURA_OK) {
        return status;
    }
    const char **files = malloc(sizeof *files);
    *map = malloc(sizeof **map);
    files[0] = path;
    **map = (hypura_map){
        .path = path,
        .arch = "fakemoe",
        .name = "Fake \xff MoE",
        .n_layers = 2,
        .n_experts = 8,
        .n_experts_used = 2,
        .context_length = 2048,
        .embedding_length = 64,
        .n_files = 1,
        .files = files,
        .file_bytes = file_bytes,
        .n_tensors = 4,
        .tensors = tensors,
        .n_bundles = 2,
        .bundles = bundles,
        .tensor_bytes = 3600 + 2304 + 2 * 9216,
    };
    return HYPURA_OK;
}

void hypura_map_close(hypura_map *map)
{
    if (map) {
        free((void *)(uintptr_t)map->files);
    }
    free(map);
}

const char *hypura_io_cache_name(hypura_io_cache cache)
{
    static const char *const names[] = {"direct", "cold", "warm"};
    return names[cache];
}

/* Rates tell what was asked for. */
hypura_status hypura_iobench(const hypura_iobench_options *options, hypura_iobench_report *report, hypura_error *error)
{
    static const hypura_iobench_row rows[] = {
        {"uring", HYPURA_IO_DIRECT, false, 4096, 1, 1e8, false},
        {"uring", HYPURA_IO_DIRECT, false, 4096, 16, 1e9, false},
        {"uring", HYPURA_IO_DIRECT, false, 1 << 20, 1, 9e9, true},
        {"pool", HYPURA_IO_WARM, true, 1 << 20, 1, 9e9, false},
    };
    hypura_status status =
        access(options->path, R_OK) == 0 ? HYPURA_OK : hypura_fail_errno(error, errno, "cannot stat %s", options->path);
    *report = (hypura_iobench_report){.direct_io = true,
                                      .file_bytes = options->read_bytes,
                                      .ceiling_bytes_per_s = 4e9,
                                      .ceiling = "PCIe 8.0 GT/s x4",
                                      .best = 1,
                                      .n_rows = 4};
    snprintf(report->path, sizeof report->path, "%s", options->path);
    memcpy(report->rows, rows, sizeof rows);
    return status;
}

/* ---- plan ------------------------------------------------------------------ */

/* Two GPUs, A and B, of one layer and the output, each full to its limit. */
static void use_gpus(const hypura_model_options *options, hypura_plan *plan)
{
    plan->n_gpus = 2;
    plan->n_gpu_layers = 3;
    for (int g = 0; g < 2; g++) {
        plan->gpus[g] = (hypura_gpu_plan){.first_layer = g,
                                          .n_layers = 1 + g,
                                          .vram_bytes = options->gpu_vram_bytes[g],
                                          .resident_bytes = options->gpu_vram_bytes[g]};
        plan->vram_bytes += plan->gpus[g].vram_bytes;
        snprintf(plan->gpus[g].name, sizeof plan->gpus[g].name, "%c", 'A' + g);
    }
    snprintf(plan->gpu, sizeof plan->gpu, "%s", options->gpu);
}

hypura_status hypura_estimate(const hypura_model_options *options, hypura_plan **plan, hypura_error *error)
{
    uint64_t limit = options->weights_bytes ? options->weights_bytes : options->memory_bytes;
    hypura_status status = fake_check_waiting(error);
    status = status == HYPURA_OK ? fake_check_file(options->path, error) : status;
    if (status != HYPURA_OK) {
        return status;
    }
    if (limit > 0 && limit < FAKE_FLOOR_BYTES) {
        return hypura_fail(error, HYPURA_ERR_BUDGET, "the budget of %llu bytes is below the floor of %u bytes",
                           (unsigned long long)limit, FAKE_FLOOR_BYTES);
    }
    *plan = malloc(sizeof **plan);
    **plan = (hypura_plan){
        .mode = limit || options->force_paging ? HYPURA_MODE_EXPERTS : HYPURA_MODE_RESIDENT,
        .memory_bytes = options->memory_bytes,
        .weights_bytes = options->weights_bytes,
        .ram_limit_bytes = (uint64_t)16 << 30,
        .kv_bytes = (uint64_t)options->n_context * 1024,
        .kv_cache = {options->kv_cache.type_k ? options->kv_cache.type_k : "f16",
                     options->kv_cache.type_v ? options->kv_cache.type_v : "f16"},
        .resident_bytes = 5904,
        .pool_bytes = 4608,
        .n_ubatch = options->n_ubatch ? options->n_ubatch : 512,
        .best_ubatch = 1024,
        .n_threads = options->n_threads ? options->n_threads : 14,
        .floor_weights_bytes = FAKE_FLOOR_BYTES,
        .n_pools = 1,
        .pools = {{1152, 4096, 4, 16, 2}},
        .decode_tok_s = 12.5,
        .bound_tok_s = 20.0,
        .hit_rate = 0.5,
        .read_bytes_per_token = 2304.0,
        .bound_by = "storage",
    };
    static hypura_placement placements[16] = {[0] = {.gpu = -1}};
    (*plan)->placements = placements; /* all on the first GPU but the first tensor */
    if (options->gpu) {
        use_gpus(options, *plan);
    }
    return HYPURA_OK;
}

uint64_t hypura_plan_vram_at(const hypura_plan *plan, uint32_t percent)
{
    (void)plan;
    return percent;
}

void hypura_plan_free(hypura_plan *plan)
{
    free(plan);
}

/* ---- model ----------------------------------------------------------------- */

bool hypura_computes_alone(const hypura_model_options *options)
{
    return fake_named(options->path, "alone.gguf") && options->memory_bytes == 0;
}

void hypura_on_end(hypura_end_fn end)
{
    (void)end;
}

void hypura_gpu_wait(double seconds)
{
    (void)seconds;
}

/* ---- the models of this machine ------------------------------------------ */

static bool fetched; /* hf.co/user/new */

/* "known:tag" lies in moe.gguf of the folder; "mario" is the same model with all files that may belong to one,
 * "made" with settings; nothing else has a name. */
hypura_status hypura_local_find(const hypura_local_options *options, const char *name, hypura_local_files *files,
                                hypura_error *error)
{
    (void)options;
    hypura_error_clear(error);
    *files = (hypura_local_files){.path = NULL};
    if (strcmp(name, "two") == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the name may mean several");
    }
    if (strcmp(name, "known:tag") == 0 || strcmp(name, "mario") == 0 || strncmp(name, "made", 4) == 0 ||
        (fetched && strcmp(name, "hf.co/user/new") == 0)) {
        files->path = strdup("moe.gguf");
    }
    if (strcmp(name, "made") == 0) {
        files->settings = strdup("{\"parameters\":{\"temperature\":0.25,\"top_k\":5,\"top_p\":0.5,\"min_p\":0.125,\"seed\":7,"
                                 "\"num_predict\":-1,\"num_ctx\":64,\"stop\":[\"END\",\"\"],\"mirostat\":1,\"presence_penalty\":0.5},"
                                 "\"system\":\"Be brief.\",\"template\":\"{{ x }}\",\"messages\":[{\"role\":\"user\","
                                 "\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"tool\"}]}");
    } else if (strcmp(name, "made-badly") == 0) {
        files->settings = strdup("{\"parameters\":{\"top_k\":\"many\"}}");
    }
    if (strcmp(name, "mario") == 0) {
        files->projector = strdup("mario.mmproj.gguf");
        files->adapters[0] = strdup("mario.adapter.gguf");
        files->adapters[1] = strdup("mario.adapter-2.gguf");
    }
    return HYPURA_OK;
}

void hypura_local_files_clear(hypura_local_files *files)
{
    free(files->path);
    free(files->projector);
    free(files->adapters[0]);
    free(files->adapters[1]);
    free(files->settings);
    *files = (hypura_local_files){.path = NULL};
}

/* "see.gguf" has one. */
hypura_status hypura_local_projector(const char *path, char **projector, hypura_error *error)
{
    hypura_error_clear(error);
    *projector = strcmp(path, "see.gguf") == 0 ? strdup("mmproj-see.gguf") : NULL;
    return HYPURA_OK;
}

hypura_status hypura_local_list(const hypura_local_options *options, hypura_local_fn visit, void *user,
                                hypura_error *error)
{
    const hypura_local_model models[] = {
        {"known:tag", "/m/moe.gguf", 447283456, "llama", "692M", "Q4_1", "2026-11-29T17:27:47.000000000Z"},
        {"other:latest", "/m/other.gguf", 1024, "qwen3", "", "", "2025-01-02T00:00:00.000000000Z"},
    };
    hypura_error_clear(error);
    const char *folder = options->models_folder ? options->models_folder : "";
    if (strcmp(folder, "/empty") == 0) {
        return HYPURA_OK;
    }
    if (strcmp(folder, "/long") == 0) {
        char path[1024];
        snprintf(path, sizeof path, "/%0900d/end.gguf", 0);
        (void)visit(user, &(hypura_local_model){"l\xc3\xb6ng:latest", path, 1, "llama", "", "", ""});
        (void)visit(user, &(hypura_local_model){"long:latest", path, 1, "llama", "", "", ""});
        return HYPURA_OK;
    }
    for (size_t i = 0; i < sizeof models / sizeof *models && visit(user, &models[i]); i++) {
    }
    return HYPURA_OK;
}

/* Of "known:tag" alone; its settings go to saved.json. */
hypura_status hypura_local_save(const hypura_local_options *options, const char *from, const char *name, const char *settings,
                                hypura_error *error)
{
    (void)options;
    hypura_error_clear(error);
    FILE *file = strcmp(from, "known:tag") == 0 ? fopen("saved.json", "w") : NULL;
    if (!file) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is not known by a name", from);
    }
    fprintf(file, "%s %s\n", name, settings);
    fclose(file);
    return HYPURA_OK;
}

hypura_status hypura_local_remove(const hypura_local_options *options, const char *name, hypura_error *error)
{
    (void)options;
    hypura_error_clear(error);
    return strcmp(name, "known:tag") == 0 ? HYPURA_OK
                                          : hypura_fail(error, HYPURA_ERR_USAGE, "there is no model '%s'", name);
}

/* Of "/left", until it is asked to remove them. */
hypura_status hypura_local_unused(const hypura_local_options *options, bool remove, hypura_local_files_unused *unused,
                                  hypura_error *error)
{
    (void)remove;
    hypura_error_clear(error);
    const bool left = options->models_folder && strcmp(options->models_folder, "/left") == 0;
    *unused = (hypura_local_files_unused){left ? 2 : 0, left ? UINT64_C(3) << 30 : 0};
    return HYPURA_OK;
}

hypura_status hypura_local_pull(const hypura_local_options *options, const char *name, const hypura_local_watch *watch,
                                char *path, size_t path_bytes, hypura_error *error)
{
    hypura_error_clear(error);
    if (strcmp(name, "hf.co/user/endless") == 0) {
        while (watch->progress(watch->user, "pulling 6a0746a1ec1a", 1, 2)) {
            usleep(1000);
        }
        return hypura_fail(error, HYPURA_ERR_CANCELLED, "pulling %s was stopped", name);
    }
    if (strcmp(name, "hf.co/user/new") == 0) {
        watch->plan(watch->user, &(hypura_local_plan){.n_files = 2, .bytes = UINT64_C(3) << 30, .there_bytes = UINT64_C(1) << 30});
        (void)watch->progress(watch->user, "pulling 6a0746a1ec1a", UINT64_C(1) << 30, UINT64_C(3) << 30);
        usleep(1100000);
        (void)watch->progress(watch->user, "pulling 6a0746a1ec1a", UINT64_C(2) << 30, UINT64_C(3) << 30);
        fetched = true;
        snprintf(path, path_bytes, "moe.gguf");
        return HYPURA_OK;
    }
    if (!options->hub_url || strcmp(options->hub_url, "http://hub") != 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is not there", name);
    }
    snprintf(path, path_bytes, "%s/%s.gguf", options->models_folder, name);
    return HYPURA_OK;
}

/* ---- the server ---------------------------------------------------------- */

hypura_status hypura_rpc_serve(const hypura_rpc_options *options, hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_IO, "cannot listen on %s:%d", options->host ? options->host : "127.0.0.1",
                       options->port > 0 ? options->port : 50052);
}

hypura_status hypura_server_open(const hypura_server_options *options, hypura_server **server, hypura_error *error)
{
    (void)options;
    *server = NULL;
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "the fake library serves nobody");
}

bool hypura_server_drain(hypura_server *server, double seconds)
{
    (void)server;
    (void)seconds;
    return true;
}

void hypura_server_close(hypura_server *server)
{
    (void)server;
}

hypura_status hypura_client_open(const char *url, const char *api_key, const char *model, hypura_client **client,
                                 hypura_error *error)
{
    (void)api_key;
    (void)model;
    static char fake;
    *client = strcmp(url, "http://fake") == 0 ? (hypura_client *)&fake : NULL;
    return *client ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_IO, "the fake library reaches nobody at %s", url);
}

hypura_status hypura_client_request(hypura_client *client, const char *path, const char *body, char **answer,
                                    hypura_error *error)
{
    (void)client;
    static const char status[] =
        "{\"memory\":{\"budget_bytes\":2147483648,\"used_bytes\":1073741824},\"models\":["
        "{\"name\":\"moe:latest\",\"state\":\"ready\",\"mode\":\"experts\",\"slots\":4,\"busy\":1,\"load_share\":1.0,"
        "\"tiers\":{\"resident_bytes\":1024,\"pool_bytes\":2048,\"drive_bytes\":4096,\"kv_bytes\":1024},"
        "\"counters\":{\"bytes_needed\":1000,\"bytes_hit\":625},\"expires_at\":\"2030-01-02T03:04:05Z\"},"
        "{\"name\":\"next:latest\",\"state\":\"loading\",\"mode\":\"\",\"load_share\":0.25,\"expires_at\":null}]}";
    *answer = NULL;
    if (body && !strstr(body, "\"known:tag\"")) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "there is no such model");
    }
    *answer = strdup(strcmp(path, "/api/hypura/status") == 0 ? status : "{\"done\":true}");
    return HYPURA_OK;
}

hypura_status hypura_client_generate(hypura_client *client, const hypura_generate_options *options,
                                     hypura_result *result, hypura_error *error)
{
    (void)client;
    (void)options;
    (void)result;
    return hypura_fail(error, HYPURA_ERR_IO, "the fake library reaches nobody");
}

void hypura_client_reset(hypura_client *client)
{
    (void)client;
}

void hypura_client_close(hypura_client *client)
{
    (void)client;
}
