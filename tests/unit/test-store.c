/*
 * Health and choice of stores, rule by rule
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include "block/pvs/store.h"
#include "suite.h"

#define MSEC            INT64_C(1000000)
#define SEC             INT64_C(1000000000)
#define ASKS            64

static StoreSet set;
static int64_t now;
static StoreRead reads[ASKS];
static StoreAsk asks[ASKS];

static void start_with(unsigned n, uint64_t preferred, uint64_t up,
                       StoreOutageAction action)
{
    StoreOptions o;

    store_options_default(&o);
    o.outage_action = action;
    now = 100 * SEC;
    store_set_init(&set, &o, n, preferred, up, 7, now);
}

static void start(unsigned n, uint64_t preferred)
{
    start_with(n, preferred, UINT64_MAX, STORE_OUTAGE_WAIT);
}

static void wait_ms(int64_t ms)
{
    now += ms * MSEC;
    store_tick(&set, now);
}

static StoreFate end(StoreAsk *ask, StoreAnswer answer)
{
    return store_ask_end(&set, ask, answer, answer == STORE_OK ? 4096 : -EIO,
                         now);
}

static bool is_event(StoreEventType type, unsigned store)
{
    StoreEvent e;

    return store_event_next(&set, &e) && e.type == type && e.store == store;
}

static void drain_events(void)
{
    StoreEvent e;

    while (store_event_next(&set, &e)) {
        continue;
    }
}

static StoreStep next(unsigned k)
{
    return store_read_next(&set, &reads[k], now);
}

/* Ask @store for read @k, whatever the machine would choose */
static void ask(unsigned k, unsigned store)
{
    store_ask_begin(&set, &reads[k], &asks[k], store, now);
}

static void begin(unsigned k, unsigned store)
{
    store_read_begin(&set, &reads[k], now);
    ask(k, store);
}

/* A read of @store that takes @ms and ends well */
static void read_in(unsigned store, int64_t ms)
{
    begin(ASKS - 1, store);
    wait_ms(ms);
    CU_ASSERT_EQUAL(end(&asks[ASKS - 1], STORE_OK), STORE_TAKE);
    store_read_end(&set, &reads[ASKS - 1]);
}

static void lose(unsigned store)
{
    begin(ASKS - 1, store);
    CU_ASSERT_EQUAL(end(&asks[ASKS - 1], STORE_LOST), STORE_GO_ON);
    store_read_end(&set, &reads[ASKS - 1]);
}

static void probe(unsigned store, StoreAnswer answer)
{
    StoreAsk a;

    store_probe_begin(&set, &a, store, now);
    CU_ASSERT_EQUAL(end(&a, answer), STORE_DROP);
}

/* Milliseconds until @wanted may be probed; the others stay what they are */
static int64_t until_probe(unsigned wanted)
{
    int64_t was = now;
    unsigned store;

    while (now < was + 100 * SEC) {
        while (store_probe_next(&set, &store, now)) {
            if (store == wanted) {
                return (now - was) / MSEC;
            }
            probe(store, set.stores[store].state == STORE_UP ? STORE_OK :
                                                               STORE_LOST);
        }
        now += MSEC;
    }
    return INT64_MAX;
}

#define IS(store, s)    CU_ASSERT_EQUAL(set.stores[store].state, s)
#define CHOSEN(ex, i)   CU_ASSERT_EQUAL(store_choose(&set, ex, now), i)

static void test_options(void)
{
    StoreOptions o, bad[7];
    char *why = NULL;

    store_options_default(&o);
    CU_ASSERT(store_options_check(&o, &why));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        bad[i] = o;
    }
    bad[0].request_timeout = 99;
    bad[1].hedge_after = 2000;
    bad[2].hedge_after = INT64_MIN;
    bad[3].probe_interval = INT64_MAX;
    bad[4].outage_wait = -1;
    bad[5].outage_wait = 86401;
    bad[6].outage_action = 3;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        CU_ASSERT_FALSE(store_options_check(&bad[i], &why));
        CU_ASSERT_PTR_NOT_NULL(why);
        g_clear_pointer(&why, g_free);
    }
}

