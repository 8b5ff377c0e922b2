/*
 * pvs, private image mode: requests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/aio_task.h"
#include "block/block-io.h"
#include "block/pvs/private.h"
#include "block/pvs/resume.h"
#include "block/vdisk/graph.h"

/* Zeros in one record; so that a closed epoch is shipped in pieces */
#define ZERO_RECORD     (1 * GiB)

/* A write that is longer is written in parts, so many at once */
#define PART_BYTES      (256 * KiB)
#define PART_TASKS      8

/* A flush waits so long at most while the store catches up, or for QEMU; ns */
#define CATCH_UP        (1 * NANOSECONDS_PER_SECOND)

/* Waiting for the store */

bool pvs_private_must_wait(PvsPrivate *p)
{
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->waits.drains || p->state == PRIVATE_FENCED ||
           (p->state != PRIVATE_READY &&
            p->outage_action != STORE_OUTAGE_WAIT &&
            pvs_now() >= p->away_since + p->outage_wait);
}

/* Until when a read may wait for the store; ns. Caller holds the lock. */
static int64_t wait_limit(PvsPrivate *p)
{
    int64_t until = pvs_waits_limit(&p->waits);

    if (p->outage_action != STORE_OUTAGE_WAIT) {
        until = MIN(until, MAX(p->away_since + p->outage_wait, 0));
    }
    return until;
}

/* The session once the store is ready; 0 if the request must not wait longer */
static uint64_t coroutine_fn GRAPH_RDLOCK wait_session(PvsPrivate *p)
{
    uint64_t session = pvs_private_session(p);

    if (session) {
        return session;
    }
    vdisk_graph_co_release();
    qemu_mutex_lock(&p->waits.lock);
    while (p->state == PRIVATE_AWAY) {
        PvsWaiter w = {};
        int64_t until = wait_limit(p);

        if (pvs_now() >= until) {
            break;
        }
        pvs_co_wait(&p->waits, &w, until);
    }
    session = p->state == PRIVATE_READY ? p->session : 0;
    qemu_mutex_unlock(&p->waits.lock);
    if (!session) {
        qatomic_set(&p->gave_up, true);
    }
    vdisk_graph_co_retake();
    return session;
}

/* Reading the store */

/* Granules that are held, and their content on its way into the local copy */
typedef struct Fill {
    PvsPrivate *p;
    VdiskHold hold;
    uint64_t first, end;        /* granules */
    uint8_t *buf;
} Fill;

static void coroutine_fn fill_end(Fill *f)
{
    vdisk_layer_co_release(f->p->layer, &f->hold);
    qemu_vfree(f->buf);
    g_free(f);
}

static void coroutine_fn fill_entry(void *opaque)
{
    Fill *f = opaque;
    BlockDriverState *bs = f->p->bs;

    WITH_GRAPH_RDLOCK_GUARD() {
        /* If it fails, they are read from the store again */
        vdisk_layer_co_put(f->p->layer, f->first, f->end, f->buf);
    }
    fill_end(f);
    bdrv_dec_in_flight(bs);
}

/* The granules around the range, held; NULL if some of them are local by now */
static Fill *coroutine_fn GRAPH_RDLOCK fill_begin(PvsPrivate *p, int64_t offset,
                                                  int64_t bytes)
{
    Fill *f = g_new0(Fill, 1);

    f->p = p;
    f->first = offset / VDISK_GRANULE;
    f->end = vdisk_granules(offset + bytes);
    vdisk_layer_co_hold(p->layer, &f->hold, f->first, f->end);
    if (!vdisk_map_all(&p->layer->map, f->first, f->end - f->first,
                       VDISK_STATE_BASE)) {
        fill_end(f);
        return NULL;
    }
    return f;
}

/* Read what is held from the store; zeros behind the end of the vDisk */
static int coroutine_fn GRAPH_RDLOCK fill_read(Fill *f, uint64_t session)
{
    PvsPrivate *p = f->p;
    int64_t offset = f->first * VDISK_GRANULE;
    int64_t whole = (f->end - f->first) * VDISK_GRANULE;
    int64_t bytes = MIN(whole, p->virtual_size - offset);
    int ret;

    if (!f->buf) {
        f->buf = qemu_blockalign(p->store->bs, whole);
    }
    memset(f->buf + bytes, 0, whole - bytes);
    if (!pvs_private_store_begin(p, session)) {
        return -ENOTCONN;
    }
    ret = bdrv_co_pread(p->store, offset, bytes, f->buf, 0);
    return pvs_private_store_end(p, session, ret);
}

/* Before it is tried again; false if the request must not wait any longer */
static bool coroutine_fn GRAPH_RDLOCK wait_a_while(PvsPrivate *p, int64_t begun)
{
    PvsWaiter w = {};
    int64_t limit;

    vdisk_graph_co_release();
    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        limit = pvs_waits_limit(&p->waits);
        if (p->outage_action != STORE_OUTAGE_WAIT) {
            limit = MIN(limit, begun + p->outage_wait);
        }
        if (pvs_now() < limit) {
            pvs_co_wait(&p->waits, &w, MIN(limit, pvs_now() +
                                           p->probe_interval * SCALE_MS));
        }
    }
    vdisk_graph_co_retake();
    if (pvs_now() < limit) {
        return true;
    }
    qatomic_set(&p->gave_up, true);
    return false;
}

