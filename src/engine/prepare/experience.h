/*
 * experience.h - what was measured of this processor and learned from earlier runs of
 * a model, kept in the user's cache folder: cache_dir/experience.json. The forecast
 * rests on it; nothing else does.
 *
 * What always holds: a file that is missing, damaged or of another processor is an
 * empty one, and failing to write it is no failure of anything. Processes that learn at
 * once keep each other's lessons: what is new is added to what is stored then (hw/kept.h).
 */
#ifndef HYPURA_ENGINE_PREPARE_EXPERIENCE_H
#define HYPURA_ENGINE_PREPARE_EXPERIENCE_H

#include "hw/probe_nodes.h"
#include "plan/plan.h"

/* Rates of the types of weights that the model's decode graph reads. Those not stored, or measured while other work took
 * the processors, are measured where `measure` asks for it (a tenth of a second for each type; on a busy machine a second,
 * as long as a process has not waited for two seconds in vain), and stored; else they are left out. Of the options
 * cache_dir (NULL: nothing is stored) and progress, which may stop it, count. */
hypura_status hypura_experience_rates(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                      int n_threads, bool repack, bool measure, hypura_rates *rates,
                                      hypura_error *error);

/* Adds to these what a token computes beside: `others`, where that is not stored yet; NULL: nothing is measured. */
hypura_status hypura_experience_others(const char *cache_dir, const hypura_map *map, uint32_t n_filled, int n_threads,
                                       hypura_nodes *others, hypura_rates *rates, hypura_error *error);

/* Adds to these what a prompt makes of them: measured once, and stored. */
hypura_status hypura_experience_prompt_rates(const hypura_model_options *options, const hypura_map *map, const hypura_survey *survey,
                                             int n_threads, bool repack, hypura_rates *rates, hypura_error *error);

/* How fast one thread repacks the type that a token reads most of: measured once, and
 * stored; 0 where it has no other layout. */
hypura_status hypura_experience_repack_rate(const char *cache_dir, const hypura_map *map, const hypura_survey *survey,
                                            double *bytes_per_s, hypura_error *error);

/* Lessons of earlier runs of this model with so many threads; none is not an error. */
void hypura_experience_lessons(const char *cache_dir, const hypura_map *map, int n_threads, hypura_form form,
                               hypura_lessons *lessons);

/* What a token took on average in a run of some length, and how much of the weights was held. */
typedef struct hypura_run_costs {
    uint64_t held_bytes; /* what was planned, unless that has changed since */
    double seconds;
    double read_wait_s;
    double read_bytes;
    double others; /* processors that other programs had meanwhile (hypura_since_others) */
} hypura_run_costs;

/* Adds the lesson of a run, beside those of runs that held another share of the
 * weights, mixed with one that held about the same. A run beside others that had half a processor or more teaches nothing:
 * one that is busy has made threads that wait for each other twice as slow. */
void hypura_experience_add(const char *cache_dir, const hypura_map *map, const hypura_plan *plan, int n_threads,
                           hypura_form form, double direct_bytes_per_s, const hypura_run_costs *costs);

#endif
