/*
 * http_address.c - see http_address.h.
 */
#include "server/http_address.h"

#include <arpa/inet.h>
#include <string.h>

bool http_address_read(const char *host, uint16_t port, struct sockaddr_storage *address, bool *v6)
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
