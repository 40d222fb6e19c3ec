/*
 * page_cache.c - how much of a file the page cache holds, and making it forget it.
 *
 *     page_cache drop FILE      writes it back and drops its pages
 *     page_cache bytes FILE     prints how many of its bytes are cached
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *path)
{
    fprintf(stderr, "page_cache: %s: %s\n", path, strerror(errno));
    return 1;
}

static int print_cached_bytes(int fd, const char *path)
{
    struct stat about;
    if (fstat(fd, &about) != 0) {
        return fail(path);
    }
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t n_pages = ((size_t)about.st_size + page - 1) / page;
    void *mapping = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *cached = malloc(n_pages);
    if (mapping == MAP_FAILED || !cached || mincore(mapping, (size_t)about.st_size, cached) != 0) {
        return fail(path);
    }
    size_t n = 0;
    for (size_t i = 0; i < n_pages; i++) {
        n += cached[i] & 1;
    }
    printf("%zu\n", n * page);
    free(cached);
    munmap(mapping, (size_t)about.st_size);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc == 3 ? argv[1] : "";
    if (strcmp(what, "drop") != 0 && strcmp(what, "bytes") != 0) {
        fputs("usage: page_cache drop|bytes FILE\n", stderr);
        return 2;
    }
    const int fd = open(argv[2], O_RDONLY);
    if (fd < 0) {
        return fail(argv[2]);
    }
    int code = 0;
    if (strcmp(what, "bytes") == 0) {
        code = print_cached_bytes(fd, argv[2]);
    } else {
        errno = fsync(fd) == 0 ? posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) : errno;
        code = errno == 0 ? 0 : fail(argv[2]);
    }
    close(fd);
    return code;
}
