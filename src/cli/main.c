/*
 * main.c - the program `hypura`: finds the command, hands it the environment and
 * its words, and makes sure that what it printed really left the program.
 *
 * Exit codes: 0 success, 1 failure, 2 wrong usage. Results go to standard output,
 * everything else to standard error.
 */
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/output.h"

#include "base/waiting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const hypura_command commands[] = {
    {"run", "answer a prompt, or hold a conversation", hypura_command_run, true},
    {"serve", "answer Ollama's, OpenAI's and Anthropic's clients over HTTP", hypura_command_serve, false},
    {"ps", "list the models that a running server has loaded", hypura_command_ps, false},
    {"stop", "have a running server unload a model", hypura_command_stop, false},
    {"rpc-server", "lend this machine's memory to hypura on another one", hypura_command_rpc_server, false},
    {"pull", "fetch a model from Hugging Face or Ollama's registry", hypura_command_pull, false},
    {"list", "list the models that are known by name", hypura_command_list, false},
    {"remove", "remove a model from the models folder", hypura_command_remove, false},
    {"estimate", "tell how a model would be placed and how fast it would run", hypura_command_estimate, true},
    {"inspect", "list what a model file is made of", hypura_command_inspect, true},
    {"profile", "measure this machine", hypura_command_profile, false},
    {"iobench", "measure a drive: size, depth and order of reads", hypura_command_iobench, false},
    {"bench", "measure speed at several limits, and against plain llama.cpp", hypura_command_bench, true},
    {"verify", "prove that paging changes no bit of the output", hypura_command_verify, true},
    {"optimize", "write a model's experts so that each is one read", hypura_command_optimize, false},
    {"replay", "tell what caches of several sizes hit on a recorded route", hypura_command_replay, false},
    {"bench-worker", NULL, hypura_command_bench_worker, false},
};

#define N_COMMANDS ((int)(sizeof commands / sizeof *commands))

static const hypura_command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* What users of Ollama and llama.cpp look for, and what there is. */
static const struct {
    const char *name;
    const char *hint;
} foreign[] = {
    {"rm", "hypura remove NAME"},
    {"ls", "hypura list"},
    {"show", "hypura inspect MODEL"},
    {"chat", "hypura run MODEL, without a prompt"},
    {"server", "hypura serve"},
    {"create", "/api/create of a running server makes models"},
    {"cp", "/api/copy of a running server copies models"},
    {"quantize", "llama.cpp's llama-quantize does that"},
};

static int unknown_command(const char *name)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if (strcmp(foreign[i].name, name) == 0) {
            hypura_output_error("unknown command '%s' (%s)", name, foreign[i].hint);
            return HYPURA_EXIT_USAGE;
        }
    }
    const char *names[N_COMMANDS];
    int n_names = 0;
    for (int i = 0; i < N_COMMANDS; i++) {
        if (commands[i].summary) {
            names[n_names++] = commands[i].name;
        }
    }
    const char *near = hypura_nearest_name(name, names, n_names);
    if (near) {
        hypura_output_error("unknown command '%s' (did you mean %s?)", name, near);
    } else {
        hypura_output_error("unknown command '%s' (see hypura --help)", name);
    }
    return HYPURA_EXIT_USAGE;
}

