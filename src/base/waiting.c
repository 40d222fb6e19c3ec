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
static char spin_count[] = "GOMP_SPINCOUNT=1021";
static char long_spin_count[] = "GOMP_SPINCOUNT=40009";

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

/* Room for one more; n is how many were kept. ours: without what was added here. */
static char **copy_variables(char *const *variables, bool ours, size_t *n)
{
    size_t n_all = 0;
    while (variables[n_all]) {
        n_all++;
    }
    char **kept = calloc(n_all + 2, sizeof(*kept));
    *n = 0;
    for (size_t i = 0; kept && i < n_all; i++) {
        if (ours || (strcmp(variables[i], spin_count) != 0 && strcmp(variables[i], long_spin_count) != 0)) {
            kept[(*n)++] = variables[i];
        }
    }
    return kept;
}

char **hypura_waiting_environment(char *const *variables, bool often)
{
    size_t n = 0;
    char **made = copy_variables(variables, true, &n);
    if (made && !say_how_to_wait(variables)) {
        made[n] = often ? long_spin_count : spin_count;
    }
    return made;
}

char **hypura_waiting_plain_environment(char *const *variables)
{
    size_t n;
    return copy_variables(variables, false, &n);
}

void hypura_waiting_restart(char *const *argv, bool often)
{
#ifdef __linux__
    char path[4096]; /* by its name, which lists of processes show */
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0 || say_how_to_wait(environ)) {
        return;
    }
    path[n] = '\0';
    char **variables = hypura_waiting_environment(environ, often);
    if (variables) {
        (void)execve(path, argv, variables);
    }
    free(variables);
#else
    (void)argv, (void)often;
#endif
}
