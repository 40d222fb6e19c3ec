/*
 * templates.h - chat templates of models that are around, as llama.cpp's sources bring them along.
 */
#ifndef HYPURA_TEST_TEMPLATES_H
#define HYPURA_TEST_TEMPLATES_H

#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Its text, to be freed. Skips the running test, saying why, where it is not there. */
static inline char *template_read(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.jinja", HYPURA_TEST_TEMPLATES, name);
    FILE *file = fopen(path, "r");
    if (!file) {
        print_message("%s is not there\n", path);
        skip();
    }
    char *text = calloc(1, 1 << 18);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 18) - 1, file) > 0);
    fclose(file);
    return text;
}

#endif
