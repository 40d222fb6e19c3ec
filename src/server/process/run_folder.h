/*
 * run_folder.h - the folder that holds the sockets of a server's engines: nobody else can enter it, and it goes with the
 * server. One that was killed leaves it behind: the next server of the same user takes it away.
 *
 * Whose server lives is told by a lock on a file in it, which the system lets go of when the process ends, however it does.
 */
#ifndef HYPURA_SERVER_PROCESS_RUN_FOLDER_H
#define HYPURA_SERVER_PROCESS_RUN_FOLDER_H

#include "hypura.h"

typedef struct run_folder {
    char path[64]; /* short, as those of sockets have to be */
    int lock;
} run_folder;

/* Makes one in parent, and removes what others left there. */
hypura_status run_folder_open(const char *parent, run_folder *folder, hypura_error *error);
/* Removes it with everything in it. */
void run_folder_close(run_folder *folder);

#endif
