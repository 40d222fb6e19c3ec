/*
 * http_address.h - an address to listen on, as the user writes it.
 */
#ifndef HYPURA_SERVER_HTTP_ADDRESS_H
#define HYPURA_SERVER_HTTP_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* "127.0.0.1", "::1", "localhost". v6: of the sixth version. False when it is none. */
bool http_address_read(const char *host, uint16_t port, struct sockaddr_storage *address, bool *v6);

#endif
