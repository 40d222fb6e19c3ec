/*
 * repack.h - the form in which llama.cpp's CPU backend computes fastest with a
 * weight: rows interleaved in groups. libllama repacks what it loads itself; for
 * what streams, the pager does it to the same weights with the same code, so that
 * results have the bits of libllama's own repacked run.
 *
 * A repacked weight has the size of the plain one, and rows stay within their
 * group: a whole group of rows can be repacked in place, through a small copy.
 */
#ifndef HYPURA_PAGER_REPACK_H
#define HYPURA_PAGER_REPACK_H

#include "hypura.h"

/* What a tensor has to carry for the CPU backend to see its data as repacked. */
typedef struct hypura_repack {
    void *buffer; /* ggml_backend_buffer_t */
    void *traits; /* the tensor's `extra` */
} hypura_repack;

/* Rows repacked at once; chunks and pinned parts of a repacked weight are
 * multiples of the largest interleave, which divides it. */
#define HYPURA_REPACK_ROWS 32

typedef struct hypura_repacker hypura_repacker;

/* Decides for every streamed tensor of the plan. Not an error where the CPU
 * backend has no repacked form: then no tensor has one. */
hypura_status hypura_repacker_open(const hypura_map *map, const hypura_plan *plan, hypura_form form,
                                   hypura_repacker **repacker, hypura_error *error);
void          hypura_repacker_close(hypura_repacker *repacker);

/* What libllama is to put a weight into that it shall repack; NULL: the CPU backend has no such form. */
struct ggml_backend_buffer_type *hypura_repack_type(void);

/* Whether a weight of dense products has a repacked form here. */
bool hypura_repack_has_form(const hypura_tensor *tensor);

/* NULL when the tensor stays plain, or when there is no repacker. */
const hypura_repack *hypura_repacker_of(const hypura_repacker *repacker, int tensor);

/* Bytes of scratch memory that repack_rows needs; each thread brings its own. */
size_t hypura_repacker_scratch_bytes(const hypura_repacker *repacker);

/* Repacks n_rows plain rows of a tensor, in place. Any thread. */
void hypura_repacker_repack(const hypura_repacker *repacker, int tensor, char *rows, int64_t n_rows, char *scratch);

#endif
