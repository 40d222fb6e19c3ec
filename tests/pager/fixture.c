/*
 * fixture.c - writing the file of fixture.h, its map and its plan, and using a pager over it.
 */
#include "fixture.h"
#include "../io/named_engines.h"

#include "plan/layout.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_EXPERT_TENSORS (FIXTURE_LAYERS * FIXTURE_MATRICES)
#define N_TENSORS (N_EXPERT_TENSORS + FIXTURE_DENSE + 1)
#define ROW_BYTES 1000
#define DENSE_ROWS 301
#define CHUNK_ROWS 64
#define EMBEDDING_ROWS 500

const fixture_options fixture_defaults = {
    .expert_bytes = {8192, 8192, 12288 + 32},
    .n_slots = 6,
    .n_ring_slots = 4,
    .pinned_rows = 64,
};

enum { MOST_BYTES = 80 << 20 };

/* All of these files begin with these bytes, of which so many are there. */
static uint8_t  every_byte[MOST_BYTES];
static uint64_t n_bytes;

static void make_bytes(uint64_t n)
{
    assert_true(n <= MOST_BYTES);
    for (; n_bytes < n; n_bytes++) {
        every_byte[n_bytes] = (uint8_t)(n_bytes * 167 + (n_bytes >> 8) * 59 + (n_bytes >> 16) * 31);
    }
}

bool fixture_is(const char *bytes, uint64_t offset, uint64_t n)
{
    return offset + n <= n_bytes && memcmp(bytes, every_byte + offset, n) == 0;
}

int fixture_dense(int index)
{
    return N_EXPERT_TENSORS + index;
}

int fixture_embedding(void)
{
    return N_TENSORS - 1;
}

/* Files of tests that have failed have nobody else who removes them. */
#define MOST_FILES 4
static char left[MOST_FILES][sizeof(((fixture *)0)->path)];

static void remove_left(void)
{
    for (int i = 0; i < MOST_FILES; i++) {
        if (left[i][0]) {
            unlink(left[i]);
        }
    }
}

/* Writes one name in place of another; "" is none. */
static void note_left(const char *from, const char *to)
{
    static bool registered;
    if (!registered) {
        registered = atexit(remove_left) == 0;
    }
    for (int i = 0; i < MOST_FILES; i++) {
        if (strcmp(left[i], from) == 0) {
            snprintf(left[i], sizeof(left[i]), "%s", to);
            return;
        }
    }
}

static void write_file(fixture *f, uint64_t bytes)
{
    snprintf(f->path, sizeof(f->path), "pager-fixture-XXXXXX");
    const int fd = mkstemp(f->path);
    assert_true(fd >= 0);
    note_left("", f->path);
    make_bytes(bytes);
    for (uint64_t done = 0; done < bytes;) {
        const ssize_t written = write(fd, every_byte + done, bytes - done);
        assert_true(written > 0);
        done += (uint64_t)written;
    }
    assert_int_equal(close(fd), 0);
}

static uint64_t add_tensor(fixture *f, int index, uint64_t offset, hypura_tensor shape)
{
    offset = (offset + 31) / 32 * 32;
    f->tensors[index] = shape;
    f->tensors[index].offset = offset;
    f->order[index] = index;
    return offset + shape.bytes;
}

static uint64_t add_experts(fixture *f, const fixture_options *options, uint64_t offset)
{
    static const char *const names[FIXTURE_MATRICES] = {"gate", "up", "down"};
    for (int l = 0; l < FIXTURE_LAYERS; l++) {
        f->bundles[l] = (hypura_bundle){.layer = l, .n_experts = FIXTURE_EXPERTS, .n_tensors = FIXTURE_MATRICES};
        for (int m = 0; m < FIXTURE_MATRICES; m++) {
            const int      index = l * FIXTURE_MATRICES + m;
            const uint64_t slice = options->expert_bytes[m];
            f->bundles[l].tensors[m] = index;
            f->bundles[l].expert_bytes += slice;
            f->placements[index] = (hypura_placement){.place = HYPURA_PLACE_EXPERTS, .pool = 0};
            offset = add_tensor(f, index, offset,
                                (hypura_tensor){.name = names[m],
                                                .ne = {(int64_t)slice, 1, FIXTURE_EXPERTS, 1},
                                                .role = HYPURA_ROLE_EXPERT,
                                                .layer = l,
                                                .bundle = l,
                                                .bytes = slice * FIXTURE_EXPERTS,
                                                .row_bytes = slice,
                                                .expert_bytes = slice});
        }
    }
    return offset;
}

static uint64_t add_matrix(fixture *f, int index, uint64_t offset, const char *name, int64_t rows,
                           hypura_placement placement)
{
    f->placements[index] = placement;
    return add_tensor(f, index, offset,
                      (hypura_tensor){.name = name,
                                      .ne = {ROW_BYTES, rows, 1, 1},
                                      .layer = -1,
                                      .bundle = -1,
                                      .bytes = (uint64_t)rows * ROW_BYTES,
                                      .row_bytes = ROW_BYTES});
}

