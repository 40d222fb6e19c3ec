/*
 * run_settings.c - see run_arguments.h: what a stored model was made with, as `ollama run` takes it from a Modelfile.
 */
#include "cli/run_arguments.h"

#include "base/status.h"
#include "cli/output.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void tell(hypura_run_arguments *run, const char *name)
{
    const size_t used = strlen(run->applied);
    snprintf(run->applied + used, sizeof run->applied - used, "%s%s", used > 0 ? ", " : "", name);
}

static hypura_status bad_value(const hypura_run_arguments *run, const char *name, hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_FORMAT, "%s was made with a parameter %s that cannot be used", run->name, name);
}

/* ---- parameters ------------------------------------------------------------------ */

static hypura_status take_stop(hypura_run_arguments *run, const json_t *value, hypura_error *error)
{
    const size_t n = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_is_array(value) ? json_array_get(value, i) : value);
        if (!text || run->stop.n == HYPURA_MAX_LIST) {
            return bad_value(run, "stop", error);
        }
        if (text[0] != '\0') {
            run->stop.items[run->stop.n++] = text;
        }
    }
    return HYPURA_OK;
}

typedef struct number {
    const char *name;
    const bool *given;
    float *real;
    int *integer;
    uint32_t *count; /* below 0: no limit, 0; of a seed: a random one */
    double most;
} number;

static hypura_status take_number(hypura_run_arguments *run, const number *to, const json_t *value, hypura_error *error)
{
    const double told = json_number_value(value);
    if (!json_is_number(value) || !(fabs(told) <= to->most) || (!to->real && floor(told) < told)) {
        return bad_value(run, to->name, error);
    }
    if (to->count == &run->generate.sampling.seed && told < 0) { /* any, as llama.cpp and Ollama have it */
        if (getentropy(to->count, sizeof *to->count) != 0) {
            return hypura_fail_errno(error, errno, "cannot get a random seed");
        }
    } else if (to->real) {
        *to->real = (float)told;
    } else if (to->integer) {
        *to->integer = told > 0 ? (int)told : 0;
    } else {
        *to->count = told > 0 ? (uint32_t)told : 0;
    }
    tell(run, to->name);
    return HYPURA_OK;
}

/* *unknown: names of those that run has not. */
static hypura_status take_parameters(hypura_run_arguments *run, const json_t *parameters, char *unknown, size_t capacity,
                                     hypura_error *error)
{
    hypura_sampling *s = &run->generate.sampling;
    const bool context_given = run->model.n_context > 0;
    const bool batch_given = run->model.n_ubatch > 0;
    const bool stop_given = run->stop.n > 0;
    const bool seed_given = run->seed_given;
    const number numbers[] = {
        {"temperature", &run->given.temperature, &s->temperature, NULL, NULL, 100},
        {"top_p", &run->given.top_p, &s->top_p, NULL, NULL, 1},
        {"min_p", &run->given.min_p, &s->min_p, NULL, NULL, 1},
        {"top_k", &run->given.top_k, NULL, &s->top_k, NULL, INT32_MAX},
        {"repeat_penalty", &run->given.repeat_penalty, &s->repeat_penalty, NULL, NULL, 100},
        {"frequency_penalty", &run->given.frequency_penalty, &s->frequency_penalty, NULL, NULL, 100},
        {"presence_penalty", &run->given.presence_penalty, &s->presence_penalty, NULL, NULL, 100},
        {"seed", &seed_given, NULL, NULL, &s->seed, UINT32_MAX},
        {"num_predict", &run->given.max_tokens, NULL, NULL, &run->generate.max_tokens, INT32_MAX},
        {"num_ctx", &context_given, NULL, NULL, &run->model.n_context, INT32_MAX},
        {"num_batch", &batch_given, NULL, NULL, &run->model.n_ubatch, 65536},
    };
    const char *name;
    const json_t *value;
    hypura_status status = HYPURA_OK;
    json_object_foreach((json_t *)(uintptr_t)parameters, name, value)
    {
        size_t i = 0;
        while (i < sizeof numbers / sizeof *numbers && strcmp(numbers[i].name, name) != 0) {
            i++;
        }
        if (strcmp(name, "stop") == 0) {
            if (!stop_given) {
                status = take_stop(run, value, error);
                tell(run, name);
            }
        } else if (i == sizeof numbers / sizeof *numbers) {
            const size_t used = strlen(unknown);
            snprintf(unknown + used, capacity - used, "%s%s", used > 0 ? ", " : "", name);
        } else if (!*numbers[i].given) {
            status = take_number(run, &numbers[i], value, error);
            run->seed_given = run->seed_given || numbers[i].count == &s->seed;
        }
        if (status != HYPURA_OK) {
            return status;
        }
    }
    return HYPURA_OK;
}

