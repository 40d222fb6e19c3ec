/*
 * run_statistics.c - see run_statistics.h.
 */
#include "cli/run_statistics.h"

#include "base/status.h"
#include "cli/json.h"
#include "cli/output.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

hypura_status hypura_run_totals_add(hypura_run_totals *totals, const hypura_result *result, hypura_error *error)
{
    const char *answer = result->text ? result->text : "";
    if ((totals->n_answers > 0 && !hypura_buffer_add(&totals->text, "\n", 1)) ||
        !hypura_buffer_add(&totals->text, answer, strlen(answer))) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory for the text of the answers");
    }
    totals->n_answers++;
    totals->prompt_tokens += result->prompt_tokens;
    totals->tokens += result->tokens;
    totals->prompt_s += result->prompt_s;
    totals->decode_s += result->decode_s;
    totals->bytes_read += result->bytes_read;
    totals->n_passes += result->n_passes;
    totals->n_drafted += result->n_drafted;
    totals->n_accepted += result->n_accepted;
    totals->draft_s += result->draft_s;
    return HYPURA_OK;
}

void hypura_run_totals_close(hypura_run_totals *totals)
{
    hypura_buffer_clear(&totals->text);
    *totals = (hypura_run_totals){0};
}

static double ratio(double part, double whole)
{
    return whole > 0.0 ? part / whole : 0.0;
}

/* Where no weight was asked of the drive, all that was needed was in memory. */
static double hit_rate_bytes(const hypura_statistics *statistics)
{
    return statistics->bytes_needed > 0 ? (double)statistics->bytes_hit / (double)statistics->bytes_needed : 1.0;
}

static const char *mode_name(const hypura_run_report *report)
{
    return report->plain ? "plain" : hypura_mode_name(hypura_model_plan(report->model)->mode);
}

/* Of several GPUs each. */
static void note_gpus(const hypura_plan *plan, const hypura_statistics *statistics)
{
    for (int g = 0; g < plan->n_gpus && plan->n_gpus > 1; g++) {
        const hypura_gpu_statistics *gpu = &statistics->gpus[g];
        if (plan->gpus[g].remote) {
            continue;
        }
        hypura_output_note("           %s: %.1f %%, %s uploaded", plan->gpus[g].name,
                           100.0 * ratio((double)gpu->bytes_hit, (double)gpu->bytes_needed),
                           hypura_output_size(gpu->bytes_uploaded));
    }
}

/* Remote devices are the last ones. */
static bool has_remote(const hypura_plan *plan)
{
    return plan->n_gpus > 0 && plan->gpus[plan->n_gpus - 1].remote;
}

static void note_network(const hypura_plan *plan, const hypura_statistics *statistics)
{
    for (int g = 0; g < plan->n_gpus; g++) {
        const hypura_gpu_statistics *gpu = &statistics->gpus[g];
        if (plan->gpus[g].remote) {
            hypura_output_note("network    %s: %s sent, %s received, %llu answers waited for", plan->gpus[g].name,
                               hypura_output_size(gpu->link_bytes_sent), hypura_output_size(gpu->link_bytes_received),
                               (unsigned long long)gpu->n_link_answers);
        }
    }
}

/* What the CPU computed in place of a GPU, and what it left. */
static void note_computed(const hypura_statistics *statistics)
{
    const uint64_t n_left = statistics->n_not_cpu_chain + statistics->n_not_cpu_ram;
    if (statistics->n_cpu_rows + n_left == 0) {
        return;
    }
    hypura_output_note("CPU        %llu rows of missing experts in %llu layers, %.0f us each layer; %s uploaded beside; bits depend "
                       "on what was in GPU memory",
                       (unsigned long long)statistics->n_cpu_rows, (unsigned long long)statistics->n_cpu_layers,
                       1e6 * ratio(statistics->cpu_rows_s, (double)statistics->n_cpu_layers),
                       hypura_output_size(statistics->beside_bytes_uploaded));
    if (n_left > 0) {
        hypura_output_note("           missing experts uploaded all the same in %llu layers of operations it does not know, "
                           "%llu for which RAM had no room",
                           (unsigned long long)statistics->n_not_cpu_chain, (unsigned long long)statistics->n_not_cpu_ram);
    }
}

static json_t *gpus_json(const hypura_plan *plan, const hypura_statistics *statistics)
{
    json_t *gpus = json_array();
    for (int g = 0; g < plan->n_gpus; g++) {
        json_t *object = json_object();
        hypura_json_text(&object, "name", plan->gpus[g].name);
        hypura_json_integer(&object, "vram_bytes", plan->gpus[g].vram_bytes);
        hypura_json_integer(&object, "vram_bytes_needed", statistics->gpus[g].bytes_needed);
        hypura_json_integer(&object, "vram_bytes_hit", statistics->gpus[g].bytes_hit);
        hypura_json_integer(&object, "bytes_uploaded", statistics->gpus[g].bytes_uploaded);
        if (plan->gpus[g].remote) {
            hypura_json_integer(&object, "link_bytes_sent", statistics->gpus[g].link_bytes_sent);
            hypura_json_integer(&object, "link_bytes_received", statistics->gpus[g].link_bytes_received);
            hypura_json_integer(&object, "link_answers", statistics->gpus[g].n_link_answers);
        }
        hypura_json_append(&gpus, object);
    }
    return gpus;
}

