/*
 * llama_shim.cpp - see llama_shim.h. That of the engine that is no area of its own.
 */
#include "engine/llama/llama_shim.h"

#include "engine/llama/llama_log.h"
#include "engine/llama/pulse.h"

#include "common.h"
#include "ggml-impl.h"
#include "json-schema-to-grammar.h"
#include "llama-adapter.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory.h"
#include "llama-model.h"
#include "log.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <typeinfo>

namespace
{

thread_local bool guarded = false;
thread_local char guard_message[256];
std::mutex catching_lock;
int n_catching = 0; /* loads, and decodes over a GPU, of all threads */
ggml_abort_callback_t previous_abort = nullptr;

void on_abort(const char *message)
{
    if (guarded) {
        std::snprintf(guard_message, sizeof(guard_message), "%s", message);
        throw std::runtime_error(message);
    }
    if (previous_abort) {
        previous_abort(message);
    } else {
        /* The process ends after this, and ggml would have printed the reason. */
        std::fprintf(stderr, "%s\n", message);
    }
}

/* The callback is the process's: the first to ask for it sets it, and the last puts back what was there. */
void catch_aborts(void)
{
    const std::lock_guard<std::mutex> lock(catching_lock);
    if (n_catching++ == 0) {
        previous_abort = ggml_set_abort_callback(on_abort);
    }
    guarded = true;
}

void release_aborts(void)
{
    const std::lock_guard<std::mutex> lock(catching_lock);
    if (--n_catching > 0) {
        return;
    }
    const ggml_abort_callback_t now = ggml_set_abort_callback(previous_abort);
    if (now != on_abort) {
        ggml_set_abort_callback(now); /* the program's own, set meanwhile */
    }
    previous_abort = nullptr;
}

/* ---- what ends the process ---------------------------------------------------------- */

void (*told_of_end)(const char *message) = nullptr;
std::terminate_handler previous_terminate = nullptr;

/* "FILE:LINE: CUDA error", after what it was has been logged, or as Vulkan's says it; else it is an assertion, or anything. */
bool is_refusal(std::string_view message)
{
    constexpr std::string_view tail = " error";
    return (message.size() > tail.size() && message.substr(message.size() - tail.size()) == tail) ||
           message.find("DeviceLost") != message.npos;
}

void on_refusal(const char *message)
{
    if (told_of_end && is_refusal(message)) {
        told_of_end(message);
    }
    std::fprintf(stderr, "%s\n", message); /* as ggml does */
    ggml_print_backtrace();
}

/* Also where on_abort threw and nothing may be thrown: where something is freed. */
void on_terminate()
{
    try {
        if (const std::exception_ptr thrown = std::current_exception(); thrown && told_of_end) {
            std::rethrow_exception(thrown);
        }
    } catch (const std::exception &e) {
        if (is_refusal(e.what())) {
            told_of_end(e.what());
        }
    } catch (...) { /* not a driver's */
    }
    previous_terminate();
}

void fill(char *error, size_t error_bytes, const char *text)
{
    if (error && error_bytes > 0) {
        std::snprintf(error, error_bytes, "%s", text);
    }
}

} // namespace

void hypura_shim_on_end(void (*end)(const char *message))
{
    const std::lock_guard<std::mutex> lock(catching_lock);
    const bool watched = told_of_end != nullptr;
    told_of_end = end;
    if (n_catching > 0) {
        previous_abort = end ? on_refusal : nullptr; /* set when nothing is caught any more */
    } else {
        (void)ggml_set_abort_callback(end ? on_refusal : nullptr);
    }
    if (end && !watched) {
        previous_terminate = std::set_terminate(on_terminate);
    } else if (!end && watched) {
        (void)std::set_terminate(previous_terminate);
    }
}

void hypura_shim_guard_begin(void)
{
    guard_message[0] = '\0';
    catch_aborts();
}

void hypura_shim_guard_end(void)
{
    guarded = false;
    release_aborts();
}

const char *hypura_shim_guard_message(void)
{
    return guard_message;
}

void hypura_shim_weights(const struct llama_model *model, hypura_shim_weight_fn visit, void *user)
{
    for (const auto &[name, tensor] : llama_internal_get_tensor_map(model)) {
        if (!visit(user, name.c_str(), tensor)) {
            return;
        }
    }
}

