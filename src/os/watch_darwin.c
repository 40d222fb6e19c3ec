/*
 * watch_darwin.c - watch.h for macOS.
 *
 * The kernel tells a level of memory pressure (normal, warning, critical) and no stall
 * times; time spent at a level counts as partly stalled. Control groups do not exist.
 */
#include "os/watch.h"

#include "base/clock.h"
#include "base/status.h"
#include "os/os.h"

#include <mach/mach.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/sysctl.h>

/* Levels of kern.memorystatus_vm_pressure_level. */
enum {
    LEVEL_WARNING = 2,
    LEVEL_CRITICAL = 4,
};

/* Share of the time that counts as stalled. */
#define WARNING_STALLED  0.15
#define CRITICAL_STALLED 0.5

struct hypura_os_watch {
    uint64_t last_us;
    double stall_us;
};

hypura_status hypura_os_watch_open(const char *root, hypura_os_watch **watch, hypura_error *error)
{
    (void)root;
    *watch = calloc(1, sizeof(**watch));
    if (!*watch) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to watch memory");
    }
    (*watch)->last_us = hypura_clock_us();
    return HYPURA_OK;
}

void hypura_os_watch_close(hypura_os_watch *watch)
{
    free(watch);
}

static double stalled_share(void)
{
    int level = 0;
    size_t bytes = sizeof level;
    if (sysctlbyname("kern.memorystatus_vm_pressure_level", &level, &bytes, NULL, 0) != 0) {
        return 0;
    }
    return level >= LEVEL_CRITICAL ? CRITICAL_STALLED : level >= LEVEL_WARNING ? WARNING_STALLED : 0;
}

void hypura_os_watch_read(hypura_os_watch *watch, hypura_os_scarcity *scarcity)
{
    hypura_os_memory memory = {0};
    (void)hypura_os_memory_read(&memory, NULL);
    const uint64_t now_us = hypura_clock_us();
    watch->stall_us += stalled_share() * (double)(now_us - watch->last_us);
    watch->last_us = now_us;

    mach_task_basic_info_data_t task;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    const bool known = task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)&task, &count) == KERN_SUCCESS;
    struct rusage usage;
    *scarcity = (hypura_os_scarcity){
        .available_bytes = memory.available_bytes,
        .limit_bytes = memory.limit_bytes,
        .rss_bytes = known ? task.resident_size : 0,
        .stall_us = (uint64_t)watch->stall_us,
        .n_faults = getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_majflt : 0,
    };
}
