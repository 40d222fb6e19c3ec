/*
 * records.c - see records.h. The header, numbers at these bytes, zeros elsewhere:
 *
 *      0  magic             16  number of records    32  bytes of the model's files
 *      8  version (4)       24  bytes of this file   40  hash of when they were written to
 *     12  alignment (4)                              48  hash of their GGUF headers
 */
#include "gguf/records.h"

#include "base/size.h"
#include "base/status.h"
#include "gguf/source.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include "xxhash.h"

#define MAGIC              "HYPUREC1"
#define MATRIX_ALIGN_BYTES 64u
#define PART_BYTES         ((size_t)1 << 20)

enum { VERSION = 1 };

enum { AT_VERSION = 8, AT_ALIGN = 12, AT_COUNT = 16, AT_BYTES = 24, AT_MODEL = 32, AT_MODIFIED = 40, AT_HEADERS = 48 };

static void put(uint8_t *to, uint64_t value, int n)
{
    for (int i = 0; i < n; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

uint64_t hypura_records_checksum(const void *record, size_t bytes)
{
    const uint64_t hash = XXH3_64bits(record, bytes);
    return hash != 0 ? hash : 1;
}

/* ---- what it is made from -------------------------------------------------- */

/* Everything of a file before its first tensor. */
static hypura_status hash_header(const hypura_map *map, int file, XXH3_state_t *state, hypura_error *error)
{
    uint64_t end = map->file_bytes[file];
    for (int t = 0; t < map->n_tensors; t++) {
        if (map->tensors[t].file == file && map->tensors[t].offset < end) {
            end = map->tensors[t].offset;
        }
    }
    hypura_source source;
    hypura_status status = hypura_source_open_file(NULL, map->files[file], &source, error);
    if (status != HYPURA_OK) {
        return status;
    }
    uint8_t *part = malloc(PART_BYTES);
    if (part == NULL) {
        status = hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory to read its header", map->files[file]);
    } else if (end > source.bytes) {
        status = hypura_fail(error, HYPURA_ERR_IO, "%s: became shorter", map->files[file]);
    }
    for (uint64_t done = 0; status == HYPURA_OK && done < end;) {
        const size_t n = end - done < PART_BYTES ? (size_t)(end - done) : PART_BYTES;
        status = hypura_source_read(&source, done, part, n, error);
        (void)XXH3_64bits_update(state, part, n);
        done += n;
    }
    free(part);
    hypura_source_close(&source);
    return status;
}

static hypura_status fill_header(const hypura_map *map, hypura_records *records, hypura_error *error)
{
    uint64_t model_bytes = 0;
    XXH3_state_t modified;
    XXH3_state_t headers;
    hypura_status status = HYPURA_OK;
    (void)XXH3_64bits_reset(&modified);
    (void)XXH3_64bits_reset(&headers);
    for (int i = 0; status == HYPURA_OK && i < map->n_files; i++) {
        uint8_t when[8];
        put(when, map->file_modified_ns ? (uint64_t)map->file_modified_ns[i] : 0, 8);
        (void)XXH3_64bits_update(&modified, when, sizeof when);
        model_bytes += map->file_bytes[i];
        status = hash_header(map, i, &headers, error);
    }
    memcpy(records->header, MAGIC, sizeof MAGIC - 1);
    put(records->header + AT_VERSION, VERSION, 4);
    put(records->header + AT_ALIGN, HYPURA_RECORDS_ALIGN_BYTES, 4);
    put(records->header + AT_COUNT, records->n_records, 8);
    put(records->header + AT_BYTES, records->bytes, 8);
    put(records->header + AT_MODEL, model_bytes, 8);
    put(records->header + AT_MODIFIED, XXH3_64bits_digest(&modified), 8);
    put(records->header + AT_HEADERS, XXH3_64bits_digest(&headers), 8);
    return status;
}

/* ---- where everything lies --------------------------------------------------- */

static bool lay_out_bundle(const hypura_map *map, int b, hypura_records_bundle *place, uint64_t *end)
{
    const hypura_bundle *bundle = &map->bundles[b];
    uint64_t at = 0;
    for (int i = 0; i < bundle->n_tensors; i++) {
        place->matrix_offset[i] = hypura_round_up(at, MATRIX_ALIGN_BYTES);
        at = place->matrix_offset[i] + map->tensors[bundle->tensors[i]].expert_bytes;
    }
    place->record_bytes = at;
    place->stride_bytes = hypura_round_up(at, HYPURA_RECORDS_ALIGN_BYTES);
    place->offset = *end;
    /* Of a file that has all of it, so nothing here comes near 2^64. */
    return hypura_size_add(*end, place->stride_bytes * (uint64_t)bundle->n_experts, end);
}

static hypura_status lay_out(const hypura_map *map, hypura_records *records, hypura_error *error)
{
    uint64_t n = 0;
    for (int b = 0; b < map->n_bundles; b++) {
        records->bundles[b].first = (uint32_t)n;
        n += (uint64_t)map->bundles[b].n_experts;
    }
    uint64_t end = HYPURA_RECORDS_HEADER_BYTES;
    bool fits = n < UINT32_MAX;
    records->n_records = (uint32_t)n;
    records->table_offset = end;
    end = hypura_round_up(end + n * sizeof(uint64_t), HYPURA_RECORDS_ALIGN_BYTES);
    for (int b = 0; fits && b < map->n_bundles; b++) {
        fits = lay_out_bundle(map, b, &records->bundles[b], &end);
    }
    records->bytes = end;
    return fits ? HYPURA_OK
                : hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: its experts are more than a file of records can hold",
                              map->path);
}

hypura_status hypura_records_plan(const hypura_map *map, hypura_records **planned, hypura_error *error)
{
    *planned = NULL;
    if (map->n_bundles == 0) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s has no experts: records would hold nothing", map->path);
    }
    hypura_records *records = calloc(1, sizeof(*records));
    const size_t path_bytes = strlen(map->files[0]) + sizeof HYPURA_RECORDS_SUFFIX;
    if (records) {
        records->n_bundles = map->n_bundles;
        records->bundles = calloc((size_t)map->n_bundles, sizeof(*records->bundles));
        records->path = malloc(path_bytes);
    }
    if (!records || !records->bundles || !records->path) {
        hypura_records_close(records);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "%s: no memory for the places of its experts", map->path);
    }
    (void)snprintf(records->path, path_bytes, "%s%s", map->files[0], HYPURA_RECORDS_SUFFIX);
    records->sealed_ns = map->file_modified_ns ? map->file_modified_ns[0] : 0;
    hypura_status status = lay_out(map, records, error);
    if (status == HYPURA_OK) {
        status = fill_header(map, records, error);
    }
    if (status != HYPURA_OK) {
        hypura_records_close(records);
        return status;
    }
    *planned = records;
    return HYPURA_OK;
}

