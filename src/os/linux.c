/*
 * linux.c - os.h for Linux.
 *
 * What always holds: no state; every system call that can be interrupted is
 * restarted; a kernel too old for a call gets the older way, and only where the
 * older way means the same.
 */
#include "os/os.h"

#include "base/size.h"
#include "base/status.h"
#include "os/cgroup.h"
#include "os/posix.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/* Alignment that every drive and file system in use accepts, for kernels that
 * do not tell (before 6.1). */
#define SAFE_ALIGN 4096u

/* ---- memory figures ----------------------------------------------------- */

hypura_status hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error)
{
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL) {
        return hypura_fail_errno(error, errno, "cannot read /proc/meminfo (is /proc mounted?)");
    }
    uint64_t total = 0;
    uint64_t available = 0;
    char line[128];
    while (fgets(line, sizeof line, file) != NULL) {
        uint64_t kib;
        if (sscanf(line, "MemTotal: %" SCNu64, &kib) == 1) {
            total = kib * 1024;
        } else if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1) {
            available = kib * 1024;
        }
    }
    (void)fclose(file);
    if (total == 0) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "/proc/meminfo has no MemTotal");
    }
    hypura_cgroup cgroup;
    hypura_cgroup_read("", &cgroup);
    memory->total_bytes = total;
    memory->limit_bytes = cgroup.limit_bytes < total ? cgroup.limit_bytes : total;
    memory->available_bytes = cgroup.available_bytes < available ? cgroup.available_bytes : available;
    return HYPURA_OK;
}

uint64_t hypura_os_peak_rss_bytes(void)
{
    /* VmHWM and not ru_maxrss: the latter survives exec, and would tell the
     * size of the shell that started us. */
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    if (file != NULL) {
        char line[128];
        while (fgets(line, sizeof line, file) != NULL && sscanf(line, "VmHWM: %" SCNu64, &kib) != 1) {
        }
        (void)fclose(file);
    }
    return kib * 1024;
}

/* ---- anonymous memory --------------------------------------------------- */

static int map_flags(unsigned flags)
{
    return MAP_PRIVATE | MAP_ANONYMOUS | (flags & HYPURA_OS_MAP_NORESERVE ? MAP_NORESERVE : 0);
}

void *hypura_os_memory_map(size_t bytes, unsigned flags)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        errno = ENOMEM;
        return NULL;
    }
    bytes = hypura_posix_whole_pages(bytes);
    bool huge = flags & HYPURA_OS_MAP_HUGE && bytes >= HUGE_PAGE_BYTES;
    size_t slack = huge ? HUGE_PAGE_BYTES : 0;
    char *memory = mmap(NULL, bytes + slack, hypura_posix_protection(flags), map_flags(flags), -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    if (huge) {
        size_t head = (HUGE_PAGE_BYTES - (uintptr_t)memory % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
        if (head > 0) {
            (void)munmap(memory, head);
        }
        if (slack - head > 0) {
            (void)munmap(memory + head + bytes, slack - head);
        }
        memory += head;
        /* Only advice: without huge pages the memory is slower, not wrong. */
        (void)madvise(memory, bytes, MADV_HUGEPAGE);
    }
    if (flags & HYPURA_OS_MAP_SMALL) {
        (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    }
    return memory;
}

bool hypura_os_memory_replace(void *address, size_t bytes, unsigned flags)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2 || (uintptr_t)address % hypura_os_page_bytes() != 0) {
        errno = EINVAL;
        return false;
    }
    bytes = hypura_posix_whole_pages(bytes);
    if (mmap(address, bytes, hypura_posix_protection(flags), map_flags(flags) | MAP_FIXED, -1, 0) == MAP_FAILED) {
        return false;
    }
    if (flags & HYPURA_OS_MAP_HUGE) {
        (void)madvise(address, bytes, MADV_HUGEPAGE);
    }
    return true;
}

/* MADV_POPULATE_WRITE holds up whoever maps memory meanwhile, each malloc of a large block
 * included, until the whole range is there; a fault locks its own mapping alone. But for a
 * fault it takes a store. Where drives write past the caches, as on small ARM machines, a
 * store beside a read under way could bring back bytes that the drive has replaced. */
#if defined(__x86_64__) || defined(__i386__)
static bool take_pages(uintptr_t first, size_t length)
{
    hypura_posix_touch(first, length);
    return true;
}
#else
static bool take_pages(uintptr_t first, size_t length)
{
    int rc;
    do {
        rc = madvise((void *)first, length, MADV_POPULATE_WRITE);
    } while (rc != 0 && (errno == EINTR || errno == EAGAIN));
    if (rc == 0 || errno != EINVAL) {
        return rc == 0;
    }
    hypura_posix_touch(first, length); /* kernels before 5.14 */
    return true;
}
#endif

