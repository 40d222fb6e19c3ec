/*
 * posix.c - the functions of os.h that are the same on every system, and posix.h.
 */
#include "os/posix.h"

#include "base/size.h"
#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __APPLE__
#define MODIFIED(st) ((st)->st_mtimespec)
#else
#define MODIFIED(st) ((st)->st_mtim)
#endif

bool hypura_os_same_file(const char *a, const char *b)
{
    struct stat one;
    struct stat other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

hypura_status hypura_os_fail_write(int errno_value, const char *path, uint64_t bytes, hypura_error *error)
{
    char folder[4096];
    char needed[HYPURA_SIZE_TEXT];
    char free_text[HYPURA_SIZE_TEXT];
    hypura_os_drive drive;
    const bool is_full = errno_value == ENOSPC || errno_value == EDQUOT || errno_value == EFBIG;
    if (is_full && snprintf(folder, sizeof folder, "%s", path) < (int)sizeof folder) {
        char *slash = strrchr(folder, '/');
        if (slash && slash != folder) {
            *slash = '\0';
        }
        if (hypura_os_drive_read(folder, &drive, NULL) == HYPURA_OK) {
            return hypura_fail_errno(error, errno_value, "%s needs %s, %s are free", path,
                                     hypura_size_format(bytes, needed, sizeof needed),
                                     hypura_size_format(drive.free_bytes, free_text, sizeof free_text));
        }
    }
    return hypura_fail_errno(error, errno_value, "cannot write %s", path);
}

/* ---- anonymous memory --------------------------------------------------- */

size_t hypura_os_page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

size_t hypura_posix_whole_pages(size_t bytes)
{
    return (size_t)hypura_round_up(bytes, hypura_os_page_bytes());
}

int hypura_posix_protection(unsigned flags)
{
    return flags & HYPURA_OS_MAP_NO_ACCESS ? PROT_NONE : PROT_READ | PROT_WRITE;
}

void hypura_os_memory_unmap(void *address, size_t bytes)
{
    if (address != NULL) {
        (void)munmap(address, hypura_posix_whole_pages(bytes));
    }
}

bool hypura_os_memory_protect(void *address, size_t bytes, hypura_os_access access)
{
    int protection = access == HYPURA_OS_ACCESS_NONE   ? PROT_NONE
                     : access == HYPURA_OS_ACCESS_READ ? PROT_READ
                                                       : PROT_READ | PROT_WRITE;
    return mprotect(address, hypura_posix_whole_pages(bytes), protection) == 0;
}

/* An atomic or with zero is a store that changes nothing, also where somebody else writes to the page
 * meanwhile: the processor does it in one step. ThreadSanitizer would take it for a race with a copy. */
__attribute__((no_sanitize("thread"))) void hypura_posix_touch(uintptr_t first, size_t bytes)
{
    const size_t page = hypura_os_page_bytes();
    for (size_t at = 0; at < bytes; at += page) {
        (void)__atomic_fetch_or((unsigned char *)first + at, 0, __ATOMIC_RELAXED);
    }
}

/* ---- processors ---------------------------------------------------------- */

bool hypura_posix_own(uint64_t *us)
{
    struct rusage own;
    if (getrusage(RUSAGE_SELF, &own) != 0) {
        return false;
    }
    *us = (uint64_t)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) * 1000000u +
          (uint64_t)(own.ru_utime.tv_usec + own.ru_stime.tv_usec);
    return true;
}

bool hypura_posix_others(uint64_t all_us, uint64_t *us)
{
    uint64_t own_us;
    const long n_online = sysconf(_SC_NPROCESSORS_ONLN);
    if (!hypura_posix_own(&own_us) || n_online < 1) {
        return false;
    }
    *us = (all_us > own_us ? all_us - own_us : 0) / (uint64_t)n_online;
    return true;
}

/* ---- files -------------------------------------------------------------- */

bool hypura_os_make_folders(char *path, unsigned mode)
{
    for (char *at = strchr(path + 1, '/');; at = strchr(at + 1, '/')) {
        if (at) {
            *at = '\0';
        }
        const bool made = mkdir(path, (mode_t)mode) == 0 || errno == EEXIST;
        if (!at || !made) {
            return made;
        }
        *at = '/';
    }
}

static void take_identity(const struct stat *st, hypura_os_identity *identity)
{
    *identity = (hypura_os_identity){.device = (uint64_t)st->st_dev,
                                     .inode = (uint64_t)st->st_ino,
                                     .bytes = (uint64_t)st->st_size,
                                     .modified_ns = (int64_t)MODIFIED(st).tv_sec * 1000000000 + MODIFIED(st).tv_nsec};
}

bool hypura_os_identity_of_file(int fd, hypura_os_identity *identity)
{
    struct stat st;
    const bool ok = fstat(fd, &st) == 0;
    if (ok) {
        take_identity(&st, identity);
    }
    return ok;
}

bool hypura_os_identity_of_path(const char *path, hypura_os_identity *identity)
{
    struct stat st;
    const bool ok = stat(path, &st) == 0;
    if (ok) {
        take_identity(&st, identity);
    }
    return ok;
}

int hypura_posix_open(const char *path, int flags)
{
    int fd;
    do { /* a FIFO would wait for a writer */
        fd = open(path, flags | O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    } while (fd < 0 && errno == EINTR);
    if (fd >= 0) { /* which io_uring takes for a wish not to wait for the drive */
        const int set = fcntl(fd, F_GETFL);
        (void)fcntl(fd, F_SETFL, set & ~O_NONBLOCK);
    }
    return fd;
}

hypura_status hypura_posix_take_file(const char *path, hypura_os_file *file, hypura_error *error)
{
    if (file->fd < 0) {
        return hypura_fail_errno(error, errno, "cannot open %s", path);
    }
    struct stat st;
    if (fstat(file->fd, &st) != 0) {
        const int code = errno;
        hypura_os_file_close(file);
        return hypura_fail_errno(error, code, "cannot stat %s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        hypura_os_file_close(file);
        return hypura_fail(error, HYPURA_ERR_IO, "%s is not a regular file", path);
    }
    file->bytes = (uint64_t)st.st_size;
    take_identity(&st, &file->identity);
    return HYPURA_OK;
}

void hypura_os_file_close(hypura_os_file *file)
{
    if (file->fd >= 0) {
        (void)close(file->fd);
        file->fd = -1;
    }
}