/* Again and again, until it is read or it must not wait any longer */
static int coroutine_fn GRAPH_RDLOCK fill_read_waiting(Fill *f)
{
    int64_t begun = pvs_now();
    uint64_t session;

    while ((session = wait_session(f->p))) {
        if (fill_read(f, session) >= 0) {
            return 0;
        }
        if (!wait_a_while(f->p, begun)) {
            break;
        }
    }
    return -EIO;
}

int coroutine_fn pvs_private_co_read_base(PvsPrivate *p, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset)
{
    Fill *f = fill_begin(p, offset, bytes);
    int ret;

    if (!f) {
        /* Another read has fetched it: it does not become base again */
        return vdisk_layer_co_preadv(p->layer, offset, bytes, qiov,
                                     qiov_offset);
    }
    qatomic_inc(&p->reads);
    ret = fill_read_waiting(f);
    qatomic_set(&p->read_at, pvs_now());
    qatomic_dec(&p->reads);
    if (ret < 0) {
        fill_end(f);
        return ret;
    }
    qemu_iovec_from_buf(qiov, qiov_offset,
                        f->buf + (offset - f->first * VDISK_GRANULE), bytes);
    /* Kept for the next one; nobody waits for that */
    bdrv_inc_in_flight(p->bs);
    aio_co_schedule(qemu_get_current_aio_context(),
                    qemu_coroutine_create(fill_entry, f));
    return 0;
}

int64_t coroutine_fn pvs_private_co_localize(PvsPrivate *p, int64_t offset,
                                             int64_t bytes)
{
    uint64_t session = pvs_private_session(p);
    VdiskState state;
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t run = vdisk_map_run(&p->layer->map, first,
                                 vdisk_granules(bytes), &state);
    Fill *f;
    int ret;

    if (state != VDISK_STATE_BASE) {
        return run * VDISK_GRANULE;
    }
    if (!session) {
        return -ENOTCONN;
    }
    f = fill_begin(p, offset, MIN(run * VDISK_GRANULE,
                                  p->virtual_size - offset));
    if (!f) {
        return 0;
    }
    run = f->end - f->first;
    ret = fill_read(f, session) < 0 ? -EAGAIN : 0;
    if (ret >= 0) {
        ret = vdisk_layer_co_put(p->layer, f->first, f->end, f->buf);
    }
    fill_end(f);
    return ret < 0 ? ret : run * VDISK_GRANULE;
}

/* Requests */

static bool is_active(const PvsPrivate *p)
{
    return qatomic_read(&p->journal.open) &&
           !(qatomic_read(&p->bs->open_flags) & BDRV_O_INACTIVE);
}

/*
 * Who is fenced takes no requests. Nor is there anything to read while the node
 * is not active, but devices look at the first sector all the same.
 */
static bool is_refused(PvsPrivate *p)
{
    return qatomic_read(&p->state) == PRIVATE_FENCED || !is_active(p);
}

/* The next part of the request, from one place; returns its length */
static int64_t coroutine_fn GRAPH_RDLOCK
read_part(PvsPrivate *p, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
          size_t qiov_offset)
{
    PvsJournal *j = &p->journal;
    JournalExtent e;
    JournalPin pin;
    int ret = 0;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        journal_index_find(j->index, offset, bytes, &e);
        if (e.seq && e.pos != JOURNAL_POS_ZERO) {
            pvs_journal_pin(j, &pin, e.pos);
        }
    }
    if (!e.seq) {
        ret = vdisk_layer_co_preadv(p->layer, offset, e.length, qiov,
                                    qiov_offset);
    } else if (e.pos == JOURNAL_POS_ZERO) {
        qemu_iovec_memset(qiov, qiov_offset, 0, e.length);
    } else {
        ret = pvs_journal_co_read(j, e.pos, e.length, qiov, qiov_offset);
        WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
            pvs_journal_unpin(j, &pin);
        }
    }
    return ret < 0 ? ret : (int64_t)e.length;
}

