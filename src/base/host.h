/*
 * host.h - which hosts are this machine, by what they are called; nobody is asked.
 */
#ifndef HYPURA_BASE_HOST_H
#define HYPURA_BASE_HOST_H

#include <stdbool.h>

/* Written as numbers, of either version. */
bool hypura_host_is_address(const char *host);
/* localhost, and names that end in .localhost. */
bool hypura_host_is_local_name(const char *host);
/* Such a name, or an address that other machines cannot reach. */
bool hypura_host_is_loopback(const char *host);

#endif
