/*
 * pvs, private image mode: draining, and update windows, as block jobs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vdisk.h"
#include "qemu/units.h"
#include "block/blockjob_int.h"
#include "block/pvs/private.h"

/* How often a job looks at what has become of its work; ns */
#define LOOK            (50 * SCALE_MS)
/* Made local at once */
#define STEP            (1 * MiB)

typedef struct VdiskJob {
    BlockJob common;
    PvsPrivate *p;
    uint64_t reserve;           /* bytes; of a window */
    uint64_t space;             /* bytes of the ring for it */
    uint64_t target;            /* position: everything before it is shipped */
} VdiskJob;

static void window_header(JournalHeader *h, const void *opaque)
{
    const uint64_t *reserve = opaque;

    h->window = *reserve > 0;
    h->reserve = *reserve;
}

/* Why it will never be done, to be freed; or NULL */
static char *impossible(VdiskJob *j)
{
    QEMU_LOCK_GUARD(&j->p->waits.lock);
    if (j->p->journal.broken) {
        return g_strdup("the reconnect buffer is broken");
    }
    return j->p->state == PRIVATE_FENCED ? g_strdup(j->p->reason) : NULL;
}

static int coroutine_fn note_window(VdiskJob *j, uint64_t reserve, Error **errp)
{
    g_autofree char *why = impossible(j);
    int ret;

    if (why) {
        /* It may be so since the work was done; what is fenced is evidence */
        error_setg(errp, "The update window stays as it is: %s", why);
        return -EIO;
    }
    WITH_GRAPH_RDLOCK_GUARD() {
        ret = pvs_journal_co_change_header(&j->p->journal, window_header,
                                           &reserve);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write to the reconnect buffer");
    }
    return ret;
}

/* Draining */

/* The end of what there is now; all of it can be shipped */
static void begin_drain(VdiskJob *j)
{
    PvsJournal *journal = &j->p->journal;

    QEMU_LOCK_GUARD(&j->p->waits.lock);
    pvs_journal_close_epoch(journal);
    j->target = QSIMPLEQ_EMPTY(&journal->epochs)
                ? journal->tail_pos
                : QSIMPLEQ_LAST(&journal->epochs, JournalEpoch, next)->end.pos;
}

/* Bytes of the vDisk that are still to be shipped */
static uint64_t drain_left(VdiskJob *j)
{
    JournalEpoch *e;
    uint64_t bytes = 0;

    QEMU_LOCK_GUARD(&j->p->waits.lock);
    QSIMPLEQ_FOREACH(e, &j->p->journal.epochs, next) {
        bytes += e->closed && e->end.pos <= j->target ? e->bytes : 0;
    }
    return bytes;
}

static bool drain_done(VdiskJob *j)
{
    QEMU_LOCK_GUARD(&j->p->waits.lock);
    return j->p->journal.tail_pos >= j->target;
}

/* 0 once everything up to the beginning is shipped, or the job is cancelled */
static int coroutine_fn drain_all(VdiskJob *j, Error **errp)
{
    Job *job = &j->common.job;
    uint64_t left, before;

    begin_drain(j);
    before = drain_left(j);
    job_progress_set_remaining(job, before);
    while (!drain_done(j) && !job_is_cancelled(job)) {
        g_autofree char *why = impossible(j);

        if (why) {
            error_setg(errp, "%" PRIu64 " bytes are not on the store: %s",
                       drain_left(j), why);
            return -EIO;
        }
        left = drain_left(j);
        job_progress_update(job, before - MIN(left, before));
        before = MIN(left, before);
        job_sleep_ns(job, LOOK);
    }
    job_progress_update(job, before);
    return 0;
}

static int coroutine_fn drain_run(Job *job, Error **errp)
{
    return drain_all(container_of(job, VdiskJob, common.job), errp);
}

static int coroutine_fn window_close_run(Job *job, Error **errp)
{
    VdiskJob *j = container_of(job, VdiskJob, common.job);
    int ret = drain_all(j, errp);

    if (ret < 0 || job_is_cancelled(job)) {
        return ret;
    }
    return note_window(j, 0, errp);
}

/* Opening a window */

