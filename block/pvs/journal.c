/*
 * The reconnect buffer: appending, flushing and reading
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "block/block-io.h"
#include "block/pvs/journal.h"
#include "block/vdisk/graph.h"
#include "trace.h"

/* Written at once: a deep queue gathers, a shallow one does not wait */
#define MAX_BATCHES     4
/* What a write leaves free: for its commit, and for starts */
#define SPARE           (4 * JOURNAL_ALIGN)
/* The driver closes an epoch that takes this part of the ring (J2) */
#define EPOCH_PART      8
/* Entries of an epoch that are gone through before others get their turn */
#define SLICE           64

/* A record on its way into the file */
typedef struct Append {
    JournalRecord r;
    uint8_t *buf;               /* one unit for the header, and the payload */
    size_t space;
    QSIMPLEQ_ENTRY(Append) next;
} Append;

struct JournalBatch {
    QSIMPLEQ_HEAD(, Append) appends;
    unsigned n;
    uint64_t pos, bytes;        /* in the ring, in one piece */
    uint64_t last_seq;
    bool done;
    int ret;
    unsigned users;
    CoQueue queue;              /* who waits until it is done */
    QSIMPLEQ_ENTRY(JournalBatch) next;
};

/* Epochs */

static JournalEpoch *open_epoch(PvsJournal *j)
{
    JournalEpoch *e = QSIMPLEQ_LAST(&j->epochs, JournalEpoch, next);

    if (e && !e->closed) {
        return e;
    }
    e = g_new0(JournalEpoch, 1);
    e->number = j->head.epoch;
    e->entries = g_array_new(false, false, sizeof(JournalEntry));
    e->begun = pvs_now();
    /* An empty queue has a tail too: NOLINTNEXTLINE(*.NullDereference) */
    QSIMPLEQ_INSERT_TAIL(&j->epochs, e, next);
    j->changed(j->opaque);
    return e;
}

bool pvs_journal_close_epoch(PvsJournal *j)
{
    JournalEpoch *e = QSIMPLEQ_LAST(&j->epochs, JournalEpoch, next);

    if (!e || e->closed) {
        return false;
    }
    j->head.epoch++;
    e->closed = true;
    e->end = j->head;
    j->closed_pos = e->end.pos;
    j->changed(j->opaque);
    return true;
}

void pvs_journal_note(PvsJournal *j, const JournalRecord *r, uint64_t payload)
{
    JournalEpoch *e = open_epoch(j);
    JournalEntry entry = {
        .seq = r->seq,
        .offset = r->offset,
        .length = r->length,
        .pos = r->type == JOURNAL_WRITE ? payload : JOURNAL_POS_ZERO,
        .unmap = r->flags & JOURNAL_FLAG_UNMAP,
    };

    g_array_append_val(e->entries, entry);
    e->space += journal_record_space(r, j->unit);
    e->bytes += r->length;
    j->lag += r->length;
}

/* Space */

static uint64_t ring_limit(const PvsJournal *j)
{
    uint64_t first = j->tail_pos;
    JournalPin *pin;

    QLIST_FOREACH(pin, &j->pins, next) {
        first = MIN(first, pin->pos);
    }
    return first + j->ring_size;
}

static uint64_t ring_rest(const PvsJournal *j)
{
    return j->ring_size - j->head.pos % j->ring_size;
}

/* After batch_make_room(): nothing moves the head before the record does */
static bool has_space(const PvsJournal *j, uint64_t space)
{
    uint64_t rest = ring_rest(j);
    uint64_t need = space + (space > rest ? rest : 0) + JOURNAL_ALIGN;

    return j->head.pos + need + SPARE <= ring_limit(j);
}

void pvs_journal_pin(PvsJournal *j, JournalPin *pin, uint64_t pos)
{
    pin->pos = pos;
    QLIST_INSERT_HEAD(&j->pins, pin, next);
}

void pvs_journal_unpin(PvsJournal *j, JournalPin *pin)
{
    QLIST_REMOVE(pin, next);
    if (j->space_waiters) {
        pvs_wake_all(j->waits);
    }
}

