/*
 * rpc_link.h - what is known of the connections that ggml's RPC backend holds, and the names that backend has in this
 * library. rpc_link.cpp says why the connections are ours.
 */
#ifndef HYPURA_HW_RPC_LINK_H
#define HYPURA_HW_RPC_LINK_H

#include "ggml-backend.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The last connection to a server. */
typedef struct rpc_link {
    bool     lost;        /* or never made: what was answered since is invented */
    char     reason[256]; /* then: why */
    uint64_t sent_bytes;  /* over all connections to it */
    uint64_t received_bytes;
    uint64_t n_answers; /* that were waited for */
} rpc_link;

/* endpoint: HOST:PORT as it was given to the backend. All 0 for one that was never connected to. From any thread. */
void rpc_link_of(const char *endpoint, rpc_link *link);

/* Told of each loss before anything is answered in the server's place, on the thread that found it. NULL: nobody. */
typedef void (*rpc_link_lost_fn)(const char *endpoint, const char *reason);
void rpc_link_on_lost(rpc_link_lost_fn told);

/* errno of the last time that listening failed. */
int rpc_link_listen_errno(void);

/* ggml's RPC backend in this library, see CMakeLists.txt. add_server: NULL where the server could not be asked. */
ggml_backend_reg_t hypura_rpc_add_server(const char *endpoint);
/* Serves one client after the other for as long as the process lives, unless it cannot listen. */
void hypura_rpc_start_server(const char *endpoint, const char *cache_dir, size_t n_threads, size_t n_devices,
                             ggml_backend_dev_t *devices);

#ifdef __cplusplus
}
#endif

#endif
