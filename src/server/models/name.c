/*
 * name.c - see name.h.
 *
 * What always holds: results are terminated, hold at most HYPURA_NAME_BYTES with
 * the end, and a normal form has a tag: a ':' in its last word.
 */
#include "server/models/name.h"

#include "base/status.h"
#include "gguf/split.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { MAX_WORDS = 5, MAX_WORD_BYTES = 120 };

#define LATEST ":latest"

static bool starts_with(const char *text, const char *start)
{
    return strncasecmp(text, start, strlen(start)) == 0;
}

/* What stands before a name and says nothing, and what is put in its place. */
static const struct {
    const char *start;
    const char *instead;
} starts[] = {
    {"https://", ""},
    {"http://", ""},
    {"registry.ollama.ai/library/", ""},
    {"registry.ollama.ai/", ""},
    {"library/", ""},
    {"huggingface.co/", "hf.co/"},
};

bool hypura_name_normalize(const char *text, char *name)
{
    const char *instead = "";
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        if (starts_with(text, starts[i].start)) {
            text += strlen(starts[i].start);
            instead = starts[i].instead;
        }
    }
    int n = snprintf(name, HYPURA_NAME_BYTES, "%s%s", instead, text);
    if (n < 0 || n >= HYPURA_NAME_BYTES || text[0] == '\0') {
        return false;
    }
    size_t bytes = (size_t)n;
    char *word = strrchr(name, '/');
    char *tag = strchr(word != NULL ? word : name, ':');
    /* A bare ":latest" is how every name without a tag ends: look for an ending before it. */
    if (tag != NULL && strcasecmp(tag, LATEST) == 0) {
        *tag = '\0';
        bytes = strlen(name);
        tag = NULL;
    }
    static const char ending[] = ".gguf";
    hypura_split_name split;
    if (hypura_split_parse(name, &split)) {
        bytes = split.prefix_bytes;
        name[bytes] = '\0';
    } else if (bytes > sizeof ending - 1 && strcasecmp(name + bytes - (sizeof ending - 1), ending) == 0) {
        bytes -= sizeof ending - 1;
        name[bytes] = '\0';
    }
    if (tag == NULL || tag[0] == '\0') {
        if (bytes == 0 || bytes + sizeof LATEST > HYPURA_NAME_BYTES) {
            return false;
        }
        memcpy(name + bytes, LATEST, sizeof LATEST);
    }
    return true;
}

bool hypura_name_equal(const char *a, const char *b)
{
    return strcasecmp(a, b) == 0;
}

static int folded(char c)
{
    return c == ':' || c == '_' ? '-' : tolower((unsigned char)c);
}

/* Bytes of a normal form without a ":latest". */
static size_t bytes_untagged(const char *name)
{
    size_t bytes = strlen(name);
    size_t latest = sizeof LATEST - 1;
    return bytes > latest && strcasecmp(name + bytes - latest, LATEST) == 0 ? bytes - latest : bytes;
}

static bool begins(const char *prefix, size_t bytes, const char *name)
{
    size_t name_bytes = bytes_untagged(name);
    if (bytes > name_bytes) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (folded(prefix[i]) != folded(name[i])) {
            return false;
        }
    }
    return bytes == name_bytes || !isalnum((unsigned char)name[bytes]);
}

bool hypura_name_begins(const char *prefix, const char *name)
{
    size_t bytes = bytes_untagged(prefix);
    const char *word = strrchr(name, '/');
    return begins(prefix, bytes, name) || (word != NULL && begins(prefix, bytes, word + 1));
}

static bool is_word_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-' ||
           c == '_';
}

/* Bytes of the word that text begins with; 0 when there is none that may be used. */
static size_t word_bytes(const char *text)
{
    size_t n = 0;
    while (is_word_byte(text[n])) {
        n++;
    }
    bool led = text[0] != '.' && text[0] != '-' && text[0] != '_';
    return led && n <= MAX_WORD_BYTES ? n : 0;
}

/* What lies beside a model is called so: of a model with such a name it would be taken for a part of another. */
static bool is_beside(const char *name)
{
    static const char *const endings[] = {".mmproj", ".adapter"};
    char stem[HYPURA_NAME_BYTES];
    bool found = false;
    hypura_name_stem(name, stem);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t n = strlen(stem);
        const size_t bytes = strlen(endings[i]);
        found = found || (n > bytes && strcasecmp(stem + n - bytes, endings[i]) == 0);
    }
    const char *further = strcasestr(stem, ".adapter-");
    return found || (further != NULL && further > stem && further[9] != '\0' &&
                     further[9 + strspn(further + 9, "0123456789")] == '\0');
}

/* Of a split model: the file of a model with such a name would be a part of another, and take its place. */
static bool is_part(const char *name)
{
    char file[HYPURA_NAME_BYTES + sizeof ".gguf"];
    hypura_split_name split;
    hypura_name_stem(name, file);
    memcpy(file + strlen(file), ".gguf", sizeof ".gguf");
    return hypura_split_parse(file, &split);
}

hypura_status hypura_name_check(const char *text, char *name, hypura_error *error)
{
    bool fits = hypura_name_normalize(text, name);
    const char *at = name;
    int n_words = 0;
    bool ok = fits;
    while (ok) {
        size_t n = word_bytes(at);
        at += n;
        ok = n > 0 && ++n_words <= MAX_WORDS;
        if (ok && *at == ':') {
            n = word_bytes(at + 1);
            ok = n > 0 && at[1 + n] == '\0';
            break;
        }
        ok = ok && *at++ == '/';
    }
    if (!ok) {
        /* The text is not repeated: it may hold anything. */
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "not a name for a model: one to %d words of at most %d letters, digits, '.', '-', '_' with "
                           "'/' between them, and a ':tag' if wanted",
                           MAX_WORDS, MAX_WORD_BYTES);
    }
    if (is_beside(name)) {
        return hypura_fail(error, HYPURA_ERR_USAGE,
                           "%s: a name does not end in .mmproj or .adapter, as files that go with a model do", name);
    }
    if (is_part(name)) {
        return hypura_fail(error, HYPURA_ERR_USAGE, "%s: a name does not end as a part of a split model does", name);
    }
    return HYPURA_OK;
}

void hypura_name_stem(const char *name, char *stem)
{
    size_t bytes = bytes_untagged(name);
    memcpy(stem, name, bytes);
    stem[bytes] = '\0';
    char *tag = strchr(stem, ':');
    if (tag != NULL) {
        *tag = '@';
    }
}

bool hypura_name_of_stem(const char *stem, char *name)
{
    int n = snprintf(name, HYPURA_NAME_BYTES, "%s", stem);
    if (n <= 0 || n >= HYPURA_NAME_BYTES) {
        return false;
    }
    char *word = strrchr(name, '/');
    char *tag = strrchr(word != NULL ? word : name, '@');
    if (tag != NULL && tag[1] != '\0') {
        *tag = ':';
        return true;
    }
    if ((size_t)n + sizeof LATEST > HYPURA_NAME_BYTES) {
        return false;
    }
    memcpy(name + n, LATEST, sizeof LATEST);
    return true;
}
