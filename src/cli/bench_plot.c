/*
 * bench_plot.c - see bench_plot.h. Coordinates are those of a view box as
 * wide as a plot usually is on the page, with which it scales.
 */
#include "cli/bench_plot.h"

#include "base/size.h"

#include <math.h>

enum {
    WIDTH = 480,
    LEFT = 48,
    RIGHT = 16,
    TOP = 30,
    PLOT_HEIGHT = 180,
    BAR_HEIGHT = 22,
    BAR_STEP = 32,
    BAR_LEFT = 168,
    STRIP_LEFT = 202,
    LABEL_WIDTH = 62, /* of a size */
    STRIP_HEIGHT = 48,
    STRIP_STEP = 64,
    VALUE_WIDTH = 46, /* of a number behind a bar */
};

#define SAME_X 1.05

void hypura_plot_text(FILE *to, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", to);
            break;
        case '>':
            fputs("&gt;", to);
            break;
        case '&':
            fputs("&amp;", to);
            break;
        case '"':
            fputs("&quot;", to);
            break;
        default:
            fputc(*text, to);
        }
    }
}

static void open_figure(FILE *to, const char *title, int height)
{
    fputs("<figure><figcaption>", to);
    hypura_plot_text(to, title);
    fprintf(to, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, height);
    hypura_plot_text(to, title);
    fputs("\">\n", to);
}

static void close_figure(FILE *to)
{
    fputs("</svg></figure>\n", to);
}

static void put_label(FILE *to, double x, double y, const char *anchor, const char *text)
{
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    hypura_plot_text(to, text);
    fputs("</text>\n", to);
}

/* A swatch and its label; returns where the next one may begin. */
static double put_legend(FILE *to, double x, const char *class_name, const char *label)
{
    fprintf(to, "<rect class=\"%s\" x=\"%.1f\" y=\"4\" width=\"12\" height=\"12\" rx=\"2\"/>\n", class_name, x);
    put_label(to, x + 17, 14, "start", label);
    double letters = 0;
    for (const char *c = label; *c; c++) {
        letters += 1;
    }
    return x + 17 + 6.6 * letters + 16;
}

/* ---- lines ------------------------------------------------------------------- */

/* The smallest of 1, 2, 5 times a power of ten that makes at most five steps. */
static double tick_step(double most)
{
    double step = pow(10.0, floor(log10(most / 5.0)));
    while (most / step > 5.0) {
        const double lead = step / pow(10.0, floor(log10(step) + 0.001));
        step *= lead > 1.5 && lead < 3.0 ? 2.5 : 2.0;
    }
    return step;
}

typedef struct frame {
    double x_max;
    double y_max;
} frame;

static double place_x(const frame *f, double x)
{
    return (double)LEFT + x / f->x_max * (double)(WIDTH - LEFT - RIGHT);
}

static double place_y(const frame *f, double y)
{
    return (double)TOP + (double)PLOT_HEIGHT - y / f->y_max * (double)PLOT_HEIGHT;
}

static void put_axes(FILE *to, const hypura_line_plot *plot, const frame *f)
{
    char text[64];
    const double step = tick_step(f->y_max);
    for (double y = 0; y <= f->y_max * 1.0001; y += step) {
        fprintf(to, "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n", LEFT, place_y(f, y),
                WIDTH - RIGHT, place_y(f, y));
        (void)snprintf(text, sizeof text, "%g", y);
        put_label(to, LEFT - 8, place_y(f, y) + 4, "end", text);
    }
    double label_end = 0.0;
    for (int i = 0; i < plot->n; i++) {
        const double x = place_x(f, plot->x_bytes[i]);
        fprintf(to, "<line class=\"grid\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", x, TOP, x,
                TOP + PLOT_HEIGHT);
        const bool at_end = x > WIDTH - LABEL_WIDTH / 2.0;
        const double label_begin = at_end ? WIDTH - LABEL_WIDTH : x - LABEL_WIDTH / 2.0;
        if (label_begin > label_end) { /* labels do not run into each other */
            put_label(to, at_end ? WIDTH - 2 : x, TOP + PLOT_HEIGHT + 18, at_end ? "end" : "middle",
                      hypura_size_format((uint64_t)plot->x_bytes[i], text, sizeof text));
            label_end = label_begin + LABEL_WIDTH;
        }
    }
    put_label(to, WIDTH - RIGHT, TOP + PLOT_HEIGHT + 36, "end", "memory for weights");
    put_label(to, WIDTH - RIGHT, 14, "end", plot->unit);
}

