/*
 * projector.c - see projector.h.
 */
#include "gguf/projector.h"

#include "base/status.h"
#include "gguf/reader.h"

#include <string.h>

static hypura_status check(const hypura_gguf *gguf, hypura_error *error)
{
    const char *arch = NULL;
    if (hypura_gguf_text(gguf, "general.architecture", &arch, NULL) != HYPURA_OK || !arch ||
        !hypura_gguf_is_printable(arch, strlen(arch))) {
        arch = "";
    }
    return strcmp(arch, "clip") == 0
               ? HYPURA_OK
               : hypura_fail(error, HYPURA_ERR_FORMAT,
                             "%s: it is no projector: its architecture is '%.40s', expected 'clip' (the file is mostly called "
                             "mmproj-..., and lies beside the model where that came from)",
                             gguf->path, arch);
}

hypura_status hypura_projector_check_file(const char *path, hypura_error *error)
{
    hypura_source source;
    hypura_gguf gguf;
    hypura_arena names = {.last = NULL};
    hypura_status status = hypura_source_open_file(NULL, path, &source, error);
    if (status != HYPURA_OK) {
        return status;
    }
    status = hypura_gguf_read(&source, &names, &gguf, error);
    if (status == HYPURA_OK) {
        status = check(&gguf, error);
        hypura_gguf_clear(&gguf);
    }
    hypura_arena_free(&names);
    hypura_source_close(&source);
    return status;
}