static void test_states(void)
{
    unsigned store;

    start(2, 0);
    CU_ASSERT_FALSE(store_probe_next(&set, &store, now));
    lose(0);
    IS(0, STORE_SUSPECT);
    CU_ASSERT_EQUAL(set.stores[0].error, -EIO);
    CU_ASSERT(is_event(STORE_EVENT_STATE, 0));
    CU_ASSERT_FALSE(is_event(STORE_EVENT_STATE, 0));
    /* At once, and good: up */
    CU_ASSERT(store_probe_next(&set, &store, now) && store == 0);
    probe(0, STORE_OK);
    IS(0, STORE_UP);
    /* It flaps, fails a probe, and comes back */
    lose(0);
    IS(0, STORE_SUSPECT);
    probe(0, STORE_LOST);
    IS(0, STORE_DOWN);
    probe(0, STORE_LOST);
    IS(0, STORE_DOWN);
    probe(0, STORE_OK);
    IS(0, STORE_UP);
    /* A probe of a store that is up fails */
    probe(1, STORE_BAD);
    IS(1, STORE_SUSPECT);
    CU_ASSERT_EQUAL(set.rises, 2);
}

static void test_timeout(void)
{
    StoreEvent e;

    start(1, 0);
    begin(0, 0);
    wait_ms(1999);
    IS(0, STORE_UP);
    store_probe_begin(&set, &asks[1], 0, now);
    CU_ASSERT_EQUAL(store_wakeup(&set, now), now + MSEC);
    wait_ms(1);
    IS(0, STORE_SUSPECT);
    CU_ASSERT_EQUAL(set.stores[0].detached, 1);
    CU_ASSERT_EQUAL(set.stores[0].error, -ETIMEDOUT);
    CU_ASSERT(is_event(STORE_EVENT_STATE, 0));
    CU_ASSERT(is_event(STORE_EVENT_BREAK, 0));
    CU_ASSERT(is_event(STORE_EVENT_OUTAGE_BEGIN, 0));
    CU_ASSERT_FALSE(store_event_next(&set, &e));
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT_STORE);
    /* Its late answer does not bring the store back, a probe does */
    wait_ms(1);
    CU_ASSERT_EQUAL(end(&asks[0], STORE_OK), STORE_DROP);
    IS(0, STORE_SUSPECT);
    CU_ASSERT_EQUAL(set.stores[0].detached, 0);
    CU_ASSERT_EQUAL(until_probe(0), 0);
    probe(0, STORE_OK);
    CU_ASSERT(is_event(STORE_EVENT_STATE, 0));
    CU_ASSERT(is_event(STORE_EVENT_OUTAGE_END, 0));
    CU_ASSERT_EQUAL(next(0).action, STORE_SEND);
}

/* An answer that its read has yet to look at is nothing the store owes */
static void test_arrived(void)
{
    int64_t arrived;

    start(2, 1);
    begin(0, 0);
    begin(1, 0);
    wait_ms(150);
    arrived = now;
    store_ask_arrived(&set, &asks[0], now);
    CU_ASSERT_EQUAL(set.stores[0].in_flight, 1);
    /* The other one is 250 ms old, but it said something meanwhile */
    wait_ms(100);
    CHOSEN(0, 0);
    CU_ASSERT_EQUAL(end(&asks[1], STORE_OK), STORE_TAKE);
    CU_ASSERT_EQUAL(set.stores[0].in_flight, 0);
    begin(2, 0);
    wait_ms(1990);
    CU_ASSERT_EQUAL(end(&asks[2], STORE_OK), STORE_TAKE);
    wait_ms(100000);
    IS(0, STORE_UP);
    CU_ASSERT_EQUAL(set.stores[0].errors, 0);
    /* And what comes of it is no news about the time since */
    begin(3, 0);
    wait_ms(150);
    store_ask_arrived(&set, &asks[3], now);
    begin(4, 0);
    wait_ms(150);
    CU_ASSERT_EQUAL(store_ask_end(&set, &asks[0], STORE_OK, 4096, arrived),
                    STORE_TAKE);
    CU_ASSERT_EQUAL(set.stores[0].reads, 3);
    CU_ASSERT_EQUAL(end(&asks[3], STORE_BAD), STORE_GO_ON);
    CU_ASSERT_EQUAL(set.stores[0].errors, 1);
    CU_ASSERT_EQUAL(set.stores[0].busy_since, now - 150 * MSEC);
    CU_ASSERT_EQUAL(set.stores[0].in_flight, 1);
    IS(0, STORE_UP);
    /* What arrives late is late */
    now += 2000 * MSEC;
    store_ask_arrived(&set, &asks[4], now);
    IS(0, STORE_SUSPECT);
    CU_ASSERT_EQUAL(set.stores[0].detached, 1);
    CU_ASSERT_EQUAL(end(&asks[4], STORE_OK), STORE_DROP);
    CU_ASSERT_EQUAL(set.stores[0].detached, 0);
    CU_ASSERT_EQUAL(set.stores[0].in_flight, 0);
}

