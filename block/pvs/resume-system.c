/*
 * Letting a guest go on that was stopped for want of a store
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "block/pvs/private.h"
#include "block/pvs/resume.h"
#include "block/pvs/tree.h"
#include "system/block-backend.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "trace.h"

/* Not a bottom half: one may run in the middle of a reset, which drains */
static QEMUTimer *resume_timer;
/* It was reset while an error had stopped it: to QEMU it is as if not begun */
static bool reset_while_stopped;

bool pvs_has_guest(void)
{
    return true;
}

/* Would its reads fail again at once? */
static bool image_must_wait(PvsImage *img)
{
    bool wait;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        wait = img->waits.drains;
    }
    return wait || pvs_pool_fails_at_once(img->stores) ||
           (img->tree && pvs_pool_fails_at_once(pvs_tree_pool(img->tree)));
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
 * their backends that they met an error.
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
        if (!failed_for_us(bs)) {
            return false;
        }
        ours = true;
    }
    return ours;
}

static void resume(void)
{
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
        blk_iostatus_reset(blk);
    }
    trace_pvs_resume();
    vm_start();
}

static bool stopped_by_error(void)
{
    return runstate_check(RUN_STATE_IO_ERROR) ||
           (runstate_check(RUN_STATE_PRELAUNCH) && reset_while_stopped);
}

static void resume_timer_cb(void *opaque)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (stopped_by_error() && may_resume()) {
        resume();
    }
}

void pvs_resume_soon(void)
{
    if (resume_timer) {
        timer_mod(resume_timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    }
}

/* What it was stopped for may be over by the time it stops */
static void vm_state_changed(void *opaque, bool running, RunState state)
{
    if (state == RUN_STATE_IO_ERROR) {
        pvs_resume_soon();
    }
}

/* Called before QEMU changes the state for it */
static void system_reset(void *opaque)
{
    reset_while_stopped = stopped_by_error();
    if (reset_while_stopped) {
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