/* Without the graph lock; -EIO if it must not wait any longer (J7) */
static int coroutine_fn GRAPH_RDLOCK wait_for_space(PvsJournal *j,
                                                    uint64_t space)
{
    int ret = 0;

    vdisk_graph_co_release();
    qemu_mutex_lock(&j->waits->lock);
    j->space_waiters++;
    j->changed(j->opaque);
    while (!j->broken && !j->fenced && !has_space(j, space)) {
        PvsWaiter w = {};
        int64_t until = pvs_waits_limit(j->waits);

        if (pvs_now() >= until) {
            ret = -EIO;
            break;
        }
        pvs_co_wait(j->waits, &w, until);
    }
    if (j->fenced) {
        ret = -EIO;             /* nothing is shipped: there will be no space */
    }
    j->space_waiters--;
    qemu_mutex_unlock(&j->waits->lock);
    vdisk_graph_co_retake();
    return ret;
}

/* Batches */

/* Put the record behind the last one. Caller holds the lock. */
static void chain(PvsJournal *j, JournalBatch *b, Append *a)
{
    JournalRecord *r = &a->r;
    uint64_t space = journal_record_space(r, j->unit);

    /* Recovery takes no record that goes round the end, or over the tail */
    assert(space <= ring_rest(j));
    assert(j->head.pos + space <= j->tail_pos + j->ring_size);
    memcpy(r->nonce, j->head.nonce, sizeof(r->nonce));
    r->seq = j->head.seq;
    r->epoch = j->head.epoch;
    r->link = j->head.link;
    /* As in the header: a start that nothing followed may be written over */
    r->durable = j->durable > j->start ? j->durable : 0;
    journal_record_encode(r, a->buf);
    if (r->type == JOURNAL_WRITE || r->type == JOURNAL_ZERO) {
        pvs_journal_note(j, r, j->head.pos + j->unit);
        j->uncommitted = true;
    } else if (r->type == JOURNAL_COMMIT) {
        j->uncommitted = false;
    } else if (j->start == r->seq - 1) {
        /* Passed over like the start, if nothing comes behind it */
        j->start = r->seq;
    }
    j->head.pos += space;
    j->head.seq++;
    j->head.link = r->checksum;
    j->changed_at = pvs_now();
    b->last_seq = r->seq;
    b->bytes += a->space;
    b->n++;
    QSIMPLEQ_INSERT_TAIL(&b->appends, a, next);
}

/* Up to which @pos has to be padded */
static uint64_t to_align(uint64_t pos)
{
    return JOURNAL_ALIGN - pos % JOURNAL_ALIGN;
}

static Append *append_new(PvsJournal *j, JournalType type, uint64_t length)
{
    Append *a = g_new0(Append, 1);

    a->r.type = type;
    a->r.length = length;
    a->space = journal_record_space(&a->r, j->unit);
    a->buf = qemu_blockalign(j->child->bs, a->space);
    memset(a->buf, 0, j->unit);
    return a;
}

/* Of a long pad only the page is written that it begins in */
static Append *append_pad(PvsJournal *j, uint64_t length)
{
    Append *a = g_new0(Append, 1);

    a->r.type = JOURNAL_PAD;
    a->r.length = length;
    a->space = MIN(length, to_align(j->head.pos));
    a->buf = qemu_blockalign(j->child->bs, a->space);
    memset(a->buf, 0, a->space);
    return a;
}

static void append_free(Append *a)
{
    qemu_vfree(a->buf);
    g_free(a);
}

static JournalBatch *batch_new(PvsJournal *j)
{
    JournalBatch *b = g_new0(JournalBatch, 1);

    QSIMPLEQ_INIT(&b->appends);
    qemu_co_queue_init(&b->queue);
    b->pos = j->head.pos;
    b->users = 1;               /* the list */
    QSIMPLEQ_INSERT_TAIL(&j->batches, b, next);
    j->gathering = b;
    return b;
}

/* Nothing more goes into the batch that is gathering */
static void batch_seal(PvsJournal *j)
{
    JournalBatch *b = j->gathering;

    if (j->head.pos % JOURNAL_ALIGN) {
        chain(j, b, append_pad(j, to_align(j->head.pos)));
    }
    j->gathering = NULL;
}

/*
 * Seal the batch that is gathering if it does not take @space more bytes. That
 * may move the head: it comes before anything is decided by the head.
 */
static void batch_make_room(PvsJournal *j, uint64_t space)
{
    JournalBatch *b = j->gathering;

    if (b && (b->bytes + space > j->batch_bytes || b->n >= j->batch_records ||
              j->head.pos % j->ring_size == 0)) {
        batch_seal(j);          /* its leader is on its way all the same */
    }
}

