/*
 * Pooled layers: what makes them forget, and what must not be forgotten
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/qapi-events-vdisk.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "block/blockjob.h"
#include "block/vdisk/layer.h"
#include "trace.h"

static void pooled_tell(VdiskLayer *l, bool switched)
{
    VdiskImageName *base = &l->header.base;
    VdiskImage image = { .filename = base->name, .format = base->format };
    bool streamed = l->role != VDISK_ROLE_MCS;

    qapi_event_send_vdisk_reset(bdrv_get_node_name(l->bs), switched,
                                base->name[0] && !streamed ? &image : NULL,
                                streamed, base->version);
}

static bool GRAPH_RDLOCK job_uses(BlockJob *job, BlockDriverState *bs)
{
    for (GSList *el = job->nodes; el; el = el->next) {
        BdrvChild *child = el->data;

        if (bdrv_skip_filters(child->bs) == bs) {
            return true;
        }
    }
    return false;
}

/* Called with the job lock held */
static BlockJob * GRAPH_RDLOCK job_to_end_locked(BlockDriverState *bs)
{
    BlockJob *job = NULL;

    while ((job = block_job_next_locked(job))) {
        /* One that waits for its end may change the graph then */
        if (job_uses(job, bs) && !job_is_cancelled_locked(&job->job) &&
            job->job.status < JOB_STATUS_ABORTING) {
            return job;
        }
    }
    return NULL;
}

/*
 * A job does not see that the content changes without a write: a mirror or
 * backup would end up as part of two sessions, and hand on what is forgotten;
 * a stream would drop the base for blocks that are gone (L5).
 */
static void end_jobs(BlockDriverState *bs)
{
    BlockJob *job;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    JOB_LOCK_GUARD();
    while ((job = job_to_end_locked(bs))) {
        job_cancel_locked(&job->job, true);
    }
}

/*
 * A reset takes as long as clearing the map, whatever was written: what is
 * left in the data region cannot be read (L5).
 */
static void pooled_reset(VdiskLayer *l)
{
    BlockDriverState *bs = l->bs;
    bool switched;
    int ret;

    /* A reset polls: nobody is to come in before it is done */
    l->resetting = true;
    ret = vdisk_saved_forget(l);
    if (ret < 0) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        /* Writes will try again, and fail as long as this does */
        warn_report("Could not void the saved state of '%s': %s",
                    bs->file->bs->filename, g_strerror(-ret));
    }
    end_jobs(bs);
    switched = vdisk_take_assigned(l);
    bdrv_drained_begin(bs);
    vdisk_tier_clear(l);
    vdisk_map_clear(&l->map);
    qatomic_set(&l->sync_error, 0);
    qatomic_set(&l->unsynced, false);
    /* The content changes without a write: for bitmaps on this very node */
    bdrv_set_dirty(bs, 0, bs->total_sectors * BDRV_SECTOR_SIZE);
    bdrv_drained_end(bs);
    l->resetting = false;
    vdisk_reclaim_start(l);
    trace_vdisk_pooled_reset(bs, bdrv_get_node_name(bs));
    pooled_tell(l, switched);
}

void vdisk_pooled_reset(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    pooled_reset(l);
    l->resets++;
}

void vdisk_pooled_reset_all(void)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();

    GLOBAL_STATE_CODE();
    /* Draining runs what ends jobs and closes nodes: keep ours, and the list */
    for (VdiskLayer *l = vdisk_node_next(NULL); l; l = vdisk_node_next(l)) {
        if (l->pooled) {
            bdrv_ref(l->bs);
            g_ptr_array_add(all, l);
        }
    }
    for (guint i = 0; i < all->len; i++) {
        VdiskLayer *l = g_ptr_array_index(all, i);
        BlockDriverState *bs = l->bs;

        /*
         * An inactive one belongs to another process: incoming migration. One
         * that is read-only has nothing to forget, and nothing may be written.
         */
        if (!(bs->open_flags & BDRV_O_INACTIVE) && !bdrv_is_read_only(bs)) {
            if (!l->reset_on_start || l->resets == 0) {
                pooled_reset(l);
            }
            l->resets++;
        }
        bdrv_unref(bs);
    }
}

void vdisk_pooled_start(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    vdisk_reset_register();
    vdisk_background_start(l);
}

void vdisk_pooled_stop(VdiskLayer *l)
{
    vdisk_background_stop(l);
}
