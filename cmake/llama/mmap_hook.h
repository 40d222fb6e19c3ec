/*
 * Put before llama-mmap.cpp, and before nothing else, when llama.cpp is built: makes its reading ahead optional.
 *
 * libllama maps a model with MAP_POPULATE and advises WILLNEED, so that loading reads the whole file. A file larger
 * than memory cannot afford that: it evicts what was read before, and the pager reads what it needs by itself.
 *
 * hypura_llama_mmap_prefetch belongs to whoever opens models: nonzero (the default, llama.cpp's own behaviour) reads ahead,
 * 0 does not. It is looked at when a file is mapped. Weak on both sides: a program that declares it weak also runs with a
 * stock libllama, where its address is NULL.
 */
#pragma once

/* The system headers come first: what follows must not rewrite their declarations. */
#include <fcntl.h>
#include <sys/mman.h>

extern "C" {
__attribute__((weak, visibility("default"))) int hypura_llama_mmap_prefetch = 1;
}

#ifdef MAP_POPULATE
static const int hypura_map_populate = MAP_POPULATE;
#undef MAP_POPULATE
#define MAP_POPULATE (hypura_llama_mmap_prefetch ? hypura_map_populate : 0)
#endif

static inline int hypura_posix_madvise(void *address, size_t length, int advice)
{
    /* Other advice reads nothing and stays: RANDOM even keeps the kernel from reading around a fault. */
    return advice == POSIX_MADV_WILLNEED && !hypura_llama_mmap_prefetch ? 0 : posix_madvise(address, length, advice);
}
#define posix_madvise hypura_posix_madvise
