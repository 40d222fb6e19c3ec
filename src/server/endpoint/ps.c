/*
 * ps.c - Ollama's list of the models that are loaded.
 */
#include "base/date.h"
#include "server/endpoint/library.h"
#include "server/endpoint/routes.h"
#include "server/endpoint/server.h"

#include <math.h>
#include <time.h>

#define FOR_EVER_S 3.15576e9 /* a century, as Ollama says it */

static json_t *describe(const fleet_info *info)
{
    char expires[HYPURA_DATE_BYTES];
    const double stay_s = isnan(info->expires_s) || info->expires_s < 0 ? FOR_EVER_S : info->expires_s;
    const struct timespec end = {.tv_sec = time(NULL) + (time_t)stay_s};
    json_t *line = library_line(info->entry);
    json_object_set_new(line, "size", json_integer((json_int_t)info->memory_bytes));
    json_object_set_new(line, "size_vram", json_integer(info->has_live ? (json_int_t)info->live.plan.vram_bytes : 0));
    json_object_set_new(line, "expires_at", json_string(hypura_date_format(end, 0, expires)));
    if (info->has_live) {
        json_object_set_new(line, "context_length", json_integer(info->live.n_context));
    }
    json_object_del(line, "modified_at");
    return line;
}

void endpoint_ollama_ps(http_exchange *exchange)
{
    fleet_info *infos;
    const size_t n = fleet_list(http_server(exchange)->fleet, &infos);
    json_t *models = json_array();
    for (size_t i = 0; i < n; i++) {
        if (infos[i].ready) {
            json_array_append_new(models, describe(&infos[i]));
        }
    }
    fleet_list_clear(infos, n);
    http_reply_json(exchange, 200, json_pack("{s:o}", "models", models));
}
