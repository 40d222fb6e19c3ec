/*
 * store_internal.h - what the files of the store share: entries being made, and
 * the state behind hypura_models.
 *
 *     store.c         state, listing, finding
 *     store_scan.c    the folder and the files named on the command line
 *     store_ollama.c  Ollama's store
 *     store_change.c  copy, remove, create
 *     store_blob.c    files sent before a create
 *     store_staging.c files on their way to a name
 *     store_install.c how a model gets its name, and loses it
 *     store_unused.c  files that no model uses
 *     store_file.c    walking folders, reading small files, linking and copying large ones
 */
#ifndef HYPURA_SERVER_MODELS_STORE_INTERNAL_H
#define HYPURA_SERVER_MODELS_STORE_INTERNAL_H

#include "gguf/arena.h"
#include "os/os.h"
#include "server/base/digest.h"
#include "server/models/card.h"
#include "server/models/name.h"
#include "server/models/store.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#define HYPURA_STORE_PATH_BYTES 4096

/* What lies under the models folder and is no model. */
#define HYPURA_STORE_STAGING "/.staging" /* files on their way to a name */
#define HYPURA_STORE_BLOBS   "/.blobs"   /* files sent before a create */
#define HYPURA_STORE_PARTIAL "/.partial" /* downloads, also broken off ones */

typedef struct hypura_entry {
    hypura_model_entry is; /* first: what users hold */
    atomic_int   n_holders;
    hypura_arena arena;
    const char  *stem;     /* FOLDER and ALIAS: path below the folder, without an ending */
    const char  *below;    /* FOLDER: path of the (first) file below the folder */
    const char  *alias_of; /* ALIAS: normal form of the name that it stands for */
    const char  *problem;  /* why it cannot be used; NULL: it can */
    hypura_os_identity file; /* at is.path */
    hypura_os_identity adapters[HYPURA_MAX_ADAPTERS]; /* of the files at is.adapter_paths */
} hypura_entry;

/* Entries while they are gathered, and as they are handed out. */
typedef struct hypura_entries {
    hypura_entry **all;
    size_t         n;
    size_t         capacity;
} hypura_entries;

/* A header that was read, until its file changes. */
typedef struct hypura_known_card {
    char              *path;
    hypura_os_identity identity;
    hypura_card        card;
    unsigned           capabilities; /* describe.c's; 0: not asked for yet */
    bool               seen;         /* by the scan under way */
} hypura_known_card;

struct hypura_models {
    char  *folder; /* "" when there is none */
    char  *ollama;
    char  *import;
    char **paths; /* absolute */
    char **names; /* as they were named: a link has a name of its own */
    int    n_paths;
    bool   keep_unused;

    pthread_mutex_t    mutex; /* of everything below, and of renames to final names */
    hypura_known_card *cards;
    size_t             n_cards;
    size_t             cards_capacity;
    hypura_entries     entries; /* last scan */
    uint64_t           scanned_us;
    bool               scanned;
};

/* ---- store.c ---- */

hypura_status hypura_store_out_of_memory(hypura_error *error);

/* A new entry with its name, taken over by entries; NULL, with error filled, when
 * memory is short. *added false, and no entry, when one of that name is there. */
hypura_entry *hypura_entries_add(hypura_entries *entries, const char *name, bool *added, hypura_error *error);
void          hypura_entries_clear(hypura_entries *entries);
/* Looks for the normal form of a name; NULL when there is none. */
hypura_entry *hypura_entries_find(const hypura_entries *entries, const char *name);

/* Fills size, time, details, digest or problem from the header of the file. Locked. */
hypura_status hypura_entry_fill(hypura_models *models, hypura_entry *entry, const char *path, hypura_error *error);
/* The header of a file; NULL when memory is short. Valid until the next call. Locked. */
const hypura_card *hypura_store_card(hypura_models *models, const char *path, hypura_os_identity *identity);
/* The same with what else is known of it. */
hypura_known_card *hypura_store_known(hypura_models *models, const char *path, hypura_os_identity *identity);
/* A further adapter that goes with it: path, size and identity, which the digest has too; or, where the file is none, or
 * there are too many, problem. Locked. */
hypura_status hypura_entry_add_adapter(hypura_models *models, hypura_entry *entry, const char *path, hypura_error *error);
/* Sets digest from name, sizes, times, adapter and settings. */
void hypura_entry_identify(hypura_entry *entry);
/* Settings of one model with others over them, either may be NULL; parameters are merged one by one. A new reference; NULL
 * when memory is short. */
json_t *hypura_settings_merge(const json_t *base, const json_t *over);
/* When it was last written to, RFC 3339. */
void hypura_entry_set_modified(hypura_entry *entry, int64_t modified_ns);

/* Replaces the entries by what is there now. Locked. */
hypura_status hypura_store_scan(hypura_models *models, hypura_error *error);
/* The next call scans again. Locked. */
void hypura_store_forget(hypura_models *models);

/* ---- store_scan.c ---- */

hypura_status hypura_store_scan_paths(hypura_models *models, hypura_entries *entries, hypura_error *error);
hypura_status hypura_store_scan_folder(hypura_models *models, hypura_entries *entries, hypura_error *error);

/* ---- store_projector.c ---- */

/* How well the projector belongs to the model, in bytes that agree; 0: not at all.
 * Both are paths below the folder. STEM.mmproj.gguf is the model's whatever else
 * there is (SIZE_MAX); a name without a model's ("mmproj-F16.gguf") goes with every model of
 * its folder, unless that is the folder of all. */
