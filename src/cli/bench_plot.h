/*
 * bench_plot.h - the kinds of plot that a bench report is made of, as SVG: lines over
 * memory, bars parted into shares, and strips of columns. Colours are classes of the page,
 * so that it can be light or dark.
 */
#ifndef HYPURA_CLI_BENCH_PLOT_H
#define HYPURA_CLI_BENCH_PLOT_H

#include "hypura_measure.h"

#include <stdio.h>

#define HYPURA_PLOT_MAX_LINES 4
#define HYPURA_PLOT_MAX_PARTS 8

/* Text with the characters that mean something to HTML replaced. */
void hypura_plot_text(FILE *to, const char *text);

typedef struct hypura_plot_line {
    const char *label;
    const char *class_name;
    const hypura_spread *values; /* one for each x; those that are NaN are left out */
} hypura_plot_line;

typedef struct hypura_line_plot {
    const char *title;
    const char *unit; /* of y */
    double scale;     /* y is multiplied by it */
    int n;
    const double *x_bytes; /* ascending */
    const char *const *labels; /* one for each x */
    int n_lines;
    hypura_plot_line lines[HYPURA_PLOT_MAX_LINES];
} hypura_line_plot;

/* Medians joined by lines, a whisker from min to max, axes from 0. Several of the same x, nearly, would stand above
 * each other: these are bars. */
void hypura_plot_lines(FILE *to, const hypura_line_plot *plot);

typedef struct hypura_plot_part {
    const char *label;
    const char *class_name;
} hypura_plot_part;

typedef struct hypura_bar_plot {
    const char *title;
    int n_parts;
    hypura_plot_part parts[HYPURA_PLOT_MAX_PARTS];
    int n;                     /* bars */
    const char *const *labels; /* one for each bar */
    const double *values;      /* n_parts for each bar; NaN and 0 are left out */
    /* The text that tells a value, into a buffer of that size. */
    void (*format)(double value, char *text, size_t capacity);
} hypura_bar_plot;

/* Shares of layers, 0 to 1, one strip for each row. */
typedef struct hypura_column_plot {
    const char *title;
    const char *axis; /* what the columns are */
    const char *class_name;
    int n;                     /* strips */
    const char *const *labels; /* one for each strip */
    int n_columns;
    const double *values; /* n_columns for each strip; NaN: there is none */
} hypura_column_plot;

/* Columns from 0 to 100 %, numbered from 0 below the last strip. */
void hypura_plot_columns(FILE *to, const hypura_column_plot *plot);

/* Horizontal bars on one scale, a legend above. */
void hypura_plot_bars(FILE *to, const hypura_bar_plot *plot);

#endif
