/*
 * figures.c - see figures.h.
 *
 * One table says which figures of a model there are, under which key and metric:
 * a new one is a line.
 */
#include "server/endpoint/figures.h"

#include "base/date.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum kind { UNSIGNED_32, UNSIGNED_64, REAL } kind;

typedef struct figure {
    const char *group; /* object that the key is in; NULL: the model itself */
    const char *key;
    size_t offset; /* in hypura_figures_model */
    kind kind;
    const char *metric; /* without "hypura_model_"; NULL: JSON alone */
    const char *labels; /* besides the model's name; or NULL */
    const char *type;   /* "counter", "gauge" */
    const char *help;
} figure;

#define OF(member)      offsetof(hypura_figures_model, member)
#define WEIGHTS(tier)   "weights_bytes", "tier=\"" tier "\"", "gauge", "Weights by the tier that they lie on."
#define MEMORY(purpose) "memory_bytes", "purpose=\"" purpose "\"", "gauge", "Memory that is not for weights."
#define VRAM(purpose)   "gpu_memory_bytes", "purpose=\"" purpose "\"", "gauge", "Memory of GPUs."
#define SECONDS(what)                                                                                                  \
    "seconds_total", "spent=\"" what "\"", "counter", "Time inside paged nodes, by what it was spent on."
#define TOKENS(what) "tokens_total", "kind=\"" what "\"", "counter", "Tokens read, generated, guessed, guessed right."

