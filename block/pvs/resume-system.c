/*
 * Letting a guest go on that was stopped for want of a store
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "block/pvs/private.h"
#include "block/pvs/pvs.h"
#include "block/pvs/resume.h"
#include "qapi/qapi-events-vdisk.h"
#include "system/block-backend.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "trace.h"

/* Not a bottom half: one may run in the middle of a reset, which drains */
static QEMUTimer *resume_timer;
/* It was reset while an error had stopped it: to QEMU it is as if not begun */
static bool reset_while_stopped;
/* Whatever it was denied before this does not keep it any more; ns */
static int64_t ran_at;

/* Asked for at once */
#define ASK_BYTES       (1 * MiB)

bool pvs_has_guest(void)
{
    return true;
}

bool pvs_guest_is_stopped(void)
{
    return !runstate_is_running();
}

/* Would its reads fail again at once? */
static bool image_must_wait(PvsImage *img)
{
    bool wait;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        wait = img->waits.drains || img->lack.bytes;
    }
    return wait || pvs_image_fails_at_once(img);
}

/* Did requests of this node fail for want of a store, and is that over? */
static bool GRAPH_RDLOCK failed_for_us(BlockDriverState *bs)
{
    PvsPrivate *p = pvs_private_of(bs);
    PvsImage *img = pvs_image_of(bs);

    if (p) {
        return qatomic_read(&p->gave_up) && !pvs_private_must_wait(p);
    }
    return img && qatomic_read(&img->gave_up) && !image_must_wait(img);
}

/*
 * Was it we who stopped the guest, for something that is over? Devices note in
 * their backends that they met an error. A full file system is not ours.
 */
static bool GRAPH_RDLOCK may_resume(void)
{
    bool ours = false;

    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);

        if (!bs || !blk_iostatus_is_enabled(blk) ||
            blk_iostatus(blk) == BLOCK_DEVICE_IO_STATUS_OK) {
            continue;
        }
        if (blk_iostatus(blk) == BLOCK_DEVICE_IO_STATUS_NOSPACE ||
            !failed_for_us(bs)) {
            return false;
        }
        ours = true;
    }
    return ours;
}

static void try_again(void)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        blk_iostatus_reset(blk);
    }
}

static void resume(void)
{
    try_again();
    trace_pvs_resume();
    vm_start();
}

static bool stopped_by_error(void)
{
    return runstate_check(RUN_STATE_IO_ERROR) ||
           (runstate_check(RUN_STATE_PRELAUNCH) && reset_while_stopped);
}

/* What no store had right, and the guest was stopped for */

/* As the guest reads it. The image may be another one after a drain only. */
static int coroutine_fn ask_again(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes)
{
    BDRVPvsState *s = bs->opaque;
    g_autofree uint8_t *buf = g_malloc(MIN(bytes, ASK_BYTES));
    int ret = 0;

    GRAPH_RDLOCK_GUARD();
    for (int64_t n = 0; n < bytes && ret >= 0; n += ASK_BYTES) {
        ret = bdrv_co_pread(s->image, offset + n, MIN(bytes - n, ASK_BYTES),
                            buf, 0);
    }
    return ret;
}

/* Counts as in flight, so that node and image stay, and a drain ends it */
static void coroutine_fn ask_entry(void *opaque)
{
    BlockDriverState *bs = opaque;
    PvsImage *img = pvs_image(((BDRVPvsState *)bs->opaque)->image->bs);
    PvsLack lack;
    int ret;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        lack = img->lack;
    }
    ret = ask_again(bs, lack.offset, lack.bytes);
    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        img->lack.asking = false;
    }
    if (ret >= 0) {
        pvs_image_forget_lack(img, INT64_MAX);
    }
    timer_mod_anticipate(resume_timer,
                         pvs_now() + (ret < 0 ? PVS_RETRY_MS * SCALE_MS : 0));
    bdrv_dec_in_flight(bs);
}

/* What is drained is asked when the drain is over */
static bool begin_to_ask(PvsImage *img, bool *tell)
{
    PvsLack *lack = &img->lack;

    QEMU_LOCK_GUARD(&img->waits.lock);
    if (!lack->bytes || lack->asking || img->waits.drains) {
        return false;
    }
    *tell = !lack->told;
    lack->asking = lack->told = true;
    return true;
}

static void GRAPH_RDLOCK ask_for_lacks(void)
{
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);
        PvsImage *img = bs ? pvs_image_of(bs) : NULL;
        bool tell;

        if (!img || !begin_to_ask(img, &tell)) {
            continue;
        }
        if (tell) {
            qapi_event_send_vdisk_outage(img->node_name, true, false, false, 0);
        }
        bdrv_inc_in_flight(bs);
        aio_co_schedule(qemu_get_aio_context(),
                        qemu_coroutine_create(ask_entry, bs));
    }
}

static void GRAPH_RDLOCK forget_lacks(void)
{
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);
        PvsImage *img = bs ? pvs_image_of(bs) : NULL;

        if (img) {
            pvs_image_forget_lack(img, ran_at);
        }
    }
}

static void resume_timer_cb(void *opaque)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    forget_lacks();
    if (stopped_by_error() && may_resume()) {
        resume();
    } else if (stopped_by_error()) {
        ask_for_lacks();
    }
}

void pvs_resume_soon(void)
{
    if (resume_timer) {
        timer_mod(resume_timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
}

/* What it was stopped for before is no reason for what stops it from now on */
static void forget_failures(void)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        BlockDriverState *bs = blk_bs(blk);
        PvsImage *img = bs ? pvs_image_of(bs) : NULL;
        PvsPrivate *p = bs ? pvs_private_of(bs) : NULL;

        if (img) {
            qatomic_set(&img->gave_up, false);
        }
        if (p) {
            qatomic_set(&p->gave_up, false);
        }
    }
}

/*
 * Called before devices take up what failed. What it was stopped for may be
 * over by the time it stops.
 */
static void vm_state_changed(void *opaque, bool running, RunState state)
{
    if (running) {
        ran_at = pvs_now();
        forget_failures();
    }
    if (running || state == RUN_STATE_IO_ERROR) {
        pvs_resume_soon();
    }
}

/* Called before QEMU changes the state for it */
static void system_reset(void *opaque)
{
    reset_while_stopped = stopped_by_error();
    if (reset_while_stopped) {
        ran_at = pvs_now();
        pvs_resume_soon();
    }
}

void pvs_resume_register(void)
{
    if (!resume_timer) {
        resume_timer = timer_new_ns(QEMU_CLOCK_REALTIME, resume_timer_cb, NULL);
        qemu_register_reset(system_reset, NULL);
        qemu_add_vm_change_state_handler(vm_state_changed, NULL);
    }
}