/*
 * The batch that takes @a, which is its first one if *@leads. Room was made for
 * it, or for something longer.
 */
static JournalBatch *batch_join(PvsJournal *j, Append *a, bool *leads)
{
    JournalBatch *b = j->gathering;

    *leads = !b;
    if (!b) {
        b = batch_new(j);
    }
    b->users++;
    chain(j, b, a);
    return b;
}

static void batch_unref(JournalBatch *b)
{
    Append *a, *next;

    if (--b->users > 0) {
        return;
    }
    QSIMPLEQ_FOREACH_SAFE(a, &b->appends, next, next) {
        append_free(a);
    }
    g_free(b);
}

static void index_batch(PvsJournal *j, JournalBatch *b)
{
    uint64_t pos = b->pos;
    Append *a;

    QSIMPLEQ_FOREACH(a, &b->appends, next) {
        const JournalRecord *r = &a->r;
        JournalExtent e = {
            .offset = r->offset,
            .length = r->length,
            .pos = r->type == JOURNAL_WRITE ? pos + j->unit : JOURNAL_POS_ZERO,
            .seq = r->seq,
            .unmap = r->flags & JOURNAL_FLAG_UNMAP,
        };

        if (r->type == JOURNAL_WRITE || r->type == JOURNAL_ZERO) {
            journal_index_insert(j->index, e);
        }
        pos += a->space;
    }
}

/* What is written, with nothing missing before it */
static void advance_written(PvsJournal *j)
{
    JournalBatch *b;

    while ((b = QSIMPLEQ_FIRST(&j->batches)) && b->done && b->ret >= 0) {
        j->written = b->last_seq;
        QSIMPLEQ_REMOVE_HEAD(&j->batches, next);
        batch_unref(b);
    }
}

static int coroutine_fn GRAPH_RDLOCK batch_co_write(PvsJournal *j,
                                                    JournalBatch *b)
{
    int64_t at = JOURNAL_RING_OFFSET + b->pos % j->ring_size;
    QEMUIOVector qiov;
    Append *a;
    int ret;

    qemu_iovec_init(&qiov, b->n);
    QSIMPLEQ_FOREACH(a, &b->appends, next) {
        qemu_iovec_add(&qiov, a->buf, a->space);
    }
    ret = bdrv_co_pwritev(j->child, at, qiov.size, &qiov, 0);
    qemu_iovec_destroy(&qiov);
    return ret;
}

/* Its leader writes the batch when it is its turn */
static void coroutine_fn GRAPH_RDLOCK batch_co_lead(PvsJournal *j,
                                                    JournalBatch *b)
{
    qemu_mutex_lock(&j->waits->lock);
    while (j->writing == MAX_BATCHES) {
        qemu_co_queue_wait(&j->turn, &j->waits->lock);
    }
    j->writing++;
    if (j->gathering == b) {
        batch_seal(j);
    }
    b->ret = j->broken ? -EIO : 0;
    qemu_mutex_unlock(&j->waits->lock);

    if (b->ret == 0) {
        b->ret = batch_co_write(j, b);
    }
    if (b->ret < 0) {
        pvs_journal_co_break(j, b->ret);
    }

    qemu_mutex_lock(&j->waits->lock);
    j->writing--;
    b->done = true;
    if (b->ret >= 0) {
        index_batch(j, b);
    }
    advance_written(j);
    qemu_co_enter_all(&j->written_queue, &j->waits->lock);
    qemu_co_enter_all(&b->queue, &j->waits->lock);
    qemu_co_enter_next(&j->turn, &j->waits->lock);
    qemu_mutex_unlock(&j->waits->lock);
}

/*
 * Wait until the batch with @a, which has just joined it, is written. Called
 * with the lock held, and returns without.
 */
static int coroutine_fn GRAPH_RDLOCK batch_co_wait(PvsJournal *j,
                                                   JournalBatch *b, bool leads)
{
    int ret;

    if (leads) {
        qemu_mutex_unlock(&j->waits->lock);
        batch_co_lead(j, b);
        qemu_mutex_lock(&j->waits->lock);
    }
    while (!b->done) {
        qemu_co_queue_wait(&b->queue, &j->waits->lock);
    }
    ret = b->ret;
    batch_unref(b);
    qemu_mutex_unlock(&j->waits->lock);
    return MIN(ret, 0);
}