namespace
{

uint64_t sum(const llama_memory_i *memory)
{
    uint64_t bytes = 0;
    for (const auto &[buft, size] : memory->memory_breakdown()) {
        bytes += size;
    }
    return bytes;
}

/* A cast that refers to no type information of libllama: Zig's linker for macOS, with
 * which the port is checked, cannot place such references. */
template <typename Memory> const Memory *as(const llama_memory_i *memory, std::string_view mangled)
{
    return memory && typeid(*memory).name() == mangled ? static_cast<const Memory *>(memory) : nullptr;
}

/* What LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY saves of each kind of memory. */
uint64_t checkpoint_bytes(const llama_memory_i *memory)
{
    if (const auto *windows = as<llama_kv_cache_iswa>(memory, "19llama_kv_cache_iswa")) {
        return sum(windows->get_swa());
    }
    if (const auto *hybrid = as<llama_memory_hybrid>(memory, "19llama_memory_hybrid")) {
        return sum(hybrid->get_mem_recr());
    }
    if (const auto *hybrid = as<llama_memory_hybrid_iswa>(memory, "24llama_memory_hybrid_iswa")) {
        return sum(hybrid->get_mem_attn()->get_swa()) + sum(hybrid->get_mem_recr());
    }
    if (!memory || as<llama_kv_cache>(memory, "14llama_kv_cache")) {
        return 0;
    }
    return sum(memory); /* recurrent; of others it is the most that it can be */
}

} // namespace

bool hypura_shim_context_bytes(const struct llama_context *ctx, hypura_shim_bytes *bytes)
{
    *bytes = {};
    try {
        for (const auto &[buft, data] : llama_get_memory_breakdown(ctx)) {
            const bool host = ggml_backend_buft_is_host(buft);
            (host ? bytes->kv : bytes->device_kv) += data.context;
            (host ? bytes->compute : bytes->device_compute) += data.compute;
        }
        bytes->checkpoint = checkpoint_bytes(llama_get_memory(ctx));
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

bool hypura_shim_apply_adapters(struct llama_context *ctx, struct llama_adapter_lora **adapters, int n, float *scales)
{
    bool applied = false;
    hypura_shim_guard_begin();
    try {
        applied = llama_set_adapters_lora(ctx, adapters, (size_t)n, scales) == 0;
        ctx->sched_reserve();
    } catch (const std::exception &e) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s\n", e.what());
        applied = false;
    }
    hypura_shim_guard_end();
    return applied;
}

bool hypura_shim_adapters_in_order(struct llama_adapter_lora *const *adapters, int n)
{
    try {
        llama_adapter_loras kept;
        for (int i = 0; i < n; i++) {
            kept.insert({adapters[i], 1.0f});
        }
        int last = n;
        for (const auto &[adapter, scale] : kept) {
            if (adapter != adapters[--last]) {
                return false;
            }
        }
        return last == 0;
    } catch (const std::exception &) {
        return false;
    }
}

void hypura_shim_adapter_bytes(const struct llama_model *model, uint64_t *host_bytes, uint64_t *device_bytes)
{
    *host_bytes = *device_bytes = 0;
    for (const llama_adapter_lora *adapter : model->loras) {
        for (const auto &buffer : adapter->bufs) {
            const bool host = ggml_backend_buffer_is_host(buffer.get());
            *(host ? host_bytes : device_bytes) += ggml_backend_buffer_get_size(buffer.get());
        }
    }
}

namespace
{

/* CUDA's backend ends the process where others throw: when memory runs out, or its device
 * is lost. What computes on the host alone stays as it is, as its threads must not throw. */
class gpu_aborts
{
  public:
    explicit gpu_aborts(bool on_gpu) : before(guarded), catches(on_gpu)
    {
        if (catches) {
            catch_aborts();
        }
    }
    ~gpu_aborts()
    {
        guarded = before;
        if (catches) {
            release_aborts();
        }
    }
    gpu_aborts(const gpu_aborts &) = delete;
    gpu_aborts &operator=(const gpu_aborts &) = delete;

  private:
    bool before;
    bool catches;
};

bool is_on_gpu(const struct llama_context *ctx)
{
    return !llama_get_model(ctx)->devices.empty();
}

template <typename Call> int computed(struct llama_context *ctx, bool more, Call call)
{
    const hypura_pulse_call now("for tokens to be computed", is_on_gpu(ctx));
    const gpu_aborts thrown(is_on_gpu(ctx));
    try {
        int code = call();
        if (code == 0 && hypura_log_memory_failed()) {
            code = GGML_STATUS_FAILED;
        }
        if (!more || code != 0) {
            llama_synchronize(ctx);
        }
        return code;
    } catch (const std::exception &e) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s\n", e.what());
        return GGML_STATUS_FAILED;
    }
}

} // namespace