bool hypura_os_memory_populate(void *address, size_t bytes)
{
    uintptr_t first = (uintptr_t)hypura_round_down((uintptr_t)address, hypura_os_page_bytes());
    return take_pages(first, hypura_posix_whole_pages((uintptr_t)address - first + bytes));
}

bool hypura_os_memory_collapse(void *address, size_t bytes)
{
    const uintptr_t first = (uintptr_t)hypura_round_up((uintptr_t)address, HUGE_PAGE_BYTES);
    const uintptr_t last = (uintptr_t)hypura_round_down((uintptr_t)address + bytes, HUGE_PAGE_BYTES);
    return first < last && madvise((void *)first, last - first, MADV_COLLAPSE) == 0;
}

bool hypura_os_memory_discard(void *address, size_t bytes)
{
    return madvise(address, hypura_posix_whole_pages(bytes), MADV_DONTNEED) == 0;
}

/* ---- files -------------------------------------------------------------- */

/* False when a direct read of this alignment fails on this file. */
static bool direct_read_works(int fd, uint32_t offset_align)
{
    void *block = hypura_os_memory_map(offset_align, 0);
    if (block == NULL) {
        return true; /* nothing learned: the reads themselves will tell */
    }
    ssize_t got;
    do {
        got = pread(fd, block, offset_align, 0);
    } while (got < 0 && errno == EINTR);
    hypura_os_memory_unmap(block, offset_align);
    return got >= 0;
}

/* Alignments for direct reads of fd; false when it has none to offer. */
static bool direct_alignment(int fd, uint32_t *offset_align, uint32_t *memory_align)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)) {
        return false; /* accepts O_DIRECT since 6.6, and is page cache all the same */
    }
    *offset_align = SAFE_ALIGN;
    *memory_align = SAFE_ALIGN;
#ifdef STATX_DIOALIGN
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN) != 0) {
        if (st.stx_dio_offset_align == 0) {
            return false;
        }
        *offset_align = st.stx_dio_offset_align;
        *memory_align = st.stx_dio_mem_align == 0 ? 1 : st.stx_dio_mem_align;
    }
#endif
    return direct_read_works(fd, *offset_align);
}

hypura_status hypura_os_file_open(const char *path, bool direct, hypura_os_file *file, hypura_error *error)
{
    *file = (hypura_os_file){.fd = -1, .offset_align = 1, .memory_align = 1};
    if (direct) {
        file->fd = hypura_posix_open(path, O_DIRECT);
        if (file->fd >= 0 && !direct_alignment(file->fd, &file->offset_align, &file->memory_align)) {
            (void)close(file->fd);
            file->fd = -1;
            file->offset_align = 1;
            file->memory_align = 1;
        }
        file->direct = file->fd >= 0;
    }
    if (file->fd < 0) {
        file->fd = hypura_posix_open(path, 0);
    }
    return hypura_posix_take_file(path, file, error);
}

bool hypura_os_file_set_direct(int fd, bool direct)
{
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

double hypura_os_file_cached_share(int fd, uint64_t bytes)
{
    enum { SAMPLES = 64, SAMPLE_PAGES = 16 };
    const uint64_t page = hypura_os_page_bytes();
    const uint64_t step = hypura_round_up(bytes / SAMPLES + 1, page);
    unsigned cached = 0;
    unsigned n = 0;
    for (uint64_t at = 0; at + SAMPLE_PAGES * page <= bytes; at += step) {
        unsigned char pages[SAMPLE_PAGES];
        /* mapping reads nothing, and the pages of a mapping can be asked for */
        void *window = mmap(NULL, SAMPLE_PAGES * page, PROT_READ, MAP_SHARED, fd, (off_t)at);
        if (window == MAP_FAILED || mincore(window, SAMPLE_PAGES * page, pages) != 0) {
            hypura_os_memory_unmap(window == MAP_FAILED ? NULL : window, SAMPLE_PAGES * page);
            return 0;
        }
        hypura_os_memory_unmap(window, SAMPLE_PAGES * page);
        for (int i = 0; i < SAMPLE_PAGES; i++, n++) {
            cached += pages[i] & 1;
        }
    }
    return n > 0 ? (double)cached / n : 0;
}

void hypura_os_file_uncache(int fd)
{
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

void hypura_os_mapping_release(const char *path)
{
    hypura_os_identity file;
    FILE *maps = hypura_os_identity_of_path(path, &file) ? fopen("/proc/self/maps", "re") : NULL;
    char line[512]; /* the rest of a longer one, its path, does not look like a mapping */
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t begin;
        uintptr_t end;
        uint64_t inode;
        /* Nothing is lost of a mapping that cannot be written to. */
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " r--s %*s %*s %" SCNu64, &begin, &end, &inode) == 3 &&
            inode == file.inode) {
            (void)madvise((void *)begin, end - begin, MADV_DONTNEED);
        }
    }
    if (maps != NULL) {
        (void)fclose(maps);
    }
}

