/*
 * environment.c - see environment.h. Folders follow the XDG base directory
 * specification, which says to ignore variables that hold a relative path; on
 * macOS everything lies below ~/Library/Application Support.
 */
#include "cli/environment.h"

#include "base/clock.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

typedef struct folder {
    const char *variable; /* names the folder itself */
    const char *xdg;      /* names the folder above */
    const char *home;     /* below $HOME when neither is set */
    const char *mac;      /* the same on macOS */
    const char *below;    /* below what xdg or home name */
} folder;

static const folder cache_folder = {"HYPURA_CACHE_DIR", "XDG_CACHE_HOME", ".cache", "Library/Application Support",
                                    "hypura"};
static const folder models_folder = {"HYPURA_MODELS", "XDG_DATA_HOME", ".local/share", "Library/Application Support",
                                     "hypura/models"};

static const folder ollama_folder = {"OLLAMA_MODELS", NULL, ".ollama", ".ollama", "models"};

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

/* As Hugging Face's programs and Ollama read theirs. */
static bool is_on(const char *name)
{
    static const char *const words[] = {"1", "on", "yes", "true"};
    const char *value = variable(name);
    bool found = false;
    for (size_t i = 0; value && !found && i < sizeof words / sizeof *words; i++) {
        found = strcasecmp(value, words[i]) == 0;
    }
    return found;
}

/* Joins up to three parts with slashes; NULL ends them early. */
static bool join(char *path, const char *a, const char *b, const char *c)
{
    int n = snprintf(path, HYPURA_PATH_BYTES, "%s%s%s%s%s", a, b ? "/" : "", b ? b : "", c ? "/" : "", c ? c : "");
    return n >= 0 && n < HYPURA_PATH_BYTES;
}

static hypura_status find_folder(const folder *which, char *path, hypura_error *error)
{
    const char *own = variable(which->variable);
    const char *xdg = which->xdg ? variable(which->xdg) : NULL;
    const char *home = variable("HOME");
#ifdef __APPLE__
    const char *below_home = which->mac;
    xdg = NULL;
#else
    const char *below_home = which->home;
#endif
    bool fits = true;
    path[0] = '\0';
    if (own) {
        fits = join(path, own, NULL, NULL);
    } else if (xdg && xdg[0] == '/') {
        fits = join(path, xdg, which->below, NULL);
    } else if (home) {
        fits = join(path, home, below_home, which->below);
    }
    if (!fits) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path in %s is too long (more than %d bytes)",
                           own                      ? which->variable
                           : (xdg && xdg[0] == '/') ? which->xdg
                                                    : "HOME",
                           HYPURA_PATH_BYTES - 1);
    }
    return HYPURA_OK;
}

hypura_status hypura_environment_read(hypura_environment *environment, hypura_error *error)
{
    const char *terminal = variable("TERM");
    /* ggml's Vulkan backend copies with the GPU's copy engine only when it is told to.
     * One run each at half of the experts: prefill 1.5 times as fast, decode 1.1 times. */
    const char *transfers = variable("GGML_VK_ASYNC_USE_TRANSFER_QUEUE");
    if (transfers && strcmp(transfers, "0") == 0) {
        (void)unsetenv("GGML_VK_ASYNC_USE_TRANSFER_QUEUE"); /* ggml asks only whether it is there */
    } else {
        (void)setenv("GGML_VK_ASYNC_USE_TRANSFER_QUEUE", "1", 0);
    }
    *environment = (hypura_environment){.terminal_in = isatty(STDIN_FILENO), .terminal_error = isatty(STDERR_FILENO)};
    environment->hub_url = variable("HF_ENDPOINT");
    environment->hub_token = variable("HF_TOKEN");
    environment->api_keys = variable("HYPURA_API_KEY");
    environment->gpu_seconds = hypura_seconds_parse(variable("HYPURA_GPU_SECONDS"));
    environment->offline = is_on("HF_HUB_OFFLINE");
    environment->keep_unused = is_on("OLLAMA_NOPRUNE");
    environment->color =
        environment->terminal_error && !variable("NO_COLOR") && terminal != NULL && strcmp(terminal, "dumb") != 0;
    hypura_status status = find_folder(&cache_folder, environment->cache_dir, error);
    if (status == HYPURA_OK) {
        status = find_folder(&models_folder, environment->models_dir, error);
    }
    if (status == HYPURA_OK) {
        status = find_folder(&ollama_folder, environment->ollama_dir, error);
    }
    return status;
}

