/*
 * vdisk-hydrate: make a version fully local, as a block job
 *
 * It goes through the cache from front to back, the tree before the data, and
 * fetches what is not there. What it has done is in the cache's map, so it goes
 * on where it left off, after a restart too. Reads that somebody waits for come
 * first: while there are any, little is fetched in the background.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vdisk.h"
#include "qemu/main-loop.h"
#include "block/blockjob_int.h"
#include "block/pvs/cache.h"
#include "block/pvs/delta.h"
#include "block/pvs/resume.h"
#include "block/pvs/tree.h"

/* Fetches on their way: alone, and while somebody waits for others */
#define FETCHES         16
#define FETCHES_SHY     1
/*
 * What is on its way stands in the line before whoever reads next, so there is
 * less of it where fetches take longer than the fastest one, by more than this:
 * what LEDBAT (RFC 6817) allows background traffic; ns
 */
#define QUEUE_MAX       (100 * SCALE_MS)
/* After a fetch has failed, and while the node is drained; ns */
#define PAUSE           (200 * SCALE_MS)
/* Looked at at once in the map */
#define LOOK            (1024 * PVS_FETCH_MAX)

typedef struct HydrateJob {
    BlockJob common;
    PvsImage *img;
    PvsFetch *fetches[FETCHES];
    int64_t bytes[FETCHES];     /* of each that was missing */
    int64_t began[FETCHES];     /* ns */
    unsigned first, n;
    unsigned window;            /* how many of them there may be */
    int64_t fastest;            /* that one took, ns */
    bool delta;                 /* began to use the cache of another version */
    bool cancelled;             /* under the image's lock */
    bool failed;                /* a fetch, in this round */
    int64_t stored;             /* bytes, in this round */
} HydrateJob;

static void hydrate_pace(HydrateJob *j, int64_t took)
{
    j->fastest = MIN(j->fastest, took);
    j->window = took - j->fastest > QUEUE_MAX ? MAX(j->window / 2, 1)
                                              : MIN(j->window + 1, FETCHES);
}

/* The oldest fetch; what of it is in the cache now is progress */
static void coroutine_fn hydrate_wait_oldest(HydrateJob *j)
{
    PvsFetch *f = j->fetches[j->first];
    int64_t bytes = j->bytes[j->first];
    int64_t began = j->began[j->first];
    int ret;

    j->first = (j->first + 1) % FETCHES;
    j->n--;
    ret = pvs_fetch_co_wait_unless(j->img, f, &j->cancelled);
    if (ret == -ECANCELED) {
        /* It ends by itself, maybe when a store is back */
        pvs_fetch_unref(j->img, f);
        return;
    }
    hydrate_pace(j, pvs_now() - began);
    if (ret < 0) {
        j->failed = true;
        bytes = 0;
    }
    pvs_fetch_co_settle(j->img, f);
    j->stored += bytes;
    job_progress_update(&j->common.job, bytes);
}

static void coroutine_fn hydrate_wait_all(HydrateJob *j)
{
    while (j->n) {
        hydrate_wait_oldest(j);
    }
}

static bool somebody_waits(PvsImage *img)
{
    QEMU_LOCK_GUARD(&img->waits.lock);
    return img->in_flight[PVS_DEMAND] > 0;
}

/*
 * A place where the job can be paused, cancelled, or slowed down. With nothing
 * on its way, so that a drain need not wait for it.
 */
static bool coroutine_fn hydrate_may_go_on(HydrateJob *j, int64_t pause)
{
    Job *job = &j->common.job;

    if (job_is_paused(job) || pause || j->common.speed) {
        hydrate_wait_all(j);
    }
    if (pause) {
        job_sleep_ns(job, pause);
    }
    block_job_ratelimit_sleep(&j->common);
    return !job_is_cancelled(job);
}

/* Bytes from @offset on to fetch as one */
static int64_t hydrate_unit(PvsImage *img, int64_t offset, int64_t bytes)
{
    if (offset >= img->tree_base) {
        return pvs_tree_unit(img->tree, offset, offset + bytes);
    }
    return MIN(MIN(bytes, PVS_FETCH_MAX), img->tree_base - offset);
}

