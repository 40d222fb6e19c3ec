/* Hosts by what they are called, and addresses that other machines reach. */
#include "base/host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static bool is_outside(const char *host)
{
    struct sockaddr_storage address;
    bool v6;
    assert_true(hypura_host_address(host, 80, &address, &v6));
    return hypura_host_is_outside((const struct sockaddr *)&address);
}

static void addresses_of_the_open_network_are_told(void **state)
{
    (void)state;
    static const char *const outside[] = {"1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "192.0.2.1", "223.255.255.255",
                                          "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"};
    static const char *const inside[] = {"127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255",
                                         "192.168.1.5", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255",
                                         "::1", "::", "fe80::1", "fc00::1", "fd00::5", "ff02::1", "::ffff:127.0.0.1",
                                         "::ffff:192.168.1.5", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        if (!is_outside(outside[i])) {
            fail_msg("%s is outside", outside[i]);
        }
    }
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        if (is_outside(inside[i])) {
            fail_msg("%s is not outside", inside[i]);
        }
    }
}

static void loopback_is_told_from_the_rest(void **state)
{
    (void)state;
    assert_true(hypura_hosts_are_loopback("127.0.0.1"));
    assert_true(hypura_hosts_are_loopback("127.9.9.9"));
    assert_true(hypura_hosts_are_loopback("::1"));
    assert_true(hypura_hosts_are_loopback("localhost"));
    assert_false(hypura_hosts_are_loopback("0.0.0.0"));
    assert_false(hypura_hosts_are_loopback("::"));
    assert_false(hypura_hosts_are_loopback("192.168.0.1"));
    assert_false(hypura_hosts_are_loopback("example.com"));
    assert_true(hypura_hosts_are_loopback("127.0.0.1,::1"));
    assert_false(hypura_hosts_are_loopback("127.0.0.1,192.168.0.1"));
    assert_false(hypura_hosts_are_loopback("0.0.0.0,::1"));
    assert_false(hypura_hosts_are_loopback("127.0.0.1,,::1"));
}

static void hosts_are_taken_one_by_one(void **state)
{
    (void)state;
    const char *hosts = "127.0.0.1,::1";
    char host[HYPURA_HOST_BYTES];
    assert_true(hypura_host_next(&hosts, host));
    assert_string_equal(host, "127.0.0.1");
    assert_true(hypura_host_next(&hosts, host));
    assert_string_equal(host, "::1");
    assert_false(hypura_host_next(&hosts, host));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_of_the_open_network_are_told),
        cmocka_unit_test(loopback_is_told_from_the_rest),
        cmocka_unit_test(hosts_are_taken_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
