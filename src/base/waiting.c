/*
 * waiting.c - see waiting.h.
 */
#include "base/waiting.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* Numbers that nobody else would choose: by them a bench knows that no user said so. */
static char *const spin_counts[] = {
    [HYPURA_WAITING_SHORT] = "GOMP_SPINCOUNT=1021",
    [HYPURA_WAITING_MEDIUM] = "GOMP_SPINCOUNT=5003",
    [HYPURA_WAITING_LONG] = "GOMP_SPINCOUNT=40009",
};
#define N_SPIN_COUNTS ((int)(sizeof spin_counts / sizeof *spin_counts))

#define MANY_CPUS 8

static char *const names[] = {"GOMP_SPINCOUNT=", "OMP_WAIT_POLICY="};

static bool say_how_to_wait(char *const *variables)
{
    for (; *variables; variables++) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (strncmp(*variables, names[i], strlen(names[i])) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Room for one more; n is how many were kept: all but the first n_left_out of what is added here. */
static char **copy_variables(char *const *variables, int n_left_out, size_t *n)
{
    size_t n_all = 0;
    while (variables[n_all]) {
        n_all++;
    }
    char **kept = calloc(n_all + 2, sizeof(*kept));
    *n = 0;
    for (size_t i = 0; kept && i < n_all; i++) {
        bool keep = true;
        for (int o = 0; o < n_left_out; o++) {
            keep = keep && strcmp(variables[i], spin_counts[o]) != 0;
        }
        if (keep) {
            kept[(*n)++] = variables[i];
        }
    }
    return kept;
}

hypura_waiting hypura_waiting_usual(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) >= MANY_CPUS ? HYPURA_WAITING_MEDIUM : HYPURA_WAITING_SHORT;
}

char **hypura_waiting_environment(char *const *variables, hypura_waiting how)
{
    size_t n;
    char **made = copy_variables(variables, how, &n);
    if (made && !say_how_to_wait(made)) {
        made[n] = spin_counts[how];
    }
    return made;
}

char **hypura_waiting_plain_environment(char *const *variables)
{
    size_t n;
    return copy_variables(variables, N_SPIN_COUNTS, &n);
}

void hypura_waiting_restart(char *const *argv, hypura_waiting how)
{
#ifdef __linux__
    char path[4096]; /* by its name, which lists of processes show */
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) {
        return;
    }
    path[n] = '\0';
    char **variables = hypura_waiting_environment(environ, how);
    size_t i = 0;
    while (variables && variables[i] && variables[i] == environ[i]) { /* strings are not copied */
        i++;
    }
    if (variables && variables[i] != environ[i]) {
        (void)execve(path, argv, variables);
    }
    free(variables);
#else
    (void)argv, (void)how;
#endif
}