void hypura_records_close(hypura_records *records)
{
    if (records) {
        free(records->path);
        free(records->bundles);
        free(records);
    }
}

/* ---- finding one --------------------------------------------------------------- */

static const char *difference(const hypura_records *records, const uint8_t *found, uint64_t found_bytes)
{
    static const struct {
        int at;
        int n;
        const char *why;
    } parts[] = {
        {0, AT_VERSION, "it is no file of records"}, {AT_VERSION, AT_COUNT - AT_VERSION, "it is of another version"},
        {AT_MODEL, 8, "the model had another size"}, {AT_MODIFIED, 8, "the model was written to since"},
        {AT_HEADERS, 8, "the model is another one"},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (memcmp(records->header + parts[i].at, found + parts[i].at, (size_t)parts[i].n) != 0) {
            return parts[i].why;
        }
    }
    if (memcmp(records->header, found, HYPURA_RECORDS_HEADER_BYTES) != 0) {
        return "its header is damaged";
    }
    return found_bytes != records->bytes ? "it is not complete" : NULL;
}

bool hypura_records_match(const hypura_records *records, const char *path, char *why, size_t why_bytes)
{
    hypura_source source;
    hypura_error error;
    uint8_t found[HYPURA_RECORDS_HEADER_BYTES];
    if (hypura_source_open_file(NULL, path, &source, &error) != HYPURA_OK) {
        (void)snprintf(why, why_bytes, "it cannot be opened");
        return false;
    }
    const char *differs = "it is not complete";
    if (source.bytes >= sizeof found && hypura_source_read(&source, 0, found, sizeof found, &error) == HYPURA_OK) {
        differs = difference(records, found, source.bytes);
    }
    hypura_source_close(&source);
    (void)snprintf(why, why_bytes, "%s", differs ? differs : "");
    return differs == NULL;
}

/* ---- the seal -------------------------------------------------------------------- */

#define NS_PER_S INT64_C(1000000000)

bool hypura_records_seal(const hypura_records *records, int fd)
{
    const int64_t part_ns = (records->sealed_ns % NS_PER_S + NS_PER_S) % NS_PER_S; /* also before 1970 */
    const struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = (time_t)((records->sealed_ns - part_ns) / NS_PER_S), .tv_nsec = (long)part_ns},
    };
    return futimens(fd, times) == 0;
}

/* File systems that keep less of a time keep a whole number of 10 ms, and 2 s at worst. */
bool hypura_records_is_sealed(const hypura_records *records, const char *path)
{
    hypura_os_identity file;
    if (!hypura_os_identity_of_path(path, &file)) {
        return false;
    }
    const int64_t lost_ns = records->sealed_ns - file.modified_ns;
    return lost_ns == 0 || (lost_ns > 0 && lost_ns < 2 * NS_PER_S && file.modified_ns % (NS_PER_S / 100) == 0);
}

hypura_status hypura_records_find(const hypura_map *map, hypura_records **found, char *note, size_t note_bytes,
                                  hypura_error *error)
{
    char why[64];
    char path[4096];
    struct stat info;
    *found = NULL;
    note[0] = '\0';
    const int n = snprintf(path, sizeof path, "%s%s", map->files[0], HYPURA_RECORDS_SUFFIX);
    if (map->n_bundles == 0 || n < 0 || (size_t)n >= sizeof path || stat(path, &info) != 0) {
        return HYPURA_OK;
    }
    hypura_records *records = NULL;
    hypura_status status = hypura_records_plan(map, &records, error);
    const bool matches = status == HYPURA_OK && hypura_records_match(records, path, why, sizeof why);
    if (status == HYPURA_OK && !matches) {
        (void)snprintf(note, note_bytes, "%s is not used: %s (hypura optimize makes it anew)", path, why);
    } else if (status == HYPURA_OK && !hypura_records_is_sealed(records, path)) {
        (void)snprintf(note, note_bytes, "%s is not used: it was written to since it was verified (hypura optimize verifies it)",
                       path);
    }
    if (note[0] != '\0') {
        hypura_records_close(records);
        records = NULL;
    }
    *found = records;
    return status;
}