hypura_status hypura_os_drive_read(const char *path, hypura_os_drive *drive, hypura_error *error)
{
    struct stat st;
    struct statvfs fs;
    struct statfs kind;
    if (stat(path, &st) != 0 || statvfs(path, &fs) != 0 || statfs(path, &kind) != 0) {
        return hypura_fail_errno(error, errno, "cannot stat %s", path);
    }
    /* The file system's own number outlives a reboot, unlike the device's; a few
     * file systems have none. */
    if (fs.f_fsid != 0) {
        (void)snprintf(drive->id, sizeof drive->id, "%lx-%lx", (unsigned long)kind.f_type, fs.f_fsid);
    } else {
        (void)snprintf(drive->id, sizeof drive->id, "%lx-dev%jx", (unsigned long)kind.f_type, (uintmax_t)st.st_dev);
    }
    drive->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return HYPURA_OK;
}

bool hypura_os_pipe(int ends[2])
{
    ends[0] = ends[1] = -1;
    return pipe2(ends, O_CLOEXEC) == 0;
}

/* ---- processors --------------------------------------------------------- */

enum { MAX_CPUS = 8192 };

/* For CPU_ISSET_S and its like: where threads may run is asked while tokens are decoded, which allocates nothing. */
typedef struct processor_set {
    cpu_set_t parts[MAX_CPUS / CPU_SETSIZE];
} processor_set;

/* The first number in a file of the kernel's about a processor; `otherwise` when it does not tell. */
static long number_of(int cpu, const char *name, long otherwise)
{
    char path[96];
    long number = otherwise;
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%ld", &number) != 1) {
            number = otherwise;
        }
        (void)fclose(file);
    }
    return number;
}

/* The first processor of a list of the kernel's, as of all that share something with this one; cpu itself when there is
 * no such list. */
static int first_sharer(int cpu, const char *list)
{
    const long first = number_of(cpu, list, cpu);
    return first >= 0 && first < MAX_CPUS ? (int)first : cpu;
}

bool hypura_os_others_us(uint64_t *us)
{
    /* Work for interrupts is left out: reads of this process make it. */
    uint64_t user = 0;
    uint64_t nice = 0;
    uint64_t system = 0;
    uint64_t stolen = 0;
    FILE *file = fopen("/proc/stat", "re");
    const bool read = file != NULL && fscanf(file, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %*u %*u %*u %*u %" SCNu64,
                                             &user, &nice, &system, &stolen) == 4;
    if (file != NULL) {
        (void)fclose(file);
    }
    const long ticks_per_s = sysconf(_SC_CLK_TCK);
    const uint64_t all_us = ticks_per_s > 0 ? (user + nice + system + stolen) * 1000000u / (uint64_t)ticks_per_s : 0;
    return hypura_posix_others(all_us, us) && read;
}

uint64_t hypura_os_thread(void)
{
    clockid_t clock;
    return pthread_getcpuclockid(pthread_self(), &clock) == 0 ? (uint64_t)(uint32_t)clock : 0;
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now;
    return clock_gettime(clock, &now) == 0 ? (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u : 0;
}

uint64_t hypura_os_other_threads_us(uint64_t thread)
{
    const uint64_t own_us = clock_us((clockid_t)(uint32_t)thread);
    const uint64_t all_us = clock_us(CLOCK_PROCESS_CPUTIME_ID);
    return all_us > own_us ? all_us - own_us : 0;
}

bool hypura_os_waited_us(uint64_t *us)
{
    uint64_t all_ns = 0;
    bool known = false;
    DIR *tasks = opendir("/proc/self/task");
    for (const struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
        char path[sizeof "/proc/self/task//schedstat" + sizeof task->d_name];
        uint64_t waited_ns = 0;
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", task->d_name);
        FILE *file = task->d_name[0] != '.' ? fopen(path, "re") : NULL;
        if (file != NULL) {
            known = fscanf(file, "%*u %" SCNu64, &waited_ns) == 1 || known;
            all_ns += waited_ns;
            (void)fclose(file);
        }
    }
    if (tasks != NULL) {
        (void)closedir(tasks);
    }
    *us = all_ns / 1000;
    return known;
}

/* As of sched_setattr(2), which libc has no declaration of. */
struct scheduling {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t  nice;
    uint32_t priority;
    uint64_t slice_ns; /* of SCHED_OTHER since Linux 6.12; ignored before */
    uint64_t deadline_ns;
    uint64_t period_ns;
};

void hypura_os_thread_be_prompt(void)
{
    struct scheduling s = {.size = sizeof s};
    if (syscall(SYS_sched_getattr, 0, &s, sizeof s, 0) == 0 && s.policy == SCHED_OTHER) {
        s.slice_ns = 100000; /* the least there is */
        (void)syscall(SYS_sched_setattr, 0, &s, 0);
    }
}

bool hypura_os_thread_come_first(void)
{
    const struct sched_param parameters = {.sched_priority = sched_get_priority_min(SCHED_RR)};
    if (pthread_setschedparam(pthread_self(), SCHED_RR, &parameters) == 0) {
        return true;
    }
    hypura_os_thread_be_prompt();
    return false;
}

void hypura_os_thread_be_ordinary(void)
{
    const struct sched_param parameters = {.sched_priority = 0};
    (void)pthread_setschedparam(pthread_self(), SCHED_OTHER, &parameters);
}

int hypura_os_processors(int *processors, int most)
{
    int n = 0;
    processor_set set;
    if (sched_getaffinity(0, sizeof(set), set.parts) != 0) {
        return 0;
    }
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (CPU_ISSET_S((unsigned)cpu, sizeof(set), set.parts)) {
            if (n < most) {
                processors[n] = cpu;
            }
            n++;
        }
    }
    return n;
}