/* What was sent to a store before it came back says nothing about it */
static void test_old_news(void)
{
    start(1, 0);
    begin(0, 0);
    begin(1, 0);
    begin(2, 0);
    wait_ms(1);
    CU_ASSERT_EQUAL(end(&asks[0], STORE_LOST), STORE_GO_ON);
    wait_ms(1);
    probe(0, STORE_OK);
    IS(0, STORE_UP);
    CU_ASSERT_EQUAL(end(&asks[1], STORE_LOST), STORE_GO_ON);
    IS(0, STORE_UP);
    CU_ASSERT_EQUAL(next(0).action, STORE_SEND);
    CU_ASSERT_EQUAL(next(1).action, STORE_SEND);
    /* This one hangs, and does not keep its read from asking again */
    CU_ASSERT_EQUAL(next(2).action, STORE_SEND);
    CU_ASSERT_EQUAL(set.stores[0].detached, 1);
    drain_events();
    wait_ms(2000);
    IS(0, STORE_UP);
    CU_ASSERT(is_event(STORE_EVENT_BREAK, 0));
}

static void test_choice(void)
{
    start(4, 1);
    for (unsigned i = 0; i < 4; i++) {
        read_in(i, i == 0 ? 100 : 10 * i);
    }
    CHOSEN(0, 0);               /* preferred, though it is slower */
    CHOSEN(1, 1);               /* then by latency */
    CHOSEN(3, 2);
    CHOSEN(15, -1);
    begin(0, 1);
    begin(1, 1);
    CHOSEN(1, 2);               /* and by load */
    for (unsigned i = 0; i < 8; i++) {
        read_in(0, 500);        /* a preferred store that lags */
    }
    CHOSEN(2, 2);
    lose(2);
    CHOSEN(2, 3);
    lose(3);
    CHOSEN(2, 0);
    CHOSEN(3, -1);              /* no suspect one, as two are up */
}

static void test_ties(void)
{
    unsigned chosen[3] = { 0 };

    start(3, 0);
    for (unsigned i = 0; i < 3; i++) {
        read_in(i, 10 + i);
    }
    for (unsigned k = 0; k < 30; k++) {
        chosen[store_choose(&set, 0, now)]++;
    }
    CU_ASSERT(chosen[0] == 10 && chosen[1] == 10 && chosen[2] == 10);
}

static void test_suspects(void)
{
    start(2, 0);
    lose(0);
    lose(1);
    probe(1, STORE_LOST);
    IS(1, STORE_DOWN);
    CHOSEN(0, 0);
    CHOSEN(1, -1);
    for (unsigned k = 0; k < STORE_SUSPECT_READS; k++) {
        CHOSEN(0, 0);
        begin(k, 0);
    }
    CHOSEN(0, -1);
    /* One that is up gets their reads at once */
    probe(1, STORE_OK);
    CU_ASSERT_EQUAL(next(3).action, STORE_SEND);
    CU_ASSERT_EQUAL(set.hedges, 0);
}

