/*
 * cmd_rpc_server.c - `hypura rpc-server`: this machine's memory, and what computes with it, for --rpc on another one.
 */
#include "cli/command.h"

#include "base/host.h"
#include "cli/output.h"
#include "hypura_server.h"

int hypura_command_rpc_server(const hypura_environment *environment, int argc, char *const *argv)
{
    (void)environment;
    hypura_rpc_options wanted = {.host = NULL};
    uint32_t port = 0;
    const hypura_option options[] = {
        {"host", "ADDRESS", "to listen on (default: 127.0.0.1; 0.0.0.0: every network)", HYPURA_OPTION_STRING,
         .to.string = &wanted.host, .also = "-H"},
        {"port", "N", "port (default: 50052)", HYPURA_OPTION_UNSIGNED, .to.unsigned_integer = &port, .min = 1,
         .max = 65535, .also = "-p"},
        {"memory", "SIZE", "offered to clients, of each device (default: what is free)", HYPURA_OPTION_SIZE,
         .to.size = &wanted.memory_bytes},
        hypura_option_gpu(&wanted.gpu),
        hypura_option_threads(&wanted.n_threads),
    };
    const hypura_syntax syntax = {
        .command = "rpc-server",
        .operands = "",
        .about = "Lends this machine's memory to hypura, or llama.cpp, of the same version on another\n"
                 "one: layers of a model that is run there with --rpc ADDRESS:PORT are held and computed\n"
                 "here, by the GPUs or, where there is none, by the processor. One client at a time.\n"
                 "\n"
                 "It trusts every client: who reaches the port can use this machine's memory and may\n"
                 "take over the program, and what is sent can be read on the way. Listen on a network\n"
                 "of your own alone, or on 127.0.0.1 behind an SSH tunnel.\n",
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = hypura_size_notes,
    };
    hypura_arguments arguments;
    hypura_error error;
    int code;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, &code)) {
        return code;
    }
    wanted.port = (uint16_t)port;
    if (wanted.host && !hypura_host_is_loopback(wanted.host)) {
        hypura_output_note("whoever reaches %s can use this machine: keep it off networks that you do not trust", wanted.host);
    }
    (void)hypura_rpc_serve(&wanted, &error);
    return hypura_command_fail(&error);
}
