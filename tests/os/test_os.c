/* The system layer on the machine that runs the tests. */
#include "os/os.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static void memory_figures_agree(void **state)
{
    (void)state;
    hypura_os_memory memory;
    hypura_error error;
    assert_int_equal(hypura_os_memory_read(&memory, &error), HYPURA_OK);
    assert_true(memory.total_bytes >= 64 * MIB);
    assert_true(memory.limit_bytes > 0 && memory.limit_bytes <= memory.total_bytes);
    assert_true(memory.available_bytes > 0 && memory.available_bytes <= memory.limit_bytes);
}

static void mapped_memory_is_zero_and_writable(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags < 4; flags++) {
        size_t bytes = 5 * MIB + 1;
        unsigned char *memory = hypura_os_memory_map(bytes, flags);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % hypura_os_page_bytes(), 0);
        assert_int_equal(memory[0] | memory[bytes - 1], 0);
        memory[bytes - 1] = 7;
        assert_true(hypura_os_memory_populate(memory + 1, bytes - 1));
        assert_int_equal(memory[bytes - 1], 7);
        assert_true(hypura_os_memory_discard(memory, bytes));
        assert_int_equal(memory[bytes - 1], 0);
        hypura_os_memory_unmap(memory, bytes);
    }
    assert_null(hypura_os_memory_map(0, 0));
    assert_null(hypura_os_memory_map(SIZE_MAX, HYPURA_OS_MAP_NORESERVE));
    hypura_os_memory_unmap(NULL, 1);
}

