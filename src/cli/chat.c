/*
 * chat.c - see chat.h. A command is a row of the table at the end and a function.
 *
 * The model holds the conversation. What changes how it began (/set system, /load) begins it anew with everything that was
 * said: the next prompt computes that again.
 */
#include "cli/chat.h"

#include "base/status.h"
#include "cli/message.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 34

/* ---- words -------------------------------------------------------------------- */

/* Parts text, which it changes, at blanks; quotes hold blanks together. */
static int split_words(char *text, const char **words)
{
    int n = 0;
    for (char *at = text + strspn(text, " \t"); *at != '\0' && n < MAX_WORDS; at += strspn(at, " \t")) {
        const char quote = *at == '"' || *at == '\'' ? *at : '\0';
        const char ends[] = {quote, '\0'};
        at += quote != '\0';
        words[n++] = at;
        at += strcspn(at, quote ? ends : " \t");
        if (*at != '\0') {
            *at++ = '\0';
        }
    }
    return n;
}

/* The text without blanks and quotes at its sides; it is changed. */
static char *unquote(char *text)
{
    static const char *const quotes[] = {"\"\"\"", "\"", "'"};
    text += strspn(text, " \t");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1])) {
        text[--length] = '\0';
    }
    for (size_t i = 0; i < sizeof quotes / sizeof *quotes; i++) {
        const size_t n = strlen(quotes[i]);
        if (length >= 2 * n && strncmp(text, quotes[i], n) == 0 && strcmp(text + length - n, quotes[i]) == 0) {
            text[length - n] = '\0';
            return text + n;
        }
    }
    return text;
}

/* ---- the conversation ----------------------------------------------------------- */

static void forget(const hypura_chat *chat)
{
    if (chat->model) {
        hypura_model_reset(chat->model);
    } else {
        hypura_client_reset(chat->run->client);
    }
}

static hypura_status begin_anew(const hypura_chat *chat, json_t *messages, hypura_error *error)
{
    hypura_run_arguments *run = chat->run;
    const hypura_status status = hypura_history_begin(&run->kept, messages, error);
    if (status == HYPURA_OK) {
        run->generate.history = run->kept.said;
        run->generate.n_history = run->kept.n_said;
        forget(chat);
    }
    return status;
}

static const char *system_of(const json_t *messages)
{
    const json_t *first = json_array_get(messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    return role && strcmp(role, "system") == 0 ? json_string_value(json_object_get(first, "content")) : NULL;
}

/* "": none. */
static hypura_status set_system(const hypura_chat *chat, const char *text, hypura_error *error)
{
    hypura_run_arguments *run = chat->run;
    hypura_status status = HYPURA_OK;
    json_t *value = json_string(text);
    json_t *messages = json_copy(run->kept.messages); /* NULL where nothing was said yet */
    if (!value) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the system text is no UTF-8");
    }
    if (status == HYPURA_OK && json_array_size(messages) > 0) {
        if (system_of(messages)) {
            json_array_remove(messages, 0);
        }
        if (text[0] != '\0') {
            json_array_insert_new(messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", text));
        }
        status = begin_anew(chat, messages, error);
    }
    if (status == HYPURA_OK) {
        json_object_set(run->chosen, "system", value);
        const char *kept = json_string_value(value);
        run->generate.system = kept[0] != '\0' ? kept : NULL;
        run->kept.system = run->generate.system;
        run->system_is_own = false;
    }
    json_decref(messages);
    json_decref(value);
    return status;
}

/* ---- /set ----------------------------------------------------------------------- */

static hypura_status take_system(hypura_chat *chat, char *rest, hypura_error *error)
{
    if (chat->run->generate.raw) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "--raw and a system text exclude each other");
    }
    const hypura_status status = set_system(chat, unquote(rest), error);
    if (status == HYPURA_OK) {
        hypura_output_note(chat->run->generate.system ? "(the system text is set)" : "(no system text)");
    }
    return status;
}

static hypura_status take_parameter(hypura_chat *chat, char *rest, hypura_error *error)
{
    const char *words[MAX_WORDS];
    const int n = split_words(rest, words);
    if (n < 2) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "/set parameter NAME VALUE: %s", hypura_run_parameter_names());
    }
    const hypura_status status = hypura_run_settings_set(chat->run, words[0], words + 1, n - 1, error);
    if (status == HYPURA_OK) {
        hypura_output_note("(%s is set)", words[0]);
    }
    return status;
}

static hypura_status take_think(hypura_chat *chat, char *rest, hypura_error *error)
{
    const char *level = unquote(rest);
    hypura_thinking thinking;
    if (!hypura_run_thinking(level[0] != '\0' ? level : "on", &thinking)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "/set think: '%s' is not on, off, low, medium or high", level);
    }
    chat->run->generate.thinking = thinking;
    chat->run->chose_thinking = true;
    hypura_output_note(thinking == HYPURA_THINKING_OFF ? "(it does not think)" : "(it thinks, if it can)");
    return HYPURA_OK;
}

