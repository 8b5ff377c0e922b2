/*
 * Layer: requests
 *
 * A granule in state data is written in place, like a raw file. In any other
 * state it is new: whoever writes it holds it from looking at its state to
 * changing it, so that of two requests that find it new the second finds it
 * written by the first (L3).
 *
 * Who writes in place holds nothing. If another request makes the granule
 * zero, or new again, meanwhile, both were under way at the same time, and
 * either may count as the last: each sector is the one's or the other's.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/aio_task.h"
#include "block/vdisk/graph.h"
#include "block/vdisk/layer.h"
#include "block/vdisk/tier.h"
#include "trace.h"

/* Runs of a fragmented request that are read at once, as qcow2 does */
#define READ_TASKS      8
/* Granules held at once to zero or punch: a guest's write waits no longer */
#define ZERO_SLICE      (16 * MiB)
/* Looked at for one block status: all of 64 TiB would take a second */
#define STATUS_SLICE    (256 * GiB)

void coroutine_fn vdisk_layer_co_hold(VdiskLayer *l, VdiskHold *hold,
                                      uint64_t first, uint64_t end)
{
    int64_t offset = first * VDISK_GRANULE;
    int64_t bytes = (end - first) * VDISK_GRANULE;

    qemu_co_mutex_lock(&l->hold_lock);
    while (l->remote_base && reqlist_find_conflict(&l->holds, offset, bytes)) {
        /* Who holds it may wait for a store that is gone */
        vdisk_graph_co_release();
        reqlist_wait_all(&l->holds, offset, bytes, &l->hold_lock);
        qemu_co_mutex_unlock(&l->hold_lock);
        vdisk_graph_co_retake();
        qemu_co_mutex_lock(&l->hold_lock);
    }
    reqlist_wait_all(&l->holds, offset, bytes, &l->hold_lock);
    reqlist_init_req(&l->holds, &hold->req, offset, bytes);
    qemu_co_mutex_unlock(&l->hold_lock);
}

void coroutine_fn vdisk_layer_co_release(VdiskLayer *l, VdiskHold *hold)
{
    qemu_co_mutex_lock(&l->hold_lock);
    reqlist_remove_req(&hold->req);
    qemu_co_mutex_unlock(&l->hold_lock);
}

/* Length of the part of the request that is in one state */
static int64_t layer_run(VdiskLayer *l, int64_t offset, int64_t bytes,
                         VdiskState *state)
{
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = vdisk_granules(offset + bytes);
    uint64_t run = vdisk_map_run(&l->map, first, end - first, state);

    return MIN(bytes, (int64_t)((first + run) * VDISK_GRANULE) - offset);
}

/* The same, and in one place: the tier or the file */
static int64_t layer_read_run(VdiskLayer *l, int64_t offset, int64_t bytes,
                              VdiskState *state)
{
    int64_t run = layer_run(l, offset, bytes, state);
    uint64_t first = offset / VDISK_GRANULE;

    if (l->tier && *state == VDISK_STATE_DATA) {
        uint64_t n = vdisk_tier_run(l, first,
                                    vdisk_granules(offset + run) - first);

        run = MIN(run, (int64_t)((first + n) * VDISK_GRANULE) - offset);
    }
    return run;
}

static int coroutine_fn GRAPH_RDLOCK
layer_co_read_file(VdiskLayer *l, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset)
{
    /* After lost writes the file may hold anything, old data too (L6) */
    int lost = qatomic_read(&l->sync_error);

    if (lost < 0) {
        return lost;
    }
    BLKDBG_CO_EVENT(l->bs->file, BLKDBG_READ_AIO);
    return bdrv_co_preadv_part(l->bs->file, l->data_offset + offset, bytes,
                               qiov, qiov_offset, 0);
}

