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
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/aio_task.h"
#include "block/block-io.h"
#include "block/pvs/private.h"
#include "block/vdisk/graph.h"
#include "trace.h"

/* Requests to the store at once: the NBD client has room for two reads more */
#define SEND_TASKS      14
/* To the local copy: not so many that a guest's flush has to wait long */
#define COPY_TASKS      2
/* One request at most: a read of the guest may wait behind all of them */
#define PIECE_BYTES     (512 * KiB)
/* An epoch that the guest does not end is ended (J2) */
#define EPOCH_AGE       (2 * NANOSECONDS_PER_SECOND)
/* Nothing was written for so long: the header tells what is durable */
#define QUIET           (1 * NANOSECONDS_PER_SECOND)
#define TICK            (250 * SCALE_MS)

/* A range of an epoch, with its newest content */
typedef struct Piece {
    AioTask task;
    PvsPrivate *p;
    JournalIndex *parts;        /* of the epoch */
    int64_t offset, bytes;
    bool zero, unmap;
    uint64_t session;
} Piece;

typedef int coroutine_fn PieceFunc(Piece *piece);

/* Read the content of a piece out of the journal; to be freed by qemu_vfree */
static int coroutine_fn GRAPH_RDLOCK piece_read(Piece *piece, uint8_t **buf)
{
    PvsPrivate *p = piece->p;
    int64_t at = 0;
    int ret = 0;

    *buf = qemu_blockalign(p->journal.child->bs, piece->bytes);
    while (at < piece->bytes && ret >= 0) {
        QEMUIOVector qiov;
        JournalExtent e;
        int64_t n = journal_index_find(piece->parts, piece->offset + at,
                                       piece->bytes - at, &e);

        qemu_iovec_init_buf(&qiov, *buf + at, n);
        ret = pvs_journal_co_read(&p->journal, e.pos, n, &qiov, 0);
        at += n;
    }
    if (ret < 0 && ret != -ENOMEM) {
        /* What was acknowledged cannot be read any more */
        pvs_journal_co_break(&p->journal, ret);
    }
    return MIN(ret, 0);
}

/* @buf: NULL for zeros */
static int coroutine_fn GRAPH_RDLOCK piece_write(Piece *piece,
                                                 const uint8_t *buf)
{
    PvsPrivate *p = piece->p;
    int ret;

    /* Reading the journal may have taken longer than the session lasted */
    if (!pvs_private_store_begin(p, piece->session)) {
        return -ENOTCONN;
    }
    if (buf) {
        ret = bdrv_co_pwrite(p->store, piece->offset, piece->bytes, buf, 0);
    } else {
        ret = bdrv_co_pwrite_zeroes(p->store, piece->offset, piece->bytes,
                                    piece->unmap ? BDRV_REQ_MAY_UNMAP : 0);
    }
    return pvs_private_store_end(p, piece->session, ret);
}

/* To the store */
static int coroutine_fn GRAPH_RDLOCK piece_co_send(Piece *piece)
{
    uint8_t *buf = NULL;
    int ret = piece->zero ? 0 : piece_read(piece, &buf);

    if (ret >= 0) {
        ret = piece_write(piece, buf);
    }
    qemu_vfree(buf);
    return ret;
}

/* Does the copy hold nothing of the granule, so that the store's counts? */
static bool coroutine_fn GRAPH_RDLOCK is_base(VdiskLayer *l, uint64_t granule)
{
    VdiskHold hold;
    bool base;

    /* A fill that read the granule before it was sent has ended by then (J6) */
    vdisk_layer_co_hold(l, &hold, granule, granule + 1);
    base = vdisk_map_all(&l->map, granule, 1, VDISK_STATE_BASE);
    vdisk_layer_co_release(l, &hold);
    return base;
}

static int coroutine_fn GRAPH_RDLOCK copy_write(Piece *piece, int64_t offset,
                                                int64_t bytes, uint8_t *buf)
{
    VdiskLayer *l = piece->p->layer;
    uint8_t zeros[VDISK_GRANULE] = {};
    QEMUIOVector qiov;

    if (!buf) {
        int ret = vdisk_layer_co_zero(l, offset, bytes, piece->unmap);

        if (ret != -ENOTSUP) {
            return ret;
        }
        /* A part of one granule */
        assert(bytes <= sizeof(zeros));
        buf = zeros;
    }
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return vdisk_layer_co_pwritev(l, offset, bytes, &qiov, 0);
}

/* A part of one granule: only if the copy has the granule */
static int coroutine_fn GRAPH_RDLOCK
copy_part(Piece *piece, int64_t offset, int64_t bytes, uint8_t *buf)
{
    if (is_base(piece->p->layer, offset / VDISK_GRANULE)) {
        return 0;
    }
    qatomic_set(&piece->p->copy_changed, true);
    return copy_write(piece, offset, bytes, buf);
}

