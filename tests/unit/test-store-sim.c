/*
 * Simulated guests, stores and faults around the stores' state machine
 *
 * Time is that of the next event. The rule for reads: none takes longer than
 * READ_LIMIT of the time that any one store was well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include "block/pvs/store.h"
#include "suite.h"

#define MSEC            INT64_C(1000000)
#define SEC             INT64_C(1000000000)
#define READ_LIMIT      SEC
#define TAIL_LIMIT      (300 * MSEC)

#define STORES          4
#define CLIENTS         24
#define REQUESTS        1024
#define EVENTS          8192

typedef enum Mode {
    WELL,
    SLOW,
    STOPPED,            /* answers all when it is well again */
    MUTE,               /* what it was asked is lost, until it is redialled */
    KILLED,
    LOSSY,              /* some of what it was asked is lost */
    ROTTEN,             /* some of its data is bad */
    MODES,
} Mode;

typedef enum Kind { RETURN, START, LOOK, TICK, FAULT } Kind;

typedef struct Event {
    int64_t time;
    uint64_t serial;
    Kind kind;
    unsigned index, generation;     /* of whom; Mode of a FAULT */
} Event;

typedef struct Client {
    StoreRead read;
    bool busy;
    unsigned generation;
} Client;

typedef struct Request {
    StoreAsk ask;
    Client *client;     /* NULL: a probe */
    StoreAnswer answer;
    bool used, held, lost;
    unsigned generation;
} Request;

typedef struct SimStore {
    Mode mode;
    bool file;          /* has no connection to break */
    bool dead;          /* the connection, whatever the mode */
    unsigned lost;      /* requests, or answered slowly */
    int64_t usual;      /* latency */
    unsigned chance;    /* of a fault, of 100 */
    int64_t well_since; /* with nothing lost; INT64_MAX: it is not */
} SimStore;

typedef struct Sim {
    StoreSet set;
    SimStore stores[STORES];
    Client clients[CLIENTS];
    Request requests[REQUESTS];
    unsigned queue, free_hint;
    int64_t now, think, last_start, tick_at;
    bool outage;

    Event events[EVENTS];
    unsigned n_events;
    uint64_t serial;

    uint64_t reads, sent, probes, failed;
} Sim;

static uint64_t rng = 1;
/* Latencies of reads while one store was always well; buckets of 1 ms */
static uint64_t histogram[1200];
static unsigned wrong;      /* asserts of CUnit would be most of the time */

#define CHECK(x) do {                                               \
        if (!(x) && wrong++ < 10) {                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
        }                                                           \
    } while (0)

static uint32_t rnd(uint32_t below)
{
    rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (rng >> 32) * below >> 32;
}

/* The queue of events is a heap */

static bool before(const Event *a, const Event *b)
{
    return a->time < b->time || (a->time == b->time && a->serial < b->serial);
}

