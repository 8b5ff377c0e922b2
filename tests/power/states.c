/*
 * Power-cut test: what a power cut may leave on the three devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "states.h"

/* No more requests than this are under way at once */
#define LOOKAHEAD   128

const char *const state_names[DEVICES] = {
    "state-journal", "state-copy", "state-store"
};

/* Content */

static void put_sector(uint8_t *data, const LogEvent *e, int64_t at)
{
    uint8_t *to = data + e->offset + at;

    switch (e->request) {
    case DEVICE_WRITE:
        memcpy(to, e->data + at, SECTOR);
        break;
    case DEVICE_ZERO:
        memset(to, 0, SECTOR);
        break;
    case DEVICE_DISCARD:
        memset(to, 0xdd, SECTOR);
        break;
    default:
        g_assert_not_reached();
    }
}

static void put_crash(uint8_t *data, const LogEvent *e)
{
    const DeviceSector *s = (const DeviceSector *)e->data;

    for (int64_t i = 0; i < e->bytes; i++) {
        memcpy(data + s[i].offset, s[i].data, SECTOR);
    }
}

static void put_range(StateDevice *sd, int64_t offset, int64_t bytes)
{
    DeviceRange range = { offset, bytes };

    g_array_append_val(sd->d->touched, range);
}

/* A number for "this sector of this request is there" */
static uint64_t mix(const LogEvent *e, int64_t at)
{
    Rng r = { e->end * UINT64_C(0x100000001) ^ (uint64_t)at << 20 };

    return rng_next(&r);
}

/* Going on */

/* Applied to what is durable, and to the state, which is equal to it now */
static void settle_event(StateDevice *sd, const LogEvent *e)
{
    if (e->request == DEVICE_CRASH) {
        put_crash(sd->settled, e);
        put_crash(sd->d->data, e);
        sd->settled_hash ^= mix(e, 0);
        return;
    }
    for (int64_t at = 0; at < e->bytes; at += SECTOR) {
        put_sector(sd->settled, e, at);
        put_sector(sd->d->data, e, at);
        sd->settled_hash ^= mix(e, at);
    }
}

static const LogEvent *event_at(const StateDevice *sd, guint i)
{
    return g_ptr_array_index(sd->events, i);
}

static void settle_device(StateDevice *sd, uint64_t now)
{
    guint crashed = 0;

    while (sd->n_flushes < sd->flushes->len) {
        LogEvent *f = &g_array_index(sd->flushes, LogEvent, sd->n_flushes);

        if (f->end > now) {
            break;
        }
        sd->covered = MAX(sd->covered, f->begin);
        sd->n_flushes++;
    }
    for (guint i = sd->n_settled; i < sd->events->len &&
         event_at(sd, i)->end <= now; i++) {
        if (event_at(sd, i)->request == DEVICE_CRASH) {
            crashed = i + 1;
        }
    }
    /* A crash tells what became of all before it */
    while (sd->n_settled < sd->events->len &&
           (sd->n_settled < crashed ||
            event_at(sd, sd->n_settled)->end <= sd->covered)) {
        settle_event(sd, event_at(sd, sd->n_settled++));
    }
}

void states_settle(States *s, uint64_t now)
{
    s->now = now;
    for (int i = 0; i < DEVICES; i++) {
        settle_device(&s->device[i], now);
    }
}

/* Making a state */

/* How much of a request that is not durable is there */
static unsigned choose_percent(States *s, StateKind kind, const LogEvent *e,
                               unsigned density, bool picked)
{
    unsigned torn = rng_chance(&s->rng, 50) ? 50 : 0;

    switch (kind) {
    case STATE_PREFIX:
        return e->end <= s->now ? 100 : 0;
    case STATE_NOTHING:
        return 0;
    case STATE_SUBSET:
        return rng_chance(&s->rng, density) ? 100 : 0;
    case STATE_TORN:
        return density;
    case STATE_MIXED:
        return 50 * rng_below(&s->rng, 3);
    case STATE_ALL_BUT_ONE:
        return picked ? torn : 100;
    case STATE_ONLY_ONE:
        return picked ? 100 - torn : 0;
    case STATE_ALIVE:
        return e->end <= s->now ? 100 : 50 * rng_below(&s->rng, 3);
    default:
        g_assert_not_reached();
    }
}

/*
 * A sector of which only the first part was written. The journal has checksums;
 * of other devices a sector is written or not.
 */
static void put_torn_sector(States *s, StateDevice *sd, const LogEvent *e,
                            int64_t at)
{
    uint8_t *data = sd->d->data + e->offset + at;
    unsigned n = 8 + rng_below(&s->rng, SECTOR - 8);
    uint8_t old[SECTOR];

    memcpy(old, data, SECTOR);
    put_sector(sd->d->data, e, at);
    memcpy(data + n, old + n, SECTOR - n);
    s->hash ^= mix(e, at) + n;
}

