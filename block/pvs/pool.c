/*
 * A pool of stores: requests, probes and events
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "block/nbd.h"
#include "block/pvs/image.h"
#include "block/pvs/pool-int.h"
#include "trace.h"

/* A probe reads as little as there is */
#define PROBE_BYTES     BDRV_SECTOR_SIZE
/* Probes have to wait while the node is drained */
#define DRAINED_PAUSE   (20 * SCALE_MS)
/* What was opened without its server is looked at so often; ns */
#define EARLY_INTERVAL  (20 * SCALE_MS)
/* No longer does a reset wait for a store, ms; nothing else goes on then */
#define WAIT_UP_MAX     2000

/* One request to a store */
typedef struct PvsAsk {
    StoreAsk ask;
    PvsPool *p;
    PvsRead *read;              /* valid while ask.read is */
    unsigned conn;
    bool redial;                /* store.c does not know of it */
    int64_t offset;
    int64_t bytes;
    uint8_t *buf;
    StoreAnswer answer;
    int ret;
    int64_t answered_at;        /* ns */
    QSIMPLEQ_ENTRY(PvsAsk) next;
} PvsAsk;

struct PvsRead {
    StoreRead r;
    PvsWaiter waiter;
    int64_t offset;
    int64_t bytes;
    bool patient;
    bool denied;                /* counted as that */
    PvsCheck *check;
    void *opaque;
    int64_t retry_at;           /* ns; 0: no store has said no */
    QSIMPLEQ_HEAD(, PvsAsk) answers;    /* that it did not look at yet */
    uint8_t *buf;               /* what it came for */
    int error;                  /* of the check: nobody's fault */
};

/* Connections */

/*
 * When to make a connection anew, of a store that is @up or not; INT64_MAX: no
 * need. The first request after it broke makes QEMU's client dial; what is not
 * up gets its probes.
 */
static int64_t conn_redial_due(const PvsConn *c, bool up, int64_t pause)
{
    if (!c->broken || c->in_flight || !(up || c->dial)) {
        return INT64_MAX;
    }
    return c->dial ? c->tried_at : c->tried_at + pause;
}

/*
 * The least busy connection that works, or else the one that was not tried for
 * the longest time. Probes of a store that is not up try them in turn.
 */
static unsigned pick_conn(const PvsStore *s, bool in_turn)
{
    unsigned best = 0;

    for (unsigned i = 1; i < s->n_conns; i++) {
        const PvsConn *c = &s->conns[i], *b = &s->conns[best];

        if (in_turn || (c->broken && b->broken)) {
            best = c->tried_at < b->tried_at ? i : best;
        } else if (b->broken || (!c->broken && c->in_flight < b->in_flight)) {
            best = i;
        }
    }
    return best;
}

static StoreAnswer judge(const PvsStore *s, BlockDriverState *bs,
                         uint64_t generation, int ret)
{
    if (ret >= 0) {
        return STORE_OK;
    }
    if (s->nbd) {
        /* An error by an unbroken connection is the server's own word */
        return nbd_is_connected(bs) &&
               nbd_connection_generation(bs) == generation ? STORE_BAD
                                                           : STORE_LOST;
    }
    return s->local ? STORE_BAD : STORE_LOST;
}

static void coroutine_fn ask_store(PvsAsk *a)
{
    PvsStore *s = &a->p->stores[a->ask.store];
    BdrvChild *child = s->conns[a->conn].child;
    uint64_t generation = 0;

    GRAPH_RDLOCK_GUARD();
    if (s->nbd) {
        generation = nbd_connection_generation(child->bs);
    }
    a->ret = bdrv_co_pread(child, a->offset, a->bytes, a->buf, 0);
    if (s->nbd && generation == 0) {
        /* The request made the first connection */
        generation = nbd_connection_generation(child->bs);
    }
    a->answer = judge(s, child->bs, generation, a->ret);
}

static void ask_free(PvsAsk *a)
{
    qemu_vfree(a->buf);
    g_free(a);
}