/* Until the batch with @a is written. Takes @a, and the lock. */
static int coroutine_fn GRAPH_RDLOCK append_co_locked(PvsJournal *j, Append *a)
{
    bool leads;
    JournalBatch *b = batch_join(j, a, &leads);
    JournalEpoch *e = QSIMPLEQ_LAST(&j->epochs, JournalEpoch, next);

    if (e && !e->closed && e->space >= j->ring_size / EPOCH_PART) {
        pvs_journal_close_epoch(j);
    }
    return batch_co_wait(j, b, leads);
}

/* The same for a commit, which closes the epoch; *@seq is its sequence */
static int coroutine_fn GRAPH_RDLOCK append_co_commit(PvsJournal *j, Append *a,
                                                      uint64_t *seq)
{
    JournalBatch *b;
    bool leads;

    batch_make_room(j, a->space);
    b = batch_join(j, a, &leads);
    *seq = j->head.seq - 1;
    if (!pvs_journal_close_epoch(j)) {
        j->head.epoch++;        /* of which the commit is all */
    }
    return batch_co_wait(j, b, leads);
}

/* What is left of this round of the ring is too short for the next record */
static int coroutine_fn GRAPH_RDLOCK append_co_pad(PvsJournal *j)
{
    return append_co_locked(j, append_pad(j, ring_rest(j)));
}

/* 1 with the lock held if @a can go in now, 0 to look again, or -errno */
static int coroutine_fn GRAPH_RDLOCK append_co_ready(PvsJournal *j, Append *a)
{
    qemu_mutex_lock(&j->waits->lock);
    if (j->broken) {
        qemu_mutex_unlock(&j->waits->lock);
        return -EIO;
    }
    batch_make_room(j, a->space);
    if (!has_space(j, a->space)) {
        qemu_mutex_unlock(&j->waits->lock);
        return wait_for_space(j, a->space);
    }
    return a->space > ring_rest(j) ? append_co_pad(j) : 1;
}

/* Takes @a, which has its payload */
static int coroutine_fn GRAPH_RDLOCK append_co(PvsJournal *j, Append *a)
{
    int ret;

    do {
        ret = append_co_ready(j, a);
    } while (ret == 0);
    if (ret < 0) {
        append_free(a);
        return ret;
    }
    return append_co_locked(j, a);
}

int coroutine_fn pvs_journal_co_append(PvsJournal *j, JournalType type,
                                       int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       bool unmap)
{
    Append *a = append_new(j, type, bytes);

    a->r.offset = offset;
    a->r.flags = unmap ? JOURNAL_FLAG_UNMAP : 0;
    if (type == JOURNAL_WRITE) {
        uint8_t *payload = a->buf + j->unit;

        /*
         * A copy, because a guest may change its memory while it is written:
         * the checksum has to be of what goes to disk.
         */
        qemu_iovec_to_buf(qiov, qiov_offset, payload, bytes);
        memset(payload + bytes, 0, a->space - j->unit - bytes);
        a->r.payload = journal_checksum(payload, bytes);
    }
    return append_co(j, a);
}

/* Making it durable */

void coroutine_fn pvs_journal_co_break(PvsJournal *j, int error)
{
    WITH_QEMU_LOCK_GUARD(&j->waits->lock) {
        if (j->broken) {
            return;
        }
        j->broken = true;
        j->changed(j->opaque);
        pvs_wake_all(j->waits);
    }
    error_report("The reconnect buffer of '%s' is broken: %s. The disk takes "
                 "no more writes; 'deskcast journal rescue' gets out what it "
                 "holds.", bdrv_get_node_name(j->bs), g_strerror(-error));
    pvs_journal_co_mark_broken(j);
}

