/*
 * waiting.c - see waiting.h.
 */
#include "base/waiting.h"

#include "base/patience.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

/* Numbers that nobody else would choose: by them a bench knows that no user said so. */
static char spin_count[] = "GOMP_SPINCOUNT=1021";
static char long_spin_count[] = "GOMP_SPINCOUNT=40009";
static char changing_spin_count[] = "GOMP_SPINCOUNT=40013";
static char changing_policy[] = "OMP_WAIT_POLICY=active"; /* impatient threads look 1,000 times, in place of 100 */

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

/* Room for two more; n is how many were kept. Without what is in left_out: strings that were added here; NULL ends them. */
static char **copy_variables(char *const *variables, char *const *left_out, size_t *n)
{
    size_t n_all = 0;
    while (variables[n_all]) {
        n_all++;
    }
    char **kept = calloc(n_all + 3, sizeof(*kept));
    *n = 0;
    for (size_t i = 0; kept && i < n_all; i++) {
        bool keep = true;
        for (size_t o = 0; left_out[o]; o++) {
            keep = keep && strcmp(variables[i], left_out[o]) != 0;
        }
        if (keep) {
            kept[(*n)++] = variables[i];
        }
    }
    return kept;
}

bool hypura_waiting_changes(char *const *variables)
{
    bool spins = false, is_active = false;
    for (; *variables; variables++) {
        spins = spins || strcmp(*variables, changing_spin_count) == 0;
        is_active = is_active || strcmp(*variables, changing_policy) == 0;
    }
    return spins && is_active;
}

hypura_waiting hypura_waiting_usual(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) >= MANY_CPUS && hypura_patience_can_change() ? HYPURA_WAITING_CHANGING
                                                                                     : HYPURA_WAITING_SHORT;
}

char **hypura_waiting_environment(char *const *variables, hypura_waiting how)
{
    const bool changes = hypura_waiting_changes(variables);
    char *const *ours[] = {
        [HYPURA_WAITING_SHORT] = (char *[]){NULL},
        [HYPURA_WAITING_LONG] = (char *[]){spin_count, changes ? changing_spin_count : NULL, changing_policy, NULL},
        [HYPURA_WAITING_CHANGING] = (char *[]){spin_count, NULL},
    };
    size_t n = 0;
    char **made = copy_variables(variables, ours[how], &n);
    if (made && !say_how_to_wait(made)) {
        made[n++] = how == HYPURA_WAITING_LONG       ? long_spin_count
                    : how == HYPURA_WAITING_CHANGING ? changing_spin_count
                                                     : spin_count;
        made[n] = how == HYPURA_WAITING_CHANGING ? changing_policy : NULL;
    }
    return made;
}

char **hypura_waiting_plain_environment(char *const *variables)
{
    const bool changes = hypura_waiting_changes(variables);
    char *const ours[] = {spin_count, long_spin_count, changes ? changing_spin_count : NULL, changing_policy, NULL};
    size_t n;
    return copy_variables(variables, ours, &n);
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

void hypura_waiting_begin(void)
{
    hypura_patience_allow(hypura_waiting_changes(environ));
}
