/*
 * os.h - what differs between operating systems: memory, its limits, files
 * that bypass the page cache, processors. One implementation is compiled:
 * linux.c (with cgroup.c) or darwin.c, each with posix.c.
 *
 * What always holds: nothing here keeps state, so everything may be called from
 * any thread. A question that this system cannot answer is refused
 * (HYPURA_ERR_UNSUPPORTED or false), never answered with a guess.
 */
#ifndef HYPURA_OS_OS_H
#define HYPURA_OS_OS_H

#include "hypura.h"

/* ---- memory figures ----------------------------------------------------- */

typedef struct hypura_os_memory {
    uint64_t total_bytes;     /* RAM of the machine */
    uint64_t limit_bytes;     /* smallest of RAM and every limit on this process */
    uint64_t available_bytes; /* free or reclaimable now, within every limit */
} hypura_os_memory;

hypura_status hypura_os_memory_read(hypura_os_memory *memory, hypura_error *error);

/* Most memory this process ever held; 0 when unknown. */
uint64_t hypura_os_peak_rss_bytes(void);

/* ---- anonymous memory --------------------------------------------------- */

size_t hypura_os_page_bytes(void);

enum {
    HYPURA_OS_MAP_NORESERVE = 1, /* address space only: not counted against overcommit */
    HYPURA_OS_MAP_HUGE = 2,      /* aligned for huge pages, and advised to use them */
    HYPURA_OS_MAP_NO_ACCESS = 4, /* any access faults, until hypura_os_memory_protect */
    HYPURA_OS_MAP_SMALL = 8,     /* in the smallest pages: what is touched here and there takes little */
};

/* Private zeroed memory, page-aligned, bytes rounded up to pages. NULL with
 * errno set on failure. Pages are taken when first touched. */
void *hypura_os_memory_map(size_t bytes, unsigned flags);

/* The same in place of whatever is mapped at this page-aligned range: a file
 * mapping there becomes anonymous memory. False with errno set on failure; the
 * old mapping may be gone then. */
bool hypura_os_memory_replace(void *address, size_t bytes, unsigned flags);

/* bytes as given at map. NULL is allowed. */
void hypura_os_memory_unmap(void *address, size_t bytes);

typedef enum hypura_os_access {
    HYPURA_OS_ACCESS_NONE = 0,
    HYPURA_OS_ACCESS_READ,
    HYPURA_OS_ACCESS_READ_WRITE,
} hypura_os_access;

/* Page-aligned range. False with errno set on failure. */
bool hypura_os_memory_protect(void *address, size_t bytes, hypura_os_access access);

/* Takes the pages of a writable range now and keeps what is in them; other
 * threads may use the range meanwhile. Blocks for about a second per GiB or
 * longer: call it in pieces of some MiB. False with errno set when memory
 * ran out. */
bool hypura_os_memory_populate(void *address, size_t bytes);

/* Brings what lies in an anonymous range, of any alignment, into huge pages where
 * the system has them to give; other threads may use it meanwhile. False when it
 * cannot: the memory is slower then, not wrong. About a second for 4 GiB. */
bool hypura_os_memory_collapse(void *address, size_t bytes);

/* Gives the pages of an anonymous range back; it reads as zeros afterwards. */
bool hypura_os_memory_discard(void *address, size_t bytes);

/* ---- files -------------------------------------------------------------- */

/* Which file, and which contents. Its names are no part of it: a file that is
 * renamed or deleted while it is open stays the same. */
typedef struct hypura_os_identity {
    uint64_t device;
    uint64_t inode;
    uint64_t bytes;
    int64_t modified_ns; /* when it was last written to, since 1970 */
} hypura_os_identity;

/* Of an open file, and of the one that a path leads to. False with errno set. */
bool hypura_os_identity_of_file(int fd, hypura_os_identity *identity);
bool hypura_os_identity_of_path(const char *path, hypura_os_identity *identity);

typedef struct hypura_os_file {
    int fd;
    uint64_t bytes;
    hypura_os_identity identity; /* when it was opened */
    bool direct;           /* reads bypass the page cache */
    uint32_t offset_align; /* of offsets and lengths of direct reads; power of two; 1 when not direct */
    uint32_t memory_align; /* of their addresses */
} hypura_os_file;

