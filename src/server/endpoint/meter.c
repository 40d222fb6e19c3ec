/*
 * meter.c - see meter.h.
 */
#include "server/endpoint/meter.h"

#include "base/clock.h"
#include "base/status.h"
#include "hw/store.h"
#include "os/os.h"
#include "server/endpoint/server.h"
#include "server/process/upstream.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_ROUTES = 96, MAX_ENGINES = 32, ASK_US = 1000000 };

/* What an engine last said. */
typedef struct engine_tokens {
    int pid;
    bool settled; /* read while nobody used it: nothing has changed unless somebody does */
    uint64_t prompt;
    uint64_t generated;
    uint64_t drafted; /* of requests that have ended */
    uint64_t accepted;
} engine_tokens;

struct server_meter {
    pthread_mutex_t lock;
    size_t n_routes;
    hypura_figures_route routes[MAX_ROUTES];
    uint64_t n_rejected;
    engine_tokens engines[MAX_ENGINES];
    size_t next_engine; /* to be overwritten */
};

server_meter *meter_open(void)
{
    server_meter *meter = calloc(1, sizeof(*meter));
    if (meter) {
        pthread_mutex_init(&meter->lock, NULL);
    }
    return meter;
}

void meter_close(server_meter *meter)
{
    if (meter) {
        pthread_mutex_destroy(&meter->lock);
        free(meter);
    }
}

void meter_answered(hypura_server *server, const char *route, int code, double seconds)
{
    server_meter *meter = server->meter;
    const char *name = route ? route : "other";
    pthread_mutex_lock(&meter->lock);
    size_t i = 0;
    while (i < meter->n_routes && strcmp(meter->routes[i].route, name) != 0) {
        i++;
    }
    if (i == meter->n_routes && i < MAX_ROUTES) {
        meter->routes[meter->n_routes++].route = name;
    }
    if (i < meter->n_routes) {
        meter->routes[i].n_answers[code >= 100 && code < 600 ? code / 100 : 0]++;
        meter->routes[i].answer_s += seconds;
    }
    meter->n_rejected += code == 429 || code == 503;
    pthread_mutex_unlock(&meter->lock);
}

/* ---- tokens of an engine --------------------------------------------------------- */

typedef struct asking {
    uint64_t end_us; /* first: see upstream_is_late */
    char text[65536];
    size_t bytes;
} asking;

static bool on_head(void *user, int code, const char *content_type)
{
    (void)user;
    (void)content_type;
    return code == 200;
}

