/*
 * live.c - see live.h. A sequence lock: the record is copied word by word with
 * relaxed atomics, so that a copy made while it changes is only useless, not undefined.
 */
#include "worker/live.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIVE_MAGIC   UINT64_C(0x3145564959485548)
#define N_WORDS      ((sizeof(hypura_live_record) + sizeof(uint64_t) - 1) / sizeof(uint64_t))
#define MAX_ATTEMPTS 1000

struct hypura_live {
    uint64_t magic;
    uint64_t record_bytes; /* two builds that differ do not understand each other */
    _Atomic uint64_t sequence;
    _Atomic uint64_t words[N_WORDS];
};

/* With bytes of its own on the disk: writing to a mapped hole when that is full ends the process. */
static bool fill_file(int fd)
{
    static const char zeros[4096];
    size_t left = sizeof(hypura_live);
    while (left > 0) {
        const ssize_t n = write(fd, zeros, left < sizeof(zeros) ? left : sizeof(zeros));
        if (n < 0 && errno != EINTR) {
            return false;
        }
        left -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static hypura_status map_file(const char *path, int flags, hypura_live **live, hypura_error *error)
{
    *live = NULL;
    int fd = open(path, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return hypura_fail_errno(error, errno, "%s cannot be opened", path);
    }
    struct stat about;
    hypura_status status = HYPURA_OK;
    if ((flags & O_CREAT) && !fill_file(fd)) {
        status = hypura_fail_errno(error, errno, "%s cannot be written, of %zu bytes", path, sizeof(**live));
    } else if (fstat(fd, &about) != 0 || about.st_size != (off_t)sizeof(**live)) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s was made by another version of Hypura", path);
    } else {
        void *memory = mmap(NULL, sizeof(**live), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED) {
            status = hypura_fail_errno(error, errno, "%s cannot be mapped", path);
        } else {
            *live = memory;
        }
    }
    close(fd);
    return status;
}

hypura_status hypura_live_create(const char *path, hypura_live **live, hypura_error *error)
{
    hypura_status status = map_file(path, O_CREAT | O_TRUNC, live, error);
    if (status == HYPURA_OK) {
        (*live)->record_bytes = sizeof(hypura_live_record);
        (*live)->magic = LIVE_MAGIC;
    }
    return status;
}

hypura_status hypura_live_open(const char *path, hypura_live **live, hypura_error *error)
{
    hypura_status status = map_file(path, 0, live, error);
    if (status == HYPURA_OK && ((*live)->magic != LIVE_MAGIC || (*live)->record_bytes != sizeof(hypura_live_record))) {
        hypura_live_close(*live);
        *live = NULL;
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s was made by another version of Hypura", path);
    }
    return status;
}

void hypura_live_close(hypura_live *live)
{
    if (live) {
        munmap(live, sizeof(*live));
    }
}

void hypura_live_write(hypura_live *live, const hypura_live_record *record)
{
    uint64_t words[N_WORDS] = {0};
    memcpy(words, record, sizeof(*record));
    const uint64_t sequence = atomic_load_explicit(&live->sequence, memory_order_relaxed);
    atomic_store_explicit(&live->sequence, sequence + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < N_WORDS; i++) {
        atomic_store_explicit(&live->words[i], words[i], memory_order_relaxed);
    }
    atomic_store_explicit(&live->sequence, sequence + 2, memory_order_release);
}

bool hypura_live_read(const hypura_live *live, hypura_live_record *record)
{
    uint64_t words[N_WORDS];
    for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        const uint64_t before = atomic_load_explicit(&live->sequence, memory_order_acquire);
        for (size_t i = 0; i < N_WORDS; i++) {
            words[i] = atomic_load_explicit(&live->words[i], memory_order_relaxed);
        }
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && atomic_load_explicit(&live->sequence, memory_order_relaxed) == before) {
            memcpy(record, words, sizeof(*record));
            return true;
        }
    }
    return false;
}
