/*
 * pvs-image: one version of a vDisk, as it is read
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-vdisk.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "block/pvs/ahead.h"
#include "block/pvs/cache.h"
#include "block/pvs/image.h"
#include "block/pvs/image-open.h"
#include "block/pvs/resume.h"
#include "block/pvs/tree.h"
#include "block/vdisk/graph.h"

/* Of one request this much is on its way at a time */
#define READ_SLICE      (4 * MiB)
#define READ_FETCHES    (READ_SLICE / VDISK_GRANULE)

PvsImage *pvs_image(BlockDriverState *bs)
{
    return bs->opaque;
}

int64_t pvs_image_end(const PvsImage *img)
{
    return img->tree_base + (img->tree ? pvs_tree_bytes(img->size) : 0);
}

/* Drains */

/* What owes an answer holds the graph, and may do so for long */
static void break_timer(void *opaque)
{
    PvsImage *img = opaque;

    if (img->waits.drains) {
        if (img->stores) {      /* else it is being opened */
            pvs_pool_break(img->stores);
        }
        if (img->tree) {
            pvs_pool_break(pvs_tree_pool(img->tree));
        }
        timer_mod(img->break_timer, pvs_now() + PVS_BREAK_MS * SCALE_MS);
    }
}

QEMUTimer *pvs_image_break_timer(PvsImage *img)
{
    return aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, SCALE_NS,
                         break_timer, img);
}

void pvs_image_drain_begin(PvsImage *img)
{
    pvs_waits_drain_begin(&img->waits);
    if (img->waits.drains == 1) {
        timer_mod(img->break_timer, pvs_now() + PVS_BREAK_MS * SCALE_MS);
    }
}

void pvs_image_drain_end(PvsImage *img)
{
    pvs_waits_drain_end(&img->waits);
    if (!img->waits.drains) {
        timer_del(img->break_timer);
        pvs_image_store_is_back(img);
    }
}

/* Also called on a node whose open has failed, or that is being opened */
static void pvs_image_bs_drain_begin(BlockDriverState *bs)
{
    PvsImage *img = bs->opaque;

    if (img->bs) {
        pvs_image_drain_begin(img);
    }
}

static void pvs_image_bs_drain_end(BlockDriverState *bs)
{
    PvsImage *img = bs->opaque;

    if (img->bs) {
        pvs_image_drain_end(img);
    }
}

void pvs_image_store_is_back(PvsImage *img)
{
    if (qatomic_read(&img->gave_up)) {
        pvs_resume_soon();
    }
}

void pvs_image_forget_lack(PvsImage *img, int64_t before)
{
    PvsLack was;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        if (!img->lack.bytes || img->lack.at >= before) {
            return;
        }
        was = img->lack;
        img->lack = (PvsLack) { .asking = was.asking };
    }
    if (was.told) {
        qapi_event_send_vdisk_outage(img->node_name, false, false, true,
                                     (pvs_now() - was.since) / SCALE_MS);
    }
}

void pvs_image_end_outages(PvsImage *img)
{
    pvs_pool_end_outage(img->stores);
    if (img->tree) {
        pvs_pool_end_outage(pvs_tree_pool(img->tree));
    }
    pvs_image_forget_lack(img, INT64_MAX);
}

bool pvs_image_fails_at_once(PvsImage *img)
{
    return pvs_pool_fails_at_once(img->stores) ||
           (img->tree && pvs_pool_fails_at_once(pvs_tree_pool(img->tree)));
}

void pvs_image_report_corrupt(PvsImage *img, bool tree, const char *store,
                              int64_t offset, int64_t bytes)
{
    qatomic_inc(&img->corrupt);
    qapi_event_send_vdisk_corrupt(img->node_name, store, tree, offset, bytes);
}

/* Reading */

typedef struct ReadPart {
    PvsFetch *f;
    int64_t offset;
    int64_t bytes;
} ReadPart;

/* Where the next @bytes at @offset are: one state of @cache, if there is one */
static int64_t cache_run(PvsCache *cache, int64_t offset, int64_t bytes,
                         VdiskState *state)
{
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = DIV_ROUND_UP(offset + bytes, VDISK_GRANULE);
    uint64_t run;

    *state = VDISK_STATE_BASE;
    if (!cache) {
        return bytes;
    }
    run = pvs_cache_run(cache, first, end - first, state);
    return MIN(bytes, (int64_t)((first + run) * VDISK_GRANULE) - offset);
}

