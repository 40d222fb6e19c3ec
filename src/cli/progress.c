/*
 * progress.c - see progress.h. Plain ASCII, one line, redrawn in place:
 *
 *     reading weights  [==========>             ]  42 %
 */
#include "cli/progress.h"

#include "base/clock.h"
#include "cli/interrupt.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DRAW_AFTER_US 1000000u
#define REDRAW_US     100000u
#define MAX_COLUMNS   80
#define LEAST_BAR     12
#define CLEAR_LINE    "\r\033[K"

void hypura_progress_open(hypura_progress *progress, const hypura_environment *environment)
{
    *progress = (hypura_progress){.enabled = environment->terminal_error, .opened_us = hypura_clock_us()};
}

void hypura_progress_close(hypura_progress *progress)
{
    if (progress->drawn) {
        fputs(CLEAR_LINE, stderr);
        progress->drawn = false;
    }
    progress->enabled = false;
}

static int columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_col > MAX_COLUMNS) {
        return MAX_COLUMNS;
    }
    return size.ws_col;
}

static void draw(const char *what, uint64_t done, uint64_t total)
{
    char bar[MAX_COLUMNS];
    double part = total > 0 ? (double)done / (double)total : 0.0;
    part = part > 1.0 ? 1.0 : part;
    /* One column stays free: a full line would wrap on some terminals. */
    int room = columns() - 1 - (int)strlen("  [] 100 %");
    int label = (int)strlen(what);
    label = label > room - LEAST_BAR ? room - LEAST_BAR : label;
    int width = room - label;
    if (width < 4 || label < 0 || total == 0) {
        fprintf(stderr, CLEAR_LINE "%.*s", columns() - 1, what);
        return;
    }
    int filled = (int)(part * width);
    memset(bar, ' ', sizeof bar);
    memset(bar, '=', (size_t)filled);
    if (filled < width) {
        bar[filled] = '>';
    }
    fprintf(stderr, CLEAR_LINE "%.*s  [%.*s] %3d %%", label, what, width, bar, (int)(100.0 * part));
}

bool hypura_progress_update(void *user, const char *what, uint64_t done, uint64_t total)
{
    hypura_progress *progress = user;
    /* Asked for every node of a graph: where nothing is drawn it costs next to nothing. */
    const uint64_t now_us = progress->enabled ? hypura_clock_us() : 0;
    if (progress->enabled && now_us - progress->opened_us >= DRAW_AFTER_US &&
        now_us - progress->drawn_us >= REDRAW_US) {
        draw(what, done, total);
        fflush(stderr);
        progress->drawn = true;
        progress->drawn_us = now_us;
    }
    return !hypura_interrupted();
}
