/*
 * Pooled layers: what goes on behind the guest's back
 *
 * Syncs find out about lost writes. Reclaiming gives the space of the last
 * session back, a step at a time. All runs in the main loop, and does not count
 * as in flight: a reset does not wait for a sync, which can take seconds.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "block/vdisk/layer.h"
#include "block/vdisk/tier.h"
#include "trace.h"

/* As long as Linux keeps dirty pages by default (vm.dirty_expire_centisecs) */
#define SYNC_INTERVAL_MS    30000

/* A step of reclaiming shall take about this long, whatever the file system */
#define STEP_NS             (4 * 1000 * 1000LL)
#define STEP_MIN            (1 * MiB)
#define STEP_MAX            (1 * GiB)
/* Part of the time that it takes at most, on a disk that is idle else */
#define STEP_PAUSE          3
#define STEP_PAUSE_MIN_MS   5
/* How often, and how many times at most, a step waits for a busy guest */
#define BUSY_PAUSE_MS       50
#define BUSY_PAUSES         20

struct VdiskBackground {
    VdiskLayer *l;
    QEMUTimer *sync_timer;
    QEMUTimer *reclaim_timer;
    unsigned running;       /* coroutines */
    bool paused;
    bool reclaiming;        /* a step is under way */
    unsigned starts;        /* of reclaiming; one for each reset */
    int64_t pos;            /* in the disk, up to where space was given back */
    int64_t step;           /* bytes */
    int busy;               /* times that reclaiming stood back by now */
};

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

static void background_enter(VdiskBackground *b, CoroutineEntry *entry)
{
    b->running++;
    qemu_coroutine_enter(qemu_coroutine_create(entry, b));
}

static void background_leave(VdiskBackground *b)
{
    b->running--;
    aio_wait_kick();
}

/*
 * Flushes of a pooled disk do nothing, so nobody would hear of a failed
 * write-back, after which the file may show old data. This does, and from
 * then on the disk fails rather than lies, until it is reset.
 */
static void coroutine_fn sync_entry(void *opaque)
{
    VdiskBackground *b = opaque;
    BlockDriverState *bs = b->l->bs;
    int ret;

    WITH_GRAPH_RDLOCK_GUARD() {
        ret = bdrv_co_flush(bs->file->bs);
    }
    trace_vdisk_background_sync(bs, ret);
    if (ret < 0) {
        qatomic_set(&b->l->sync_error, -EIO);
    }
    background_leave(b);
}

static void sync_timer(void *opaque)
{
    VdiskBackground *b = opaque;
    BlockDriverState *bs = b->l->bs;

    timer_mod(b->sync_timer, now_ms() + SYNC_INTERVAL_MS);
    if (!b->paused && !bs->quiesce_counter &&
        !(bs->open_flags & BDRV_O_INACTIVE) &&
        qatomic_xchg(&b->l->unsynced, false)) {
        background_enter(b, sync_entry);
    }
}

static void coroutine_fn header_entry(void *opaque)
{
    VdiskBackground *b = opaque;
    int ret;

    WITH_GRAPH_RDLOCK_GUARD() {
        ret = vdisk_layer_co_write_header(b->l);
        if (ret < 0) {
            warn_report("Could not write to '%s' which image the disk runs on: "
                        "%s; it is taken again at the next start",
                        b->l->bs->file->bs->filename, g_strerror(-ret));
        }
    }
    background_leave(b);
}

void vdisk_background_write_header(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    background_enter(l->background, header_entry);
}

/* Give back what this session does not use of [@offset, @offset + @bytes) */
static int coroutine_fn GRAPH_RDLOCK
reclaim_range(VdiskLayer *l, int64_t offset, int64_t bytes)
{
    uint64_t g = offset / VDISK_GRANULE;
    uint64_t end = vdisk_granules(offset + bytes);
    VdiskHold hold;
    VdiskState state;
    int ret = 0;

    /* Nobody shall make a granule data while its space is given away (L4) */
    vdisk_layer_co_hold(l, &hold, g, end);
    while (g < end && ret >= 0) {
        uint64_t run = vdisk_map_run(&l->map, g, end - g, &state);

        if (state != VDISK_STATE_DATA) {
            ret = bdrv_co_pdiscard(l->bs->file,
                                   l->data_offset + g * VDISK_GRANULE,
                                   run * VDISK_GRANULE);
        }
        g += run;
    }
    vdisk_layer_co_release(l, &hold);
    return ret;
}

