/*
 * pulse.h - whether the GPUs that a call waits for still answer.
 *
 * A wait inside a driver cannot be ended from outside, and not every wait is told that its GPU is lost: ggml-vulkan asks for the
 * state of a fence again and again, and a driver may say "not ready" for ever. Nor is a long wait an error: a slow GPU computes a
 * prompt for minutes. So when a call has taken long, the GPUs are asked something of their own, through other instances: to reach
 * an event behind nothing, which drivers wait for in a way that is told. Each model over GPUs has one of these, with two threads:
 * one watches the clock, the other asks, as a question may not come back either.
 *
 *              begin               ASK_US without begin or end               none for wait_us
 *     no call -------> in a call -----------------------------> is asked ----------------------> lost
 *        ^               |  ^                                     |   |                           ^
 *        '------ end ----'  '------------- answered --------------'   '- failed, and a second later the call waits still
 *
 * On Vulkan all instances share the queue that computes, and a question comes behind what is queued there: a GPU that computes
 * answers when that has ended, one that is lost fails at once. On CUDA each has a stream, and a GPU that computes answers
 * at once; so does one on which something computes for ever, which is not told from one that takes long. A question needs
 * no lock that is held while something waits: ggml-vulkan's are held while work is handed over, and a driver that does not
 * come back from that is silent.
 *
 * What always holds: a GPU that answers, however late before wait_us, is not lost. Time does not count in which the process was
 * stopped, or another of its threads than the one that waits computed: drivers that compute on processors also compile then.
 * Told once; what calls were to save at the end is saved before.
 */
#ifndef HYPURA_ENGINE_LLAMA_PULSE_H
#define HYPURA_ENGINE_LLAMA_PULSE_H

#include "hypura.h"

#include "engine/llama/load.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hypura_pulse hypura_pulse;

/* A call that may wait for a GPU begins, and ends: on any thread, also one in the other. what: stays valid; "for ...". */
void hypura_pulse_begin(const char *what);
void hypura_pulse_end(void);

/* Watches the GPUs here; *pulse is NULL where there are none. token_s: how long one token takes by the plan's forecast, where
 * nothing streams, and n_tokens computed at once at most; 0: not known. */
hypura_status hypura_pulse_open(const hypura_load_gpu *gpus, uint32_t n_tokens, double token_s, hypura_pulse **pulse,
                                hypura_error *error);
/* Called, on a thread of its own, before it is told that a GPU is lost: what the user learned. It takes no lock that is held
 * while a GPU is waited for. NULL: nothing any more; not before a call of it has returned. */
void hypura_pulse_keep(hypura_pulse *pulse, void (*save)(void *user), void *user);
/* lost: what belongs to the GPUs is not freed. NULL is allowed. */
void hypura_pulse_close(hypura_pulse *pulse, bool lost);

#ifdef __cplusplus
}

/* Such a call, as long as it lives; nothing where it is not to be watched. */
class hypura_pulse_call
{
  public:
    explicit hypura_pulse_call(const char *what, bool watched = true) : watches(watched)
    {
        if (watches) {
            hypura_pulse_begin(what);
        }
    }
    ~hypura_pulse_call()
    {
        if (watches) {
            hypura_pulse_end();
        }
    }
    hypura_pulse_call(const hypura_pulse_call &) = delete;
    hypura_pulse_call &operator=(const hypura_pulse_call &) = delete;

  private:
    const bool watches;
};
#endif

#endif
