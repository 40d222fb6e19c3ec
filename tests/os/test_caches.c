/*
 * test_caches.c - which third-level caches are counted, on machines made up here: what the kernel tells of their processors
 * is told by this test.
 */
#include "os/os.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

enum { MOST_PROCESSORS = 64 };

static struct {
    int n_processors;
    int n_sharing; /* each cache; 0: the kernel tells of none */
    int cache_mib;
    bool allowed[MOST_PROCESSORS];
} machine;

int __wrap_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set);
/* Which of the two names a build calls depends on its C library. */
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);
FILE *__real_fopen(const char *path, const char *mode);

int __wrap_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set)
{
    (void)pid;
    memset(set, 0, bytes);
    for (int cpu = 0; cpu < machine.n_processors; cpu++) {
        if (machine.allowed[cpu]) {
            CPU_SET_S((unsigned)cpu, bytes, set);
        }
    }
    return 0;
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
    static char text[32];
    char name[32];
    int cpu;
    if (sscanf(path, "/sys/devices/system/cpu/cpu%d/cache/index3/%31s", &cpu, name) != 2) {
        return __real_fopen(path, mode);
    }
    if (machine.n_sharing == 0) {
        return NULL;
    }
    if (strcmp(name, "size") == 0) {
        (void)snprintf(text, sizeof text, "%dK\n", machine.cache_mib * 1024);
    } else {
        const int first = cpu / machine.n_sharing * machine.n_sharing;
        (void)snprintf(text, sizeof text, "%d-%d\n", first, first + machine.n_sharing - 1);
    }
    return fmemopen(text, strlen(text), "r");
}

FILE *__wrap_fopen64(const char *path, const char *mode)
{
    return __wrap_fopen(path, mode);
}

static void make_machine(int n_processors, int n_sharing, int cache_mib)
{
    machine.n_processors = n_processors;
    machine.n_sharing = n_sharing;
    machine.cache_mib = cache_mib;
    for (int cpu = 0; cpu < MOST_PROCESSORS; cpu++) {
        machine.allowed[cpu] = cpu < n_processors;
    }
}

static void a_cache_of_all_counts_once(void **state)
{
    (void)state;
    make_machine(16, 16, 300);
    assert_int_equal(hypura_os_shared_cache_bytes(), 300 * MIB);
}

static void each_group_has_one(void **state)
{
    (void)state;
    make_machine(64, 8, 32);
    assert_int_equal(hypura_os_shared_cache_bytes(), 256 * MIB);
}

static void groups_without_a_processor_of_ours_do_not_count(void **state)
{
    (void)state;
    make_machine(64, 8, 32);
    memset(machine.allowed, 0, sizeof machine.allowed);
    machine.allowed[7] = machine.allowed[8] = machine.allowed[9] = true;
    assert_int_equal(hypura_os_shared_cache_bytes(), 64 * MIB);
}

static void none_may_be_known(void **state)
{
    (void)state;
    make_machine(8, 0, 32);
    assert_int_equal(hypura_os_shared_cache_bytes(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_cache_of_all_counts_once), cmocka_unit_test(each_group_has_one),
                                       cmocka_unit_test(groups_without_a_processor_of_ours_do_not_count),
                                       cmocka_unit_test(none_may_be_known)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