/* The connection's part of an answer. Caller holds the lock. */
static void conn_answered(PvsAsk *a)
{
    PvsConn *c = &a->p->stores[a->ask.store].conns[a->conn];

    c->in_flight--;
    c->dial = a->answer == STORE_LOST && (!c->broken || c->dial);
    c->broken = a->answer == STORE_LOST;
    if (c->broken) {
        c->tried_at = a->answered_at;
    }
}

/* Returns who is to be woken. Caller holds the lock. */
static Coroutine *ask_answered(PvsAsk *a)
{
    PvsPool *p = a->p;

    conn_answered(a);
    if (!a->redial && a->ask.read) {
        /*
         * It looks at the answer before store.c hears what it is worth, and may
         * wait for the tree to do so: that is no fault of this store
         */
        if (a->answer != STORE_LOST) {
            store_ask_arrived(&p->set, &a->ask, a->answered_at);
        }
        QSIMPLEQ_INSERT_TAIL(&a->read->answers, a, next);
        return pvs_wake(&a->read->waiter);
    }
    if (!a->redial) {
        store_ask_end(&p->set, &a->ask, a->answer,
                      a->ret < 0 ? a->ret : a->bytes, a->answered_at);
    }
    ask_free(a);
    pvs_pool_changed(p);
    return NULL;
}

static void coroutine_fn ask_entry(void *opaque)
{
    PvsAsk *a = opaque;
    PvsPool *p = a->p;
    BlockDriverState *bs = p->bs;
    Coroutine *co;

    ask_store(a);
    a->answered_at = pvs_now();
    WITH_QEMU_LOCK_GUARD(&p->waits->lock) {
        co = ask_answered(a);
    }
    pvs_wake_finish(co);
    bdrv_dec_in_flight(bs);
}

static PvsAsk *ask_new(PvsPool *p, unsigned store, unsigned conn,
                       int64_t offset, int64_t bytes)
{
    PvsAsk *a = g_new0(PvsAsk, 1);

    a->p = p;
    a->ask.store = store;
    a->conn = conn;
    a->offset = offset;
    a->bytes = bytes;
    a->buf = qemu_memalign(VDISK_GRANULE, ROUND_UP(bytes, VDISK_GRANULE));
    memset(a->buf + bytes, 0, ROUND_UP(bytes, VDISK_GRANULE) - bytes);
    p->stores[store].conns[conn].in_flight++;
    return a;
}

/* It counts as in flight, so the node and its stores stay until it is back */
static void ask_start(PvsAsk *a)
{
    bdrv_inc_in_flight(a->p->bs);
    qemu_coroutine_enter(qemu_coroutine_create(ask_entry, a));
}

/* Reads; the lock is held where nothing else is said */

static void coroutine_fn read_send(PvsRead *read, PvsPool *p, unsigned store)
{
    PvsAsk *a = ask_new(p, store, pick_conn(&p->stores[store], false),
                        read->offset, read->bytes);

    a->read = read;
    store_ask_begin(&p->set, &read->r, &a->ask, store, pvs_now());
    pvs_pool_changed(p);
    qemu_mutex_unlock(&p->waits->lock);
    ask_start(a);
    qemu_mutex_lock(&p->waits->lock);
}

/* Is the answer what was sealed? Without the lock. */
static void coroutine_fn read_check(PvsRead *read, PvsAsk *a)
{
    PvsPool *p = a->p;
    int64_t bad = read->offset;
    int ret = 0;

    if (a->answer == STORE_OK && read->check) {
        ret = read->check(read->opaque, read->offset, read->bytes, a->buf,
                          &bad);
    }
    if (ret != -EBADMSG) {
        read->error = ret;
        return;
    }
    a->answer = STORE_BAD;
    a->ret = -EBADMSG;
    pvs_pool_tell_wrong(p, a->ask.store, bad);
}

