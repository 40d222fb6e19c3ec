/*
 * chat_shim.cpp - see chat_shim.h.
 */
#include "engine/llama/chat_shim.h"

#include "chat.h"
#include "common.h"

#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <set>
#include <string>

struct hypura_shim_chat {
    common_chat_templates_ptr templates;
    const llama_vocab *vocab; /* nullptr: no model */
};

struct hypura_shim_reply {
    common_chat_parser_params params;
    std::set<llama_token> shown;
    common_chat_msg said;
};

namespace
{

void fill(char *error, size_t error_bytes, const char *text)
{
    std::snprintf(error, error_bytes, "%s", text);
}

/* Why no template can be made of it: llama.cpp throws that on as std::exception, which says nothing. */
const char *why_no_template(const std::exception &e)
{
    return std::string(e.what()) == "std::exception"
               ? "it is no Jinja: is a {% for %}, {% if %} or {{ not closed, or a word between them unknown?"
               : e.what();
}

hypura_shim_reply *open_reply(const hypura_shim_chat *chat, const common_chat_params &rendered)
{
    if (!rendered.supports_thinking) {
        return nullptr;
    }
    auto *reply = new hypura_shim_reply{common_chat_parser_params(rendered), {}, {}};
    reply->params.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    reply->params.parse_tool_calls = false; /* none was offered */
    if (!rendered.parser.empty()) {
        reply->params.parser.load(rendered.parser);
    }
    for (const std::string &text : rendered.preserved_tokens) {
        const auto ids = chat->vocab ? common_tokenize(chat->vocab, text, false, true) : std::vector<llama_token>();
        if (ids.size() == 1) {
            reply->shown.insert(ids[0]);
        }
    }
    return reply;
}

} // namespace

hypura_shim_chat *hypura_shim_chat_open(const struct llama_model *model, const char *text, char *error,
                                        size_t error_bytes)
{
    fill(error, error_bytes, "");
    try {
        common_chat_templates_ptr templates = common_chat_templates_init(model, text ? text : "");
        if (!common_chat_templates_was_explicit(templates.get())) {
            return nullptr;
        }
        return new hypura_shim_chat{std::move(templates), model ? llama_model_get_vocab(model) : nullptr};
    } catch (const std::exception &e) {
        fill(error, error_bytes, why_no_template(e));
        return nullptr;
    }
}

void hypura_shim_chat_close(hypura_shim_chat *chat)
{
    delete chat;
}

char *hypura_shim_chat_apply(const hypura_shim_chat *chat, const hypura_shim_message *messages, size_t n, bool think,
                             const char *effort, hypura_shim_reply **reply, char *error, size_t error_bytes)
{
    fill(error, error_bytes, "");
    if (reply) {
        *reply = nullptr;
    }
    try {
        common_chat_templates_inputs inputs;
        for (size_t i = 0; i < n; i++) {
            common_chat_msg message;
            message.role = messages[i].role;
            message.content = messages[i].text;
            message.reasoning_content = messages[i].thought ? messages[i].thought : "";
            inputs.messages.push_back(std::move(message));
        }
        inputs.add_generation_prompt = true;
        inputs.use_jinja = true;
        inputs.enable_thinking = think;
        inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
        if (effort) {
            inputs.chat_template_kwargs["reasoning_effort"] = '"' + std::string(effort) + '"';
        }
        const common_chat_params rendered = common_chat_templates_apply(chat->templates.get(), inputs);
        if (reply) {
            *reply = open_reply(chat, rendered);
        }
        char *copy = strdup(rendered.prompt.c_str());
        if (!copy) {
            fill(error, error_bytes, "out of memory");
        }
        return copy;
    } catch (const std::exception &e) {
        fill(error, error_bytes, e.what());
        return nullptr;
    }
}

bool hypura_shim_reply_shows(const hypura_shim_reply *reply, llama_token token)
{
    return reply->shown.count(token) > 0;
}

bool hypura_shim_reply_read(hypura_shim_reply *reply, const char *answer, size_t bytes, bool whole, hypura_shim_parts *parts)
{
    try {
        const std::string text(answer, bytes);
        common_chat_msg read;
        bool understood = false;
        for (int partial = whole ? 0 : 1; partial < 2 && !understood; partial++) {
            try {
                read = common_chat_parse(text, partial == 1, reply->params);
                understood = !read.content.empty() || !read.reasoning_content.empty();
            } catch (const std::bad_alloc &) {
                throw;
            } catch (const std::exception &) {
                continue; /* an answer that ends in the middle of its form is no whole one */
            }
        }
        if (understood) {
            reply->said = std::move(read);
        } else if (whole && reply->said.content.empty() && reply->said.reasoning_content.empty()) {
            reply->said.content = text;
        }
    } catch (const std::exception &) {
        return false;
    }
    parts->thought = reply->said.reasoning_content.data();
    parts->thought_bytes = reply->said.reasoning_content.size();
    parts->text = reply->said.content.data();
    parts->text_bytes = reply->said.content.size();
    return true;
}

void hypura_shim_reply_close(hypura_shim_reply *reply)
{
    delete reply;
}
