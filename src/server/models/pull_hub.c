/*
 * pull_hub.c - see pull_internal.h.
 *
 *     GET HUB/api/models/USER/REPO/tree/main?recursive=true    what there is, in pages
 *     GET HUB/USER/REPO/resolve/main/PATH                      a file
 *
 * Files carry a SHA-256 (lfs.oid); one without is not fetched.
 */
#include "server/models/pull_internal.h"

#include "base/path.h"
#include "base/status.h"
#include "gguf/split.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_PAGE_BYTES = 16 << 20, MAX_PAGES = 64 };

/* ---- choosing -------------------------------------------------------------------- */

/* True when the word stands in the text with no letter, digit or '_' at its sides:
 * "Q4_K" is not in "Q4_K_M". */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = text; *at != '\0'; at++) {
        bool left = at == text || (!isalnum((unsigned char)at[-1]) && at[-1] != '_');
        if (left && strncasecmp(at, word, n) == 0 && !isalnum((unsigned char)at[n]) && at[n] != '_') {
            return true;
        }
    }
    return false;
}

static bool is_projector(const char *path)
{
    return strcasestr(hypura_path_name(path), "mmproj") != NULL;
}

static bool is_model(const char *path)
{
    hypura_split_name split;
    return hypura_ends_with_any_case(path, ".gguf") && !is_projector(path) && strcasestr(hypura_path_name(path), "imatrix") == NULL &&
           (!hypura_split_parse(path, &split) || split.part == 1);
}

/* The name of the file, as far as it can be a tag. */
static bool is_named(const char *path, const char *tag)
{
    const char *name = hypura_path_name(path);
    hypura_split_name split;
    size_t n =
        hypura_split_parse(path, &split) ? split.prefix_bytes - (size_t)(name - path) : strlen(name) - strlen(".gguf");
    return strlen(tag) == n && strncasecmp(name, tag, n) == 0;
}

static long find_model(const hypura_hub_file *files, size_t n, const char *word)
{
    long found = -1;
    for (size_t i = 0; i < n; i++) {
        if (!is_model(files[i].path)) {
            continue;
        }
        if (is_named(files[i].path, word)) {
            return (long)i;
        }
        /* The shortest name: others are variations. */
        if (has_word(files[i].path, word) && (found < 0 || strlen(files[i].path) < strlen(files[found].path))) {
            found = (long)i;
        }
    }
    return found;
}

void hypura_hub_choose(const hypura_hub_file *files, size_t n, const char *tag, long *first, long *projector)
{
    /* What people use when they do not say; then the first there is. */
    static const char *const usual[] = {"Q4_K_M", "Q4_0", "Q4_K_S", "MXFP4", "Q5_K_M", "Q8_0", "F16", "BF16"};
    static const char *const usual_projectors[] = {"F16", "BF16", "Q8_0", "F32"};
    *first = -1;
    *projector = -1;
    if (strcasecmp(tag, "latest") != 0) {
        *first = find_model(files, n, tag);
    } else {
        for (size_t i = 0; i < sizeof usual / sizeof *usual && *first < 0; i++) {
            *first = find_model(files, n, usual[i]);
        }
        for (size_t i = 0; i < n && *first < 0; i++) {
            *first = is_model(files[i].path) ? (long)i : -1;
        }
    }
    size_t best = sizeof usual_projectors / sizeof *usual_projectors + 1;
    for (size_t i = 0; i < n; i++) {
        if (!is_projector(files[i].path) || !hypura_ends_with_any_case(files[i].path, ".gguf")) {
            continue;
        }
        size_t rank = 0;
        while (rank < sizeof usual_projectors / sizeof *usual_projectors &&
               !has_word(files[i].path, usual_projectors[rank])) {
            rank++;
        }
        if (rank < best) {
            best = rank;
            *projector = (long)i;
        }
    }
}

/* ---- listing --------------------------------------------------------------------- */

/* Files of all pages; the strings are in pages. */
typedef struct listing {
    json_t *pages;
    hypura_hub_file *files;
    size_t n;
} listing;

static hypura_status out_of_memory(hypura_error *error)
{
    return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory to list a repository");
}

static char *format_url(const char *base, const char *middle, const char *repository, const char *rest)
{
    size_t n = strlen(base);
    while (n > 0 && base[n - 1] == '/') {
        n--;
    }
    size_t capacity = n + strlen(middle) + strlen(repository) + strlen(rest) + 1;
    char *url = malloc(capacity);
    if (url != NULL) {
        (void)snprintf(url, capacity, "%.*s%s%s%s", (int)n, base, middle, repository, rest);
    }
    return url;
}

static hypura_status add_page(listing *list, json_t *page, hypura_error *error)
{
    hypura_hub_file *larger = realloc(list->files, (list->n + json_array_size(page) + 1) * sizeof *larger);
    if (larger == NULL || json_array_append(list->pages, page) != 0) {
        free(larger != NULL ? NULL : list->files);
        list->files = larger;
        return out_of_memory(error);
    }
    list->files = larger;
    size_t i;
    json_t *entry;
    json_array_foreach(page, i, entry)
    {
        const json_t *lfs = json_object_get(entry, "lfs");
        const char *path = json_string_value(json_object_get(entry, "path"));
        json_int_t bytes = json_integer_value(json_object_get(entry, "size"));
        if (path != NULL && bytes > 0) {
            list->files[list->n++] = (hypura_hub_file){
                .path = path, .sha256 = json_string_value(json_object_get(lfs, "oid")), .bytes = (uint64_t)bytes};
        }
    }
    return HYPURA_OK;
}