static hypura_status take_nothink(hypura_chat *chat, char *rest, hypura_error *error)
{
    (void)rest;
    char off[] = "off";
    return take_think(chat, off, error);
}

static hypura_status take_format(hypura_chat *chat, char *rest, hypura_error *error)
{
    hypura_generate_options *generate = &chat->run->generate;
    if (strcmp(unquote(rest), "json") != 0) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "/set format json is the only one (--json-schema takes a schema)");
    }
    if (generate->grammar) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the answers have a --grammar");
    }
    generate->json_schema = "{}";
    hypura_output_note("(answers are JSON)");
    return HYPURA_OK;
}

static hypura_status take_noformat(hypura_chat *chat, char *rest, hypura_error *error)
{
    (void)rest;
    (void)error;
    chat->run->generate.json_schema = NULL;
    chat->run->generate.grammar = NULL;
    hypura_output_note("(answers are text)");
    return HYPURA_OK;
}

/* ---- /show ---------------------------------------------------------------------- */

static void show_info(const hypura_run_arguments *run)
{
    hypura_output_note("model       %s", run->name);
    if (run->server) {
        hypura_output_note("server      %s", run->server);
    } else if (strcmp(run->name, run->path) != 0) {
        hypura_output_note("file        %s", run->path);
    }
    hypura_output_note("said        %zu messages", json_array_size(run->kept.messages));
}

static void show_system(const hypura_run_arguments *run)
{
    const char *said = system_of(run->kept.messages);
    const char *system = said ? said : run->generate.system;
    hypura_output_note("system      %s", system ? system : "(none)");
}

static void show_parameters(const hypura_run_arguments *run)
{
    const hypura_sampling *s = &run->generate.sampling;
    hypura_output_note("parameters  temperature %g, top_p %g, top_k %d, min_p %g, seed %u", (double)s->temperature,
                       (double)s->top_p, s->top_k, (double)s->min_p, s->seed);
    hypura_output_note("            repeat_penalty %g, frequency_penalty %g, presence_penalty %g",
                       (double)hypura_repeat_penalty(s), (double)s->frequency_penalty, (double)s->presence_penalty);
    if (run->generate.max_tokens > 0) {
        hypura_output_note("            num_predict %u", run->generate.max_tokens);
    } else {
        hypura_output_note("            num_predict -1");
    }
    for (int i = 0; i < run->generate.n_stop; i++) {
        hypura_output_note("            stop \"%s\"", run->generate.stop[i]);
    }
}

static const struct {
    const char *name;
    void (*show)(const hypura_run_arguments *run);
} shown[] = {{"info", show_info}, {"system", show_system}, {"parameters", show_parameters}};

static hypura_status take_show(hypura_chat *chat, char *rest, hypura_error *error)
{
    const char *what = unquote(rest);
    bool known = false;
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        if (what[0] == '\0' || strcmp(what, shown[i].name) == 0) {
            shown[i].show(chat->run);
            known = true;
        }
    }
    return known ? HYPURA_OK
                 : hypura_fail(error, HYPURA_ERR_USAGE,
                               "/show takes info, system or parameters (hypura inspect MODEL tells of the file)");
}

/* ---- /save and /load --------------------------------------------------------------- */

static bool is_file(const char *name)
{
    static const char ending[] = ".json";
    const size_t length = strlen(name);
    return name[0] == '/' || name[0] == '.' ||
           (length >= sizeof ending && strcmp(name + length - (sizeof ending - 1), ending) == 0);
}

/* A model of its own, as `ollama run` does: its files are this one's. */
static hypura_status save_model(const hypura_chat *chat, const char *name, hypura_error *error)
{
    const hypura_run_arguments *run = chat->run;
    if (run->server) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a model of a server is made by its /api/create: /save FILE.json keeps "
                                                    "the conversation");
    }
    const hypura_local_options places = hypura_environment_places(run->environment);
    json_t *settings = json_pack("{s:O*}", "parameters", json_object_get(run->chosen, "parameters"));
    const char *said = system_of(run->kept.messages);
    const char *system = said ? said : run->generate.system;
    json_t *messages = json_copy(run->kept.messages);
    if (said) {
        json_array_remove(messages, 0);
    }
    if (system) {
        hypura_json_text(&settings, "system", system);
    }
    hypura_json_set(&settings, "messages", messages ? messages : json_array());
    char *text = settings ? json_dumps(settings, JSON_COMPACT) : NULL;
    const hypura_status status = text ? hypura_local_save(&places, run->name, name, text, error)
                                      : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to save the conversation");
    free(text);
    json_decref(settings);
    return status;
}

