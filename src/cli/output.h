/*
 * output.h - what people read: text and tables on standard output, messages on
 * standard error. json.h has the rest.
 *
 * What always holds: standard output carries results alone, standard error
 * everything else; the first failed write to standard output is remembered and
 * makes the program fail, so that a full disk or a closed pipe is never success.
 */
#ifndef HYPURA_CLI_OUTPUT_H
#define HYPURA_CLI_OUTPUT_H

#include "hypura.h"

/* ---- standard output ------------------------------------------------------ */

/* False once standard output has failed; later writes are dropped. */
bool hypura_output_write(const char *text, size_t bytes);
bool hypura_output_printf(const char *format, ...) HYPURA_PRINTF(1, 2);
bool hypura_output_flush(void);
/* The errno of the first failure, 0 when there was none. */
int hypura_output_errno(void);

/* ---- standard error ------------------------------------------------------- */

/* Draws notes dim from here on, when on. */
void hypura_output_color(bool on);
/* "hypura: message" */
void hypura_output_error(const char *format, ...) HYPURA_PRINTF(1, 2);
/* A line of information: what was placed where, how fast it went. */
void hypura_output_note(const char *format, ...) HYPURA_PRINTF(1, 2);
/* Text beside the result, as it comes, without a newline behind it. */
void hypura_output_aside(const char *text, size_t bytes);

/* ---- tables --------------------------------------------------------------- */

#define HYPURA_TABLE_COLUMNS 12

/* Rows of cells, printed with aligned columns, below a row of titles. A failed allocation makes
 * print fail; the calls between need no check. */
typedef struct hypura_table {
    const char *align; /* 'l' or 'r' for each column, HYPURA_TABLE_COLUMNS at most */
    char **cells;
    size_t n_cells;
    size_t capacity;
    bool failed;
} hypura_table;

/* titles: one for each column of align. */
void hypura_table_open(hypura_table *table, const char *align, const char *const *titles);
/* Of one that is not printed. */
void hypura_table_close(hypura_table *table);
void hypura_table_cell(hypura_table *table, const char *format, ...) HYPURA_PRINTF(2, 3);
/* A cell holding a size with its unit, or "-" for 0. */
void hypura_table_size(hypura_table *table, uint64_t bytes);
/* To standard output, two spaces between columns, no spaces at the end of lines; closes it. */
hypura_status hypura_table_print(hypura_table *table, hypura_error *error);

/* ---- numbers -------------------------------------------------------------- */

/* Text of a size with its unit, in one of eight buffers used in turn, so that a
 * few may stand in one call. For the main thread alone. */
const char *hypura_output_size(uint64_t bytes);
/* The same for a rate: "950.0 MiB/s". */
const char *hypura_output_rate(double bytes_per_s);

/* Fails where this file cannot be written, before work is done whose outcome it is to
 * hold. What it holds is left as it is. */
hypura_status hypura_output_check(const char *path, hypura_error *error);

#endif
