/*
 * experience_file.c - see experience_file.h.
 */
#include "engine/experience_file.h"

#include "os/os.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { VERSION = 3, PATH_BYTES = 4096 };

static bool file_path(const char *cache_dir, char *path, size_t capacity)
{
    const int n = cache_dir ? snprintf(path, capacity, "%s/experience.json", cache_dir) : -1;
    return n > 0 && (size_t)n < capacity;
}

json_t *experience_load(const char *cache_dir)
{
    char path[PATH_BYTES];
    char cpu[128];
    hypura_os_cpu_name(cpu, sizeof cpu);
    json_t *root = file_path(cache_dir, path, sizeof path) ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const char *of = json_string_value(json_object_get(root, "cpu"));
    const bool fits = json_integer_value(json_object_get(root, "version")) == VERSION && of && strcmp(of, cpu) == 0 &&
                      json_is_array(json_object_get(root, "rates")) && json_is_array(json_object_get(root, "others")) &&
                      json_is_array(json_object_get(root, "models"));
    if (!fits) {
        json_decref(root);
        root = json_pack("{s:i,s:s,s:[],s:[],s:[]}", "version", VERSION, "cpu", cpu, "rates", "others", "models");
    }
    return root;
}

void experience_save(const char *cache_dir, const json_t *root)
{
    char path[PATH_BYTES];
    char temporary[PATH_BYTES + 32];
    if (!file_path(cache_dir, path, sizeof path)) {
        return;
    }
    (void)snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    if (json_dump_file(root, temporary, JSON_INDENT(1)) != 0 || rename(temporary, path) != 0) {
        (void)unlink(temporary);
    }
}

double experience_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

bool experience_is(const json_t *object, const char *key, int64_t value)
{
    const json_t *stored = json_object_get(object, key);
    return json_is_integer(stored) && json_integer_value(stored) == value;
}

json_t *experience_of_model(const json_t *array, const char *model, int n_threads, const char *key, int64_t value)
{
    size_t i;
    json_t *entry;
    json_array_foreach(array, i, entry)
    {
        const char *of = json_string_value(json_object_get(entry, "model"));
        if (of && strcmp(of, model) == 0 && experience_is(entry, "threads", n_threads) &&
            experience_is(entry, key, value)) {
            return entry;
        }
    }
    return NULL;
}

void experience_append(json_t *array, json_t *value, size_t most)
{
    if (json_array_size(array) >= most) {
        (void)json_array_remove(array, 0);
    }
    (void)json_array_append_new(array, value);
}

void experience_name(const hypura_map *map, char *name, size_t capacity)
{
    (void)snprintf(name, capacity, "%s %s %llu", map->arch, map->name, (unsigned long long)map->tensor_bytes);
}
