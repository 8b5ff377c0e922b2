/*
 * pvs, private image mode: shipping the journal to the store
 *
 * As "Shipping" in docs/interop/reconnect-buffer.rst says: one epoch after the
 * other is sent, and settled while the next one is sent. Each step below names
 * what would break without it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "block/block-io.h"
#include "block/nbd.h"
#include "block/pvs/shipment.h"
#include "block/vdisk/graph.h"
#include "trace.h"

/* An epoch that the guest does not end is ended (J2) */
#define EPOCH_AGE       (2 * NANOSECONDS_PER_SECOND)
/* Nothing was written for so long: the header tells what is durable */
#define QUIET           (1 * NANOSECONDS_PER_SECOND)
#define TICK            (250 * SCALE_MS)
/* No request to the store has more; ms, as the longest request-timeout */
#define PATIENCE_MAX    600000
/* A store that refuses what is sent is asked again so late at most */
#define PAUSE_MAX       (5 * NANOSECONDS_PER_SECOND)
/* A session that breaks so often while the same is sent is told (J10) */
#define BREAKS_TOLD     3

static void header_tail(JournalHeader *h, const void *opaque)
{
    h->tail = *(const JournalTail *)opaque;
}

static int coroutine_fn GRAPH_RDLOCK
send_epoch(PvsPrivate *p, PvsShipment *now, uint64_t session)
{
    int ret;

    /* Not before it is durable here: the store would be ahead of us (J4) */
    ret = pvs_journal_co_make_durable(&p->journal, now->epoch->end.seq - 1);
    if (ret >= 0) {
        ret = pvs_private_co_set_closed(p, session, false);
    }
    if (ret >= 0) {
        ret = pvs_shipment_co_send(now, session);
    }
    if (ret >= 0) {
        /* A server that crashes forgets what was not flushed (J3) */
        ret = pvs_private_store_begin(p, session)
              ? pvs_private_store_end(p, session, bdrv_co_flush(p->store->bs))
              : -ENOTCONN;
    }
    if (ret >= 0 && !pvs_private_store_same(p, session)) {
        /* Another connection's flush vouches for nothing sent on this one */
        pvs_private_store_failed(p, session, -ENOTCONN);
        ret = -ENOTCONN;
    }
    return ret;
}

/*
 * What is sent at once waits in a row, and a flush takes as long as the store's
 * disk needs for a whole epoch. With a link or a disk that is too slow for that
 * within request-timeout the session would break while an epoch is sent, and
 * the same be sent again, for ever (J10). So it gets twice the time then; and
 * half of it, but no less than request-timeout, when a whole epoch took less.
 * An epoch that took @took ns: no request of it took longer.
 */
static void learn_patience(PvsPrivate *p, uint64_t session, int ret,
                           int64_t took)
{
    int64_t ms = p->patience;

    if (ret >= 0) {
        p->breaks = 0;
        pvs_shipment_learn(p, p->now->epoch->bytes, took);
        ms = took < ms * SCALE_MS / 2 ? MAX(ms / 2, p->request_timeout) : ms;
    } else if (pvs_private_session(p) != session) {
        p->breaks++;
        pvs_shipment_learn(p, 0, took);
        ms = took >= ms * SCALE_MS ? MIN(ms * 2, PATIENCE_MAX) : ms;
    }
    if (ms != p->patience && p->nbd) {
        trace_pvs_private_patience(p->bs, p->patience, ms);
        p->patience = ms;
        nbd_set_io_timeout(p->store->bs, ms);
    }
}

/*
 * A store that refuses what is sent, as one that is full, is asked again later,
 * and ever later. Another connection of NBD is to another server, maybe.
 */
static void note_refusal(PvsPrivate *p, uint64_t session, int ret)
{
    if (ret >= 0) {
        p->pause = 0;
    } else if (ret != -EINTR && ret != -ENOTCONN &&
               (!p->nbd || pvs_private_session(p) == session)) {
        p->pause = p->pause ? MIN(p->pause * 2, PAUSE_MAX) : TICK;
        p->paused_until = pvs_now() + p->pause;
        p->paused_session = session;
    }
}

static bool is_paused(const PvsPrivate *p, uint64_t session)
{
    return p->pause && pvs_now() < p->paused_until &&
           (!p->nbd || session == p->paused_session);
}

