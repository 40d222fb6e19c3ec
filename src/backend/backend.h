/*
 * backend.h - Hypura as a ggml backend: one device of type ACCEL that claims just
 * the operations on weights the plan streams, and runs them on the CPU backend
 * with the pager's memory in place of the weights.
 *
 *     libllama loads:  select a buffer type for each weight
 *                        supports_op(name) --> plan says streamed? --> our buffer, without bytes
 *     a graph runs:    scheduler splits it; splits of ours reach graph_compute
 *                        executor: lease from the pager -> shadow nodes -> inner backend
 *
 * Claims follow the plan of the pager that is attached while a model loads. A
 * weight keeps its pager from then on, so models and contexts do not mix.
 */
#ifndef HYPURA_BACKEND_BACKEND_H
#define HYPURA_BACKEND_BACKEND_H

#include "hypura.h"
#include "pager/pager.h"

/* Registers the device with ggml on first use. Until detach, weights that
 * libllama loads in this process and that the pager's plan streams come to this
 * pager, which must outlive them. Attaching waits for another thread's detach. */
hypura_status hypura_backend_attach(hypura_pager *pager, hypura_error *error);
void          hypura_backend_detach(void);

/* For a plug-in, which learns of a model only when its weights are named: called
 * once for each load, with a weight's name; returns the pager to use or NULL. */
typedef hypura_pager *(*hypura_backend_discover_fn)(const char *tensor_name);
void hypura_backend_set_discover(hypura_backend_discover_fn discover);

/* The ggml_backend_reg_t, as an opaque pointer so that ggml stays out of here. */
void *hypura_backend_registry(void);

#endif
