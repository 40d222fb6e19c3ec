/*
 * message.c - see message.h.
 */
#include "cli/message.h"

#include "base/status.h"
#include "cli/output.h"

#include <stdio.h>
#include <string.h>

#define QUOTES "\"\"\""

enum { QUOTES_BYTES = sizeof QUOTES - 1 };

/* Bytes of a line that a terminal hands over; what follows on it is lost, without a word. */
#ifdef __APPLE__
enum { TERMINAL_LINE_BYTES = 1023 };
#else
enum { TERMINAL_LINE_BYTES = 4095 };
#endif

static void print_prompt(const hypura_environment *environment, const char *prompt)
{
    if (environment->terminal_in && environment->terminal_error) {
        fprintf(stderr, environment->color ? "\033[1m%s\033[0m " : "%s ", prompt);
        fflush(stderr);
    }
}

static bool is_cut(const hypura_environment *environment, const char *line)
{
    const bool cut = environment->terminal_in && strlen(line) == TERMINAL_LINE_BYTES;
    if (cut) {
        hypura_output_error("the line is longer than the %d bytes that a terminal hands over, and was cut: not sent "
                            "(--prompt-file FILE takes more, and so does a pipe with --interactive)",
                            TERMINAL_LINE_BYTES);
    }
    return cut;
}

/* Adds a line of a message in quotes, the first without them. True when it ends the message. */
static hypura_status add_line(hypura_buffer *text, const char *line, bool *ended, hypura_error *error)
{
    size_t bytes = strlen(line);
    while (bytes > 0 && strchr(" \t\r", line[bytes - 1])) {
        bytes--;
    }
    *ended = bytes >= QUOTES_BYTES && memcmp(line + bytes - QUOTES_BYTES, QUOTES, QUOTES_BYTES) == 0;
    bytes = *ended ? bytes - QUOTES_BYTES : strlen(line);
    const bool added = hypura_buffer_add(text, line, bytes) && (*ended || hypura_buffer_add(text, "\n", 1));
    return added ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a message of %zu bytes", text->bytes);
}

/* Behind the quotes that begin a text of several lines; NULL: it is none. *command: what it is for, "": the model. */
static const char *opened(const char *line, const char **command)
{
    static const char *const commands[] = {"", "/set system "};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const size_t bytes = strlen(commands[i]);
        if (strncmp(line, commands[i], bytes) == 0 && strncmp(line + bytes, QUOTES, QUOTES_BYTES) == 0) {
            *command = commands[i];
            return line + bytes + QUOTES_BYTES;
        }
    }
    return NULL;
}

hypura_line_event hypura_messages_next(hypura_messages *messages, const char **message, hypura_error *error)
{
    const hypura_environment *environment = messages->environment;
    bool inside = false;
    const char *command = "";
    messages->quoted = false;
    for (;;) {
        const char *line = NULL;
        bool ended = false;
        print_prompt(environment, inside ? "..." : ">");
        const hypura_line_event event = hypura_lines_next(&messages->lines, &line, error);
        if (event != HYPURA_LINE) {
            if (event == HYPURA_LINE_END && inside) {
                hypura_output_error("the message has no " QUOTES " at its end: not sent");
            }
            return event;
        }
        if (is_cut(environment, line)) {
            inside = false;
            continue;
        }
        const char *after = !inside && environment->terminal_in ? opened(line, &command) : NULL;
        const bool begins = after != NULL;
        if (begins) {
            hypura_buffer_clear(&messages->text);
            inside = true;
            line = after;
            if (!hypura_buffer_add(&messages->text, command, strlen(command))) {
                (void)hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for a message");
                return HYPURA_LINE_FAILED;
            }
        }
        if (inside && !(begins && line[0] == '\0') &&
            add_line(&messages->text, line, &ended, error) != HYPURA_OK) {
            return HYPURA_LINE_FAILED;
        }
        if (ended || !inside) {
            messages->quoted = inside && command[0] == '\0';
            inside = false;
            *message = ended ? hypura_buffer_text(&messages->text) : line;
            if ((*message)[strspn(*message, " \t\r\n")] != '\0') {
                return HYPURA_LINE;
            }
        }
    }
}

/* Commands of other programs, and what there is. */
static const struct {
    const char *name;
    const char *hint;
} foreign[] = {
    {"/set", "options of the command line are of the whole conversation, but for system, parameter, think, nothink, format and "
             "noformat"},
    {"/read", "--prompt-file FILE takes a file"},
    {"/image", "a path in the message, such as ./picture.png, is shown"},
    {"/audio", "a path in the message, such as ./sound.wav, is shown"},
};

bool hypura_message_refuse(const char *line)
{
    const size_t bytes = 1 + strspn(line + (line[0] == '/'), "abcdefghijklmnopqrstuvwxyz");
    if (line[0] != '/' || bytes == 1 || (line[bytes] != '\0' && line[bytes] != ' ')) {
        return false;
    }
    const char *hint = "/? tells those there are";
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if (strlen(foreign[i].name) == bytes && memcmp(foreign[i].name, line, bytes) == 0) {
            hint = foreign[i].hint;
        }
    }
    hypura_output_error("there is no command %.*s: %s (with a space before it, it is sent to the model)", (int)bytes,
                        line, hint);
    return true;
}

void hypura_messages_close(hypura_messages *messages)
{
    hypura_lines_close(&messages->lines);
    hypura_buffer_clear(&messages->text);
}