/*
 * Whole granules. Those that the copy does not have need not be durable there:
 * after a crash it does not have them again, and the store does (J6).
 */
static int coroutine_fn GRAPH_RDLOCK
copy_whole(Piece *piece, int64_t offset, int64_t bytes, uint8_t *buf)
{
    PvsPrivate *p = piece->p;
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = first + bytes / VDISK_GRANULE;
    VdiskHold hold;
    int ret = 0;
    bool is_new;

    vdisk_layer_co_hold(p->layer, &hold, first, end);
    is_new = buf && vdisk_map_all(&p->layer->map, first, end - first,
                                  VDISK_STATE_BASE);
    if (is_new) {
        ret = vdisk_layer_co_put(p->layer, first, end, buf);
    }
    vdisk_layer_co_release(p->layer, &hold);
    if (is_new) {
        qatomic_set(&p->copy_new, true);
        return ret;
    }
    qatomic_set(&p->copy_changed, true);
    return copy_write(piece, offset, bytes, buf);
}

/* To the local copy: whole granules, and the parts of those that it has */
static int coroutine_fn GRAPH_RDLOCK piece_co_copy(Piece *piece)
{
    int64_t end = piece->offset + piece->bytes;
    int64_t from = MIN(ROUND_UP(piece->offset, VDISK_GRANULE), end);
    int64_t to = MAX(QEMU_ALIGN_DOWN(end, VDISK_GRANULE), from);
    uint8_t *buf = NULL;
    int ret = piece->zero ? 0 : piece_read(piece, &buf);

    if (ret >= 0 && from > piece->offset) {
        ret = copy_part(piece, piece->offset, from - piece->offset, buf);
    }
    if (ret >= 0 && to > from) {
        ret = copy_whole(piece, from, to - from,
                         buf ? buf + (from - piece->offset) : NULL);
    }
    if (ret >= 0 && end > to) {
        ret = copy_part(piece, to, end - to,
                        buf ? buf + (to - piece->offset) : NULL);
    }
    qemu_vfree(buf);
    return MIN(ret, 0);
}

/* All pieces, several at once */

typedef struct Task {
    Piece piece;
    PieceFunc *func;
} Task;

static int coroutine_fn GRAPH_RDLOCK task_entry(AioTask *task)
{
    Piece *piece = container_of(task, Piece, task);
    PieceFunc *func = container_of(piece, Task, piece)->func;
    int ret;

    /* Each has the graph lock for itself, because some wait for holds */
    vdisk_graph_co_retake();
    ret = func(piece);
    vdisk_graph_co_release();
    return ret;
}

/* The next piece from @offset on: of one kind, and not too long */
static bool next_piece(JournalIndex *parts, int64_t offset, int64_t end,
                       Piece *piece)
{
    JournalExtent e;

    do {
        if (offset >= end) {
            return false;
        }
        offset += journal_index_find(parts, offset, end - offset, &e);
    } while (!e.seq);
    piece->offset = e.offset;
    piece->zero = e.pos == JOURNAL_POS_ZERO;
    piece->unmap = e.unmap;
    piece->bytes = e.length;
    while (!piece->zero && piece->bytes < PIECE_BYTES && offset < end) {
        offset += journal_index_find(parts, offset, end - offset, &e);
        if (!e.seq || e.pos == JOURNAL_POS_ZERO) {
            break;
        }
        piece->bytes += e.length;
    }
    piece->bytes = MIN(piece->bytes, piece->zero ? 64 * MiB : PIECE_BYTES);
    return true;
}

/* So many at once; one at a time while the guest waits for the store itself */
static int coroutine_fn GRAPH_RDLOCK
for_pieces(PvsPrivate *p, JournalIndex *parts, uint64_t session,
           PieceFunc *func, int tasks)
{
    AioTaskPool *pool;
    int64_t offset = 0;
    Piece next = {};
    int ret;

    vdisk_graph_co_release();
    pool = aio_task_pool_new(tasks);
    while (aio_task_pool_status(pool) == 0 && !p->waits.drains &&
           next_piece(parts, offset, p->virtual_size, &next)) {
        Task *t = g_new0(Task, 1);

        t->piece = next;
        t->piece.task.func = task_entry;
        t->piece.p = p;
        t->piece.parts = parts;
        t->piece.session = session;
        t->func = func;
        if (session && qatomic_read(&p->reads)) {
            aio_task_pool_wait_all(pool);
        }
        aio_task_pool_start_task(pool, &t->piece.task);
        offset = next.offset + next.bytes;
    }
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    if (ret == 0 && next_piece(parts, offset, p->virtual_size, &next)) {
        ret = -EINTR;           /* a drain: the rest comes afterwards */
    }
    aio_task_pool_free(pool);
    vdisk_graph_co_retake();
    return ret;
}

