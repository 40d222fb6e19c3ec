/*
 * cgroup.c - memory and CPU limits of the control groups around this process.
 *
 * A limit anywhere between the own group and the root binds, so the whole chain
 * is read. Both versions may be mounted at once (hybrid systems), each with some
 * of the controllers: every line of /proc/self/cgroup is resolved by itself.
 *
 *     /proc/self/cgroup      which group, as a path inside its hierarchy
 *     /proc/self/mountinfo   where that hierarchy is mounted, and which of its
 *                            folders is the mount's root (containers)
 *
 * The page cache of a group counts as used and is given back under pressure, as
 * far as it is not in active use: inactive_file is subtracted, as kubelet does.
 *
 * Files and meanings: Documentation/admin-guide/cgroup-v2.rst and
 * cgroup-v1/memory.rst of the Linux kernel.
 */
#include "os/cgroup.h"

#include "base/path.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "No limit" in v1 is the largest page-aligned number of the kernel's counters;
 * no machine has this much. */
#define NO_LIMIT (UINT64_C(1) << 60)

enum { LINE = 4096 };

static FILE *open_in(const char *dir, const char *name)
{
    char path[LINE + 64];
    return hypura_path_join(path, sizeof path, dir, name) ? fopen(path, "re") : NULL;
}

/* First line of dir/name without its newline; false when there is none. */
static bool read_line(const char *dir, const char *name, char *line, size_t capacity)
{
    FILE *file = open_in(dir, name);
    if (file == NULL) {
        return false;
    }
    bool ok = fgets(line, (int)capacity, file) != NULL;
    (void)fclose(file);
    if (ok) {
        line[strcspn(line, "\n")] = '\0';
    }
    return ok;
}

/* A byte count; "max", huge and unreadable ones are UINT64_MAX. */
static uint64_t read_limit(const char *dir, const char *name)
{
    char line[64];
    if (!read_line(dir, name, line, sizeof line) || !isdigit((unsigned char)line[0])) {
        return UINT64_MAX;
    }
    uint64_t value = strtoull(line, NULL, 10);
    return value >= NO_LIMIT ? UINT64_MAX : value;
}

/* Value of a "key value" line of dir/memory.stat, 0 when absent. */
static uint64_t read_stat(const char *dir, const char *key)
{
    FILE *file = open_in(dir, "memory.stat");
    if (file == NULL) {
        return 0;
    }
    uint64_t value = 0;
    size_t key_bytes = strlen(key);
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, key_bytes) == 0 && line[key_bytes] == ' ') {
            value = strtoull(line + key_bytes + 1, NULL, 10);
            break;
        }
    }
    (void)fclose(file);
    return value;
}

static void apply_memory(hypura_cgroup *cgroup, uint64_t limit, uint64_t used, uint64_t inactive)
{
    if (limit == UINT64_MAX) {
        return;
    }
    if (used == UINT64_MAX) {
        used = 0;
    }
    used -= inactive < used ? inactive : used;
    uint64_t available = limit > used ? limit - used : 0;
    if (limit < cgroup->limit_bytes) {
        cgroup->limit_bytes = limit;
    }
    if (available < cgroup->available_bytes) {
        cgroup->available_bytes = available;
    }
}

static void apply_quota(hypura_cgroup *cgroup, double quota_us, double period_us)
{
    if (quota_us > 0 && period_us > 0) {
        double cpus = quota_us / period_us;
        if (cgroup->cpus == 0 || cpus < cgroup->cpus) {
            cgroup->cpus = cpus;
        }
    }
}

static void apply_group_v2(hypura_cgroup *cgroup, const char *dir)
{
    /* memory.high does not kill, but whoever is above it is slowed to a crawl. */
    uint64_t limit = read_limit(dir, "memory.max");
    uint64_t high = read_limit(dir, "memory.high");
    if (high < limit) {
        limit = high;
    }
    if (limit != UINT64_MAX) {
        apply_memory(cgroup, limit, read_limit(dir, "memory.current"), read_stat(dir, "inactive_file"));
    }
    char line[64];
    if (read_line(dir, "cpu.max", line, sizeof line)) {
        char *end;
        double quota = strtod(line, &end); /* "max" leaves 0 */
        apply_quota(cgroup, quota, strtod(end, NULL));
    }
}

static void apply_group_v1(hypura_cgroup *cgroup, const char *dir, bool memory, bool cpu)
{
    if (memory) {
        uint64_t limit = read_limit(dir, "memory.limit_in_bytes");
        if (limit != UINT64_MAX) {
            apply_memory(cgroup, limit, read_limit(dir, "memory.usage_in_bytes"),
                         read_stat(dir, "total_inactive_file"));
        }
    }
    char line[64];
    if (cpu && read_line(dir, "cpu.cfs_quota_us", line, sizeof line)) {
        double quota = strtod(line, NULL); /* -1: none */
        if (read_line(dir, "cpu.cfs_period_us", line, sizeof line)) {
            apply_quota(cgroup, quota, strtod(line, NULL));
        }
    }
}

