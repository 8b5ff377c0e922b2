/*
 * Stores of a pvs vDisk: choice among them, and what a read does next
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/store-int.h"

#define NEVER           INT64_MAX

/* Below this all stores are equally fast, and only the load counts; ns */
#define LATENCY_FLOOR   INT64_C(100000)

/* A read hangs after this many times hedge-after: 0.6 s of the 1 s we allow */
#define OVERDUE         3

typedef enum Tier {
    TIER_PREFERRED,             /* up, and not lagging */
    TIER_UP,
    TIER_SUSPECT,
    TIER_END,
} Tier;

static bool in_tier(const StoreSet *set, const Store *s, Tier tier,
                    int64_t now)
{
    if (s->detached >= STORE_DETACHED_MAX) {
        return false;
    }
    switch (tier) {
    case TIER_PREFERRED:
        return s->preferred && store_is_brisk(set, s, now);
    case TIER_UP:
        return s->state == STORE_UP;
    default:
        return set->up == 0 && s->state == STORE_SUSPECT &&
               s->in_flight < STORE_SUSPECT_READS;
    }
}

/* Time until it would have answered one more, if it worked on one at a time */
static int64_t cost(const Store *s, int64_t now)
{
    return MAX(store_latency(s, now), LATENCY_FLOOR) * (s->in_flight + 1);
}

static int choose_from(StoreSet *set, uint64_t exclude, Tier tier, int64_t now)
{
    int64_t best = NEVER;

    for (unsigned i = 0; i < set->n; i++) {
        const Store *s = &set->stores[i];

        if (!(exclude & STORE_BIT(i)) && in_tier(set, s, tier, now)) {
            best = MIN(best, cost(s, now));
        }
    }
    if (best == NEVER) {
        return -1;
    }
    /* Latencies are never the same: within a quarter is a tie */
    for (unsigned k = 1; ; k++) {
        unsigned i = (set->turn + k) % set->n;
        const Store *s = &set->stores[i];

        if (!(exclude & STORE_BIT(i)) && in_tier(set, s, tier, now) &&
            cost(s, now) <= best + best / 4) {
            set->turn = i;
            return i;
        }
    }
}

int store_choose(StoreSet *set, uint64_t exclude, int64_t now)
{
    int i = -1;

    for (Tier tier = TIER_PREFERRED; i < 0 && tier < TIER_END; tier++) {
        i = choose_from(set, exclude, tier, now);
    }
    return i;
}

/* Reads */

void store_read_begin(StoreSet *set, StoreRead *read, int64_t now)
{
    *read = (StoreRead) { .start = now, .asked_at = now, .seen = set->rises };
    set->hedge_percents = MIN(set->hedge_percents + STORE_HEDGE_PERCENT,
                              STORE_HEDGE_BURST * 100);
}

void store_read_end(StoreSet *set, StoreRead *read)
{
    while (read->n_asks) {
        store_detach(set, read->asks[0]);
    }
}

void store_ask_begin(StoreSet *set, StoreRead *read, StoreAsk *ask,
                     unsigned store, int64_t now)
{
    assert(read->n_asks < STORE_READ_ASKS);
    *ask = (StoreAsk) { .read = read };
    store_ask_sent(set, ask, store, now);
    set->stores[store].idle_probes = 0;
    read->asks[read->n_asks++] = ask;
    read->tried |= STORE_BIT(store);
    read->asked_at = now;
}

/*
 * A store that came back can be asked again. What it was asked before may be
 * lost with the old connection, and must not keep the read waiting.
 */
static void look_for_risen(StoreSet *set, StoreRead *read)
{
    for (unsigned k = read->n_asks; k-- > 0; ) {
        StoreAsk *ask = read->asks[k];
        const Store *s = &set->stores[ask->store];

        if (store_is_stale(s, ask) && s->detached < STORE_DETACHED_MAX) {
            store_detach(set, ask);
        }
    }
    if (read->seen == set->rises) {
        return;
    }
    for (unsigned i = 0; i < set->n; i++) {
        if (set->stores[i].risen > read->seen) {
            read->tried &= ~STORE_BIT(i);
        }
    }
    read->seen = set->rises;
    read->tried |= read->bad;
    for (unsigned k = 0; k < read->n_asks; k++) {
        read->tried |= STORE_BIT(read->asks[k]->store);
    }
}

