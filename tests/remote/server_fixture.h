/*
 * server_fixture.h - an RPC server in a process of its own, and a way to it that can be cut after any number of bytes.
 */
#ifndef HYPURA_TEST_SERVER_FIXTURE_H
#define HYPURA_TEST_SERVER_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

/* A port that nobody listens on. */
uint16_t server_free_port(void);

/* Starts `hypura rpc-server` and waits until it listens. Asserts that it does. */
void server_start(uint16_t port, const char *memory);
/* Ends it at once, as a machine that loses its power does. */
void server_kill(void);

/* Forwards what comes to one port to another, both of this machine, one connection after the other. */
void way_open(uint16_t from, uint16_t to);
/* From now on connections are cut when so many bytes have passed, in both directions and over all of them, and refused
 * from there on; UINT64_MAX: never. Returns how many have passed since the last call. */
uint64_t way_cut_after(uint64_t bytes);
void way_close(void);

/* Answers the first connection to the port with these bytes to whatever it asks, and then closes it, or, with none, is
 * silent until answer_close. */
void answer_open(uint16_t port, const void *bytes, size_t n);
void answer_close(void);

#endif