int coroutine_fn pvs_private_co_preadv(PvsPrivate *p, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       size_t qiov_offset)
{
    while (bytes > 0) {
        int64_t n = is_refused(p) ? -EIO
                                 : read_part(p, offset, bytes, qiov,
                                             qiov_offset);

        if (n < 0) {
            return n;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return 0;
}

/* A write that failed in a drain is repeated by the device: note that it was */
static int append_result(PvsPrivate *p, int ret)
{
    if (ret < 0 && !qatomic_read(&p->journal.broken)) {
        qatomic_set(&p->gave_up, true);
    }
    return ret;
}

/* A part of a write, which becomes a record of its own */
typedef struct Part {
    AioTask task;
    PvsPrivate *p;
    int64_t offset, bytes;
    QEMUIOVector *qiov;
    size_t qiov_offset;
} Part;

static int coroutine_fn GRAPH_RDLOCK part_append(const Part *w)
{
    if (is_refused(w->p)) {
        return -EIO;
    }
    return pvs_journal_co_append(&w->p->journal, JOURNAL_WRITE, w->offset,
                                 w->bytes, w->qiov, w->qiov_offset, false);
}

static int coroutine_fn part_entry(AioTask *task)
{
    int ret;

    /* Each has the graph lock for itself, to let go of while it waits */
    vdisk_graph_co_retake();
    ret = part_append(container_of(task, Part, task));
    vdisk_graph_co_release();
    return ret;
}

/*
 * Let the event loop go round: who completes or takes in requests holds new
 * ones back until all of that is done (defer_call())
 */
static void coroutine_fn let_go(void)
{
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

/* While one part is on its way to the disk, the next one is copied */
static int coroutine_fn GRAPH_RDLOCK write_parts(const Part *whole,
                                                 int64_t max)
{
    AioTaskPool *pool;
    int64_t at, n;
    int ret;

    vdisk_graph_co_release();
    pool = aio_task_pool_new(PART_TASKS);
    for (at = 0; at < whole->bytes && aio_task_pool_status(pool) == 0;
         at += n) {
        Part *w = g_new(Part, 1);

        n = MIN(whole->bytes - at, max);
        *w = *whole;
        w->task.func = part_entry;
        w->offset += at;
        w->qiov_offset += at;
        w->bytes = n;
        aio_task_pool_start_task(pool, &w->task);
        let_go();
    }
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    aio_task_pool_free(pool);
    vdisk_graph_co_retake();
    return ret;
}

int coroutine_fn pvs_private_co_pwritev(PvsPrivate *p, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        size_t qiov_offset)
{
    int64_t max = MIN(journal_payload_max(p->journal.ring_size), PART_BYTES);
    Part w = {
        .p = p, .offset = offset, .bytes = bytes, .qiov = qiov,
        .qiov_offset = qiov_offset,
    };

    if (offset + bytes > p->virtual_size) {
        return -ENOSPC;     /* a format on top that tries to grow its file */
    }
    return append_result(p, bytes <= max ? part_append(&w)
                                         : write_parts(&w, max));
}

int coroutine_fn pvs_private_co_zero(PvsPrivate *p, int64_t offset,
                                     int64_t bytes, bool unmap)
{
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        int64_t n = MIN(bytes, ZERO_RECORD);

        ret = is_refused(p) ? -EIO
              : pvs_journal_co_append(&p->journal, JOURNAL_ZERO, offset, n,
                                      NULL, 0, unmap);
        offset += n;
        bytes -= n;
    }
    return append_result(p, ret);
}

/*
 * While it lags behind after an outage, a flush does not wait for all that is
 * to be shipped, but for two epochs, so that less is left after it than before
 * it, however fast the guest writes. Caller holds the lock.
 */
static bool must_wait(const PvsPrivate *p, uint64_t pos, uint64_t retired)
{
    const PvsJournal *j = &p->journal;

    return p->state == PRIVATE_READY && !j->broken && j->tail_pos < pos &&
           (!p->lagging || j->retired < retired + 2);
}

/*
 * durability=store: until the tail is past all that this flush covers, which
 * is up to @pos. Losing the store ends the wait: the journal has it (J10). In a
 * drain nothing is shipped, so that it is to a flush as if the store was lost;
 * an error would be the guest's where its device does not stop for errors.
 */
static void coroutine_fn GRAPH_RDLOCK wait_shipped(PvsPrivate *p)
{
    /* What stops the guest flushes all disks, and answers nobody meanwhile */
    bool stopped = pvs_guest_is_stopped();
    uint64_t pos, retired;
    int64_t slow;

    vdisk_graph_co_release();
    qemu_mutex_lock(&p->waits.lock);
    pos = p->journal.closed_pos;
    retired = p->journal.retired;
    slow = p->lagging || stopped ? pvs_now() + CATCH_UP : INT64_MAX;
    while (must_wait(p, pos, retired)) {
        PvsWaiter w = {};
        int64_t until = MIN(slow, pvs_waits_limit(&p->waits));

        if (pvs_now() >= until) {
            if (p->waits.drains || stopped) {
                p->lagging = true;
                p->catch_up = pos;
                qemu_bh_schedule(p->bh);
            }
            break;
        }
        pvs_co_wait(&p->waits, &w, until);
    }
    if (p->journal.tail_pos < pos) {
        p->ended_early = MAX(p->ended_early, pos);
    }
    qemu_mutex_unlock(&p->waits.lock);
    vdisk_graph_co_retake();
}

int coroutine_fn pvs_private_co_flush(PvsPrivate *p)
{
    int ret;

    if (!is_active(p)) {
        return 0;               /* there is nothing to flush */
    }
    if (is_refused(p)) {
        return -EIO;
    }
    ret = pvs_journal_co_flush(&p->journal);
    if (ret >= 0 && p->store_durability) {
        wait_shipped(p);
    }
    return ret;
}
