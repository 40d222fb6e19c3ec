/*
 * remote.h - devices of other machines, through ggml's RPC: their memory, what their link gives, and whether they are still
 * there. ggml's server, or hypura_rpc_serve, runs on the other machine.
 *
 * What always holds: a device that was found once stays ggml's for the life of the process; a server that is not there, of
 * another version, or lost meanwhile is told by hypura_remote_check, and ends no process. Results of a device that was lost
 * are invented: check before one counts.
 *
 * From any thread.
 */
#ifndef HYPURA_HW_REMOTE_H
#define HYPURA_HW_REMOTE_H

#include "hypura.h"

#include "ggml-backend.h"

/* Appends to *n devices, of at most HYPURA_MAX_GPUS, those of the servers HOST:PORT, by comma. */
hypura_status hypura_remote_find(const char *servers, ggml_backend_dev_t *devices, int *n, hypura_error *error);
/* "HOST:PORT", of a server's second device "HOST:PORT/1". Lives as long as the process. */
const char   *hypura_remote_name(ggml_backend_dev_t device);
/* Fails where the last connection to its server was lost; not a remote device: never. */
hypura_status hypura_remote_check(ggml_backend_dev_t device, hypura_error *error);
/* What it says is free now. */
hypura_status hypura_remote_memory(ggml_backend_dev_t device, uint64_t *free_bytes, hypura_error *error);
/* Fills what went over the network to and from its server since the process began; 0 for a device that is not remote. */
void          hypura_remote_traffic(ggml_backend_dev_t device, hypura_gpu_statistics *statistics);

/* Rates of a remote device, by sending it some MiB: round_trip_us of a small product and its result,
 * upload_bytes_per_s of the network, and device_memory_bytes_per_s, at which products read weights. Measured once in a
 * process; what cannot be measured stays 0. */
void hypura_probe_remote(ggml_backend_dev_t device, hypura_device *measured);

/* Each loss is told before its first result is invented, on the thread that found it. NULL: nobody. */
void hypura_remote_on_lost(void (*told)(const hypura_error *error));

#endif