static void coroutine_fn read_look(PvsRead *read, PvsPool *p)
{
    PvsAsk *a = QSIMPLEQ_FIRST(&read->answers);
    StoreFate fate;

    QSIMPLEQ_REMOVE_HEAD(&read->answers, next);
    qemu_mutex_unlock(&p->waits->lock);
    read_check(read, a);
    qemu_mutex_lock(&p->waits->lock);
    fate = store_ask_end(&p->set, &a->ask, a->answer,
                         a->ret < 0 ? a->ret : a->bytes, a->answered_at);
    if (a->answer == STORE_OK && read->error == 0) {
        pvs_pool_note_right(p, a->ask.store, read->offset, read->bytes);
    }
    if (read->error < 0) {
        trace_pvs_check_failed(p->bs, read->offset, read->error);
    } else if (fate == STORE_TAKE ||
        (fate == STORE_DROP && a->answer == STORE_OK && !read->buf)) {
        /* Good data is taken, though nobody waited for it any more */
        read->buf = g_steal_pointer(&a->buf);
    }
    ask_free(a);
    pvs_pool_changed(p);
}

/* Is there a read that no store has right? Told as an outage if it waits on */
static void count_denied(PvsRead *read, PvsPool *p, bool denied)
{
    if (read->denied == denied) {
        return;
    }
    read->denied = denied;
    if (denied && p->denied++ == 0) {
        p->denied_since = pvs_now();
    } else if (!denied) {
        p->denied--;
    }
    qemu_bh_schedule(p->bh);
}

/* A store that is up says that it does not have it: ask again, some time */
static void ask_later(PvsRead *read, PvsPool *p, int64_t now)
{
    read->r.bad = read->r.tried = 0;
    read->retry_at = now + PVS_RETRY_MS * SCALE_MS;
    count_denied(read, p, true);
}

/* What is up says that it does not have it, and nobody waits for it */
static bool read_is_denied(const PvsRead *read, const StoreStep *step)
{
    return !read->patient && read->r.bad &&
           (step->action == STORE_FAIL || step->action == STORE_WAIT_STORE);
}

/*
 * No store has it, or none is up for too long. What those that are up say they
 * do not have is asked for again, as in an outage: the store may be a relay
 * that is in one.
 */
static bool read_fails(PvsRead *read, PvsPool *p, int64_t now)
{
    StoreSet *set = &p->set;
    bool all_bad = read->r.bad == UINT64_MAX >> (STORE_MAX - set->n);

    if (set->outage_action != STORE_OUTAGE_WAIT &&
        (!all_bad || now - read->r.start >= set->outage_wait)) {
        return true;
    }
    ask_later(read, p, now);
    return false;
}

static int coroutine_fn read_step(PvsRead *read, PvsPool *p)
{
    int64_t now = pvs_now();
    int64_t limit = pvs_waits_limit(p->waits);
    StoreStep step = { .action = STORE_WAIT_STORE, .when = read->retry_at };

    if (!QSIMPLEQ_EMPTY(&read->answers)) {
        read_look(read, p);
        return read->buf ? 0 : read->error ?: -EINPROGRESS;
    }
    if (now >= limit) {
        return -EIO;
    }
    if (now >= read->retry_at) {
        step = store_read_next(&p->set, &read->r, now);
        pvs_pool_changed(p);
    }
    if (read_is_denied(read, &step)) {
        return -ENODATA;
    }
    switch (step.action) {
    case STORE_SEND:
        read_send(read, p, step.store);
        break;
    case STORE_FAIL:
        return read_fails(read, p, now) ? -EIO : -EINPROGRESS;
    case STORE_WAIT_STORE:
        if (read->r.bad && p->set.outage_action != STORE_OUTAGE_ERROR) {
            ask_later(read, p, now);
            break;
        }
        /* fall through */
    default:
        pvs_co_wait(p->waits, &read->waiter, MIN(step.when, limit));
        break;
    }
    return -EINPROGRESS;
}

/* Answers that came too late to be looked at */
static void read_drop_answers(PvsRead *read, PvsPool *p)
{
    PvsAsk *a, *next;

    QSIMPLEQ_FOREACH_SAFE(a, &read->answers, next, next) {
        store_ask_end(&p->set, &a->ask, a->answer,
                      a->ret < 0 ? a->ret : a->bytes, a->answered_at);
        ask_free(a);
    }
}

