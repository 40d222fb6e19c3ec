/*
 * waiting.c - see waiting.h.
 */
#include "base/waiting.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* A number that nobody else would choose: by it a bench knows that no user said so. */
static char spin_count[] = "GOMP_SPINCOUNT=1021";

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

/* Room for one more; n is how many were kept. */
static char **copy_without(char *const *variables, const char *unwanted, size_t *n)
{
    size_t n_all = 0;
    while (variables[n_all]) {
        n_all++;
    }
    char **kept = calloc(n_all + 2, sizeof(*kept));
    *n = 0;
    for (size_t i = 0; kept && i < n_all; i++) {
        if (!unwanted || strcmp(variables[i], unwanted) != 0) {
            kept[(*n)++] = variables[i];
        }
    }
    return kept;
}

char **hypura_waiting_environment(char *const *variables)
{
    size_t n = 0;
    char **made = copy_without(variables, NULL, &n);
    if (made && !say_how_to_wait(variables)) {
        made[n] = spin_count;
    }
    return made;
}

char **hypura_waiting_plain_environment(char *const *variables)
{
    size_t n;
    return copy_without(variables, spin_count, &n);
}

void hypura_waiting_restart(char *const *argv)
{
#ifdef __linux__
    char path[4096]; /* by its name, which lists of processes show */
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0 || say_how_to_wait(environ)) {
        return;
    }
    path[n] = '\0';
    char **variables = hypura_waiting_environment(environ);
    if (variables) {
        (void)execve(path, argv, variables);
    }
    free(variables);
#else
    (void)argv;
#endif
}
