/*
 * store_unused.c - see store.h: files in the folder that no model uses.
 *
 *     .partial/sha256-HEX   what came of a download that was broken off
 *     .blobs/sha256-HEX     a file that was sent for a create that never came
 *
 * Whoever needs such files holds their folder (flock, shared): a pull from its plan to its end, a create, a look whether
 * a file was sent, which makes it as good as new. Only a folder that nobody holds is cleared.
 */
#include "server/models/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_S INT64_C(86400)
/* Between a file that was sent and the create that names it lies, at most, the sending of the others. */
#define SENT_S DAY_S
/* A download that nobody went on with. */
#define PART_S (7 * DAY_S)

int hypura_store_hold(const hypura_models *models, const char *folder)
{
    char path[HYPURA_STORE_PATH_BYTES];
    const int fd = models->folder[0] != '\0' && hypura_store_path(path, "%s%s", models->folder, folder)
                       ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                       : -1;
    int locked = -1;
    while (fd >= 0 && (locked = flock(fd, LOCK_SH)) != 0 && errno == EINTR) {
    }
    if (fd >= 0 && locked != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

void hypura_store_let_go(int held)
{
    if (held >= 0) {
        (void)close(held);
    }
}

/* One that has a second name is a model's, and takes nothing. */
static void see_file(int folder, const char *name, int64_t before_s, bool remove, hypura_unused *unused)
{
    struct stat st;
    if (strncmp(name, "sha256-", 7) != 0 || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(st.st_mode) || (int64_t)st.st_mtime > before_s || (remove && unlinkat(folder, name, 0) != 0)) {
        return;
    }
    unused->n_files++;
    unused->bytes += st.st_nlink == 1 ? (uint64_t)st.st_blocks * 512 : 0;
}

static void see_folder(const hypura_models *models, const char *folder, int64_t age_s, bool remove, hypura_unused *unused)
{
    char path[HYPURA_STORE_PATH_BYTES];
    const int64_t before_s = (int64_t)time(NULL) - age_s;
    DIR *entries = hypura_store_path(path, "%s%s", models->folder, folder) ? opendir(path) : NULL;
    if (entries == NULL) {
        return;
    }
    if (flock(dirfd(entries), LOCK_EX | LOCK_NB) == 0) {
        for (struct dirent *d = readdir(entries); d != NULL; d = readdir(entries)) {
            see_file(dirfd(entries), d->d_name, before_s, remove, unused);
        }
    }
    (void)closedir(entries);
}

hypura_unused hypura_models_unused(const hypura_models *models, hypura_unused_age age, bool remove)
{
    hypura_unused unused = {.n_files = 0};
    if (models->folder[0] != '\0') {
        see_folder(models, HYPURA_STORE_PARTIAL, age == HYPURA_UNUSED_LONG ? PART_S : 0, remove, &unused);
        see_folder(models, HYPURA_STORE_BLOBS, SENT_S, remove, &unused);
    }
    return unused;
}
