/*
 * records.h - the sidecar of a model: each expert's matrices as one record, in the
 * order in which a graph reads them, so that an expert is one read. The GGUF stays
 * as it is, and whole; without the sidecar, or with one that does not match it, all
 * is read from there.
 *
 *     MODEL.gguf.records
 *
 *     +--------+-------------------+----------+----------+---
 *     | header | checksum x record | record 0 | record 1 | ...
 *     +--------+-------------------+----------+----------+---
 *     each part begins at a multiple of 4 KiB        bundle by bundle, expert by expert
 *
 * What always holds: where everything lies follows from the map alone, so the header
 * holds no offsets: only what it was made from. A record's matrices follow each other
 * at multiples of 64 bytes. Numbers are little-endian.
 *
 * A complete and verified sidecar is sealed: it has the time of the model's first file for
 * its own, and loses it when somebody writes to it. So that is seen without reading it.
 */
#ifndef HYPURA_GGUF_RECORDS_H
#define HYPURA_GGUF_RECORDS_H

#include "hypura.h"

#define HYPURA_RECORDS_SUFFIX       ".records"
#define HYPURA_RECORDS_ALIGN_BYTES  4096u
#define HYPURA_RECORDS_HEADER_BYTES 4096u

typedef struct hypura_records_bundle {
    uint64_t offset;                           /* of expert 0's record */
    uint64_t stride_bytes;                     /* to the next expert's */
    uint64_t record_bytes;                     /* padding of the last matrix excluded */
    uint64_t matrix_offset[HYPURA_MAX_BUNDLE]; /* in a record */
    uint32_t first;                            /* number of expert 0's record */
} hypura_records_bundle;

typedef struct hypura_records {
    char *path;
    uint32_t n_records;
    uint64_t table_offset; /* of the checksums, 8 bytes each; 0 in a file that is being made: not there yet */
    uint64_t bytes;        /* of the whole file */
    int64_t sealed_ns;     /* when a sealed one says to have been written to last */
    int n_bundles;         /* of the map */
    hypura_records_bundle *bundles;
    uint8_t header[HYPURA_RECORDS_HEADER_BYTES]; /* as it has to be */
} hypura_records;

/* Where the records of this model lie and what the header says; reads the headers of
 * the model's files to hash them. HYPURA_ERR_UNSUPPORTED for a model without experts. */
hypura_status hypura_records_plan(const hypura_map *map, hypura_records **records, hypura_error *error);
void hypura_records_close(hypura_records *records);

/* The sidecar beside a model: *records is NULL where there is none, and where there
 * is one that does not belong to the model as it is: then note says why. Fails only
 * where memory or the model itself does. */
hypura_status hypura_records_find(const hypura_map *map, hypura_records **records, char *note, size_t note_bytes,
                                  hypura_error *error);

/* Whether the file at path, of that size, begins as planned; else why, for a person. */
bool hypura_records_match(const hypura_records *records, const char *path, char *why, size_t why_bytes);

/* Seals an open file, whose every record was verified; false with errno set. */
bool hypura_records_seal(const hypura_records *records, int fd);
/* Whether nobody wrote to the file at path since. */
bool hypura_records_is_sealed(const hypura_records *records, const char *path);

/* Of a record's bytes, matrices and the padding between them; never 0. */
uint64_t hypura_records_checksum(const void *record, size_t bytes);

#endif