/* Figures of one metric stand together. */
static const figure figures_of_model[] = {
    {NULL, "load_share", OF(load_share), REAL, "load_share", NULL, "gauge", "Share of loading that is done."},
    {NULL, "slots", OF(n_slots), UNSIGNED_32, "slots", NULL, "gauge", "Requests that are computed at once at most."},
    {NULL, "busy", OF(n_busy), UNSIGNED_32, "slots_busy", NULL, "gauge", "Requests that are being computed."},
    {NULL, "waiting", OF(n_waiting), UNSIGNED_32, "requests_waiting", NULL, "gauge", "Requests that wait for it."},
    {"tiers", "resident_bytes", OF(resident_bytes), UNSIGNED_64, WEIGHTS("resident")},
    {"tiers", "pinned_bytes", OF(pinned_bytes), UNSIGNED_64, WEIGHTS("pinned")},
    {"tiers", "pool_bytes", OF(pool_bytes), UNSIGNED_64, WEIGHTS("pool")},
    {"tiers", "ring_bytes", OF(ring_bytes), UNSIGNED_64, WEIGHTS("ring")},
    {"tiers", "drive_bytes", OF(drive_bytes), UNSIGNED_64, WEIGHTS("drive")},
    {"tiers", "kv_bytes", OF(kv_bytes), UNSIGNED_64, MEMORY("kv")},
    {"tiers", "compute_bytes", OF(compute_bytes), UNSIGNED_64, MEMORY("compute")},
    {"tiers", "overhead_bytes", OF(overhead_bytes), UNSIGNED_64, MEMORY("overhead")},
    {"tiers", "draft_bytes", OF(draft_bytes), UNSIGNED_64, MEMORY("draft")},
    {"gpu", "weight_bytes", OF(vram_weight_bytes), UNSIGNED_64, VRAM("weights")},
    {"gpu", "slot_bytes", OF(vram_slot_bytes), UNSIGNED_64, VRAM("slots")},
    {"gpu", "other_bytes", OF(vram_other_bytes), UNSIGNED_64, VRAM("other")},
    {"gpu", "bytes_needed", OF(paging.vram_bytes_needed), UNSIGNED_64, "gpu_needed_bytes_total", NULL, "counter",
     "Paged experts that GPUs computed with."},
    {"gpu", "bytes_hit", OF(paging.vram_bytes_hit), UNSIGNED_64, "gpu_hit_bytes_total", NULL, "counter",
     "Of these, in their memory when selected."},
    {"gpu", "bytes_uploaded", OF(paging.bytes_uploaded), UNSIGNED_64, "gpu_uploaded_bytes_total", NULL, "counter",
     "Weights uploaded to GPUs."},
    {"gpu", "bytes_landed", OF(paging.bytes_landed), UNSIGNED_64, "gpu_landed_bytes_total", NULL, "counter",
     "Weights read straight into slots of GPUs whose memory is the host's."},
    {"gpu", "readbacks", OF(paging.n_readbacks), UNSIGNED_64, "gpu_readbacks_total", NULL, "counter",
     "Selections read back from GPUs."},
    {"gpu", "run_ahead", OF(paging.n_ahead), UNSIGNED_64, "gpu_run_ahead_total", NULL, "counter",
     "Of these, during which the GPU went on computing."},
    {"gpu", "repeated", OF(paging.n_repeated), UNSIGNED_64, "gpu_repeated_total", NULL, "counter",
     "Of those, in vain: an expert was missing."},
    {"gpu", "cpu_rows", OF(paging.n_cpu_rows), UNSIGNED_64, "gpu_cpu_rows_total", NULL, "counter",
     "Rows of experts that GPUs lacked and the CPU computed."},
    {"gpu", "not_cpu_chain", OF(paging.n_not_cpu_chain), UNSIGNED_64, "gpu_not_cpu_chain_total", NULL, "counter",
     "Layers whose experts were uploaded all the same: of operations it does not know."},
    {"gpu", "not_cpu_ram", OF(paging.n_not_cpu_ram), UNSIGNED_64, "gpu_not_cpu_ram_total", NULL, "counter",
     "The same, where RAM had no room for them."},
    {"gpu", "readback_s", OF(paging.readback_s), REAL, "gpu_readback_seconds_total", NULL, "counter",
     "Time spent waiting for selections."},
    {"experts", "slots", OF(n_expert_slots), UNSIGNED_32, "expert_slots", NULL, "gauge", "Slots of all expert pools."},
    {"experts", "experts", OF(n_experts), UNSIGNED_32, "experts", NULL, "gauge", "Experts that share the slots."},
    {"counters", "prompt_tokens", OF(prompt_tokens), UNSIGNED_64, TOKENS("prompt")},
    {"counters", "generated_tokens", OF(generated_tokens), UNSIGNED_64, TOKENS("generated")},
    {"counters", "drafted_tokens", OF(drafted_tokens), UNSIGNED_64, TOKENS("drafted")},
    {"counters", "accepted_tokens", OF(accepted_tokens), UNSIGNED_64, TOKENS("accepted")},
    {"counters", "bytes_read", OF(paging.bytes_read), UNSIGNED_64, "read_bytes_total", NULL, "counter",
     "Weights read from the drive."},
    {"counters", "bytes_needed", OF(paging.bytes_needed), UNSIGNED_64, "needed_bytes_total", NULL, "counter",
     "Paged weights that computing asked for."},
    {"counters", "bytes_hit", OF(paging.bytes_hit), UNSIGNED_64, "hit_bytes_total", NULL, "counter",
     "Of these, in memory when asked for."},
    {"counters", "reads", OF(paging.n_reads), UNSIGNED_64, "reads_total", NULL, "counter", "Reads of the drive."},
    {"counters", "evictions", OF(paging.n_evictions), UNSIGNED_64, "evictions_total", NULL, "counter",
     "Experts that made room for others."},
    {"counters", "compute_s", OF(paging.compute_s), REAL, SECONDS("compute")},
    {"counters", "read_wait_s", OF(paging.read_wait_s), REAL, SECONDS("read_wait")},
    {"counters", "overhead_s", OF(paging.overhead_s), REAL, SECONDS("overhead")},
    {"counters", "device_busy_s", OF(paging.device_busy_s), REAL, "drive_busy_seconds_total", NULL, "counter",
     "Time in which a read was under way."},
};