static void test_hedge(void)
{
    StoreStep step;
    StoreAsk second;

    start(3, 1);
    for (unsigned i = 0; i < 3; i++) {
        read_in(i, 10);
    }
    begin(0, 0);
    step = next(0);
    CU_ASSERT_EQUAL(step.action, STORE_WAIT);
    CU_ASSERT_EQUAL(step.when, now + 200 * MSEC);
    wait_ms(200);
    step = next(0);
    CU_ASSERT_EQUAL_FATAL(step.action, STORE_SEND);
    CU_ASSERT(step.store > 0);
    store_ask_begin(&set, &reads[0], &second, step.store, now);
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT);
    /* A silent preferred store is not chosen any more */
    CU_ASSERT(store_choose(&set, 0, now) > 0);
    wait_ms(10);
    CU_ASSERT_EQUAL(end(&second, STORE_OK), STORE_TAKE);
    store_read_end(&set, &reads[0]);
    CU_ASSERT_EQUAL(set.stores[0].detached, 1);
    CU_ASSERT_EQUAL(set.hedges, 1);
    CU_ASSERT_EQUAL(end(&asks[0], STORE_OK), STORE_DROP);
    CU_ASSERT_EQUAL(set.stores[0].detached, 0);
    CU_ASSERT_EQUAL(set.stores[0].in_flight, 0);
}

/* Stragglers of a store that answers others use up the budget, then hang */
static void test_budget(void)
{
    unsigned sent = 0;

    start(2, 0);
    for (unsigned k = 0; k < 40; k++) {
        begin(k, 0);
    }
    for (unsigned k = 0; k < 20; k++) {
        read_in(0, 10);
        read_in(1, 10);
    }
    for (unsigned k = 0; k < 40; k++) {
        set.stores[0].latency = MSEC;   /* without the stragglers' penalty */
        sent += next(k).action == STORE_SEND;
    }
    /* The 80 reads came while it was full, and 40 of them end here */
    CU_ASSERT_EQUAL(sent, STORE_HEDGE_BURST);
    wait_ms(50);
    set.stores[0].busy_since = now;
    CU_ASSERT_EQUAL(next(39).action, STORE_WAIT);
    wait_ms(200);
    set.stores[0].busy_since = now;
    CU_ASSERT_EQUAL(next(39).action, STORE_SEND);
    CU_ASSERT_EQUAL(set.hedges, STORE_HEDGE_BURST + 1);
}

static void test_detached(void)
{
    start(2, 1);
    read_in(1, 10);
    for (unsigned k = 0; k < STORE_DETACHED_MAX; k++) {
        CHOSEN(0, 0);
        begin(k, 0);
        store_read_end(&set, &reads[k]);
    }
    CU_ASSERT_EQUAL(set.stores[0].detached, STORE_DETACHED_MAX);
    CHOSEN(0, 1);
    CHOSEN(2, -1);
    end(&asks[0], STORE_OK);
    CHOSEN(2, 0);
}

/* A store that came back with as many detached as may be: no more are */
static void test_detached_risen(void)
{
    start(1, 0);
    begin(0, 0);
    for (unsigned k = 1; k <= STORE_DETACHED_MAX; k++) {
        begin(k, 0);
        store_read_end(&set, &reads[k]);
    }
    begin(STORE_DETACHED_MAX + 1, 0);
    wait_ms(1);
    end(&asks[STORE_DETACHED_MAX + 1], STORE_LOST);
    probe(0, STORE_OK);
    IS(0, STORE_UP);
    CU_ASSERT(asks[0].at < set.stores[0].since);
    next(0);
    CU_ASSERT_EQUAL(set.stores[0].detached, STORE_DETACHED_MAX);
    CU_ASSERT_EQUAL(reads[0].n_asks, 1);
    end(&asks[1], STORE_OK);
    next(0);
    CU_ASSERT_EQUAL(set.stores[0].detached, STORE_DETACHED_MAX);
    CU_ASSERT_EQUAL(reads[0].n_asks, 0);
}

