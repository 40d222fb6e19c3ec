/*
 * route.c - see route.h.
 */
#include "engine/measure/route.h"

#include "base/status.h"
#include "predict/candidates.h"

#include "ggml-backend.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_LINE = 8192,
    MAX_EXPERTS = 256, /* on one line */
    MAX_LAYERS = 4096,
    MAX_TOKENS = 1 << 20,
};

#define NO_EXPERT UINT32_MAX
#define BLANKS    " \t\r\n"

/* Selections lie one after the other; a row that the file left out is empty. */
struct hypura_route {
    uint32_t n_tokens;
    uint32_t n_layers;
    uint32_t width;   /* of a row: most experts on one line */
    uint64_t n_lines; /* that hold a selection */
    uint32_t *experts; /* n_tokens x n_layers x width, NO_EXPERT where there is none */
};

/* ---- reading ------------------------------------------------------------- */

typedef struct route_line {
    uint32_t token;
    uint32_t layer;
    uint32_t n_experts;
    uint32_t experts[MAX_EXPERTS];
} route_line;

/* The next number of *text below limit; what is wrong with it goes to why. */
static bool take_number(char **text, const char *what, uint32_t limit, uint32_t *number, char *why, size_t why_bytes)
{
    char *end;
    *text += strspn(*text, BLANKS);
    const size_t n = strcspn(*text, BLANKS);
    errno = 0;
    const unsigned long value = isdigit((unsigned char)**text) ? strtoul(*text, &end, 10) : 0;
    if (!isdigit((unsigned char)**text) || end != *text + n) {
        (void)snprintf(why, why_bytes, "expected \"token layer expert ...\", numbers alone");
        return false;
    }
    if (errno != 0 || value >= limit) {
        (void)snprintf(why, why_bytes, "%s %.*s is out of range (0 to %u)", what, n < 24 ? (int)n : 24, *text, limit - 1);
        return false;
    }
    *text = end;
    *number = (uint32_t)value;
    return true;
}

/* True when the line holds a selection; else why not, which is "" where it holds nothing. */
static bool parse_line(char *text, route_line *line, char *why, size_t why_bytes)
{
    why[0] = '\0';
    text += strspn(text, BLANKS);
    if (*text == '\0' || *text == '#') {
        return false;
    }
    bool ok = take_number(&text, "token", MAX_TOKENS, &line->token, why, why_bytes) &&
              take_number(&text, "layer", MAX_LAYERS, &line->layer, why, why_bytes);
    line->n_experts = 0;
    do {
        if (ok && line->n_experts == MAX_EXPERTS) {
            (void)snprintf(why, why_bytes, "more than %d experts", MAX_EXPERTS);
            return false;
        }
        ok = ok && take_number(&text, "expert", INT32_MAX, &line->experts[line->n_experts++], why, why_bytes);
    } while (ok && text[strspn(text, BLANKS)] != '\0');
    return ok;
}

static bool has_row(const hypura_route *route, const route_line *line)
{
    return line->token < route->n_tokens && line->layer < route->n_layers && line->n_experts <= route->width;
}

/* Finds the sizes of a route, or, with these, keeps its selections. */
static hypura_status read_lines(FILE *file, const char *path, hypura_route *route, bool keep, hypura_error *error)
{
    char text[MAX_LINE];
    char why[96];
    route_line line;
    for (unsigned long number = 1; fgets(text, sizeof(text), file); number++) {
        const size_t n = strlen(text);
        if (n == 0 || (text[n - 1] != '\n' && !feof(file))) {
            return hypura_fail(error, HYPURA_ERR_FORMAT, "%s, line %lu: longer than %d bytes, or no text", path, number,
                               MAX_LINE - 2);
        }
        if (!parse_line(text, &line, why, sizeof why)) {
            if (why[0] != '\0') {
                return hypura_fail(error, HYPURA_ERR_FORMAT, "%s, line %lu: %s", path, number, why);
            }
            continue;
        }
        if (!keep) {
            route->n_tokens = line.token >= route->n_tokens ? line.token + 1 : route->n_tokens;
            route->n_layers = line.layer >= route->n_layers ? line.layer + 1 : route->n_layers;
            route->width = line.n_experts > route->width ? line.n_experts : route->width;
            route->n_lines++;
        } else if (has_row(route, &line)) {
            uint32_t *row = route->experts + ((size_t)line.token * route->n_layers + line.layer) * route->width;
            memcpy(row, line.experts, line.n_experts * sizeof(*row));
        } else {
            return hypura_fail(error, HYPURA_ERR_IO, "%s, line %lu: the route was written to while it was read", path,
                               number);
        }
    }
    if (ferror(file)) {
        return hypura_fail_errno(error, errno, "cannot read the route %s", path);
    }
    return HYPURA_OK;
}

