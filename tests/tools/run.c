/*
 * run.c - see run.h.
 */
#include "run.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { LIMITS_UNSET = 113 };

static char folder[512];
static char stderr_text[8192];

int enter_folder(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/test-mkmodel-XXXXXX", parent ? parent : "/tmp");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static void remove_entries(const char *path)
{
    DIR *entries = opendir(path);
    struct dirent *entry;
    while (entries && (entry = readdir(entries)) != NULL) {
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && unlink(name) != 0) {
            remove_entries(name);
            rmdir(name);
        }
    }
    if (entries) {
        closedir(entries);
    }
}

int leave_folder(void **state)
{
    (void)state;
    remove_entries(folder);
    return chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
}

static bool apply(const limits *l)
{
    struct rlimit limit = {.rlim_cur = l->file_bytes, .rlim_max = l->file_bytes};
    if (l->file_bytes > 0 && setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return false;
    }
#ifdef __linux__
    if (l->tmpfs_bytes > 0) {
        char options[64];
        snprintf(options, sizeof options, "size=%llu", (unsigned long long)l->tmpfs_bytes);
        /* a mount namespace of its own: nothing to unmount whatever happens */
        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", "full", "tmpfs", 0, options) != 0) {
            return false;
        }
    }
#else
    if (l->tmpfs_bytes > 0) {
        return false;
    }
#endif
    if (l->signal != 0) {
        /* blocked, it stays pending through exec until the program lets it in */
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, l->signal);
        return sigprocmask(SIG_BLOCK, &set, NULL) == 0 && raise(l->signal) == 0;
    }
    return true;
}

int run_mkmodel_within(const limits *l, const char *const words[])
{
    char *argv[MAX_ARGUMENTS + 2] = {(char *)"mkmodel"};
    for (int i = 0; words[i]; i++) {
        assert_true(i < MAX_ARGUMENTS);
        argv[i + 1] = (char *)(uintptr_t)words[i];
    }
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int out = open("/dev/null", O_WRONLY);
        int err = open("stderr.txt", O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (out < 0 || err < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0 || !apply(l)) {
            _exit(LIMITS_UNSET);
        }
        execv(MKMODEL, argv);
        _exit(LIMITS_UNSET);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    size_t bytes = 0;
    uint8_t *text = read_file("stderr.txt", &bytes);
    bytes = bytes < sizeof stderr_text - 1 ? bytes : sizeof stderr_text - 1;
    memcpy(stderr_text, text, bytes);
    stderr_text[bytes] = '\0';
    free(text);
    unlink("stderr.txt");
    return WIFEXITED(status) && WEXITSTATUS(status) != LIMITS_UNSET ? WEXITSTATUS(status) : -1;
}

int run_mkmodel(const char *const words[])
{
    const limits none = {0};
    return run_mkmodel_within(&none, words);
}

const char *last_stderr(void)
{
    return stderr_text;
}

int count_files(const char *path)
{
    int n = 0;
    DIR *entries = opendir(path);
    assert_non_null(entries);
    while (readdir(entries) != NULL) {
        n++;
    }
    closedir(entries);
    return n - 2; /* . and .. */
}

uint8_t *read_file(const char *path, size_t *bytes)
{
    struct stat file;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &file) != 0) {
        fail_msg("cannot open %s", path);
    }
    *bytes = (size_t)file.st_size;
    uint8_t *data = malloc(*bytes + 1);
    assert_non_null(data);
    assert_int_equal(read(fd, data, *bytes), (ssize_t)*bytes);
    close(fd);
    return data;
}

bool are_equal_files(const char *a, const char *b)
{
    size_t a_bytes = 0;
    size_t b_bytes = 0;
    uint8_t *a_data = read_file(a, &a_bytes);
    uint8_t *b_data = read_file(b, &b_bytes);
    bool equal = a_bytes == b_bytes && memcmp(a_data, b_data, a_bytes) == 0;
    free(a_data);
    free(b_data);
    return equal;
}

gguf_file open_gguf(const char *path)
{
    gguf_file f = {0};
    f.bytes = read_file(path, &f.n_bytes);
    f.header = gguf_init_from_file(path, (struct gguf_init_params){.no_alloc = true});
    assert_non_null(f.header);
    return f;
}

void close_gguf(gguf_file *f)
{
    gguf_free(f->header);
    free(f->bytes);
}

const uint8_t *tensor_data(const gguf_file *f, const char *name, size_t *bytes)
{
    int64_t id = gguf_find_tensor(f->header, name);
    if (id < 0) {
        fail_msg("no tensor %s", name);
    }
    size_t offset = gguf_get_data_offset(f->header) + gguf_get_tensor_offset(f->header, id);
    *bytes = gguf_get_tensor_size(f->header, id);
    assert_true(offset + *bytes <= f->n_bytes);
    return f->bytes + offset;
}