/* Opens a regular file for reading. With direct asked for, reads bypass the
 * page cache where the file system can; file->direct tells whether they do.
 * Errors name the path. */
hypura_status hypura_os_file_open(const char *path, bool direct, hypura_os_file *file, hypura_error *error);
void hypura_os_file_close(hypura_os_file *file);

/* Reads of a file that was opened direct bypass the page cache, or do not, from now on.
 * False with errno set. */
bool hypura_os_file_set_direct(int fd, bool direct);

/* How much of the file the page cache holds, 0 to 1, by samples of it; 0 when the
 * system does not tell. */
double hypura_os_file_cached_share(int fd, uint64_t bytes);

/* Asks the page cache to forget the file. A hint. */
void hypura_os_file_uncache(int fd);

/* Gives back the memory that this process's read-only shared mappings of the file
 * take; what is touched again is read again. A hint. */
void hypura_os_mapping_release(const char *path);

typedef struct hypura_os_drive {
    char id[64];         /* of the file system; the same after a reboot where the system allows */
    uint64_t free_bytes; /* that this user may fill */
} hypura_os_drive;

/* The drive that an existing file or folder lies on. */
hypura_status hypura_os_drive_read(const char *path, hypura_os_drive *drive, hypura_error *error);

/* HYPURA_ERR_IO that tells what a full disk lacks: bytes for path, and how many are free. */
hypura_status hypura_os_fail_write(int errno_value, const char *path, uint64_t bytes, hypura_error *error);

/* Whether two paths lead to one file, which is there. */
bool hypura_os_same_file(const char *a, const char *b);

/* Makes a folder and what is above it; those that are there stay as they are. False with errno set: then path ends with
 * the one that could not be made. */
bool hypura_os_make_folders(char *path, unsigned mode);

/* A pipe whose ends no program that this one starts inherits. False with errno
 * set, and both ends -1. */
bool hypura_os_pipe(int ends[2]);

/* ---- processors --------------------------------------------------------- */

/* Physical cores that this process may use: affinity and cgroup quota counted. */
int hypura_os_cpu_count(void);

/* The processors that the calling thread may run on, in order: how many, of which at most `most` are written. 0: not known. */
int hypura_os_processors(int *processors, int most);

/* Whether the calling thread may run on those and no others. False where it is not known. */
bool hypura_os_thread_keeps_to(const int *processors, int n);

/* The calling thread runs on those alone from now on, and so do threads that it starts. False: not permitted, or nothing
 * that a thread can choose. */
bool hypura_os_thread_keep_to(const int *processors, int n);

/* How long other programs, and other guests of the host, had the processors, as the time that all of them together take
 * for it; since some moment, so only differences mean anything, of tenths of a second or more. False: not known. */
bool hypura_os_others_us(uint64_t *us);

/* How long threads of this process that had work waited for a processor, of all that there are now together; since some
 * moment, so only differences mean anything. False: not known. */
bool hypura_os_waited_us(uint64_t *us);

/* The calling thread, for the next one. */
uint64_t hypura_os_thread(void);

/* How long all threads of this process together have had a processor, but for that one, as long as it lives; since some
 * moment, and read one behind the other: a difference may be some microseconds below 0. */
uint64_t hypura_os_other_threads_us(uint64_t thread);

/* Third-level caches of the processors that the calling thread may run on, each once, whichever share it; 0: none is known. */
uint64_t hypura_os_shared_cache_bytes(void);

/* The calling thread does little at a time and somebody waits for it: where processors
 * are shared, it is to run as soon as it can. No more time than others. A hint. */
void hypura_os_thread_be_prompt(void);

/* The same where it may be asked for: before every ordinary thread, those that compute
 * included. For threads that hardly compute. False: not permitted, and only prompt. */
bool hypura_os_thread_come_first(void);

/* Takes that back. */
void hypura_os_thread_be_ordinary(void);

/* Whether the system shows a device that a GPU driver serves. True where nothing
 * can be told. A driver that computes on the processor shows none. */
bool hypura_os_has_gpu(void);

/* Model name of the processor, "unknown" when the system does not tell. */
void hypura_os_cpu_name(char *name, size_t capacity);

#endif
