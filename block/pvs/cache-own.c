/*
 * Host cache: what its owner does while it is open
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "block/aio-wait.h"
#include "block/pvs/cache-int.h"
#include "block/thread-pool.h"

/*
 * How often what was filled is written back, and its size looked at; ms. Until
 * then a desktop may read what the disk has lost without anybody knowing.
 */
#define SYNC_INTERVAL   2000

/* After the file system was full it is tried again after this time, ns */
#define FULL_RETRY      (10LL * NANOSECONDS_PER_SECOND)

static bool over_limit(PvsCache *c)
{
    struct stat st;

    return c->limit && fstat(c->fd, &st) == 0 &&
           st.st_blocks * 512 >= c->limit;
}

static void set_full(PvsCache *c, bool full)
{
    qatomic_set(&c->full, full);
}

/* Filling */

typedef struct CacheWrite {
    int fd;
    const uint8_t *buf;
    size_t bytes;
    off_t offset;
} CacheWrite;

static int write_all(void *opaque)
{
    CacheWrite *w = opaque;

    while (w->bytes) {
        ssize_t ret = pwrite(w->fd, w->buf, w->bytes, w->offset);

        if (ret < 0 && errno == EINTR) {
            continue;
        }
        if (ret <= 0) {
            return ret ? -errno : -EIO;
        }
        w->buf += ret;
        w->offset += ret;
        w->bytes -= ret;
    }
    return 0;
}

/* Caller holds the lock */
static void set_run(PvsCache *c, uint64_t first, uint64_t n, VdiskState state)
{
    uint64_t end = first + n;

    while (first < end) {
        VdiskState old;
        uint64_t run = vdisk_map_run(&c->map, first, end - first, &old);
        FillRun fill = { .first = first, .n = run };

        if (old != state && (old == VDISK_STATE_BASE ||
                             state == VDISK_STATE_BASE)) {
            vdisk_map_set(&c->map, first, run, state);
            if (state == VDISK_STATE_DATA) {
                g_array_append_val(c->unsynced, fill);
            }
        }
        first += run;
    }
}

void pvs_cache_set(PvsCache *c, uint64_t first, uint64_t n, VdiskState state,
                   uint64_t failures)
{
    QEMU_LOCK_GUARD(&c->lock);
    /*
     * If a sync has failed since the data was written, it may be this data
     * that was lost; the next sync would not tell.
     */
    if (failures == c->failures) {
        set_run(c, first, n, state);
    }
}

/*
 * Data that is to be written. Handing one block to a thread takes longer than
 * to write it; so while a thread is at work, what comes meanwhile is collected,
 * and goes to it together. Whoever finds no thread at work sees to the next
 * batch, and leaves it to one of those who wait when its own part is done.
 */
struct FillItem {
    CacheWrite w;
    Coroutine *co;
    bool leads;                 /* it is, from now on */
    int ret;
    QSIMPLEQ_ENTRY(FillItem) next;
};

static int write_items(void *opaque)
{
    FillList *list = opaque;
    FillItem *item;

    QSIMPLEQ_FOREACH(item, list, next) {
        item->ret = write_all(&item->w);
    }
    return 0;
}

/* Caller holds the lock */
static Coroutine *next_leader(PvsCache *c)
{
    FillItem *item = QSIMPLEQ_FIRST(&c->to_write);

    c->writing = item;
    if (item) {
        item->leads = true;
    }
    return item ? item->co : NULL;
}

/* Write all that waits, with what the caller has in it */
static void coroutine_fn write_batch(PvsCache *c, FillItem *own)
{
    FillList batch = QSIMPLEQ_HEAD_INITIALIZER(batch);
    FillItem *item, *next;
    Coroutine *leader;

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        QSIMPLEQ_CONCAT(&batch, &c->to_write);
    }
    thread_pool_submit_co(write_items, &batch);
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        leader = next_leader(c);
    }
    QSIMPLEQ_FOREACH_SAFE(item, &batch, next, next) {
        /* It is gone as soon as its coroutine runs */
        if (item != own) {
            aio_co_wake(item->co);
        }
    }
    if (leader) {
        aio_co_wake(leader);
    }
}

static int coroutine_fn co_write(PvsCache *c, int64_t offset, int64_t bytes,
                                 const uint8_t *buf)
{
    FillItem item = {
        .w = {
            .fd = c->fd, .buf = buf, .bytes = bytes,
            .offset = c->id.data_offset + offset,
        },
        .co = qemu_coroutine_self(),
    };

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        QSIMPLEQ_INSERT_TAIL(&c->to_write, &item, next);
        item.leads = !c->writing;
        c->writing = true;
    }
    if (!item.leads) {
        qemu_coroutine_yield();
    }
    if (item.leads) {
        write_batch(c, &item);
    }
    return item.ret;
}

