/* refusal.c - see refusal.h. */
#include "refusal.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

static _Atomic uint64_t n_calls;
static _Atomic uint64_t refused;
static _Atomic bool counts;

void refusal_begin(uint64_t nth)
{
    n_calls = 0;
    refused = nth;
    counts = true;
}

uint64_t refusal_end(void)
{
    counts = false;
    refused = 0;
    return n_calls;
}

uint64_t refusal_each(refusal_attempt try, const void *what, void (*expect)(const hypura_error *error, uint64_t nth),
                      uint64_t *n_calls_made)
{
    uint64_t n_failed = 0;
    for (uint64_t nth = 1;; nth++) {
        hypura_error error = {.status = HYPURA_OK};
        refusal_begin(nth);
        const hypura_status status = try(what, &error);
        if (refusal_end() < nth) {
            assert_int_equal(status, HYPURA_OK);
            *n_calls_made = nth - 1;
            return n_failed;
        }
        if (status != HYPURA_OK) {
            assert_int_equal(error.status, status);
            assert_true(error.message[0] != '\0');
            if (expect) {
                expect(&error, nth);
            }
            n_failed++;
        }
    }
}

static bool refuse(void)
{
    return counts && ++n_calls == refused;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
int __real_posix_memalign(void **memory, size_t align, size_t bytes);
char *__real_strdup(const char *text);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__real_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
int __wrap_posix_memalign(void **memory, size_t align, size_t bytes);
char *__wrap_strdup(const char *text);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

void *__wrap_malloc(size_t bytes)
{
    return refuse() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return refuse() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return refuse() ? NULL : __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    return refuse() ? NULL : __real_aligned_alloc(align, bytes);
}

int __wrap_posix_memalign(void **memory, size_t align, size_t bytes)
{
    return refuse() ? ENOMEM : __real_posix_memalign(memory, align, bytes);
}

char *__wrap_strdup(const char *text)
{
    return refuse() ? NULL : __real_strdup(text);
}

static bool refuse_mapping(int fd)
{
    const bool now = fd < 0 && refuse();
    errno = now ? ENOMEM : errno;
    return now;
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return refuse_mapping(fd) ? MAP_FAILED : __real_mmap(address, bytes, protection, flags, fd, offset);
}

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    return refuse_mapping(fd) ? MAP_FAILED : __real_mmap64(address, bytes, protection, flags, fd, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    return refuse() ? EAGAIN : __real_pthread_create(thread, attributes, run, argument);
}