/* The same of one of a model's GPUs. */
typedef struct gpu_figure {
    const char *key;
    const char *metric;
    const char *type;
    const char *help;
} gpu_figure;

static const gpu_figure figures_of_gpu[] = {
    {"weight_bytes", "gpu_device_weight_bytes", "gauge", "Weights that stay in a GPU's memory."},
    {"slot_bytes", "gpu_device_slot_bytes", "gauge", "Slots for experts in it."},
    {"other_bytes", "gpu_device_other_bytes", "gauge", "What else is taken of it."},
    {"bytes_needed", "gpu_device_needed_bytes_total", "counter", "Paged experts that the GPU computed with."},
    {"bytes_hit", "gpu_device_hit_bytes_total", "counter", "Of these, in its memory when selected."},
    {"bytes_uploaded", "gpu_device_uploaded_bytes_total", "counter", "Weights uploaded to it."},
};

enum { N_GPU_FIGURES = sizeof figures_of_gpu / sizeof *figures_of_gpu };

static void gpu_values(const hypura_figures_model *model, int g, uint64_t values[N_GPU_FIGURES])
{
    const hypura_figures_gpu *gpu = &model->gpus[g];
    const hypura_gpu_statistics *asked = &model->paging.gpus[g];
    const uint64_t all[N_GPU_FIGURES] = {gpu->weight_bytes,   gpu->slot_bytes,  gpu->other_bytes,
                                         asked->bytes_needed, asked->bytes_hit, asked->bytes_uploaded};
    memcpy(values, all, sizeof all);
}

enum { N_FIGURES = sizeof figures_of_model / sizeof *figures_of_model };

/* ---- JSON ------------------------------------------------------------------- */

static json_t *integer(uint64_t value)
{
    return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

static json_t *real(double value)
{
    return json_real(isfinite(value) ? value : 0.0);
}

static json_t *value_of(const hypura_figures_model *model, const figure *f)
{
    const char *at = (const char *)model + f->offset;
    switch (f->kind) {
    case UNSIGNED_32:
        return integer(*(const uint32_t *)(const void *)at);
    case UNSIGNED_64:
        return integer(*(const uint64_t *)(const void *)at);
    case REAL:
        break;
    }
    return real(*(const double *)(const void *)at);
}

static json_t *time_or_null(int64_t unix_s)
{
    char text[HYPURA_DATE_BYTES];
    const struct timespec when = {.tv_sec = (time_t)unix_s};
    return unix_s > 0 ? json_string(hypura_date_format(when, 0, text)) : json_null();
}

static json_t *gpus_json(const hypura_figures_model *model)
{
    json_t *gpus = json_array();
    for (int g = 0; g < model->n_gpus; g++) {
        uint64_t values[N_GPU_FIGURES];
        json_t *object = json_pack("{s:s}", "name", model->gpus[g].name);
        gpu_values(model, g, values);
        for (size_t i = 0; i < N_GPU_FIGURES; i++) {
            (void)json_object_set_new(object, figures_of_gpu[i].key, integer(values[i]));
        }
        (void)json_array_append_new(gpus, object);
    }
    return gpus;
}

static json_t *model_json(const hypura_figures_model *model)
{
    json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:o, s:{}, s:{}, s:{}, s:{}}", "name", model->name, "state",
                               model->state, "mode", model->mode, "pid", (json_int_t)model->pid, "expires_at",
                               time_or_null(model->expires_unix_s), "tiers", "gpu", "experts", "counters");
    for (size_t i = 0; i < N_FIGURES; i++) {
        const figure *f = &figures_of_model[i];
        json_t *group = f->group != NULL ? json_object_get(object, f->group) : object;
        (void)json_object_set_new(group, f->key, value_of(model, f));
    }
    (void)json_object_set_new(json_object_get(object, "gpu"), "devices", gpus_json(model));
    const bool guesses = model->speculation && model->speculation[0] != '\0';
    (void)json_object_set_new(object, "speculation", guesses ? json_string(model->speculation) : json_null());
    (void)json_object_set_new(object, "io_engine", json_string(model->paging.io_engine));
    (void)json_object_set_new(object, "direct_io", json_boolean(model->paging.direct_io));
    return object;
}