static int coroutine_fn fill_run(PvsCache *c, int64_t offset, int64_t bytes,
                                 const uint8_t *buf, bool zero)
{
    uint64_t failures;
    int ret = 0;

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        failures = c->failures;
    }
    if (!zero) {
        ret = co_write(c, offset, bytes, buf);
    }
    if (ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG) {
        set_full(c, true);
    }
    if (ret >= 0) {
        /* The bits come after the data, for readers in other processes */
        pvs_cache_set(c, offset / VDISK_GRANULE, bytes / VDISK_GRANULE,
                      zero ? VDISK_STATE_ZERO : VDISK_STATE_DATA, failures);
        qatomic_set(&c->filled_bytes, c->filled_bytes + bytes);
    }
    return ret;
}

int coroutine_fn pvs_cache_co_fill(PvsCache *c, int64_t offset, int64_t bytes,
                                   const uint8_t *buf)
{
    int ret = 0;

    assert(QEMU_IS_ALIGNED(offset | bytes, VDISK_GRANULE));
    while (bytes > 0 && ret >= 0) {
        bool zero = buffer_is_zero(buf, VDISK_GRANULE);
        int64_t n = VDISK_GRANULE;

        if (!zero && pvs_cache_is_full(c)) {
            return -ENOSPC;
        }
        while (n < bytes && buffer_is_zero(buf + n, VDISK_GRANULE) == zero) {
            n += VDISK_GRANULE;
        }
        ret = fill_run(c, offset, n, buf, zero);
        offset += n;
        buf += n;
        bytes -= n;
    }
    return ret;
}

/* Syncing */

static int sync_file(void *opaque)
{
    PvsCache *c = opaque;

    return qemu_fdatasync(c->fd) < 0 ? -errno : 0;
}

static void forget_runs(PvsCache *c, GArray *runs)
{
    for (guint i = 0; i < runs->len; i++) {
        FillRun *run = &g_array_index(runs, FillRun, i);

        set_run(c, run->first, run->n, VDISK_STATE_BASE);
    }
}

/* What was written since the last good sync may be lost, or anything */
static void sync_failed(PvsCache *c, GArray *runs, bool all, int ret)
{
    warn_report("Host cache '%s': what was written is lost: %s; it is fetched "
                "again", c->data_name, strerror(-ret));
    QEMU_LOCK_GUARD(&c->lock);
    c->failures++;
    forget_runs(c, runs);
    forget_runs(c, c->unsynced);
    g_array_set_size(c->unsynced, 0);
    if (all) {
        set_run(c, 0, c->map.granules, VDISK_STATE_BASE);
    }
}

int coroutine_fn pvs_cache_co_sync(PvsCache *c)
{
    g_autoptr(GArray) runs = NULL;
    bool all;
    int ret;

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        runs = c->unsynced;
        all = c->all_unsynced;
        if (runs->len == 0 && !all) {
            runs = NULL;
            return 0;
        }
        c->unsynced = g_array_new(false, false, sizeof(FillRun));
        c->all_unsynced = false;
    }
    ret = thread_pool_submit_co(sync_file, c);
    if (ret < 0) {
        sync_failed(c, runs, all, ret);
    }
    return ret;
}

static void coroutine_fn sync_entry(void *opaque)
{
    PvsCache *c = opaque;

    pvs_cache_co_sync(c);
    c->syncing = false;
    c->running--;
    aio_wait_kick();
}

/* Full, or with room again? At the limit it is looked at each time. */
static void look_at_room(PvsCache *c)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    bool was = c->retry_at;
    bool over = over_limit(c);

    if (over) {
        set_full(c, true);
    }
    if (pvs_cache_is_full(c) && !was) {
        c->retry_at = now + FULL_RETRY;
        c->ops->full_changed(c->opaque, true);
    } else if (was && now >= c->retry_at && !over) {
        c->retry_at = 0;
        set_full(c, false);
        c->ops->full_changed(c->opaque, false);
    }
}

static void own_timer(void *opaque)
{
    PvsCache *c = opaque;

    timer_mod(c->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              SYNC_INTERVAL);
    look_at_room(c);
    if (!c->syncing) {
        c->syncing = true;
        c->running++;
        qemu_coroutine_enter(qemu_coroutine_create(sync_entry, c));
    }
}

void pvs_cache_own_start(PvsCache *c)
{
    c->timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                             SCALE_MS, own_timer, c);
    timer_mod(c->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              SYNC_INTERVAL);
    look_at_room(c);
    if (c->scanning) {
        c->running++;
        qemu_coroutine_enter(qemu_coroutine_create(pvs_cache_scan_entry, c));
    }
}

void pvs_cache_own_stop(PvsCache *c)
{
    timer_free(c->timer);
    qatomic_set(&c->stopping, true);
    qemu_co_sleep_wake(&c->scan_sleep);
    AIO_WAIT_WHILE_UNLOCKED(NULL, c->running);
    pvs_cache_save(c);
    g_array_unref(c->unsynced);
    g_free(c->map.dirty);
    g_free(c->data_name);
    qemu_mutex_destroy(&c->lock);
}
