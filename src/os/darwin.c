/*
 * darwin.c - os.h for macOS.
 *
 * F_NOCACHE takes the place of O_DIRECT: it asks for no alignment, and pages
 * that are in the cache already are still served from there. There are no
 * control groups; memory pressure has no file to read.
 */
#include "os/os.h"

#include "base/size.h"
#include "base/status.h"
#include "os/posix.h"
#include "os/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <mach/mach.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/sysctl.h>
#include <unistd.h>

/* ---- memory figures ----------------------------------------------------- */

hypura_status hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error)
{
    uint64_t total = 0;
    size_t bytes = sizeof total;
    if (sysctlbyname("hw.memsize", &total, &bytes, NULL, 0) != 0) {
        return hypura_fail_errno(error, errno, "cannot read sysctl hw.memsize");
    }
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&vm, &count) != KERN_SUCCESS) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "the kernel gives no memory statistics");
    }
    uint64_t pages = (uint64_t)vm.free_count + vm.inactive_count + vm.purgeable_count;
    memory->total_bytes = total;
    memory->limit_bytes = total;
    memory->available_bytes = pages * hypura_os_page_bytes();
    if (memory->available_bytes > total) {
        memory->available_bytes = total;
    }
    return HYPURA_OK;
}

uint64_t hypura_os_peak_rss_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss : 0;
}

/* ---- anonymous memory --------------------------------------------------- */

