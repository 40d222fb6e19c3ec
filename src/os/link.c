/*
 * link.c - see link.h. Linux tells the speed and width of a PCI Express link in two
 * files of the device's folder in sysfs; a drive's folder lies somewhere below it.
 */
#include "os/link.h"

#include "base/path.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifdef __linux__
#include <sys/sysmacros.h>
#endif

static bool read_number(const char *folder, const char *name, double *number)
{
    char path[PATH_MAX + 32];
    FILE *file = hypura_path_join(path, sizeof path, folder, name) ? fopen(path, "re") : NULL;
    const bool found = file != NULL && fscanf(file, "%lf", number) == 1 && *number > 0.0;
    if (file != NULL) {
        (void)fclose(file);
    }
    return found;
}

/* Payload share of the line code of a generation: 8b/10b up to 5 GT/s, 128b/130b,
 * and 1b/1b with forward error correction from 64 GT/s on. */
static double line_code(double gigatransfers)
{
    return gigatransfers < 6.0 ? 0.8 : gigatransfers < 60.0 ? 128.0 / 130.0 : 242.0 / 256.0;
}

bool hypura_os_link_read_at(const char *block_folder, const char *device, hypura_os_link *link)
{
    char path[PATH_MAX];
    char folder[PATH_MAX];
    if (!hypura_path_join(path, sizeof path, block_folder, device) || realpath(path, folder) == NULL) {
        return false;
    }
    /* The link nearest to the drive; controllers above it share theirs. */
    for (char *slash = strrchr(folder, '/'); slash != NULL && slash != folder; slash = strrchr(folder, '/')) {
        double gigatransfers;
        double lanes;
        if (read_number(folder, "current_link_speed", &gigatransfers) &&
            read_number(folder, "current_link_width", &lanes)) {
            link->bytes_per_s = gigatransfers * 1e9 * lanes * line_code(gigatransfers) / 8.0;
            (void)snprintf(link->name, sizeof link->name, "PCIe %.1f GT/s x%.0f", gigatransfers, lanes);
            return true;
        }
        *slash = '\0';
    }
    return false;
}

bool hypura_os_link_read(const char *path, hypura_os_link *link)
{
#ifdef __linux__
    struct stat st;
    char device[32];
    if (stat(path, &st) != 0) {
        return false;
    }
    (void)snprintf(device, sizeof device, "%u:%u", major(st.st_dev), minor(st.st_dev));
    return hypura_os_link_read_at("/sys/dev/block", device, link);
#else
    (void)path;
    (void)link;
    return false;
#endif
}
