/*
 * watch_linux.c - watch.h for Linux: /proc/meminfo, the control groups around this
 * process, pressure stall information, /proc/self.
 *
 * What always holds: files are opened once and read from their beginning each time,
 * which these file systems answer anew. One that vanishes counts as no limit.
 */
#include "os/watch.h"

#include "base/path.h"
#include "base/status.h"
#include "os/cgroup.h"
#include "os/os.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* v1 writes a number near the largest where there is none. */
#define NO_LIMIT (UINT64_C(1) << 60)

enum {
    MAX_GROUPS = 16,
    TEXT_BYTES = 8192,
};

typedef struct watched_group {
    int limit;
    int high; /* -1: there is none (v1) */
    int used;
    int stat;
    const char *inactive_key;
} watched_group;

struct hypura_os_watch {
    int meminfo;
    int pressure;
    bool pressure_is_own;    /* of the own group, not of the machine */
    uint64_t last_stall_us;  /* as the file told */
    uint64_t counted_us;     /* of these, what concerns this process */
    int statm;
    int n_groups;
    watched_group groups[MAX_GROUPS];
    char text[TEXT_BYTES];
};

static int open_in(const char *dir, const char *name)
{
    char path[4096];
    return hypura_path_join(path, sizeof path, dir, name) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

/* The whole file, terminated; "" when it cannot be read. */
static const char *read_text(hypura_os_watch *watch, int fd)
{
    ssize_t n = 0;
    if (fd >= 0) {
        do {
            n = pread(fd, watch->text, TEXT_BYTES - 1, 0);
        } while (n < 0 && errno == EINTR);
    }
    watch->text[n > 0 ? n : 0] = '\0';
    return watch->text;
}

/* The number after key, which begins a line; 0 if there is none. */
static uint64_t number_after(const char *text, const char *key)
{
    const size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0) {
            return strtoull(line + length, NULL, 10);
        }
        if (*line == '\0') {
            break;
        }
    }
    return 0;
}

/* A file of one number; "max" and what cannot be read are UINT64_MAX. */
static uint64_t read_number(hypura_os_watch *watch, int fd)
{
    const char *text = read_text(watch, fd);
    return isdigit((unsigned char)text[0]) ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/* Stalls of the machine say nothing to who is short of memory by the limit of a group,
 * whose other groups they may be. */
static uint64_t count_stalls(hypura_os_watch *watch, bool machine_is_short)
{
    const char *total = strstr(read_text(watch, watch->pressure), "total="); /* the first line is "some" */
    const uint64_t now_us = total ? strtoull(total + strlen("total="), NULL, 10) : watch->last_stall_us;
    if (now_us > watch->last_stall_us && (watch->pressure_is_own || machine_is_short)) {
        watch->counted_us += now_us - watch->last_stall_us;
    }
    watch->last_stall_us = now_us;
    return watch->counted_us;
}

static void open_group(void *user, const char *dir, bool v2, bool memory, bool cpu)
{
    hypura_os_watch *watch = user;
    (void)cpu;
    if ((!v2 && !memory) || watch->n_groups == MAX_GROUPS) {
        return;
    }
    watched_group group = {
        .limit = open_in(dir, v2 ? "memory.max" : "memory.limit_in_bytes"),
        .high = v2 ? open_in(dir, "memory.high") : -1,
        .used = open_in(dir, v2 ? "memory.current" : "memory.usage_in_bytes"),
        .stat = open_in(dir, "memory.stat"),
        .inactive_key = v2 ? "inactive_file " : "total_inactive_file ",
    };
    if (v2 && watch->pressure < 0) {
        watch->pressure = open_in(dir, "memory.pressure"); /* of the innermost group that has it */
        watch->pressure_is_own = watch->pressure >= 0;
    }
    watch->groups[watch->n_groups++] = group;
}

hypura_status hypura_os_watch_open(const char *root, hypura_os_watch **out, hypura_error *error)
{
    char proc[4096];
    *out = NULL;
    hypura_os_watch *watch = calloc(1, sizeof(*watch));
    if (!watch || !hypura_path_join(proc, sizeof proc, root, "proc")) {
        free(watch);
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to watch memory");
    }
    watch->pressure = -1;
    watch->statm = open_in(proc, "self/statm");
    watch->meminfo = open_in(proc, "meminfo");
    if (watch->meminfo < 0) {
        const int code = errno;
        hypura_os_watch_close(watch);
        return hypura_fail_errno(error, code, "cannot read %s/meminfo", proc);
    }
    hypura_cgroup_visit(root, open_group, watch);
    if (watch->pressure < 0) {
        watch->pressure = open_in(proc, "pressure/memory");
    }
    (void)count_stalls(watch, false);
    watch->counted_us = 0; /* those before do not count */
    *out = watch;
    return HYPURA_OK;
}

static void close_file(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

void hypura_os_watch_close(hypura_os_watch *watch)
{
    if (!watch) {
        return;
    }
    for (int i = 0; i < watch->n_groups; i++) {
        close_file(watch->groups[i].limit);
        close_file(watch->groups[i].high);
        close_file(watch->groups[i].used);
        close_file(watch->groups[i].stat);
    }
    close_file(watch->pressure);
    close_file(watch->statm);
    close_file(watch->meminfo);
    free(watch);
}

static void apply_group(hypura_os_watch *watch, const watched_group *group, hypura_os_scarcity *scarcity)
{
    const uint64_t most = read_number(watch, group->limit);
    const uint64_t high = read_number(watch, group->high);
    const uint64_t limit = high < most ? high : most;
    if (limit >= NO_LIMIT) {
        return;
    }
    uint64_t used = read_number(watch, group->used);
    const uint64_t inactive = number_after(read_text(watch, group->stat), group->inactive_key);
    used = used == UINT64_MAX ? 0 : used;
    used -= inactive < used ? inactive : used;
    const uint64_t available = limit > used ? limit - used : 0;
    scarcity->limit_bytes = limit < scarcity->limit_bytes ? limit : scarcity->limit_bytes;
    scarcity->available_bytes = available < scarcity->available_bytes ? available : scarcity->available_bytes;
}

void hypura_os_watch_read(hypura_os_watch *watch, hypura_os_scarcity *scarcity)
{
    const char *meminfo = read_text(watch, watch->meminfo);
    scarcity->limit_bytes = number_after(meminfo, "MemTotal:") * 1024;
    scarcity->available_bytes = number_after(meminfo, "MemAvailable:") * 1024;
    const uint64_t machine_bytes = scarcity->available_bytes;
    for (int i = 0; i < watch->n_groups; i++) {
        apply_group(watch, &watch->groups[i], scarcity);
    }
    scarcity->stall_us = count_stalls(watch, scarcity->available_bytes == machine_bytes);
    const char *resident = strchr(read_text(watch, watch->statm), ' ');
    scarcity->rss_bytes = resident ? strtoull(resident, NULL, 10) * hypura_os_page_bytes() : 0;
    struct rusage usage;
    scarcity->n_faults = getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_majflt : 0;
}