static void put_value(FILE *to, const char *label, const hypura_spread *value, double scale)
{
    hypura_plot_text(to, label);
    fprintf(to, ": %.4g (%.4g to %.4g)", value->median * scale, value->min * scale, value->max * scale);
}

static void put_line(FILE *to, const hypura_line_plot *plot, const hypura_plot_line *line, const frame *f)
{
    fprintf(to, "<polyline class=\"line %s\" points=\"", line->class_name);
    for (int i = 0; i < plot->n; i++) {
        if (!isnan(line->values[i].median)) {
            fprintf(to, "%.1f,%.1f ", place_x(f, plot->x_bytes[i]), place_y(f, line->values[i].median * plot->scale));
        }
    }
    fputs("\"/>\n", to);
    for (int i = 0; i < plot->n; i++) {
        const hypura_spread *v = &line->values[i];
        if (isnan(v->median)) {
            continue;
        }
        const double x = place_x(f, plot->x_bytes[i]);
        fprintf(to,
                "<line class=\"line %s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
                "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>",
                line->class_name, x, place_y(f, v->min * plot->scale), x, place_y(f, v->max * plot->scale),
                line->class_name, x, place_y(f, v->median * plot->scale));
        put_value(to, line->label, v, plot->scale);
        fputs("</title></circle>\n", to);
    }
}

/* A bar for each value of a line, those of an x together. */
static void put_groups(FILE *to, const hypura_line_plot *plot, double most)
{
    int n_bars = 0;
    for (int i = 0; i < plot->n; i++) {
        for (int l = 0; l < plot->n_lines; l++) {
            n_bars += !isnan(plot->lines[l].values[i].median);
        }
    }
    open_figure(to, plot->title, TOP + n_bars * BAR_STEP + 4);
    double x = 8;
    for (int l = 0; l < plot->n_lines; l++) {
        x = put_legend(to, x, plot->lines[l].class_name, plot->lines[l].label);
    }
    put_label(to, WIDTH - RIGHT, 14, "end", plot->unit);
    double y = TOP;
    for (int i = 0; i < plot->n; i++) {
        const char *label = plot->labels[i];
        for (int l = 0; l < plot->n_lines; l++) {
            const hypura_plot_line *line = &plot->lines[l];
            const hypura_spread *v = &line->values[i];
            if (isnan(v->median)) {
                continue;
            }
            const double width = v->median * plot->scale / most * (WIDTH - BAR_LEFT - RIGHT - VALUE_WIDTH);
            put_label(to, BAR_LEFT - 8, y + 15, "end", label);
            fprintf(to, "<rect class=\"%s\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"><title>", line->class_name,
                    BAR_LEFT, y, width, BAR_HEIGHT);
            put_value(to, line->label, v, plot->scale);
            fprintf(to, "</title></rect>\n<text x=\"%.1f\" y=\"%.1f\">%.4g</text>\n", BAR_LEFT + width + 6, y + 15,
                    v->median * plot->scale);
            label = ""; /* of the first one it is enough */
            y += BAR_STEP;
        }
    }
    close_figure(to);
}

void hypura_plot_lines(FILE *to, const hypura_line_plot *plot)
{
    frame f = {.x_max = 1.0, .y_max = 0.0};
    for (int i = 0; i < plot->n; i++) {
        f.x_max = fmax(f.x_max, plot->x_bytes[i]);
        for (int l = 0; l < plot->n_lines; l++) {
            f.y_max = fmax(f.y_max, plot->lines[l].values[i].max * plot->scale);
        }
    }
    if (f.y_max <= 0.0) {
        return; /* no value at all */
    }
    if (plot->unit[0] == '%') { /* of all */
        f.y_max = 100.0;
    }
    if (plot->x_bytes[plot->n - 1] < SAME_X * plot->x_bytes[0]) { /* one alone is no line either */
        put_groups(to, plot, f.y_max);
        return;
    }
    const double step = tick_step(f.y_max);
    f.y_max = ceil(f.y_max / step) * step;
    f.x_max *= 1.04;
    open_figure(to, plot->title, TOP + PLOT_HEIGHT + 44);
    put_axes(to, plot, &f);
    double x = LEFT;
    for (int l = 0; l < plot->n_lines; l++) {
        put_line(to, plot, &plot->lines[l], &f);
        x = put_legend(to, x, plot->lines[l].class_name, plot->lines[l].label);
    }
    close_figure(to);
}

/* ---- bars -------------------------------------------------------------------- */

static double part_of(const hypura_bar_plot *plot, int bar, int part)
{
    const double value = plot->values[bar * plot->n_parts + part];
    return isnan(value) || value < 0.0 ? 0.0 : value;
}

