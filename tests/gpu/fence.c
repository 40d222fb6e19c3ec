/*
 * fence.c - a Vulkan driver that has lost its device and does not say so, for programs: loaded before them (LD_PRELOAD), it comes
 * between ggml-vulkan and the loader. From when the file that $STANDIN_LOSE names appears, which it removes, the state of each
 * fence is "not ready", for good. What is in the file says the rest, behind a "loading-" that changes nothing: "told", waits in the
 * driver say that the device is lost; "silent", they do not end. So it was seen of NVIDIA's driver, "told", after a fault.
 *
 * ggml asks for the state again and again until it is what it waits for, and takes a processor from the driver, which computes on the
 * same ones: here each answer takes up to a millisecond, asleep, unless the state changes before.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_NS     UINT64_C(1000000)
#define NOT_READY   1
#define TIMEOUT     2
#define DEVICE_LOST (-4)

/* As vulkan_core.h has them, with handles of either kind as what they are here: 64 bits. */
typedef void (*function)(void);
typedef function (*get_address)(void *owner, const char *name);
typedef int32_t (*get_fence_status)(void *device, uint64_t fence);
typedef int32_t (*wait_for_fences)(void *device, uint32_t n, const uint64_t *fences, uint32_t all, uint64_t timeout_ns);
typedef int32_t (*wait_semaphores)(void *device, const void *info, uint64_t timeout_ns);

static get_address      real_of_instance;
static get_address      real_of_device;
static get_fence_status real_status;
static wait_for_fences  real_wait;
static wait_semaphores  real_wait_semaphores;
static atomic_bool      lost;
static atomic_bool      tells;

static void look(void)
{
    const char *file = getenv("STANDIN_LOSE");
    char        how[32] = "";
    const int   in = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (in >= 0) {
        const bool read_it = read(in, how, sizeof(how) - 1) > 0;
        (void)close(in);
        if (read_it && unlink(file) == 0) {
            atomic_store(&tells, strstr(how, "told") != NULL);
            atomic_store(&lost, true);
        }
    }
}

static int32_t wait_in_vain(void)
{
    while (!atomic_load(&tells)) {
        (void)usleep(1000);
    }
    return DEVICE_LOST;
}

static int32_t status(void *device, uint64_t fence)
{
    if (!atomic_load(&lost)) {
        look();
    }
    if (atomic_load(&lost)) {
        (void)usleep(1000);
        return NOT_READY;
    }
    if (!real_wait) {
        return real_status(device, fence);
    }
    const int32_t result = real_wait(device, 1, &fence, 1, LOOK_NS);
    return result == TIMEOUT ? NOT_READY : result;
}

static int32_t wait(void *device, uint32_t n, const uint64_t *fences, uint32_t all, uint64_t timeout_ns)
{
    return atomic_load(&lost) ? wait_in_vain() : real_wait(device, n, fences, all, timeout_ns);
}

static int32_t wait_for_semaphores(void *device, const void *info, uint64_t timeout_ns)
{
    return atomic_load(&lost) ? wait_in_vain() : real_wait_semaphores(device, info, timeout_ns);
}

/* Keeps the real function, and gives ours in its place. */
static function take(const char *name, function real)
{
    function ours = real;
    if (real && strcmp(name, "vkGetFenceStatus") == 0) {
        real_status = (get_fence_status)real;
        ours = (function)status;
    } else if (real && strcmp(name, "vkWaitForFences") == 0) {
        real_wait = (wait_for_fences)real;
        ours = (function)wait;
    } else if (real && strcmp(name, "vkWaitSemaphores") == 0) {
        real_wait_semaphores = (wait_semaphores)real;
        ours = (function)wait_for_semaphores;
    }
    return ours;
}

static function of_device(void *device, const char *name)
{
    return take(name, real_of_device(device, name));
}

__attribute__((visibility("default"))) function vkGetInstanceProcAddr(void *instance, const char *name);

function vkGetInstanceProcAddr(void *instance, const char *name)
{
    if (!real_of_instance) {
        void *library = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
        void *address = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
        if (!address) {
            abort();
        }
        memcpy(&real_of_instance, &address, sizeof(address));
    }
    const function real = real_of_instance(instance, name);
    if (real && strcmp(name, "vkGetDeviceProcAddr") == 0) {
        real_of_device = (get_address)real;
        return (function)of_device;
    }
    return take(name, real);
}