void *hypura_os_memory_map(size_t bytes, unsigned flags)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        errno = ENOMEM;
        return NULL;
    }
    void *memory = mmap(NULL, hypura_posix_whole_pages(bytes), hypura_posix_protection(flags),
                        MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool hypura_os_memory_replace(void *address, size_t bytes, unsigned flags)
{
    if (bytes == 0 || bytes > SIZE_MAX / 2 || (uintptr_t)address % hypura_os_page_bytes() != 0) {
        errno = EINVAL;
        return false;
    }
    return mmap(address, hypura_posix_whole_pages(bytes), hypura_posix_protection(flags),
                MAP_PRIVATE | MAP_ANON | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

bool hypura_os_memory_populate(void *address, size_t bytes)
{
    uintptr_t first = (uintptr_t)hypura_round_down((uintptr_t)address, hypura_os_page_bytes());
    hypura_posix_touch(first, hypura_posix_whole_pages((uintptr_t)address - first + bytes));
    return true;
}

bool hypura_os_memory_collapse(void *address, size_t bytes)
{
    (void)address;
    (void)bytes;
    return false; /* no call for it */
}

bool hypura_os_memory_discard(void *address, size_t bytes)
{
    /* MADV_DONTNEED keeps the contents here; a fresh mapping does not. */
    return hypura_os_memory_replace(address, bytes, HYPURA_OS_MAP_NORESERVE);
}

/* ---- files -------------------------------------------------------------- */

hypura_status hypura_os_file_open(const char *path, bool direct, hypura_os_file *file, hypura_error *error)
{
    *file = (hypura_os_file){.fd = -1, .offset_align = 1, .memory_align = 1};
    file->fd = hypura_posix_open(path, 0);
    const hypura_status status = hypura_posix_take_file(path, file, error);
    file->direct = status == HYPURA_OK && direct && fcntl(file->fd, F_NOCACHE, 1) == 0 &&
                   fcntl(file->fd, F_RDAHEAD, 0) == 0;
    return status;
}

bool hypura_os_file_set_direct(int fd, bool direct)
{
    return fcntl(fd, F_NOCACHE, direct ? 1 : 0) == 0;
}

/* F_NOCACHE reads take what the cache holds from there anyway. */
double hypura_os_file_cached_share(int fd, uint64_t bytes)
{
    (void)fd;
    (void)bytes;
    return 0;
}

/* F_NOCACHE reads leave nothing behind, and there is no call for what others left. */
void hypura_os_file_uncache(int fd)
{
    (void)fd;
}

void hypura_os_mapping_release(const char *path)
{
    (void)path;
}

hypura_status hypura_os_drive_read(const char *path, hypura_os_drive *drive, hypura_error *error)
{
    struct statfs fs;
    if (statfs(path, &fs) != 0) {
        return hypura_fail_errno(error, errno, "cannot stat %s", path);
    }
    (void)snprintf(drive->id, sizeof drive->id, "%.8s-%.50s", fs.f_fstypename, fs.f_mntfromname);
    drive->free_bytes = (uint64_t)fs.f_bavail * fs.f_bsize;
    return HYPURA_OK;
}

bool hypura_os_pipe(int ends[2])
{
    ends[0] = ends[1] = -1;
    if (pipe(ends) != 0) {
        return false;
    }
    /* A program that another thread starts between the two calls inherits them: there is no call for both. */
    if (fcntl(ends[0], F_SETFD, FD_CLOEXEC) != 0 || fcntl(ends[1], F_SETFD, FD_CLOEXEC) != 0) {
        const int code = errno;
        (void)close(ends[0]);
        (void)close(ends[1]);
        ends[0] = ends[1] = -1;
        errno = code;
        return false;
    }
    return true;
}

/* ---- processors --------------------------------------------------------- */

void hypura_os_thread_be_prompt(void)
{
    /* Classes of service are declared by Apple's own headers alone. */
}

bool hypura_os_thread_come_first(void)
{
    return false;
}

void hypura_os_thread_be_ordinary(void)
{
}

int hypura_os_processors(int *processors, int most)
{
    (void)processors, (void)most;
    return 0; /* a thread cannot choose one */
}

bool hypura_os_thread_keeps_to(const int *processors, int n)
{
    (void)processors, (void)n;
    return false;
}

bool hypura_os_thread_keep_to(const int *processors, int n)
{
    (void)processors, (void)n;
    return false;
}

bool hypura_os_others_us(uint64_t *us)
{
    host_cpu_load_info_data_t load;
    mach_msg_type_number_t count = HOST_CPU_LOAD_INFO_COUNT;
    const long ticks_per_s = sysconf(_SC_CLK_TCK);
    if (ticks_per_s < 1 ||
        host_statistics(mach_host_self(), HOST_CPU_LOAD_INFO, (host_info_t)&load, &count) != KERN_SUCCESS) {
        return false;
    }
    const uint64_t ticks = (uint64_t)load.cpu_ticks[CPU_STATE_USER] + load.cpu_ticks[CPU_STATE_NICE] +
                           load.cpu_ticks[CPU_STATE_SYSTEM];
    return hypura_posix_others(ticks * 1000000u / (uint64_t)ticks_per_s, us);
}

uint64_t hypura_os_thread(void)
{
    return pthread_mach_thread_np(pthread_self());
}

static uint64_t time_us(time_value_t user, time_value_t system)
{
    return ((uint64_t)user.seconds + (uint64_t)system.seconds) * 1000000u + (uint64_t)user.microseconds +
           (uint64_t)system.microseconds;
}

uint64_t hypura_os_other_threads_us(uint64_t thread)
{
    thread_basic_info_data_t own;
    mach_msg_type_number_t n = THREAD_BASIC_INFO_COUNT;
    const bool known = thread_info((thread_act_t)thread, THREAD_BASIC_INFO, (thread_info_t)&own, &n) == KERN_SUCCESS;
    const uint64_t own_us = known ? time_us(own.user_time, own.system_time) : 0;
    uint64_t all_us;
    return hypura_posix_own(&all_us) && all_us > own_us ? all_us - own_us : 0;
}

bool hypura_os_waited_us(uint64_t *us)
{
    *us = 0;
    return false;
}

uint64_t hypura_os_shared_cache_bytes(void)
{
    uint64_t bytes = 0;
    size_t   size = sizeof bytes;
    return sysctlbyname("hw.l3cachesize", &bytes, &size, NULL, 0) == 0 && size == sizeof bytes ? bytes : 0;
}

int hypura_os_cpu_count(void)
{
    /* The performance cores: the others slow every barrier down to their pace. */
    static const char *const names[] = {"hw.perflevel0.physicalcpu", "hw.physicalcpu"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int count = 0;
        size_t bytes = sizeof count;
        if (sysctlbyname(names[i], &count, &bytes, NULL, 0) == 0 && count > 0) {
            return count;
        }
    }
    return 1;
}

bool hypura_os_has_gpu(void)
{
    return true; /* Metal is a part of the system */
}

void hypura_os_cpu_name(char *name, size_t capacity)
{
    size_t bytes = capacity;
    if (sysctlbyname("machdep.cpu.brand_string", name, &bytes, NULL, 0) != 0) {
        (void)snprintf(name, capacity, "unknown");
    }
}

/* ---- comparisons: none of it can be had here ------------------------------- */

hypura_status hypura_os_group_open(uint64_t limit_bytes, hypura_os_group *group, hypura_error *error)
{
    (void)limit_bytes;
    group->dir[0] = '\0';
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "macOS has no memory limits for a group of processes");
}

bool hypura_os_group_enter(const hypura_os_group *group)
{
    (void)group;
    return false;
}

void hypura_os_group_close(hypura_os_group *group)
{
    group->dir[0] = '\0';
}

hypura_status hypura_os_read_ahead_get(const char *path, uint32_t *kib, hypura_error *error)
{
    (void)kib;
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: the read-ahead of its drive is not known", path);
}

hypura_status hypura_os_read_ahead_set(const char *path, uint32_t kib, hypura_error *error)
{
    (void)kib;
    return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: the read-ahead of its drive may not be changed", path);
}

void hypura_os_cache_drop(const char *path)
{
    (void)path; /* F_NOCACHE of the reads that follow has to do */
}

bool hypura_os_drive_bytes(uint64_t *bytes)
{
    (void)bytes;
    return false;
}
