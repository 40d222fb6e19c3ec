/*
 * test_source.c - a file that comes in pieces: reads that are short or interrupted give the same bytes, one that fails is
 * an error with the place. Linked with --wrap.
 */
#include "gguf/source.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILE_BYTES = 1000, PIECE_BYTES = 7 };

static int n_reads;
static int fails_at; /* this read, counted from 1; 0: none */

ssize_t __real_pread64(int fd, void *to, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *to, size_t bytes, off_t offset);

ssize_t __wrap_pread64(int fd, void *to, size_t bytes, off_t offset)
{
    n_reads++;
    if (n_reads == fails_at || n_reads % 3 == 0) {
        errno = n_reads == fails_at ? EIO : EINTR;
        return -1;
    }
    return __real_pread64(fd, to, bytes < PIECE_BYTES ? bytes : PIECE_BYTES, offset);
}

static void pieces_make_a_whole(void **state)
{
    (void)state;
    char path[] = "/tmp/hypura-source-XXXXXX";
    unsigned char written[FILE_BYTES], found[FILE_BYTES + 1] = {[FILE_BYTES - 3] = 42};
    hypura_source source;
    hypura_error error;
    const int fd = mkstemp(path);
    for (int i = 0; i < FILE_BYTES; i++) {
        written[i] = (unsigned char)(i * 7 + i / 256);
    }
    assert_int_equal(write(fd, written, sizeof(written)), sizeof(written));
    close(fd);
    assert_int_equal(hypura_source_open_file(NULL, path, &source, &error), HYPURA_OK);
    assert_int_equal(source.bytes, FILE_BYTES);
    assert_int_equal(hypura_source_read(&source, 3, found, FILE_BYTES - 3, &error), HYPURA_OK);
    assert_memory_equal(found, written + 3, FILE_BYTES - 3);
    assert_int_equal(found[FILE_BYTES - 3], 42); /* and not a byte more */
    n_reads = 0;
    fails_at = 5; /* after three pieces */
    assert_int_equal(hypura_source_read(&source, 3, found, FILE_BYTES - 3, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "cannot read at byte 24"));
    assert_non_null(strstr(error.message, path));
    fails_at = 0;
    assert_int_equal(truncate(path, 100), 0); /* by somebody else */
    assert_int_equal(hypura_source_read(&source, 3, found, FILE_BYTES - 3, &error), HYPURA_ERR_IO);
    assert_non_null(strstr(error.message, "became shorter than 1000 bytes"));
    hypura_source_close(&source);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pieces_make_a_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
