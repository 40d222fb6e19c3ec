/*
 * form_choice.c - see form_choice.h.
 */
#include "engine/prepare/form_choice.h"

#include "base/status.h"
#include "engine/prepare/experience.h"
#include "pager/repack.h"
#include "plan/form.h"

/* Measuring takes weights of its own. */
#define ROOM_TO_MEASURE_BYTES (UINT64_C(1) << 30)

typedef struct form_choice {
    const hypura_form_question *q;
    hypura_rates rates[2]; /* plain, repacked */
    hypura_form plain_form; /* FILE or OUTPUT */
    hypura_form_costs costs;
} form_choice;

/* The output matrix makes logits, of a prompt too those of one row, so decoding alone feels its form: where all other weights
 * stay as in the file for the sake of prompts, it is repacked all the same. -1: none that can be repacked alone; from an
 * embedding that is the output too, rows are read as they lie in the file. */
static int find_output(const hypura_map *map, const hypura_survey *survey)
{
    for (int t = 0; t < map->n_tensors; t++) {
        if (map->tensors[t].role == HYPURA_ROLE_OUTPUT) {
            return survey->uses[t].flags == HYPURA_USE_MUL_MAT && hypura_repack_has_form(&map->tensors[t]) ? t : -1;
        }
    }
    return -1;
}

/* What is computed beside products, as far as it is known. */
static double others_s(const hypura_form_question *q)
{
    return q->wanted->rates ? q->wanted->rates->others_s : 0.0;
}

/* What is computed beside products is left out, as it is measured for estimates alone: the same model with the same
 * budget is to be computed with in the same form every time. */
static hypura_status find_costs(form_choice *c, hypura_error *error)
{
    const hypura_form_question *q = c->q;
    double compute_s[2];
    double prompt_s[2];
    for (int form = 0; form < 2; form++) {
        hypura_plan *plan = NULL;
        hypura_plan_options options = *q->wanted;
        options.rates = &c->rates[form];
        options.lessons = NULL;
        const hypura_status status = hypura_plan_solve(q->map, q->survey, q->profile, &options, &plan, error);
        if (status != HYPURA_OK) {
            return status;
        }
        compute_s[form] = plan->compute_s;
        prompt_s[form] = plan->prompt_compute_s;
        c->costs.decode.read_bytes = plan->read_bytes_per_token;
        c->costs.prompt.read_bytes = (double)plan->nvme_bytes / q->survey->n_ubatch;
        hypura_plan_free(plan);
    }
    c->costs.decode.plain_compute_s = compute_s[0];
    c->costs.decode.repacked_compute_s = compute_s[1];
    c->costs.prompt.plain_compute_s = prompt_s[0];
    c->costs.prompt.repacked_compute_s = prompt_s[1];
    return HYPURA_OK;
}

static hypura_status find_rates(form_choice *c, hypura_error *error)
{
    const hypura_form_question *q = c->q;
    hypura_status status =
        hypura_experience_repack_rate(q->options->cache_dir, q->map, q->survey, &c->costs.repack_bytes_per_s, error);
    for (int form = 0; form < 2 && status == HYPURA_OK && c->costs.repack_bytes_per_s > 0; form++) {
        status = hypura_experience_rates(q->options, q->map, q->survey, q->n_threads, form == 1, true, &c->rates[form],
                                         error);
        if (status == HYPURA_OK) {
            status = hypura_experience_prompt_rates(q->options, q->map, q->survey, q->n_threads, form == 1,
                                                    &c->rates[form], error);
        }
    }
    return status;
}

static int find_dense_rate(const hypura_rates *rates, int type)
{
    for (int i = 0; i < rates->n; i++) {
        if (rates->by_type[i].type == type && !rates->by_type[i].experts) {
            return i;
        }
    }
    return -1;
}

/* Weights stay as in the file for the sake of prompts, with which the output has next to nothing to do. */
static void choose_output(form_choice *c)
{
    const hypura_map *map = c->q->map;
    const int output = find_output(map, c->q->survey);
    const int plain = output >= 0 ? find_dense_rate(&c->rates[0], map->tensors[output].type) : -1;
    const int repacked = output >= 0 ? find_dense_rate(&c->rates[1], map->tensors[output].type) : -1;
    if (plain >= 0 && repacked >= 0 &&
        hypura_form_repacks_output(c->rates[0].by_type[plain].bytes_per_s, c->rates[1].by_type[repacked].bytes_per_s)) {
        c->plain_form = HYPURA_FORM_OUTPUT;
        c->rates[0].output_bytes_per_s = c->rates[1].by_type[repacked].bytes_per_s;
        c->rates[0].output_product_s = c->rates[1].by_type[repacked].product_s;
    }
}

