/*
 * fake_library.h - what the parts of the fake library share.
 */
#ifndef FAKE_LIBRARY_H
#define FAKE_LIBRARY_H

#include "hypura.h"

#define FAKE_FLOOR_BYTES 1000000u

hypura_status fake_check_waiting(hypura_error *error);
/* A file still has to exist. */
hypura_status fake_check_file(const char *path, hypura_error *error);
bool fake_named(const char *path, const char *name);
void fake_wait_ms(long ms);

#endif