static hypura_status take_save(hypura_chat *chat, char *rest, hypura_error *error)
{
    const json_t *messages = chat->run->kept.messages;
    const char *name = unquote(rest);
    if (name[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "/save NAME makes a model, /save FILE.json keeps the conversation alone");
    }
    const hypura_status status =
        is_file(name) ? hypura_json_write(messages ? json_deep_copy(messages) : json_array(), name, error)
                      : save_model(chat, name, error);
    if (status == HYPURA_OK) {
        hypura_output_note("(saved: %s)", name);
    }
    return status;
}

static hypura_status take_load(hypura_chat *chat, char *rest, hypura_error *error)
{
    hypura_history read = {.path = NULL};
    const char *name = unquote(rest);
    if (!is_file(name)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "/load FILE.json goes on with a conversation that was saved; a model is run by "
                                                    "hypura run %s", name[0] != '\0' ? name : "NAME");
    }
    hypura_status status = hypura_history_read(name, &read, error);
    if (status == HYPURA_OK && json_array_size(read.messages) == 0) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s: there is no conversation", name);
    }
    if (status == HYPURA_OK && hypura_history_shows(&read) && !chat->run->server && !chat->run->model.projector) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "%s shows pictures or sound, and the model has no projector", name);
    }
    if (status == HYPURA_OK) {
        status = begin_anew(chat, read.messages, error);
    }
    if (status == HYPURA_OK) {
        hypura_output_note("(%zu messages)", json_array_size(chat->run->kept.messages));
    }
    hypura_history_close(&read);
    return status;
}

/* ---- the others ----------------------------------------------------------------------- */

static hypura_status take_clear(hypura_chat *chat, char *rest, hypura_error *error)
{
    (void)rest;
    (void)error;
    forget(chat);
    hypura_history_clear(&chat->run->kept);
    chat->run->generate.n_history = 0;
    hypura_output_note("(a new conversation)");
    return HYPURA_OK;
}

static hypura_status take_bye(hypura_chat *chat, char *rest, hypura_error *error)
{
    (void)rest;
    (void)error;
    chat->ended = true;
    return HYPURA_OK;
}

static hypura_status take_help(hypura_chat *chat, char *rest, hypura_error *error);

/* The longest that fits comes first. */
static const struct {
    const char *name;
    const char *argument;
    const char *help; /* NULL: another name of the one before */
    hypura_status (*take)(hypura_chat *chat, char *rest, hypura_error *error);
} commands[] = {
    {"/set system", "TEXT", "what the model is told before the conversation", take_system},
    {"/set parameter", "NAME VALUE", "of the sampling, as Ollama calls it", take_parameter},
    {"/set think", "[LEVEL]", "on, off, low, medium, high", take_think},
    {"/set nothink", "", NULL, take_nothink},
    {"/set format", "json", "answers are JSON; /set noformat: text", take_format},
    {"/set noformat", "", NULL, take_noformat},
    {"/show", "[WHAT]", "what is set: info, system, parameters", take_show},
    {"/save", "NAME", "a model of this one, what is set and what was said; FILE.json: what was said", take_save},
    {"/load", "FILE.json", "goes on with what was said there", take_load},
    {"/clear", "", "begins a new conversation", take_clear},
    {"/bye", "", NULL, take_bye}, /* told below */
    {"/exit", "", NULL, take_bye},
    {"/quit", "", NULL, take_bye},
    {"/?", "", "this", take_help},
    {"/help", "", NULL, take_help},
};

static hypura_status take_help(hypura_chat *chat, char *rest, hypura_error *error)
{
    (void)chat;
    (void)rest;
    (void)error;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (commands[i].help) {
            hypura_output_note("  %-14s %-11s  %s", commands[i].name, commands[i].argument, commands[i].help);
        }
    }
    hypura_output_note("  /bye or Ctrl-D ends the program, Ctrl-C an answer; \"\"\" begins and ends a message of several lines");
    return HYPURA_OK;
}

bool hypura_chat_command(hypura_chat *chat, const char *line)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const size_t bytes = strlen(commands[i].name);
        const char end = strncmp(line, commands[i].name, bytes) == 0 ? line[bytes] : 'x';
        if (end != '\0' && !strchr(" \t\n", end)) {
            continue;
        }
        hypura_error error;
        hypura_error_clear(&error);
        char *rest = strdup(line + bytes);
        const hypura_status status = rest ? commands[i].take(chat, rest, &error)
                                          : hypura_fail(&error, HYPURA_ERR_MEMORY, "no memory for a command");
        if (status != HYPURA_OK) {
            hypura_output_error("%s", error.message);
        }
        free(rest);
        return true;
    }
    return hypura_message_refuse(line);
}
