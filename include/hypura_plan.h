/*
 * hypura_plan.h - what is known of a model before a weight is read: errors, the machine, the map of a file, options, the
 * plan. hypura.h includes it, and its rules hold here.
 */
#ifndef HYPURA_PLAN_H
#define HYPURA_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HYPURA_API __attribute__((visibility("default")))
#define HYPURA_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define HYPURA_API
#define HYPURA_PRINTF(f, a)
#endif

/* ---- errors ------------------------------------------------------------- */

typedef enum hypura_status {
    HYPURA_OK = 0,
    HYPURA_ERR_USAGE,       /* an argument is out of range or contradicts another */
    HYPURA_ERR_IO,          /* a file could not be opened, read or written */
    HYPURA_ERR_FORMAT,      /* a file is not what it claims to be */
    HYPURA_ERR_MEMORY,      /* an allocation failed */
    HYPURA_ERR_BUDGET,      /* the memory budget is below the model's floor */
    HYPURA_ERR_UNSUPPORTED, /* this build, machine or model cannot do it */
    HYPURA_ERR_BACKEND,     /* llama.cpp or a device reported a failure */
    HYPURA_ERR_CANCELLED,   /* the caller's callback asked to stop */
} hypura_status;

typedef struct hypura_error {
    hypura_status status;
    char          message[512]; /* always terminated; empty when status is OK */
} hypura_error;

HYPURA_API const char *hypura_status_name(hypura_status status);
HYPURA_API const char *hypura_version(void);

/* Reports progress of a long call: done of total (bytes or items). Returning
 * false asks the call to stop with HYPURA_ERR_CANCELLED. */