/* Zero granules have no space in the copy yet, and a write must not fail */
static int coroutine_fn GRAPH_RDLOCK
allocate_zeros(PvsPrivate *p, int64_t offset, int64_t bytes)
{
    VdiskLayer *l = p->layer;
    uint64_t first = offset / VDISK_GRANULE;
    uint64_t end = vdisk_granules(offset + bytes);
    VdiskState state;
    VdiskHold hold;
    int ret = 0;

    vdisk_layer_co_hold(l, &hold, first, end);
    while (first < end && ret >= 0) {
        uint64_t run = vdisk_map_run(&l->map, first, end - first, &state);

        if (state == VDISK_STATE_ZERO) {
            ret = bdrv_co_pwrite_zeroes(p->bs->file, l->data_offset +
                                        first * VDISK_GRANULE,
                                        run * VDISK_GRANULE, 0);
        }
        first += run;
    }
    vdisk_layer_co_release(l, &hold);
    return MIN(ret, 0);
}

/* Returns how many bytes from @offset on are local now, or -errno */
static int64_t coroutine_fn localize_step(PvsPrivate *p, int64_t offset)
{
    int64_t bytes = MIN(STEP, p->virtual_size - offset);
    int64_t n;

    GRAPH_RDLOCK_GUARD();
    n = pvs_private_co_localize(p, offset, bytes);
    if (n > 0) {
        n = MIN(n, ROUND_UP(bytes, VDISK_GRANULE));
        bytes = allocate_zeros(p, offset, MIN(n, p->virtual_size - offset));
        n = bytes < 0 ? bytes : n;
    }
    return n;
}

/* Is it for want of a store that it failed, so that waiting helps? */
static bool is_outage(int error)
{
    return error == -ENOTCONN || error == -EAGAIN;
}

static int coroutine_fn localize(VdiskJob *j, Error **errp)
{
    Job *job = &j->common.job;
    PvsPrivate *p = j->p;
    int64_t offset = 0;

    job_progress_set_remaining(job, p->virtual_size);
    while (offset < p->virtual_size && !job_is_cancelled(job)) {
        int64_t n = localize_step(p, offset);
        g_autofree char *why = n < 0 ? impossible(j) : NULL;

        if (why || (n < 0 && !is_outage(n))) {
            error_setg(errp, "Could not make the vDisk local: %" PRId64
                       " bytes of %" PRId64 " are: %s%s", offset,
                       p->virtual_size, why ? "" : "its local copy cannot be "
                       "written: ", why ?: g_strerror(-n));
            return n;
        }
        if (n > 0) {
            offset += n;
            job_progress_update(job, n);
            block_job_ratelimit_processed_bytes(&j->common, n);
            block_job_ratelimit_sleep(&j->common);
        } else {
            job_sleep_ns(job, n < 0 ? LOOK : 0);
        }
    }
    return 0;
}

/* Until the ring has room; it was checked that it can have that much */
static int coroutine_fn wait_for_room(VdiskJob *j, Error **errp)
{
    PvsJournal *journal = &j->p->journal;
    bool room = false;

    while (!room && !job_is_cancelled(&j->common.job)) {
        g_autofree char *why = impossible(j);

        if (why) {
            error_setg(errp, "The reconnect buffer will not have room: %s",
                       why);
            return -EIO;
        }
        WITH_QEMU_LOCK_GUARD(&j->p->waits.lock) {
            room = pvs_journal_used(journal) + j->space <= journal->ring_size;
            if (!room) {
                pvs_journal_close_epoch(journal);
            }
        }
        if (!room) {
            job_sleep_ns(&j->common.job, LOOK);
        }
    }
    return 0;
}

static int coroutine_fn window_open_run(Job *job, Error **errp)
{
    VdiskJob *j = container_of(job, VdiskJob, common.job);
    int ret = localize(j, errp);

    if (ret >= 0 && !job_is_cancelled(job)) {
        WITH_GRAPH_RDLOCK_GUARD() {
            /* A power failure must not take the copy away from the window */
            ret = vdisk_layer_co_flush(j->p->layer);
        }
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not flush the local copy");
        }
    }
    if (ret < 0 || job_is_cancelled(job)) {
        return ret;
    }
    ret = wait_for_room(j, errp);
    return ret < 0 || job_is_cancelled(job) ? ret
                                            : note_window(j, j->reserve, errp);
}

/* Commands */

