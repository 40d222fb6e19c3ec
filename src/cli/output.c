/*
 * output.c - see output.h.
 */
#include "cli/output.h"

#include "base/size.h"
#include "base/status.h"
#include "cli/environment.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIM   "\033[2m"
#define PLAIN "\033[0m"

static int output_errno;
static bool output_dim;

/* ---- standard output ------------------------------------------------------ */

static bool output_result(bool wrote)
{
    if (!wrote && output_errno == 0) {
        output_errno = errno != 0 ? errno : EIO;
    }
    return output_errno == 0;
}

bool hypura_output_write(const char *text, size_t bytes)
{
    if (output_errno != 0) {
        return false;
    }
    errno = 0;
    return output_result(fwrite(text, 1, bytes, stdout) == bytes);
}

bool hypura_output_printf(const char *format, ...)
{
    if (output_errno != 0) {
        return false;
    }
    va_list arguments;
    va_start(arguments, format);
    errno = 0;
    bool wrote = vprintf(format, arguments) >= 0;
    va_end(arguments);
    return output_result(wrote);
}

bool hypura_output_flush(void)
{
    if (output_errno != 0) {
        return false;
    }
    /* Help is written past this file: a write of it may have failed before, with the errno that is still there. */
    errno = ferror(stdout) ? errno : 0;
    return output_result(fflush(stdout) == 0 && !ferror(stdout));
}

int hypura_output_errno(void)
{
    return output_errno;
}

/* ---- standard error ------------------------------------------------------- */

void hypura_output_color(bool on)
{
    output_dim = on;
}

void hypura_output_error(const char *format, ...)
{
    va_list arguments;
    hypura_output_flush();
    va_start(arguments, format);
    fputs("hypura: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

void hypura_output_note(const char *format, ...)
{
    va_list arguments;
    hypura_output_flush();
    va_start(arguments, format);
    fputs(output_dim ? DIM : "", stderr);
    vfprintf(stderr, format, arguments);
    fputs(output_dim ? PLAIN "\n" : "\n", stderr);
    va_end(arguments);
}

void hypura_output_aside(const char *text, size_t bytes)
{
    fputs(output_dim ? DIM : "", stderr);
    fwrite(text, 1, bytes, stderr);
    fputs(output_dim ? PLAIN : "", stderr);
}

/* ---- tables --------------------------------------------------------------- */

void hypura_table_open(hypura_table *table, const char *align, const char *const *titles)
{
    const size_t n_columns = strlen(align);
    assert(n_columns <= HYPURA_TABLE_COLUMNS);
    *table = (hypura_table){.align = align};
    for (size_t i = 0; i < n_columns; i++) {
        hypura_table_cell(table, "%s", titles[i]);
    }
}

void hypura_table_close(hypura_table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    *table = (hypura_table){.align = NULL};
}

/* Takes text over; NULL counts as out of memory. */
static void add_cell(hypura_table *table, char *text)
{
    if (text && table->n_cells == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 64;
        char **cells = capacity > SIZE_MAX / sizeof *cells ? NULL : realloc(table->cells, capacity * sizeof *cells);
        if (!cells) {
            free(text);
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->capacity = capacity;
    }
    if (!text) {
        table->failed = true;
        return;
    }
    table->cells[table->n_cells++] = text;
}

void hypura_table_cell(hypura_table *table, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length >= 0 ? malloc((size_t)length + 1) : NULL;
    if (text) {
        va_start(arguments, format);
        vsnprintf(text, (size_t)length + 1, format, arguments);
        va_end(arguments);
    }
    add_cell(table, text);
}

void hypura_table_size(hypura_table *table, uint64_t bytes)
{
    add_cell(table, strdup(bytes ? hypura_output_size(bytes) : "-"));
}

/* Characters of UTF-8: most terminals give each a column. */
static int text_width(const char *text)
{
    int n = 0;
    for (; *text; text++) {
        n += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return n;
}

static void print_cells(const hypura_table *table)
{
    size_t n_columns = strlen(table->align);
    int width[HYPURA_TABLE_COLUMNS] = {0};
    for (size_t i = 0; i < table->n_cells; i++) {
        int length = text_width(table->cells[i]);
        int *widest = &width[i % n_columns];
        *widest = length > *widest ? length : *widest;
    }
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t column = i % n_columns;
        bool last = column + 1 == n_columns;
        const int space = width[column] - text_width(table->cells[i]);
        const bool right = table->align[column] == 'r';
        hypura_output_printf("%*s%s%*s", right ? space : 0, "", table->cells[i], right || last ? 0 : space, "");
        hypura_output_write(last ? "\n" : "  ", last ? 1 : 2);
    }
}

hypura_status hypura_table_print(hypura_table *table, hypura_error *error)
{
    const bool failed = table->failed;
    if (!failed) {
        print_cells(table);
    }
    hypura_table_close(table);
    return failed ? hypura_fail(error, HYPURA_ERR_MEMORY, "out of memory while writing a table") : HYPURA_OK;
}

/* ---- numbers -------------------------------------------------------------- */

static char *number_buffer(void)
{
    static char buffers[8][HYPURA_SIZE_TEXT + 8];
    static unsigned next;
    return buffers[next++ % 8];
}

const char *hypura_output_size(uint64_t bytes)
{
    return hypura_size_format(bytes, number_buffer(), HYPURA_SIZE_TEXT);
}

const char *hypura_output_rate(double bytes_per_s)
{
    char size[HYPURA_SIZE_TEXT];
    char *text = number_buffer();
    double whole = bytes_per_s > 0.0 && bytes_per_s < 1e18 ? floor(bytes_per_s) : 0.0;
    snprintf(text, HYPURA_SIZE_TEXT + 8, "%s/s", hypura_size_format((uint64_t)whole, size, sizeof size));
    return text;
}

/* Nothing is opened: a reader of a pipe would take that for the end of it. */
hypura_status hypura_output_check(const char *path, hypura_error *error)
{
    struct stat kind;
    const char *slash = strrchr(path, '/');
    char folder[HYPURA_PATH_BYTES] = ".";
    int problem = 0;
    if (stat(path, &kind) == 0) {
        problem = S_ISDIR(kind.st_mode) ? EISDIR : access(path, W_OK) != 0 ? errno : 0;
    } else if (slash && (size_t)(slash - path) >= sizeof folder - 1) {
        problem = ENAMETOOLONG;
    } else {
        if (slash) {
            (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - path + 1), path);
        }
        problem = access(folder, W_OK | X_OK) != 0 ? errno : 0;
    }
    return problem == 0 ? HYPURA_OK : hypura_fail_errno(error, problem, "cannot write %s", path);
}