int coroutine_fn pvs_pool_co_read(PvsPool *p, int64_t offset, int64_t bytes,
                                  bool patient, PvsCheck *check, void *opaque,
                                  uint8_t **buf)
{
    PvsRead read = {
        .offset = offset, .bytes = bytes, .patient = patient, .check = check,
        .opaque = opaque,
    };
    int ret;

    assert(offset + bytes <= p->length);
    QSIMPLEQ_INIT(&read.answers);
    WITH_QEMU_LOCK_GUARD(&p->waits->lock) {
        store_read_begin(&p->set, &read.r, pvs_now());
        do {
            ret = read_step(&read, p);
        } while (ret == -EINPROGRESS);
        read_drop_answers(&read, p);
        count_denied(&read, p, false);
        store_read_end(&p->set, &read.r);
        pvs_pool_changed(p);
    }
    if (ret < 0) {
        qatomic_set(&pvs_image(p->bs)->gave_up, true);
        trace_pvs_read_failed(p->bs, offset, bytes, ret);
    }
    *buf = read.buf;
    return ret;
}

bool coroutine_fn pvs_pool_co_wait_up(PvsPool *p)
{
    int64_t until = p->opened_at + MIN(p->set.request_timeout,
                                       WAIT_UP_MAX * SCALE_MS);
    PvsWaiter w = {};

    QEMU_LOCK_GUARD(&p->waits->lock);
    while (!p->set.up && pvs_now() < MIN(until, pvs_waits_limit(p->waits))) {
        pvs_co_wait(p->waits, &w, MIN(until, pvs_waits_limit(p->waits)));
    }
    return p->set.up;
}

/* Probes; main loop, the lock is held */

static void conn_probe(PvsPool *p, unsigned store, unsigned conn)
{
    PvsAsk *a = ask_new(p, store, conn, 0, MIN(PROBE_BYTES, p->length));

    p->stores[store].conns[conn].tried_at = pvs_now();
    store_probe_begin(&p->set, &a->ask, store, pvs_now());
    QSIMPLEQ_INSERT_TAIL(&p->to_start, a, next);
}

/*
 * A store that is not up is probed by all connections that are idle: QEMU's
 * client needs a request to notice that one broke, a second one to dial, and a
 * third one to use it. One after the other this would take a round for each.
 */
static void pool_probe(PvsPool *p, unsigned store)
{
    PvsStore *s = &p->stores[store];
    Store *health = &p->set.stores[store];
    bool all = health->state != STORE_UP;

    conn_probe(p, store, pick_conn(s, all));
    for (unsigned i = 0; all && i < s->n_conns &&
                         health->probes < STORE_PROBES_MAX; i++) {
        if (!s->conns[i].in_flight) {
            conn_probe(p, store, i);
        }
    }
}

static void pool_redial(PvsPool *p, unsigned store, int64_t now)
{
    PvsStore *s = &p->stores[store];
    bool up = p->set.stores[store].state == STORE_UP;

    for (unsigned i = 0; i < s->n_conns; i++) {
        if (conn_redial_due(&s->conns[i], up, p->set.probe_interval) <= now) {
            PvsAsk *a = ask_new(p, store, i, 0, MIN(PROBE_BYTES, p->length));

            a->redial = true;
            s->conns[i].dial = false;
            s->conns[i].tried_at = now;
            QSIMPLEQ_INSERT_TAIL(&p->to_start, a, next);
        }
    }
}

/* When stores that never were up are to be probed; INT64_MAX: there are none */
static int64_t early_due(PvsPool *p, int64_t now)
{
    if (now >= p->opened_at + PVS_POOL_EARLY) {
        return INT64_MAX;
    }
    for (unsigned i = 0; i < p->set.n; i++) {
        if (!p->set.stores[i].risen && p->set.stores[i].state != STORE_UP) {
            return MIN(p->early_at, p->opened_at + PVS_POOL_EARLY);
        }
    }
    return p->set.outage ? p->opened_at + PVS_POOL_EARLY : INT64_MAX;
}

static void early_probes(PvsPool *p, int64_t now)
{
    if (now < p->early_at || now >= p->opened_at + PVS_POOL_EARLY) {
        return;
    }
    p->early_at = now + EARLY_INTERVAL;
    for (unsigned i = 0; i < p->set.n; i++) {
        Store *s = &p->set.stores[i];

        if (!s->risen && s->state != STORE_UP && !s->in_flight) {
            pool_probe(p, i);
        }
    }
}

