/*
 * cgroup.h - limits that Linux control groups put on this process.
 */
#ifndef HYPURA_OS_CGROUP_H
#define HYPURA_OS_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct hypura_cgroup {
    uint64_t limit_bytes;     /* smallest memory limit up to the root; UINT64_MAX: none */
    uint64_t available_bytes; /* smallest (limit - usage + reclaimable cache); UINT64_MAX: no limit */
    double cpus;              /* smallest CPU quota in processors; 0: none */
} hypura_cgroup;

/* Reads root/proc/self/cgroup and root/proc/self/mountinfo, then every group
 * from this process's own up to the mount point, v1 and v2. root is "" on a
 * live system; tests give a folder. What cannot be read counts as no limit. */
void hypura_cgroup_read(const char *root, hypura_cgroup *cgroup);

/* A group around this process: dir is its folder. v2 groups may have every
 * controller, those of v1 the ones told. */
typedef void (*hypura_cgroup_fn)(void *user, const char *dir, bool v2, bool memory, bool cpu);

/* Calls visit for each of these groups, from the own ones up to the mount points. */
void hypura_cgroup_visit(const char *root, hypura_cgroup_fn visit, void *user);

#endif