static StoreStep send_to(int store)
{
    return (StoreStep) { .action = STORE_SEND, .store = store };
}

/*
 * Since when it waits for a store. One that was there before the outage waits
 * for as long as it lasts. A store that answers probes and not what it is asked
 * ends outages that begin again: then it waits since it first got no answer.
 */
static int64_t waits_since(const StoreSet *set, const StoreRead *read)
{
    int64_t since = set->outage ? MAX(read->start, set->outage_since)
                                : read->start;

    return read->lost_at ? MIN(since, read->lost_at) : since;
}

/* Nobody can be asked, and nobody is */
static StoreStep wait_for_store(const StoreSet *set, const StoreRead *read,
                                int64_t now)
{
    uint64_t all;
    int64_t limit = waits_since(set, read) + set->outage_wait;
    bool limited = set->outage_action != STORE_OUTAGE_WAIT || read->bad;

    assert(set->n > 0);
    all = UINT64_MAX >> (STORE_MAX - set->n);
    if (read->bad == all || (limited && now >= limit) ||
        (set->outage_action != STORE_OUTAGE_WAIT &&
         store_outage_over(set, now))) {
        return (StoreStep) { .action = STORE_FAIL };
    }
    return (StoreStep) {
        .action = STORE_WAIT_STORE,
        .when = MIN(now + set->probe_interval, limited ? limit : NEVER),
    };
}

/* A read that had to wait this long tells about the store */
static void count_stragglers(StoreSet *set, StoreRead *read, int64_t now)
{
    for (unsigned k = 0; k < read->n_asks; k++) {
        StoreAsk *ask = read->asks[k];

        if (!ask->straggler && now - ask->at >= set->hedge_after) {
            ask->straggler = true;
            store_penalize(set, &set->stores[ask->store], now);
        }
    }
}

/* May it go to store @to as well, @lagging if all that have it lag? */
static bool may_hedge(StoreSet *set, const StoreRead *read, const Store *to,
                      bool lagging, int64_t now)
{
    int64_t waited = now - read->asked_at;

    if ((lagging || waited >= OVERDUE * set->hedge_after) &&
        store_latency(to, now) <= waited / 3) {
        return true;
    }
    if (set->hedge_percents >= 100) {
        set->hedge_percents -= 100;
        return true;
    }
    return false;
}

static StoreStep ask_another(StoreSet *set, StoreRead *read, bool any_up,
                             bool lagging, int64_t now)
{
    int to = -1;

    if (read->n_asks < STORE_READ_ASKS) {
        to = store_choose(set, read->tried, now);
    }
    /* No hedge if those that have it are not up: they may never answer */
    if (to >= 0 && set->stores[to].state == STORE_UP &&
        (!any_up || may_hedge(set, read, &set->stores[to], lagging, now))) {
        set->hedges += any_up;
        return send_to(to);
    }
    set->wanted_until = now + set->hedge_after;
    return (StoreStep) {
        .action = STORE_WAIT,
        .when = MIN(now + set->hedge_after / 2,
                    read->asks[0]->at + set->request_timeout),
    };
}

StoreStep store_read_next(StoreSet *set, StoreRead *read, int64_t now)
{
    bool any_up = false, lagging = true;
    int64_t due = read->asked_at + set->hedge_after;
    int to;

    store_tick(set, now);
    look_for_risen(set, read);
    if (read->n_asks == 0) {
        to = store_choose(set, read->tried, now);
        return to >= 0 ? send_to(to) : wait_for_store(set, read, now);
    }
    for (unsigned k = 0; k < read->n_asks; k++) {
        const Store *s = &set->stores[read->asks[k]->store];

        any_up |= s->state == STORE_UP;
        lagging &= !store_is_brisk(set, s, now);
    }
    if (any_up && now < due) {
        return (StoreStep) {
            .action = STORE_WAIT,
            .when = MIN(due, read->asks[0]->at + set->request_timeout),
        };
    }
    count_stragglers(set, read, now);
    return ask_another(set, read, any_up, lagging, now);
}
