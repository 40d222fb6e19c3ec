/*
 * answer.c - see answer.h.
 */
#include "engine/answer/answer.h"

#include "base/clock.h"
#include "base/status.h"

#include <string.h>

static hypura_status no_memory(const hypura_answer *a, hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for an answer of %zu bytes", a->raw.whole.bytes + a->text.whole.bytes);
}

/* The parser may take back what it made of an unfinished form; what was passed on stays. */
static bool replace(hypura_buffer *buffer, size_t passed, const char *data, size_t bytes)
{
    if (bytes < passed) {
        return true;
    }
    buffer->bytes = 0;
    return hypura_buffer_add(buffer, data, bytes);
}

/* Space around a thought is of the form, and so are empty lines behind it. What is its end so far may be. */
static const char spaces[] = " \t\r\n";

static size_t without_end(const hypura_buffer *thought)
{
    size_t bytes = thought->bytes;
    while (bytes > 0 && strchr(spaces, thought->data[bytes - 1])) {
        bytes--;
    }
    return bytes;
}

/* Takes apart what was said so far. */
static hypura_status read_reply(hypura_answer *a, bool whole, hypura_error *error)
{
    hypura_shim_parts parts;
    if (!hypura_shim_reply_read(a->reply, hypura_buffer_text(&a->raw.whole), a->raw.whole.bytes, whole, &parts)) {
        return no_memory(a, error);
    }
    const size_t before = strspn(parts.thought, spaces);
    const size_t lines = parts.thought_bytes > 0 ? strspn(parts.text, "\r\n") : 0;
    const bool read = replace(&a->thought, a->thought_passed, parts.thought + before, parts.thought_bytes - before) &&
                      replace(&a->text.whole, a->text_passed, parts.text + lines, parts.text_bytes - lines);
    return read ? HYPURA_OK : no_memory(a, error);
}

/* to: so much, from the beginning. */
static void pass(hypura_answer *a, hypura_text_fn take, const hypura_buffer *buffer, size_t to, size_t *passed)
{
    const size_t from = *passed;
    if (to <= from || a->stopped) {
        return;
    }
    *passed = to;
    if (take) {
        const uint64_t begin_us = hypura_clock_us();
        a->stopped = !take(a->options->on_text_user, buffer->data + from, to - from);
        a->passed_us += hypura_clock_us() - begin_us;
    }
}

bool hypura_answer_shows(const hypura_answer *a, llama_token token)
{
    return a->reply && hypura_shim_reply_shows(a->reply, token);
}

hypura_status hypura_answer_add(hypura_answer *a, const char *piece, size_t n, hypura_error *error)
{
    if (!hypura_text_put(a->reply ? &a->raw : &a->text, piece, n)) {
        return no_memory(a, error);
    }
    const hypura_status status = a->reply ? read_reply(a, false, error) : HYPURA_OK;
    if (status != HYPURA_OK) {
        return status;
    }
    pass(a, a->options->on_thought, &a->thought, without_end(&a->thought), &a->thought_passed);
    const size_t before = hypura_text_before(&a->text, a->text_passed, a->options->stop, a->options->n_stop, &a->ended);
    pass(a, a->options->on_text, &a->text.whole, before, &a->text_passed);
    if (a->ended) {
        hypura_text_cut(&a->text, before);
    }
    return HYPURA_OK;
}

hypura_status hypura_answer_end(hypura_answer *a, hypura_error *error)
{
    if (!a->reply) {
        return hypura_text_finish(&a->text) ? HYPURA_OK : no_memory(a, error);
    }
    hypura_status status = HYPURA_OK;
    if (!a->ended) {
        status = hypura_text_finish(&a->raw) ? read_reply(a, true, error) : no_memory(a, error);
    }
    a->thought.bytes = without_end(&a->thought);
    const bool strings = hypura_text_finish(&a->text) && hypura_buffer_add(&a->thought, NULL, 0);
    return status == HYPURA_OK && !strings ? no_memory(a, error) : status;
}

void hypura_answer_pass(hypura_answer *a)
{
    pass(a, a->options->on_thought, &a->thought, a->thought.bytes, &a->thought_passed);
    pass(a, a->options->on_text, &a->text.whole, a->text.whole.bytes, &a->text_passed);
}

void hypura_answer_close(hypura_answer *a)
{
    hypura_buffer_clear(&a->raw.whole);
}