typedef bool (*hypura_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

/* ---- the machine -------------------------------------------------------- */

#define HYPURA_MAX_DEVICES 16

typedef struct hypura_device {
    char     name[64];
    char     description[128];
    char     kind[16]; /* "cpu", "gpu", "igpu", "accel" */
    uint64_t free_bytes;
    uint64_t total_bytes;
    /* of GPUs; 0 where it could not be measured */
    bool     unified;                      /* its memory is the host's */
    double   upload_bytes_per_s;           /* from memory that its driver pinned */
    double   upload_pageable_bytes_per_s;  /* from any other */
    double   device_memory_bytes_per_s;    /* copies within its memory, bytes read */
    double   round_trip_us;                /* a small piece of work, its result read back */
    double   hand_over_us;                 /* a small graph behind others that were queued */
    double   operation_us;                 /* a small operation in a graph, behind one that it depends on */
} hypura_device;

/* What a drive gives to random direct reads of one size, so many at once. */
typedef struct hypura_io_rate {
    uint64_t block_bytes;
    uint32_t depth;
    double   bytes_per_s;
} hypura_io_rate;

#define HYPURA_MAX_IO_RATES 40

/* A measured machine. Rates are what the engine itself reached with direct
 * reads of the block size and depth it will use. */
typedef struct hypura_profile {
    int      version;
    char     cpu[128];
    int      n_cpus;
    uint64_t ram_total_bytes;
    uint64_t ram_available_bytes; /* now: free and reclaimable, within every cgroup limit */
    uint64_t ram_limit_bytes;     /* smallest of RAM and cgroup limits */
    double   memory_bytes_per_s;  /* sequential read by all cores */
    char     storage_path[1024];  /* where the reads were measured */
    bool     provisional;         /* on a small file, as there was no room for a large one: its reads may have come from
                                   * the drive's own cache. Such a profile is not stored */
    char     io_engine[16];       /* "uring" or "pool" */
    bool     direct_io;           /* O_DIRECT or F_NOCACHE really in effect */
    uint32_t io_align_offset_bytes;
    uint32_t io_align_memory_bytes;
    uint64_t io_block_bytes;     /* best request size found */
    uint32_t io_depth;           /* requests in flight at that size */
    double   direct_bytes_per_s; /* rate at io_block_bytes x io_depth, random order */
    double   read_latency_us;    /* one 4 KiB direct read, median */
    int            n_io_rates; /* by size, then by depth */
    hypura_io_rate io_rates[HYPURA_MAX_IO_RATES];
    int64_t  measured_unix_s;
    int      n_disturbed;     /* measurements so far, where others had the processors in all of them; 0: not in one */
    char     not_stored[256]; /* why it could not be, and will be measured again, or "" */
    int           n_devices;
    hypura_device devices[HYPURA_MAX_DEVICES];
} hypura_profile;

typedef struct hypura_profile_options {
    const char        *cache_dir;    /* folder of the stored profile; NULL: measure, store nothing */
    const char        *storage_path; /* folder or file on the drive to measure; NULL: cache_dir */
    bool               force;        /* measure again although a stored profile fits */
    bool               every_driver; /* list devices of GPU drivers although the system shows no GPU */
    const char        *gpu;          /* GPUs to measure, by comma; "none": none is listed either; NULL: all */
    hypura_progress_fn progress;
    void              *progress_user;
} hypura_profile_options;

/* Loads the stored profile when it fits this machine and drive, else measures
 * (a few seconds) and stores it. One that was measured while other programs had the
 * processors is measured again when they have not, a few times at the most. Memory
 * figures are always taken anew. A folder that cannot be written is no failure:
 * not_stored tells. */
HYPURA_API hypura_status hypura_profile_get(const hypura_profile_options *options, hypura_profile *profile,
                                            hypura_error *error);

/* ---- the model map ------------------------------------------------------ */

typedef enum hypura_role {
    HYPURA_ROLE_TRUNK = 0,       /* norms, biases, attention, everything always needed */
    HYPURA_ROLE_FFN,             /* dense feed-forward weight */
    HYPURA_ROLE_EXPERT,          /* expert slices along the third dimension */
    HYPURA_ROLE_SHARED_EXPERT,   /* expert that every token uses */
    HYPURA_ROLE_ROUTER,          /* picks the experts */
    HYPURA_ROLE_EMBEDDING,       /* token embedding, read by rows */
    HYPURA_ROLE_LAYER_EMBEDDING, /* per-layer token embedding, read by rows */
    HYPURA_ROLE_OUTPUT,          /* the vocabulary projection */
    HYPURA_ROLE_MTP,             /* block for multi-token prediction */
} hypura_role;

HYPURA_API const char *hypura_role_name(hypura_role role);

typedef struct hypura_tensor {
    const char *name; /* owned by the map */
    int         type; /* enum ggml_type */
    const char *type_name;
    int         n_dims;
    int64_t     ne[4];
    hypura_role role;
    int         layer;  /* -1 outside the repeating layers */
    int         bundle; /* index into bundles for experts, else -1 */
    int         file;   /* index into files */
    uint64_t    offset; /* of the first byte, absolute in that file */
    uint64_t    bytes;
    uint64_t    row_bytes;    /* one row of ne[0] values */
    uint64_t    expert_bytes; /* one slice of ne[2], 0 when not an expert tensor */
} hypura_tensor;

#define HYPURA_MAX_BUNDLE 8

/* The matrices of a layer that one router selection needs together: gate, up
 * and down of an expert are slices of `tensors` at the same index. */
typedef struct hypura_bundle {
    int      layer;
    int      n_experts;
    int      n_tensors;
    int      tensors[HYPURA_MAX_BUNDLE]; /* indices into the map's tensors */
    uint64_t expert_bytes;               /* all matrices of one expert */
} hypura_bundle;

typedef struct hypura_map {
    const char          *path; /* as given */
    const char          *arch;
    const char          *name; /* general.name or "" */
    int                  n_layers;
    int                  n_experts;      /* 0 for dense models */
    int                  n_experts_used; /* top-k */
    int64_t              context_length;
    int64_t              embedding_length;
    int64_t              n_vocabulary; /* tokens that the file lists; 0: none */
    int                  n_files;
    const char *const   *files;
    const uint64_t      *file_bytes;
    const int64_t       *file_modified_ns; /* when each was last written to, as it was read */
    int                  n_tensors;
    const hypura_tensor *tensors; /* in file order */
    int                  n_bundles;
    const hypura_bundle *bundles;
    uint64_t             tensor_bytes; /* sum over all tensors */
} hypura_map;

/* Reads the header of a GGUF and of all its split files (path names any one).
 * Nothing of the weights is read. The map is immutable and may be shared by
 * threads; close frees every pointer reached through it. */
HYPURA_API hypura_status hypura_map_open(const char *path, hypura_map **map, hypura_error *error);
HYPURA_API void          hypura_map_close(hypura_map *map);
/* Index of the tensor of that name, -1 when there is none. */
HYPURA_API int hypura_map_find(const hypura_map *map, const char *name);

/* ---- the plan ----------------------------------------------------------- */

typedef enum hypura_mode {
    HYPURA_MODE_RESIDENT = 0, /* everything held; Hypura is out of the path */
    HYPURA_MODE_EXPERTS,      /* experts streamed through a pool */
    HYPURA_MODE_DENSE,        /* dense weights streamed through a ring */
    HYPURA_MODE_MIXED,        /* both */
} hypura_mode;

HYPURA_API const char *hypura_mode_name(hypura_mode mode);

typedef enum hypura_place {
    HYPURA_PLACE_RESIDENT = 0, /* read once at open, kept in anonymous memory */
    HYPURA_PLACE_EXPERTS,      /* slices in the slots of a pool */
    HYPURA_PLACE_DENSE,        /* first pinned_rows kept, the rest in chunks through the ring */
    HYPURA_PLACE_ROWS,         /* only the rows asked for, read on demand */
    HYPURA_PLACE_VRAM,         /* held in the GPU's memory, whole, by llama.cpp */
} hypura_place;

typedef struct hypura_placement {
    hypura_place place;
    int64_t      pinned_rows; /* DENSE: rows kept in memory, from row 0 */
    int64_t      chunk_rows;  /* DENSE: rows of one ring chunk (the last may be shorter) */
    int          pool;        /* EXPERTS: index into pools; else -1 */
    int          vram_pool;   /* EXPERTS over a GPU: index into vram_pools; else -1 */
    int          gpu;         /* that computes with it and holds it or its slots: index into gpus; -1: the host */
} hypura_placement;

#define HYPURA_MAX_POOLS 16
#define HYPURA_MAX_GPUS 16
#define HYPURA_MAX_VRAM_POOLS 128
#define HYPURA_MAX_STAGES 2

/* Slots of one size class. A slot holds all matrices of one expert. */
typedef struct hypura_pool_plan {
    uint64_t slot_bytes; /* payload: sum of the matrices, padding excluded */
    uint64_t slot_stride_bytes;
    uint32_t n_slots;
    uint32_t n_units; /* experts over all layers of this class */
    uint32_t n_floor; /* fewest slots that can run */
} hypura_pool_plan;

/* The same in a GPU's memory: one size class is shared by several pools when one
 * tensor would be larger than the GPU's buffers may be. */
typedef struct hypura_vram_pool_plan {
    uint64_t slot_bytes;
    uint32_t n_slots;
    uint32_t n_lasting; /* of these, the first ones; the others give way to stages, which lie there, while a batch passes */
    uint32_t n_units;
    int      gpu; /* index into gpus */
} hypura_vram_pool_plan;

/* A GPU that is used: neighbouring layers, and what it holds of them. */
typedef struct hypura_gpu_plan {
    char     name[64];       /* ggml's name of the device; of a remote one HOST:PORT */
    bool     addressable;    /* the host may write where its tensors lie, at their address */
    bool     remote;         /* of another machine: what it holds it holds whole */
    double   link_bytes_per_s; /* of uploads; 0: not known */
    double   round_trip_us;        /* of a remote one */
    double   link_bytes_per_token; /* of a remote one, over that link while decoding */
    int      first_layer;    /* that it computes; the output counts as the layer after the last */
    int      n_layers;
    uint64_t vram_bytes;     /* taken of its memory: the sum of the five below */
    uint64_t resident_bytes; /* weights that llama.cpp holds there */
    uint64_t slot_bytes;     /* slots for experts */
    uint64_t stage_bytes;    /* for the experts of a layer while a batch passes through it, and nothing else */
    uint64_t kv_bytes;
    uint64_t compute_bytes;
    uint64_t floor_bytes;    /* fewest with which it computes these layers */
    uint64_t full_bytes;     /* with which nothing has to be uploaded to it */
    uint64_t free_bytes;     /* of its memory, that models may take, when this was planned; at most the limit on it */
    int      n_stages;
    bool     stages_in_slots; /* behind the lasting ones of the one pool */
    double   hit_rate;       /* of its slots, assumed */
    double   upload_bytes_per_token;
    uint32_t most_foreseen;  /* experts that are uploaded for the next layer while one is computed, at most; 0: any number */
} hypura_gpu_plan;

/* The layout in which weights are computed with. One model keeps one form, so that its results keep their bits. */
typedef enum hypura_form {
    HYPURA_FORM_FILE = 0, /* all as in the file */
    HYPURA_FORM_REPACKED, /* the processor's own, of all weights that have one */
    HYPURA_FORM_OUTPUT,   /* that of the output matrix alone: of a prompt too it makes one row of logits */
} hypura_form;

/* "file", "repacked", "output". */
HYPURA_API const char *hypura_form_name(hypura_form form);

/* As what the KV cache keeps its numbers: a type for keys, and one for values. Smaller ones leave more memory to weights,
 * and change the answer as the same types do in llama.cpp. */
typedef struct hypura_kv_cache {
    const char *type_k; /* one of hypura_kv_cache_types; NULL: "f16" */
    const char *type_v;
} hypura_kv_cache;

typedef struct hypura_plan {
    hypura_mode mode;
    int         n_threads; /* that compute on the host */
    /* the budget, and how it is spent */
    uint64_t memory_bytes;  /* limit on everything the model takes; 0 when only weights were limited */
    uint64_t weights_bytes; /* all weights held at once: resident + pinned + pools + ring */
    uint64_t kv_bytes;
    hypura_kv_cache kv_cache; /* its types, never NULL */
    uint64_t compute_bytes;
    uint64_t overhead_bytes; /* vocabulary, queues, staging, a draft model, adapters */
    uint64_t draft_bytes;    /* of these, for speculation: see hypura_speculation */
    uint64_t projector_bytes; /* for pictures and sound; what a GPU has of it counts in its vram_compute_bytes */
    uint64_t adapter_bytes;  /* and for adapters; those of layers on a GPU count in its vram_compute_bytes as well */
    /* tiers */
    uint64_t resident_bytes;
    uint64_t pinned_bytes; /* pinned rows of streamed dense weights */
    uint64_t pool_bytes;   /* all expert pools */
    uint64_t ring_bytes;   /* ring of dense chunks */
    uint64_t nvme_bytes;   /* weights that stay on the drive alone */
    uint64_t floor_weights_bytes; /* fewest bytes of weights that can run */
    uint64_t floor_memory_bytes;
    /* ring of dense chunks */
    uint64_t ring_slot_bytes; /* stride of one ring slot */
    uint32_t n_ring_slots;
    uint32_t prefetch_depth; /* chunks requested ahead of the one in use */
    /* reads */
    uint64_t io_block_bytes;
    uint32_t io_depth;
    int            n_io_rates; /* the profile's */
    hypura_io_rate io_rates[HYPURA_MAX_IO_RATES];
    uint32_t slot_align_bytes; /* regions of an expert slot are multiples of this (plan/layout.h) */
    int              n_pools;
    hypura_pool_plan pools[HYPURA_MAX_POOLS];
    /* the memory of GPUs, all of them together; all 0 and "" where none is used */
    char     gpu[256];            /* their names: "Vulkan0,Vulkan1" */
    int      n_gpu_layers;        /* computed on them, as llama.cpp counts: from the last, the output first */
    uint64_t vram_bytes;          /* taken of it: the sum of the five below */
    uint64_t vram_resident_bytes; /* weights that llama.cpp holds there */
    uint64_t vram_slot_bytes;     /* slots for experts */
    uint64_t vram_stage_bytes;    /* for the experts of a layer while a batch passes through it */
    uint64_t vram_kv_bytes;
    uint64_t vram_compute_bytes;
    uint64_t floor_vram_bytes;    /* fewest with which all layers are computed there; 0 when there are no experts */
    uint64_t full_vram_bytes;     /* with which nothing has to be uploaded, although it could be */
    uint64_t whole_vram_bytes;    /* with which all layers are held there; with several GPUs, if it is where they need it */
    bool            unified; /* their memory is the host's, and memory_bytes the limit on both together */
    int             n_gpus;
    hypura_gpu_plan gpus[HYPURA_MAX_GPUS]; /* in the order of their layers */
    char            gpus_left_out[256];    /* GPUs here, where none of them is used: what models may take of each */
    char            remotes_left_out[256]; /* devices of other machines on which nothing is placed, and what each offered */
    int      n_vram_pools;
    hypura_vram_pool_plan vram_pools[HYPURA_MAX_VRAM_POOLS];
    int               n_placements; /* one for each tensor of the map */
    hypura_placement *placements;
    int              *order; /* tensors in the order in which a graph uses them; unused ones last */
    char              not_stored[256]; /* of the profile it was made from */
    uint64_t          ram_limit_bytes; /* and what a process may use on that machine */
    uint32_t          n_ubatch;        /* tokens of a prompt computed together at most */
    uint32_t          best_ubatch;     /* more than that where it was left to us and memory has no room for so many */
    /* forecast */
    double      decode_tok_s;
    double      bound_tok_s; /* max(compute, missed bytes / bandwidth) alone */
    double      hit_rate;    /* assumed, by bytes */
    double      read_bytes_per_token;
    double      vram_hit_rate;          /* the same of the GPU's slots */
    double      upload_bytes_per_token; /* to them */
    double      compute_s; /* of a token, assumed */
    double      prompt_compute_s; /* of a token of a prompt; 0: not known */
    double      overlap;   /* of reading and computing: 1 as long as the longer one, 0 as long as both */
    bool        learned;   /* the forecast rests on earlier runs of this model */
    const char *bound_by; /* "compute", "upload", "storage" */
    hypura_form form;
    bool        form_measured; /* else asked for, or the default */
    double      repacked_tok_s; /* expected in either form, where that was compared */
    double      plain_tok_s;
    double      repacked_prompt_tok_s; /* the same, of a prompt */
    double      plain_prompt_tok_s;
} hypura_plan;

/* Whether a layer's experts are guessed and read ahead while the layer before is decoded: by
 * its router, or, where that is in vain, by what the layers before selected. */
typedef enum hypura_foresight {
    HYPURA_FORESIGHT_AUTO = 0, /* as long as tokens are measured to be faster with it; over a GPU where a layer is worth it */
    HYPURA_FORESIGHT_ON,
    HYPURA_FORESIGHT_OFF,
    HYPURA_FORESIGHT_COACTIVATION, /* by earlier selections alone */
} hypura_foresight;

/* What computes the experts of a token that the memory of their GPU lacks. */
typedef enum hypura_gpu_misses {
    HYPURA_GPU_MISSES_UPLOAD = 0, /* the GPU, once they were uploaded: bits do not depend on what it holds */
    HYPURA_GPU_MISSES_CPU,        /* the CPU, from RAM: bits differ with what the GPU holds, see docs/cli.md */
} hypura_gpu_misses;

/* Speculative decoding, with llama.cpp's own code: tokens are guessed and then computed together, which reads the
 * weights once; those are kept that the model itself would have chosen. Batches are rounded in other places than single
 * tokens: an answer has the bits of the same run with everything in memory, not those of one without speculation. */
typedef struct hypura_speculation {
    const char *draft; /* GGUF of a small model of the same vocabulary, which guesses; held whole, on the CPU; NULL: none */
    const char *types; /* llama.cpp's names, by comma: hypura_speculation_types; NULL: draft-simple if there is a draft */
    uint32_t    n_max; /* tokens guessed at once at most; 0: 8 (ngram-cache: always 8) */
    float       p_min; /* a draft ends before a token to which its model gives less; 0: at n_max alone */
} hypura_speculation;

/* Names of what can guess, ends with NULL: "draft-simple" is a draft model, the others look for what was said before in the
 * text itself. They are asked in this order, the draft model last. */
HYPURA_API const char *const *hypura_speculation_types(void);

/* Names of types for the KV cache, ggml's; ends with NULL. */
HYPURA_API const char *const *hypura_kv_cache_types(void);

/* A LoRA adapter in a GGUF, as llama.cpp's convert_lora_to_gguf.py makes them: what its matrices make of a weight's input is
 * added to what the weight makes of it, times scale (and the adapter's own alpha by its rank). The weights stay as they are,
 * so that they are paged as ever; adapters are held whole, beside them. */
typedef struct hypura_adapter {
    const char *path;
    float       scale; /* 1: as it was trained; 0: it changes nothing */
} hypura_adapter;

#define HYPURA_MAX_ADAPTERS 8

typedef struct hypura_model_options {
    const char *path;
    const hypura_adapter *adapters; /* all applied, one after the other */
    int         n_adapters;
    uint64_t    memory_bytes;  /* limit on everything; 0: chosen from what is free */
    uint64_t    weights_bytes; /* limit on weights alone; 0: none */
    uint32_t    n_context;     /* 0: 4096 or the model's own, whichever is less */
    hypura_kv_cache kv_cache;
    uint32_t    n_ubatch;      /* tokens computed together at most; 0: 512, or 2048 for experts over a GPU */
    int         n_threads;     /* 0: one for each core */
    bool        force_paging;  /* page even where all weights fit (tests, benchmarks) */
    bool        plain;         /* plain llama.cpp, Hypura out of the path (comparisons) */
    const char *gpu;           /* ggml's names of the GPUs to use, "Vulkan0,Vulkan1"; "none": none; NULL: see below */
    uint64_t    vram_bytes;    /* limit on the memory of GPUs, all of them together; 0: what is free there */
    uint64_t    gpu_vram_bytes[HYPURA_MAX_GPUS]; /* limit on each of those named, in their order; all 0: none */
    hypura_gpu_misses gpu_misses;
    const char *rpc;           /* HOST:PORT of other machines, by comma: hypura_rpc_serve or llama.cpp's; NULL: none */
    uint64_t    rpc_bytes;     /* limit on the memory of each of their devices; 0: what they say is free */
    int         n_gpu_layers;  /* plain alone: layers on the GPU; 0: all */
    bool        no_repack;     /* keep weights in the file's own layout; the default is the CPU's fastest form */
    bool        repack_output; /* with no_repack: all but the output matrix, see HYPURA_FORM_OUTPUT */
    const char *io_engine;     /* "uring", "pool"; NULL: the profile's choice */
    uint64_t    io_limit_bytes_per_s; /* emulates a drive of this rate for paged reads; 0: none */
    hypura_foresight foresight;
    hypura_speculation speculation;
    const char *projector; /* GGUF that makes of pictures and sound what the model reads; held whole; NULL: none */
    /* That will be asked first: what is wrong with its grammar, template, length or with what it shows is told before
     * weights are read. Its prompt may be NULL. NULL: nothing is known. */
    const struct hypura_generate_options *first;
    const char *trace; /* a file to which the selected experts are written, see "recorded routes"; NULL: none */
    const char *cache_dir;     /* for the profile, and which experts were used; NULL: nothing is stored */
    hypura_progress_fn progress;
    void              *progress_user;
} hypura_model_options;

/* Without names as many GPUs are used as it takes to hold the whole model, those with most
 * free memory first, or all that one driver shows; an integrated one only where there is no
 * other. Several have whole layers each, in proportion to their memory, and not to a limit:
 * which of them computes a layer does not depend on a limit on all together. Where one has
 * too little for that, its layers go to others. */

/* Devices of other machines hold the last layers whole, as many as fit there, unless GPUs here hold the whole model: weights
 * are sent once, and then what passes from layer to layer for each token. All else is as without them. A server that is lost
 * fails what is computed, with its name. Such a server does what its clients say and reads what they send, without checking
 * who they are or hiding it from the network: for machines and networks that trust each other alone. */

/* Solves the placement without loading any weight. Free with hypura_plan_free. */
HYPURA_API hypura_status hypura_estimate(const hypura_model_options *options, hypura_plan **plan,
                                         hypura_error *error);
HYPURA_API void          hypura_plan_free(hypura_plan *plan);
/* True where it is beyond doubt, from headers and free memory alone, that the model will be held whole and computed by many
 * processors that nothing else of it needs: a program may then let threads wait for each other as llama.cpp's do. */
HYPURA_API bool hypura_computes_alone(const hypura_model_options *options);
/* A limit on the memory of all GPUs: the floor and this part of what lies between it and full. */
HYPURA_API uint64_t hypura_plan_vram_at(const hypura_plan *plan, uint32_t percent);

#ifdef __cplusplus
}
#endif

#endif