int coroutine_fn pvs_journal_co_sync(PvsJournal *j)
{
    uint64_t begun = qatomic_read(&j->syncs);
    uint64_t covered;
    int ret = 0;

    qemu_co_mutex_lock(&j->flush_gate);
    if (qatomic_read(&j->syncs) > begun + 1) {
        /* One that began after this call has ended: it did our work */
        ret = qatomic_read(&j->broken) ? -EIO : 0;
        qemu_co_mutex_unlock(&j->flush_gate);
        return ret;
    }
    qatomic_inc(&j->syncs);
    WITH_QEMU_LOCK_GUARD(&j->waits->lock) {
        covered = j->written;
        ret = j->broken ? -EIO : 0;
    }
    if (ret == 0) {
        ret = bdrv_co_flush(j->child->bs);
        if (ret < 0) {
            /* The kernel may have dropped what it could not write (J1) */
            pvs_journal_co_break(j, ret);
        }
    }
    if (ret >= 0) {
        QEMU_LOCK_GUARD(&j->waits->lock);
        j->durable = MAX(j->durable, covered);
    }
    qatomic_inc(&j->syncs);
    qemu_co_mutex_unlock(&j->flush_gate);
    return MIN(ret, 0);
}

int coroutine_fn pvs_journal_co_make_durable(PvsJournal *j, uint64_t seq)
{
    qemu_mutex_lock(&j->waits->lock);
    /* Every record up to it, not only those whose writers wait (J1) */
    while (j->written < seq && !j->broken) {
        qemu_co_queue_wait(&j->written_queue, &j->waits->lock);
    }
    if (j->broken || j->durable >= seq) {
        int ret = j->broken ? -EIO : 0;

        qemu_mutex_unlock(&j->waits->lock);
        return ret;
    }
    qemu_mutex_unlock(&j->waits->lock);
    return pvs_journal_co_sync(j);
}

int coroutine_fn pvs_journal_co_flush(PvsJournal *j)
{
    uint64_t seq;
    int ret = 0;

    qemu_mutex_lock(&j->waits->lock);
    if (j->uncommitted && !j->broken) {
        /* It always finds room: a write leaves some (J7) */
        Append *a = append_new(j, JOURNAL_COMMIT, 0);

        ret = append_co_commit(j, a, &seq);
    } else {
        seq = j->head.seq - 1;
        qemu_mutex_unlock(&j->waits->lock);
    }
    return ret < 0 ? ret : pvs_journal_co_make_durable(j, seq);
}

/* Reading and retiring */

int coroutine_fn pvs_journal_co_read(PvsJournal *j, uint64_t pos,
                                     int64_t bytes, QEMUIOVector *qiov,
                                     size_t qiov_offset)
{
    /* No record goes round the end of the ring */
    return bdrv_co_preadv_part(j->child,
                               JOURNAL_RING_OFFSET + pos % j->ring_size, bytes,
                               qiov, qiov_offset, 0);
}

static void epoch_free(JournalEpoch *e)
{
    g_array_unref(e->entries);
    g_free(e);
}

void coroutine_fn pvs_journal_co_breathe(unsigned i)
{
    if (i % SLICE == SLICE - 1) {
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

void coroutine_fn pvs_journal_co_retire(PvsJournal *j, JournalEpoch *e)
{
    /* Those that are out already are read from the copy, which has them */
    for (guint i = 0; i < e->entries->len; i++) {
        const JournalEntry *n = &g_array_index(e->entries, JournalEntry, i);

        WITH_QEMU_LOCK_GUARD(&j->waits->lock) {
            journal_index_remove(j->index, n->offset, n->length, n->seq);
        }
        pvs_journal_co_breathe(i);
    }
    QEMU_LOCK_GUARD(&j->waits->lock);
    assert(e == QSIMPLEQ_FIRST(&j->epochs));
    j->tail_pos = e->end.pos;
    assert(j->lag >= e->bytes);
    j->lag -= e->bytes;
    j->retired++;
    QSIMPLEQ_REMOVE_HEAD(&j->epochs, next);
    epoch_free(e);
    /* Those who wait for space, and flushes that wait for the store (J10) */
    pvs_wake_all(j->waits);
    j->changed(j->opaque);
}

void pvs_journal_forget(PvsJournal *j)
{
    JournalEpoch *e, *next_epoch;
    JournalBatch *b, *next;

    QSIMPLEQ_FOREACH_SAFE(e, &j->epochs, next, next_epoch) {
        epoch_free(e);
    }
    QSIMPLEQ_INIT(&j->epochs);
    j->lag = 0;
    /* Those that failed */
    QSIMPLEQ_FOREACH_SAFE(b, &j->batches, next, next) {
        batch_unref(b);
    }
    QSIMPLEQ_INIT(&j->batches);
    j->open = false;
    journal_index_free(j->index);
    j->index = NULL;
}
