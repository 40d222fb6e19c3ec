/*
 * experience_file.c - see experience_file.h.
 */
#include "engine/prepare/experience_file.h"

#include "base/path.h"
#include "hw/kept.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, PATH_BYTES = 4096 };

static bool file_path(const char *cache_dir, char *path)
{
    return cache_dir && hypura_path_join(path, PATH_BYTES, cache_dir, "experience.json");
}

json_t *experience_load(const char *cache_dir)
{
    char path[PATH_BYTES];
    char cpu[128];
    hypura_os_cpu_name(cpu, sizeof cpu);
    json_t *root = file_path(cache_dir, path) ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL) : NULL;
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

void experience_update(const char *cache_dir, experience_change change, void *user)
{
    char path[PATH_BYTES];
    int turn;
    if (!file_path(cache_dir, path) || !hypura_kept_begin(cache_dir, &turn)) {
        return;
    }
    json_t *root = experience_load(cache_dir);
    if (root) {
        change(root, user);
    }
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    if (text) {
        (void)hypura_kept_write(path, text, NULL);
    }
    hypura_kept_end(turn);
    free(text);
    json_decref(root);
}

double experience_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

json_t *experience_find(const json_t *array, const json_t *of, const char *const *keys)
{
    size_t i;
    json_t *entry;
    json_array_foreach(array, i, entry)
    {
        int k = 0;
        while (keys[k] && json_equal(json_object_get(entry, keys[k]), json_object_get(of, keys[k]))) {
            k++;
        }
        if (!keys[k]) {
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

json_t *experience_name(const hypura_map *map)
{
    const unsigned long long bytes = map->tensor_bytes;
    const int n = snprintf(NULL, 0, "%s %s %llu", map->arch, map->name, bytes);
    char *name = n < 0 ? NULL : malloc((size_t)n + 1);
    if (!name) {
        return NULL;
    }
    (void)snprintf(name, (size_t)n + 1, "%s %s %llu", map->arch, map->name, bytes);
    json_t *text = hypura_kept_text(name);
    free(name);
    return text;
}
