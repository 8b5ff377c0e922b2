/*
 * Stores of a pvs vDisk: their health, and which one a read is sent to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/store-int.h"
#include <errno.h>

#define NEVER           INT64_MAX
#define MSEC            INT64_C(1000000)
#define SEC             INT64_C(1000000000)

/*
 * An exponentially weighted mean: one number, no window to keep, and it forgets
 * bad times. A read weighs 1/8 as in TCP's smoothed round trip time (RFC 6298).
 * A probe is sent where nobody reads, so few must tell of a store that is fast
 * again. Both weigh more if the last sample is old, half after SMOOTH_TIME.
 */
#define SMOOTH_READ     8
#define SMOOTH_PROBE    2
#define SMOOTH_TIME     SEC

/*
 * What a straggler or an error counts as, in hedge-after: a tenth of the reads
 * hanging costs half the smoothed latency at which a store lags, a third of
 * them makes it lag.
 */
#define PENALTY         4

/* A store that leaves up sooner than this after it came flaps */
#define STEADY          (10 * SEC)
/* It is held back for probe-interval << flaps, at most 8 s by default */
#define FLAPS_MAX       5

/*
 * A store nobody reads from is probed at probe-interval << 0, 1, 2... and then
 * each 32 s by default, which finds it dead before it is needed, or faster;
 * always at probe-interval if it lags, as it may be the preferred one.
 */
#define IDLE_MAX        7

/* Options */

void store_options_default(StoreOptions *o)
{
    *o = (StoreOptions) {
        .request_timeout = 2000,
        .hedge_after = 200,
        .probe_interval = 250,
        .outage_wait = 20,
        .outage_action = STORE_OUTAGE_PAUSE,
    };
}

static bool in_range(const char *name, int64_t value, int64_t min, int64_t max,
                     char **why)
{
    if (value >= min && value <= max) {
        return true;
    }
    *why = g_strdup_printf("%s is %" PRId64 ", and must be from %" PRId64
                           " to %" PRId64, name, value, min, max);
    return false;
}

bool store_options_check(const StoreOptions *o, char **why)
{
    if (!in_range("request-timeout", o->request_timeout, 100, 600000, why) ||
        !in_range("hedge-after", o->hedge_after, 10, 599999, why) ||
        !in_range("probe-interval", o->probe_interval, 50, 60000, why) ||
        !in_range("outage-wait", o->outage_wait, 0, 86400, why)) {
        return false;
    }
    if (o->hedge_after >= o->request_timeout) {
        *why = g_strdup_printf("hedge-after (%" PRId64 ") must be less than "
                               "request-timeout (%" PRId64 ")",
                               o->hedge_after, o->request_timeout);
        return false;
    }
    if ((unsigned)o->outage_action > STORE_OUTAGE_ERROR) {
        *why = g_strdup("outage-action must be wait, pause or error");
        return false;
    }
    return true;
}

/* Latency */

static void sample(Store *s, int64_t latency, unsigned smooth, int64_t now)
{
    int64_t pause = MAX(now - s->sampled_at, 0);

    s->sampled_at = now;
    if (s->latency == 0) {
        s->latency = latency;
    } else if (pause < SMOOTH_TIME / (smooth - 1)) {
        s->latency += (latency - s->latency) / smooth;
    } else {
        /* In us, as an hour's pause times ten minutes' latency is too large */
        pause = MIN(pause, 3600 * SEC) / 1000;
        s->latency += (latency - s->latency) / 1000 * pause /
                      (pause + SMOOTH_TIME / 1000) * 1000;
    }
    s->latency = MAX(s->latency, 1);
}

void store_penalize(StoreSet *set, Store *s, int64_t now)
{
    sample(s, PENALTY * set->hedge_after, SMOOTH_READ, now);
}

int64_t store_latency(const Store *s, int64_t now)
{
    return MAX(s->latency, s->in_flight ? now - s->busy_since : 0);
}

bool store_is_brisk(const StoreSet *set, const Store *s, int64_t now)
{
    return s->state == STORE_UP && store_latency(s, now) < set->hedge_after;
}

/* States */

static void draw_jitter(StoreSet *set, Store *s)
{
    /* Plus or minus a quarter, so that desktops do not probe in step */
    set->random = set->random * 1664525 + 1013904223;
    s->probe_wait = set->probe_interval / 4 * 3 +
                    (set->probe_interval / 2 * (set->random >> 16) >> 16);
}

static void note_outage(StoreSet *set, int64_t now)
{
    if (set->outage == (set->up == 0)) {
        return;
    }
    set->outage = !set->outage;
    if (set->outage) {
        set->outage_since = now;
    } else {
        set->outage_ended = now;
    }
}