static int coroutine_fn GRAPH_RDLOCK
layer_co_read_tier(VdiskLayer *l, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset)
{
    VdiskPlace place;
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        int64_t n = vdisk_tier_read(l, offset, bytes, qiov, qiov_offset,
                                    &place);

        if (place == VDISK_PLACE_CHANGED) {
            return vdisk_layer_co_preadv(l, offset, bytes, qiov, qiov_offset);
        }
        if (place == VDISK_PLACE_FILE) {
            ret = layer_co_read_file(l, offset, n, qiov, qiov_offset);
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
layer_co_read_run(VdiskLayer *l, VdiskState state, int64_t offset,
                  int64_t bytes, QEMUIOVector *qiov, size_t qiov_offset)
{
    switch (state) {
    case VDISK_STATE_BASE:
        BLKDBG_CO_EVENT(l->bs->file, BLKDBG_READ_BACKING_AIO);
        return l->ops->co_read_base(l->bs, offset, bytes, qiov, qiov_offset);
    case VDISK_STATE_DATA:
        if (l->tier) {
            return layer_co_read_tier(l, offset, bytes, qiov, qiov_offset);
        }
        return layer_co_read_file(l, offset, bytes, qiov, qiov_offset);
    case VDISK_STATE_ZERO:
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
        return 0;
    default:
        return -EIO;    /* damaged map, opened read-only */
    }
}

typedef struct LayerReadTask {
    AioTask task;
    VdiskLayer *l;
    VdiskState state;
    int64_t offset;
    int64_t bytes;
    QEMUIOVector *qiov;
    size_t qiov_offset;
} LayerReadTask;

/*
 * Who started the task keeps the graph lock until all have ended; but where
 * tasks can wait for ever, each has it for itself, and lets go of it to wait.
 * The analysis knows no lock that somebody may have.
 */
static int coroutine_fn TSA_NO_TSA layer_co_read_task(AioTask *task)
{
    LayerReadTask *t = container_of(task, LayerReadTask, task);
    int ret;

    if (t->l->remote_base) {
        vdisk_graph_co_retake();
    }
    ret = layer_co_read_run(t->l, t->state, t->offset, t->bytes, t->qiov,
                            t->qiov_offset);
    if (t->l->remote_base) {
        vdisk_graph_co_release();
    }
    return ret;
}

static int coroutine_fn
layer_co_start_runs(VdiskLayer *l, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset)
{
    AioTaskPool *pool = aio_task_pool_new(READ_TASKS);
    int ret;

    while (bytes > 0 && aio_task_pool_status(pool) == 0) {
        LayerReadTask *t = g_new(LayerReadTask, 1);
        VdiskState state;
        int64_t run = layer_read_run(l, offset, bytes, &state);

        *t = (LayerReadTask) {
            .task.func = layer_co_read_task,
            .l = l,
            .state = state,
            .offset = offset,
            .bytes = run,
            .qiov = qiov,
            .qiov_offset = qiov_offset,
        };
        aio_task_pool_start_task(pool, &t->task);
        offset += run;
        qiov_offset += run;
        bytes -= run;
    }
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    aio_task_pool_free(pool);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK TSA_NO_TSA
layer_co_read_runs(VdiskLayer *l, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset)
{
    int ret;

    if (l->remote_base) {
        vdisk_graph_co_release();
    }
    ret = layer_co_start_runs(l, offset, bytes, qiov, qiov_offset);
    if (l->remote_base) {
        vdisk_graph_co_retake();
    }
    return ret;
}

int coroutine_fn vdisk_layer_co_preadv(VdiskLayer *l, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       size_t qiov_offset)
{
    VdiskState state;

    if (bytes == 0) {
        return 0;
    }
    vdisk_note_guest(l);
    if (layer_read_run(l, offset, bytes, &state) == bytes) {
        return layer_co_read_run(l, state, offset, bytes, qiov, qiov_offset);
    }
    return layer_co_read_runs(l, offset, bytes, qiov, qiov_offset);
}

/*
 * Write into the tier what it has room for, the rest into the file. Granules
 * that are not in state data are held by the caller and covered whole.
 */
static int coroutine_fn GRAPH_RDLOCK
layer_co_write_data(VdiskLayer *l, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset)
{
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        VdiskPlace place = VDISK_PLACE_FILE;
        int64_t n = bytes;

        if (l->tier) {
            n = vdisk_tier_write(l, offset, bytes, qiov, qiov_offset, &place);
        }
        if (place == VDISK_PLACE_FILE) {
            ret = bdrv_co_pwritev_part(l->bs->file, l->data_offset + offset, n,
                                       qiov, qiov_offset, 0);
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return ret;
}

/*
 * Content of a whole new granule as it is before the write, for the part that
 * the write does not cover; zeros past the end of the disk, so that growing
 * finds zeros there. Head and tail of a request both come from here.
 */
static int coroutine_fn GRAPH_RDLOCK
layer_co_fill(VdiskLayer *l, uint64_t granule, void *buf)
{
    int64_t offset = granule * VDISK_GRANULE;
    int64_t bytes = MIN(VDISK_GRANULE, l->header.virtual_size - offset);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    VdiskState state;

    memset(buf, 0, VDISK_GRANULE);
    vdisk_map_run(&l->map, granule, 1, &state);
    if (state == VDISK_STATE_ZERO) {
        return 0;
    }
    if (state != VDISK_STATE_BASE) {
        return -EIO;
    }
    BLKDBG_CO_EVENT(l->bs->file, BLKDBG_COW_READ);
    return l->ops->co_read_base(l->bs, offset, bytes, &qiov, 0);
}

/*
 * Write the range, and what of its first and last granule is outside of it if
 * they are new, in one request. Caller holds the granules.
 */
static int coroutine_fn GRAPH_RDLOCK
layer_co_write_filled(VdiskLayer *l, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset)
{
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t last = (offset + bytes - 1) / VDISK_GRANULE;
    size_t head = offset % VDISK_GRANULE;
    size_t tail = (last + 1) * VDISK_GRANULE - (offset + bytes);
    uint8_t *buf = qemu_blockalign(l->bs->file->bs, 2 * VDISK_GRANULE);
    uint8_t *last_buf = first == last ? buf : buf + VDISK_GRANULE;
    void *joined = NULL;
    QEMUIOVector whole;
    int ret = 0;

    if (vdisk_map_all(&l->map, first, 1, VDISK_STATE_DATA)) {
        head = 0;
        tail = first == last ? 0 : tail;
    }
    if (vdisk_map_all(&l->map, last, 1, VDISK_STATE_DATA)) {
        tail = 0;
    }
    if (head || (tail && first == last)) {
        ret = layer_co_fill(l, first, buf);
    }
    if (ret >= 0 && tail && first != last) {
        ret = layer_co_fill(l, last, last_buf);
    }
    if (ret >= 0) {
        qemu_iovec_init(&whole, qiov->niov + 2);
        qemu_iovec_add(&whole, buf, head);
        if (qiov->niov > IOV_MAX - 2) {
            /* More pieces than a request may have: make them one */
            joined = qemu_blockalign(l->bs->file->bs, bytes);
            qemu_iovec_to_buf(qiov, qiov_offset, joined, bytes);
            qemu_iovec_add(&whole, joined, bytes);
        } else {
            qemu_iovec_concat(&whole, qiov, qiov_offset, bytes);
        }
        qemu_iovec_add(&whole, last_buf + VDISK_GRANULE - tail, tail);
        BLKDBG_CO_EVENT(l->bs->file, BLKDBG_COW_WRITE);
        ret = layer_co_write_data(l, offset - head, whole.size, &whole, 0);
        qemu_iovec_destroy(&whole);
        qemu_vfree(joined);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
layer_co_write_new(VdiskLayer *l, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset)
{
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = vdisk_granules(offset + bytes);
    VdiskHold hold;
    int ret;

    vdisk_layer_co_hold(l, &hold, first, end);
    if (QEMU_IS_ALIGNED(offset | bytes, VDISK_GRANULE)) {
        BLKDBG_CO_EVENT(l->bs->file, BLKDBG_WRITE_AIO);
        ret = layer_co_write_data(l, offset, bytes, qiov, qiov_offset);
    } else {
        ret = layer_co_write_filled(l, offset, bytes, qiov, qiov_offset);
    }
    if (ret >= 0) {
        /* Only now: until the granules are whole, others read the base (L3) */
        vdisk_map_set(&l->map, first, end - first, VDISK_STATE_DATA);
    }
    vdisk_layer_co_release(l, &hold);
    trace_vdisk_layer_new_granules(l->bs, offset, bytes, ret);
    return ret;
}

int coroutine_fn vdisk_layer_co_put(VdiskLayer *l, uint64_t first,
                                    uint64_t end, void *buf)
{
    int64_t bytes = (end - first) * VDISK_GRANULE;
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    int ret = layer_co_write_data(l, first * VDISK_GRANULE, bytes, &qiov, 0);

    if (ret >= 0) {
        /* Only now: until the granules are whole, others read the base (L3) */
        vdisk_map_set(&l->map, first, end - first, VDISK_STATE_DATA);
    }
    return ret;
}

/* May the disk change? If not, why: lost writes, or a state it belongs to */
static int coroutine_fn GRAPH_RDLOCK layer_co_before_change(VdiskLayer *l)
{
    int lost = qatomic_read(&l->sync_error);

    vdisk_note_guest(l);
    if (lost < 0) {
        return lost;
    }
    return qatomic_load_acquire(&l->saved) ? vdisk_layer_co_forget_saved(l) : 0;
}

int coroutine_fn vdisk_layer_co_pwritev(VdiskLayer *l, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        size_t qiov_offset)
{
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = vdisk_granules(offset + bytes);
    int ret;

    if (bytes == 0) {
        return 0;
    }
    if (offset + bytes > l->header.virtual_size) {
        return -ENOSPC;     /* a format on top that tries to grow its file */
    }
    ret = layer_co_before_change(l);
    if (ret < 0) {
        return ret;
    }
    if (vdisk_map_all(&l->map, first, end - first, VDISK_STATE_DATA)) {
        BLKDBG_CO_EVENT(l->bs->file, BLKDBG_WRITE_AIO);
        ret = layer_co_write_data(l, offset, bytes, qiov, qiov_offset);
    } else {
        ret = layer_co_write_new(l, offset, bytes, qiov, qiov_offset);
    }
    /* After the write: a sync that began before it does not cover it */
    if (l->pooled && !qatomic_read(&l->unsynced)) {
        qatomic_set(&l->unsynced, true);
    }
    return ret;
}

/*
 * Give back the space of granules that are held and zero. The request leaves
 * zeros whatever the medium, so it need not wait until the zero bits are
 * durable: with the old bits on disk it still reads as zeros (L4). Failing
 * costs nothing but space.
 */
static void coroutine_fn GRAPH_RDLOCK
layer_co_punch(VdiskLayer *l, int64_t offset, int64_t bytes)
{
    int ret = bdrv_co_pwrite_zeroes(l->bs->file, l->data_offset + offset,
                                    bytes, BDRV_REQ_MAY_UNMAP |
                                    BDRV_REQ_NO_FALLBACK);

    if (ret < 0) {
        trace_vdisk_layer_punch_failed(l->bs, offset, bytes, ret);
    }
}

static void coroutine_fn GRAPH_RDLOCK
layer_co_zero_slice(VdiskLayer *l, uint64_t first, uint64_t end, bool punch)
{
    VdiskHold hold;
    VdiskState state;

    vdisk_layer_co_hold(l, &hold, first, end);
    while (first < end) {
        uint64_t run = vdisk_map_run(&l->map, first, end - first, &state);

        vdisk_map_set(&l->map, first, run, VDISK_STATE_ZERO);
        if (state == VDISK_STATE_DATA) {
            /* After the state has changed: see vdisk_tier_read() */
            vdisk_tier_drop(l, first, run);
        }
        if (punch && state == VDISK_STATE_DATA) {
            layer_co_punch(l, first * VDISK_GRANULE, run * VDISK_GRANULE);
        }
        first += run;
    }
    vdisk_layer_co_release(l, &hold);
}

int coroutine_fn vdisk_layer_co_zero(VdiskLayer *l, int64_t offset,
                                     int64_t bytes, bool punch)
{
    int64_t end = offset + bytes;
    int ret;

    if (end > l->header.virtual_size) {
        return -ENOSPC;
    }
    if (!QEMU_IS_ALIGNED(offset, VDISK_GRANULE) ||
        (!QEMU_IS_ALIGNED(end, VDISK_GRANULE) &&
         end != l->header.virtual_size)) {
        return -ENOTSUP;
    }
    ret = layer_co_before_change(l);
    if (ret < 0) {
        return ret;
    }
    trace_vdisk_layer_zero(l->bs, offset, bytes, punch);
    /* Where the file is kept allocated (discard=ignore), so are its granules */
    punch = punch && (l->bs->file->bs->open_flags & BDRV_O_UNMAP);
    while (offset < end) {
        int64_t n = MIN(end - offset, ZERO_SLICE);

        layer_co_zero_slice(l, offset / VDISK_GRANULE,
                            vdisk_granules(offset + n), punch);
        offset += n;
    }
    return 0;
}

int coroutine_fn vdisk_layer_co_block_status(VdiskLayer *l, int64_t offset,
                                             int64_t bytes, int64_t *pnum,
                                             int64_t *map,
                                             BlockDriverState **file)
{
    VdiskState state;

    *pnum = layer_run(l, offset, MIN(bytes, STATUS_SLICE), &state);
    switch (state) {
    case VDISK_STATE_BASE:
        return l->remote_base ? BDRV_BLOCK_DATA : 0;
    case VDISK_STATE_ZERO:
        return BDRV_BLOCK_ZERO;
    case VDISK_STATE_DATA:
        if (l->tier) {
            return BDRV_BLOCK_DATA;     /* not all of it is in the file */
        }
        *map = l->data_offset + offset;
        *file = l->bs->file->bs;
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    default:
        return -EIO;
    }
}
