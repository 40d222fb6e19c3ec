/*
 * projector.h - whether a file is a projector of pictures or sound (llama.cpp's mmproj), by its header.
 */
#ifndef HYPURA_GGUF_PROJECTOR_H
#define HYPURA_GGUF_PROJECTOR_H

#include "hypura.h"

/* HYPURA_ERR_FORMAT where it is damaged, or something else. */
hypura_status hypura_projector_check_file(const char *path, hypura_error *error);

#endif