/* Begin to fetch [@offset, @offset + @bytes) in @parts; returns how many */
static unsigned coroutine_fn
fetch_run(PvsImage *img, int64_t offset, int64_t bytes, ReadPart *parts)
{
    int64_t pos = QEMU_ALIGN_DOWN(offset, VDISK_GRANULE);
    int64_t end = ROUND_UP(offset + bytes, VDISK_GRANULE);
    unsigned k = 0;

    while (pos < end) {
        int64_t n;
        PvsFetch *f = pvs_fetch_begin(img, pos, end - pos, PVS_DEMAND, &n);
        int64_t from = MAX(pos, offset);

        parts[k++] = (ReadPart) {
            .f = f,
            .offset = from,
            .bytes = MIN(pos + n, offset + bytes) - from,
        };
        pos += n;
    }
    return k;
}

static int coroutine_fn GRAPH_RDLOCK
image_co_read_slice(PvsImage *img, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset);

/* It was cached just when it was to be fetched */
static int coroutine_fn GRAPH_RDLOCK
read_again(PvsImage *img, ReadPart *part, QEMUIOVector *qiov,
           size_t qiov_offset)
{
    return image_co_read_slice(img, part->offset, part->bytes, qiov,
                               qiov_offset);
}

/* Whatever cache and fetches know of it */
static int coroutine_fn GRAPH_RDLOCK
read_past_cache(PvsImage *img, int64_t offset, int64_t bytes,
                QEMUIOVector *qiov, size_t qiov_offset)
{
    uint8_t *buf = NULL;
    int ret;

    vdisk_graph_co_release();
    ret = pvs_image_co_read_past_cache(img, offset, bytes, &buf);
    vdisk_graph_co_retake();
    if (ret >= 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, buf + offset % VDISK_GRANULE,
                            bytes);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
finish_part(PvsImage *img, ReadPart *part, QEMUIOVector *qiov,
            size_t qiov_offset)
{
    int ret;

    if (!part->f) {
        return read_again(img, part, qiov, qiov_offset);
    }
    if (!pvs_fetch_is_done(part->f)) {
        vdisk_graph_co_release();
        ret = pvs_fetch_co_wait(img, part->f);
        vdisk_graph_co_retake();
    } else {
        ret = pvs_fetch_result(part->f);
    }
    if (ret == -ENODATA) {
        return read_past_cache(img, part->offset, part->bytes, qiov,
                               qiov_offset);
    }
    if (ret >= 0) {
        qemu_iovec_from_buf(qiov, qiov_offset,
                            pvs_fetch_data(part->f, part->offset),
                            part->bytes);
    }
    return ret;
}

/* All parts are waited for, also after an error: they have references */
static int coroutine_fn GRAPH_RDLOCK
read_missing(PvsImage *img, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
             size_t qiov_offset)
{
    ReadPart one[2];
    g_autofree ReadPart *many = NULL;
    ReadPart *parts = one;
    unsigned n;
    int ret = 0;

    if (bytes > VDISK_GRANULE) {
        parts = many = g_new(ReadPart, bytes / VDISK_GRANULE + 2);
    }
    n = fetch_run(img, offset, bytes, parts);
    for (unsigned i = 0; i < n; i++) {
        int r = ret < 0 ? 0
                        : finish_part(img, &parts[i], qiov, qiov_offset +
                                      (parts[i].offset - offset));

        ret = ret < 0 ? ret : r;
        if (parts[i].f) {
            pvs_fetch_unref(img, parts[i].f);
        }
    }
    return MIN(ret, 0);
}

/* @cache is the one that was asked: it may be replaced by another meanwhile */
static int coroutine_fn GRAPH_RDLOCK
read_cached(PvsImage *img, PvsCache *cache, int64_t offset, int64_t bytes,
            QEMUIOVector *qiov, size_t qiov_offset)
{
    int ret = pvs_cache_co_read(cache, offset, bytes, qiov, qiov_offset);

    /* Cut off or damaged: a miss that the cache does not know of */
    return ret >= 0 ? ret : read_past_cache(img, offset, bytes, qiov,
                                            qiov_offset);
}

int coroutine_fn pvs_image_co_read_past_cache(PvsImage *img, int64_t offset,
                                              int64_t bytes, uint8_t **buf)
{
    int64_t first = QEMU_ALIGN_DOWN(offset, VDISK_GRANULE);
    int64_t end = MIN(ROUND_UP(offset + bytes, VDISK_GRANULE), img->size);
    PvsTreeHold hold = {};
    int ret = 0;

    if (img->tree) {
        ret = pvs_tree_co_hold(img->tree, first,
                               ROUND_UP(end - first, VDISK_GRANULE), true,
                               &hold);
    }
    if (ret >= 0) {
        ret = pvs_pool_co_read(img->stores, first, end - first, true,
                               img->tree ? pvs_tree_check : NULL, &hold, buf);
    }
    if (img->tree) {
        pvs_tree_release(img->tree, &hold);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
image_co_read_slice(PvsImage *img, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset)
{
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        VdiskState state;
        PvsCache *cache = pvs_image_cache(img);
        int64_t n = cache_run(cache, offset, bytes, &state);

        if (cache) {
            pvs_cache_count(cache, state == VDISK_STATE_BASE ? 0 : n,
                            state == VDISK_STATE_BASE ? n : 0);
        }
        switch (state) {
        case VDISK_STATE_DATA:
            ret = read_cached(img, cache, offset, n, qiov, qiov_offset);
            break;
        case VDISK_STATE_ZERO:
            qemu_iovec_memset(qiov, qiov_offset, 0, n);
            break;
        default:
            n = MIN(n, READ_SLICE);
            ret = read_missing(img, offset, n, qiov, qiov_offset);
            break;
        }
        offset += n;
        qiov_offset += n;
        bytes -= n;
    }
    return ret;
}

/* A read failed: if not for an outage or a drain, for want of a good answer */
static void note_lack(PvsImage *img, int64_t offset, int64_t bytes)
{
    PvsLack *lack = &img->lack;
    int64_t now = pvs_now();

    if (img->outage_action != STORE_OUTAGE_PAUSE ||
        pvs_image_fails_at_once(img)) {
        return;
    }
    QEMU_LOCK_GUARD(&img->waits.lock);
    if (img->waits.drains || lack->asking) {
        return;
    }
    lack->since = lack->bytes ? lack->since : now;
    lack->offset = offset;
    lack->bytes = bytes;
    lack->at = now;
}

static int coroutine_fn GRAPH_RDLOCK
pvs_image_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset,
                         BdrvRequestFlags flags)
{
    PvsImage *img = pvs_image(bs);
    int ret;

    if (img->ahead) {
        pvs_ahead_note(img->ahead, offset, bytes);
    }
    ret = image_co_read_slice(img, offset, bytes, qiov, qiov_offset);
    if (ret < 0) {
        note_lack(img, offset, bytes);
    }
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
pvs_image_co_block_status(BlockDriverState *bs, bool want_zero,
                          int64_t offset, int64_t bytes, int64_t *pnum,
                          int64_t *map, BlockDriverState **file)
{
    VdiskState state;

    *pnum = cache_run(pvs_image_cache(pvs_image(bs)), offset, bytes, &state);
    return state == VDISK_STATE_ZERO ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA;
}

static int64_t coroutine_fn pvs_image_co_getlength(BlockDriverState *bs)
{
    return pvs_image(bs)->size;
}

static void pvs_image_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = BDRV_SECTOR_SIZE;
    /*
     * What is asked of a store is split for it. Taken over from iSCSI, the
     * limit would keep desktops, which expect NBD's own, off a relay.
     */
    bs->bl.max_transfer = 0;
}

/* The versions that stores have are sealed: nobody shall write to them */
static void GRAPH_RDLOCK
pvs_image_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                     BlockReopenQueue *queue, uint64_t perm, uint64_t shared,
                     uint64_t *nperm, uint64_t *nshared)
{
    *nperm = BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
}

static BlockDriver bdrv_pvs_image = {
    .format_name                = "pvs-image",
    .instance_size              = sizeof(PvsImage),
    .is_format                  = true,

    .bdrv_open                  = pvs_image_open,
    .bdrv_close                 = pvs_image_close,
    .bdrv_child_perm            = pvs_image_child_perm,
    .bdrv_refresh_limits        = pvs_image_refresh_limits,
    .bdrv_drain_begin           = pvs_image_bs_drain_begin,
    .bdrv_drain_end             = pvs_image_bs_drain_end,

    .bdrv_co_preadv_part        = pvs_image_co_preadv_part,
    .bdrv_co_block_status       = pvs_image_co_block_status,
    .bdrv_co_getlength          = pvs_image_co_getlength,
};

static void pvs_image_register(void)
{
    bdrv_register(&bdrv_pvs_image);
}

block_init(pvs_image_register);
