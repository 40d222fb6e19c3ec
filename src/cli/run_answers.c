/*
 * run_answers.c - see run_answers.h.
 *
 * The text goes to standard output exactly as the model produced it, each answer
 * followed by one newline.
 */
#include "cli/run_answers.h"

#include "base/status.h"
#include "cli/chat.h"
#include "cli/interrupt.h"
#include "cli/message.h"
#include "cli/output.h"
#include "cli/progress.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one answer -------------------------------------------------------------- */

typedef struct answer {
    bool any_text;
    bool hides_thoughts;
    bool thinks;
    hypura_progress progress; /* of the prompt, until the first text */
} answer;

static void end_thoughts(answer *to)
{
    if (to->thinks) {
        hypura_output_note("%s(it has thought)", to->hides_thoughts ? "" : "\n");
        to->thinks = false;
    }
}

static bool print_thought(void *user, const char *text, size_t text_bytes)
{
    answer *to = user;
    hypura_progress_close(&to->progress);
    if (!to->thinks) {
        hypura_output_note("(it thinks)");
        to->thinks = true;
    }
    if (!to->hides_thoughts) {
        hypura_output_aside(text, text_bytes);
    }
    return !hypura_interrupted();
}

static bool print_text(void *user, const char *text, size_t text_bytes)
{
    answer *to = user;
    hypura_progress_close(&to->progress);
    end_thoughts(to);
    to->any_text = to->any_text || text_bytes > 0;
    return hypura_output_write(text, text_bytes) && hypura_output_flush() && !hypura_interrupted();
}

/* Generates, prints and counts one answer; of the model, or where that is NULL of the server. */
static hypura_status answer_prompt(hypura_model *model, hypura_run_arguments *run, hypura_generate_options generate,
                                   hypura_run_totals *totals, hypura_error *error)
{
    answer to = {.hides_thoughts = run->hides_thoughts};
    hypura_result result = {.text = NULL};
    generate.on_text = print_text;
    generate.on_thought = print_thought;
    generate.on_text_user = &to;
    generate.progress = hypura_progress_update;
    generate.progress_user = &to.progress;
    hypura_progress_open(&to.progress, run->environment);
    hypura_status status = model ? hypura_generate(model, &generate, &result, error)
                                 : hypura_client_generate(run->client, &generate, &result, error);
    hypura_progress_close(&to.progress);
    end_thoughts(&to);
    if (status == HYPURA_OK || to.any_text) {
        hypura_output_write("\n", 1);
        hypura_output_flush();
    }
    if (status == HYPURA_OK) {
        status = hypura_run_totals_add(totals, &result, error);
    }
    const bool is_kept = (run->history || run->interactive) && !generate.raw;
    if (status == HYPURA_OK && is_kept && (!result.stopped_by_user || result.text[0] != '\0')) {
        status = hypura_history_add(&run->kept, &generate, &result, error);
    }
    if (status == HYPURA_OK && result.context_full) {
        hypura_output_note("the context is full: the answer ends here (--context N makes it larger)");
    }
    hypura_result_clear(&result);
    return status;
}

/* To somebody who thinks that it was read, as `ollama run` does: a loop over lines of a file would lose those. */
static void note_unread(const hypura_run_arguments *run)
{
    struct stat input;
    struct pollfd readable = {.fd = STDIN_FILENO, .events = POLLIN};
    if (run->environment->terminal_error && !run->from_input && !run->before && fstat(STDIN_FILENO, &input) == 0 &&
        S_ISFIFO(input.st_mode) && poll(&readable, 1, 0) == 1 && (readable.revents & POLLIN)) {
        hypura_output_note("(standard input was not read: --prompt-file - puts it before the prompt)");
    }
}

static hypura_status answer_once(hypura_model *model, hypura_run_arguments *run, hypura_run_totals *totals,
                                 hypura_error *error)
{
    hypura_status status = answer_prompt(model, run, run->generate, totals, error);
    if (status == HYPURA_OK && hypura_interrupted()) {
        status = hypura_fail(error, HYPURA_ERR_CANCELLED, "interrupted");
    }
    note_unread(run);
    return status;
}

/* ---- a conversation ---------------------------------------------------------- */

/* Answers one line, the first one with what options show. Ctrl-C and a line that cannot be answered as it stands, one
 * that is too long perhaps, end the answer alone. */
static hypura_status answer_line(hypura_model *model, hypura_run_arguments *run, const char *line, bool *first,
                                 hypura_run_totals *totals, hypura_error *error)
{
    hypura_generate_options generate = run->generate;
    hypura_shown_files own = {.media = NULL};
    hypura_shown_files *shown = *first ? &run->shown : &own;
    const int n_given = shown->n;
    char *rest = NULL;
    generate.prompt = line;
    generate.n_history = run->kept.n_said; /* 0 once a new conversation began */
    generate.media = shown->media;
    generate.n_media = shown->n;
    hypura_status status = hypura_run_take_shown(run, &generate, shown, &rest, error);
    if (status == HYPURA_OK) {
        status = answer_prompt(model, run, generate, totals, error);
        *first = *first && status != HYPURA_OK;
    }
    hypura_shown_cut(shown, *first ? n_given : 0);
    hypura_shown_clear(&own);
    free(rest);
    if (status == HYPURA_ERR_UNSUPPORTED && run->chose_thinking) {
        run->generate.thinking = HYPURA_THINKING_AUTO;
        status = HYPURA_ERR_USAGE;
    }
    if (status == HYPURA_ERR_USAGE) {
        hypura_output_error("%s", error->message);
        status = HYPURA_OK;
    }
    if (status == HYPURA_ERR_CANCELLED && !hypura_terminated()) {
        status = HYPURA_OK;
    }
    hypura_interrupt_clear();
    return status;
}

static hypura_status converse(hypura_model *model, hypura_run_arguments *run, hypura_run_totals *totals,
                              hypura_error *error)
{
    const hypura_environment *environment = run->environment;
    hypura_messages messages = {.environment = environment};
    hypura_chat chat = {.model = model, .run = run};
    hypura_status status = HYPURA_OK;
    bool warned = false; /* Ctrl-C came at this prompt already */
    bool ended = false;
    bool first = true;
    run->kept.system = run->generate.system;
    while (!ended && !chat.ended && status == HYPURA_OK && hypura_output_errno() == 0) {
        const char *message = NULL;
        switch (hypura_messages_next(&messages, &message, error)) {
        case HYPURA_LINE:
            warned = false;
            if (messages.quoted || !(environment->terminal_in && hypura_chat_command(&chat, message))) {
                status = answer_line(model, run, message, &first, totals, error);
            }
            break;
        case HYPURA_LINE_END:
            if (environment->terminal_in && environment->terminal_error) {
                fputc('\n', stderr);
            }
            ended = true;
            break;
        case HYPURA_LINE_INTERRUPTED:
            ended = warned || hypura_terminated();
            fputc('\n', stderr);
            if (!ended) {
                hypura_output_note("(Ctrl-C again or Ctrl-D to leave)");
            }
            warned = true;
            hypura_interrupt_clear();
            break;
        case HYPURA_LINE_FAILED:
            status = error->status;
            break;
        }
        if (status == HYPURA_OK && hypura_terminated()) {
            status = hypura_fail(error, HYPURA_ERR_CANCELLED, "terminated");
        }
    }
    hypura_messages_close(&messages);
    return status;
}

hypura_status hypura_run_answer(hypura_model *model, hypura_run_arguments *run, hypura_run_totals *totals,
                                hypura_error *error)
{
    return run->interactive ? converse(model, run, totals, error) : answer_once(model, run, totals, error);
}
