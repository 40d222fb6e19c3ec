/*
 * gpu.c - the memory of GPUs that loaded models share, see fleet.h. With the fleet's lock held.
 *
 *     to load:  all it wants is free --> the long unused end --> half of what it wants is free --> those used of late end,
 *               and it leaves them half --> wait
 *     at rest:  free memory --> an idle member that was left with less is loaded anew
 *
 * An engine cannot change what it holds of a GPU while it runs: it ends, or stays. So that models which take turns do not end
 * each other with every request, one that was used a moment ago is left alone where another can do without its memory, and else
 * finds room for half of the GPU when it comes back.
 *
 * What always holds: what members were granted of a GPU is at most what was free there for all of them when the last one was
 * planned, and of all GPUs at most the server's limit. A member alone gets what it wants: its estimate knew the limits.
 */
#include "server/fleet/internal.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#define RECENT_US (UINT64_C(60) * 1000 * 1000) /* who was used since will probably be used again */
#define REST_US   (UINT64_C(3) * 1000 * 1000)  /* a member that rests so long may be loaded anew */
#define GAIN_PART 8 /* of what it wants: less is not worth to be loaded anew for */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Of one GPU; NULL: of all. */
static uint64_t bytes_of(const fleet_member *member, const char *name)
{
    uint64_t bytes = 0;
    for (int g = 0; g < member->n_gpus && !member->ended; g++) {
        bytes += !name || strcmp(member->gpus[g].name, name) == 0 ? member->gpus[g].bytes : 0;
    }
    return bytes;
}

static uint64_t others_bytes(const server_fleet *fleet, const fleet_member *self, const char *name)
{
    uint64_t bytes = 0;
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        bytes += member != self ? bytes_of(member, name) : 0;
    }
    return bytes;
}

uint64_t fleet_gpus_bytes(const fleet_member *member)
{
    return bytes_of(member, NULL);
}

/* What others leave of a limit. */
static uint64_t left_of(uint64_t limit_bytes, uint64_t taken_bytes)
{
    return limit_bytes > taken_bytes ? limit_bytes - taken_bytes : 0;
}

static uint64_t left_on(const server_fleet *fleet, const fleet_member *self, const fleet_gpu *gpu)
{
    const uint64_t others = others_bytes(fleet, self, gpu->name);
    return others > 0 ? left_of(gpu->free_bytes, others) : UINT64_MAX;
}

static uint64_t left_of_all(const server_fleet *fleet, const fleet_member *self)
{
    const uint64_t limit = fleet->options.vram_bytes;
    return limit > 0 ? left_of(limit, others_bytes(fleet, self, NULL)) : UINT64_MAX;
}

/* ---- estimates ------------------------------------------------------------------- */

static bool somebody_loads(const server_fleet *fleet, const fleet_member *self)
{
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        if (member != self && member->state == MEMBER_LOADING && member->n_gpus > 0) {
            return true;
        }
    }
    return false;
}

static void lend(const fleet_gpu *gpu, hypura_gpu_shares *shares)
{
    int i = 0;
    while (i < shares->n && strcmp(shares->list[i].name, gpu->name) != 0) {
        i++;
    }
    if (i == HYPURA_MAX_GPUS) {
        return;
    }
    if (i == shares->n) {
        memcpy(shares->list[shares->n++].name, gpu->name, sizeof(gpu->name));
    }
    shares->list[i].lent_bytes += gpu->bytes;
}

