/*
 * modules.h - ggml's GPU backends, which lie beside this library as modules:
 * libggml-cuda.so, libggml-hip.so, libggml-metal.so, libggml-vulkan.so.
 *
 * What always holds: a module is loaded once in a process, and stays; its devices
 * are ggml's from then on. A machine without the driver that a module needs is one
 * without that backend, which is no error.
 */
#ifndef HYPURA_HW_MODULES_H
#define HYPURA_HW_MODULES_H

#include "hypura.h"

struct ggml_backend_device;

/* Loads what lies in folder; NULL: in the folder of this library (of the program
 * that it is a part of). Returns how many of them ggml has now. From any thread,
 * while nobody else changes ggml's registry. Loading a driver may take a second.
 *
 * One GPU may be a device of two backends then, as of CUDA and Vulkan; CUDA, HIP and
 * Metal come before Vulkan. */
int hypura_modules_load(const char *folder);

/* The same with NULL, where the system shows a GPU; elsewhere nothing is loaded. A
 * driver that computes on the processor takes 60 MiB and is not looked for unasked. */
void hypura_modules_load_present(void);

/* Whether that loads any, or ggml knows a GPU already. */
bool hypura_modules_are_wanted(void);

bool hypura_modules_is_gpu(struct ggml_backend_device *device);

/* The GPU of the first name of a list such as "CUDA0,Vulkan1", in any case, as ggml looks them up; *names is behind it then,
 * NULL behind the last. Of a GPU that two backends know either name will do. NULL: there is none of that name, and error
 * says which there are. From any thread, once what is to be loaded is. */
struct ggml_backend_device *hypura_modules_take_named(const char **names, hypura_error *error);

/* The same GPU as ggml lists it first: the device itself, or an earlier one of another
 * backend that says to be at the same place of the machine (its PCI address). */
struct ggml_backend_device *hypura_modules_first_of(struct ggml_backend_device *device);

/* Whether a GPU's memory is the host's, so that what it takes the host lacks. Backends call such
 * a GPU integrated, but for Metal's: it is one that can use the host's memory as it is, and
 * has no private memory by default. */
bool hypura_modules_is_unified(struct ggml_backend_device *device);
/* Whether the host may write where that GPU's tensors lie, at their address: Metal's. */
bool hypura_modules_is_addressable(struct ggml_backend_device *device);

#endif