bool hypura_environment_program(char *path)
{
#ifdef __APPLE__
    char name[HYPURA_PATH_BYTES];
    uint32_t bytes = sizeof name;
    char *real = _NSGetExecutablePath(name, &bytes) == 0 ? realpath(name, NULL) : NULL;
    const bool known = real && join(path, real, NULL, NULL);
    free(real);
    return known;
#else
    const ssize_t n = readlink("/proc/self/exe", path, HYPURA_PATH_BYTES - 1);
    path[n > 0 ? n : 0] = '\0';
    return n > 0;
#endif
}

hypura_local_options hypura_environment_places(const hypura_environment *environment)
{
    return (hypura_local_options){
        .models_folder = environment->models_dir[0] ? environment->models_dir : NULL,
        .ollama_folder = environment->ollama_dir[0] ? environment->ollama_dir : NULL,
        .hub_url = environment->hub_url,
        .hub_token = environment->hub_token,
        .keep_unused = environment->keep_unused,
    };
}

/* As a file of the models folder, or of one below it. */
static bool find_file(const hypura_environment *environment, const char *model, char *path)
{
    static const char *const endings[] = {"", ".gguf"};
    for (size_t i = 0; environment->models_dir[0] && i < sizeof endings / sizeof *endings; i++) {
        int n = snprintf(path, HYPURA_PATH_BYTES, "%s/%s%s", environment->models_dir, model, endings[i]);
        if (n >= 0 && n < HYPURA_PATH_BYTES && access(path, F_OK) == 0) {
            return true;
        }
    }
    return false;
}

static hypura_status take_path(const char *path, hypura_local_files *files, hypura_error *error)
{
    files->path = strdup(path);
    return files->path ? HYPURA_OK : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the path of the model");
}

hypura_status hypura_environment_look_up(const hypura_environment *environment, const char *model,
                                         hypura_local_files *files, hypura_error *error)
{
    char path[HYPURA_PATH_BYTES];
    *files = (hypura_local_files){.path = NULL};
    if (model[0] == '\0') {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the name of the model is empty");
    }
    if (!join(path, model, NULL, NULL)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "the path of the model is too long (more than %d bytes)",
                           HYPURA_PATH_BYTES - 1);
    }
    /* A path from the root or from here can be nothing else: the library says why it cannot be opened. */
    if (model[0] == '/' || model[0] == '.' || access(model, F_OK) == 0) {
        return take_path(model, files, error);
    }
    const hypura_local_options places = hypura_environment_places(environment);
    const bool is_file = find_file(environment, model, path);
    const hypura_status status = hypura_local_find(&places, model, files, error);
    if (files->path || (status != HYPURA_OK && !(is_file && status == HYPURA_ERR_USAGE))) {
        return status;
    }
    if (is_file) { /* one that is no model by its name, or not alone with it */
        hypura_error_clear(error);
        return take_path(path, files, error);
    }
    return HYPURA_OK;
}

hypura_status hypura_environment_find_files(const hypura_environment *environment, const char *model,
                                            hypura_local_files *files, hypura_error *error)
{
    const hypura_local_options places = hypura_environment_places(environment);
    const hypura_status status = hypura_environment_look_up(environment, model, files, error);
    if (status != HYPURA_OK || files->path) {
        return status;
    }
    return hypura_fail(error, HYPURA_ERR_IO,
                       "no model '%s': there is no such file, and no model of that name in %s%s%s (hypura list shows "
                       "those there are, hypura pull fetches one)",
                       model, places.models_folder ? places.models_folder : "the models folder, as there is none",
                       places.ollama_folder ? " or " : "", places.ollama_folder ? places.ollama_folder : "");
}

hypura_status hypura_environment_find_model(const hypura_environment *environment, const char *model, char *path,
                                            hypura_error *error)
{
    hypura_local_files files;
    hypura_status status = hypura_environment_find_files(environment, model, &files, error);
    if (status == HYPURA_OK && files.adapters[0]) {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "%s has an adapter (LoRA), which is not applied here: the file alone is %s", model, files.path);
    }
    if (status == HYPURA_OK && !join(path, files.path, NULL, NULL)) {
        status = hypura_fail(error, HYPURA_ERR_USAGE, "the path of the model is too long (more than %d bytes)",
                             HYPURA_PATH_BYTES - 1);
    }
    hypura_local_files_clear(&files);
    return status;
}
