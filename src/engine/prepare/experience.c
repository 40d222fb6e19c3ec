/*
 * experience.c - lessons of earlier runs of a model. See experience.h.
 */
#include "engine/prepare/experience.h"

#include "engine/prepare/experience_file.h"

#include <math.h>
#include <string.h>

enum { MAX_MODELS = 64 };

/* Runs that held shares of the weights this near to each other are one lesson. */
#define SAME_SHARE 0.02

#define OTHERS_MOST 0.5 /* processors */

/* What entries are told apart by. */
static const char *const MODEL_KEYS[] = {"model", "threads", "repack", NULL};

static json_t *model_key(const hypura_map *map, int n_threads, hypura_form form)
{
    return json_pack("{s:o,s:i,s:i}", "model", experience_name(map), "threads", n_threads, "repack", (int)form);
}

static bool read_lesson(const json_t *entry, hypura_lesson *lesson)
{
    *lesson = (hypura_lesson){.held = experience_number(entry, "held"),
                              .compute_s = experience_number(entry, "compute_s"),
                              .read_bytes = experience_number(entry, "read_bytes"),
                              .read_factor = experience_number(entry, "read_factor")};
    return lesson->held > 0.0 && lesson->held <= 1.0 && lesson->compute_s > 0.0 && lesson->read_bytes >= 0.0 &&
           lesson->read_factor >= 0.0;
}

/* Keeps the order; one too many replaces its neighbour. */
static void insert(hypura_lessons *lessons, const hypura_lesson *lesson)
{
    int at = lessons->n;
    if (lessons->n == HYPURA_MAX_LESSONS) {
        at = 0;
        while (at < lessons->n - 1 && lessons->items[at].held < lesson->held) {
            at++;
        }
        lessons->items[at] = *lesson;
        return;
    }
    while (at > 0 && lessons->items[at - 1].held > lesson->held) {
        lessons->items[at] = lessons->items[at - 1];
        at--;
    }
    lessons->items[at] = *lesson;
    lessons->n++;
}

static void read_lessons(const json_t *model, hypura_lessons *lessons)
{
    size_t i;
    json_t *entry;
    memset(lessons, 0, sizeof(*lessons));
    json_array_foreach(json_object_get(model, "lessons"), i, entry)
    {
        hypura_lesson lesson;
        if (read_lesson(entry, &lesson)) {
            insert(lessons, &lesson);
        }
    }
}

void hypura_experience_lessons(const char *cache_dir, const hypura_map *map, int n_threads, hypura_form form,
                               hypura_lessons *lessons)
{
    json_t *root = experience_load(cache_dir);
    json_t *key = model_key(map, n_threads, form);
    read_lessons(experience_find(json_object_get(root, "models"), key, MODEL_KEYS), lessons);
    json_decref(key);
    json_decref(root);
}

static void learn(hypura_lessons *lessons, const hypura_lesson *lesson)
{
    for (int i = 0; i < lessons->n; i++) {
        hypura_lesson *known = &lessons->items[i];
        if (fabs(known->held - lesson->held) <= SAME_SHARE) {
            known->compute_s = (known->compute_s + lesson->compute_s) / 2.0;
            known->read_bytes = (known->read_bytes + lesson->read_bytes) / 2.0;
            known->read_factor = hypura_plan_mix_factors(known->read_factor, lesson->read_factor, 0.5);
            return;
        }
    }
    insert(lessons, lesson);
}

static json_t *lessons_json(const hypura_lessons *lessons)
{
    json_t *array = json_array();
    for (int i = 0; i < lessons->n; i++) {
        const hypura_lesson *l = &lessons->items[i];
        (void)json_array_append_new(array, json_pack("{s:f,s:f,s:f,s:f}", "held", l->held, "compute_s", l->compute_s,
                                                     "read_bytes", l->read_bytes, "read_factor", l->read_factor));
    }
    return array;
}

typedef struct addition {
    json_t *key;
    hypura_lesson lesson;
} addition;

static void add_lesson(json_t *root, void *user)
{
    const addition *of = user;
    hypura_lessons lessons;
    json_t *models = json_object_get(root, "models");
    json_t *model = experience_find(models, of->key, MODEL_KEYS);
    if (!model) {
        experience_append(models, json_incref(of->key), MAX_MODELS);
        model = of->key;
    }
    read_lessons(model, &lessons);
    learn(&lessons, &of->lesson);
    (void)json_object_set_new(model, "lessons", lessons_json(&lessons));
}

void hypura_experience_add(const char *cache_dir, const hypura_map *map, const hypura_plan *plan, int n_threads,
                           hypura_form form, double direct_bytes_per_s, const hypura_run_costs *costs)
{
    if (map->tensor_bytes == 0 || plan->gpu[0] || !(costs->seconds > 0.0) || costs->others >= OTHERS_MOST) {
        return;
    }
    const double storage_s = direct_bytes_per_s > 0.0 ? costs->read_bytes / direct_bytes_per_s : 0.0;
    const double held = (double)costs->held_bytes / (double)map->tensor_bytes;
    const double compute_s = fmax(costs->seconds - costs->read_wait_s, 1e-9);
    addition of = {.key = model_key(map, n_threads, form),
                   .lesson = {.held = fmin(held, 1.0),
                              .compute_s = compute_s,
                              .read_bytes = costs->read_bytes,
                              .read_factor = hypura_plan_read_factor(plan, costs->seconds, compute_s, storage_s)}};
    if (of.key) {
        experience_update(cache_dir, add_lesson, &of);
    }
    json_decref(of.key);
}