static void test_bad_data(void)
{
    start_with(2, 1, UINT64_MAX, STORE_OUTAGE_WAIT);
    begin(0, 0);
    CU_ASSERT_EQUAL(end(&asks[0], STORE_BAD), STORE_GO_ON);
    IS(0, STORE_UP);
    CU_ASSERT_EQUAL(set.stores[0].errors, 1);
    CU_ASSERT_EQUAL(next(0).store, 1);
    ask(0, 1);
    CU_ASSERT_EQUAL(end(&asks[0], STORE_LOST), STORE_GO_ON);
    /* The other may have it, and is waited for, but not for ever */
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT_STORE);
    wait_ms(20000);
    CU_ASSERT_EQUAL(next(0).action, STORE_FAIL);
    probe(1, STORE_OK);
    CU_ASSERT_EQUAL(next(0).store, 1);
    ask(0, 1);
    CU_ASSERT_EQUAL(end(&asks[0], STORE_BAD), STORE_GO_ON);
    CU_ASSERT_EQUAL(next(0).action, STORE_FAIL);
}

static void test_probe_interval(void)
{
    int64_t ms;

    start(1, 0);
    lose(0);
    for (unsigned i = 0; i < 100; i++) {
        probe(0, STORE_LOST);
        ms = until_probe(0);
        CU_ASSERT(ms >= 187 && ms <= 313);
    }
    /* Those without answer are bounded */
    for (unsigned i = 0; i < STORE_PROBES_MAX; i++) {
        now += 400 * MSEC;
        store_probe_begin(&set, &asks[i], 0, now);
    }
    now += SEC;
    CU_ASSERT_FALSE(store_probe_next(&set, &(unsigned) { 0 }, now));
}

static void test_flaps(void)
{
    int64_t ms = 0;

    start(2, 0);
    read_in(1, 10);
    for (unsigned i = 0; i < 10; i++) {
        lose(0);
        ms = until_probe(0);
        CU_ASSERT(ms <= 10000 && ms >= (i == 0 ? 0 : 187 << MIN(i, 5)));
        probe(0, STORE_OK);
    }
    lose(0);
    /* Not when there is no other */
    lose(1);
    probe(1, STORE_LOST);
    probe(1, STORE_LOST);
    CU_ASSERT(until_probe(0) <= 313);
    /* Forgotten when it was up for a while */
    probe(0, STORE_OK);
    probe(1, STORE_OK);
    wait_ms(10000);
    lose(0);
    CU_ASSERT_EQUAL(until_probe(0), 0);
}

/* A read that hangs in the only other store needs the one that is held back */
static void test_wanted(void)
{
    start(2, 0);
    read_in(1, 10);
    for (unsigned i = 0; i < 6; i++) {
        lose(0);
        probe(0, STORE_OK);
    }
    lose(0);
    begin(0, 1);
    wait_ms(190);
    read_in(1, 10);
    CU_ASSERT_FALSE(store_probe_next(&set, &(unsigned) { 0 }, now));
    now += 150 * MSEC;
    set.stores[1].busy_since = now;     /* it answers others */
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT);
    CU_ASSERT(store_wakeup(&set, now) <= now);
    CU_ASSERT_EQUAL(until_probe(0), 0);
    probe(0, STORE_OK);
    CU_ASSERT_EQUAL(next(0).action, STORE_SEND);
}

/* A store nobody reads from is found faster, or dead */
static void test_idle(void)
{
    unsigned store, probes = 0;
    int64_t from;

    start(2, 0);
    for (unsigned i = 0; i < 9; i++) {
        read_in(0, 900);
        read_in(1, 20);
    }
    from = now;
    while (now < from + 4 * SEC) {
        read_in(1, 20);
        while (store_probe_next(&set, &store, now)) {
            CU_ASSERT_EQUAL(store, 0);
            store_probe_begin(&set, &asks[0], store, now);
            now += MSEC;
            end(&asks[0], STORE_OK);
            probes++;
        }
    }
    CHOSEN(0, 0);
    CU_ASSERT(probes >= 3 && probes <= 14);
    while (now < from + 1000 * SEC) {
        CU_ASSERT_FATAL(until_probe(0) < 100000);
        probe(0, STORE_OK);
        probes++;
    }
    /* Each 128 * 250 ms in the end */
    CU_ASSERT(probes > 25 && probes < 1000 / 24 + 20);
}

