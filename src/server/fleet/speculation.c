/*
 * speculation.c - with what tokens of a model are guessed (hypura_speculation), see internal.h.
 *
 * A model's own draft ("draft" of its settings, a name) comes before the server's, and has to fit; the server's is of
 * those models alone that it fits.
 */
#include "server/fleet/internal.h"

#include "base/status.h"
#include "os/os.h"
#include "server/base/log.h"

#include <stdio.h>

static const char *own_draft(const fleet_member *member)
{
    return json_string_value(json_object_get(member->entry->settings, "draft"));
}

/* llama.cpp's server ends where an image meets a speculation without a draft. */
static const char *why_none(const fleet_member *member)
{
    return member->settings.embeddings || member->settings.reranking ? "it is loaded for embeddings"
           : member->entry->projector_path                           ? "it has a projector, for images"
                                                                     : NULL;
}

static hypura_status find_own(server_fleet *fleet, const fleet_member *member, const char *name,
                              const hypura_model_entry **draft, hypura_error *error)
{
    hypura_status status = hypura_models_find(fleet->models, name, HYPURA_FIND_TYPED, draft, error);
    if (status == HYPURA_OK && !*draft) {
        status = hypura_fail(error, HYPURA_ERR_UNSUPPORTED,
                             "%s: its draft '%s' is not there: pull it, or create the model without",
                             member->entry->name, name);
    }
    return status;
}

hypura_status fleet_choose_speculation(server_fleet *fleet, const fleet_member *member, hypura_speculation *chosen,
                                       const hypura_model_entry **draft, hypura_error *error)
{
    const hypura_speculation *asked = &fleet->options.speculation;
    const char *own = own_draft(member);
    const char *why = why_none(member);
    hypura_status status = HYPURA_OK;
    *draft = NULL;
    *chosen = (hypura_speculation){0};
    if (why) {
        if (asked->draft || asked->types || (own && own[0])) {
            server_log(LOG_INFO, "%s: runs without speculation: %s", member->entry->name, why);
        }
        return HYPURA_OK;
    }
    *chosen = *asked;
    if (own) {
        chosen->draft = NULL;
        if (own[0] != '\0') {
            status = find_own(fleet, member, own, draft, error);
            chosen->draft = status == HYPURA_OK ? (*draft)->path : NULL;
        }
    } else if (asked->draft && hypura_os_same_file(asked->draft, member->entry->path)) {
        chosen->draft = NULL;
    }
    return status;
}

hypura_status fleet_check_draft(const fleet_member *member, const engine_estimate *estimate, hypura_speculation *chosen,
                                hypura_error *error)
{
    if (estimate->draft_unfit[0] == '\0') {
        return HYPURA_OK;
    }
    if (own_draft(member)) {
        return hypura_fail(error, HYPURA_ERR_UNSUPPORTED, "%s: %s", member->entry->name, estimate->draft_unfit);
    }
    server_log(LOG_WARN, "%s: runs without a draft: %s", member->entry->name, estimate->draft_unfit);
    chosen->draft = NULL;
    return HYPURA_OK;
}

void fleet_describe_speculation(const hypura_speculation *chosen, char *text, size_t capacity)
{
    snprintf(text, capacity, "%s%s%s", chosen->types ? chosen->types : "", chosen->types && chosen->draft ? "," : "",
             chosen->draft ? "draft-simple" : "");
}