static void push(Sim *sim, Kind kind, int64_t time, unsigned index,
                 unsigned generation)
{
    Event e = { time, sim->serial++, kind, index, generation };
    unsigned i = sim->n_events++;

    g_assert(sim->n_events <= EVENTS && time >= sim->now);
    while (i && before(&e, &sim->events[(i - 1) / 2])) {
        sim->events[i] = sim->events[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    sim->events[i] = e;
}

static Event pop(Sim *sim)
{
    Event top = sim->events[0];
    Event e = sim->events[--sim->n_events];
    unsigned i = 0, child;

    while ((child = 2 * i + 1) < sim->n_events) {
        if (child + 1 < sim->n_events &&
            before(&sim->events[child + 1], &sim->events[child])) {
            child++;
        }
        if (!before(&sim->events[child], &e)) {
            break;
        }
        sim->events[i] = sim->events[child];
        i = child;
    }
    sim->events[i] = e;
    return top;
}

/* Stores */

static int64_t draw_latency(const SimStore *s)
{
    if (s->mode == SLOW) {
        return (300 + rnd(1600)) * MSEC;
    }
    if (rnd(500) == 0) {
        return rnd(90) * MSEC;
    }
    return s->usual / 2 + rnd(s->usual);
}

static void check_reads(Sim *sim, unsigned store)
{
    int64_t well_since = sim->stores[store].well_since;

    for (unsigned i = 0; i < sim->queue && well_since != INT64_MAX; i++) {
        const Client *c = &sim->clients[i];

        CHECK(!c->busy ||
              sim->now - MAX(c->read.start, well_since) <= READ_LIMIT);
    }
}

/* Only what is lost with nobody knowing is a matter of request-timeout */
static void note_well(Sim *sim, unsigned store)
{
    SimStore *s = &sim->stores[store];
    bool well = s->mode == WELL && !s->dead && s->lost == 0;

    if (well && s->well_since == INT64_MAX) {
        s->well_since = sim->now;
    } else if (!well) {
        check_reads(sim, store);
        s->well_since = INT64_MAX;
    }
}

static void lose(Sim *sim, Request *r, bool lost)
{
    sim->stores[r->ask.store].lost += lost - r->lost;
    r->lost = lost;
    note_well(sim, r->ask.store);
}

static void answer(Sim *sim, Request *r, StoreAnswer a, int64_t after)
{
    r->answer = a;
    r->held = false;
    lose(sim, r, false);
    push(sim, RETURN, sim->now + after, r - sim->requests, ++r->generation);
}

static void serve(Sim *sim, Request *r)
{
    SimStore *s = &sim->stores[r->ask.store];
    bool hit = rnd(100) < s->chance;

    if (s->dead || s->mode == MUTE || (s->mode == LOSSY && hit)) {
        lose(sim, r, true);
    } else if (s->mode == STOPPED) {
        r->held = true;
    } else if (s->mode == KILLED) {
        answer(sim, r, STORE_LOST, MSEC);
    } else {
        answer(sim, r, s->mode == ROTTEN && hit && r->client ?
               STORE_BAD : STORE_OK, draw_latency(s));
        lose(sim, r, s->mode == SLOW);
    }
}

static Request *new_request(Sim *sim, Client *client)
{
    Request *r;

    do {
        r = &sim->requests[sim->free_hint++ % REQUESTS];
    } while (r->used);
    r->used = true;
    r->client = client;
    return r;
}

static void break_connection(Sim *sim, unsigned store)
{
    if (sim->stores[store].file) {
        return;
    }
    sim->stores[store].dead = false;
    for (unsigned i = 0; i < REQUESTS; i++) {
        if (sim->requests[i].used && sim->requests[i].ask.store == store) {
            answer(sim, &sim->requests[i], STORE_LOST, MSEC);
        }
    }
    note_well(sim, store);
}

static void set_mode(Sim *sim, unsigned store, Mode mode)
{
    SimStore *s = &sim->stores[store];

    s->mode = mode;
    s->dead |= mode == MUTE;
    note_well(sim, store);
    if (mode == KILLED) {
        break_connection(sim, store);
    }
    for (unsigned i = 0; i < REQUESTS; i++) {
        Request *r = &sim->requests[i];

        if (!r->used || r->ask.store != store) {
            continue;
        }
        if (r->held && mode == WELL) {
            answer(sim, r, STORE_OK, draw_latency(s));
        } else if ((mode == STOPPED || mode == MUTE) && !r->lost) {
            r->generation++;
            r->held = mode == STOPPED;
            lose(sim, r, mode == MUTE);
        }
    }
}

/* The caller of the state machine, as the driver will do it */

static void finish(Sim *sim, Client *c)
{
    int64_t took = sim->now - c->read.start;

    for (unsigned i = 0; i < sim->set.n; i++) {
        check_reads(sim, i);
    }
    if (sim->stores[0].well_since == 0) {
        histogram[MIN(took / MSEC, G_N_ELEMENTS(histogram) - 1)]++;
    }
    store_read_end(&sim->set, &c->read);
    c->busy = false;
    c->generation++;
    if (sim->now < sim->last_start) {
        push(sim, START, sim->now + rnd(2 * sim->think), c - sim->clients, 0);
    }
}

static void check_send(Sim *sim, const StoreRead *read, unsigned i)
{
    const Store *s = &sim->set.stores[i];

    CHECK(s->state == STORE_UP ||
          (s->state == STORE_SUSPECT && sim->set.up == 0));
    CHECK(s->detached < STORE_DETACHED_MAX);
    CHECK(!(read->tried >> i & 1));
}

static void check_failure(Sim *sim, const Client *c)
{
    CHECK(sim->set.outage_action != STORE_OUTAGE_WAIT);
    CHECK(sim->now - c->read.start >= sim->set.outage_wait ||
          store_outage_over(&sim->set, sim->now));
    sim->failed++;
}

static void look(Sim *sim, Client *c)
{
    for (;;) {
        StoreStep step = store_read_next(&sim->set, &c->read, sim->now);
        Request *r;

        if (step.action == STORE_FAIL) {
            check_failure(sim, c);
            finish(sim, c);
            return;
        }
        if (step.action != STORE_SEND) {
            CHECK(step.when > sim->now);
            push(sim, LOOK, MAX(step.when, sim->now + 1), c - sim->clients,
                 ++c->generation);
            return;
        }
        check_send(sim, &c->read, step.store);
        r = new_request(sim, c);
        store_ask_begin(&sim->set, &c->read, &r->ask, step.store, sim->now);
        sim->sent++;
        serve(sim, r);
    }
}

static void end_request(Sim *sim, Request *r)
{
    StoreFate fate;

    lose(sim, r, false);
    r->used = false;
    r->generation++;
    fate = store_ask_end(&sim->set, &r->ask, r->answer,
                         r->answer == STORE_OK ? 4096 : -EIO, sim->now);
    if (fate == STORE_TAKE) {
        finish(sim, r->client);
    } else if (fate == STORE_GO_ON) {
        look(sim, r->client);
    }
}

static void check_set(Sim *sim)
{
    unsigned up = 0;

    for (unsigned i = 0; i < sim->set.n; i++) {
        const Store *s = &sim->set.stores[i];

        up += s->state == STORE_UP;
        CHECK(s->detached < STORE_DETACHED_MAX + sim->queue);
        CHECK(s->probes <= STORE_PROBES_MAX);
        CHECK(s->detached + s->probes <= s->in_flight);
    }
    CHECK(up == sim->set.up && sim->set.outage == (up == 0));
}

static void take_events(Sim *sim)
{
    StoreEvent e;

    while (store_event_next(&sim->set, &e)) {
        if (e.type == STORE_EVENT_BREAK) {
            break_connection(sim, e.store);
        } else if (e.type == STORE_EVENT_STATE) {
            for (unsigned i = 0; i < sim->queue; i++) {
                if (sim->clients[i].busy) {
                    look(sim, &sim->clients[i]);
                }
            }
        } else {
            CHECK(sim->outage == (e.type == STORE_EVENT_OUTAGE_END));
            sim->outage = e.type == STORE_EVENT_OUTAGE_BEGIN;
        }
    }
}

static void tick(Sim *sim)
{
    unsigned store;

    store_tick(&sim->set, sim->now);
    take_events(sim);
    while (store_probe_next(&sim->set, &store, sim->now)) {
        Request *r = new_request(sim, NULL);

        store_probe_begin(&sim->set, &r->ask, store, sim->now);
        sim->probes++;
        serve(sim, r);
    }
    sim->tick_at = INT64_MAX;
}

static void step(Sim *sim)
{
    Event e = pop(sim);
    Client *c = sim->clients + (e.kind == RETURN ? 0 : e.index);
    int64_t when;

    sim->now = e.time;
    if (e.kind == RETURN) {
        if (sim->requests[e.index].generation == e.generation) {
            end_request(sim, &sim->requests[e.index]);
        }
    } else if (e.kind == START) {
        c->busy = true;
        sim->reads++;
        store_read_begin(&sim->set, &c->read, sim->now);
        look(sim, c);
    } else if (e.kind == LOOK && c->busy && c->generation == e.generation) {
        look(sim, c);
    } else if (e.kind == TICK && sim->tick_at == sim->now) {
        tick(sim);
    } else if (e.kind == FAULT) {
        set_mode(sim, e.index, e.generation);
    }
    take_events(sim);
    check_set(sim);
    when = MAX(store_wakeup(&sim->set, sim->now), sim->now);
    if (when < sim->tick_at) {
        sim->tick_at = when;
        push(sim, TICK, when, 0, 0);
    }
}

static void sim_init(Sim *sim, const StoreOptions *o, unsigned n,
                     unsigned queue, int64_t think, int64_t last_start)
{
    memset(sim, 0, sizeof(*sim));
    sim->queue = queue;
    sim->think = think;
    sim->last_start = last_start;
    sim->tick_at = INT64_MAX;
    store_set_init(&sim->set, o, n, rnd(1 << n) & rnd(1 << n), UINT64_MAX,
                   rnd(1 << 30), 0);
    for (unsigned i = 0; i < n; i++) {
        sim->stores[i].usual = (rnd(3) ? 1 + rnd(5) : 10 + rnd(30)) * MSEC;
        sim->stores[i].chance = 5 + rnd(40);
    }
    for (unsigned i = 0; i < queue; i++) {
        push(sim, START, rnd(2 * think), i, 0);
    }
}

static void run(Sim *sim, int64_t until)
{
    while (sim->n_events && sim->events[0].time <= until) {
        step(sim);
    }
    sim->now = until;
}

static Mode draw_mode(const Sim *sim, unsigned store, bool one_is_well)
{
    Mode mode;

    do {
        mode = rnd(MODES);
    } while (mode == WELL || (mode == ROTTEN && !one_is_well) ||
             (sim->stores[store].file &&
              (mode == MUTE || mode == KILLED || mode == LOSSY)));
    return mode;
}

/* Some faults in the ten seconds from the first on; then all are well */
static void add_faults(Sim *sim, unsigned store, bool one_is_well)
{
    int64_t t = SEC + rnd(3000) * MSEC;
    bool flaps = rnd(4) == 0;

    sim->stores[store].file = rnd(4) == 0;
    while (t < 10 * SEC) {
        push(sim, FAULT, t, store, draw_mode(sim, store, one_is_well));
        t += (flaps ? 50 + rnd(1000) : 100 + rnd(rnd(2) ? 8000 : 2000)) * MSEC;
        t = MIN(t, 10 * SEC);
        push(sim, FAULT, t, store, WELL);
        t += (flaps ? 50 + rnd(1000) : 1 + rnd(4000)) * MSEC;
    }
}

static void scenario(Sim *sim)
{
    StoreOptions o;
    unsigned n = 1 + rnd(STORES);
    unsigned queue = 1 + rnd(rnd(2) ? CLIENTS : 4);
    bool one_is_well = n > 1 && rnd(3);

    store_options_default(&o);
    o.outage_action = rnd(4) ? STORE_OUTAGE_WAIT : STORE_OUTAGE_ERROR;
    o.outage_wait = 2;
    sim_init(sim, &o, n, queue, queue * (10 + rnd(40)) * MSEC, 12 * SEC);
    sim->stores[0].well_since = one_is_well ? 0 : 1;
    for (unsigned i = one_is_well; i < n; i++) {
        if (rnd(4)) {
            add_faults(sim, i, one_is_well);
        }
    }
    run(sim, 15 * SEC);
    CHECK(!one_is_well || sim->failed == 0);
    for (unsigned i = 0; i < n; i++) {
        check_reads(sim, i);
        CHECK(sim->set.stores[i].state == STORE_UP || n > 1);
        CHECK(sim->set.stores[i].detached == 0);
    }
    CHECK(!sim->outage);
}

static unsigned scenarios(void)
{
    const char *n = g_getenv("STORE_SCENARIOS");

    return n ? atoi(n) : 10000;
}

/* The smallest latency in ms that @part of @of reads do not exceed */
static unsigned percentile(unsigned part, unsigned of)
{
    uint64_t total = 0, sum = 0;
    unsigned ms = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(histogram); i++) {
        total += histogram[i];
    }
    while ((sum += histogram[ms]) < total * part / of) {
        ms++;
    }
    return ms + 1;
}

static void test_faults(void)
{
    Sim *sim = g_new(Sim, 1);
    uint64_t reads = 0, sent = 0;

    for (unsigned i = 0; i < scenarios(); i++) {
        unsigned was = wrong;

        rng = i;
        scenario(sim);
        reads += sim->reads;
        sent += sim->sent;
        if (wrong != was) {
            fprintf(stderr, "in scenario %u\n", i);
        }
    }
    printf("%" PRIu64 " reads, %" PRIu64 " sent; ms: p50 %u p99 %u p99.9 %u "
           "p99.99 %u ", reads, sent, percentile(1, 2), percentile(99, 100),
           percentile(999, 1000), percentile(9999, 10000));
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT(percentile(999, 1000) * MSEC < TAIL_LIMIT);
    g_free(sim);
}

/* All stores in @mode: does hedging send no more than it may? */
static bool load(Mode mode, unsigned queue)
{
    Sim *sim = g_new(Sim, 1);
    StoreOptions o;
    bool ok;

    store_options_default(&o);
    o.outage_action = STORE_OUTAGE_WAIT;
    sim_init(sim, &o, 3, queue, 20 * MSEC, 300 * SEC);
    for (unsigned i = 0; i < 3; i++) {
        set_mode(sim, i, mode);
    }
    run(sim, 310 * SEC);
    printf("%" PRIu64 " reads, %" PRIu64 " sent; ", sim->reads, sim->sent);
    ok = sim->sent <= sim->reads + sim->reads / 10 + STORE_HEDGE_BURST;
    g_free(sim);
    return ok;
}

static void test_load(void)
{
    for (unsigned queue = 1; queue <= CLIENTS; queue *= 4) {
        CU_ASSERT(load(WELL, queue));
        CU_ASSERT(load(SLOW, queue));
    }
    CU_ASSERT_EQUAL(wrong, 0);
}

int main(void)
{
    static const CU_TestInfo tests[] = {
        { "faults", test_faults },
        { "load on stores that are well, and all slow", test_load },
        CU_TEST_INFO_NULL,
    };

    return run_suite("store simulation", tests);
}