json_t *hypura_figures_json(const hypura_figures *figures)
{
    json_t *models = json_array();
    uint64_t n_answered = 0;
    uint64_t n_failed = 0;
    for (size_t i = 0; i < figures->n_models; i++) {
        (void)json_array_append_new(models, model_json(&figures->models[i]));
    }
    for (size_t i = 0; i < figures->n_routes; i++) {
        for (size_t k = 0; k < 6; k++) {
            n_answered += figures->routes[i].n_answers[k];
        }
        n_failed += figures->routes[i].n_answers[5];
    }
    return json_pack(
        "{s:s, s:o, s:b, s:{s:o, s:o}, s:{s:o}, s:{s:i, s:i}, s:{s:i, s:i, s:i, s:o, s:o, s:o}, s:{s:o, s:o}, s:o}", "version",
        hypura_version(), "uptime_s", real(figures->uptime_s), "ready", figures->ready, "memory", "budget_bytes",
        integer(figures->memory_budget_bytes), "used_bytes", integer(figures->memory_used_bytes), "drive",
        "direct_bytes_per_s", real(figures->direct_bytes_per_s), "connections", "open", (int)figures->n_connections,
        "limit", (int)figures->max_connections, "requests", "active", (int)figures->n_requests, "waiting",
        (int)figures->n_waiting, "waiting_limit", (int)figures->max_waiting, "answered", integer(n_answered), "failed",
        integer(n_failed), "rejected", integer(figures->n_rejected), "engines", "started", integer(figures->n_loads), "died",
        integer(figures->n_deaths), "models", models);
}

/* ---- Prometheus ------------------------------------------------------------- */

/* A label's value: backslash, quote and newline escaped. */
static void print_label(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '\\':
        case '"':
            (void)fputc('\\', out);
            (void)fputc(*text, out);
            break;
        case '\n':
            (void)fputs("\\n", out);
            break;
        default:
            (void)fputc(*text, out);
        }
    }
}

static void print_head(FILE *out, const char *metric, const char *type, const char *help)
{
    (void)fprintf(out, "# HELP hypura_%s %s\n# TYPE hypura_%s %s\n", metric, help, metric, type);
}

static void print_one(FILE *out, const char *metric, const char *type, const char *help, double value)
{
    print_head(out, metric, type, help);
    (void)fprintf(out, "hypura_%s %.17g\n", metric, value);
}

/* One figure of each of a model's GPUs. */
static void print_gpus(FILE *out, const hypura_figures_model *model, const char *metric, size_t which)
{
    for (int g = 0; g < model->n_gpus; g++) {
        uint64_t values[N_GPU_FIGURES];
        gpu_values(model, g, values);
        (void)fprintf(out, "hypura_%s{model=\"", metric);
        print_label(out, model->name);
        (void)fputs("\",device=\"", out);
        print_label(out, model->gpus[g].name);
        (void)fprintf(out, "\"} %" PRIu64 "\n", values[which]);
    }
}