/* Why it does not go on although the store is there; @ret is 0 if it does */
static void note_stuck(PvsPrivate *p, const char *what, int ret)
{
    g_autofree char *stuck = NULL;

    QEMU_LOCK_GUARD(&p->waits.lock);
    if (ret < 0 && ret != -EINTR && ret != -ENOTCONN &&
        (p->state == PRIVATE_READY || p->doubted)) {
        stuck = g_strdup_printf("%s: %s", what, g_strerror(-ret));
    } else if (p->breaks >= BREAKS_TOLD) {
        stuck = g_strdup("the store breaks off while it is sent an epoch, "
                         "again and again");
    }
    if (g_strcmp0(stuck, p->stuck)) {
        /* Only then: what tells it wakes us, and it would be tried at once */
        g_free(p->stuck);
        p->stuck = g_steal_pointer(&stuck);
        qemu_bh_schedule(p->bh);
    }
}

/* Settling: of an epoch that the store has durably the rest is here */

static int coroutine_fn GRAPH_RDLOCK flush_copy(PvsPrivate *p)
{
    int ret = vdisk_layer_co_flush(p->layer);

    if (ret >= 0) {
        qatomic_set(&p->copy_changed, false);
        qatomic_set(&p->copy_new, false);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK settle_epoch(PvsPrivate *p)
{
    JournalEpoch *e = p->sent->epoch;
    int ret = pvs_shipment_co_copy(p->sent);

    if (ret >= 0 && qatomic_read(&p->copy_changed)) {
        /* The copy counts as soon as the journal does not: durable (J6) */
        ret = flush_copy(p);
    }
    if (ret >= 0) {
        /* Durable before the next but one is sent, or space used again (J4) */
        ret = pvs_journal_co_change_header(&p->journal, header_tail, &e->end);
    }
    trace_pvs_private_shipped(p->bs, e->number, e->bytes, ret);
    if (ret >= 0) {
        p->bytes_shipped += e->bytes;
        p->epochs_shipped++;
        pvs_journal_co_retire(&p->journal, e);
    }
    return ret;
}

/* What fails here is met again, and told, when the epoch is sent */
static int coroutine_fn GRAPH_RDLOCK read_ahead(PvsPrivate *p)
{
    JournalEpoch *e;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        e = QSIMPLEQ_NEXT(p->now->epoch, next);
        e = e && e->closed ? e : NULL;
    }
    /* Its last records may still be on their way into the journal */
    if (e && pvs_journal_co_make_durable(&p->journal, e->end.seq - 1) >= 0) {
        p->next = pvs_shipment_new(p, e);
        pvs_shipment_co_read_ahead(p->next);
    }
    return 0;
}

typedef int coroutine_fn AsideFunc(PvsPrivate *p);

/* What goes on, in coroutines of their own, while an epoch is sent */
typedef struct Aside {
    PvsPrivate *p;
    AsideFunc *func GRAPH_RDLOCK_PTR;
    int ret;
    bool running;
    Coroutine *waiter;
} Aside;

static void coroutine_fn aside_entry(void *opaque)
{
    Aside *s = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        s->ret = s->func(s->p);
    }
    s->running = false;
    if (s->waiter) {
        aio_co_wake(s->waiter);
    }
}

static void coroutine_fn aside_begin(Aside *s)
{
    s->running = true;
    qemu_coroutine_enter(qemu_coroutine_create(aside_entry, s));
}

static void coroutine_fn GRAPH_RDLOCK aside_wait(Aside *s)
{
    vdisk_graph_co_release();
    while (s->running) {
        s->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    s->waiter = NULL;
    vdisk_graph_co_retake();
}

/* What is to be done */

bool pvs_private_store_durable(const PvsPrivate *p)
{
    return p->store_durability && p->state == PRIVATE_READY && !p->lagging &&
           p->journal.tail_pos >= p->ended_early;
}

uint64_t pvs_private_lag_bytes(PvsPrivate *p)
{
    return p->journal.lag;
}

uint64_t pvs_private_lag_ms(PvsPrivate *p)
{
    JournalEpoch *e = QSIMPLEQ_FIRST(&p->journal.epochs);

    return e ? (pvs_now() - e->begun) / SCALE_MS : 0;
}

/* The oldest epoch that was not sent, if it can be; a session to do it in */
static JournalEpoch *next_epoch(PvsPrivate *p, uint64_t *session)
{
    JournalEpoch *e;

    QEMU_LOCK_GUARD(&p->waits.lock);
    *session = p->state == PRIVATE_READY ? p->session : 0;
    e = p->sent ? QSIMPLEQ_NEXT(p->sent->epoch, next)
                : QSIMPLEQ_FIRST(&p->journal.epochs);
    if (e && !e->closed &&
        (pvs_now() >= e->begun + EPOCH_AGE || p->journal.space_waiters)) {
        pvs_journal_close_epoch(&p->journal);
    }
    if (*session && p->lagging && p->journal.tail_pos >= p->catch_up) {
        p->lagging = false;
        qemu_bh_schedule(p->bh);
    }
    if (p->unsettled || p->journal.broken || is_paused(p, *session)) {
        return NULL;
    }
    return e && e->closed && *session ? e : NULL;
}

static void header_same(JournalHeader *h, const void *opaque)
{
}

/* That the last flush was done has to be told, or rot could not be known */
static int coroutine_fn GRAPH_RDLOCK tell_durable(PvsPrivate *p)
{
    bool due;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        due = p->journal.durable > MAX(p->journal.header.durable,
                                       p->journal.start) &&
              p->journal.durable + 1 == p->journal.head.seq &&
              pvs_now() > p->journal.changed_at + QUIET &&
              !p->journal.broken && !p->journal.fenced;
    }
    return due ? pvs_journal_co_change_header(&p->journal, header_same, NULL)
               : 0;
}

