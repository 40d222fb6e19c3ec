/*
 * fake_team.h - GNU's OpenMP as far as base/patience.c uses it, for tests: keeps a team until the thread that began it
 * ends. The program's symbols are to be exported (ENABLE_EXPORTS). One for a program, ready when fake_team_open returned.
 */
#ifndef HYPURA_TESTS_FAKE_TEAM_H
#define HYPURA_TESTS_FAKE_TEAM_H

#include <stdbool.h>

bool fake_team_open(void);

/* Until so many are there, begun so often (-1: any number). It comes to that, or the test hangs. */
void fake_team_await(int n_begun, int n_there);

int fake_team_begun(void);
int fake_team_there(void);
unsigned fake_team_size(void); /* of the last one */

#endif
