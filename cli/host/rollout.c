/*
 * A push, desktop by desktop: what is done next, and when to go back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rollout.h"

struct Rollout {
    RolloutOptions options;
    GPtrArray *desktops;        /* RolloutDesktop */
    guint counts[ROLLOUT_STATES];
    guint batch_end;            /* desktops before it have had their turn */
    guint cursor;               /* where to look for the next action */
    guint failures;             /* of all time: FAILED ones may be restored */
    bool going_back;
};

static const char *const state_texts[] = {
    [ROLLOUT_WAITING] = "waiting",
    [ROLLOUT_ASSIGNING] = "assigning",
    [ROLLOUT_RESETTING] = "resetting",
    [ROLLOUT_COMING_UP] = "coming-up",
    [ROLLOUT_RESTORING] = "restoring",
    [ROLLOUT_DONE] = "done",
    [ROLLOUT_FAILED] = "failed",
    [ROLLOUT_LEFT] = "left",
    [ROLLOUT_UNKNOWN] = "unknown",
    [ROLLOUT_RESTORED] = "restored",
    [ROLLOUT_NOT_RESTORED] = "not-restored",
};

const char *rollout_state_text(RolloutState state)
{
    return state_texts[state];
}

static void desktop_free(void *data)
{
    RolloutDesktop *d = data;

    g_free(d->why);
    g_free(d);
}

Rollout *rollout_new(const RolloutOptions *options)
{
    Rollout *r = g_new0(Rollout, 1);

    r->options = *options;
    r->desktops = g_ptr_array_new_with_free_func(desktop_free);
    return r;
}

void rollout_free(Rollout *r)
{
    g_ptr_array_unref(r->desktops);
    g_free(r);
}

void rollout_add(Rollout *r, guint host, bool needs_reset)
{
    RolloutDesktop *d = g_new0(RolloutDesktop, 1);

    d->host = host;
    d->needs_reset = needs_reset;
    r->counts[ROLLOUT_WAITING]++;
    g_ptr_array_add(r->desktops, d);
}

static RolloutDesktop *get(const Rollout *r, guint i)
{
    return g_ptr_array_index(r->desktops, i);
}

/* The one place where a state changes. @why replaces what was said before. */
static void go(Rollout *r, RolloutDesktop *d, RolloutState state,
               const char *why)
{
    g_assert(d->state < ROLLOUT_DONE || r->going_back);
    r->counts[d->state]--;
    r->counts[state]++;
    if (state == ROLLOUT_FAILED) {
        r->failures++;
    }
    d->state = state;
    if (why) {
        g_free(d->why);
        d->why = g_strdup(why);
    }
}

void rollout_skip(Rollout *r, guint desktop, const char *why)
{
    go(r, get(r, desktop), ROLLOUT_UNKNOWN, why);
}

static bool is_in_hand(const RolloutDesktop *d)
{
    return d->busy || (d->state > ROLLOUT_WAITING && d->state < ROLLOUT_DONE);
}

static void leave_waiting(Rollout *r, const char *why)
{
    for (guint i = 0; i < r->desktops->len; i++) {
        RolloutDesktop *d = get(r, i);

        if (d->state == ROLLOUT_WAITING && !d->busy) {
            go(r, d, ROLLOUT_LEFT, why);
        }
    }
}

void rollout_stop(Rollout *r, const char *why)
{
    leave_waiting(r, why);
}

/* Desktops that did not take it stay as they are: done or failed without */
static bool must_go_back(const RolloutDesktop *d)
{
    return d->took && !d->busy &&
           (d->state == ROLLOUT_DONE || d->state == ROLLOUT_FAILED ||
            d->state == ROLLOUT_RESETTING || d->state == ROLLOUT_COMING_UP ||
            (d->state == ROLLOUT_UNKNOWN && d->unanswered));
}

static void check_limit(Rollout *r)
{
    if (!r->going_back && r->options.stop_after &&
        r->failures >= r->options.stop_after) {
        r->going_back = true;
        leave_waiting(r, "the push was stopped before its turn");
    }
}

static void check_times(Rollout *r, gint64 now)
{
    for (guint i = 0; r->counts[ROLLOUT_COMING_UP] && i < r->batch_end; i++) {
        RolloutDesktop *d = get(r, i);

        if (d->state == ROLLOUT_COMING_UP && !d->busy && d->due <= now) {
            go(r, d, ROLLOUT_FAILED, "did not come up in time");
        }
    }
}

static guint in_hand(const Rollout *r)
{
    guint n = 0;

    for (guint i = 0; i < r->batch_end; i++) {
        n += is_in_hand(get(r, i)) || get(r, i)->state == ROLLOUT_WAITING;
    }
    return n;
}

/* The next batch begins when the one before it has come to its end */
static void open_batch(Rollout *r)
{
    guint size = r->options.batch ? r->options.batch : r->desktops->len;
    guint open = 0;

    if (!r->counts[ROLLOUT_WAITING] || in_hand(r)) {
        return;
    }
    while (r->batch_end < r->desktops->len && open < size) {
        open += get(r, r->batch_end++)->state == ROLLOUT_WAITING;
    }
}

