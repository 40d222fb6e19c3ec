/* The link of a drive, in a tree laid out as Linux lays out sysfs. */
#include "os/link.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define ROOT HYPURA_TEST_FOLDER "/sysfs"

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int make_tree(void **state)
{
    (void)state;
    static const char *const folders[] = {ROOT,
                                          ROOT "/block",
                                          ROOT "/pci",
                                          ROOT "/pci/bridge",
                                          ROOT "/pci/bridge/drive",
                                          ROOT "/pci/bridge/drive/nvme0n1",
                                          ROOT "/pci/bridge/drive/nvme0n1/p1",
                                          ROOT "/virtual",
                                          ROOT "/virtual/vda"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
        (void)mkdir(folders[i], 0755);
    }
    (void)symlink("../pci/bridge/drive/nvme0n1/p1", ROOT "/block/259:1");
    (void)symlink("../virtual/vda", ROOT "/block/254:0");
    /* The bridge is faster than the drive's own link. */
    write_file(ROOT "/pci/bridge/current_link_speed", "32.0 GT/s PCIe\n");
    write_file(ROOT "/pci/bridge/current_link_width", "16\n");
    return 0;
}

static void set_link(const char *speed, const char *width)
{
    write_file(ROOT "/pci/bridge/drive/current_link_speed", speed);
    write_file(ROOT "/pci/bridge/drive/current_link_width", width);
}

static void the_nearest_link_counts(void **state)
{
    (void)state;
    hypura_os_link link;
    set_link("16.0 GT/s PCIe\n", "4\n");
    assert_true(hypura_os_link_read_at(ROOT "/block", "259:1", &link));
    assert_string_equal(link.name, "PCIe 16.0 GT/s x4");
    assert_true(fabs(link.bytes_per_s - 7.877e9) < 1e6); /* 16e9 x 4 x 128 / 130 / 8 */
}

static void old_links_lose_a_fifth_to_their_code(void **state)
{
    (void)state;
    hypura_os_link link;
    set_link("5.0 GT/s PCIe\n", "2\n");
    assert_true(hypura_os_link_read_at(ROOT "/block", "259:1", &link));
    assert_true(fabs(link.bytes_per_s - 1e9) < 1.0);
}

static void the_newest_links_correct_errors(void **state)
{
    (void)state;
    hypura_os_link link;
    set_link("64.0 GT/s PCIe\n", "4\n");
    assert_true(hypura_os_link_read_at(ROOT "/block", "259:1", &link));
    assert_true(fabs(link.bytes_per_s - 30.25e9) < 1e6); /* 64e9 x 4 x 242 / 256 / 8 */
}

static void what_is_not_told_is_not_guessed(void **state)
{
    (void)state;
    hypura_os_link link;
    assert_false(hypura_os_link_read_at(ROOT "/block", "254:0", &link));
    assert_false(hypura_os_link_read_at(ROOT "/block", "1:1", &link));
    assert_false(hypura_os_link_read("/no/such/file", &link));
    /* A drive whose link is down says so in words; the bridge's says nothing about it, but is a limit. */
    set_link("Unknown\n", "0\n");
    assert_true(hypura_os_link_read_at(ROOT "/block", "259:1", &link));
    assert_string_equal(link.name, "PCIe 32.0 GT/s x16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_link_counts),
        cmocka_unit_test(old_links_lose_a_fifth_to_their_code),
        cmocka_unit_test(the_newest_links_correct_errors),
        cmocka_unit_test(what_is_not_told_is_not_guessed),
    };
    return cmocka_run_group_tests(tests, make_tree, NULL);
}
