/* Which Host and Origin headers are let in, and keys. */
#include "server/http/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void hosts_of_this_machine_are_let_in(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost",      "localhost:8080",   "LOCALHOST:1",
                                       "127.0.0.1:8080", "192.168.1.5:8080", "[::1]:8080",
                                       "[::1]",          "a.localhost:3000", "localhost.",
                                       "host.docker.internal:11434", "host.containers.internal"};
    static const char *const bad[] = {
        "x.docker.internal", "host.docker.internal.evil.com", "evil.com", "evil.com:8080", "localhost.evil.com", "evillocalhost",
        "localhost:80a", "localhost/x", "[::1", "", "127.0.0.1.evil", "[::1]evil", ":8080", "127.0.0.1@evil.com"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (!guard_host_allowed(good[i], "127.0.0.1", false)) {
            fail_msg("%s was kept out", good[i]);
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (guard_host_allowed(bad[i], "127.0.0.1", false)) {
            fail_msg("%s was let in", bad[i]);
        }
        assert_true(guard_host_allowed(bad[i], "0.0.0.0", true));
    }
    assert_true(guard_host_allowed(NULL, "127.0.0.1", false));
    assert_true(guard_host_allowed("box:80", "box", false));
    assert_true(guard_host_allowed("box:80", "127.0.0.1,box,::1", false));
    assert_false(guard_host_allowed("box:80", "127.0.0.1,boxes", false));
}

static void origins_are_this_machine_and_those_listed(void **state)
{
    (void)state;
    static const char *const listed[] = {"https://app.example.com", NULL};
    static const char *const any[] = {"*", NULL};
    static const char *const bad[] = {"http://evil.com",
                                      "http://localhost.evil.com",
                                      "null",
                                      "https://app.example.com.evil.com",
                                      "http://192.168.1.5",
                                      "file://",
                                      "",
                                      "ftp://localhost",
                                      "http://app://",
                                      "application://x",
                                      "http://localhost@evil.com",
                                      "http://localhost/x"};
    assert_true(guard_origin_allowed(NULL, NULL));
    assert_true(guard_origin_allowed("http://localhost:3000", NULL));
    assert_false(guard_origin_allowed("http://host.docker.internal:3000", NULL));
    assert_true(guard_origin_allowed("https://127.0.0.1", NULL));
    assert_true(guard_origin_allowed("http://[::1]:5173", NULL));
    assert_true(guard_origin_allowed("https://app.example.com", listed));
    assert_true(guard_origin_allowed("app://obsidian.md", NULL));
    assert_true(guard_origin_allowed("vscode-webview://1a2b", NULL));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (guard_origin_allowed(bad[i], listed)) {
            fail_msg("%s was let in", bad[i]);
        }
        assert_true(guard_origin_allowed(bad[i], any));
    }
}

static void the_servers_own_page_is_told_by_what_it_asks_for(void **state)
{
    (void)state;
    assert_true(guard_origin_is_own("http://192.168.1.5:8080", "192.168.1.5:8080", false));
    assert_true(guard_origin_is_own("http://[fd00::5]:8080", "[fd00::5]:8080", false));
    assert_true(guard_origin_is_own("https://Box.lan", "box.lan", true));
    assert_false(guard_origin_is_own("https://box.lan", "box.lan", false)); /* whoever owns the name may let it mean this machine */
    assert_false(guard_origin_is_own("http://192.168.1.5:8081", "192.168.1.5:8080", true));
    assert_false(guard_origin_is_own("http://evil.com", "192.168.1.5:8080", true));
    assert_false(guard_origin_is_own("http://evil.com", NULL, true));
    assert_false(guard_origin_is_own("file://box", "box", true));
    assert_false(guard_origin_is_own("null", "null", true));
    assert_false(guard_origin_is_own(NULL, "box", true));
}

static void keys_match_whole(void **state)
{
    (void)state;
    static const char *const keys[] = {"first", "secret", NULL};
    assert_true(guard_key_matches("Bearer secret", NULL, keys));
    assert_true(guard_key_matches("bearer secret", NULL, keys));
    assert_true(guard_key_matches(NULL, "secret", keys));
    assert_false(guard_key_matches("Bearer secre", NULL, keys));
    assert_false(guard_key_matches("Bearer secretsecret", NULL, keys));
    assert_false(guard_key_matches("Bearer ", NULL, keys));
    assert_false(guard_key_matches("Basic secret", NULL, keys));
    assert_false(guard_key_matches(NULL, NULL, keys));
    assert_false(guard_key_matches(NULL, "", keys));
    assert_true(guard_key_matches("Bearer first", "secret", keys));
    assert_false(guard_key_matches("Bearer firstsecret", NULL, keys));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_of_this_machine_are_let_in),
        cmocka_unit_test(origins_are_this_machine_and_those_listed),
        cmocka_unit_test(the_servers_own_page_is_told_by_what_it_asks_for),
        cmocka_unit_test(keys_match_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