static void print_models(FILE *out, const hypura_figures *figures)
{
    for (size_t i = 0; i < N_FIGURES; i++) {
        const figure *f = &figures_of_model[i];
        char metric[64];
        (void)snprintf(metric, sizeof metric, "model_%s", f->metric);
        if (i == 0 || strcmp(f->metric, figures_of_model[i - 1].metric) != 0) {
            print_head(out, metric, f->type, f->help);
        }
        for (size_t m = 0; m < figures->n_models; m++) {
            json_t *value = value_of(&figures->models[m], f);
            (void)fprintf(out, "hypura_%s{model=\"", metric);
            print_label(out, figures->models[m].name);
            (void)fprintf(out, "\"%s%s} ", f->labels != NULL ? "," : "", f->labels != NULL ? f->labels : "");
            if (json_is_integer(value)) {
                (void)fprintf(out, "%" JSON_INTEGER_FORMAT "\n", json_integer_value(value));
            } else {
                (void)fprintf(out, "%.17g\n", json_real_value(value));
            }
            json_decref(value);
        }
    }
    for (size_t i = 0; i < N_GPU_FIGURES; i++) {
        char metric[64];
        (void)snprintf(metric, sizeof metric, "model_%s", figures_of_gpu[i].metric);
        print_head(out, metric, figures_of_gpu[i].type, figures_of_gpu[i].help);
        for (size_t m = 0; m < figures->n_models; m++) {
            print_gpus(out, &figures->models[m], metric, i);
        }
    }
    print_head(out, "model_info", "gauge", "1 for each model that has a child: its state and mode.");
    for (size_t m = 0; m < figures->n_models; m++) {
        (void)fputs("hypura_model_info{model=\"", out);
        print_label(out, figures->models[m].name);
        (void)fprintf(out, "\",state=\"%s\",mode=\"%s\"} 1\n", figures->models[m].state, figures->models[m].mode);
    }
}

static void print_routes(FILE *out, const hypura_figures *figures)
{
    static const char *const classes[6] = {"cut", "1xx", "2xx", "3xx", "4xx", "5xx"};
    print_head(out, "http_requests_total", "counter", "Requests by route and hundreds of their status.");
    for (size_t i = 0; i < figures->n_routes; i++) {
        for (size_t k = 0; k < 6; k++) {
            if (figures->routes[i].n_answers[k] > 0) {
                (void)fputs("hypura_http_requests_total{route=\"", out);
                print_label(out, figures->routes[i].route);
                (void)fprintf(out, "\",status=\"%s\"} %" PRIu64 "\n", classes[k], figures->routes[i].n_answers[k]);
            }
        }
    }
    print_head(out, "http_answer_seconds_total", "counter", "Time that all answers of a route took together.");
    for (size_t i = 0; i < figures->n_routes; i++) {
        (void)fputs("hypura_http_answer_seconds_total{route=\"", out);
        print_label(out, figures->routes[i].route);
        (void)fprintf(out, "\"} %.17g\n", figures->routes[i].answer_s);
    }
}

char *hypura_figures_metrics(const hypura_figures *figures)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return NULL;
    }
    print_head(out, "build_info", "gauge", "1, with the version.");
    (void)fprintf(out, "hypura_build_info{version=\"%s\"} 1\n", hypura_version());
    print_one(out, "uptime_seconds", "gauge", "Time since the server started.", figures->uptime_s);
    print_one(out, "ready", "gauge", "1 while requests are accepted.", figures->ready ? 1 : 0);
    print_one(out, "memory_budget_bytes", "gauge", "Memory that all models may take.",
              (double)figures->memory_budget_bytes);
    print_one(out, "memory_used_bytes", "gauge", "Of it, granted to models.", (double)figures->memory_used_bytes);
    print_one(out, "drive_direct_bytes_per_second", "gauge", "Measured rate of direct reads.",
              figures->direct_bytes_per_s);
    print_one(out, "connections", "gauge", "Open connections.", figures->n_connections);
    print_one(out, "connections_limit", "gauge", "Connections that are accepted at once.", figures->max_connections);
    print_one(out, "requests_active", "gauge", "Requests that are being answered.", figures->n_requests);
    print_one(out, "requests_waiting", "gauge", "Requests that wait for a model.", figures->n_waiting);
    print_one(out, "requests_rejected_total", "counter", "Requests answered with 429 or 503.",
              (double)figures->n_rejected);
    print_one(out, "engines_started_total", "counter", "Engines that were started.", (double)figures->n_loads);
    print_one(out, "engines_died_total", "counter", "Engines that ended by themselves.", (double)figures->n_deaths);
    print_routes(out, figures);
    print_models(out, figures);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