/* Room for every selection that the sizes allow. */
static hypura_status take_rows(hypura_route *route, const char *path, hypura_error *error)
{
    const size_t n_rows = (size_t)route->n_tokens * route->n_layers;
    if (n_rows / MAX_LAYERS > route->n_lines) { /* even where one layer is told of alone there are more */
        return hypura_fail(error, HYPURA_ERR_FORMAT, "%s: %llu selections of %u tokens in %u layers: is a number wrong?",
                           path, (unsigned long long)route->n_lines, route->n_tokens, route->n_layers);
    }
    route->experts = malloc(n_rows * route->width * sizeof(*route->experts));
    if (!route->experts) {
        return hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the %zu selections of %s", n_rows, path);
    }
    memset(route->experts, 0xFF, n_rows * route->width * sizeof(*route->experts));
    return HYPURA_OK;
}

hypura_status hypura_route_open(const char *path, hypura_route **opened, hypura_error *error)
{
    *opened = NULL;
    FILE *file = fopen(path, "re");
    if (!file) {
        return hypura_fail_errno(error, errno, "cannot open the route %s", path);
    }
    hypura_route *route = calloc(1, sizeof(*route));
    hypura_status status = route ? read_lines(file, path, route, false, error)
                                 : hypura_fail(error, HYPURA_ERR_MEMORY, "no memory for the route %s", path);
    if (status == HYPURA_OK && route->n_tokens == 0) {
        status = hypura_fail(error, HYPURA_ERR_FORMAT, "%s: there is no selection of experts in it", path);
    }
    if (status == HYPURA_OK) {
        status = take_rows(route, path, error);
    }
    if (status == HYPURA_OK && fseek(file, 0, SEEK_SET) != 0) {
        status = hypura_fail_errno(error, errno, "%s: a route is read twice, which a pipe does not allow", path);
    }
    if (status == HYPURA_OK) {
        status = read_lines(file, path, route, true, error);
    }
    (void)fclose(file);
    if (status != HYPURA_OK) {
        hypura_route_close(route);
        return status;
    }
    *opened = route;
    return HYPURA_OK;
}

void hypura_route_close(hypura_route *route)
{
    if (route) {
        free(route->experts);
        free(route);
    }
}

void hypura_route_sizes(const hypura_route *route, uint32_t *n_tokens, uint32_t *n_layers, uint32_t *n_experts)
{
    const size_t n = (size_t)route->n_tokens * route->n_layers * route->width;
    uint32_t n_named = 0;
    for (size_t i = 0; i < n; i++) {
        n_named = route->experts[i] != NO_EXPERT && route->experts[i] >= n_named ? route->experts[i] + 1 : n_named;
    }
    *n_tokens = route->n_tokens;
    *n_layers = route->n_layers;
    *n_experts = n_named;
}

const uint32_t *hypura_route_row(const hypura_route *route, uint32_t token, uint32_t layer, uint32_t *n)
{
    const uint32_t *row = route->experts + ((size_t)token * route->n_layers + layer) * route->width;
    *n = 0;
    while (*n < route->width && row[*n] != NO_EXPERT) {
        (*n)++;
    }
    return row;
}

/* ---- picking ------------------------------------------------------------- */

static uint32_t add_distinct(uint32_t *experts, uint32_t n, uint32_t expert)
{
    if (hypura_candidates_contain(experts, n, expert)) {
        return n;
    }
    experts[n] = expert;
    return n + 1;
}

static uint32_t add_row(const hypura_route *route, uint64_t token, uint32_t layer, uint32_t n_experts, uint32_t *experts,
                        uint32_t filled, uint32_t n)
{
    const size_t at = (size_t)(token % route->n_tokens) * route->n_layers + layer % route->n_layers;
    const uint32_t *row = route->experts + at * route->width;
    for (uint32_t i = 0; i < route->width && row[i] != NO_EXPERT && filled < n; i++) {
        filled = add_distinct(experts, filled, row[i] % n_experts);
    }
    return filled;
}

void hypura_route_pick(const hypura_route *route, uint64_t token, uint32_t layer, uint32_t n_experts, uint32_t *experts,
                       uint32_t n)
{
    uint32_t filled = add_row(route, token, layer, n_experts, experts, 0, n);
    if (filled < n) {
        filled = add_row(route, token + route->n_tokens / 2, layer, n_experts, experts, filled, n);
    }
    for (uint32_t expert = 0; filled < n && expert < n_experts; expert++) {
        filled = add_distinct(experts, filled, expert);
    }
}

