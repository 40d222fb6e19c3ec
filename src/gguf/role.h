/*
 * role.h - what a tensor is for, told from its name alone.
 */
#ifndef HYPURA_GGUF_ROLE_H
#define HYPURA_GGUF_ROLE_H

#include "hypura.h"

typedef struct hypura_role_info {
    hypura_role role;
    int layer;  /* -1 outside the repeating layers */
    int family; /* EXPERT: tensors of a layer that one selection serves */
    int step;   /* EXPERT: order of need within the family */
} hypura_role_info;

/* A tensor of an unknown name is TRUNK: held in memory, which is always right. */
hypura_role_info hypura_role_of_name(const char *name);

#endif