static RolloutAction action_of(Rollout *r, guint i, gint64 now)
{
    RolloutDesktop *d = get(r, i);

    if (d->busy) {
        return ROLLOUT_WAIT;
    }
    if (r->going_back) {
        return must_go_back(d) ? ROLLOUT_RESTORE : ROLLOUT_WAIT;
    }
    switch (d->state) {
    case ROLLOUT_WAITING:
        return i < r->batch_end ? ROLLOUT_ASSIGN : ROLLOUT_WAIT;
    case ROLLOUT_RESETTING:
        return ROLLOUT_RESET;
    case ROLLOUT_COMING_UP:
        return d->next_look <= now ? ROLLOUT_LOOK : ROLLOUT_WAIT;
    default:
        return ROLLOUT_WAIT;
    }
}

static void begin(Rollout *r, RolloutDesktop *d, RolloutAction action)
{
    d->busy = true;
    if (action == ROLLOUT_ASSIGN) {
        go(r, d, ROLLOUT_ASSIGNING, NULL);
    } else if (action == ROLLOUT_RESET) {
        d->was_reset = true;    /* one that fails may leave it switched off */
    } else if (action == ROLLOUT_RESTORE) {
        go(r, d, ROLLOUT_RESTORING, NULL);
    }
}

static bool is_finished(const Rollout *r)
{
    for (guint i = 0; i < r->desktops->len; i++) {
        RolloutDesktop *d = get(r, i);

        if (d->state == ROLLOUT_WAITING || is_in_hand(d) ||
            (r->going_back && must_go_back(d))) {
            return false;
        }
    }
    return true;
}

RolloutAction rollout_next(Rollout *r, gint64 now, guint *desktop)
{
    guint length = r->desktops->len;

    check_times(r, now);
    check_limit(r);
    open_batch(r);
    for (guint n = 0; n < length; n++) {
        guint i = (r->cursor + n) % length;
        RolloutAction action = action_of(r, i, now);

        if (action != ROLLOUT_WAIT) {
            begin(r, get(r, i), action);
            r->cursor = i + 1;
            *desktop = i;
            return action;
        }
    }
    return is_finished(r) ? ROLLOUT_FINISHED : ROLLOUT_WAIT;
}

gint64 rollout_due(const Rollout *r)
{
    gint64 due = G_MAXINT64;

    for (guint i = 0; i < r->batch_end; i++) {
        const RolloutDesktop *d = get(r, i);

        if (d->state == ROLLOUT_COMING_UP && !d->busy) {
            due = MIN(due, MIN(d->due, d->next_look));
        }
    }
    return due;
}

static void assigned(Rollout *r, RolloutDesktop *d)
{
    d->took = true;
    go(r, d, d->needs_reset ? ROLLOUT_RESETTING : ROLLOUT_DONE, NULL);
}

static void was_reset(Rollout *r, RolloutDesktop *d, gint64 now)
{
    d->due = now + r->options.come_up;
    d->next_look = now + r->options.look_every;
    go(r, d, ROLLOUT_COMING_UP, NULL);
}

void rollout_answer(Rollout *r, guint desktop, gint64 now, const char *why)
{
    RolloutDesktop *d = get(r, desktop);

    g_assert(d->busy);
    d->busy = false;
    if (d->state == ROLLOUT_RESTORING) {
        go(r, d, why ? ROLLOUT_NOT_RESTORED : ROLLOUT_RESTORED, why);
    } else if (why) {
        go(r, d, ROLLOUT_FAILED, why);
    } else if (d->state == ROLLOUT_ASSIGNING) {
        assigned(r, d);
    } else {
        was_reset(r, d, now);
    }
}

void rollout_looked(Rollout *r, guint desktop, gint64 now, bool up)
{
    RolloutDesktop *d = get(r, desktop);

    g_assert(d->busy && d->state == ROLLOUT_COMING_UP);
    d->busy = false;
    if (up) {
        go(r, d, ROLLOUT_DONE, NULL);
    } else {
        d->next_look = now + r->options.look_every;
    }
}

static void leave_host(Rollout *r, guint host, const char *why)
{
    for (guint i = 0; i < r->desktops->len; i++) {
        RolloutDesktop *d = get(r, i);

        if (d->host == host && d->state == ROLLOUT_WAITING) {
            go(r, d, ROLLOUT_LEFT, why);
        }
    }
}

static void not_known(Rollout *r, RolloutDesktop *d, const char *why)
{
    g_assert(d->busy);
    d->busy = false;
    go(r, d, d->state == ROLLOUT_RESTORING ? ROLLOUT_NOT_RESTORED
                                           : ROLLOUT_UNKNOWN, why);
}

void rollout_lost(Rollout *r, guint desktop, const char *why)
{
    RolloutDesktop *d = get(r, desktop);

    not_known(r, d, why);
    leave_host(r, d->host, why);
}

void rollout_unanswered(Rollout *r, guint desktop, const char *why)
{
    RolloutDesktop *d = get(r, desktop);

    r->failures += d->state != ROLLOUT_RESTORING;
    d->unanswered = true;
    not_known(r, d, why);
}

guint rollout_length(const Rollout *r)
{
    return r->desktops->len;
}

const RolloutDesktop *rollout_desktop(const Rollout *r, guint desktop)
{
    return get(r, desktop);
}

guint rollout_count(const Rollout *r, RolloutState state)
{
    return r->counts[state];
}

bool rollout_went_back(const Rollout *r)
{
    return r->going_back;
}