/* ---- forcing ------------------------------------------------------------- */

/* Where on the route a token of the batch at hand is. */
static uint64_t place_of(const hypura_route_forcing *forcing, uint64_t token)
{
    return forcing->position + token * (forcing->stride > 0 ? forcing->stride : 1);
}

static const char topk_name[] = "ffn_moe_topk-";

bool hypura_route_force(struct ggml_tensor *tensor, bool ask, void *user)
{
    hypura_route_forcing *forcing = user;
    if (strncmp(tensor->name, topk_name, sizeof(topk_name) - 1) != 0) {
        return !ask; /* not asked for, and nothing to stop for */
    }
    if (ask) {
        return true;
    }
    const uint32_t layer = (uint32_t)strtoul(tensor->name + sizeof(topk_name) - 1, NULL, 10);
    const uint32_t n_used = (uint32_t)tensor->ne[0];
    const uint64_t n_rows = (uint64_t)tensor->ne[1];
    uint32_t experts[MAX_EXPERTS];
    if (tensor->type != GGML_TYPE_I32 || n_used > MAX_EXPERTS || n_used > forcing->n_experts ||
        n_rows > forcing->n_tokens) {
        return true; /* n_forced tells that nothing was forced here */
    }
    /* The last layer may compute the last tokens alone: those whose output is wanted. */
    const uint64_t first = forcing->n_tokens - n_rows;
    for (uint64_t row = 0; row < n_rows; row++) {
        hypura_route_pick(forcing->route, place_of(forcing, first + row), layer, forcing->n_experts, experts, n_used);
        ggml_backend_tensor_set(tensor, experts, row * tensor->nb[1], n_used * sizeof(*experts));
    }
    forcing->n_forced += n_rows;
    return true;
}

void hypura_route_select(void *user, int layer, int32_t *experts, uint32_t n_used, uint32_t n_tokens)
{
    hypura_route_forcing *forcing = user;
    if (n_used > MAX_EXPERTS || n_used > forcing->n_experts || n_tokens > forcing->n_tokens) {
        return; /* n_forced tells that nothing was forced here */
    }
    const uint64_t first = forcing->n_tokens - n_tokens;
    for (uint32_t row = 0; row < n_tokens; row++) {
        hypura_route_pick(forcing->route, place_of(forcing, first + row), (uint32_t)layer, forcing->n_experts,
                          (uint32_t *)experts + (size_t)row * n_used, n_used);
    }
    forcing->n_forced += n_tokens;
}

/* ---- foretelling --------------------------------------------------------- */

/* Evenly spread, and the same for the same numbers. */
static uint64_t hash(uint64_t token, uint64_t layer, uint64_t n)
{
    uint64_t x = (token * MAX_LAYERS + layer) * 2 * MAX_EXPERTS + n + 1;
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

/* One that the layer selects elsewhere, so the more often the more it is used. */
static uint32_t any_of_layer(const hypura_route_forcing *forcing, uint32_t layer, uint64_t drawn)
{
    const hypura_route *route = forcing->route;
    const size_t at = (size_t)(drawn % route->n_tokens) * route->n_layers + layer % route->n_layers;
    const uint32_t expert = route->experts[at * route->width + (drawn >> 32) % route->width];
    return (uint32_t)((expert == NO_EXPERT ? drawn : expert) % forcing->n_experts);
}

void hypura_route_foretell(void *user, int layer, uint32_t token, uint32_t n_used, uint32_t *experts, uint32_t n)
{
    const hypura_route_forcing *forcing = user;
    const uint64_t position = place_of(forcing, token);
    const uint32_t n_experts = forcing->n_experts;
    uint32_t selected[MAX_EXPERTS];
    if (n_used > n || n > MAX_EXPERTS || n > n_experts) {
        return;
    }
    hypura_route_pick(forcing->route, position, (uint32_t)layer, n_experts, selected, n_used);
    const bool may_err = n_experts >= n_used + n; /* else there are too few others */
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t drawn = hash(position, (uint64_t)layer, i);
        const bool right = i < n_used && (!may_err || (double)(drawn >> 11) * 0x1p-53 < forcing->recall);
        experts[i] = right ? selected[i] : any_of_layer(forcing, (uint32_t)layer, drawn);
        while (!right && (hypura_candidates_contain(selected, n_used, experts[i]) ||
                          hypura_candidates_contain(experts, i, experts[i]))) {
            experts[i] = (experts[i] + 1) % n_experts;
        }
    }
}
