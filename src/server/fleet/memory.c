/*
 * memory.c - the memory that loaded models share, see fleet.h. With the fleet's lock held, unless it says
 * otherwise.
 *
 *     to load:  free memory --> idle members shrink --> idle members end --> what is left, if it is enough --> wait
 *     at rest:  free memory --> members that hold less than they want
 *
 * That of GPUs is granted first, in gpu.c: what the host has to hold depends on it.
 */
#include "server/fleet/internal.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/status.h"
#include "base/thread.h"
#include "server/base/log.h"

#include <stdio.h>

#define MIN_RESIZE_BYTES (UINT64_C(16) << 20)

uint64_t fleet_free_bytes(const server_fleet *fleet)
{
    uint64_t used = 0;
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        used += member->ended ? 0 : member->memory_bytes;
    }
    return used < fleet->memory_bytes ? fleet->memory_bytes - used : 0;
}

/* Makes what a member pages hold more or less, so that it takes target_bytes in all, as far as that goes. Gives up the
 * lock meanwhile; the member counts as used. */
static void resize_member(server_fleet *fleet, fleet_member *member, uint64_t target_bytes)
{
    hypura_live_record before;
    hypura_live_record after;
    const uint64_t taken = member->memory_bytes;
    if (!engine_live(member->engine, &before) || before.held.now_bytes == 0) {
        return;
    }
    const uint64_t other = taken - (before.held.now_bytes < taken ? before.held.now_bytes : taken);
    const uint64_t held = target_bytes > other ? target_bytes - other : 0;
    if (target_bytes > taken) {
        member->memory_bytes = target_bytes; /* nobody else may take it meanwhile */
    }
    member->n_users++;
    pthread_mutex_unlock(&fleet->lock);
    const bool done = engine_resize(member->engine, held) && engine_live(member->engine, &after);
    pthread_mutex_lock(&fleet->lock);
    member->n_users--;
    if (done) {
        member->memory_bytes = other + after.held.now_bytes;
        char memory[HYPURA_SIZE_TEXT];
        server_log(LOG_INFO, "%s: now takes %s of memory", member->entry->name,
                   hypura_size_format(member->memory_bytes, memory, sizeof memory));
    }
    pthread_cond_broadcast(&fleet->changed);
}

/* What a GPU has slots of is as large as when it was loaded, and with it what stands behind. */
static bool resizes(const fleet_member *member, hypura_live_record *record)
{
    return member->state == MEMBER_READY && !member->ended && engine_live(member->engine, record) &&
           record->plan.n_vram_pools == 0;
}

static bool can_shrink(const fleet_member *member, const void *user)
{
    (void)user;
    hypura_live_record record;
    return resizes(member, &record) && record.held.now_bytes > record.held.least_bytes + MIN_RESIZE_BYTES;
}

/* An idle member gives up what it pages, down to its floor: it stays loaded, and gets it back when there is memory
 * again. False when none can. */
static bool shrink_one(server_fleet *fleet)
{
    fleet_member *found = fleet_longest_idle(fleet, can_shrink, NULL);
    if (!found) {
        return false;
    }
    const uint64_t before = found->memory_bytes;
    resize_member(fleet, found, 0);
    return found->memory_bytes < before;
}

/* Whether somebody else's memory may become free by waiting. */
static bool others_hold_memory(const server_fleet *fleet, const fleet_member *self)
{
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        if (member != self && !member->ended) {
            return true;
        }
    }
    return false;
}

hypura_status fleet_fail_too_large(const server_fleet *fleet, const fleet_member *member, const char *reason,
                                   hypura_error *error)
{
    char all[HYPURA_SIZE_TEXT];
    return hypura_fail(error, HYPURA_ERR_BUDGET,
                       "%s: model requires more system memory than is available (%s, %llu bytes): %s. Give the server "
                       "more with --memory, or ask for less context with num_ctx",
                       member->entry->name, hypura_size_format(fleet->memory_bytes, all, sizeof all),
                       (unsigned long long)fleet->memory_bytes, reason);
}

hypura_status fleet_fail_below_floor(const server_fleet *fleet, const fleet_member *member, const engine_estimate *estimate,
                                     hypura_error *error)
{
    char floor[HYPURA_SIZE_TEXT];
    char reason[128];
    (void)snprintf(reason, sizeof reason, "it needs %s (%llu bytes) at least",
                   hypura_size_format(estimate->floor_bytes, floor, sizeof floor), (unsigned long long)estimate->floor_bytes);
    return fleet_fail_too_large(fleet, member, reason, error);
}

static hypura_status take_room(server_fleet *fleet, fleet_member *self, const engine_estimate *estimate,
                               bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    for (;;) {
        const uint64_t free = fleet_free_bytes(fleet);
        if (free >= estimate->memory_bytes) {
            self->memory_bytes = estimate->memory_bytes;
            return HYPURA_OK;
        }
        if (!self->modest && shrink_one(fleet)) {
            continue;
        }
        fleet_member *idle = self->modest ? NULL : fleet_longest_idle(fleet, NULL, NULL);
        if (idle) {
            fleet_end_member(fleet, idle);
            continue;
        }
        if (free >= estimate->floor_bytes) {
            self->memory_bytes = free;
            return HYPURA_OK;
        }
        if (self->modest || !others_hold_memory(fleet, self)) {
            return fleet_fail_below_floor(fleet, self, estimate, error);
        }
        self->waits_us = self->waits_us > 0 ? self->waits_us : hypura_clock_us();
        const hypura_status status = fleet_wait(fleet, self, cancelled, user, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
}

hypura_status fleet_make_room(server_fleet *fleet, fleet_member *self, const engine_estimate *estimate,
                              bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    const hypura_status status = take_room(fleet, self, estimate, cancelled, user, error);
    self->waits_us = 0;
    self->granted_bytes = self->memory_bytes;
    return status;
}

bool fleet_somebody_waits(const server_fleet *fleet)
{
    const uint64_t now_us = hypura_clock_us();
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        if (member->waits_us > 0 && now_us - member->waits_us >= FLEET_PATIENCE_US) {
            return true;
        }
    }
    return false;
}

uint64_t fleet_taken_bytes(const server_engine *engine, uint64_t granted)
{
    hypura_live_record record;
    if (!engine_live(engine, &record)) {
        return granted;
    }
    const hypura_plan *plan = &record.plan;
    const uint64_t taken = plan->weights_bytes + plan->kv_bytes + plan->compute_bytes + plan->overhead_bytes +
                           (plan->unified ? plan->vram_bytes : 0);
    return taken < granted ? taken : granted;
}

bool fleet_grow_one(server_fleet *fleet)
{
    const uint64_t free = fleet_free_bytes(fleet);
    for (fleet_member *member = fleet->members; member && fleet->n_waiting == 0; member = member->next) {
        hypura_live_record record;
        if (free < MIN_RESIZE_BYTES || member->memory_bytes + MIN_RESIZE_BYTES > member->wanted_bytes ||
            !resizes(member, &record) || record.held.now_bytes + MIN_RESIZE_BYTES > record.held.most_bytes) {
            continue;
        }
        const uint64_t target = member->memory_bytes + free;
        const uint64_t before = member->memory_bytes;
        resize_member(fleet, member, target < member->wanted_bytes ? target : member->wanted_bytes);
        return member->memory_bytes > before;
    }
    return false;
}
