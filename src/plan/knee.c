/*
 * knee.c - see knee.h.
 *
 * Room is what could be held if every free byte were taken: what is held and what is
 * available. It does not change when we grow or shrink, so a change is somebody
 * else's doing. A reserve of it is left alone. Nobody knows how fast others take
 * memory until they do: after they did the reserve is large, and shrinks while it is
 * calm.
 *
 *     held + half the reserve + twice the last fall > room -> down to room - reserve - that
 *     stalls, and little room left ------------------------> down by an eighth, again only if it helped
 *     slower since the last growth, and stalls or faults --> back to where it was
 *     misses, calm room, no cap ---------------------------> up by an eighth
 *
 * Shrinking is decided at any sample, the rest once in a window. A size that was too
 * large is not tried again for a while.
 */
#include "plan/knee.h"

#define SECOND_US UINT64_C(1000000)
#define WINDOW_US SECOND_US
#define PERIOD_US (2 * SECOND_US) /* of the least room: growth waits this long, at most twice */
#define CALM_US   (2 * SECOND_US)
#define QUIET_US  (10 * SECOND_US)
#define CAP_US    (30 * SECOND_US)

#define MIB UINT64_C(1048576)

#define TAKEN_BYTES_PER_S 2e9 /* by one process that touches pages as fast as it can */
#define LATE_S            5.0

#define STALLED       0.10 /* share of the time: others suffer */
#define STALLS_SHOW   0.02
#define FAULTS_SHOW   50.0 /* a second */
#define CURED         0.75
#define SLOWER        0.95
#define STEP_PART     8

