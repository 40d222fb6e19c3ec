/*
 * shim.cpp - see shim.h. The only C++ of the worker.
 */
#include "worker/shim.h"

#include "engine/llama/end.h"
#include "engine/llama/llama_log.h"
#include "engine/llama/pulse.h"

#include "llama.h"
#include "mtmd.h"

#include <atomic>
#include <cstdio>
#include <dlfcn.h>
#include <exception>

/* Of llama.cpp's target llama-server-impl, which installs no header for it. */
int llama_server(int argc, char **argv);

int hypura_shim_server(int argc, char **argv)
{
    try {
        return llama_server(argc, argv);
    } catch (const std::exception &e) {
        std::fprintf(stderr, "hypura-engine: %s\n", e.what());
        return 1;
    }
}

/* ---- libllama's own functions, watched ---------------------------------------------- */

namespace
{

void (*silence)(const char *reason) = nullptr;
std::atomic<uint64_t> sampler_turns{0};
thread_local int sampler_depth = 0; /* a chain of samplers calls them one by one */

struct sampling {
    sampling() { sampler_turns += sampler_depth++ == 0; }
    ~sampling() { sampler_turns += --sampler_depth == 0; }
};

template <typename Function> Function *next(const char *name)
{
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

void wait_for(llama_context *ctx)
{
    static const auto real = next<decltype(llama_synchronize)>("llama_synchronize");
    const hypura_pulse_call now("for tokens to be computed", silence != nullptr);
    if (!silence) {
        real(ctx);
        return;
    }
    try {
        real(ctx);
    } catch (const std::exception &e) {
        silence(e.what());
    }
}

void end_with_memory()
{
    hypura_error error = {};
    (void)hypura_log_fail(&error, HYPURA_ERR_BACKEND,
                          "what a conversation holds could not be moved, and no answer behind that would be right");
    hypura_end_now(&error);
}

} // namespace

void hypura_shim_watch(void (*on_silence)(const char *reason))
{
    silence = on_silence;
}

uint64_t hypura_shim_sampler_turns(void)
{
    return sampler_turns;
}

extern "C" __attribute__((visibility("default"))) void llama_sampler_apply(llama_sampler *sampler,
                                                                         llama_token_data_array *candidates)
{
    static const auto real = next<decltype(llama_sampler_apply)>("llama_sampler_apply");
    const sampling now;
    real(sampler, candidates);
}

extern "C" __attribute__((visibility("default"))) llama_sampler *llama_sampler_init_grammar(const llama_vocab *vocab,
                                                                                          const char *grammar,
                                                                                          const char *root)
{
    static const auto real = next<decltype(llama_sampler_init_grammar)>("llama_sampler_init_grammar");
    const sampling now;
    return real(vocab, grammar, root);
}

extern "C" __attribute__((visibility("default"))) llama_sampler *
llama_sampler_init_grammar_lazy_patterns(const llama_vocab *vocab, const char *grammar, const char *root,
                                         const char **patterns, size_t n_patterns, const llama_token *tokens, size_t n_tokens)
{
    static const auto real =
        next<decltype(llama_sampler_init_grammar_lazy_patterns)>("llama_sampler_init_grammar_lazy_patterns");
    const sampling now;
    return real(vocab, grammar, root, patterns, n_patterns, tokens, n_tokens);
}

extern "C" __attribute__((visibility("default"))) void llama_sampler_accept(llama_sampler *sampler, llama_token token)
{
    static const auto real = next<decltype(llama_sampler_accept)>("llama_sampler_accept");
    const sampling now;
    real(sampler, token);
}

extern "C" __attribute__((visibility("default"))) void llama_synchronize(llama_context *ctx)
{
    wait_for(ctx);
}

extern "C" __attribute__((visibility("default"))) int32_t llama_process(llama_context *ctx, llama_process_type type,
                                                                      llama_batch_ext *batch)
{
    static const auto next_one = next<decltype(llama_process)>("llama_process");
    const auto        real = [](llama_context *c, llama_process_type t, llama_batch_ext *b) {
        hypura_log_clear();
        const int32_t code = next_one(c, t, b);
        if (hypura_log_memory_failed()) {
            end_with_memory();
        }
        return code;
    };
    if (!silence) {
        return real(ctx, type, batch);
    }
    const hypura_pulse_call now("for tokens to be computed", silence != nullptr);
    try {
        const int32_t code = real(ctx, type, batch);
        if (code < -1) {
            wait_for(ctx); /* what failed otherwise is answered as it is */
        }
        return code;
    } catch (const std::exception &) {
        wait_for(ctx);
        throw;
    }
}

extern "C" __attribute__((visibility("default"))) llama_context *llama_init_from_model(llama_model *model,
                                                                                     llama_context_params params)
{
    static const auto real = next<decltype(llama_init_from_model)>("llama_init_from_model");
    const hypura_pulse_call now("for a context", silence != nullptr);
    return real(model, params);
}

extern "C" __attribute__((visibility("default"))) size_t llama_state_seq_get_data_ext(llama_context *ctx, uint8_t *to,
                                                                                    size_t bytes, llama_seq_id sequence,
                                                                                    llama_state_seq_flags flags)
{
    static const auto real = next<decltype(llama_state_seq_get_data_ext)>("llama_state_seq_get_data_ext");
    const hypura_pulse_call now("for the state of a conversation", silence != nullptr);
    return real(ctx, to, bytes, sequence, flags);
}

extern "C" __attribute__((visibility("default"))) size_t llama_state_seq_set_data_ext(llama_context *ctx,
                                                                                    const uint8_t *from, size_t bytes,
                                                                                    llama_seq_id sequence,
                                                                                    llama_state_seq_flags flags)
{
    static const auto real = next<decltype(llama_state_seq_set_data_ext)>("llama_state_seq_set_data_ext");
    const hypura_pulse_call now("for the state of a conversation", silence != nullptr);
    return real(ctx, from, bytes, sequence, flags);
}

extern "C" __attribute__((visibility("default"))) int32_t mtmd_encode_chunk(mtmd_context *media,
                                                                          const mtmd_input_chunk *chunk)
{
    static const auto real = next<decltype(mtmd_encode_chunk)>("mtmd_encode_chunk");
    const hypura_pulse_call now("for a picture or sound to be encoded", silence != nullptr);
    return real(media, chunk);
}

extern "C" __attribute__((visibility("default"))) int32_t mtmd_batch_encode(mtmd_batch *batch)
{
    static const auto real = next<decltype(mtmd_batch_encode)>("mtmd_batch_encode");
    const hypura_pulse_call now("for a picture or sound to be encoded", silence != nullptr);
    return real(batch);
}
