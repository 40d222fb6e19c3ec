/*
 * run_options.c - see run_arguments.h: the options of `hypura run`, and where each of them goes.
 */
#include "cli/run_arguments.h"

#include "cli/output.h"

/* In the order of hypura_thinking, without its first one. */
static const char *const thinkings[] = {"on", "off", "low", "medium", "high", NULL};

bool hypura_run_thinking(const char *word, hypura_thinking *thinking)
{
    *thinking = (hypura_thinking)(hypura_option_choice(thinkings, word) + 1);
    return *thinking != HYPURA_THINKING_AUTO;
}

static const char about[] =
    "Answers a prompt with a GGUF model, holding no more of it in memory than allowed.\n"
    "A name that is not here (hf.co/USER/REPOSITORY:TYPE, or one of Ollama's) is pulled.\n"
    "Without PROMPT, --prompt or --prompt-file it is standard input; on a terminal a\n"
    "conversation begins. With both, a file comes before the prompt. One newline at the\n"
    "end of a file is not part of the prompt.\n";

static const char notes[] =
    "SIZE is a number of bytes, or a number with K, M or G (powers of 1024).\n"
    "--memory and --weights exclude each other.\n"
    "llama.cpp's -p -f -n -c -t -s -r -sys -j are understood as well.\n"
    "\n"
    "On a terminal /? tells what a conversation understands: /set system, /set parameter,\n"
    "/show, /save, /load, /clear, /bye as in Ollama. \"\"\" begins a message of several\n"
    "lines, and ends it.\n"
    "Ctrl-C ends the answer and prints the statistics; the exit code is then 1. In a\n"
    "conversation it ends the answer alone, and at the prompt, twice, the conversation,\n"
    "as Ctrl-D does.\n";