uint64_t hypura_os_shared_cache_bytes(void)
{
    bool     cache_seen[MAX_CPUS] = {false};
    int      processors[MAX_CPUS];
    uint64_t bytes = 0;
    const int n = hypura_os_processors(processors, MAX_CPUS);
    for (int i = 0; i < n; i++) {
        const int first = first_sharer(processors[i], "cache/index3/shared_cpu_list");
        const long kib = number_of(processors[i], "cache/index3/size", 0);
        bytes += cache_seen[first] || kib < 0 ? 0 : (uint64_t)kib * 1024;
        cache_seen[first] = true;
    }
    return bytes;
}

bool hypura_os_thread_keeps_to(const int *processors, int n)
{
    processor_set set;
    bool keeps = sched_getaffinity(0, sizeof(set), set.parts) == 0 && CPU_COUNT_S(sizeof(set), set.parts) == n;
    for (int i = 0; i < n && keeps; i++) {
        keeps = CPU_ISSET_S((unsigned)processors[i], sizeof(set), set.parts);
    }
    return keeps;
}

bool hypura_os_thread_keep_to(const int *processors, int n)
{
    processor_set set = {0};
    for (int i = 0; i < n; i++) {
        CPU_SET_S((unsigned)processors[i], sizeof(set), set.parts);
    }
    return sched_setaffinity(0, sizeof(set), set.parts) == 0;
}

int hypura_os_cpu_count(void)
{
    bool core_seen[MAX_CPUS] = {false};
    int processors[MAX_CPUS];
    int cores = 0;
    const int n = hypura_os_processors(processors, MAX_CPUS);
    for (int i = 0; i < n; i++) {
        const int core = first_sharer(processors[i], "topology/thread_siblings_list");
        cores += !core_seen[core];
        core_seen[core] = true;
    }
    if (cores == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        cores = online > 0 ? (int)online : 1;
    }
    /* Rounded down: a thread beyond the quota stops all of them at a barrier. */
    hypura_cgroup cgroup;
    hypura_cgroup_read("", &cgroup);
    if (cgroup.cpus > 0 && cgroup.cpus < cores) {
        cores = cgroup.cpus < 1 ? 1 : (int)cgroup.cpus;
    }
    return cores;
}

bool hypura_os_has_gpu(void)
{
    /* NVIDIA's driver, AMD's compute driver, a GPU lent by Windows. */
    static const char *const nodes[] = {"/dev/nvidiactl", "/dev/kfd", "/dev/dxg"};
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        if (access(nodes[i], F_OK) == 0) {
            return true;
        }
    }
    /* All others make a node there for each device that renders. */
    bool found = false;
    DIR *folder = opendir("/dev/dri");
    for (struct dirent *entry; folder && !found && (entry = readdir(folder)) != NULL;) {
        found = strncmp(entry->d_name, "renderD", strlen("renderD")) == 0;
    }
    if (folder) {
        (void)closedir(folder);
    }
    return found;
}

void hypura_os_cpu_name(char *name, size_t capacity)
{
    (void)snprintf(name, capacity, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL) {
        return;
    }
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        char *value = strchr(line, ':');
        if (value != NULL && (strncmp(line, "model name", 10) == 0 || strncmp(line, "Model", 5) == 0)) {
            value += strspn(value, ": \t");
            value[strcspn(value, "\n")] = '\0';
            (void)snprintf(name, capacity, "%s", value);
            break;
        }
    }
    (void)fclose(file);
}