hypura_status hypura_run_settings_apply(hypura_run_arguments *run, hypura_error *error)
{
    char unknown[256] = "";
    run->settings = run->files.settings ? json_loads(run->files.settings, 0, NULL) : NULL;
    const json_t *settings = run->settings;
    const char *system = json_string_value(json_object_get(settings, "system"));
    const char *template = json_string_value(json_object_get(settings, "template"));
    if (run->files.settings && !settings) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the settings of %s", run->name);
    }
    const hypura_status status =
        take_parameters(run, json_object_get(settings, "parameters"), unknown, sizeof unknown, error);
    if (status == HYPURA_OK && unknown[0] != '\0') {
        hypura_output_note("(%s was made with parameters that run has not: %s)", run->name, unknown);
    }
    run->generate.stop = run->stop.items;
    run->generate.n_stop = run->stop.n;
    if (!run->generate.raw && system && system[0] != '\0' && !run->generate.system) {
        run->generate.system = system;
        run->system_is_own = true;
        tell(run, "system text");
    }
    if (!run->generate.raw && template && !run->template_file) {
        run->generate.chat_template = template;
        tell(run, "template");
    }
    return status;
}

/* ---- in a conversation --------------------------------------------------------------- */

const char *hypura_run_parameter_names(void)
{
    return "temperature, top_p, top_k, min_p, seed, num_predict, stop, repeat_penalty, frequency_penalty, presence_penalty";
}

/* NULL: a text is none that can be. */
static json_t *value_of(const char *name, const char *const *words, int n)
{
    char *end = NULL;
    const bool is_number = words[0][0] != '\0' && strspn(words[0], "+-.0123456789eE") == strlen(words[0]);
    const double told = is_number ? strtod(words[0], &end) : 0.0;
    if (strcmp(name, "stop") == 0) {
        json_t *texts = json_array();
        for (int i = 0; i < n; i++) {
            if (json_array_append_new(texts, json_string(words[i])) != 0) { /* no UTF-8 */
                json_decref(texts);
                return NULL;
            }
        }
        return texts;
    }
    if (n != 1 || !is_number || *end != '\0') {
        return json_null();
    }
    return floor(told) < told || fabs(told) > 1e15 ? json_real(told) : json_integer((json_int_t)told);
}

hypura_status hypura_run_settings_set(hypura_run_arguments *run, const char *name, const char *const *words, int n,
                                      hypura_error *error)
{
    if (strcmp(name, "num_ctx") == 0 || strcmp(name, "num_batch") == 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s is of the model as it was loaded: %s N of the command line", name,
                           strcmp(name, "num_ctx") == 0 ? "--context" : "--ubatch");
    }
    char unknown[64] = "";
    json_t *value = value_of(name, words, n);
    if (!value) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "parameter %s: a text is no UTF-8", name);
    }
    json_t *one = json_pack("{s:O}", name, value);
    hypura_run_arguments tried = *run;
    memset(&tried.given, 0, sizeof tried.given);
    tried.seed_given = false;
    tried.stop.n = 0;
    hypura_status status = HYPURA_OK;
    if (!one || take_parameters(&tried, one, unknown, sizeof unknown, error) != HYPURA_OK) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "parameter %s: '%s' is nothing that it can be", name, words[0]);
    } else if (unknown[0] != '\0') {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "there is no parameter %s: %s", name, hypura_run_parameter_names());
    } else {
        json_t *all = json_object_get(run->chosen, "parameters");
        if (!all) {
            all = json_object();
            json_object_set_new(run->chosen, "parameters", all);
        }
        status = json_object_set(all, name, value) == 0 ? HYPURA_OK
                                                        : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for %s", name);
    }
    if (status == HYPURA_OK) { /* texts of stop are those of chosen */
        run->generate.sampling = tried.generate.sampling;
        run->generate.max_tokens = tried.generate.max_tokens;
        run->seed_given = run->seed_given || tried.seed_given;
        if (strcmp(name, "stop") == 0) {
            run->stop = tried.stop;
            run->generate.n_stop = run->stop.n;
        }
    }
    json_decref(one);
    json_decref(value);
    return status;
}

/* ---- a conversation that comes before ----------------------------------------------- */

/* Text alone, as the server takes it for other APIs than Ollama's. */
static bool is_plain(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && (strcmp(role, "system") == 0 || strcmp(role, "user") == 0 || strcmp(role, "assistant") == 0) &&
           json_is_string(json_object_get(message, "content")) && json_array_size(json_object_get(message, "images")) == 0;
}

hypura_status hypura_run_settings_begin(hypura_run_arguments *run, hypura_error *error)
{
    const json_t *messages = json_object_get(run->settings, "messages");
    size_t i;
    const json_t *message;
    json_t *said = json_array();
    if (run->generate.raw || run->kept.n_said > 0) {
        json_decref(said);
        return HYPURA_OK;
    }
    json_array_foreach(messages, i, message)
    {
        if (is_plain(message)) {
            json_array_append_new(said, json_pack("{s:O, s:O}", "role", json_object_get(message, "role"), "content",
                                                  json_object_get(message, "content")));
        }
    }
    if (json_array_size(said) > 0 && run->generate.system) {
        json_array_insert_new(said, 0, json_pack("{s:s, s:s}", "role", "system", "content", run->generate.system));
    }
    const bool begins = json_array_size(said) > 0;
    const hypura_status status = begins ? hypura_history_begin(&run->kept, said, error) : HYPURA_OK;
    json_decref(said);
    if (status == HYPURA_OK && begins) {
        tell(run, "messages");
    }
    run->generate.history = run->kept.said;
    run->generate.n_history = run->kept.n_said;
    return status;
}