/* One step. Returns the bytes that are done, 0 when there are no more. */
static int64_t coroutine_fn GRAPH_RDLOCK reclaim_step(VdiskBackground *b)
{
    VdiskLayer *l = b->l;
    int64_t left = l->header.virtual_size - b->pos;
    int64_t n;
    int ret;

    if (left <= 0) {
        return 0;
    }
    ret = bdrv_co_block_status_above(l->bs->file->bs, NULL,
                                     l->data_offset + b->pos, left, &n, NULL,
                                     NULL);
    if (ret < 0 || n == 0) {
        return ret;
    }
    if (!(ret & BDRV_BLOCK_ZERO)) {
        /* Not one extent after the other: a session may leave millions */
        n = MIN(left, b->step);
        ret = reclaim_range(l, b->pos, n);
        if (ret < 0) {
            return ret;
        }
    }
    return n;
}

static void coroutine_fn reclaim_entry(void *opaque)
{
    VdiskBackground *b = opaque;
    int64_t start = get_clock();
    int64_t pos = b->pos;
    unsigned starts = b->starts;
    int64_t took, done;
    bool more;

    b->reclaiming = true;
    WITH_GRAPH_RDLOCK_GUARD() {
        done = reclaim_step(b);
    }
    b->reclaiming = false;
    if (done > 0 && b->starts == starts) {
        /* Else it has to look again at what a reset forgot meanwhile */
        b->pos += done;
    }
    more = vdisk_tier_trim(b->l) || done > 0;
    took = get_clock() - start;
    if (took > STEP_NS) {
        b->step = MAX(b->step / 2, STEP_MIN);
    } else if (took < STEP_NS / 4) {
        b->step = MIN(b->step * 2, STEP_MAX);
    }
    trace_vdisk_background_reclaim(b->l->bs, pos, MAX(done, 0), took / 1000,
                                   MIN(done, 0));
    if (more) {
        timer_mod(b->reclaim_timer, now_ms() + STEP_PAUSE_MIN_MS +
                  STEP_PAUSE * took / SCALE_MS);
    }
    background_leave(b);
}

static void reclaim_timer(void *opaque)
{
    VdiskBackground *b = opaque;
    BlockDriverState *bs = b->l->bs;
    bool active = qatomic_xchg(&b->l->guest_active, false);

    /* The guest's own I/O goes first, but does not stop us for good */
    if (b->reclaiming || b->paused || bs->quiesce_counter ||
        qatomic_read(&b->l->saved) || (active && b->busy++ < BUSY_PAUSES)) {
        timer_mod(b->reclaim_timer, now_ms() + BUSY_PAUSE_MS);
        return;
    }
    b->busy = 0;
    background_enter(b, reclaim_entry);
}

void vdisk_background_start(VdiskLayer *l)
{
    VdiskBackground *b = g_new0(VdiskBackground, 1);

    GLOBAL_STATE_CODE();
    b->l = l;
    b->step = STEP_MIN;
    b->sync_timer = timer_new_ms(QEMU_CLOCK_REALTIME, sync_timer, b);
    b->reclaim_timer = timer_new_ms(QEMU_CLOCK_REALTIME, reclaim_timer, b);
    timer_mod(b->sync_timer, now_ms() + SYNC_INTERVAL_MS);
    l->background = b;
}

void vdisk_background_begin(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    l->background->running++;
}

void vdisk_background_end(VdiskLayer *l)
{
    background_leave(l->background);
}

void vdisk_background_pause(VdiskLayer *l)
{
    VdiskBackground *b = l->background;

    GLOBAL_STATE_CODE();
    b->paused = true;
    AIO_WAIT_WHILE_UNLOCKED(NULL, b->running > 0);
}

void vdisk_background_resume(VdiskLayer *l)
{
    l->background->paused = false;
}

void vdisk_background_stop(VdiskLayer *l)
{
    VdiskBackground *b = l->background;

    if (b) {
        vdisk_background_pause(l);
        timer_free(b->sync_timer);
        timer_free(b->reclaim_timer);
        g_free(b);
        l->background = NULL;
    }
}

void vdisk_reclaim_start(VdiskLayer *l)
{
    VdiskBackground *b = l->background;

    GLOBAL_STATE_CODE();
    b->pos = l->keep_space ? INT64_MAX / 2 : 0;
    b->starts++;
    b->busy = 0;
    timer_mod(b->reclaim_timer, now_ms() + BUSY_PAUSE_MS);
}
