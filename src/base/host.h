/*
 * host.h - hosts by what they are called: which are this machine, and their addresses. Nobody is asked.
 */
#ifndef HYPURA_BASE_HOST_H
#define HYPURA_BASE_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Written as numbers, of either version. */
bool hypura_host_is_address(const char *host);
/* localhost, and names that end in .localhost. */
bool hypura_host_is_local_name(const char *host);
/* Such a name, or an address that other machines cannot reach. */
bool hypura_host_is_loopback(const char *host);

/* An address to listen on: "127.0.0.1", "::1", "localhost". v6: of the sixth version. False when it is none. */
bool hypura_host_address(const char *host, uint16_t port, struct sockaddr_storage *address, bool *v6);

#endif