namespace
{

template <typename Call> bool reached(struct llama_context *ctx, Call call)
{
    const hypura_pulse_call now("for all that it was given to end", is_on_gpu(ctx));
    const gpu_aborts thrown(is_on_gpu(ctx));
    try {
        call();
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

} // namespace

bool hypura_shim_call(void (*call)(void *user), void *user)
{
    const gpu_aborts thrown(true);
    try {
        call(user);
        return true;
    } catch (const std::exception &e) {
        ggml_log_internal(GGML_LOG_LEVEL_ERROR, "%s\n", e.what());
        return false;
    }
}

bool hypura_shim_answers(struct llama_context *ctx)
{
    return reached(ctx, [&] { llama_synchronize(ctx); });
}

bool hypura_shim_forget(struct llama_context *ctx)
{
    return reached(ctx, [&] { llama_memory_clear(llama_get_memory(ctx), true); });
}

int hypura_shim_decode(struct llama_context *ctx, struct llama_batch batch, bool more)
{
    return computed(ctx, more, [&] { return llama_decode(ctx, batch); });
}

int hypura_shim_encode(struct llama_context *ctx, struct llama_batch batch)
{
    return computed(ctx, false, [&] { return llama_encode(ctx, batch); });
}

int hypura_shim_compute(struct llama_context *ctx, int (*call)(void *), void *user)
{
    return computed(ctx, false, [&] { return call(user); });
}

struct ggml_cgraph *hypura_shim_graph(struct llama_context *ctx, uint32_t n_tokens, uint32_t n_sequences,
                                      uint32_t n_outputs)
{
    try {
        /* llama_graph_reserve does the same but allocates the compute buffers. */
        llama_memory_context_ptr mctx;
        if (llama_memory_t memory = ctx->get_memory()) {
            mctx = memory->init_full();
        }
        return ctx->graph_reserve(n_tokens, n_sequences, n_outputs, mctx.get(), /*split_only =*/true);
    } catch (const std::exception &) {
        return nullptr;
    }
}

void hypura_shim_silence_common(void)
{
    common_log_set_verbosity_thold(-1);
}

void hypura_shim_flush_common(void)
{
    common_log_flush(common_log_main());
}

int hypura_shim_n_cores(void)
{
    try {
        return common_cpu_get_num_math();
    } catch (const std::exception &) {
        return 1;
    }
}

/* llama.cpp's parser of grammars writes what is wrong to standard error, and gives nothing: taken from there, where the C
 * library lets that be another file for a moment. That file stays, as another thread may have begun to write to it. */
class stderr_text
{
  public:
#ifdef __GLIBC__
    stderr_text() : lock(mutex), before(stderr)
    {
        if (!file) {
            file = open_memstream(&text, &bytes);
        } else {
            rewind(file);
        }
        stderr = file ? file : before;
    }
    ~stderr_text() { stderr = before; }
    std::string taken() const
    {
        if (!file || fflush(file) != 0) {
            return {};
        }
        return std::string(text, bytes);
    }
#else
    stderr_text() = default;
    std::string taken() const { return {}; }
#endif
    stderr_text(const stderr_text &) = delete;
    stderr_text &operator=(const stderr_text &) = delete;

  private:
#ifdef __GLIBC__
    static std::mutex mutex;
    static FILE *file;
    static char *text;
    static size_t bytes;
    std::lock_guard<std::mutex> lock;
    FILE *before;
#endif
};
#ifdef __GLIBC__
std::mutex stderr_text::mutex;
FILE *stderr_text::file;
char *stderr_text::text;
size_t stderr_text::bytes;
#endif

/* "parse: error parsing grammar: REASON at REST", an empty line, and the grammar; "" where it says nothing. */
static std::string grammar_reason(const std::string &said)
{
    static const std::string begin = "error parsing grammar: ";
    const size_t at = said.find(begin);
    if (at == std::string::npos) {
        return {};
    }
    const size_t first = at + begin.size();
    std::string reason = said.substr(first, said.find("\n\n", first) - first);
    const std::string to_end = " at ";
    if (reason.size() >= to_end.size() && reason.compare(reason.size() - to_end.size(), to_end.size(), to_end) == 0) {
        reason += "its end";
    }
    return reason;
}

struct llama_sampler *hypura_shim_grammar_open(const struct llama_vocab *vocab, const char *grammar,
                                               const char *json_schema, char *error, size_t error_bytes)
{
    fill(error, error_bytes, "");
    try {
        const std::string text = json_schema ? json_schema_to_grammar(common_json::parse(json_schema)) : grammar;
        struct llama_sampler *sampler = nullptr;
        std::string said;
        {
            stderr_text printed;
            sampler = llama_sampler_init_grammar(vocab, text.c_str(), "root");
            said = printed.taken();
        }
        if (sampler) {
            fputs(said.c_str(), stderr); /* another thread's */
        } else {
            const std::string reason = grammar_reason(said);
            fill(error, error_bytes, reason.empty() ? "it does not parse, or has no rule named root" : reason.c_str());
        }
        return sampler;
    } catch (const std::exception &e) {
        fill(error, error_bytes, e.what());
        return nullptr;
    }
}

bool hypura_shim_grammar_accept(struct llama_sampler *grammar, llama_token token)
{
    try {
        llama_sampler_accept(grammar, token);
        return true;
    } catch (const std::exception &) {
        return false;
    }
}