static hypura_status get_listing(hypura_fetch *fetch, const char *hub_url, const char *repository, listing *list,
                                 hypura_error *error)
{
    char *url = format_url(hub_url, "/api/models/", repository, "/tree/main?recursive=true");
    hypura_status status = url == NULL ? out_of_memory(error) : HYPURA_OK;
    for (int page_no = 0; status == HYPURA_OK && url != NULL; page_no++) {
        char *text = NULL;
        char *next = NULL;
        size_t bytes = 0;
        if (page_no == MAX_PAGES) {
            status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s: the list of files does not end", url);
            break;
        }
        status = hypura_fetch_text(fetch, url, "application/json", MAX_PAGE_BYTES, &text, &bytes, &next, error);
        if (status == HYPURA_OK) {
            json_t *page = json_loadb(text, bytes, 0, NULL);
            status = json_is_array(page) ? add_page(list, page, error)
                                         : hypura_fail(error, HYPURA_ERR_FORMAT, "%s: is no list of files", url);
            json_decref(page);
        }
        free(text);
        free(url);
        url = next;
    }
    free(url);
    return status;
}

/* ---- the plan -------------------------------------------------------------------- */

static hypura_status add_file(hypura_pull_plan *plan, const char *hub_url, const char *repository,
                              const hypura_hub_file *file, const char *staged, hypura_error *error)
{
    char hex[HYPURA_DIGEST_BYTES];
    if (file->sha256 == NULL || !hypura_digest_parse(file->sha256, hex)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                           "%s: its SHA-256 is not published, so that it cannot be checked", file->path);
    }
    char *escaped = hypura_fetch_escape(file->path);
    char *below = escaped == NULL ? NULL : format_url("", "/resolve/main/", "", escaped);
    char *url = below == NULL ? NULL : format_url(hub_url, "/", repository, below);
    free(escaped);
    free(below);
    return url == NULL ? out_of_memory(error) : hypura_pull_plan_add(plan, url, hex, file->bytes, staged, error);
}

static hypura_status add_model(hypura_pull_plan *plan, const char *hub_url, const char *repository, const listing *list,
                               size_t first, hypura_error *error)
{
    hypura_split_name split;
    const char *path = list->files[first].path;
    if (!hypura_split_parse(path, &split) || split.n_parts == 1) {
        return add_file(plan, hub_url, repository, &list->files[first], "model.gguf", error);
    }
    hypura_status status = HYPURA_OK;
    for (int part = 1; part <= split.n_parts && status == HYPURA_OK; part++) {
        hypura_arena arena = {0};
        char staged[48];
        const char *wanted = hypura_split_path(&arena, path, &split, part);
        size_t i = 0;
        while (wanted != NULL && i < list->n && strcmp(list->files[i].path, wanted) != 0) {
            i++;
        }
        (void)snprintf(staged, sizeof staged, "model-%05d-of-%05d.gguf", part, split.n_parts);
        if (wanted == NULL) {
            status = out_of_memory(error);
        } else if (i == list->n) {
            status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "part %d of %d of %s is not in the repository", part,
                                 split.n_parts, path);
        } else {
            status = add_file(plan, hub_url, repository, &list->files[i], staged, error);
        }
        hypura_arena_free(&arena);
    }
    return status;
}

/* The types that are there, for a tag that is not. */
static hypura_status fail_tag(const listing *list, const char *repository, const char *tag, hypura_error *error)
{
    char names[320] = "";
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++) {
        const char *name = hypura_path_name(list->files[i].path);
        if (is_model(list->files[i].path) && n + strlen(name) + 3 < sizeof names) {
            n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", n > 0 ? ", " : "", name);
        }
    }
    return n == 0 ? hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s holds no GGUF", repository)
                  : hypura_fail(error, HYPURA_ERR_USAGE, "%s has no '%s'; it has %s", repository, tag, names);
}

hypura_status hypura_pull_plan_hub(hypura_fetch *fetch, const char *hub_url, const char *name, hypura_pull_plan *plan,
                                   hypura_error *error)
{
    char repository[512];
    (void)snprintf(repository, sizeof repository, "%s", name + strlen("hf.co/"));
    char *tag = strchr(repository, ':');
    const char *slash = strchr(repository, '/');
    if (tag == NULL || slash == NULL || strchr(slash + 1, '/') != NULL) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "a repository is hf.co/USER/NAME, with :TAG if wanted");
    }
    *tag++ = '\0';
    listing list = {.pages = json_array()};
    long first = -1;
    long projector = -1;
    hypura_status status = get_listing(fetch, hub_url, repository, &list, error);
    if (status == HYPURA_OK) {
        hypura_hub_choose(list.files, list.n, tag, &first, &projector);
        status = first < 0 ? fail_tag(&list, repository, tag, error)
                           : add_model(plan, hub_url, repository, &list, (size_t)first, error);
    }
    if (status == HYPURA_OK && projector >= 0) {
        status = add_file(plan, hub_url, repository, &list.files[projector], "model.mmproj.gguf", error);
    }
    free(list.files);
    json_decref(list.pages);
    return status;
}
