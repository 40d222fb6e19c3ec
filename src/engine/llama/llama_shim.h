/*
 * llama_shim.h - the parts of llama.cpp that have no C interface, behind C.
 *
 * Owned by the engine. Everything else of libllama is used through llama.h.
 * What always holds: no C++ exception leaves these functions, and no assertion
 * of llama.cpp that fails between guard_begin and guard_end ends the process.
 */
#ifndef HYPURA_ENGINE_LLAMA_LLAMA_SHIM_H
#define HYPURA_ENGINE_LLAMA_LLAMA_SHIM_H

#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Between these two, a failing GGML_ASSERT on the calling thread becomes a C++
 * exception that libllama's own loader catches, so that a hostile file makes
 * llama_model_load return NULL. ggml has one abort callback for the process: it is
 * ours while any thread is between them, or decodes over a GPU. */
void hypura_shim_guard_begin(void);
void hypura_shim_guard_end(void);
/* The assertion that failed on this thread since begin, or "". */
const char *hypura_shim_guard_message(void);

/* Calls visit for every weight that libllama made a tensor of. Tied embeddings
 * are two tensors of one name. Stops when visit returns false. */
typedef bool (*hypura_shim_weight_fn)(void *user, const char *name, struct ggml_tensor *tensor);
void hypura_shim_weights(const struct llama_model *model, hypura_shim_weight_fn visit, void *user);

/* Bytes of the context's memory (KV cache, recurrent state) and of its compute
 * buffers, over all buffer types of the host and of devices. */
typedef struct hypura_shim_bytes {
    uint64_t kv;
    uint64_t compute;
    uint64_t device_kv;
    uint64_t device_compute;
    uint64_t checkpoint; /* a copy of what cannot be taken back token by token: windows, recurrent state */
} hypura_shim_bytes;

/* False when libllama threw. */
bool hypura_shim_context_bytes(const struct llama_context *ctx, hypura_shim_bytes *bytes);

/* Applies them to all that the context computes from now on, and reserves memory for it, where llama.cpp would only do so
 * with the first batch. False when libllama threw, or an assertion failed (see guard_begin). */
bool hypura_shim_apply_adapters(struct llama_context *ctx, struct llama_adapter_lora **adapters, int n, float *scales);

/* Whether llama.cpp would add the adapters in the reverse of this order. It keeps them by address, so that three or more
 * may come in any, and sums of floats depend on it. */
bool hypura_shim_adapters_in_order(struct llama_adapter_lora *const *adapters, int n);

/* What the adapters of a model take: in the host's memory, and in that of devices. */
void hypura_shim_adapter_bytes(const struct llama_model *model, uint64_t *host_bytes, uint64_t *device_bytes);

/* llama_decode and llama_encode, returning when everything has been computed. A GPU
 * that fails while computing makes its backend throw: then GGML_STATUS_FAILED, and
 * the reason is in the log. more: another batch follows at once, which a GPU need not
 * wait for; what goes wrong later is that one's failure. */
int hypura_shim_decode(struct llama_context *ctx, struct llama_batch batch, bool more);
int hypura_shim_encode(struct llama_context *ctx, struct llama_batch batch);
/* The same for what call computes with the context. */
int hypura_shim_compute(struct llama_context *ctx, int (*call)(void *), void *user);

/* False when the call throws, or aborts as a backend does where its driver refuses something; why is in the log. */
bool hypura_shim_call(void (*call)(void *user), void *user);

/* Forgets all tokens. False: a GPU that is lost could not be told. */
bool hypura_shim_forget(struct llama_context *ctx);

/* From here on end is called before a refusal of a driver, aborted or thrown and caught by nobody, ends the process. NULL:
 * as without. */
void hypura_shim_on_end(void (*end)(const char *message));

/* Whether all of the context's GPUs can still be waited for: one that is lost cannot. */
bool hypura_shim_answers(struct llama_context *ctx);

/* Builds the graph for n_tokens, a multiple of n_sequences, without allocating it.
 * n_sequences is the context's own. The graph belongs to ctx and lives until the
 * next call. NULL when libllama threw. */
struct ggml_cgraph *hypura_shim_graph(struct llama_context *ctx, uint32_t n_tokens, uint32_t n_sequences,
                                      uint32_t n_outputs);

/* llama.cpp's common library has a log of its own: it prints nothing from now on. */
void hypura_shim_silence_common(void);
/* What it was told before is printed, which a thread of its own does later. */
void hypura_shim_flush_common(void);

/* Physical cores, or the performance cores where there are two kinds. */
int hypura_shim_n_cores(void);

/* ---- grammars ----------------------------------------------------------- */

/* A sampler that rules out what does not go on with text of a grammar in GBNF, or of one
 * made of a JSON schema; the other is NULL. NULL with error filled when it cannot be understood:
 * llama.cpp itself then prints what it read last. */
struct llama_sampler *hypura_shim_grammar_open(const struct llama_vocab *vocab, const char *grammar,
                                               const char *json_schema, char *error, size_t error_bytes);
/* False when the token does not go on with the text: no more can be sampled. */
bool hypura_shim_grammar_accept(struct llama_sampler *grammar, llama_token token);

#ifdef __cplusplus
}
#endif

#endif
