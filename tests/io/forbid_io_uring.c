/* forbid_io_uring PROGRAM ARGUMENTS...: runs it without io_uring, as in a container. Exits with 77 where that cannot be had. */
#include "forbid_io_uring.h"
#include "named_engines.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 2 || !forbid_io_uring()) {
        fputs("forbid_io_uring: no program, or no seccomp filters here\n", stderr);
        return 77;
    }
    (void)setenv(ENGINES_ARE_NAMED_ELSEWHERE, "1", 1);
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 1;
}
