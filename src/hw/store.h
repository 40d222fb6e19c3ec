/*
 * store.h - profiles kept between runs, one for each processor and drive.
 */
#ifndef HYPURA_HW_STORE_H
#define HYPURA_HW_STORE_H

#include "hypura.h"

/* Layout of the stored file; another one is measured anew. */
#define HYPURA_PROFILE_VERSION 2

/* Looks for the profile of this processor (cpu and n_cpus of profile) and drive,
 * and fills the measured fields. False, leaving profile alone, when there is
 * none, or none that makes sense. */
bool hypura_store_load(const char *cache_dir, const char *drive, hypura_profile *profile);

/* Puts it in, in place of an older one of the same processor and drive; the
 * folder is there. Readers see the old file or the new one, whole; profiles that others
 * store meanwhile stay (kept.h). */
hypura_status hypura_store_save(const char *cache_dir, const char *drive, const hypura_profile *profile,
                                hypura_error *error);

#endif
