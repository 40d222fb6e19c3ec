/* run.c - see drawn.h: how a model is run. */
#include "drawn.h"

#include <stdio.h>
#include <string.h>

static const char *const kv_types[] = {"f16", "f16", "f16", "f32", "bf16", "q8_0", "q4_0", "q5_1"};

static void draw_faults(rng *r, drawn_run *run)
{
    standin_faults *f = &run->faults;
    f->computes_late = drawn_chance(r, 35);
    f->copies_overtake = drawn_chance(r, 35);
    f->no_events = drawn_chance(r, 15);
    f->no_pinned = drawn_chance(r, 12);
    f->single_rows = drawn_chance(r, 20);
    f->asks_no_routers = drawn_chance(r, 15);
    f->event_fails = drawn_chance(r, 8) ? (int)drawn_between(r, 1, 20) : 0;
    f->unified = drawn_chance(r, 12);
    f->addressable = !f->unified && drawn_chance(r, 20);
    f->no_events = f->no_events || f->addressable;
    f->max_buffer_bytes = drawn_chance(r, 12) ? (uint64_t)1 << drawn_between(r, 18, 21) : 0;
    f->scrambles = drawn_chance(r, 50) ? drawn_between(r, 1, UINT16_MAX) : 0;
}

static void draw_context(rng *r, const drawn_model *model, uint32_t n_ubatch, struct llama_context_params *p)
{
    const bool whole = model->most_context == 0; /* nothing is known of it */
    *p = llama_context_default_params();
    p->n_ubatch = drawn_chance(r, 60) ? n_ubatch : drawn_between(r, 1, n_ubatch);
    p->n_batch = p->n_ubatch * (drawn_chance(r, 50) ? 1 : drawn_between(r, 2, 5));
    p->n_seq_max = drawn_chance(r, 50) || p->n_ubatch < 5 ? 1 : drawn_between(r, 2, 5);
    p->n_ctx = whole ? 64 * p->n_seq_max : 0;
    p->kv_unified = drawn_chance(r, 50);
    p->swa_full = drawn_chance(r, 20);
    p->offload_kqv = !drawn_chance(r, 10);
    p->op_offload = false;
    p->flash_attn_type = drawn_chance(r, 60) ? LLAMA_FLASH_ATTN_TYPE_AUTO
                         : drawn_chance(r, 50) ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p->no_perf = true;
    p->pooling_type = drawn_chance(r, 90) ? LLAMA_POOLING_TYPE_NONE : LLAMA_POOLING_TYPE_MEAN;
}

static void draw_contexts(rng *r, const drawn_model *model, drawn_run *run)
{
    hypura_model_options *o = &run->options;
    run->n_contexts = drawn_chance(r, 15) ? 2 : 1;
    for (int i = 0; i < run->n_contexts; i++) {
        struct llama_context_params *p = &run->contexts[i];
        draw_context(r, model, o->n_ubatch, p);
        p->n_ctx = p->n_ctx > 0 ? p->n_ctx : o->n_context * (drawn_chance(r, 50) ? 1 : p->n_seq_max);
        p->n_threads = p->n_threads_batch = o->n_threads;
        if (strchr(o->kv_cache.type_v ? o->kv_cache.type_v : "", 'q')) {
            p->flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED; /* such values take it */
        }
    }
}

