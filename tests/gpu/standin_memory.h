/* standin_memory.h - the memory of the devices that stand for GPUs, and what all of them share. For standin.c alone. */
#ifndef HYPURA_TEST_GPU_STANDIN_MEMORY_H
#define HYPURA_TEST_GPU_STANDIN_MEMORY_H

#include "standin.h"

#include "ggml-backend-impl.h"

#include <stdatomic.h>

extern standin_faults standin_wrong;
extern standin_counts standin_counted;
extern bool           standin_lost; /* since a device was lost that stays so */
extern atomic_bool    standin_silent; /* since a device does not answer any more */
extern bool           standin_asked;  /* what memory it has, the first one never answers */

/* Which of the two it is. */
int standin_index(ggml_backend_dev_t device);
/* As CUDA's backend does where its driver refuses something. */
_Noreturn void standin_abort(void);
/* Ends the process, or throws, when it is lost: before whatever it is asked for. */
void standin_need(void);

/* Before whatever is waited for: for good when it is silent, or until something slow has ended. */
void standin_wait(bool for_event);
/* As if it had something to compute until then. */
void standin_be_slow(uint64_t us);

/* The devices are those of all processes that name this file; before anything is taken of their memory. */
bool standin_share_memory(const char *path);
uint64_t standin_memory_bytes(int device);
uint64_t standin_used_bytes(int device); /* by all of them */

/* An address as the device sees it; those of the host stay. */
void *standin_seen(const void *address);
/* All addresses of a graph: to where the device works, or back. */
void standin_move_all(struct ggml_cgraph *graph, bool to_device);
/* A device computes with its own memory alone; views are no work, wherever they lie. */
void standin_check_memory(const struct ggml_cgraph *graph, int device);

ggml_backend_buffer_type_t standin_buffers(ggml_backend_dev_t device);
/* Whether the host may use their memory too. */
void standin_open_memory(bool open);
/* Memory of the host that a device uses as it is. */
ggml_backend_buffer_t standin_map(ggml_backend_dev_t device, void *memory, size_t bytes, size_t max_tensor_bytes);
/* Pinned memory of the host. */
ggml_backend_buffer_type_t standin_host_buffers(ggml_backend_dev_t device);

#endif
