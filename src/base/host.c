/*
 * host.c - see host.h.
 */
#include "base/host.h"

#include "base/path.h"

#include <arpa/inet.h>
#include <netinet/in.h>

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