void hypura_plot_bars(FILE *to, const hypura_bar_plot *plot)
{
    double most = 0.0;
    for (int bar = 0; bar < plot->n; bar++) {
        double sum = 0.0;
        for (int part = 0; part < plot->n_parts; part++) {
            sum += part_of(plot, bar, part);
        }
        most = fmax(most, sum);
    }
    if (most <= 0.0) {
        return;
    }
    open_figure(to, plot->title, TOP + plot->n * BAR_STEP + 4);
    double x = 8;
    for (int part = 0; part < plot->n_parts; part++) {
        bool any = false; /* what no bar has needs no explanation */
        for (int bar = 0; bar < plot->n; bar++) {
            any = any || part_of(plot, bar, part) > 0.0;
        }
        if (!any) {
            continue;
        }
        x = put_legend(to, x, plot->parts[part].class_name, plot->parts[part].label);
    }
    for (int bar = 0; bar < plot->n; bar++) {
        char text[64];
        const double y = TOP + bar * BAR_STEP;
        double at = BAR_LEFT;
        put_label(to, BAR_LEFT - 8, y + 15, "end", plot->labels[bar]);
        for (int part = 0; part < plot->n_parts; part++) {
            const double value = part_of(plot, bar, part);
            const double width = value / most * (WIDTH - BAR_LEFT - RIGHT);
            if (width <= 0.0) {
                continue;
            }
            plot->format(value, text, sizeof text);
            fprintf(
                to,
                "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"><title>%s: %s</title></rect>\n",
                plot->parts[part].class_name, at, y, width, BAR_HEIGHT, plot->parts[part].label, text);
            if (width > 58.0) {
                fprintf(to, "<text class=\"inside\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                        at + width / 2, y + 15, text);
            }
            at += width;
        }
    }
    close_figure(to);
}

/* ---- columns ----------------------------------------------------------------- */

static void put_strip(FILE *to, const hypura_column_plot *plot, int strip, double y)
{
    const double step = (double)(WIDTH - STRIP_LEFT - RIGHT) / plot->n_columns;
    const double width = step > 3.0 ? step - 1.0 : step;
    put_label(to, STRIP_LEFT - 34, y + STRIP_HEIGHT / 2.0 + 4, "end", plot->labels[strip]);
    for (int percent = 0; percent <= 100; percent += 50) {
        char text[16];
        const double line = y + STRIP_HEIGHT * (1.0 - percent / 100.0);
        fprintf(to, "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>\n", STRIP_LEFT, line,
                WIDTH - RIGHT, line);
        if (percent != 50) {
            (void)snprintf(text, sizeof text, "%d", percent);
            put_label(to, STRIP_LEFT - 6, line + 4, "end", text);
        }
    }
    for (int column = 0; column < plot->n_columns; column++) {
        const double value = plot->values[strip * plot->n_columns + column];
        if (isnan(value)) {
            continue;
        }
        const double height = fmax(value * STRIP_HEIGHT, 1.0); /* that nothing hits shows too */
        fprintf(to,
                "<rect class=\"%s\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\">"
                "<title>%s %d: %.1f %%</title></rect>\n",
                plot->class_name, STRIP_LEFT + column * step, y + STRIP_HEIGHT - height, width, height, plot->axis,
                column, value * 100.0);
    }
}

void hypura_plot_columns(FILE *to, const hypura_column_plot *plot)
{
    bool any = false;
    for (int i = 0; i < plot->n * plot->n_columns; i++) {
        any = any || !isnan(plot->values[i]);
    }
    if (!any) {
        return;
    }
    const int bottom = TOP + plot->n * STRIP_STEP;
    const double step = (double)(WIDTH - STRIP_LEFT - RIGHT) / plot->n_columns;
    const double numbered = fmax(tick_step(plot->n_columns), 1.0);
    open_figure(to, plot->title, bottom + 28);
    put_label(to, WIDTH - RIGHT, 14, "end", "%");
    for (int strip = 0; strip < plot->n; strip++) {
        put_strip(to, plot, strip, TOP + strip * STRIP_STEP);
    }
    for (double column = 0; column < plot->n_columns; column += ceil(numbered)) {
        char text[16];
        (void)snprintf(text, sizeof text, "%.0f", column);
        put_label(to, STRIP_LEFT + (column + 0.5) * step, bottom, "middle", text);
    }
    put_label(to, WIDTH - RIGHT, bottom + 18, "end", plot->axis);
    close_figure(to);
}
