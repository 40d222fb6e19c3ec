/*
 * jobs.h - threads that run handlers: as many as there is work, up to a limit, kept for later work.
 */
#ifndef HYPURA_SERVER_HTTP_JOBS_H
#define HYPURA_SERVER_HTTP_JOBS_H

#include "hypura.h"

typedef struct server_jobs server_jobs;

hypura_status server_jobs_open(uint32_t max_threads, server_jobs **jobs, hypura_error *error);
/* Runs work(user) on some thread. The caller keeps the number under way below the limit; more wait. False when out of
 * memory. */
bool server_jobs_run(server_jobs *jobs, void (*work)(void *user), void *user);
/* Runs what was given and ends the threads. */
void server_jobs_close(server_jobs *jobs);

#endif