hypura_status fleet_gpus_lend(server_fleet *fleet, fleet_member *self, bool (*cancelled)(void *user), void *user,
                              hypura_gpu_shares *shares, hypura_error *error)
{
    while (somebody_loads(fleet, self)) {
        const hypura_status status = fleet_wait(fleet, self, cancelled, user, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
    *shares = (hypura_gpu_shares){.n = 0};
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        for (int g = 0; g < member->n_gpus && member != self && !member->ended; g++) {
            lend(&member->gpus[g], shares);
        }
    }
    return HYPURA_OK;
}

/* ---- room ------------------------------------------------------------------------ */

typedef enum room {
    ROOM_ALL = 0, /* that it wants */
    ROOM_ENOUGH,  /* half of that, and its floor */
} room;

typedef struct wish {
    const engine_estimate *estimate;
    bool leaves_half; /* of each GPU, and of the limit on all, for whom it made go */
} wish;

static uint64_t largest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t wanted_on(const wish *w, int g)
{
    const engine_gpu *gpu = &w->estimate->gpus[g];
    return w->leaves_half ? least(gpu->bytes, largest(gpu->free_bytes / 2, gpu->floor_bytes)) : gpu->bytes;
}

/* Of all GPUs together. */
static uint64_t most_wanted(const server_fleet *fleet, const wish *w)
{
    uint64_t floor = 0;
    for (int g = 0; g < w->estimate->n_gpus; g++) {
        floor += w->estimate->gpus[g].floor_bytes;
    }
    const uint64_t limit = fleet->options.vram_bytes;
    return w->leaves_half && limit > 0 ? largest(limit / 2, floor) : UINT64_MAX;
}

static bool has_room(const server_fleet *fleet, const fleet_member *self, const wish *w, room how)
{
    uint64_t all = 0;
    for (int g = 0; g < self->n_gpus; g++) {
        const uint64_t needed =
            how == ROOM_ALL ? wanted_on(w, g) : largest(wanted_on(w, g) / 2, w->estimate->gpus[g].floor_bytes);
        if (left_on(fleet, self, &self->gpus[g]) < needed) {
            return false;
        }
        all += needed;
    }
    return left_of_all(fleet, self) >= least(all, most_wanted(fleet, w));
}

static void grant(server_fleet *fleet, fleet_member *self, const wish *w)
{
    uint64_t left = least(left_of_all(fleet, self), most_wanted(fleet, w));
    for (int g = 0; g < self->n_gpus; g++) {
        fleet_gpu *gpu = &self->gpus[g];
        gpu->granted_bytes = least(least(wanted_on(w, g), left_on(fleet, self, gpu)), left);
        left -= left == UINT64_MAX ? 0 : gpu->granted_bytes;
    }
    for (int g = 0; g < self->n_gpus; g++) {
        self->gpus[g].bytes = self->gpus[g].granted_bytes;
    }
    fleet->n_gpu_changes += self->n_gpus > 0;
}

/* It holds some of what another one lacks. */
static bool is_in_the_way(const fleet_member *member, const void *user)
{
    const fleet_member *self = user;
    bool found = self->fleet->options.vram_bytes > 0 && bytes_of(member, NULL) > 0;
    for (int g = 0; g < self->n_gpus; g++) {
        found = found || bytes_of(member, self->gpus[g].name) > 0;
    }
    return found;
}

static bool others_hold(const server_fleet *fleet, const fleet_member *self)
{
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        if (member != self && !member->ended && is_in_the_way(member, self)) {
            return true;
        }
    }
    return false;
}

/* And will soon hold nothing. */
static bool others_end(const server_fleet *fleet, const fleet_member *self)
{
    for (const fleet_member *member = fleet->members; member; member = member->next) {
        if (member != self && member->state == MEMBER_ENDING && is_in_the_way(member, self)) {
            return true;
        }
    }
    return false;
}

static hypura_status take_room(server_fleet *fleet, fleet_member *self, wish *w, bool (*cancelled)(void *user), void *user,
                               hypura_error *error)
{
    for (;;) {
        if (has_room(fleet, self, w, ROOM_ALL) || self->modest || !others_hold(fleet, self)) {
            return HYPURA_OK;
        }
        fleet_member *idle = fleet_longest_idle(fleet, is_in_the_way, self);
        const bool recent = idle && hypura_clock_us() - idle->used_us < RECENT_US;
        if (idle && !recent) {
            fleet_end_member(fleet, idle);
            continue;
        }
        const bool ending = others_end(fleet, self);
        if (!ending && has_room(fleet, self, w, ROOM_ENOUGH)) {
            return HYPURA_OK;
        }
        if (idle && !ending) {
            w->leaves_half = true;
            fleet->shared_us = hypura_clock_us();
            fleet_end_member(fleet, idle);
            continue;
        }
        self->waits_us = self->waits_us > 0 ? self->waits_us : hypura_clock_us();
        const hypura_status status = fleet_wait(fleet, self, cancelled, user, error);
        if (status != HYPURA_OK) {
            return status;
        }
    }
}

hypura_status fleet_gpus_make_room(server_fleet *fleet, fleet_member *self, const engine_estimate *estimate,
                                   bool (*cancelled)(void *user), void *user, hypura_error *error)
{
    wish w = {.estimate = estimate};
    self->n_gpus = 0;
    for (int g = 0; g < estimate->n_gpus; g++) {
        fleet_gpu *gpu = &self->gpus[self->n_gpus++];
        *gpu = (fleet_gpu){.wanted_bytes = estimate->gpus[g].bytes, .free_bytes = estimate->gpus[g].free_bytes};
        memcpy(gpu->name, estimate->gpus[g].name, sizeof(gpu->name));
    }
    const hypura_status status = take_room(fleet, self, &w, cancelled, user, error);
    self->waits_us = 0;
    if (status != HYPURA_OK) {
        self->n_gpus = 0;
        return status;
    }
    grant(fleet, self, &w);
    return HYPURA_OK;
}

