/*
 * ask.c - see engine.h: what an engine is asked that serves nothing, in a process of its own. What others sent us,
 * a file or a template, may make it fail or never end.
 */
#include "server/process/engine.h"

#include "base/status.h"
#include "server/process/program.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_US (UINT64_C(10) * 1000 * 1000)

static bool read_gpus(const json_t *told, engine_estimate *estimate)
{
    size_t i;
    json_t *one;
    json_array_foreach(told, i, one)
    {
        engine_gpu *gpu = &estimate->gpus[estimate->n_gpus];
        const char *name;
        json_int_t bytes;
        json_int_t floor;
        json_int_t free_bytes;
        if (estimate->n_gpus == HYPURA_MAX_GPUS ||
            json_unpack(one, "{s:s, s:I, s:I, s:I}", "name", &name, "bytes", &bytes, "floor_bytes", &floor, "free_bytes",
                        &free_bytes) != 0) {
            return false;
        }
        *gpu = (engine_gpu){
            .bytes = (uint64_t)bytes, .floor_bytes = (uint64_t)floor, .free_bytes = (uint64_t)free_bytes};
        snprintf(gpu->name, sizeof(gpu->name), "%s", name);
        estimate->n_gpus++;
    }
    return true;
}

hypura_status engine_estimate_get(const engine_options *options, engine_estimate *estimate, hypura_error *error)
{
    engine_words line;
    engine_answer answer;
    engine_words_common(options, &line);
    line.items[line.n++] = "--estimate";
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    hypura_status status = engine_ask(&line, null, -1, 0, &answer, error);
    close(null);
    if (status != HYPURA_OK) {
        return status;
    }
    json_t *told = json_loads(answer.message, 0, NULL);
    json_int_t memory;
    json_int_t floor;
    json_t *gpus;
    int n_parallel;
    int alone = 0;
    int code;
    const char *reason;
    *estimate = (engine_estimate){.n_gpus = 0};
    if (answer.wait_status == 0 &&
        json_unpack(told, "{s:I, s:I, s:i, s:b, s:o, s:s}", "memory_bytes", &memory, "floor_memory_bytes", &floor, "n_sequences",
                    &n_parallel, "computes_alone", &alone, "gpus", &gpus, "draft_unfit", &reason) == 0 &&
        read_gpus(gpus, estimate)) {
        estimate->memory_bytes = (uint64_t)memory;
        estimate->floor_bytes = (uint64_t)floor;
        estimate->n_parallel = (uint32_t)n_parallel;
        estimate->computes_alone = alone != 0;
        snprintf(estimate->draft_unfit, sizeof(estimate->draft_unfit), "%s", reason);
    } else if (json_unpack(told, "{s:i, s:s}", "status", &code, "message", &reason) == 0) {
        status = hypura_fail(error, (hypura_status)code, "%s", reason);
    } else {
        status = hypura_fail(error, HYPURA_ERR_BACKEND, "%s cannot be looked at: its engine says: %s", options->name,
                             answer.message);
    }
    json_decref(told);
    return status;
}

/* An open file with that text, to be closed; NULL where there is no room for one. */
static FILE *file_of(const char *text)
{
    FILE *file = tmpfile();
    if (file && (fcntl(fileno(file), F_SETFD, FD_CLOEXEC) != 0 || fputs(text, file) < 0 || fflush(file) != 0 ||
                 lseek(fileno(file), 0, SEEK_SET) != 0)) {
        const int code = errno;
        fclose(file);
        errno = code;
        file = NULL;
    }
    return file;
}

/* Why llama.cpp does not take it, which it prints and does not tell its caller. False: it printed nothing of the kind. */
static bool find_reason(FILE *printed, char *reason, size_t capacity)
{
    static const char *const marks[] = {"common_chat_templates_init: error: ", "parse: error parsing grammar: "};
    char line[512];
    rewind(printed);
    while (fgets(line, sizeof line, printed)) {
        for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
            const char *words = strstr(line, marks[i]);
            if (words) {
                words += strlen(marks[i]);
                snprintf(reason, capacity, "%.*s", (int)strcspn(words, "\n"), words);
                return true;
            }
        }
    }
    return false;
}

/* What the process says of it. */
static hypura_status read_verdict(const char *what, const engine_answer *answer, FILE *printed, hypura_error *error)
{
    char words[384];
    int code;
    const char *reason;
    hypura_status status;
    json_t *told = json_loads(answer->message, 0, NULL);
    if (answer->late) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the %s does not come to an end", what);
    } else if (json_unpack(told, "{s:i, s:s}", "status", &code, "message", &reason) == 0) {
        status = code == HYPURA_OK ? HYPURA_OK
                 : code == HYPURA_ERR_USAGE && find_reason(printed, words, sizeof words)
                     ? hypura_fail(error, HYPURA_ERR_USAGE, "%s (%s)", reason, words)
                     : hypura_fail(error, (hypura_status)code, "%s", reason);
    } else if (WIFSIGNALED(answer->wait_status)) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the %s cannot be used: its reader was ended by signal %d", what,
                             WTERMSIG(answer->wait_status));
    } else {
        status = hypura_fail(error, HYPURA_ERR_BACKEND, "the %s cannot be looked at: %s", what, answer->message);
    }
    json_decref(told);
    return status;
}

static hypura_status check(const char *program, const char *option, const char *what, const char *text, hypura_error *error)
{
    engine_words line = {.n = 2, .items = {program, option}};
    engine_answer answer;
    hypura_status status = HYPURA_OK;
    FILE *file = file_of(text);
    FILE *printed = file_of("");
    if (!file || !printed) {
        status = hypura_fail_errno(error, errno, "no file for a %s", what);
    }
    if (status == HYPURA_OK) {
        status = engine_ask(&line, fileno(file), fileno(printed), CHECK_US, &answer, error);
    }
    if (status == HYPURA_OK) {
        status = read_verdict(what, &answer, printed, error);
    }
    if (file) {
        fclose(file);
    }
    if (printed) {
        fclose(printed);
    }
    return status;
}

hypura_status engine_check_template(const char *program, const char *text, hypura_error *error)
{
    return check(program, "--check-template", "template", text, error);
}

hypura_status engine_check_grammar(const char *program, const json_t *told, hypura_error *error)
{
    char *text = json_dumps(told, JSON_COMPACT);
    const hypura_status status = text ? check(program, "--check-grammar", "grammar", text, error)
                                      : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a grammar");
    free(text);
    if (status == HYPURA_ERR_USAGE && strstr(error->message, "no vocab to parse token")) {
        hypura_error_clear(error);
        return HYPURA_OK;
    }
    return status;
}
