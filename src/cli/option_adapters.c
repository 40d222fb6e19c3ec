/*
 * option_adapters.c - see options.h: adapters, each a file with a number behind a colon or without.
 */
#include "cli/options.h"

#include "base/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static hypura_status bad_file(const hypura_option *option, const char *text, hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: '%s' is not a file, or several parted by commas", option->name, text);
}

/* text: n characters, FILE or FILE:SCALE. */
static hypura_status add_adapter(const hypura_option *option, const char *text, size_t n, hypura_error *error)
{
    hypura_adapter_list *list = option->to.adapters;
    if (list->n == HYPURA_MAX_ADAPTERS) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "option --%s: there may be %d adapters at most", option->name,
                           HYPURA_MAX_ADAPTERS);
    }
    char *path = list->paths[list->n];
    if (n == 0 || n >= HYPURA_ADAPTER_PATH_BYTES) {
        return bad_file(option, text, error);
    }
    memcpy(path, text, n);
    path[n] = '\0';
    char *scale = strrchr(path, ':');
    double value = 1.0;
    if (scale && !strchr(scale, '/')) {
        char *end;
        *scale++ = '\0';
        value = strtod(scale, &end);
        if (path[0] == '\0') {
            return bad_file(option, text, error);
        }
        if (scale[0] == '\0' || strspn(scale, "+-.0123456789eE") != strlen(scale) || *end != '\0' ||
            !isfinite((float)value)) {
            return hypura_fail(error, HYPURA_ERR_USAGE,
                               "option --%s: '%s' is not a number (FILE:SCALE; a file with a colon in its name is given with one)",
                               option->name, scale);
        }
    }
    list->items[list->n++] = (hypura_adapter){.path = path, .scale = (float)value};
    return HYPURA_OK;
}

hypura_status hypura_option_take_adapters(const hypura_option *option, const char *text, hypura_error *error)
{
    for (const char *item = text;;) {
        const size_t n = strcspn(item, ",");
        const hypura_status status = add_adapter(option, item, n, error);
        if (status != HYPURA_OK || item[n] == '\0') {
            return status;
        }
        item += n + 1;
    }
}
