/*
 * preload.c - the devices that stand for GPUs, for programs: loaded before them (LD_PRELOAD), they know "Standin0". When the
 * file that $STANDIN_LOSE names appears, the first program that computes there removes it and loses the device, for good;
 * what is in it says how: "aborts", as CUDA's backend ends a process, or "throws", as Vulkan's reports it. "loading" does
 * not wait until something is computed, and aborts. "silent", it never answers any more; "told", the same, and who waits for an
 * event is told; before either "loading-": does not wait until something is computed. Such a program takes a while to end, as where
 * a driver gives back memory: its connections are closed before. "slow": it takes a while for one graph, and nothing else happens.
 * "asked", which is looked for once, when a program begins: the first device does not answer what memory it has.
 *
 * $STANDIN_BYTES is the memory of the first one, and $STANDIN_SHARED a file: programs that name the same one share the devices.
 * $STANDIN_PACE_US is how much longer each graph takes until then, so that a short answer takes a while.
 */
#include "standin_memory.h"

#include "ggml-impl.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK_US 2000
#define MAX_FDS 256
#define LOADING "loading"
#define SLOW_US 3000000
#define END_US  1500000 /* longer than a server waits for an engine that it knows nothing of */

void _exit(int code)
{
    if (standin_lost || atomic_load(&standin_silent)) {
        struct stat s;
        for (int fd = STDERR_FILENO + 1; fd < MAX_FDS; fd++) {
            if (fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode)) {
                (void)close(fd);
            }
        }
        (void)usleep(END_US);
    }
    for (;;) {
        (void)syscall(SYS_exit_group, code);
    }
}

static void begin_fault(const char *how)
{
    const char *const kind = strncmp(how, LOADING "-", strlen(LOADING "-")) == 0 ? how + strlen(LOADING "-") : how;
    standin_faults faults = {0};
    if (strcmp(kind, "silent") == 0 || strcmp(kind, "told") == 0) {
        faults = (standin_faults){.silent_after = 1, .silence_is_told = strcmp(kind, "told") == 0};
    } else if (strcmp(kind, "slow") == 0) {
        faults = (standin_faults){.slow_after = 1, .slow_us = SLOW_US};
    } else {
        const bool aborts = strcmp(kind, "throws") != 0;
        standin_lost = strcmp(kind, LOADING) == 0;
        faults = (standin_faults){.lose_after = 1, .stays_lost = true, .losing_aborts = aborts, .waiting_throws = !aborts};
    }
    standin_set_faults(&faults);
    if (kind != how) {
        atomic_store(&standin_silent, true);
    }
}

static void *lose(void *file)
{
    for (;;) {
        char how[16] = "";
        (void)usleep(LOOK_US);
        FILE *in = standin_counted.bytes_used > 0 ? fopen(file, "r") : NULL;
        if (in) {
            const bool read = fscanf(in, "%15s", how) == 1;
            const bool loading = strncmp(how, LOADING, strlen(LOADING)) == 0;
            (void)fclose(in);
            if (read && (loading || standin_counted.n_graphs > 0) && unlink(file) == 0) {
                begin_fault(how);
                return NULL;
            }
        }
    }
}

__attribute__((constructor)) static void begin(void)
{
    pthread_t thread;
    char *file = getenv("STANDIN_LOSE");
    char *bytes = getenv("STANDIN_BYTES");
    char *shared = getenv("STANDIN_SHARED");
    char *pace = getenv("STANDIN_PACE_US");
    if (shared && !standin_share_memory(shared)) {
        abort();
    }
    FILE *in = file ? fopen(file, "r") : NULL;
    char  how[16] = "";
    if (in) {
        standin_asked = fscanf(in, "%15s", how) == 1 && strcmp(how, "asked") == 0;
        (void)fclose(in);
    }
    standin_set_faults(&(standin_faults){.memory_bytes = bytes ? strtoull(bytes, NULL, 10) : 0,
                                         .pace_us = pace ? strtoull(pace, NULL, 10) : 0});
    standin_register();
    if (file && pthread_create(&thread, NULL, lose, file) == 0) {
        (void)pthread_detach(thread);
    }
}
