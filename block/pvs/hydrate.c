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
/* So much is fetched in vain, in one round; bytes */
#define VAIN_MAX        (FETCHES * PVS_FETCH_MAX)
/* Looked at at once in the map */
#define LOOK            (1024 * PVS_FETCH_MAX)

/* One fetch on its way */
typedef struct HydrateFetch {
    PvsFetch *f;
    int64_t offset;
    int64_t bytes;
    int64_t began;              /* ns */
} HydrateFetch;

typedef struct HydrateJob {
    BlockJob common;
    PvsImage *img;
    HydrateFetch fetches[FETCHES];
    unsigned first, n;
    unsigned window;            /* how many of them there may be */
    int64_t fastest;            /* that one took, ns */
    bool delta;                 /* began to use the cache of another version */
    bool cancelled;             /* under the image's lock */
    bool failed;                /* a fetch, just now */
    int64_t unit;               /* bytes of one fetch, at most */
    int64_t gained_at;          /* ns; the last round that was of use */

    /* In this round */
    bool missed;                /* a fetch failed */
    bool denied;                /* one did though stores are up */
    int64_t vain;               /* bytes that the cache did not take */
} HydrateJob;

static void hydrate_pace(HydrateJob *j, int64_t took)
{
    j->fastest = MIN(j->fastest, took);
    j->window = took - j->fastest > QUEUE_MAX ? MAX(j->window / 2, 1)
                                              : MIN(j->window + 1, FETCHES);
}

/* Filling ends where it fails, so the last granule tells of all */
static bool is_kept(PvsImage *img, const HydrateFetch *h)
{
    VdiskState state;

    pvs_cache_run(img->cache, (h->offset + h->bytes) / VDISK_GRANULE - 1, 1,
                  &state);
    return state != VDISK_STATE_BASE;
}

static bool is_up(PvsImage *img)
{
    return pvs_pool_is_up(img->stores) &&
           (!img->tree || pvs_pool_is_up(pvs_tree_pool(img->tree)));
}

static bool is_cancelled(HydrateJob *j)
{
    QEMU_LOCK_GUARD(&j->img->waits.lock);
    return j->cancelled;
}

/*
 * -ECANCELED if the job is cancelled, or somebody else waits for it, though
 * stores are up: then none of them has it right
 */
static int coroutine_fn hydrate_wait(HydrateJob *j, PvsFetch *f)
{
    int ret;

    do {
        int64_t until = pvs_fetch_is_patient(f) ? pvs_now() + PVS_PATIENCE
                                                : INT64_MAX;

        ret = pvs_fetch_co_wait_unless(j->img, f, &j->cancelled, until);
    } while (ret == -ECANCELED && !is_cancelled(j) && !is_up(j->img));
    return ret;
}

/* The oldest fetch; what of it is in the cache now is progress */
static void coroutine_fn hydrate_wait_oldest(HydrateJob *j)
{
    HydrateFetch h = j->fetches[j->first];
    int ret;

    j->first = (j->first + 1) % FETCHES;
    j->n--;
    ret = hydrate_wait(j, h.f);
    j->missed |= ret < 0;
    j->denied |= ret == -ENODATA || ret == -ECANCELED;
    if (ret == -ECANCELED) {
        /* It ends by itself, maybe when a store is back */
        pvs_fetch_unref(j->img, h.f);
        return;
    }
    hydrate_pace(j, pvs_now() - h.began);
    pvs_fetch_co_settle(j->img, h.f);
    if (ret < 0) {
        j->failed = true;
    } else if (!is_kept(j->img, &h)) {
        j->vain += h.bytes;
    } else {
        job_progress_update(&j->common.job, h.bytes);
    }
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
static int64_t hydrate_unit(HydrateJob *j, int64_t offset, int64_t bytes)
{
    PvsImage *img = j->img;

    if (offset >= img->tree_base) {
        return pvs_tree_unit(img->tree, offset, offset + bytes);
    }
    return MIN(MIN(bytes, j->unit), img->tree_base - offset);
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
    f = pvs_fetch_begin(img, offset, hydrate_unit(j, offset, n),
                        PVS_BACKGROUND, &n);
    if (f) {
        j->fetches[(j->first + j->n++) % FETCHES] = (HydrateFetch) {
            .f = f, .offset = offset, .bytes = n, .began = pvs_now(),
        };
        block_job_ratelimit_processed_bytes(&j->common, n);
    }
    return n;
}

/* Is there any use in fetching more? */
static bool cache_takes(const HydrateJob *j)
{
    PvsCache *cache = j->img->cache;

    return !pvs_cache_is_dead(cache) && !pvs_cache_is_full(cache) &&
           j->vain <= VAIN_MAX;
}

static bool coroutine_fn hydrate_range(HydrateJob *j, int64_t offset,
                                       int64_t end)
{
    while (offset < end && cache_takes(j)) {
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

/* As below, for what it may be that stores do not have right */
static int hydrate_judge_stores(HydrateJob *j, int64_t before, int64_t left,
                                Error **errp)
{
    int64_t now = pvs_now();

    if (left < before) {
        j->gained_at = now;
    }
    if (!j->denied) {
        return 0;
    }
    if (now - j->gained_at >= PVS_PATIENCE) {
        error_setg(errp, "%" PRId64 " bytes of the version cannot be had: no "
                   "store that is up has them right", left);
        return -EIO;
    }
    /* Most of what one fetch asked for may be right, unless nothing is */
    if (left < before || j->unit == PVS_FETCH_MAX) {
        j->unit = MAX(j->unit / 8, VDISK_GRANULE);
    }
    return 0;
}

/*
 * After a round that began with so much missing @before, and ended with @left:
 * 0 if another one may be of use, or -errno
 */
static int hydrate_judge(HydrateJob *j, int64_t before, int64_t left,
                         Error **errp)
{
    const char *name = j->img->cache_name;

    if (left == 0) {
        return 0;
    }
    if (pvs_cache_is_dead(j->img->cache)) {
        error_setg(errp, "The host cache '%s' was cut off: nothing is put "
                   "there until its relay is started again", name);
        return -EIO;
    }
    if (pvs_cache_is_full(j->img->cache)) {
        error_setg(errp, "The host cache '%s' takes no more: %" PRId64
                   " bytes of the version are missing", name, left);
        return -ENOSPC;
    }
    if (j->vain > VAIN_MAX || (left >= before && !j->missed)) {
        error_setg(errp, "The host cache '%s' does not keep what is put there: "
                   "%" PRId64 " bytes of the version are missing", name, left);
        return -EIO;
    }
    return hydrate_judge_stores(j, before, left, errp);
}

static int coroutine_fn hydrate_run(Job *job, Error **errp)
{
    HydrateJob *j = container_of(job, HydrateJob, common.job);
    int64_t left = pvs_image_missing(j->img);

    j->gained_at = pvs_now();
    job_progress_set_remaining(job, left);
    while (left > 0) {
        int64_t before = left;
        int ret;

        j->missed = j->denied = false;
        j->vain = 0;
        if (!hydrate_round(j)) {
            return 0;
        }
        left = pvs_image_missing(j->img);
        ret = hydrate_judge(j, before, left, errp);
        if (ret < 0) {
            return ret;
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
    j->unit = PVS_FETCH_MAX;
    j->fastest = INT64_MAX;
    j->delta = from;
    job_start(&j->common.job);
}
