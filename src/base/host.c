/*
 * host.c - see host.h.
 */
#include "base/host.h"

#include "base/path.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

bool hypura_host_is_address(const char *host)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

bool hypura_host_is_local_name(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || hypura_ends_with_any_case(host, ".localhost");
}

bool hypura_host_is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    if (inet_pton(AF_INET6, host, &v6) == 1) {
        return IN6_IS_ADDR_LOOPBACK(&v6);
    }
    return hypura_host_is_local_name(host);
}

bool hypura_host_address(const char *host, uint16_t port, struct sockaddr_storage *address, bool *v6)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
    const char *numbers = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    memset(address, 0, sizeof(*address));
    *v6 = inet_pton(AF_INET6, numbers, &in6->sin6_addr) == 1;
    if (*v6) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        return true;
    }
    in4->sin_family = AF_INET;
    in4->sin_port = htons(port);
    return inet_pton(AF_INET, numbers, &in4->sin_addr) == 1;
}

static bool is_outside_v4(const unsigned char *a)
{
    const bool special = a[0] == 0 || a[0] == 10 || a[0] == 127 || (a[0] == 100 && (a[1] & 0xc0) == 64) ||
                         (a[0] == 169 && a[1] == 254) || (a[0] == 172 && (a[1] & 0xf0) == 16) ||
                         (a[0] == 192 && (a[1] == 168 || (a[1] == 0 && a[2] == 0))) || (a[0] == 198 && (a[1] & 0xfe) == 18) ||
                         a[0] >= 224;
    return !special;
}

static bool is_outside_v6(const unsigned char *a)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const unsigned char translated[12] = {0, 0x64, 0xff, 0x9b};
    if (memcmp(a, mapped, sizeof mapped) == 0 || memcmp(a, translated, sizeof translated) == 0) {
        return is_outside_v4(a + 12);
    }
    return a[0] == 0x20 && a[1] == 0x02 ? is_outside_v4(a + 2) : (a[0] & 0xe0) == 0x20; /* 6to4; what is given out of all */
}

bool hypura_host_is_outside(const struct sockaddr *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
    return address->sa_family == AF_INET    ? is_outside_v4((const unsigned char *)&v4->sin_addr)
           : address->sa_family == AF_INET6 ? is_outside_v6((const unsigned char *)&v6->sin6_addr)
                                            : false;
}

bool hypura_host_next(const char **hosts, char *host)
{
    const size_t length = strcspn(*hosts, ",");
    const char *begin = *hosts;
    if (*begin == '\0') {
        return false;
    }
    snprintf(host, HYPURA_HOST_BYTES, "%.*s", (int)(length < HYPURA_HOST_BYTES ? length : HYPURA_HOST_BYTES), begin);
    *hosts = begin + length + (begin[length] == ',');
    return true;
}

bool hypura_hosts_are_loopback(const char *hosts)
{
    char host[HYPURA_HOST_BYTES];
    bool all = true;
    while (all && hypura_host_next(&hosts, host)) {
        all = hypura_host_is_loopback(host);
    }
    return all;
}
