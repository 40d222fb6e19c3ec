/*
 * status.c - the server's figures: for the page, and for Prometheus.
 */
#include "server/endpoint/meter.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"

#include <stdlib.h>
#include <string.h>

void endpoint_status(http_exchange *exchange)
{
    meter_reading reading;
    hypura_error error = {0};
    if (meter_read(http_server(exchange), &reading, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return;
    }
    http_reply_json(exchange, 200, hypura_figures_json(&reading.figures));
    meter_clear(&reading);
}

void endpoint_metrics(http_exchange *exchange)
{
    meter_reading reading;
    hypura_error error = {0};
    if (meter_read(http_server(exchange), &reading, &error) != HYPURA_OK) {
        http_fail_error(exchange, &error);
        return;
    }
    char *text = hypura_figures_metrics(&reading.figures);
    meter_clear(&reading);
    if (text) {
        http_reply(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", text, strlen(text));
    } else {
        http_fail(exchange, 500, "no memory for figures");
    }
    free(text);
}