bool hypura_run_arguments_parse(hypura_run_arguments *run, const hypura_environment *environment, int argc, char *const *argv,
                                int *exit_code)
{
    *run = (hypura_run_arguments){
        .environment = environment,
        .generate.sampling = {.temperature = 0.8f, .top_p = 0.95f, .min_p = 0.05f, .top_k = 40},
    };
    hypura_sampling *sampling = &run->generate.sampling;
    const hypura_option options[] = {
        {"prompt", "TEXT", "the prompt", HYPURA_OPTION_STRING, .to.string = &run->generate.prompt, .also = "-p"},
        {"prompt-file", "FILE", "read the prompt, or what comes before it, from FILE (-: standard input)", HYPURA_OPTION_STRING,
         .to.string = &run->prompt_file, .also = "-f --file"},
        {"system", "TEXT", "what the model is told before the first prompt", HYPURA_OPTION_STRING,
         .to.string = &run->generate.system, .also = "-sys --system-prompt"},
        {"interactive", NULL, "hold a conversation, line by line", HYPURA_OPTION_FLAG, .to.flag = &run->interactive,
         .also = "-i -cnv --conversation"},
        {"history", "FILE", "keep the conversation in FILE, and go on with the one there", HYPURA_OPTION_STRING,
         .to.string = &run->history_file},
        {"raw", NULL, "continue the prompt as it is, without the chat template", HYPURA_OPTION_FLAG,
         .to.flag = &run->generate.raw, .also = "-no-cnv --no-conversation"},
        {"template", "FILE", "chat template in Jinja in place of the model's own", HYPURA_OPTION_STRING,
         .to.string = &run->template_file, .also = "--chat-template-file"},
        {"json-schema", "JSON", "the answer is JSON of this schema; {}: any JSON", HYPURA_OPTION_STRING,
         .to.string = &run->generate.json_schema, .also = "-j"},
        {"grammar", "GBNF", "the answer is of this grammar, from its rule root", HYPURA_OPTION_STRING,
         .to.string = &run->generate.grammar},
        {"stop", "TEXT", "ends the answer before this text; may be given several times", HYPURA_OPTION_STRINGS,
         .to.strings = &run->stop, .also = "-r --reverse-prompt"},
        {"think", "HOW", "whether it thinks before it answers: on, off; low, medium, high", HYPURA_OPTION_CHOICE,
         .to.string = &run->think, .choices = thinkings},
        {"quiet", NULL, "neither placement nor statistics on standard error", HYPURA_OPTION_FLAG, .to.flag = &run->quiet},
        {"hide-thoughts", NULL, "what it thinks is not shown", HYPURA_OPTION_FLAG, .to.flag = &run->hides_thoughts,
         .also = "--hidethinking"},
        {"max-tokens", "N", "tokens of an answer at most (0: no limit)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &run->generate.max_tokens, .min = 0, .max = INT32_MAX,
         .also = "-n --predict --n-predict",
         .given = &run->given.max_tokens},
        hypura_option_context(&run->model.n_context),
        hypura_option_cache_type_k(&run->model.kv_cache),
        hypura_option_cache_type_v(&run->model.kv_cache),
        hypura_option_memory(&run->model.memory_bytes),
        hypura_option_weights(&run->weights),
        hypura_option_gpu(&run->model.gpu),
        hypura_option_vram(&run->vram),
        hypura_option_gpu_misses(&run->gpu_misses),
        hypura_option_rpc(&run->model.rpc),
        hypura_option_rpc_memory(&run->model.rpc_bytes),
        hypura_option_threads(&run->model.n_threads),
        hypura_option_ubatch(&run->model.n_ubatch),
        hypura_option_lora(&run->adapters),
        {"image", "FILE", "a picture or a sound to show before the prompt; may be given several times", HYPURA_OPTION_STRINGS,
         .to.strings = &run->images, .also = "--audio"},
        {"mmproj", "FILE", "what makes of it that which the model reads (default: the model's own)", HYPURA_OPTION_STRING,
         .to.string = &run->projector, .also = "-mm"},
        hypura_option_draft(&run->speculation),
        hypura_option_spec_type(&run->speculation),
        hypura_option_draft_max(&run->speculation),
        hypura_option_draft_p_min(&run->speculation),
        {"temp", "F", "temperature, 0: the most likely token (default: 0.8)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->temperature, .min = 0, .max = 100, .also = "--temperature",
         .given = &run->given.temperature},
        {"top-p", "F", "tokens that make up F of the probability (default: 0.95)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->top_p, .min = 0, .max = 1,
         .given = &run->given.top_p},
        {"top-k", "N", "the N most likely tokens, 0: all (default: 40)", HYPURA_OPTION_INT,
         .to.integer = &sampling->top_k, .min = 0, .max = INT32_MAX,
         .given = &run->given.top_k},
        {"min-p", "F", "tokens with F of the best one's probability (default: 0.05)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->min_p, .min = 0, .max = 1,
         .given = &run->given.min_p},
        {"repeat-penalty", "F", "makes the last 64 tokens less likely (default: 1, off)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->repeat_penalty, .min = 1, .max = 100,
         .given = &run->given.repeat_penalty},
        {"frequency-penalty", "F", "takes F off them as often as they occur (default: 0, off)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->frequency_penalty, .min = -2, .max = 2,
         .given = &run->given.frequency_penalty},
        {"presence-penalty", "F", "takes F off them once (default: 0, off)", HYPURA_OPTION_FLOAT,
         .to.real = &sampling->presence_penalty, .min = -2, .max = 2,
         .given = &run->given.presence_penalty},
        {"seed", "N", "seed of the sampling (default: random)", HYPURA_OPTION_UNSIGNED,
         .to.unsigned_integer = &sampling->seed, .min = 0, .max = UINT32_MAX, .given = &run->seed_given,
         .also = "-s"},
        {"server", "URL", "ask a running server, by its name for the model", HYPURA_OPTION_STRING,
         .to.string = &run->server},
        hypura_option_api_key(&run->keys, "the server's key"),
        hypura_option_api_key_file(&run->keys, "the same, the first line of FILE: a command line is no secret"),
        {"offline", NULL, "fetch nothing: fail where the model is not here", HYPURA_OPTION_FLAG, .to.flag = &run->offline},
        hypura_option_io_engine(&run->model.io_engine),
        {"no-repack", NULL, "keep weights in the file's own layout", HYPURA_OPTION_FLAG, .to.flag = &run->model.no_repack},
        {"force-paging", NULL, "page although all weights fit", HYPURA_OPTION_FLAG, .to.flag = &run->model.force_paging},
        {"plain", NULL, "plain llama.cpp, without Hypura, to compare with", HYPURA_OPTION_FLAG,
         .to.flag = &run->model.plain},
        {"trace", "FILE", "write the experts that are selected to FILE, as replay reads it", HYPURA_OPTION_STRING,
         .to.string = &run->model.trace},
        {"stats-json", "FILE", "write statistics and text to FILE", HYPURA_OPTION_STRING, .to.string = &run->stats_file},
    };
    const hypura_syntax syntax = {
        .command = "run",
        .operands = "MODEL [PROMPT]",
        .n_operands = 2,
        .n_optional = 1,
        .about = about,
        .options = options,
        .n_options = sizeof options / sizeof *options,
        .notes = notes,
    };
    hypura_arguments arguments;
    hypura_error error;
    if (!hypura_command_begin(&syntax, argc, argv, &arguments, &error, exit_code)) {
        return false;
    }
    run->name = arguments.operands[0];
    if (run->think) {
        (void)hypura_run_thinking(run->think, &run->generate.thinking);
    }
    run->generate.stop = run->stop.items;
    run->generate.n_stop = run->stop.n;
    if (run->generate.prompt && arguments.n_operands > 1) {
        hypura_output_error("a prompt is given twice: '%s' and --prompt", arguments.operands[1]);
        *exit_code = HYPURA_EXIT_USAGE;
        return false;
    }
    if (arguments.n_operands > 1) {
        run->generate.prompt = arguments.operands[1];
    }
    return true;
}
