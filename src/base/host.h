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
/* An address of the open network: none of this machine, of its neighbours, or of private networks. */
bool hypura_host_is_outside(const struct sockaddr *address);

/* Takes the first of a list by comma into host, of HYPURA_HOST_BYTES, and moves *hosts behind it; one that is too long is
 * cut, and is no name or address then. False at the end. */
#define HYPURA_HOST_BYTES 254
bool hypura_host_next(const char **hosts, char *host);
/* Whether addresses to listen on, such a list, can be reached from this machine alone, each of them. */
bool hypura_hosts_are_loopback(const char *hosts);

/* An address to listen on: "127.0.0.1", "::1", "localhost". v6: of the sixth version. False when it is none. */
bool hypura_host_address(const char *host, uint16_t port, struct sockaddr_storage *address, bool *v6);

#endif