static bool on_data(void *user, const char *data, size_t bytes)
{
    asking *a = user;
    if (bytes >= sizeof a->text - a->bytes) {
        return false;
    }
    memcpy(a->text + a->bytes, data, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = '\0';
    return true;
}

static bool ask(asking *a, const char *socket, const char *path)
{
    const upstream_call call = {.socket = socket,
                                .method = "GET",
                                .path = path,
                                .on_head = on_head,
                                .on_data = on_data,
                                .gone = upstream_is_late,
                                .user = a};
    a->end_us = hypura_clock_us() + ASK_US;
    a->bytes = 0;
    a->text[0] = '\0';
    return upstream_run(&call, NULL) == HYPURA_OK;
}

/* "llamacpp:NAME 12" at the beginning of a line. */
static uint64_t metric(const char *text, const char *name)
{
    char line[96];
    snprintf(line, sizeof line, "\nllamacpp:%s ", name);
    const char *at = strstr(text, line);
    return at ? (uint64_t)strtod(at + strlen(line), NULL) : 0;
}

/* Tokens of requests that still run: the totals count those that have ended. */
static void add_running(const char *text, size_t bytes, engine_tokens *tokens)
{
    json_t *slots = json_loadb(text, bytes, 0, NULL);
    size_t i;
    const json_t *slot;
    json_array_foreach(slots, i, slot)
    {
        if (json_is_true(json_object_get(slot, "is_processing"))) {
            const json_t *next = json_array_get(json_object_get(slot, "next_token"), 0);
            tokens->generated += (uint64_t)json_integer_value(json_object_get(next, "n_decoded"));
            tokens->prompt += (uint64_t)json_integer_value(json_object_get(slot, "n_prompt_tokens_processed"));
        }
    }
    json_decref(slots);
}

static bool ask_tokens(const char *socket, engine_tokens *tokens)
{
    asking *a = malloc(sizeof(*a));
    bool ok = a && ask(a, socket, "/metrics");
    if (ok) {
        tokens->prompt = metric(a->text, "prompt_tokens_total");
        tokens->generated = metric(a->text, "tokens_predicted_total");
        tokens->drafted = metric(a->text, "spec_decode_num_draft_tokens_total");
        tokens->accepted = metric(a->text, "spec_decode_num_accepted_tokens_total");
        ok = ask(a, socket, "/slots");
    }
    if (ok) {
        add_running(a->text, a->bytes, tokens);
    }
    free(a);
    return ok;
}

/* The tokens of a model's engine, from it or as it said before; they never go down. */
static engine_tokens tokens_of(server_meter *meter, const fleet_info *info)
{
    pthread_mutex_lock(&meter->lock);
    size_t i = 0;
    while (i < MAX_ENGINES && meter->engines[i].pid != info->pid) {
        i++;
    }
    engine_tokens known = i < MAX_ENGINES ? meter->engines[i] : (engine_tokens){.pid = info->pid};
    pthread_mutex_unlock(&meter->lock);
    engine_tokens now = known;
    if (!info->ready || info->socket[0] == '\0' || (known.settled && info->n_users == 0) ||
        !ask_tokens(info->socket, &now)) {
        return known;
    }
    now.settled = info->n_users == 0;
    now.prompt = now.prompt > known.prompt ? now.prompt : known.prompt;
    now.generated = now.generated > known.generated ? now.generated : known.generated;
    pthread_mutex_lock(&meter->lock);
    i = i < MAX_ENGINES && meter->engines[i].pid == info->pid ? i : meter->next_engine++ % MAX_ENGINES;
    meter->engines[i] = now;
    pthread_mutex_unlock(&meter->lock);
    return now;
}

/* ---- reading ---------------------------------------------------------------------- */

/* Where the weights lie, by the plan that the engine works to. */
static void fill_plan(hypura_figures_model *model, const hypura_live_record *live)
{
    const hypura_plan *plan = &live->plan;
    model->mode = hypura_mode_name(plan->mode);
    model->resident_bytes = plan->resident_bytes;
    model->pinned_bytes = plan->pinned_bytes;
    model->pool_bytes = plan->pool_bytes;
    model->ring_bytes = plan->ring_bytes;
    model->drive_bytes = plan->nvme_bytes;
    model->kv_bytes = plan->kv_bytes;
    model->compute_bytes = plan->compute_bytes;
    model->overhead_bytes = plan->overhead_bytes - plan->draft_bytes;
    model->draft_bytes = plan->draft_bytes;
    model->vram_weight_bytes = plan->vram_resident_bytes;
    model->vram_slot_bytes = plan->vram_slot_bytes;
    model->vram_other_bytes = plan->vram_bytes - plan->vram_resident_bytes - plan->vram_slot_bytes;
    model->n_gpus = plan->n_gpus;
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_gpu_plan *gpu = &plan->gpus[g];
        model->gpus[g] = (hypura_figures_gpu){.weight_bytes = gpu->resident_bytes,
                                              .slot_bytes = gpu->slot_bytes,
                                              .other_bytes = gpu->vram_bytes - gpu->resident_bytes - gpu->slot_bytes};
        memcpy(model->gpus[g].name, gpu->name, sizeof(model->gpus[g].name));
    }
    for (int i = 0; i < plan->n_pools; i++) {
        model->n_expert_slots += plan->pools[i].n_slots;
        model->n_experts += plan->pools[i].n_units;
    }
}