size_t hypura_store_projector_fits(const char *projector, const char *model, size_t model_stem_bytes);
/* One that projects to another width is another model's. */
bool hypura_store_projector_is_wide(const hypura_card *card, int64_t embedding_length);
/* The best one in the folder of a model's file, which is the model's own; NULL: none. Free it. */
char *hypura_store_projector_beside(const char *path, int64_t embedding_length);

/* ---- store_ollama.c ---- */

hypura_status hypura_store_scan_ollama(hypura_models *models, hypura_entries *entries, hypura_error *error);

/* ---- store_file.c ---- */

/* Joins like printf; false when it does not fit. */
bool hypura_store_path(char *path, const char *format, ...) HYPURA_PRINTF(2, 3);

/* path is a regular file within root, whatever links lead to it; resolved (of
 * HYPURA_STORE_PATH_BYTES) gets the file itself. */
bool hypura_store_is_within(const char *root, const char *path, char *resolved);

/* Calls visit for every regular file and every link below root, by its path below
 * root; where a link leads is the visitor's to check. Hidden ones, what cannot be printed and what lies deeper
 * than a name can say are left out; a folder that is missing, or may not be read, has none; that
 * no more files can be opened is a failure. Stops at the first failure of a visit. */
typedef hypura_status (*hypura_store_visit_fn)(void *user, const char *below, hypura_error *error);
hypura_status hypura_store_walk(const char *root, hypura_store_visit_fn visit, void *user, hypura_error *error);

/* The object in a file of at most 4 MiB; NULL when it is none. A new reference. */
json_t *hypura_store_read_json(const char *path);
/* All bytes of a file of at most `most` bytes, with an end; NULL when it cannot be
 * read or is larger. Free it. */
char *hypura_store_read_text(const char *path, size_t most, size_t *bytes);

/* Makes the folder of a path, and those above it. */
hypura_status hypura_store_make_place(const char *path, hypura_error *error);

/* A second name for a file. False with errno when the file system has none. */
bool hypura_store_link(const char *from, const char *to);
/* Gives `to`, which is not there, the bytes of `from`: a link, a clone, or a copy on
 * the drive when it returns. Nothing is left of it after a failure. */
hypura_status hypura_store_transfer(const char *from, const char *to, hypura_progress_fn progress, void *progress_user,
                                    hypura_error *error);
/* Writes the object to a file that is not there, on the drive when it returns. */
hypura_status hypura_store_write_json(const char *path, const json_t *object, hypura_error *error);

/* How the file of an adapter ends, from 0: ".adapter.gguf", ".adapter-2.gguf". */
#define HYPURA_ADAPTER_ENDING_BYTES 32
void hypura_store_adapter_ending(int i, char *ending);

/* ---- store_staging.c ---- */

/* A folder of its own in which the files of one model get ready: "model.gguf" or
 * "model-00001-of-00003.gguf" ..., "model.mmproj.gguf", "model.adapter.gguf" ..., "model.json". */
typedef struct hypura_staging {
    char path[HYPURA_STORE_PATH_BYTES];
    int  fd; /* holds the lock that says that it is in use */
} hypura_staging;

/* HYPURA_ERR_UNSUPPORTED when the store has no folder. */
hypura_status hypura_staging_begin(hypura_models *models, hypura_staging *staging, hypura_error *error);
/* Removes it and what is still in it. */
void hypura_staging_end(hypura_staging *staging);
/* Those that a process which is gone has left, each locked while it is visited. */
void hypura_staging_each_left(const hypura_models *models, void (*visit)(const hypura_models *models, const char *left));
/* Removes them, but what is to be put back. */
void hypura_staging_sweep(const hypura_models *models);

/* ---- store_install.c ---- */

/* Installs and removals wait for each other, whatever process they are of; to be given to hypura_store_let_go. What one that
 * was killed left is put back first. -1 where nothing was ever staged; where the drive has no locks nobody waits. */
int hypura_store_take_turn(const hypura_models *models);
/* Whether a staging folder has files that are to be put back, or cannot be read. */
bool hypura_store_is_broken(const char *staging);
/* Gives all its files the name, which was checked, in place of what has it. After a failure what had it is as it was.
 * from: the model that its files and settings were taken from, NULL: none; where that is another one by now, they may be of
 * two: HYPURA_ERR_IO. */
hypura_status hypura_staging_install(hypura_models *models, hypura_staging *staging, const char *name,
                                     const hypura_model_entry *from, hypura_error *error);
/* Removes the files of a model of the folder, or the file of an alias. Locked. */
hypura_status hypura_store_unlink(hypura_models *models, const hypura_entry *entry, hypura_error *error);

/* ---- store_blob.c ---- */

/* Where the file of that digest lies, or would: in path, of HYPURA_STORE_PATH_BYTES. HYPURA_ERR_USAGE: it is no digest. */
hypura_status hypura_store_blob(const hypura_models *models, const char *digest, char *path, hypura_error *error);

/* ---- store_unused.c ---- */

/* What lies in this folder, HYPURA_STORE_PARTIAL or _BLOBS, is in use until let_go. -1 where there is no such folder,
 * which let_go takes too. */
int  hypura_store_hold(const hypura_models *models, const char *folder);
void hypura_store_let_go(int held);

#endif