/* ---- what was granted -------------------------------------------------------------- */

bool fleet_gpus_squeezed(const fleet_member *member)
{
    bool squeezed = false;
    for (int g = 0; g < member->n_gpus; g++) {
        squeezed = squeezed || member->gpus[g].granted_bytes < member->gpus[g].wanted_bytes;
    }
    return squeezed;
}

void fleet_gpus_tell(const server_fleet *fleet, const fleet_member *self, char *names, size_t capacity, engine_options *options)
{
    const uint64_t left = left_of_all(fleet, self);
    size_t used = 0;
    options->shares = (hypura_gpu_shares){.n = 0};
    memset(options->gpu_vram_bytes, 0, sizeof(options->gpu_vram_bytes));
    options->vram_bytes = left < UINT64_MAX ? left : 0;
    for (int g = 0; g < self->n_gpus; g++) {
        const fleet_gpu *gpu = &self->gpus[g];
        const bool alone = others_bytes(fleet, self, gpu->name) == 0 && gpu->granted_bytes == gpu->wanted_bytes;
        if (gpu->granted_bytes == 0) {
            continue; /* 0 would be no limit */
        }
        hypura_gpu_share *share = &options->shares.list[options->shares.n++];
        *share = (hypura_gpu_share){.bytes = gpu->free_bytes, .most_bytes = alone ? 0 : gpu->granted_bytes};
        memcpy(share->name, gpu->name, sizeof(share->name));
        const int n = snprintf(names + used, capacity - used, "%s%s", used > 0 ? "," : "", gpu->name);
        used += (size_t)n < capacity - used ? (size_t)n : 0;
    }
    options->gpu = options->shares.n > 0 ? names : "none";
}

void fleet_gpus_taken(server_fleet *fleet, fleet_member *member)
{
    hypura_live_record record;
    if (member->n_gpus == 0 || !engine_live(member->engine, &record)) {
        return;
    }
    for (int g = 0; g < member->n_gpus; g++) {
        member->gpus[g].bytes = 0;
        for (int i = 0; i < record.plan.n_gpus; i++) {
            if (strcmp(record.plan.gpus[i].name, member->gpus[g].name) == 0) {
                member->gpus[g].bytes = record.plan.gpus[i].vram_bytes;
            }
        }
    }
    fleet->n_gpu_changes++;
}

/* ---- growing back ------------------------------------------------------------------ */

static bool gains_on_gpus(const server_fleet *fleet, const fleet_member *member)
{
    uint64_t wanted = 0;
    uint64_t granted = 0;
    uint64_t could = 0;
    for (int g = 0; g < member->n_gpus; g++) {
        const fleet_gpu *gpu = &member->gpus[g];
        wanted += gpu->wanted_bytes;
        granted += gpu->granted_bytes;
        could += least(gpu->wanted_bytes, left_on(fleet, member, gpu));
    }
    could = least(could, left_of_all(fleet, member));
    return could > granted && could - granted >= wanted / GAIN_PART;
}

/* What stands behind slots of a GPU grows no other way. */
static bool gains_memory(const server_fleet *fleet, const fleet_member *member)
{
    hypura_live_record record;
    const uint64_t could = least(member->wanted_bytes, member->granted_bytes + fleet_free_bytes(fleet));
    return member->granted_bytes < member->wanted_bytes && could > member->granted_bytes &&
           could - member->granted_bytes >= member->wanted_bytes / GAIN_PART && engine_live(member->engine, &record) &&
           record.plan.n_vram_pools > 0;
}

static bool is_cramped(const fleet_member *member, const void *user)
{
    const server_fleet *fleet = user;
    const uint64_t now_us = hypura_clock_us();
    return !member->ended && !member->retiring && now_us - member->used_us >= REST_US && member->expires_us > now_us &&
           (gains_on_gpus(fleet, member) || gains_memory(fleet, member));
}

fleet_member *fleet_find_cramped(server_fleet *fleet)
{
    const bool shared = fleet->shared_us > 0 && hypura_clock_us() - fleet->shared_us < RECENT_US;
    return fleet->n_waiting > 0 || shared ? NULL : fleet_longest_idle(fleet, is_cramped, fleet);
}