static void test_outage(void)
{
    start_with(2, 0, 0, STORE_OUTAGE_ERROR);
    CU_ASSERT(is_event(STORE_EVENT_OUTAGE_BEGIN, 0));
    CU_ASSERT(set.outage && set.outage_since == now);
    store_read_begin(&set, &reads[0], now);
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT_STORE);
    wait_ms(19999);
    CU_ASSERT_FALSE(store_outage_over(&set, now));
    CU_ASSERT_EQUAL(next(0).when, now + MSEC);
    wait_ms(1);
    CU_ASSERT(store_outage_over(&set, now));
    CU_ASSERT_EQUAL(next(0).action, STORE_FAIL);
    /* Later ones do not wait */
    store_read_begin(&set, &reads[1], now);
    CU_ASSERT_EQUAL(next(1).action, STORE_FAIL);
    probe(1, STORE_OK);
    CU_ASSERT_FALSE(set.outage);
    CU_ASSERT_EQUAL(set.outage_ended - set.outage_since, 20 * SEC);
    CU_ASSERT_EQUAL(next(1).action, STORE_SEND);
    /* Gone and back before anybody looked: nothing to tell */
    drain_events();
    lose(1);
    probe(1, STORE_OK);
    CU_ASSERT_FALSE(is_event(STORE_EVENT_OUTAGE_BEGIN, 0));

    /* A read that began before it waits for all of it */
    start_with(1, 0, 1, STORE_OUTAGE_PAUSE);
    store_read_begin(&set, &reads[0], now);
    wait_ms(5000);
    lose(0);
    CU_ASSERT(set.outage && set.outage_since == now);
    probe(0, STORE_LOST);
    wait_ms(19999);
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT_STORE);
    wait_ms(1);
    CU_ASSERT_EQUAL(next(0).action, STORE_FAIL);

    start_with(1, 0, 0, STORE_OUTAGE_WAIT);
    store_read_begin(&set, &reads[0], now);
    wait_ms(1000000);
    CU_ASSERT_EQUAL(next(0).action, STORE_WAIT_STORE);
}

/*
 * It answers probes, and not what it is asked: each time it comes up it is asked
 * again, and that does not go on for longer than an outage may
 */
static void test_half_dead(void)
{
    int64_t from;

    start_with(1, 0, 1, STORE_OUTAGE_PAUSE);
    from = now;
    store_read_begin(&set, &reads[0], now);
    for (unsigned i = 0; next(0).action == STORE_SEND; i++) {
        ask(0, 0);
        wait_ms(2000);
        IS(0, STORE_SUSPECT);
        if (next(0).action == STORE_WAIT_STORE) {
            probe(0, STORE_OK);
        }
        CU_ASSERT_FATAL(i < 100);
        end(&asks[0], STORE_LOST);
    }
    CU_ASSERT_EQUAL(next(0).action, STORE_FAIL);
    CU_ASSERT(now - from >= 20 * SEC && now - from <= 24 * SEC);
    /* One that begins now has as long */
    store_read_begin(&set, &reads[1], now);
    CU_ASSERT_NOT_EQUAL(next(1).action, STORE_FAIL);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "options", test_options },
        { "states", test_states },
        { "timeout", test_timeout },
        { "arrived", test_arrived },
        { "old news", test_old_news },
        { "choice", test_choice },
        { "ties", test_ties },
        { "suspects", test_suspects },
        { "hedge", test_hedge },
        { "hedge budget", test_budget },
        { "detached requests", test_detached },
        { "detached requests of a store that came back", test_detached_risen },
        { "bad data", test_bad_data },
        { "probe interval", test_probe_interval },
        { "flapping", test_flaps },
        { "held back, but wanted", test_wanted },
        { "idle stores", test_idle },
        { "outage", test_outage },
        { "half dead", test_half_dead },
        CU_TEST_INFO_NULL,
    };

    return run_suite("store", tests);
}