/* The only place where a store changes its state */
static void set_state(StoreSet *set, Store *s, StoreState to, int64_t now)
{
    switch (to) {
    case STORE_UP:
        assert(s->state != STORE_UP);
        set->up++;
        s->risen = ++set->rises;
        s->idle_probes = 0;
        break;
    case STORE_SUSPECT:
        assert(s->state == STORE_UP);
        set->up--;
        if (s->risen && now - s->since < STEADY) {
            s->flaps = MIN(s->flaps + 1, FLAPS_MAX);
            s->probed_at = now;
        } else {
            s->flaps = 0;
            s->probed_at = now - s->probe_wait;
        }
        break;
    case STORE_DOWN:
        assert(s->state == STORE_SUSPECT);
        break;
    }
    s->state = to;
    s->since = now;
    note_outage(set, now);
}

static void failed(StoreSet *set, Store *s, const StoreAsk *ask, int64_t now)
{
    /* What was sent before this state is no news about it */
    if (ask->at < s->since) {
        return;
    }
    if (s->state == STORE_UP) {
        set_state(set, s, STORE_SUSPECT, now);
    } else if (s->state == STORE_SUSPECT && ask->probe) {
        set_state(set, s, STORE_DOWN, now);
    }
}

void store_set_init(StoreSet *set, const StoreOptions *o, unsigned n,
                    uint64_t preferred, uint64_t up, uint32_t seed,
                    int64_t now)
{
    assert(n >= 1 && n <= STORE_MAX);
    *set = (StoreSet) {
        .request_timeout = o->request_timeout * MSEC,
        .hedge_after = o->hedge_after * MSEC,
        .probe_interval = o->probe_interval * MSEC,
        .outage_wait = o->outage_wait * SEC,
        .outage_action = o->outage_action,
        .n = n,
        .random = seed,
        .hedge_percents = STORE_HEDGE_BURST * 100,
        .wanted_until = now,
    };
    for (unsigned i = 0; i < n; i++) {
        Store *s = &set->stores[i];

        s->preferred = preferred & STORE_BIT(i);
        s->state = up & STORE_BIT(i) ? STORE_UP : STORE_DOWN;
        s->told = s->state;
        s->since = now;
        s->asked_at = now;
        g_queue_init(&s->asks);
        draw_jitter(set, s);
        s->probed_at = now - s->probe_wait;
        set->up += s->state == STORE_UP;
    }
    note_outage(set, now);
}

/* Requests */

bool store_is_stale(const Store *s, const StoreAsk *ask)
{
    return s->state == STORE_UP && ask->at < s->since;
}

void store_ask_sent(StoreSet *set, StoreAsk *ask, unsigned store, int64_t now)
{
    Store *s = &set->stores[store];

    assert(store < set->n);
    ask->at = now;
    ask->store = store;
    ask->link.data = ask;
    if (s->in_flight++ == 0) {
        s->busy_since = now;
    }
    s->asked_at = now;
    g_queue_push_tail_link(&s->asks, &ask->link);
}

static void forget(StoreSet *set, StoreAsk *ask)
{
    const Store *s = &set->stores[ask->store];
    StoreRead *read = ask->read;
    unsigned i = 0;

    while (read->asks[i] != ask) {
        i++;
    }
    for (read->n_asks--; i < read->n_asks; i++) {
        read->asks[i] = read->asks[i + 1];
    }
    ask->read = NULL;
    /* Its store came back meanwhile, and can be asked again */
    if (store_is_stale(s, ask)) {
        read->tried &= ~STORE_BIT(ask->store) | read->bad;
    }
}

static void note_lost(StoreRead *read, int64_t now)
{
    read->lost_at = read->lost_at ? read->lost_at : now;
}

void store_detach(StoreSet *set, StoreAsk *ask)
{
    forget(set, ask);
    set->stores[ask->store].detached++;
}

static void expire(StoreSet *set, Store *s, int64_t now)
{
    GList *link;

    while ((link = g_queue_peek_head_link(&s->asks))) {
        StoreAsk *ask = link->data;

        if (now - ask->at < set->request_timeout) {
            break;
        }
        g_queue_unlink(&s->asks, link);
        ask->late = true;
        if (ask->read) {
            note_lost(ask->read, now);
            store_detach(set, ask);
        }
        s->error = -ETIMEDOUT;
        s->errors++;
        /* Even if the store came back since: it must return some day */
        s->to_break = true;
        failed(set, s, ask, now);
    }
}

void store_tick(StoreSet *set, int64_t now)
{
    for (unsigned i = 0; i < set->n; i++) {
        expire(set, &set->stores[i], now);
    }
}

/* It returned, and is not waited for any more */
static void take_off(Store *s, StoreAsk *ask)
{
    s->in_flight--;
    if (!ask->late) {
        g_queue_unlink(&s->asks, &ask->link);
    }
}

void store_ask_arrived(StoreSet *set, StoreAsk *ask, int64_t now)
{
    Store *s = &set->stores[ask->store];

    assert(!ask->probe);
    expire(set, s, now);
    if (!ask->late) {
        take_off(s, ask);
        s->busy_since = now;
        ask->arrived = true;
    }
}