static int64_t redial_due(PvsPool *p)
{
    int64_t when = INT64_MAX;

    for (unsigned i = 0; i < p->set.n; i++) {
        PvsStore *s = &p->stores[i];
        bool up = p->set.stores[i].state == STORE_UP;

        for (unsigned k = 0; k < s->n_conns; k++) {
            when = MIN(when, conn_redial_due(&s->conns[k], up,
                                             p->set.probe_interval));
        }
    }
    return when;
}

static void pool_arm(PvsPool *p)
{
    int64_t now = pvs_now();
    int64_t when = MIN(MIN(store_wakeup(&p->set, now), redial_due(p)),
                       early_due(p, now));

    if (p->waits->drains) {
        when = MAX(when, now + DRAINED_PAUSE);
    }
    if (when < p->armed) {
        p->armed = when;
        timer_mod(p->timer, when);
    }
}

void pvs_pool_changed(PvsPool *p)
{
    StoreEvent e;
    bool any = false;

    while (store_event_next(&p->set, &e)) {
        g_array_append_val(p->events, e);
        any = true;
    }
    if (any) {
        qemu_bh_schedule(p->bh);
        pvs_wake_all(p->waits);
    }
    pool_arm(p);
}

/* The lock is not held */
static void pool_start_asks(PvsPool *p)
{
    PvsAsk *a;

    while ((a = QSIMPLEQ_FIRST(&p->to_start))) {
        QSIMPLEQ_REMOVE_HEAD(&p->to_start, next);
        ask_start(a);
    }
}

void pvs_pool_timer(void *opaque)
{
    PvsPool *p = opaque;
    unsigned store;

    WITH_QEMU_LOCK_GUARD(&p->waits->lock) {
        int64_t now = pvs_now();

        p->armed = INT64_MAX;
        store_tick(&p->set, now);
        if (p->set.outage != p->outage_told) {
            /* Its image may be in use now, or open for long enough */
            qemu_bh_schedule(p->bh);
        }
        if (!p->waits->drains) {
            early_probes(p, now);
            while (store_probe_next(&p->set, &store, now)) {
                pool_probe(p, store);
            }
            for (unsigned i = 0; i < p->set.n; i++) {
                pool_redial(p, i, now);
            }
        }
        pvs_pool_changed(p);
    }
    pool_start_asks(p);
}

/* Events; main loop */

static void break_store(PvsPool *p, unsigned store)
{
    PvsStore *s = &p->stores[store];

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (unsigned i = 0; i < s->n_conns; i++) {
        bdrv_cancel_in_flight(s->conns[i].child->bs);
    }
}

/* What is assigned only, and not in use, is nobody's trouble yet */
static bool is_used(PvsPool *p)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return !QLIST_EMPTY(&p->bs->parents);
}

void pvs_pool_bh(void *opaque)
{
    PvsPool *p = opaque;
    bool used = is_used(p);
    g_autoptr(GArray) events = NULL;

    WITH_QEMU_LOCK_GUARD(&p->waits->lock) {
        events = p->events;
        p->events = g_array_new(false, false, sizeof(StoreEvent));
    }
    for (guint i = 0; i < events->len; i++) {
        StoreEvent *e = &g_array_index(events, StoreEvent, i);

        switch (e->type) {
        case STORE_EVENT_STATE:
            if (used) {
                pvs_pool_tell_state(p, e);
            }
            break;
        case STORE_EVENT_BREAK:
            break_store(p, e->store);
            break;
        case STORE_EVENT_OUTAGE_END:
            if (used) {
                pvs_image_store_is_back(pvs_image(p->bs));
            }
            break;
        default:
            break;
        }
    }
    if (used) {
        pvs_pool_tell_outage(p);
    }
}

void pvs_pool_break(PvsPool *p)
{
    for (unsigned i = 0; i < p->set.n; i++) {
        PvsStore *s = &p->stores[i];
        bool owes = false;

        /* By connection: the set does not know of those that are redialled */
        WITH_QEMU_LOCK_GUARD(&p->waits->lock) {
            for (unsigned k = 0; k < s->n_conns; k++) {
                owes |= s->conns[k].in_flight;
            }
        }
        if (owes) {
            break_store(p, i);
        }
    }
}