/* What was shipped is to be local after a crash, too: as soon as it is quiet */
static void coroutine_fn GRAPH_RDLOCK keep_copy(PvsPrivate *p)
{
    if (qatomic_read(&p->copy_new) &&
        pvs_now() > p->journal.changed_at + QUIET) {
        flush_copy(p);
    }
}

static bool is_fenced(PvsPrivate *p)
{
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->journal.fenced;
}

/* Of an epoch that can be sent, some of it may have been read */
static PvsShipment *coroutine_fn take_shipment(PvsPrivate *p, JournalEpoch *e)
{
    PvsShipment *s = g_steal_pointer(&p->next);

    if (s && s->epoch == e) {
        return s;
    }
    pvs_shipment_free(s);
    return pvs_shipment_new(p, e);
}

static void drop_shipment(PvsShipment **s)
{
    pvs_shipment_free(*s);
    *s = NULL;
}

static int coroutine_fn GRAPH_RDLOCK
send_and_read_ahead(PvsPrivate *p, JournalEpoch *e, uint64_t session)
{
    Aside ahead = { .p = p, .func = read_ahead };
    int64_t begun = pvs_now();
    int ret;

    p->now = take_shipment(p, e);
    aside_begin(&ahead);
    ret = send_epoch(p, p->now, session);
    learn_patience(p, session, ret, pvs_now() - begun);
    note_refusal(p, session, ret);
    aside_wait(&ahead);
    return ret;
}

/*
 * Send the next epoch, and settle the one before meanwhile. Returns whether
 * there is more to do at once.
 */
static bool coroutine_fn GRAPH_RDLOCK replay_step(PvsPrivate *p)
{
    Aside settle = { .p = p, .func = settle_epoch };
    uint64_t session;
    JournalEpoch *e = next_epoch(p, &session);
    bool settled;
    int ret = 0;

    if ((!e && !p->sent) || is_fenced(p)) {
        return false;           /* it is evidence from then on (J11) */
    }
    if (p->sent) {
        aside_begin(&settle);
    }
    if (e) {
        ret = send_and_read_ahead(p, e, session);
    }
    aside_wait(&settle);
    settled = p->sent && settle.ret >= 0;
    p->unsettled = settle.ret < 0;
    note_stuck(p, p->unsettled ? "the local copy cannot be written"
                               : "the store refuses what is sent",
               p->unsettled ? settle.ret : ret);
    if (p->unsettled || ret < 0) {
        /* The same is sent again: of an epoch that is the last one, J2 holds */
        drop_shipment(&p->now);
    }
    if (!p->unsettled) {
        pvs_shipment_free(p->sent);
        p->sent = g_steal_pointer(&p->now);
    }
    return (e && ret >= 0 && !p->unsettled) || settled;
}

void coroutine_fn pvs_private_replay_entry(void *opaque)
{
    PvsPrivate *p = opaque;

    while (pvs_private_co_begin(p, &p->replay_sleep)) {
        bool more;

        WITH_GRAPH_RDLOCK_GUARD() {
            more = replay_step(p);
            if (!more) {
                tell_durable(p);
                keep_copy(p);
            }
        }
        pvs_private_end(p);
        if (!more && !p->closing) {
            qemu_co_sleep_ns_wakeable(&p->replay_sleep, QEMU_CLOCK_REALTIME,
                                      TICK);
        }
    }
    drop_shipment(&p->sent);
    drop_shipment(&p->next);
    p->coroutines--;
    aio_wait_kick();
}