void drawn_choose_run(rng *r, const drawn_model *model, const char *gpus, drawn_run *run)
{
    static const uint32_t ubatches[] = {1, 2, 3, 7, 16, 16, 32, 32, 64, 128, 512};
    static const uint32_t contexts[] = {64, 128, 256, 256, 512, 1024, 2048};
    static const char *const all_gpus[] = {STANDIN_NAME, STANDIN_NAME, STANDIN_SECOND, STANDIN_BOTH, STANDIN_BOTH};
    static const char *const guessers[] = {"ngram-simple", "ngram-mod", "ngram-map-k", "ngram-cache"};
    memset(run, 0, sizeof *run);
    hypura_model_options *o = &run->options;
    const bool over_gpus = gpus || drawn_chance(r, 55);
    run->gpus = gpus ? gpus : over_gpus ? all_gpus[rng_below(r, sizeof all_gpus / sizeof *all_gpus)] : "none";
    o->path = model->path;
    o->gpu = run->gpus;
    o->n_context = contexts[rng_below(r, sizeof contexts / sizeof *contexts)];
    if (model->most_context == 0) {
        o->n_context = 64;
    }
    o->n_ubatch = ubatches[rng_below(r, sizeof ubatches / sizeof *ubatches)];
    o->n_ubatch = o->n_ubatch < o->n_context ? o->n_ubatch : o->n_context;
    o->n_threads = (int)drawn_between(r, 1, 3);
    o->force_paging = !drawn_chance(r, 6);
    const uint32_t form = over_gpus ? 0 : drawn_chance(r, 25) ? 2 : (uint32_t)rng_below(r, 2);
    o->no_repack = form != 1;
    o->repack_output = form == 2;
    o->io_engine = drawn_chance(r, 40) ? "pool" : drawn_chance(r, 50) ? "uring" : NULL;
    o->foresight = (hypura_foresight)rng_below(r, 4);
    o->gpu_misses = over_gpus && !gpus && drawn_chance(r, 40) ? HYPURA_GPU_MISSES_CPU : HYPURA_GPU_MISSES_UPLOAD;
    o->io_limit_bytes_per_s = drawn_chance(r, 6) ? (uint64_t)drawn_between(r, 30, 400) << 20 : 0;
    o->kv_cache.type_k = kv_types[rng_below(r, sizeof kv_types / sizeof *kv_types)];
    o->kv_cache.type_v = drawn_chance(r, 60) ? "f16" : kv_types[rng_below(r, sizeof kv_types / sizeof *kv_types)];
    if (model->most_context == 0) {
        o->kv_cache = (hypura_kv_cache){NULL, NULL};
    }
    if (over_gpus && !gpus) {
        draw_faults(r, run);
    }
    run->weights_permille = drawn_chance(r, 30) ? 0 : drawn_chance(r, 20) ? 1001 : drawn_between(r, 0, 1000);
    run->memory_permille = drawn_chance(r, 15) ? drawn_between(r, 0, 1000) : 1001;
    run->vram_percent = drawn_chance(r, 20) ? 0 : drawn_chance(r, 15) ? 101 : drawn_between(r, 0, 100);
    run->each_gpu = drawn_chance(r, 25);
    run->keeps = drawn_chance(r, 30);
    run->single_groups = drawn_chance(r, 15);
    run->always_wide = drawn_chance(r, 15);
    run->short_percent = drawn_chance(r, 15) ? drawn_between(r, 1, 40) : 0;
    run->sleep_percent = drawn_chance(r, 25) ? drawn_between(r, 1, 40) : 0;
    run->drops_cache = drawn_chance(r, 50);
    if (model->has_text && drawn_chance(r, 40)) {
        run->speculation.draft = model->draft[0] != '\0' && drawn_chance(r, 70) ? model->draft : NULL;
        run->speculation.types = run->speculation.draft ? NULL : guessers[rng_below(r, 4)];
        run->speculation.n_max = drawn_between(r, 1, 8);
    }
    draw_contexts(r, model, run);
    const standin_faults *f = &run->faults;
    snprintf(run->text, sizeof run->text,
             "gpu %s%s%s%s%s%s%s%s%s%s%s ctx %u ub %u thr %d form %u%s io %s fore %d miss %d kv %s/%s w %u m %u v %u%s%s%s%s%s%s spec %s",
             run->gpus, f->computes_late ? " late" : "", f->scrambles ? " scrambled" : "", f->copies_overtake ? " overtake" : "",
             f->no_events ? " noevents" : "", f->no_pinned ? " unpinned" : "", f->unified ? " unified" : "",
             f->addressable ? " addressable" : "",
             f->event_fails ? " eventfails" : "", f->max_buffer_bytes ? " smallbuffers" : "", f->asks_no_routers ? " norouters" : "",
             o->n_context, o->n_ubatch, o->n_threads, form, o->force_paging ? "" : " unforced", o->io_engine ? o->io_engine : "-",
             o->foresight, o->gpu_misses, o->kv_cache.type_k ? o->kv_cache.type_k : "-", o->kv_cache.type_v ? o->kv_cache.type_v : "-",
             run->weights_permille, run->memory_permille, run->vram_percent, run->each_gpu ? " each" : "", run->keeps ? " keeps" : "",
             run->single_groups ? " single" : "", run->always_wide ? " wide" : "", run->short_percent ? " short" : "",
             run->sleep_percent ? " sleep" : "",
             run->speculation.draft ? "draft" : run->speculation.types ? run->speculation.types : "-");
}

bool drawn_change(drawn_run *run, const char *name, uint32_t value)
{
    standin_faults *f = &run->faults;
    hypura_model_options *o = &run->options;
    const struct {
        const char *name;
        bool *flag;
        uint32_t *number;
    } known[] = {
        {"late", &f->computes_late, NULL},       {"overtake", &f->copies_overtake, NULL}, {"noevents", &f->no_events, NULL},
        {"unpinned", &f->no_pinned, NULL},       {"rows", &f->single_rows, NULL},         {"norouters", &f->asks_no_routers, NULL},
        {"unified", &f->unified, NULL},          {"addressable", &f->addressable, NULL},  {"paging", &o->force_paging, NULL},
        {"single", &run->single_groups, NULL},   {"wide", &run->always_wide, NULL},       {"keeps", &run->keeps, NULL},
        {"each", &run->each_gpu, NULL},          {"short", NULL, &run->short_percent},    {"sleep", NULL, &run->sleep_percent},
        {"weights", NULL, &run->weights_permille}, {"memory", NULL, &run->memory_permille}, {"vram", NULL, &run->vram_percent},
        {"ubatch", NULL, &o->n_ubatch},          {"own-ubatch", NULL, &run->contexts[0].n_ubatch},
        {"own-batch", NULL, &run->contexts[0].n_batch},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) != 0) {
            continue;
        }
        if (known[i].flag) {
            *known[i].flag = value != 0;
        } else {
            *known[i].number = value;
        }
        return true;
    }
    if (strcmp(name, "standins") == 0) { /* so many; before what they are like */
        o->gpu = run->gpus = value > 1 ? STANDIN_BOTH : STANDIN_NAME;
        o->no_repack = true;
        o->repack_output = false;
    } else if (strcmp(name, "scrambles") == 0) {
        f->scrambles = value;
    } else if (strcmp(name, "smallbuffers") == 0) {
        f->max_buffer_bytes = value;
    } else if (strcmp(name, "foresight") == 0) {
        o->foresight = (hypura_foresight)value;
    } else if (strcmp(name, "misses") == 0) {
        o->gpu_misses = (hypura_gpu_misses)value;
    } else if (strcmp(name, "threads") == 0) {
        o->n_threads = run->contexts[0].n_threads = run->contexts[0].n_threads_batch = (int)value;
    } else {
        return false;
    }
    return true;
}