void fixture_open(fixture *f, const fixture_options *options)
{
    memset(f, 0, sizeof(*f));
    uint64_t end = add_experts(f, options, 100);
    for (int i = 0; i < FIXTURE_DENSE; i++) {
        end = add_matrix(f, fixture_dense(i), end, "dense", DENSE_ROWS,
                         (hypura_placement){.place = HYPURA_PLACE_DENSE,
                                            .pinned_rows = options->pinned_rows,
                                            .chunk_rows = CHUNK_ROWS,
                                            .pool = -1});
    }
    end = add_matrix(f, fixture_embedding(), end, "embedding", EMBEDDING_ROWS,
                     (hypura_placement){.place = HYPURA_PLACE_ROWS, .pool = -1});
    write_file(f, end);
    f->files[0] = f->path;
    f->file_bytes[0] = end;
    f->map = (hypura_map){
        .n_layers = FIXTURE_LAYERS,
        .path = f->path,
        .n_experts = FIXTURE_EXPERTS,
        .n_files = 1,
        .files = f->files,
        .file_bytes = f->file_bytes,
        .n_tensors = N_TENSORS,
        .tensors = f->tensors,
        .n_bundles = FIXTURE_LAYERS,
        .bundles = f->bundles,
    };
    f->plan = (hypura_plan){
        .mode = HYPURA_MODE_MIXED,
        .ring_slot_bytes = hypura_layout_region_bytes(HYPURA_LAYOUT_PAGE_BYTES, CHUNK_ROWS * ROW_BYTES),
        .n_ring_slots = options->n_ring_slots,
        .io_block_bytes = 16384,
        .io_depth = 4,
        .slot_align_bytes = 4096,
        .n_pools = 1,
        .n_placements = N_TENSORS,
        .placements = f->placements,
        .order = f->order,
    };
    f->plan.pools[0].n_slots = options->n_slots;
    f->plan.pools[0].n_units = FIXTURE_LAYERS * FIXTURE_EXPERTS;
    f->plan.pools[0].n_floor = 1;
    for (int m = 0; m < FIXTURE_MATRICES; m++) {
        f->plan.pools[0].slot_bytes += options->expert_bytes[m];
        f->plan.pools[0].slot_stride_bytes +=
            hypura_layout_region_bytes(f->plan.slot_align_bytes, options->expert_bytes[m]);
    }
}

void fixture_close(fixture *f)
{
    unlink(f->path);
    note_left(f->path, "");
}

bool fixture_expert_is_right(const fixture *f, hypura_pager *pager, int bundle, uint32_t expert, uint32_t slot)
{
    for (int m = 0; m < FIXTURE_MATRICES; m++) {
        const hypura_tensor *tensor = &f->tensors[f->bundles[bundle].tensors[m]];
        const hypura_slots   slots = hypura_pager_slots(pager, bundle, m);
        if (!fixture_is(slots.data + slot * slots.stride_bytes, tensor->offset + expert * tensor->expert_bytes,
                        tensor->expert_bytes)) {
            return false;
        }
    }
    return true;
}

void fixture_name_engines(void)
{
    if (getenv(ENGINES_ARE_NAMED_ELSEWHERE)) {
        skip();
    }
}

const char *fixture_engine(size_t number)
{
    return number % 2 == 0 && hypura_io_engine_available("uring") ? "uring" : "pool";
}

hypura_pager *fixture_open_pager(fixture *f, const char *engine, hypura_io_hook hook, void *user)
{
    hypura_pager              *pager = NULL;
    hypura_error               error = {0};
    const hypura_pager_options options = {
        .map = &f->map, .plan = &f->plan, .io_engine = engine, .hook = hook, .hook_user = user};
    if (hypura_pager_open(&options, &pager, &error) != HYPURA_OK) {
        fail_msg("%s", error.message);
    }
    return pager;
}

uint32_t fixture_use_experts(fixture *f, hypura_pager *pager, int bundle, const uint32_t *experts, uint32_t n)
{
    uint32_t       slots[FIXTURE_EXPERTS];
    const uint32_t leased = hypura_pager_lease_experts(pager, bundle, experts, n, slots);
    for (uint32_t i = 0; i < n; i++) {
        if (slots[i] != UINT32_MAX) {
            assert_int_equal(hypura_pager_wait_expert(pager, bundle, slots[i], UINT32_MAX), HYPURA_OK);
            assert_true(hypura_pager_expert_ready(pager, bundle, slots[i], UINT32_MAX));
            assert_true(fixture_expert_is_right(f, pager, bundle, experts[i], slots[i]));
            hypura_pager_release_expert(pager, bundle, slots[i]);
        }
    }
    return leased;
}

uint64_t fixture_pass_dense(fixture *f, hypura_pager *pager, int first, int last)
{
    uint64_t pinned_bytes = 0;
    for (int d = first; d < last; d++) {
        const hypura_tensor *tensor = &f->tensors[fixture_dense(d)];
        int64_t              pinned;
        const char          *rows = hypura_pager_pinned(pager, fixture_dense(d), &pinned);
        pinned_bytes += (uint64_t)pinned * tensor->row_bytes;
        if (pinned > 0) {
            assert_true(fixture_is(rows, tensor->offset, (uint64_t)pinned * tensor->row_bytes));
        }
        int64_t next = pinned;
        for (uint32_t c = 0; c < hypura_pager_chunks(pager, fixture_dense(d)); c++) {
            int64_t     row, n;
            const char *chunk = hypura_pager_acquire_chunk(pager, fixture_dense(d), c, &row, &n);
            assert_non_null(chunk);
            assert_int_equal(row, next);
            assert_true(fixture_is(chunk, tensor->offset + (uint64_t)row * tensor->row_bytes,
                                   (uint64_t)n * tensor->row_bytes));
            hypura_pager_release_chunk(pager);
            next = row + n;
        }
        assert_int_equal(next, tensor->ne[1]);
    }
    return pinned_bytes;
}