/* Of each byte of the epoch the newest content (J2) */
static JournalIndex *coroutine_fn epoch_parts(const JournalEpoch *e)
{
    JournalIndex *parts = journal_index_new();

    for (guint i = 0; i < e->entries->len; i++) {
        const JournalEntry *n = &g_array_index(e->entries, JournalEntry, i);

        journal_index_insert(parts, (JournalExtent) {
            .offset = n->offset, .length = n->length, .pos = n->pos,
            .seq = n->seq, .unmap = n->unmap,
        });
        pvs_journal_co_breathe(i);
    }
    return parts;
}

static void header_tail(JournalHeader *h, const void *opaque)
{
    h->tail = *(const JournalTail *)opaque;
}

static int coroutine_fn GRAPH_RDLOCK
send_epoch(PvsPrivate *p, JournalEpoch *e, JournalIndex *parts,
           uint64_t session)
{
    int ret;

    /* Not before it is durable here: the store would be ahead of us (J4) */
    ret = pvs_journal_co_make_durable(&p->journal, e->end.seq - 1);
    if (ret >= 0) {
        ret = pvs_private_co_set_closed(p, session, false);
    }
    if (ret >= 0) {
        ret = for_pieces(p, parts, session, piece_co_send, SEND_TASKS);
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

/* Why it does not go on although the store is there; @ret is 0 if it does */
static void note_stuck(PvsPrivate *p, const char *what, int ret)
{
    g_autofree char *stuck = NULL;

    QEMU_LOCK_GUARD(&p->waits.lock);
    if (ret < 0 && ret != -EINTR && p->state == PRIVATE_READY) {
        stuck = g_strdup_printf("%s: %s", what, strerror(-ret));
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
    JournalEpoch *e = p->sent;
    int ret = for_pieces(p, p->sent_parts, 0, piece_co_copy, COPY_TASKS);

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

static void forget_sent(PvsPrivate *p)
{
    if (p->sent) {
        journal_index_free(p->sent_parts);
        p->sent = NULL;
    }
}

/* It is settled by a coroutine of its own, while the next one is sent */
typedef struct Settle {
    PvsPrivate *p;
    int ret;
    bool running;
    Coroutine *waiter;
} Settle;

static void coroutine_fn settle_entry(void *opaque)
{
    Settle *s = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        s->ret = settle_epoch(s->p);
    }
    s->running = false;
    if (s->waiter) {
        aio_co_wake(s->waiter);
    }
}

static void coroutine_fn settle_begin(Settle *s)
{
    if (s->p->sent) {
        s->running = true;
        qemu_coroutine_enter(qemu_coroutine_create(settle_entry, s));
    }
}

static void coroutine_fn GRAPH_RDLOCK settle_wait(Settle *s)
{
    vdisk_graph_co_release();
    while (s->running) {
        s->waiter = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    vdisk_graph_co_retake();
}

/* What is to be done */

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
    e = p->sent ? QSIMPLEQ_NEXT(p->sent, next)
                : QSIMPLEQ_FIRST(&p->journal.epochs);
    if (e && !e->closed &&
        (pvs_now() >= e->begun + EPOCH_AGE || p->journal.space_waiters)) {
        pvs_journal_close_epoch(&p->journal);
    }
    if (!e && !p->sent && *session) {
        p->lagging = false;
    }
    if (p->unsettled || p->journal.broken) {
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
              pvs_now() > p->journal.changed_at + QUIET && !p->journal.broken;
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

/*
 * Send the next epoch, and settle the one before meanwhile. Returns whether
 * there is more to do at once.
 */
static bool coroutine_fn GRAPH_RDLOCK replay_step(PvsPrivate *p)
{
    Settle settle = { .p = p };
    JournalIndex *parts = NULL;
    uint64_t session;
    JournalEpoch *e = next_epoch(p, &session);
    bool settled;
    int ret = 0;

    if (!e && !p->sent) {
        return false;
    }
    settle_begin(&settle);
    if (e) {
        parts = epoch_parts(e);
        ret = send_epoch(p, e, parts, session);
    }
    settle_wait(&settle);
    settled = p->sent && settle.ret >= 0;
    p->unsettled = settle.ret < 0;
    note_stuck(p, p->unsettled ? "the local copy cannot be written"
                               : "the store refuses what is sent",
               p->unsettled ? settle.ret : ret);
    if (p->unsettled || (e && ret < 0)) {
        /* The same is sent again: of an epoch that is the last one, J2 holds */
        g_clear_pointer(&parts, journal_index_free);
        e = NULL;
    }
    if (!p->unsettled) {
        forget_sent(p);
        p->sent = e;
        p->sent_parts = parts;
    }
    return e || settled;
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
    forget_sent(p);
    p->coroutines--;
    aio_wait_kick();
}