static void collapsing_keeps_what_lies_in_memory(void **state)
{
    (void)state;
    size_t bytes = 9 * MIB + 3;
    unsigned char *memory = hypura_os_memory_map(bytes, 0);
    assert_non_null(memory);
    for (size_t i = 0; i < bytes; i++) {
        memory[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    (void)hypura_os_memory_collapse(memory + 1, bytes - 1); /* a system may have no huge page to give */
    for (size_t i = 0; i < bytes; i++) {
        assert_int_equal(memory[i], (unsigned char)(i * 2654435761u >> 13));
    }
    assert_false(hypura_os_memory_collapse(memory, 4096)); /* holds no huge page */
    hypura_os_memory_unmap(memory, bytes);
}

static void a_reservation_takes_no_memory(void **state)
{
    (void)state;
    size_t bytes = (size_t)1 << 38; /* ThreadSanitizer leaves little more */
    char *memory = hypura_os_memory_map(bytes, HYPURA_OS_MAP_NORESERVE | HYPURA_OS_MAP_NO_ACCESS);
    assert_non_null(memory);
    assert_true(hypura_os_memory_protect(memory + MIB, MIB, HYPURA_OS_ACCESS_READ_WRITE));
    memory[MIB] = 1;
    assert_true(hypura_os_memory_protect(memory + MIB, MIB, HYPURA_OS_ACCESS_READ));
    assert_int_equal(memory[MIB], 1);
    hypura_os_memory_unmap(memory, bytes);
}

static void no_access_really_faults(void **state)
{
    (void)state;
    /* A system call answers EFAULT where an access would kill the test. */
    char *memory = hypura_os_memory_map(MIB, 0);
    int fd = open("/dev/zero", O_RDONLY);
    assert_true(memory != NULL && fd >= 0);
    assert_int_equal(read(fd, memory, 16), 16);
    assert_true(hypura_os_memory_protect(memory, MIB, HYPURA_OS_ACCESS_READ));
    assert_int_equal(read(fd, memory, 16), -1);
    assert_true(hypura_os_memory_protect(memory, MIB, HYPURA_OS_ACCESS_NONE));
    assert_int_equal(read(fd, memory, 16), -1);
    close(fd);
    hypura_os_memory_unmap(memory, MIB);
}

typedef struct temporary {
    char path[64];
    size_t bytes;
} temporary;

static int make_file(void **state)
{
    static temporary file;
    file.bytes = MIB + 77;
    snprintf(file.path, sizeof file.path, "./hypura-os-XXXXXX");
    int fd = mkstemp(file.path);
    char *data = malloc(file.bytes);
    if (fd < 0 || data == NULL) {
        return -1;
    }
    memset(data, 'x', file.bytes);
    ssize_t written = write(fd, data, file.bytes);
    close(fd);
    free(data);
    *state = &file;
    return written == (ssize_t)file.bytes ? 0 : -1;
}

static int remove_file(void **state)
{
    return unlink(((temporary *)*state)->path);
}

static void a_file_mapping_becomes_anonymous(void **state)
{
    temporary *file = *state;
    int fd = open(file->path, O_RDONLY);
    assert_true(fd >= 0);
    char *memory = mmap(NULL, file->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_true(memory != MAP_FAILED);
    close(fd);
    size_t page = hypura_os_page_bytes();
    assert_true(hypura_os_memory_replace(memory + page, 2 * page, 0));
    assert_int_equal(memory[page - 1], 'x');
    assert_int_equal(memory[page], 0);
    memory[3 * page - 1] = 'y';
    assert_int_equal(memory[3 * page], 'x');
    assert_false(hypura_os_memory_replace(memory + 1, page, 0));
    hypura_os_memory_unmap(memory, file->bytes);
}

static void opened_files_tell_their_alignment(void **state)
{
    temporary *temporary_file = *state;
    for (int direct = 0; direct < 2; direct++) {
        hypura_os_file file;
        hypura_error error;
        assert_int_equal(hypura_os_file_open(temporary_file->path, direct != 0, &file, &error), HYPURA_OK);
        assert_int_equal(file.bytes, temporary_file->bytes);
        assert_int_equal(file.offset_align & (file.offset_align - 1), 0);
        assert_int_equal(file.memory_align & (file.memory_align - 1), 0);
        assert_true(file.offset_align >= 1 && file.memory_align >= 1);
        if (!file.direct) {
            assert_int_equal(file.offset_align, 1);
            assert_int_equal(file.memory_align, 1);
        }
        assert_true(direct != 0 || !file.direct);
        char *block = hypura_os_memory_map(64 * 1024, 0);
        assert_int_equal(pread(file.fd, block, file.offset_align, file.offset_align), file.offset_align);
        assert_int_equal(block[0], 'x');
        assert_int_equal(fcntl(file.fd, F_GETFL) & O_NONBLOCK, 0);
        hypura_os_memory_unmap(block, 64 * 1024);
        hypura_os_file_close(&file);
        assert_int_equal(file.fd, -1);
    }
}

static void refused_files_are_named(void **state)
{
    (void)state;
    hypura_os_file file;
    hypura_error error;
    assert_int_equal(hypura_os_file_open("/no/such/file", true, &file, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "/no/such/file"));
    assert_int_equal(hypura_os_file_open("/", true, &file, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "not a regular file"));
    assert_int_equal(mkfifo("./hypura-fifo", 0600), 0); /* nobody writes to it: it is not waited for */
    assert_int_equal(hypura_os_file_open("./hypura-fifo", true, &file, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "not a regular file"));
    assert_int_equal(unlink("./hypura-fifo"), 0);
    assert_int_equal(file.fd, -1);
}

#ifdef __linux__
/* Pages of shared memory and files that this process holds now. */
static long shared_pages(void)
{
    long total, resident, shared;
    FILE *figures = fopen("/proc/self/statm", "r");
    assert_non_null(figures);
    assert_int_equal(fscanf(figures, "%ld %ld %ld", &total, &resident, &shared), 3);
    fclose(figures);
    return shared;
}

static void mappings_are_given_back(void **state)
{
    temporary *file = *state;
    const int fd = open(file->path, O_RDWR);
    assert_true(fd >= 0);
    const size_t bytes = 32 * MIB;
    const long pages = (long)(bytes / hypura_os_page_bytes());
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    volatile char *shared = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    volatile char *own = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    assert_true(shared != MAP_FAILED && own != MAP_FAILED);
    for (size_t at = 0; at < bytes; at += hypura_os_page_bytes()) {
        (void)shared[at];
    }
    own[4096] = 1;
    const long before = shared_pages();
    hypura_os_mapping_release("/no/such/file");
    assert_true(shared_pages() > before - pages / 2);
    hypura_os_mapping_release(file->path);
    assert_true(shared_pages() <= before - pages + pages / 8);
    assert_int_equal(own[4096], 1); /* what is nowhere else stays */
    assert_int_equal(shared[4096], 'x');
    munmap((void *)shared, bytes);
    munmap((void *)own, bytes);
    close(fd);
}

static void identities_tell_files_apart(void **state)
{
    temporary *file = *state;
    const int fd = open(file->path, O_RDWR);
    assert_true(fd >= 0);
    hypura_os_identity before, now;
    char moved[128];
    assert_true(hypura_os_identity_of_file(fd, &before));
    assert_true(hypura_os_identity_of_path(file->path, &now));
    assert_memory_equal(&before, &now, sizeof(now));
    snprintf(moved, sizeof(moved), "%s.moved", file->path);
    assert_int_equal(rename(file->path, moved), 0);
    assert_false(hypura_os_identity_of_path(file->path, &now));
    assert_true(hypura_os_identity_of_file(fd, &now));
    assert_memory_equal(&before, &now, sizeof(now));
    assert_int_equal(rename(moved, file->path), 0);
    usleep(20000); /* file systems count time in steps of some milliseconds */
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_true(hypura_os_identity_of_file(fd, &now));
    assert_true(now.modified_ns > before.modified_ns);
    assert_true(hypura_os_identity_of_path("/", &now));
    assert_true(now.inode != before.inode || now.device != before.device);
    close(fd);
}
#endif

static void drives_have_an_identity(void **state)
{
    temporary *file = *state;
    hypura_os_drive folder_drive;
    hypura_os_drive file_drive;
    hypura_error error;
    assert_int_equal(hypura_os_drive_read(".", &folder_drive, &error), HYPURA_OK);
    assert_int_equal(hypura_os_drive_read(file->path, &file_drive, &error), HYPURA_OK);
    assert_string_equal(folder_drive.id, file_drive.id);
    assert_true(strlen(folder_drive.id) > 0);
    assert_int_equal(hypura_os_drive_read("/no/such/folder", &file_drive, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "/no/such/folder"));
}

static void processors_are_counted(void **state)
{
    (void)state;
    int count = hypura_os_cpu_count();
    assert_true(count >= 1 && count <= sysconf(_SC_NPROCESSORS_ONLN));
    char name[16];
    hypura_os_cpu_name(name, sizeof name);
    assert_true(strlen(name) > 0 && strlen(name) < sizeof name);
    /* In bytes: below that no cache shared by processors is worth the name. */
    const uint64_t cache = hypura_os_shared_cache_bytes();
    assert_true(cache == 0 || (cache >= 256 * 1024 && cache < (uint64_t)1 << 34));
}

/* Until this process itself had a processor for so long. */
static void compute_for(uint64_t span_us)
{
    const clock_t end = clock() + (clock_t)(span_us * CLOCKS_PER_SEC / 1000000u);
    while (clock() < end) {
    }
}

/* Both for a quarter of a second: what another program had is others' time, what this one had is not. */
static void *compute_in_a_thread(void *span_us)
{
    compute_for(*(const uint64_t *)span_us);
    return NULL;
}

static void time_of_other_threads_is_theirs_alone(void **state)
{
    (void)state;
    uint64_t span_us = 60000;
    pthread_t other;
    const uint64_t self = hypura_os_thread();
    const uint64_t begin_us = hypura_os_other_threads_us(self);
    compute_for(span_us);
    const uint64_t alone_us = hypura_os_other_threads_us(self) - begin_us;
    assert_int_equal(pthread_create(&other, NULL, compute_in_a_thread, &span_us), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
    const uint64_t together_us = hypura_os_other_threads_us(self) - begin_us;
    assert_true(alone_us + span_us / 10 < span_us / 5); /* also a little below 0 */
    assert_true(together_us + span_us / 10 >= span_us);
}

static void time_of_others_is_not_ours(void **state)
{
    (void)state;
    enum { SPAN_US = 250000, TICKS_US = 60000 };
    const uint64_t n_online = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t before_us;
    uint64_t after_us;
    struct timespec begin;
    struct timespec end;
    if (!hypura_os_others_us(&before_us)) {
        skip();
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    const pid_t other = fork();
    assert_true(other >= 0);
    compute_for(SPAN_US);
    if (other == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(other, NULL, 0), other);
    assert_true(hypura_os_others_us(&after_us));
    clock_gettime(CLOCK_MONOTONIC, &end);
    const uint64_t passed_us = (uint64_t)((end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000);
    assert_true(after_us - before_us + TICKS_US / n_online >= SPAN_US / n_online);
    assert_true(after_us - before_us <= passed_us - SPAN_US / n_online + TICKS_US);
}

static void peak_memory_grows(void **state)
{
    (void)state;
    uint64_t before = hypura_os_peak_rss_bytes();
    char *memory = hypura_os_memory_map(64 * MIB, 0);
    assert_true(hypura_os_memory_populate(memory, 64 * MIB));
    hypura_os_memory_unmap(memory, 64 * MIB);
    assert_true(hypura_os_peak_rss_bytes() >= before);
    assert_true(hypura_os_peak_rss_bytes() >= 64 * MIB);
}

/* Whether it is permitted depends on who runs the tests; what is told must be so. */
static void a_thread_comes_first_and_goes_back(void **state)
{
    (void)state;
    const bool first = hypura_os_thread_come_first();
#ifdef __linux__
    assert_int_equal(sched_getscheduler(0), first ? SCHED_RR : SCHED_OTHER);
#endif
    hypura_os_thread_be_ordinary();
#ifdef __linux__
    assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
#else
    assert_false(first);
#endif
}

static void a_thread_keeps_to_processors(void **state)
{
    (void)state;
    enum { MOST = 1024 };
    static int all[MOST];
    int one[1] = {-1};
    const int n = hypura_os_processors(all, MOST);
#ifdef __linux__
    assert_in_range(n, 1, MOST);
    assert_true(hypura_os_cpu_count() <= n);
    assert_true(hypura_os_thread_keep_to(&all[n - 1], 1));
    assert_int_equal(hypura_os_processors(one, 1), 1);
    assert_int_equal(one[0], all[n - 1]);
    assert_int_equal(sched_getcpu(), all[n - 1]);
    assert_true(hypura_os_thread_keep_to(all, n));
    assert_int_equal(hypura_os_processors(one, 1), n);
    assert_int_equal(one[0], all[0]);
    assert_false(hypura_os_thread_keep_to(all, 0));
#else
    assert_int_equal(n, 0);
    assert_false(hypura_os_thread_keep_to(one, 1));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_figures_agree),
        cmocka_unit_test(mapped_memory_is_zero_and_writable),
        cmocka_unit_test(collapsing_keeps_what_lies_in_memory),
        cmocka_unit_test(a_reservation_takes_no_memory),
        cmocka_unit_test(no_access_really_faults),
        cmocka_unit_test_setup_teardown(a_file_mapping_becomes_anonymous, make_file, remove_file),
        cmocka_unit_test_setup_teardown(opened_files_tell_their_alignment, make_file, remove_file),
        cmocka_unit_test(refused_files_are_named),
#ifdef __linux__
        cmocka_unit_test_setup_teardown(mappings_are_given_back, make_file, remove_file),
        cmocka_unit_test_setup_teardown(identities_tell_files_apart, make_file, remove_file),
#endif
        cmocka_unit_test_setup_teardown(drives_have_an_identity, make_file, remove_file),
        cmocka_unit_test(processors_are_counted),
        cmocka_unit_test(time_of_other_threads_is_theirs_alone),
        cmocka_unit_test(time_of_others_is_not_ours),
        cmocka_unit_test(a_thread_comes_first_and_goes_back),
        cmocka_unit_test(a_thread_keeps_to_processors),
        cmocka_unit_test(peak_memory_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