/* Whether experts are guessed, by what, and what came of the last time that it was tried. */
static const char *foresight_text(const hypura_statistics *statistics)
{
    static char text[128];
    const bool off = strcmp(statistics->foresight, "off") == 0;
    const char *by = off ? "" : " by ";
    const char *who = off ? "" : statistics->foresight_by;
    const double percent = 100.0 * statistics->foresight_gain;
    if (percent == 0.0) {
        (void)snprintf(text, sizeof text, "%s%s%s", statistics->foresight, by, who);
    } else {
        (void)snprintf(text, sizeof text, "%s%s%s (when last tried it %s %.1f %% of a token's time)", statistics->foresight, by,
                       who, percent > 0.0 ? "saved" : "cost", percent > 0.0 ? percent : -percent);
    }
    return text;
}

/* Who asked routers over a GPU. */
static const char *asked_text(const hypura_statistics *statistics)
{
    static char text[96];
    const uint64_t by_gpu = statistics->n_asked_by_gpu;
    const uint64_t by_host = statistics->n_asked_by_host;
    if (by_gpu + by_host == 0) {
        return "";
    }
    (void)snprintf(text, sizeof text, ", routers asked by the GPU %llu times, by the host %llu", (unsigned long long)by_gpu,
                   (unsigned long long)by_host);
    return text;
}

/* One token has no rate: it is sampled from what the prompt left. */
static void note_rate(const char *what, uint64_t tokens, double seconds)
{
    if (tokens > 1) {
        hypura_output_note("%-10s %llu tokens in %.2f s, %.1f tokens/s", what, (unsigned long long)tokens, seconds,
                           ratio((double)tokens, seconds));
    } else {
        hypura_output_note("%-10s %llu token%s in %.2f s", what, (unsigned long long)tokens, tokens == 1 ? "" : "s",
                           seconds);
    }
}

/* Of passes, whether anything was to be guessed or not: each token may have had one. */
static void note_speculation(const hypura_run_totals *totals)
{
    if (totals->n_passes > 0) {
        hypura_output_note("guessed    %llu tokens, %llu of them right (%.0f %%); %llu passes, %.2f tokens each; %.2f s guessing",
                           (unsigned long long)totals->n_drafted, (unsigned long long)totals->n_accepted,
                           100.0 * ratio((double)totals->n_accepted, (double)totals->n_drafted),
                           (unsigned long long)totals->n_passes,
                           ratio((double)totals->tokens, (double)totals->n_passes), totals->draft_s);
    }
}