static void put_event(States *s, StateDevice *sd, const LogEvent *e,
                      unsigned percent, bool may_tear)
{
    bool tears = may_tear && e->device == JOURNAL && rng_chance(&s->rng, 20);

    for (int64_t at = 0; at < e->bytes; at += SECTOR) {
        if (!rng_chance(&s->rng, percent)) {
            continue;
        }
        if (tears && rng_chance(&s->rng, 20)) {
            put_torn_sector(s, sd, e, at);
        } else {
            put_sector(sd->d->data, e, at);
            s->hash ^= mix(e, at);
        }
    }
    if (percent) {
        put_range(sd, e->offset, e->bytes);
    }
}

static void make_device(States *s, StateDevice *sd, StateKind kind)
{
    unsigned density = 10 + rng_below(&s->rng, 81);
    guint end = sd->n_settled;
    guint picked;

    while (end < sd->events->len && event_at(sd, end)->end <= s->now) {
        end++;
    }
    end = MIN(end + LOOKAHEAD, sd->events->len);
    picked = sd->n_settled + rng_below(&s->rng, end - sd->n_settled);
    s->hash ^= sd->settled_hash;
    for (guint i = sd->n_settled; i < end; i++) {
        const LogEvent *e = event_at(sd, i);

        if (e->begin <= s->now && e->request != DEVICE_CRASH) {
            put_event(s, sd, e,
                      choose_percent(s, kind, e, density, i == picked),
                      kind != STATE_PREFIX && kind != STATE_ALIVE);
        }
    }
}

void states_make(States *s, const StateKind kind[DEVICES])
{
    s->hash = 0;
    for (int i = 0; i < DEVICES; i++) {
        make_device(s, &s->device[i], kind[i]);
    }
}

void states_rot(States *s, int device, int64_t offset)
{
    StateDevice *sd = &s->device[device];

    sd->d->data[offset] ^= 1 << rng_below(&s->rng, 8);
    put_range(sd, offset, 1);
}

static void take_back(StateDevice *sd)
{
    for (guint i = 0; i < sd->d->touched->len; i++) {
        DeviceRange *r = &g_array_index(sd->d->touched, DeviceRange, i);

        memcpy(sd->d->data + r->offset, sd->settled + r->offset, r->bytes);
    }
    g_array_set_size(sd->d->touched, 0);
}

void states_take_back(States *s)
{
    for (int i = 0; i < DEVICES; i++) {
        take_back(&s->device[i]);
    }
}

Start *states_keep(const States *s, const Life *l)
{
    Start *next = g_new0(Start, 1);

    next->size = l->size;
    next->next_id = l->first_id + l->changes->len;
    next->content = g_memdup2(l->start->content,
                              l->sectors * sizeof(*next->content));
    for (int i = 0; i < DEVICES; i++) {
        const Device *d = s->device[i].d;

        next->length[i] = d->length;
        next->device[i] = device_dup(d->data, d->length);
    }
    return next;
}

/* Making it all */

static void device_begin(StateDevice *sd, const char *name,
                         const uint8_t *start, int64_t length, uint64_t hash)
{
    sd->settled = device_dup(start, length);
    sd->d = device_new(name, start, length, 0);
    sd->d->touched = g_array_new(false, false, sizeof(DeviceRange));
    sd->events = g_ptr_array_new();
    sd->flushes = g_array_new(false, false, sizeof(LogEvent));
    sd->settled_hash = hash;
}

States *states_new(const Life *l, uint64_t seed)
{
    States *s = g_new0(States, 1);

    s->rng.state = seed;
    for (int i = 0; i < DEVICES; i++) {
        /* Another life's requests have the same numbers */
        device_begin(&s->device[i], state_names[i], l->start->device[i],
                     l->start->length[i], rng_next(&s->rng));
    }
    for (guint i = 0; i < l->log->events->len; i++) {
        LogEvent *e = &g_array_index(l->log->events, LogEvent, i);
        StateDevice *sd = &s->device[e->device];

        if (e->request == DEVICE_FLUSH) {
            g_array_append_val(sd->flushes, *e);
        } else {
            g_ptr_array_add(sd->events, e);
        }
    }
    return s;
}

void states_free(States *s)
{
    for (int i = 0; i < DEVICES; i++) {
        StateDevice *sd = &s->device[i];

        device_free_data(sd->settled, sd->d->length);
        device_free(sd->d);
        g_ptr_array_free(sd->events, true);
        g_array_free(sd->flushes, true);
    }
    g_free(s);
}