static void job_clean(Job *job)
{
    container_of(job, VdiskJob, common.job)->p->job = NULL;
}

#define VDISK_JOB(type, function) {                 \
        .job_driver = {                             \
            .instance_size = sizeof(VdiskJob),      \
            .job_type      = type,                  \
            .free          = block_job_free,        \
            .run           = function,              \
            .user_resume   = block_job_user_resume, \
            .clean         = job_clean,             \
        },                                          \
    }

static const BlockJobDriver drain_driver =
    VDISK_JOB(JOB_TYPE_VDISK_DRAIN, drain_run);
static const BlockJobDriver window_open_driver =
    VDISK_JOB(JOB_TYPE_VDISK_WINDOW_OPEN, window_open_run);
static const BlockJobDriver window_close_driver =
    VDISK_JOB(JOB_TYPE_VDISK_WINDOW_CLOSE, window_close_run);

static PvsPrivate *find_private(const char *node_name, BlockDriverState **bs,
                                Error **errp)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    *bs = bdrv_find_node(node_name);
    if (!*bs) {
        error_setg(errp, "There is no block node '%s'", node_name);
        return NULL;
    }
    p = pvs_private_of(*bs);
    if (!p) {
        error_setg(errp, "Block node '%s' is not a private vDisk", node_name);
        return NULL;
    }
    if (!p->journal.open) {
        error_setg(errp, "The private vDisk '%s' is inactive", node_name);
        return NULL;
    }
    return p;
}

static VdiskJob *job_new(const char *job_id, const char *node_name,
                         const BlockJobDriver *driver, int64_t speed,
                         Error **errp)
{
    BlockDriverState *bs;
    PvsPrivate *p = find_private(node_name, &bs, errp);
    VdiskJob *j;

    if (!p) {
        return NULL;
    }
    if (p->job) {
        error_setg(errp, "The job '%s' works on '%s' already; wait for it, or "
                   "cancel it", p->job->id, node_name);
        return NULL;
    }
    j = block_job_create(job_id ?: node_name, driver, NULL, bs, 0,
                         BLK_PERM_ALL, speed, JOB_DEFAULT, NULL, NULL, errp);
    if (j) {
        j->p = p;
        p->job = &j->common.job;
    }
    return j;
}

void qmp_vdisk_drain(const char *job_id, const char *node_name, Error **errp)
{
    VdiskJob *j = job_new(job_id, node_name, &drain_driver, 0, errp);

    if (j) {
        job_start(&j->common.job);
    }
}

static bool check_window(PvsPrivate *p, const char *node_name, bool open,
                         Error **errp)
{
    if (p->journal.header.window == open) {
        error_setg(errp, open ? "An update window of '%s' is open already"
                              : "No update window of '%s' is open",
                   node_name);
        return false;
    }
    return true;
}

void qmp_vdisk_window_open(const char *job_id, const char *node_name,
                           bool has_reserve, uint64_t reserve, bool has_speed,
                           int64_t speed, Error **errp)
{
    BlockDriverState *bs;
    PvsPrivate *p = find_private(node_name, &bs, errp);
    VdiskJob *j;
    uint64_t max;

    if (!p || !check_window(p, node_name, true, errp)) {
        return;
    }
    max = journal_reserve_max(p->journal.ring_size);
    reserve = has_reserve ? reserve : max / 2;
    if (reserve == 0 || reserve > max) {
        error_setg(errp, "The reconnect buffer of '%s' can hold %" PRIu64
                   " bytes of writes, not %" PRIu64 "; reserve less, or give "
                   "it a larger one", node_name, max, reserve);
        return;
    }
    j = job_new(job_id, node_name, &window_open_driver, has_speed ? speed : 0,
                errp);
    if (j) {
        j->reserve = reserve;
        j->space = journal_reserve_space(p->journal.ring_size, reserve);
        job_start(&j->common.job);
    }
}

void qmp_vdisk_window_close(const char *job_id, const char *node_name,
                            Error **errp)
{
    BlockDriverState *bs;
    PvsPrivate *p = find_private(node_name, &bs, errp);
    VdiskJob *j;

    if (!p || !check_window(p, node_name, false, errp)) {
        return;
    }
    j = job_new(job_id, node_name, &window_close_driver, 0, errp);
    if (j) {
        job_start(&j->common.job);
    }
}