/* Fetch what is missing at @offset; returns how far that goes, 0: try again */
static int64_t coroutine_fn hydrate_step(HydrateJob *j, int64_t offset,
                                         int64_t end)
{
    PvsImage *img = j->img;
    VdiskState state;
    PvsFetch *f;
    int64_t n;

    n = pvs_cache_run(img->cache, offset / VDISK_GRANULE,
                      MIN(end - offset, LOOK) / VDISK_GRANULE, &state) *
        VDISK_GRANULE;
    if (state != VDISK_STATE_BASE) {
        return n;
    }
    while (j->n >= (somebody_waits(img) ? FETCHES_SHY : j->window)) {
        hydrate_wait_oldest(j);
    }
    f = pvs_fetch_begin(img, offset, hydrate_unit(img, offset, n),
                        PVS_BACKGROUND, &n);
    if (f) {
        unsigned last = (j->first + j->n++) % FETCHES;

        j->fetches[last] = f;
        j->bytes[last] = n;
        j->began[last] = pvs_now();
        block_job_ratelimit_processed_bytes(&j->common, n);
    }
    return n;
}

static bool coroutine_fn hydrate_range(HydrateJob *j, int64_t offset,
                                       int64_t end)
{
    while (offset < end) {
        int64_t n;

        if (!hydrate_may_go_on(j, j->failed ? PAUSE : 0)) {
            return false;
        }
        j->failed = false;
        n = hydrate_step(j, offset, end);
        j->failed |= n == 0;
        offset += n;
    }
    return true;
}

/* One round. False if the job was cancelled. */
static bool coroutine_fn hydrate_round(HydrateJob *j)
{
    PvsImage *img = j->img;
    bool ok = hydrate_range(j, img->tree_base, pvs_image_end(img)) &&
              hydrate_range(j, 0, img->tree_base);

    hydrate_wait_all(j);
    return ok;
}

static int coroutine_fn hydrate_run(Job *job, Error **errp)
{
    HydrateJob *j = container_of(job, HydrateJob, common.job);
    int64_t left = pvs_image_missing(j->img);

    job_progress_set_remaining(job, left);
    while (left > 0) {
        j->stored = 0;
        if (!hydrate_round(j)) {
            return 0;
        }
        left = pvs_image_missing(j->img);
        if (left > 0 && pvs_cache_is_full(j->img->cache)) {
            error_setg(errp, "The host cache '%s' takes no more: %" PRId64
                       " bytes of the version are missing",
                       j->img->cache_name, left);
            return -ENOSPC;
        }
        if (left > 0 && !hydrate_may_go_on(j, PAUSE)) {
            return 0;
        }
        job_progress_set_remaining(job, left);
    }
    return pvs_cache_co_sync(j->img->cache);
}

/* It may wait for a fetch, which takes as long as an outage does */
static bool hydrate_cancel(Job *job, bool force)
{
    HydrateJob *j = container_of(job, HydrateJob, common.job);

    QEMU_LOCK_GUARD(&j->img->waits.lock);
    j->cancelled = true;
    pvs_wake_all(&j->img->waits);
    return true;
}

static void hydrate_clean(Job *job)
{
    HydrateJob *j = container_of(job, HydrateJob, common.job);

    if (j->delta) {
        pvs_delta_end(j->img);
    }
}

static const BlockJobDriver hydrate_driver = {
    .job_driver = {
        .instance_size = sizeof(HydrateJob),
        .job_type      = JOB_TYPE_VDISK_HYDRATE,
        .free          = block_job_free,
        .run           = hydrate_run,
        .cancel        = hydrate_cancel,
        .clean         = hydrate_clean,
        .user_resume   = block_job_user_resume,
    },
};

static PvsImage *find_image(BlockDriverState *bs, const char *node_name,
                            Error **errp)
{
    PvsImage *img;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    img = pvs_image_of(bs);
    if (!img || !img->owner || !img->cache) {
        error_setg(errp, "Block node '%s' does not own a host cache",
                   node_name);
        error_append_hint(errp, "Hydrate the relay's node of the version: a "
                          "pvs node with 'host-cache' and without 'file'.\n");
        return NULL;
    }
    return img;
}

void qmp_vdisk_hydrate(const char *job_id, const char *node_name,
                       bool has_speed, int64_t speed, VdiskDelta *from,
                       Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *bs = bdrv_find_node(node_name);
    HydrateJob *j;
    PvsImage *img;

    if (!bs) {
        error_setg(errp, "There is no block node '%s'", node_name);
        return;
    }
    img = find_image(bs, node_name, errp);
    if (!img || (from && !pvs_delta_begin(img, from, errp))) {
        return;
    }
    j = block_job_create(job_id ?: node_name, &hydrate_driver, NULL, bs, 0,
                         BLK_PERM_ALL, has_speed ? speed : 0, JOB_DEFAULT,
                         NULL, NULL, errp);
    if (!j) {
        if (from) {
            pvs_delta_end(img);
        }
        return;
    }
    j->img = img;
    j->window = 1;
    j->fastest = INT64_MAX;
    j->delta = from;
    job_start(&j->common.job);
}