/* True when the comma-separated list holds word. */
static bool list_has(const char *list, const char *word)
{
    size_t word_bytes = strlen(word);
    while (list != NULL && *list != '\0') {
        size_t n = strcspn(list, ",\n ");
        if (n == word_bytes && strncmp(list, word, n) == 0) {
            return true;
        }
        list += n;
        if (*list != ',') {
            return false;
        }
        list++;
    }
    return false;
}

/* Undoes mountinfo's octal escapes (\040 is a space) in place. */
static void unescape(char *text)
{
    char *out = text;
    for (; *text != '\0'; out++) {
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' && text[3] >= '0' &&
            text[3] <= '7') {
            *out = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 4;
        } else {
            *out = *text++;
        }
    }
    *out = '\0';
}

typedef struct mount {
    char root[LINE];  /* folder of the hierarchy that is mounted */
    char point[LINE]; /* where */
} mount;

/* Finds the mount of the v2 hierarchy (controller NULL) or of a v1 controller:
 * "36 35 98:0 /root /point options... - type source super,options". */
static bool find_mount(const char *root, const char *controller, mount *found)
{
    FILE *file = open_in(root, "proc/self/mountinfo");
    if (file == NULL) {
        return false;
    }
    bool ok = false;
    char *line = NULL;
    size_t capacity = 0;
    while (!ok && getline(&line, &capacity, file) > 0) {
        char *rest = strstr(line, " - ");
        char type[32];
        char options[1024];
        if (rest == NULL || sscanf(rest, " - %31s %*s %1023s", type, options) != 2 ||
            sscanf(line, "%*s %*s %*s %4095s %4095s", found->root, found->point) != 2) {
            continue;
        }
        ok = controller == NULL ? strcmp(type, "cgroup2") == 0
                                : strcmp(type, "cgroup") == 0 && list_has(options, controller);
    }
    free(line);
    (void)fclose(file);
    if (ok) {
        unescape(found->root);
        unescape(found->point);
    }
    return ok;
}

/* Path of the group below the mount point: "" for the mount's root, also when
 * the group lies outside of what is mounted. */
static const char *relative_group(const mount *m, const char *group)
{
    size_t root_bytes = strcmp(m->root, "/") == 0 ? 0 : strlen(m->root);
    if (strncmp(group, m->root, root_bytes) != 0 || (group[root_bytes] != '/' && group[root_bytes] != '\0')) {
        return "";
    }
    group += root_bytes;
    return strcmp(group, "/") == 0 || strstr(group, "/..") != NULL ? "" : group;
}

/* One line of /proc/self/cgroup: "4:memory:/group" or "0::/group". */
static void visit_hierarchy(const char *root, const char *controllers, const char *group, hypura_cgroup_fn visit,
                            void *user)
{
    bool v2 = *controllers == '\0';
    bool memory = list_has(controllers, "memory");
    bool cpu = list_has(controllers, "cpu");
    mount m;
    if ((!v2 && !memory && !cpu) || !find_mount(root, v2 ? NULL : memory ? "memory" : "cpu", &m)) {
        return;
    }
    char dir[LINE];
    int top = snprintf(dir, sizeof dir, "%s%s", root, m.point);
    int n = top < 0 || (size_t)top >= sizeof dir
                ? -1
                : snprintf(dir + top, sizeof dir - (size_t)top, "%s", relative_group(&m, group));
    if (n < 0 || (size_t)n >= sizeof dir - (size_t)top) {
        return;
    }
    for (;;) {
        visit(user, dir, v2, memory, cpu);
        char *slash = strrchr(dir + top, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

void hypura_cgroup_visit(const char *root, hypura_cgroup_fn visit, void *user)
{
    FILE *file = open_in(root, "proc/self/cgroup");
    if (file == NULL) {
        return;
    }
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, file) > 0) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group != NULL) {
            *group = '\0';
            visit_hierarchy(root, controllers + 1, group + 1, visit, user);
        }
    }
    free(line);
    (void)fclose(file);
}

static void apply_group(void *user, const char *dir, bool v2, bool memory, bool cpu)
{
    if (v2) {
        apply_group_v2(user, dir);
    } else {
        apply_group_v1(user, dir, memory, cpu);
    }
}

void hypura_cgroup_read(const char *root, hypura_cgroup *cgroup)
{
    *cgroup = (hypura_cgroup){.limit_bytes = UINT64_MAX, .available_bytes = UINT64_MAX};
    hypura_cgroup_visit(root, apply_group, cgroup);
}