const char *hypura_budget_reason_name(hypura_budget_reason reason)
{
    switch (reason) {
    case HYPURA_BUDGET_FIXED:
        return "fixed";
    case HYPURA_BUDGET_START:
        return "start";
    case HYPURA_BUDGET_ROOM:
        return "room";
    case HYPURA_BUDGET_SQUEEZE:
        return "squeeze";
    case HYPURA_BUDGET_PRESSURE:
        return "pressure";
    case HYPURA_BUDGET_SLOWER:
        return "slower";
    case HYPURA_BUDGET_ASKED:
        return "asked";
    }
    return "unknown";
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t clamp(const hypura_knee *knee, uint64_t bytes)
{
    bytes = bytes > knee->least_bytes ? bytes : knee->least_bytes;
    return least(bytes, knee->most_bytes);
}

static uint64_t reserve_of(uint64_t total_bytes, uint64_t part, uint64_t fewest)
{
    const uint64_t bytes = total_bytes / part > fewest ? total_bytes / part : fewest;
    return least(bytes, total_bytes / 4);
}

uint64_t hypura_knee_first_reserve(uint64_t total_bytes)
{
    return reserve_of(total_bytes, 16, 256 * MIB);
}

uint64_t hypura_knee_calm_reserve(uint64_t total_bytes)
{
    return reserve_of(total_bytes, 50, 128 * MIB);
}

void hypura_knee_begin(hypura_knee *knee, uint64_t least_bytes, uint64_t most_bytes, uint64_t total_bytes,
                       uint64_t unit_bytes)
{
    *knee = (hypura_knee){.least_bytes = least_bytes,
                          .most_bytes = most_bytes,
                          .total_bytes = total_bytes,
                          .unit_bytes = unit_bytes,
                          .room_bytes = UINT64_MAX,
                          .cap_bytes = UINT64_MAX};
}

/* ---- room ----------------------------------------------------------------- */

/* What can be gone before anybody looks. */
static uint64_t at_least_late(const hypura_knee *knee, uint64_t reserve_bytes)
{
    const uint64_t gone = (uint64_t)(knee->late_us * 1e-6 * TAKEN_BYTES_PER_S);
    return least(gone > reserve_bytes ? gone : reserve_bytes, knee->total_bytes / 4);
}

static uint64_t first_reserve_now(const hypura_knee *knee)
{
    return at_least_late(knee, hypura_knee_first_reserve(knee->total_bytes));
}

static uint64_t reserve_now(const hypura_knee *knee, uint64_t now_us)
{
    const uint64_t first = first_reserve_now(knee);
    const uint64_t calm = at_least_late(knee, hypura_knee_calm_reserve(knee->total_bytes));
    const uint64_t since_us = now_us - knee->calm_since_us;
    if (since_us <= CALM_US) {
        return first;
    }
    if (since_us >= QUIET_US) {
        return calm;
    }
    const double part = (double)(since_us - CALM_US) / (double)(QUIET_US - CALM_US);
    return first - (uint64_t)(part * (double)(first - calm));
}

/* Takes the sample's room in; returns by how much it fell since the last one. */
static uint64_t follow_room(hypura_knee *knee, const hypura_knee_sample *sample)
{
    const uint64_t room = less(sample->available_bytes + sample->held_bytes, sample->promised_bytes);
    const bool     first = knee->room_bytes == UINT64_MAX;
    const uint64_t fall = first ? 0 : less(knee->room_bytes, room);
    knee->room_bytes = room;
    if (!first) {
        const double us = (double)(sample->now_us - knee->last_us);
        const double kept = knee->late_us * (1.0 - us * 1e-6 / LATE_S); /* forgotten in some seconds */
        knee->late_us = us > kept ? us : kept;
    }
    knee->last_us = sample->now_us;
    if (first) {
        knee->low_bytes[0] = knee->low_bytes[1] = room;
        knee->period_begin_us = sample->now_us;
        knee->calm_since_us = sample->now_us;
    } else if (sample->now_us - knee->period_begin_us >= PERIOD_US) {
        knee->low_bytes[1] = knee->low_bytes[0];
        knee->low_bytes[0] = room;
        knee->period_begin_us = sample->now_us;
    }
    knee->low_bytes[0] = least(knee->low_bytes[0], room);
    if (fall > hypura_knee_calm_reserve(knee->total_bytes) / 8) {
        knee->calm_since_us = sample->now_us;
    }
    return fall;
}

/* ---- windows -------------------------------------------------------------- */

typedef struct figures {
    double stalled;     /* share of the time */
    double faults_per_s;
    double bytes_per_s; /* computed with: speed, whatever the size */
    bool   missed;
} figures;

static void open_window(hypura_knee *knee, const hypura_knee_sample *sample)
{
    knee->window = (hypura_knee_window){.begin_us = sample->now_us,
                                        .stall_us = sample->stall_us,
                                        .n_faults = sample->n_faults,
                                        .needed_bytes = sample->needed_bytes,
                                        .missed_bytes = sample->missed_bytes};
}

static figures read_window(const hypura_knee *knee, const hypura_knee_sample *sample)
{
    const hypura_knee_window *w = &knee->window;
    const double us = (double)(sample->now_us - w->begin_us);
    const double s = us * 1e-6;
    return (figures){.stalled = (double)less(sample->stall_us, w->stall_us) / us,
                     .faults_per_s = (double)less(sample->n_faults, w->n_faults) / s,
                     .bytes_per_s = (double)less(sample->needed_bytes, w->needed_bytes) / s,
                     .missed = sample->missed_bytes > w->missed_bytes};
}

static void cap(hypura_knee *knee, uint64_t bytes, uint64_t now_us)
{
    knee->cap_bytes = bytes;
    knee->cap_until_us = now_us + CAP_US;
    knee->before_bytes_per_s = 0;
}

static uint64_t step_of(const hypura_knee *knee, uint64_t held_bytes)
{
    const uint64_t bytes = larger(held_bytes / STEP_PART, 64 * MIB);
    return larger(least(bytes, knee->most_bytes / STEP_PART + 1), knee->unit_bytes);
}

/* ---- deciding -------------------------------------------------------------- */

/* Tasks stand still: is it for want of what is held here? Not when there was less of it
 * and they stood still as long; then they are left to themselves for a while. */
static bool press(hypura_knee *knee, double stalled, uint64_t now_us)
{
    if (now_us < knee->deaf_until_us) {
        return false;
    }
    if (now_us - knee->pressed_us < 3 * WINDOW_US && stalled > CURED * knee->pressed_stalled) {
        knee->deaf_until_us = now_us + CAP_US;
        knee->cap_until_us = now_us;
        return false;
    }
    knee->pressed_stalled = stalled;
    knee->pressed_us = now_us;
    return true;
}

/* At the end of a window. */
static uint64_t weigh(hypura_knee *knee, const hypura_knee_sample *sample, figures seen, hypura_budget_reason *reason)
{
    const uint64_t held = sample->held_bytes;
    const uint64_t first_reserve = first_reserve_now(knee);
    if (seen.stalled > STALLED && less(knee->room_bytes, held) < 2 * first_reserve && held > knee->least_bytes &&
        press(knee, seen.stalled, sample->now_us)) {
        *reason = HYPURA_BUDGET_PRESSURE;
        cap(knee, clamp(knee, held - held / STEP_PART), sample->now_us);
        return knee->cap_bytes;
    }
    const bool shows = seen.stalled > STALLS_SHOW || seen.faults_per_s > FAULTS_SHOW;
    const bool slower = seen.bytes_per_s > 0 && seen.bytes_per_s < SLOWER * knee->before_bytes_per_s;
    if (shows && slower && knee->before_bytes < held) {
        *reason = HYPURA_BUDGET_SLOWER;
        cap(knee, clamp(knee, knee->before_bytes), sample->now_us);
        return knee->cap_bytes;
    }
    if (sample->now_us >= knee->cap_until_us) {
        knee->cap_bytes = UINT64_MAX;
    }
    const uint64_t room = less(least(knee->low_bytes[0], knee->low_bytes[1]), reserve_now(knee, sample->now_us));
    const uint64_t goal = least(least(clamp(knee, held + step_of(knee, held)), room), knee->cap_bytes);
    const uint64_t worth = larger(least(step_of(knee, held) / 4, 16 * MIB), knee->unit_bytes);
    if (!seen.missed || sample->now_us - knee->calm_since_us < CALM_US || goal < held + worth) {
        return held;
    }
    *reason = HYPURA_BUDGET_ROOM;
    knee->before_bytes = held;
    knee->before_bytes_per_s = seen.bytes_per_s;
    return goal;
}

/* Of a fall that was just seen: what may be gone at the next sample. */
static uint64_t gone_next(const hypura_knee *knee, uint64_t fall)
{
    return least(2 * fall, first_reserve_now(knee));
}

static bool is_short(const hypura_knee *knee, const hypura_knee_sample *sample, uint64_t ahead)
{
    return sample->held_bytes + reserve_now(knee, sample->now_us) / 2 + ahead > knee->room_bytes;
}

/* Growing is for calm times. */
static void wait_for_calm(hypura_knee *knee, uint64_t now_us)
{
    knee->calm_since_us = now_us;
    knee->before_bytes_per_s = 0;
}

bool hypura_knee_goes_on(hypura_knee *knee, const hypura_knee_sample *sample)
{
    const uint64_t ahead = gone_next(knee, follow_room(knee, sample));
    if (!is_short(knee, sample, ahead)) {
        return true;
    }
    wait_for_calm(knee, sample->now_us);
    return false;
}

uint64_t hypura_knee_decide(hypura_knee *knee, const hypura_knee_sample *sample, hypura_budget_reason *reason)
{
    const uint64_t ahead = gone_next(knee, follow_room(knee, sample));
    const uint64_t held = sample->held_bytes;
    if (is_short(knee, sample, ahead) && held > knee->least_bytes) {
        const uint64_t target = clamp(knee, less(knee->room_bytes, first_reserve_now(knee) + ahead));
        if (target < held) {
            *reason = HYPURA_BUDGET_SQUEEZE;
            wait_for_calm(knee, sample->now_us);
            open_window(knee, sample);
            return target;
        }
    }
    if (knee->window.begin_us == 0) {
        open_window(knee, sample);
        return held;
    }
    if (sample->now_us - knee->window.begin_us < WINDOW_US) {
        return held;
    }
    const figures seen = read_window(knee, sample);
    open_window(knee, sample);
    return weigh(knee, sample, seen, reason);
}
