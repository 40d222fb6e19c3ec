/* What is added to an environment, and a program that starts itself again: this one, with two words. */
#include "base/waiting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OURS "GOMP_SPINCOUNT=1021"

static char *program;

static void expect(char **made, const char *const *wanted)
{
    assert_non_null(made);
    size_t i = 0;
    for (; wanted[i]; i++) {
        assert_non_null(made[i]);
        assert_string_equal(made[i], wanted[i]);
    }
    assert_null(made[i]);
    free(made);
}

static void it_is_added_unless_said(void **state)
{
    (void)state;
    char home[] = "HOME=/", passive[] = "OMP_WAIT_POLICY=passive", five[] = "GOMP_SPINCOUNT=5",
         near[] = "GOMP_SPINCOUNTS=1";
    expect(hypura_waiting_environment((char *[]){NULL}, HYPURA_WAITING_SHORT), (const char *[]){OURS, NULL});
    expect(hypura_waiting_environment((char *[]){home, near, NULL}, HYPURA_WAITING_SHORT), (const char *[]){home, near, OURS, NULL});
    expect(hypura_waiting_environment((char *[]){passive, home, NULL}, HYPURA_WAITING_LONG), (const char *[]){passive, home, NULL});
    expect(hypura_waiting_environment((char *[]){home, NULL}, HYPURA_WAITING_LONG), (const char *[]){home, "GOMP_SPINCOUNT=40009", NULL});
    expect(hypura_waiting_environment((char *[]){home, five, NULL}, HYPURA_WAITING_LONG), (const char *[]){home, five, NULL});
    char ours[] = OURS, longer[] = "GOMP_SPINCOUNT=40009";
    expect(hypura_waiting_environment((char *[]){ours, home, NULL}, HYPURA_WAITING_SHORT), (const char *[]){ours, home, NULL});
    expect(hypura_waiting_environment((char *[]){ours, home, NULL}, HYPURA_WAITING_LONG), (const char *[]){home, longer, NULL});
    expect(hypura_waiting_environment((char *[]){longer, home, NULL}, HYPURA_WAITING_SHORT), (const char *[]){longer, home, NULL});
    expect(hypura_waiting_environment((char *[]){longer, home, NULL}, HYPURA_WAITING_LONG), (const char *[]){longer, home, NULL});
}

static void what_is_longer_takes_its_place(void **state)
{
    (void)state;
    char home[] = "HOME=/", ours[] = OURS, medium[] = "GOMP_SPINCOUNT=5003", longer[] = "GOMP_SPINCOUNT=40009",
         active[] = "OMP_WAIT_POLICY=active";
    expect(hypura_waiting_environment((char *[]){home, NULL}, HYPURA_WAITING_MEDIUM), (const char *[]){home, medium, NULL});
    expect(hypura_waiting_environment((char *[]){ours, home, NULL}, HYPURA_WAITING_MEDIUM), (const char *[]){home, medium, NULL});
    expect(hypura_waiting_environment((char *[]){medium, home, NULL}, HYPURA_WAITING_SHORT), (const char *[]){medium, home, NULL});
    expect(hypura_waiting_environment((char *[]){medium, home, NULL}, HYPURA_WAITING_LONG), (const char *[]){home, longer, NULL});
    expect(hypura_waiting_environment((char *[]){longer, NULL}, HYPURA_WAITING_MEDIUM), (const char *[]){longer, NULL});
    expect(hypura_waiting_environment((char *[]){active, NULL}, HYPURA_WAITING_LONG), (const char *[]){active, NULL});
}

static void plain_llama_is_as_the_user_has_it(void **state)
{
    (void)state;
    char home[] = "HOME=/", ours[] = OURS, medium[] = "GOMP_SPINCOUNT=5003", often[] = "GOMP_SPINCOUNT=40009",
         five[] = "GOMP_SPINCOUNT=5";
    expect(hypura_waiting_plain_environment((char *[]){ours, home, often, medium, NULL}), (const char *[]){home, NULL});
    expect(hypura_waiting_plain_environment((char *[]){five, home, NULL}), (const char *[]){five, home, NULL});
}

/* What the program has when it began with these variables: its words and how to wait. */
static void run_child(char *word, char *const *variables, char *answer, size_t capacity)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    if (pid == 0) {
        char other[] = "two words";
        char *words[] = {program, word, other, NULL};
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)execve(program, words, variables);
        _exit(9);
    }
    assert_true(pid > 0);
    (void)close(ends[1]);
    size_t got = 0;
    for (ssize_t n; got < capacity - 1 && (n = read(ends[0], answer + got, capacity - 1 - got)) > 0;) {
        got += (size_t)n;
    }
    answer[got] = '\0';
    (void)close(ends[0]);
    int how;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_int_equal(how, 0);
}

static void a_program_starts_itself_again_once(void **state)
{
    (void)state;
#ifdef __linux__
    const char *added = "1021", *added_often = "40009";
#else
    const char *added = "-", *added_often = "-";
#endif
    char home[] = "HOME=/", passive[] = "OMP_WAIT_POLICY=passive", five[] = "GOMP_SPINCOUNT=5", child[] = "child",
         often[] = "often";
    char answer[256], wanted[256];
    run_child(child, (char *[]){home, NULL}, answer, sizeof answer);
    (void)snprintf(wanted, sizeof wanted, "%s, - of test_waiting: two words", added);
    assert_string_equal(answer, wanted);
    run_child(often, (char *[]){home, NULL}, answer, sizeof answer);
    (void)snprintf(wanted, sizeof wanted, "%s, - of test_waiting: two words", added_often);
    assert_string_equal(answer, wanted);
    char ours[] = OURS, longer[] = "GOMP_SPINCOUNT=40009";
    run_child(often, (char *[]){home, ours, NULL}, answer, sizeof answer);
    (void)snprintf(wanted, sizeof wanted, "%s, - of test_waiting: two words", strcmp(added, "-") == 0 ? "1021" : "40009");
    assert_string_equal(answer, wanted);
    run_child(child, (char *[]){home, longer, NULL}, answer, sizeof answer);
    assert_string_equal(answer, "40009, - of test_waiting: two words");
    run_child(often, (char *[]){five, NULL}, answer, sizeof answer);
    assert_string_equal(answer, "5, - of test_waiting: two words");
    run_child(child, (char *[]){home, passive, NULL}, answer, sizeof answer);
    assert_string_equal(answer, "-, passive of test_waiting: two words");
    run_child(child, (char *[]){five, NULL}, answer, sizeof answer);
    assert_string_equal(answer, "5, - of test_waiting: two words");
}

static const char *value(const char *name)
{
    return getenv(name) ? getenv(name) : "-";
}

/* Its name as lists of processes show it. */
static int be_child(char **argv)
{
    char name[64] = "test_waiting";
#ifdef __linux__
    FILE *file = fopen("/proc/self/comm", "re");
    if (!file || fscanf(file, "%63s", name) != 1) {
        return 1;
    }
    (void)fclose(file);
#endif
    printf("%s, %s of %s: %s", value("GOMP_SPINCOUNT"), value("OMP_WAIT_POLICY"), name, argv[2]);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2) {
        hypura_waiting_restart(argv, strcmp(argv[1], "often") == 0 ? HYPURA_WAITING_LONG : HYPURA_WAITING_SHORT);
        return be_child(argv);
    }
    program = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_added_unless_said),
        cmocka_unit_test(what_is_longer_takes_its_place),
        cmocka_unit_test(plain_llama_is_as_the_user_has_it),
        cmocka_unit_test(a_program_starts_itself_again_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