void hypura_run_statistics_print(const hypura_run_report *report)
{
    const hypura_run_totals *totals = report->totals;
    hypura_statistics statistics;
    hypura_model_statistics(report->model, &statistics);
    note_rate("prompt", totals->prompt_tokens, totals->prompt_s);
    note_rate("answer", totals->tokens, totals->decode_s);
    if (report->speculates) {
        note_speculation(totals);
    }
    if (statistics.n_reads > 0) {
        hypura_output_note("read       %s at %s (%s, %s), %s for each token of the answer",
                           hypura_output_size(statistics.bytes_read),
                           hypura_output_rate(ratio((double)statistics.bytes_read, statistics.device_busy_s)),
                           statistics.io_engine, statistics.direct_io ? "direct" : "through the page cache",
                           hypura_output_size((uint64_t)ratio((double)totals->bytes_read, (double)totals->tokens)));
    }
    if (statistics.records) {
        hypura_output_note("records    experts were read from the sidecar that optimize made");
    } else if (statistics.records_note[0] != '\0') {
        hypura_output_note("records    %s", statistics.records_note);
    }
    if (statistics.bytes_needed > 0) {
        const double rate = 100.0 * hit_rate_bytes(&statistics);
        if (hypura_model_plan(report->model)->mode == HYPURA_MODE_DENSE) {
            hypura_output_note("kept       %.1f %% of the weights that each pass computes with; the others streamed", rate);
        } else {
            hypura_output_note("hits       %.1f %% of the bytes needed were in memory, %llu evictions", rate,
                               (unsigned long long)statistics.n_evictions);
        }
        if (statistics.cache_policy[0] != '\0') {
            hypura_output_note("policy     %s; foresight: %s, %s read ahead, %.0f %% of it needed",
                               statistics.cache_policy, foresight_text(&statistics),
                               hypura_output_size(statistics.ahead_bytes_read),
                               100.0 * ratio((double)statistics.ahead_bytes_useful, (double)statistics.ahead_bytes_read));
        }
        const double others_s = statistics.read_wait_s + statistics.overhead_s;
        hypura_output_note("time       %.2f s waiting for reads, %.2f s computing, %.2f s overhead",
                           statistics.read_wait_s, fmax(totals->prompt_s + totals->decode_s - others_s, 0.0),
                           statistics.overhead_s);
    }
    if (statistics.vram_bytes_needed > 0) {
        hypura_output_note("GPU        %.1f %% of the experts needed were in GPU memory, %s uploaded, %s copied within",
                           100.0 * ratio((double)statistics.vram_bytes_hit, (double)statistics.vram_bytes_needed),
                           hypura_output_size(statistics.bytes_uploaded), hypura_output_size(statistics.bytes_copied));
        if (statistics.bytes_landed > 0) {
            hypura_output_note("           %s read straight into it", hypura_output_size(statistics.bytes_landed));
        }
        if (statistics.foreseen_bytes_uploaded > 0) {
            hypura_output_note("foresight  %s uploaded before it was asked for, %.0f %% of it needed; %s%s",
                               hypura_output_size(statistics.foreseen_bytes_uploaded),
                               100.0 * ratio((double)statistics.foreseen_bytes_useful,
                                             (double)statistics.foreseen_bytes_uploaded),
                               foresight_text(&statistics), asked_text(&statistics));
        }
        note_computed(&statistics);
        note_gpus(hypura_model_plan(report->model), &statistics);
        hypura_output_note("selections %llu read back, %llu while the GPU went on, of which %llu in vain; %.0f us each, "
                           "%.0f us more until the GPU went on; %s pinned",
                           (unsigned long long)statistics.n_readbacks, (unsigned long long)statistics.n_ahead,
                           (unsigned long long)statistics.n_repeated,
                           1e6 * ratio(statistics.readback_s, (double)statistics.n_readbacks),
                           1e6 * ratio(statistics.submit_s, (double)statistics.n_readbacks),
                           hypura_output_size(statistics.locked_bytes));
    }
    note_network(hypura_model_plan(report->model), &statistics);
    if (statistics.n_resizes > 0) {
        hypura_output_note("budget     %s of paged weights held at the end, after %u changes, the last: %s",
                           hypura_output_size(statistics.pool_bytes + statistics.pinned_bytes), statistics.n_resizes,
                           hypura_budget_reason_name(statistics.budget_reason));
    }
    hypura_output_note("memory     %s at most", hypura_output_size(statistics.peak_rss_bytes));
}

/* computes_misses: the processor computes what GPU memory lacks. */
static void set_gpu_figures(json_t **object, const hypura_statistics *statistics, bool computes_misses)
{
    hypura_json_integer(object, "vram_bytes_needed", statistics->vram_bytes_needed);
    hypura_json_integer(object, "vram_bytes_hit", statistics->vram_bytes_hit);
    hypura_json_integer(object, "bytes_uploaded", statistics->bytes_uploaded);
    hypura_json_integer(object, "bytes_read_into_gpu", statistics->bytes_landed);
    hypura_json_integer(object, "bytes_copied_on_gpu", statistics->bytes_copied);
    hypura_json_integer(object, "bytes_pinned", statistics->locked_bytes);
    hypura_json_integer(object, "readbacks", statistics->n_readbacks);
    hypura_json_real(object, "readback_s", statistics->readback_s);
    hypura_json_real(object, "submit_s", statistics->submit_s);
    hypura_json_integer(object, "run_ahead", statistics->n_ahead);
    hypura_json_integer(object, "repeated", statistics->n_repeated);
    hypura_json_integer(object, "foreseen_bytes_uploaded", statistics->foreseen_bytes_uploaded);
    hypura_json_integer(object, "foreseen_bytes_useful", statistics->foreseen_bytes_useful);
    hypura_json_integer(object, "asked_by_gpu", statistics->n_asked_by_gpu);
    hypura_json_integer(object, "asked_by_host", statistics->n_asked_by_host);
    hypura_json_text(object, "gpu_misses", computes_misses ? "cpu" : "upload");
    hypura_json_integer(object, "cpu_rows", statistics->n_cpu_rows);
    hypura_json_integer(object, "cpu_layers", statistics->n_cpu_layers);
    hypura_json_real(object, "cpu_rows_s", statistics->cpu_rows_s);
    hypura_json_integer(object, "not_cpu_chain", statistics->n_not_cpu_chain);
    hypura_json_integer(object, "not_cpu_ram", statistics->n_not_cpu_ram);
    hypura_json_integer(object, "beside_bytes_uploaded", statistics->beside_bytes_uploaded);
}