static void answered(StoreSet *set, Store *s, StoreAsk *ask, int64_t bytes,
                     int64_t now)
{
    bool rises = s->state != STORE_UP && ask->probe && !ask->late;

    /* What was measured before it failed says nothing of it now */
    if (rises) {
        s->latency = 0;
    }
    if (!ask->late) {
        sample(s, now - ask->at, ask->probe ? SMOOTH_PROBE : SMOOTH_READ, now);
    }
    if (!ask->probe) {
        s->reads++;
        s->bytes += bytes;
    }
    if (rises) {
        set_state(set, s, STORE_UP, now);
    } else if (s->state != STORE_UP) {
        /* It lives: no need to wait for the next probe */
        s->probed_at = now - s->probe_wait;
    }
}

static void not_answered(StoreSet *set, Store *s, StoreAsk *ask,
                         StoreAnswer answer, int64_t error, int64_t now)
{
    if (ask->late) {
        return;
    }
    s->errors++;
    s->error = error;
    if (answer == STORE_BAD && !ask->probe) {
        store_penalize(set, s, now);
        if (ask->read) {
            ask->read->bad |= STORE_BIT(ask->store);
        }
    } else {
        if (ask->read) {
            note_lost(ask->read, now);
        }
        failed(set, s, ask, now);
    }
}

StoreFate store_ask_end(StoreSet *set, StoreAsk *ask, StoreAnswer answer,
                        int64_t ret, int64_t now)
{
    Store *s = &set->stores[ask->store];
    bool waited_for;

    expire(set, s, now);
    waited_for = ask->read;
    if (!ask->arrived) {
        take_off(s, ask);
    }
    s->probes -= ask->probe;
    s->detached -= !ask->probe && !waited_for;
    if (answer == STORE_OK) {
        answered(set, s, ask, ret, now);
    } else {
        not_answered(set, s, ask, answer, ret, now);
    }
    if (answer != STORE_LOST && !ask->arrived) {
        s->busy_since = now;
    }
    if (!waited_for) {
        return STORE_DROP;
    }
    forget(set, ask);
    return answer == STORE_OK ? STORE_TAKE : STORE_GO_ON;
}

/* Probes */

/*
 * A store that flaps is held back only while another one is brisk and no read
 * hangs in all the others: a bad store is better than none.
 */
static bool holds_back(const StoreSet *set, int64_t now)
{
    bool any_brisk = false;

    for (unsigned i = 0; i < set->n; i++) {
        any_brisk |= store_is_brisk(set, &set->stores[i], now);
    }
    return any_brisk && now >= set->wanted_until;
}

static int64_t probe_due(const StoreSet *set, const Store *s, bool hold,
                         int64_t now)
{
    if (s->probes >= STORE_PROBES_MAX) {
        return NEVER;
    }
    if (s->state != STORE_UP) {
        return s->probed_at + (s->probe_wait << (hold ? s->flaps : 0));
    }
    if (s->probes) {
        return NEVER;
    }
    return s->asked_at + (s->probe_wait << s->idle_probes);
}

bool store_probe_next(StoreSet *set, unsigned *store, int64_t now)
{
    bool hold = holds_back(set, now);

    for (unsigned i = 0; i < set->n; i++) {
        if (probe_due(set, &set->stores[i], hold, now) <= now) {
            *store = i;
            return true;
        }
    }
    return false;
}

void store_probe_begin(StoreSet *set, StoreAsk *ask, unsigned store,
                       int64_t now)
{
    Store *s = &set->stores[store];

    *ask = (StoreAsk) { .probe = true };
    s->idle_probes = store_is_brisk(set, s, now) ?
                     MIN(s->idle_probes + 1, IDLE_MAX) : 0;
    store_ask_sent(set, ask, store, now);
    s->probes++;
    s->probed_at = now;
    draw_jitter(set, s);
}

int64_t store_wakeup(const StoreSet *set, int64_t now)
{
    bool hold = holds_back(set, now);
    int64_t when = NEVER;

    for (unsigned i = 0; i < set->n; i++) {
        const Store *s = &set->stores[i];

        when = MIN(when, probe_due(set, s, hold, now));
        if (s->asks.head) {
            const StoreAsk *oldest = s->asks.head->data;

            when = MIN(when, oldest->at + set->request_timeout);
        }
    }
    return when;
}

/* Events and outage */

bool store_event_next(StoreSet *set, StoreEvent *event)
{
    for (unsigned i = 0; i < set->n; i++) {
        Store *s = &set->stores[i];

        *event = (StoreEvent) { .store = i, .state = s->state };
        if (s->told != s->state) {
            s->told = s->state;
            event->type = STORE_EVENT_STATE;
            return true;
        }
        if (s->to_break) {
            s->to_break = false;
            event->type = STORE_EVENT_BREAK;
            return true;
        }
    }
    if (set->outage_told == set->outage) {
        return false;
    }
    set->outage_told = set->outage;
    *event = (StoreEvent) {
        .type = set->outage ? STORE_EVENT_OUTAGE_BEGIN :
                              STORE_EVENT_OUTAGE_END,
    };
    return true;
}

bool store_outage_over(const StoreSet *set, int64_t now)
{
    return set->outage && now - set->outage_since >= set->outage_wait;
}
