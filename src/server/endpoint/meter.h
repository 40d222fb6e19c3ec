/*
 * meter.h - counts what a server answers, and collects the figures of everything it runs (figures.h).
 *
 * Any thread. Answers are counted by route, never by what else a request says.
 */
#ifndef HYPURA_SERVER_ENDPOINT_METER_H
#define HYPURA_SERVER_ENDPOINT_METER_H

#include "server/endpoint/figures.h"
#include "server/http/http.h"

typedef struct server_meter server_meter;

/* NULL when memory is short. */
server_meter *meter_open(void);
/* NULL is allowed. */
void meter_close(server_meter *meter);

/* An answer has ended, see http_options. route: a string that outlives the meter. */
void meter_answered(hypura_server *server, const char *route, int code, double seconds);

/* What the figures point to; free with meter_clear. Asks the engines that are in use how many tokens they have
 * computed: one that does not answer within a second keeps the count it had. gone: asked meanwhile. */
typedef struct meter_reading {
    hypura_figures figures;
    hypura_figures_model *models;
    hypura_figures_route *routes;
    struct fleet_info *infos;
} meter_reading;

hypura_status meter_read(hypura_server *server, meter_reading *reading, hypura_error *error);
void meter_clear(meter_reading *reading);

#endif