static hypura_status take_plain(form_choice *c, hypura_plan **plan, hypura_error *error)
{
    const hypura_form_question *q = c->q;
    hypura_lessons lessons;
    hypura_plan_options wanted = *q->wanted;
    hypura_experience_lessons(q->options->cache_dir, q->map, q->n_threads, c->plain_form, &lessons);
    c->rates[0].others_s = others_s(q);
    wanted.rates = &c->rates[0];
    wanted.lessons = &lessons;
    hypura_plan_free(*plan);
    *plan = NULL;
    return hypura_plan_solve(q->map, q->survey, q->profile, &wanted, plan, error);
}

static double per_second(double seconds)
{
    return seconds > 0 ? 1.0 / seconds : 0.0;
}

static void tell_form(const form_choice *c, hypura_plan *plan)
{
    const hypura_form_costs *costs = &c->costs;
    hypura_form_work decode = costs->decode;
    decode.repacked_compute_s += others_s(c->q);
    decode.plain_compute_s += others_s(c->q);
    plan->form_measured = true;
    plan->repacked_tok_s = per_second(hypura_form_repacked_s(costs, &decode));
    plan->plain_tok_s = per_second(hypura_form_plain_s(costs, &decode));
    plan->repacked_prompt_tok_s = per_second(hypura_form_repacked_s(costs, &costs->prompt));
    plan->plain_prompt_tok_s = per_second(hypura_form_plain_s(costs, &costs->prompt));
}

hypura_form hypura_form_asked(const hypura_model_options *options, bool over_gpus)
{
    if (over_gpus && !options->plain && !options->repack_output) {
        return HYPURA_FORM_FILE;
    }
    return !options->no_repack ? HYPURA_FORM_REPACKED : options->repack_output ? HYPURA_FORM_OUTPUT : HYPURA_FORM_FILE;
}

hypura_status hypura_form_check(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                bool over_gpus, hypura_error *error)
{
    if (hypura_form_asked(options, over_gpus) != HYPURA_FORM_OUTPUT) {
        return HYPURA_OK;
    }
    if (over_gpus) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "the output matrix is to be repacked for the CPU, and is computed with on a GPU: use none");
    }
    if (find_output(map, survey) < 0) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: no output matrix to repack: it has none of its own, or of a type that is not repacked here",
                           map->path);
    }
    return HYPURA_OK;
}

static bool is_open(const hypura_form_question *q, const hypura_plan *plan)
{
    const hypura_model_options *options = q->options;
    return !options->no_repack && !options->plain && options->cache_dir && !q->wanted->gpus &&
           plan->mode != HYPURA_MODE_RESIDENT && plan->read_bytes_per_token > 0 &&
           q->profile->ram_available_bytes >= ROOM_TO_MEASURE_BYTES;
}

hypura_status hypura_form_choose(const hypura_form_question *question, hypura_plan **plan, hypura_error *error)
{
    form_choice choice = {.q = question,
                          .costs = {.read_bytes_per_s = question->profile->direct_bytes_per_s,
                                    .n_threads = question->n_threads,
                                    .n_cpus = question->profile->n_cpus}};
    (*plan)->form = hypura_form_asked(question->options, (*plan)->n_gpus > 0);
    if (!is_open(question, *plan)) {
        return HYPURA_OK;
    }
    hypura_status status = find_rates(&choice, error);
    if (status != HYPURA_OK || choice.costs.repack_bytes_per_s <= 0) {
        return status;
    }
    choose_output(&choice);
    status = find_costs(&choice, error);
    const bool plain = status == HYPURA_OK && hypura_form_prefers_plain(&choice.costs);
    if (plain) {
        status = take_plain(&choice, plan, error);
    }
    if (status == HYPURA_OK) {
        (*plan)->form = plain ? choice.plain_form : HYPURA_FORM_REPACKED;
        tell_form(&choice, *plan);
    }
    return status;
}