static void print_help(FILE *to)
{
    fputs("usage: hypura COMMAND [options]\n"
          "\n"
          "Runs language models that do not fit in memory: weights that memory cannot hold\n"
          "are read from the drive just before they are needed.\n"
          "\n"
          "commands:\n",
          to);
    for (int i = 0; i < N_COMMANDS; i++) {
        if (commands[i].summary) {
            fprintf(to, "  %-10s  %s\n", commands[i].name, commands[i].summary);
        }
    }
    fputs("\n"
          "  hypura help COMMAND   options of a command\n"
          "  hypura --version      version of this program\n"
          "\n"
          "environment:\n"
          "  HYPURA_MODELS     folder of models, in which MODEL is looked up when it is a name\n"
          "                    (default: $XDG_DATA_HOME/hypura/models)\n"
          "  OLLAMA_MODELS     folder of Ollama's own models, which are known by name as well\n"
          "  HF_ENDPOINT       where pull fetches hf.co/... from, and HF_TOKEN, shown there;\n"
          "                    HF_HUB_OFFLINE=1: run and pull fetch nothing\n"
          "  HYPURA_API_KEY    the key that serve asks for and run --server shows\n"
          "  HYPURA_CACHE_DIR  folder of the stored machine profile\n"
          "                    (default: $XDG_CACHE_HOME/hypura)\n"
          "  NO_COLOR          when set, nothing on the terminal is coloured\n",
          to);
}

static int help_command(const hypura_environment *environment, int argc, char *const *argv)
{
    if (argc == 0) {
        print_help(stdout);
        return HYPURA_EXIT_SUCCESS;
    }
    const hypura_command *command = find_command(argv[0]);
    if (!command) {
        return unknown_command(argv[0]);
    }
    char help[] = "--help";
    char *words[] = {help, NULL};
    return command->run(environment, 1, words);
}

/* command: the one that argv[1] names; NULL: it names none. */
static int run_command(const hypura_command *command, const hypura_environment *environment, int argc,
                       char *const *argv)
{
    if (command) {
        return command->run(environment, argc - 2, argv + 2);
    }
    if (argc < 2) {
        print_help(stderr);
        return HYPURA_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        return help_command(environment, argc - 2, argv + 2);
    }
    if (strcmp(word, "--version") == 0 || strcmp(word, "version") == 0) {
        printf("hypura %s\n", hypura_version());
        return HYPURA_EXIT_SUCCESS;
    }
    if (word[0] == '-') {
        hypura_output_error("unknown option %s (see hypura --help)", word);
        return HYPURA_EXIT_USAGE;
    }
    return unknown_command(word);
}

/* Nothing that was begun can go on; what was printed is the beginning of the result. */
static void on_end(const hypura_error *error)
{
    (void)hypura_output_flush();
    hypura_output_error("%s", error->message);
    _exit(HYPURA_EXIT_FAILURE);
}

/* A standard stream that is closed would give its number to the next file that
 * is opened, a model perhaps. Each gets a descriptor that cannot be used as that
 * stream, so that using it is still an error. */
static void occupy_standard_streams(void)
{
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF) {
            (void)open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

/* Before options are read: threads of the CPU then have work in many layers of each token. */
static bool computes_misses(int argc, char **argv)
{
    bool found = false;
    for (int i = 2; i < argc && !found; i++) {
        found = strcmp(argv[i], "--gpu-misses=cpu") == 0 ||
                (strcmp(argv[i], "cpu") == 0 && strcmp(argv[i - 1], "--gpu-misses") == 0);
    }
    return found;
}

int main(int argc, char **argv)
{
    hypura_environment environment;
    hypura_error error;
    const hypura_command *command = argc > 1 ? find_command(argv[1]) : NULL;
    if (command && command->computes) {
        hypura_waiting_restart(argv, computes_misses(argc, argv) ? HYPURA_WAITING_LONG : hypura_waiting_usual());
    }
    occupy_standard_streams();
    hypura_interrupt_let_writes_fail();
    if (hypura_environment_read(&environment, &error) != HYPURA_OK) {
        return hypura_command_fail(&error);
    }
    environment.words = argv;
    hypura_output_color(environment.color);
    hypura_on_end(on_end);
    hypura_gpu_wait(environment.gpu_seconds);
    int code = run_command(command, &environment, argc, argv);
    hypura_output_flush();
    int failed = hypura_output_errno();
    if (failed) {
        fprintf(stderr, "hypura: cannot write to standard output: %s\n", strerror(failed));
        return HYPURA_EXIT_FAILURE;
    }
    return code;
}
