/* The cgroup reader on made-up trees: v1, v2, both, containers, no limits. */
#include "os/cgroup.h"
#include "os/watch.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)

static char root[64];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/hypura-cgroup-XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes root/path, making its folders. */
static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *at = full + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
        *at = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static const char v2_mount[] = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

static void nothing_mounted_is_no_limit(void **state)
{
    (void)state;
    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_true(cgroup.limit_bytes == UINT64_MAX);
    assert_true(cgroup.available_bytes == UINT64_MAX);
    assert_true(cgroup.cpus == 0);
}

static void v2_smallest_of_the_chain(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/user.slice/app.scope\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n");
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/user.slice/memory.max", "104857600\n");
    put("/sys/fs/cgroup/user.slice/memory.current", "83886080\n");
    put("/sys/fs/cgroup/user.slice/memory.stat", "anon 1\nfile 9\ninactive_file 31457280\nactive_file 7\n");
    put("/sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n");
    put("/sys/fs/cgroup/memory.max", "209715200\n");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 100 * MIB);
    assert_int_equal(cgroup.available_bytes, (100 - 80 + 30) * MIB);
    assert_true(cgroup.cpus > 1.49 && cgroup.cpus < 1.51);
}

/* Seen from a namespace of control groups that it is not in: the mount's own group is the nearest that can be read. */
static void a_group_beside_the_mount_is_not_looked_for(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/../other\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/memory.max", "52428800\n");
    put("/sys/fs/other/memory.max", "1048576\n");
    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 50 * MIB);
}

static void v2_larger_limit_may_leave_less(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/a/b/memory.max", "104857600\n");
    put("/sys/fs/cgroup/a/b/memory.current", "1048576\n");
    put("/sys/fs/cgroup/a/memory.max", "1048576000\n");
    put("/sys/fs/cgroup/a/memory.current", "1038090240\n");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 100 * MIB);
    assert_int_equal(cgroup.available_bytes, 10 * MIB);
}

static void v2_high_is_a_limit_and_usage_above_leaves_nothing(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/a\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/a/memory.max", "104857600\n");
    put("/sys/fs/cgroup/a/memory.high", "52428800\n");
    put("/sys/fs/cgroup/a/memory.current", "62914560\n");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 50 * MIB);
    assert_int_equal(cgroup.available_bytes, 0);
}

static void v1_chain_with_huge_root(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "9:name=systemd:/x\n4:memory:/jobs/one\n2:cpu,cpuacct:/jobs\n0::/\n");
    put("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
                                "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
                                "36 31 0:33 / /sys/fs/cgroup/cpu\\040set rw,relatime - cgroup cgroup rw,cpuset\n"
                                "37 31 0:34 / /sys/fs/cgroup/cpu\\040x rw,relatime - cgroup cgroup rw,cpu,cpuacct\n");
    put("/sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", "104857600\n");
    put("/sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", "20971520\n");
    put("/sys/fs/cgroup/memory/jobs/memory.stat", "inactive_file 5\ntotal_inactive_file 10485760\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/cpu x/jobs/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu x/jobs/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu x/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu x/cpu.cfs_period_us", "100000\n");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 100 * MIB);
    assert_int_equal(cgroup.available_bytes, (100 - 20 + 10) * MIB);
    assert_true(cgroup.cpus > 0.49 && cgroup.cpus < 0.51);
}

static void container_sees_its_own_group_at_the_mount(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "4:memory:/docker/abc/inner\n");
    put("/proc/self/mountinfo", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "73400320\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "52428800\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "0\n");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 50 * MIB);
}

static void group_outside_the_mount_falls_to_its_root(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/../../elsewhere\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/sys/fs/cgroup/memory.max", "52428800\n");
    put("/elsewhere/memory.max", "1\n");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 50 * MIB);

    put("/proc/self/cgroup", "0::/other/abc\n");
    put("/proc/self/mountinfo", "29 22 0:26 /docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    hypura_cgroup_read(root, &cgroup);
    assert_int_equal(cgroup.limit_bytes, 50 * MIB);
}

static void rubbish_is_no_limit(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "garbage\n0::/a\n::\n4:memory\n");
    put("/proc/self/mountinfo", "\n1 2\n - cgroup2\n29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("/sys/fs/cgroup/a/memory.max", "-5\n");
    put("/sys/fs/cgroup/a/cpu.max", "\n");
    put("/sys/fs/cgroup/memory.max", "");

    hypura_cgroup cgroup;
    hypura_cgroup_read(root, &cgroup);
    assert_true(cgroup.limit_bytes == UINT64_MAX);
    assert_true(cgroup.available_bytes == UINT64_MAX);
    assert_true(cgroup.cpus == 0);
}

