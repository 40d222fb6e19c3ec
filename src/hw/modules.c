/*
 * modules.c - see modules.h.
 */
#include "hw/modules.h"

#include "base/status.h"
#include "os/os.h"

#include "ggml-backend.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A module's name and its backend's. What is made for one vendor comes first. */
static const struct {
    const char *module, *backend;
} modules[] = {
    {"cuda", "CUDA"},
    {"hip", "ROCm"},
    {"metal", "MTL"},
    {"vulkan", "Vulkan"},
};

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

/* The folder of the file that this code was loaded from. */
static bool own_folder(char *folder, size_t capacity)
{
    Dl_info info;
    if (dladdr((const void *)modules, &info) == 0 || info.dli_fname == NULL) {
        return false;
    }
    const char *slash = strrchr(info.dli_fname, '/');
    const int bytes = slash ? (int)(slash - info.dli_fname) : 1;
    return snprintf(folder, capacity, "%.*s", bytes, slash ? info.dli_fname : ".") < (int)capacity;
}

/* ggml reports what it loads and which drivers it misses to standard error. */
static void discard_log(enum ggml_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    (void)user;
}

int hypura_modules_load(const char *folder)
{
    char own[4096], path[4200];
    if (folder == NULL) {
        if (!own_folder(own, sizeof own)) {
            return 0;
        }
        folder = own;
    }
    int n_loaded = 0;
    ggml_log_callback log = NULL;
    void *log_user = NULL;
    (void)pthread_mutex_lock(&loading);
    ggml_log_get(&log, &log_user);
    ggml_log_set(discard_log, NULL);
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) {
        /* It may be a part of ggml itself. */
        bool loaded = ggml_backend_reg_by_name(modules[i].backend) != NULL;
        /* Modules have this suffix on macOS, too. */
        const int bytes = snprintf(path, sizeof path, "%s/libggml-%s.so", folder, modules[i].module);
        if (!loaded && bytes < (int)sizeof path && access(path, R_OK) == 0) {
            loaded = ggml_backend_load(path) != NULL;
        }
        n_loaded += loaded;
    }
    ggml_log_set(log, log_user);
    (void)pthread_mutex_unlock(&loading);
    return n_loaded;
}

void hypura_modules_load_present(void)
{
    if (hypura_os_has_gpu()) {
        (void)hypura_modules_load(NULL);
    }
}

bool hypura_modules_is_gpu(struct ggml_backend_device *device)
{
    const enum ggml_backend_dev_type type = ggml_backend_dev_type(device);
    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

/* "Vulkan0, Vulkan1"; "none" without any. */
static void list_gpus(char *text, size_t capacity)
{
    size_t used = (size_t)snprintf(text, capacity, "none");
    for (size_t i = 0, n = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t found = ggml_backend_dev_get(i);
        if (hypura_modules_is_gpu(found)) {
            used = n++ == 0 ? 0 : used;
            const int more = snprintf(text + used, capacity - used, "%s%s", used > 0 ? ", " : "",
                                      ggml_backend_dev_name(found));
            used = used + (size_t)more < capacity ? used + (size_t)more : capacity - 1;
        }
    }
}

struct ggml_backend_device *hypura_modules_take_named(const char **names, hypura_error *error)
{
    char name[sizeof ((hypura_device *)0)->name];
    char there[256];
    const size_t n = strcspn(*names, ",");
    if (n < sizeof name) {
        (void)snprintf(name, sizeof name, "%.*s", (int)n, *names);
        ggml_backend_dev_t device = ggml_backend_dev_by_name(name);
        if (device && hypura_modules_is_gpu(device)) {
            *names = (*names)[n] == ',' ? *names + n + 1 : NULL;
            return device;
        }
    }
    list_gpus(there, sizeof there);
    (void)hypura_fail(error, HYPURA_ERR_USAGE, "there is no GPU %.*s; there are: %s", (int)n, *names, there);
    return NULL;
}

bool hypura_modules_are_wanted(void)
{
    bool found = false;
    for (size_t i = 0; i < ggml_backend_dev_count() && !found; i++) {
        found = hypura_modules_is_gpu(ggml_backend_dev_get(i));
    }
    return found || hypura_os_has_gpu();
}

struct ggml_backend_device *hypura_modules_first_of(struct ggml_backend_device *device)
{
    struct ggml_backend_dev_props wanted = {0};
    ggml_backend_dev_get_props(device, &wanted);
    for (size_t i = 0; wanted.device_id && i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t earlier = ggml_backend_dev_get(i);
        struct ggml_backend_dev_props props = {0};
        if (earlier == device) {
            break;
        }
        ggml_backend_dev_get_props(earlier, &props);
        if (props.device_id && strcmp(props.device_id, wanted.device_id) == 0 &&
            ggml_backend_dev_backend_reg(earlier) != ggml_backend_dev_backend_reg(device)) {
            return earlier;
        }
    }
    return device;
}

bool hypura_modules_is_addressable(struct ggml_backend_device *device)
{
    struct ggml_backend_dev_props props = {0};
    ggml_backend_dev_get_props(device, &props);
    return props.type == GGML_BACKEND_DEVICE_TYPE_GPU && props.caps.buffer_from_host_ptr &&
           !strstr(ggml_backend_buft_name(ggml_backend_dev_buffer_type(device)), "_Private");
}

bool hypura_modules_is_unified(struct ggml_backend_device *device)
{
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_IGPU || hypura_modules_is_addressable(device);
}