hypura_status hypura_run_statistics_write(const hypura_run_report *report, const char *path, hypura_error *error)
{
    const hypura_run_totals *totals = report->totals;
    const hypura_plan *plan = hypura_model_plan(report->model);
    hypura_statistics statistics;
    json_t *object = json_object();
    hypura_model_statistics(report->model, &statistics);
    hypura_json_text(&object, "model", report->path);
    hypura_json_text(&object, "mode", mode_name(report));
    hypura_json_integer(&object, "memory_bytes", plan->memory_bytes);
    hypura_json_integer(&object, "weights_bytes", plan->weights_bytes);
    hypura_json_integer(&object, "pool_bytes", plan->pool_bytes);
    hypura_json_text(&object, "form", hypura_form_name(plan->form));
    hypura_json_text(&object, "form_by",
                     plan->form_measured                                      ? "measurement"
                     : plan->form == HYPURA_FORM_REPACKED || plan->n_gpus > 0 ? "default"
                                                                              : "option");
    hypura_json_integer(&object, "held_bytes", statistics.pool_bytes + statistics.pinned_bytes);
    hypura_json_integer(&object, "resizes", statistics.n_resizes);
    hypura_json_text(&object, "budget", hypura_budget_reason_name(statistics.budget_reason));
    hypura_json_integer(&object, "peak_rss_bytes", statistics.peak_rss_bytes);
    hypura_json_integer(&object, "ubatch", plan->n_ubatch);
    hypura_json_integer(&object, "threads", (uint64_t)plan->n_threads);
    hypura_json_real(&object, "compute_s", statistics.compute_s);
    hypura_json_real(&object, "read_wait_s", statistics.read_wait_s);
    hypura_json_real(&object, "overhead_s", statistics.overhead_s);
    hypura_json_real(&object, "placed_s", statistics.placed_s);
    hypura_json_integer(&object, "prompt_tokens", totals->prompt_tokens);
    hypura_json_real(&object, "prompt_tok_s", ratio((double)totals->prompt_tokens, totals->prompt_s));
    hypura_json_integer(&object, "tokens", totals->tokens);
    hypura_json_real(&object, "decode_tok_s", ratio((double)totals->tokens, totals->decode_s));
    hypura_json_integer(&object, "passes", totals->n_passes);
    hypura_json_real(&object, "tokens_per_pass", ratio((double)totals->tokens, (double)totals->n_passes));
    hypura_json_integer(&object, "drafted_tokens", totals->n_drafted);
    hypura_json_integer(&object, "accepted_tokens", totals->n_accepted);
    hypura_json_real(&object, "draft_s", totals->draft_s);
    hypura_json_text(&object, "cache_type_k", plan->kv_cache.type_k);
    hypura_json_text(&object, "cache_type_v", plan->kv_cache.type_v);
    hypura_json_integer(&object, "draft_bytes", plan->draft_bytes);
    hypura_json_integer(&object, "adapter_bytes", plan->adapter_bytes);
    hypura_json_real(&object, "answer_bytes_read_per_token", ratio((double)totals->bytes_read, (double)totals->tokens));
    hypura_json_integer(&object, "bytes_read", statistics.bytes_read);
    if (statistics.vram_bytes_needed > 0 || has_remote(plan)) {
        hypura_json_set(&object, "gpus", gpus_json(plan, &statistics));
    }
    if (statistics.vram_bytes_needed > 0) {
        set_gpu_figures(&object, &statistics, report->computes_misses);
    }
    hypura_json_real(&object, "bytes_read_per_token", ratio((double)statistics.bytes_read, (double)totals->tokens));
    hypura_json_real(&object, "hit_rate_bytes", hit_rate_bytes(&statistics));
    hypura_json_real(&object, "read_bytes_per_s", ratio((double)statistics.bytes_read, statistics.device_busy_s));
    hypura_json_text(&object, "cache_policy", statistics.cache_policy);
    hypura_json_text(&object, "foresight", statistics.foresight);
    hypura_json_text(&object, "foresight_by", statistics.foresight_by);
    hypura_json_real(&object, "foresight_gain", statistics.foresight_gain);
    hypura_json_integer(&object, "ahead_bytes_read", statistics.ahead_bytes_read);
    hypura_json_integer(&object, "ahead_bytes_useful", statistics.ahead_bytes_useful);
    hypura_json_text(&object, "io_engine", statistics.io_engine);
    hypura_json_bool(&object, "direct_io", statistics.direct_io);
    hypura_json_bool(&object, "records", statistics.records);
    hypura_json_text(&object, "reads", hypura_reads_name(statistics.reads));
    hypura_json_text(&object, "text", hypura_buffer_text(&totals->text));
    return hypura_json_write(object, path, error);
}