#define TREE(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

/* ---- watching: the same figures again and again ---------------------------- */

static const char meminfo[] = "MemTotal:        1048576 kB\nMemFree:  1 kB\nMemAvailable:     524288 kB\n";

static hypura_os_watch *open_watch(void)
{
    hypura_os_watch *watch = NULL;
    hypura_error error;
    assert_int_equal(hypura_os_watch_open(root, &watch, &error), HYPURA_OK);
    return watch;
}

static void watching_follows_every_change(void **state)
{
    (void)state;
    put("/proc/meminfo", meminfo);
    put("/proc/self/statm", "5000 300 20 1 0 100 0\n");
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/proc/self/mountinfo", v2_mount);
    put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=99\nfull avg10=0 total=7\n");
    put("/sys/fs/cgroup/a/memory.max", "838860800\n");
    put("/sys/fs/cgroup/a/memory.current", "419430400\n");
    put("/sys/fs/cgroup/a/memory.stat", "anon 5\nworkingset_inactive_file 3\ninactive_file 20971520\n");
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.pressure", "some avg10=1.0 avg60=0.00 avg300=0.00 total=1234\nfull total=5\n");
    hypura_os_watch *watch = open_watch();
    hypura_os_scarcity seen;
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.limit_bytes, 800 * MIB);
    assert_int_equal(seen.available_bytes, 420 * MIB);
    assert_int_equal(seen.stall_us, 0);
    assert_int_equal(seen.rss_bytes, 300 * (uint64_t)sysconf(_SC_PAGESIZE));

    put("/sys/fs/cgroup/a/b/memory.pressure", "some avg10=1.0 avg60=0.00 avg300=0.00 total=1300\nfull total=5\n");
    put("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 102400 kB\n");
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.available_bytes, 100 * MIB);
    assert_int_equal(seen.stall_us, 1300 - 1234); /* of the own group */
    put("/sys/fs/cgroup/a/memory.max", "429916160\n");
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.limit_bytes, 410 * MIB);
    assert_int_equal(seen.available_bytes, 30 * MIB);
    put("/sys/fs/cgroup/a/memory.high", "1048576\n"); /* came after: not watched */
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.limit_bytes, 410 * MIB);
    hypura_os_watch_close(watch);
}

static void watching_v1_without_a_limit(void **state)
{
    (void)state;
    put("/proc/meminfo", meminfo);
    put("/proc/self/cgroup", "4:memory:/g\n");
    put("/proc/self/mountinfo", "34 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=99\nfull avg10=0 total=7\n");
    put("/sys/fs/cgroup/memory/g/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/g/memory.usage_in_bytes", "419430400\n");
    hypura_os_watch *watch = open_watch();
    hypura_os_scarcity seen;
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.limit_bytes, 1024 * MIB);
    assert_int_equal(seen.available_bytes, 512 * MIB);
    put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=199\n");
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.stall_us, 100); /* of the machine */
    put("/sys/fs/cgroup/memory/g/memory.limit_in_bytes", "524288000\n");
    put("/sys/fs/cgroup/memory/g/memory.stat", "inactive_file 1\ntotal_inactive_file 10485760\n");
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.available_bytes, 100 * MIB); /* the statistics came after */
    put("/proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=299\n");
    hypura_os_watch_read(watch, &seen);
    assert_int_equal(seen.stall_us, 100); /* now the group's limit counts */
    hypura_os_watch_close(watch);
}

static void nothing_to_watch_is_refused(void **state)
{
    (void)state;
    hypura_os_watch *watch = NULL;
    hypura_error error;
    assert_int_equal(hypura_os_watch_open(root, &watch, &error), HYPURA_ERR_IO);
    assert_null(watch);
    hypura_os_watch_close(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TREE(nothing_mounted_is_no_limit),
        TREE(v2_smallest_of_the_chain),
        TREE(v2_larger_limit_may_leave_less),
        TREE(a_group_beside_the_mount_is_not_looked_for),
        TREE(v2_high_is_a_limit_and_usage_above_leaves_nothing),
        TREE(v1_chain_with_huge_root),
        TREE(container_sees_its_own_group_at_the_mount),
        TREE(group_outside_the_mount_falls_to_its_root),
        TREE(rubbish_is_no_limit),
        TREE(watching_follows_every_change),
        TREE(watching_v1_without_a_limit),
        TREE(nothing_to_watch_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
