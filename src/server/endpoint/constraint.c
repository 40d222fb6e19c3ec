/*
 * constraint.c - see constraint.h. Where it is:
 *
 *     any route of llama.cpp's   {"grammar": TEXT}, {"json_schema": SCHEMA}
 *     /v1/chat/completions       {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
 *                                {"response_format": {"type": "json_object", "schema": SCHEMA}}
 *     /v1/responses              {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}}
 */
#include "server/endpoint/constraint.h"

#include "server/dialect/text.h"
#include "server/endpoint/server.h"
#include "server/fleet/fleet.h"
#include "server/process/engine.h"

static json_t *schema_of(const json_t *schema)
{
    return json_is_object(schema) ? json_pack("{s:O}", "json_schema", schema) : NULL;
}

json_t *constraint_of(const json_t *body)
{
    const json_t *grammar = json_object_get(body, "grammar");
    const json_t *format = json_object_get(body, "response_format");
    const json_t *schema = json_object_get(body, "json_schema");
    if (json_string_length(grammar) > 0) {
        return json_pack("{s:O}", "grammar", grammar);
    }
    if (text_is(format, "type", "json_schema")) {
        schema = json_object_get(json_object_get(format, "json_schema"), "schema");
    } else if (text_is(format, "type", "json_object")) {
        schema = json_object_get(format, "schema");
    }
    format = json_object_get(json_object_get(body, "text"), "format");
    if (text_is(format, "type", "json_schema")) {
        schema = json_object_get(format, "schema");
    }
    return schema_of(schema);
}

bool constraint_check(http_exchange *exchange, const hypura_model_entry *entry, const json_t *body)
{
    const struct hypura_server *server = http_server(exchange);
    json_t *told = constraint_of(body);
    hypura_error error = {0};
    hypura_status status = HYPURA_OK;
    if (told && !fleet_has(server->fleet, entry)) {
        status = engine_check_grammar(server->options.engine, told, &error);
    }
    json_decref(told);
    if (status == HYPURA_ERR_USAGE) {
        http_fail_error(exchange, &error);
        return false;
    }
    return true; /* what cannot be looked at is the engine's to tell */
}