static void fill_model(server_meter *meter, const fleet_info *info, hypura_figures_model *model)
{
    *model = (hypura_figures_model){.name = info->entry->name,
                                    .state = info->ready ? "ready" : "loading",
                                    .mode = "",
                                    .speculation = info->speculation,
                                    .pid = info->pid,
                                    .load_share = info->ready ? 1.0 : 0.0};
    if (!isnan(info->expires_s) && info->expires_s >= 0) {
        model->expires_unix_s = (int64_t)time(NULL) + (int64_t)info->expires_s;
    }
    if (!info->has_live) {
        return;
    }
    const hypura_live_record *live = &info->live;
    if (live->state == HYPURA_LIVE_FAILED) {
        model->state = "failed";
    } else if (!info->ready && live->total_bytes > 0) {
        model->load_share = (double)live->done_bytes / (double)live->total_bytes;
    }
    model->n_slots = live->n_sequences;
    model->n_busy = info->n_users < live->n_sequences ? info->n_users : live->n_sequences;
    model->n_waiting = info->n_users - model->n_busy;
    model->paging = live->statistics;
    if (live->state == HYPURA_LIVE_LOADED) {
        fill_plan(model, live);
        const engine_tokens tokens = tokens_of(meter, info);
        model->prompt_tokens = tokens.prompt;
        model->generated_tokens = tokens.generated;
        model->drafted_tokens = tokens.drafted;
        model->accepted_tokens = tokens.accepted;
    }
}

/* Of the drive that the models lie on, as it was measured some day; 0 when it was not. */
static double direct_rate(const hypura_server_options *options)
{
    hypura_profile profile = {.version = HYPURA_PROFILE_VERSION, .n_cpus = hypura_os_cpu_count()};
    hypura_os_drive drive;
    const char *place = options->models_folder ? options->models_folder : options->cache_dir;
    hypura_os_cpu_name(profile.cpu, sizeof profile.cpu);
    if (!options->cache_dir || (hypura_os_drive_read(place, &drive, NULL) != HYPURA_OK &&
                                hypura_os_drive_read(options->cache_dir, &drive, NULL) != HYPURA_OK)) {
        return 0.0;
    }
    return hypura_store_load(options->cache_dir, drive.id, &profile) ? profile.direct_bytes_per_s : 0.0;
}

hypura_status meter_read(hypura_server *server, meter_reading *reading, hypura_error *error)
{
    server_meter *meter = server->meter;
    fleet_counts counts;
    *reading = (meter_reading){0};
    hypura_figures *f = &reading->figures;
    const size_t n = fleet_list(server->fleet, &reading->infos);
    f->n_models = n;
    fleet_count(server->fleet, &counts);
    reading->models = calloc(n + 1, sizeof(*reading->models));
    reading->routes = malloc(sizeof meter->routes);
    if (!reading->models || !reading->routes) {
        meter_clear(reading);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for figures");
    }
    for (size_t i = 0; i < n; i++) {
        fill_model(meter, &reading->infos[i], &reading->models[i]);
    }
    pthread_mutex_lock(&meter->lock);
    memcpy(reading->routes, meter->routes, sizeof meter->routes);
    f->n_routes = meter->n_routes;
    f->n_rejected = meter->n_rejected;
    pthread_mutex_unlock(&meter->lock);
    f->models = reading->models;
    f->routes = reading->routes;
    f->uptime_s = (double)(hypura_clock_us() - server->begin_us) / 1e6;
    f->ready = true; /* whoever is answered is answered by a server that takes requests */
    f->memory_budget_bytes = counts.memory_bytes;
    f->memory_used_bytes = counts.used_bytes;
    f->n_waiting = counts.n_waiting;
    f->n_loads = counts.n_loads;
    f->n_deaths = counts.n_deaths;
    f->direct_bytes_per_s = direct_rate(&server->options);
    f->n_requests = http_active(server->http);
    f->max_waiting = http_limits(server->http, &f->n_connections, &f->max_connections);
    return HYPURA_OK;
}

void meter_clear(meter_reading *reading)
{
    fleet_list_clear(reading->infos, reading->figures.n_models);
    free(reading->models);
    free(reading->routes);
    *reading = (meter_reading){0};
}
