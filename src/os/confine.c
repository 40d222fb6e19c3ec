/*
 * confine.c - see confine.h. Linux.
 *
 * Groups: v1 has a hierarchy of its own for memory; in v2 a group that holds
 * processes cannot hand controllers to its children, so the new group lies beside
 * the own one where it cannot lie below it.
 */
#include "os/confine.h"

#include "base/path.h"
#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define V1_ROOT "/sys/fs/cgroup/memory"
#define V2_ROOT "/sys/fs/cgroup"

/* ---- small files --------------------------------------------------------- */

static bool write_number(const char *dir, const char *name, uint64_t value)
{
    char path[4096 + 64];
    char text[32];
    const int length = snprintf(text, sizeof text, "%" PRIu64, value);
    if (!hypura_path_join(path, sizeof path, dir, name)) {
        errno = ENAMETOOLONG;
        return false;
    }
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    const bool ok = write(fd, text, (size_t)length) == length;
    const int e = errno;
    (void)close(fd);
    errno = e;
    return ok;
}

/* ---- groups -------------------------------------------------------------- */

/* The path of this process in the hierarchy that accounts for memory. */
static bool own_group(bool v2, char *path, size_t capacity)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) {
            continue;
        }
        *group++ = '\0';
        controllers++;
        if (v2 ? controllers[0] == '\0' : strcmp(controllers, "memory") == 0) {
            const int n =
                snprintf(path, capacity, "%s%s", v2 ? V2_ROOT : V1_ROOT, strcmp(group, "/") == 0 ? "" : group);
            found = n > 0 && (size_t)n < capacity;
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}

static bool make_group(const char *parent, bool v2, uint64_t limit_bytes, hypura_os_group *group)
{
    const int n = snprintf(group->dir, sizeof group->dir, "%s/hypura-%ld", parent, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof group->dir || mkdir(group->dir, 0755) != 0) {
        group->dir[0] = '\0';
        return false;
    }
    if (!write_number(group->dir, v2 ? "memory.max" : "memory.limit_in_bytes", limit_bytes)) {
        hypura_os_group_close(group);
        return false;
    }
    /* Swap in addition to the limit would be more memory; not every kernel accounts for it. */
    (void)write_number(group->dir, v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes", v2 ? 0 : limit_bytes);
    return true;
}

hypura_status hypura_os_group_open(uint64_t limit_bytes, hypura_os_group *group, hypura_error *error)
{
    char parent[4096];
    bool made = false;
    group->dir[0] = '\0';
    if (own_group(false, parent, sizeof parent)) {
        made = make_group(parent, false, limit_bytes, group);
    }
    if (!made && own_group(true, parent, sizeof parent)) {
        made = make_group(parent, true, limit_bytes, group);
        char *slash = strrchr(parent, '/');
        if (!made && slash && strlen(parent) > strlen(V2_ROOT)) {
            *slash = '\0';
            made = make_group(parent, true, limit_bytes, group);
        }
    }
    if (!made) {
        return hypura_fail(
            error, HYPURA_ERR_UNSUPPORTED,
            "a control group with a memory limit could not be made: run as root, or in a group of your own");
    }
    return HYPURA_OK;
}

bool hypura_os_group_enter(const hypura_os_group *group)
{
    return write_number(group->dir, "cgroup.procs", 0); /* 0: who writes */
}

void hypura_os_group_close(hypura_os_group *group)
{
    static const struct timespec pause = {0, 20 * 1000 * 1000};
    enum { TRIES = 100 };
    /* A group stays busy for a moment after its last process was waited for. */
    for (int i = 0; group->dir[0] != '\0' && i < TRIES; i++) {
        if (rmdir(group->dir) == 0 || errno != EBUSY) {
            group->dir[0] = '\0';
        } else {
            (void)nanosleep(&pause, NULL);
        }
    }
}

/* ---- read-ahead ---------------------------------------------------------- */

/* The folder that holds read_ahead_kb of the drive under path. Partitions have
 * none of their own; file systems over several drives have theirs under bdi. */
static bool read_ahead_folder(const char *path, char *dir, size_t capacity)
{
    static const char *const places[] = {"/sys/dev/block/%u:%u/queue", "/sys/dev/block/%u:%u/../queue",
                                         "/sys/class/bdi/%u:%u"};
    struct stat st;
    if (stat(path, &st) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char file[256];
        char folder[200];
        (void)snprintf(folder, sizeof folder, places[i], major(st.st_dev), minor(st.st_dev));
        (void)snprintf(file, sizeof file, "%s/read_ahead_kb", folder);
        if (access(file, R_OK) == 0) {
            (void)snprintf(dir, capacity, "%s", folder);
            return true;
        }
    }
    return false;
}

hypura_status hypura_os_read_ahead_get(const char *path, uint32_t *kib, hypura_error *error)
{
    char dir[256];
    char name[300];
    bool ok = false;
    if (read_ahead_folder(path, dir, sizeof dir)) {
        (void)snprintf(name, sizeof name, "%s/read_ahead_kb", dir);
        FILE *file = fopen(name, "re");
        ok = file && fscanf(file, "%" SCNu32, kib) == 1;
        if (file) {
            (void)fclose(file);
        }
    }
    return ok ? HYPURA_OK
              : hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: the read-ahead of its drive is not known", path);
}

hypura_status hypura_os_read_ahead_set(const char *path, uint32_t kib, hypura_error *error)
{
    char dir[256];
    if (read_ahead_folder(path, dir, sizeof dir) && write_number(dir, "read_ahead_kb", kib)) {
        return HYPURA_OK;
    }
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: the read-ahead of its drive may not be changed: run as root",
                       path);
}

/* ---- page cache and accounting ------------------------------------------- */

void hypura_os_cache_drop(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
}

bool hypura_os_drive_bytes(uint64_t *bytes)
{
    char line[128];
    bool found = false;
    FILE *file = fopen("/proc/self/io", "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        found = sscanf(line, "read_bytes: %" SCNu64, bytes) == 1;
    }
    if (file) {
        (void)fclose(file);
    }
    return found;
}
