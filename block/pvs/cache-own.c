/*
 * Host cache: what its owner does while it is open
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "block/block-io.h"
#include "block/pvs/cache-int.h"
#include "block/thread-pool.h"

/*
 * How often what was filled is written back, and its size looked at; ms. Until
 * then a desktop may read what the disk has lost without anybody knowing.
 */
#define SYNC_INTERVAL   2000

/* After the file system was full it is tried again after this time, ns */
#define FULL_RETRY      (10LL * NANOSECONDS_PER_SECOND)

/* The least that is worth to be tried again near the limit; bytes */
#define ROOM_MIN        (1 * MiB)

/* Room */

static bool take_room(PvsCache *c, uint64_t bytes)
{
    if (!c->limit ||
        qatomic_fetch_add(&c->taken, bytes) + bytes <= c->limit) {
        return true;
    }
    qatomic_sub(&c->taken, bytes);
    qatomic_set(&c->full, true);
    return false;
}

void pvs_cache_give_up(PvsCache *c)
{
    if (qatomic_xchg(pvs_cache_flag(c, LIVE_MAP_DEAD), 1) == 0) {
        warn_report("Host cache '%s' was cut off by somebody: it is not used "
                    "any more, until its relay is started again",
                    c->data_name);
    }
}

/* 0, or -ENODATA if there is less of the file than was made; or -errno */
static int check_length(PvsCache *c)
{
    struct stat st;

    if (fstat(c->fd, &st) < 0) {
        return -errno;
    }
    return st.st_size < c->length ? -ENODATA : 0;
}

/* Filling */

typedef struct CacheWrite {
    PvsCache *c;
    const uint8_t *buf;
    size_t bytes;
    off_t offset;
} CacheWrite;

static int write_all(CacheWrite *w)
{
    while (w->bytes) {
        ssize_t ret = pwrite(w->c->fd, w->buf, w->bytes, w->offset);

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

/*
 * Writing to a file that was cut off makes it longer: what is between would
 * then not read short any more, but as zeros.
 */
static int write_entry(void *opaque)
{
    CacheWrite *w = opaque;
    int ret = check_length(w->c);

    if (ret == 0) {
        ret = write_all(w);
    }
    return ret == 0 ? check_length(w->c) : ret;
}

/* Caller holds the lock */
static void set_base_run(PvsCache *c, FillRun run, VdiskState state)
{
    if (state == VDISK_STATE_DATA) {
        /* First, for the next owner, should this one be killed in between */
        bitmap_set(c->unsynced_bits, run.first, run.n);
        smp_wmb();              /* before the bits of the map */
        g_array_append_val(c->unsynced, run);
    }
    vdisk_map_set(&c->map, run.first, run.n, state);
}

void pvs_cache_set(PvsCache *c, uint64_t first, uint64_t n, VdiskState state,
                   uint64_t failures)
{
    uint64_t end = first + n;

    QEMU_LOCK_GUARD(&c->lock);
    /*
     * If a sync has failed since the data was written, it may be this data
     * that was lost; the next sync would not tell.
     */
    while (failures == c->failures && first < end) {
        VdiskState old;
        FillRun run = { .first = first };

        run.n = vdisk_map_run(&c->map, first, end - first, &old);
        if (old == VDISK_STATE_BASE) {
            set_base_run(c, run, state);
        }
        first += run.n;
    }
}

uint64_t pvs_cache_failures(PvsCache *c)
{
    QEMU_LOCK_GUARD(&c->lock);
    return c->failures;
}

/*
 * Data that is to be written. Handing one block to a thread takes longer than
 * to write it; so while a thread is at work, what comes meanwhile is collected,
 * and goes to it together. Whoever finds no thread at work sees to the next
 * batch, and leaves the one after it to one of those who wait.
 */
struct FillItem {
    CacheWrite *w;
    Coroutine *co;
    bool leads;                 /* it is to see to a batch */
    int ret;
    QSIMPLEQ_ENTRY(FillItem) next;
};

static int write_items(void *opaque)
{
    FillList *list = opaque;
    FillItem *item;

    QSIMPLEQ_FOREACH(item, list, next) {
        item->ret = write_entry(item->w);
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

static int coroutine_fn co_write(PvsCache *c, CacheWrite *w)
{
    FillItem item = { .w = w, .co = qemu_coroutine_self() };
    bool waits;

    WITH_QEMU_LOCK_GUARD(&c->lock) {
        QSIMPLEQ_INSERT_TAIL(&c->to_write, &item, next);
        waits = c->writing;
        item.leads = !waits;
        c->writing = true;
    }
    /* Not by item.leads: who sets that from now on wakes us too */
    if (waits) {
        qemu_coroutine_yield();
    }
    if (item.leads) {
        write_batch(c, &item);
    }
    return item.ret;
}

static int coroutine_fn write_run(PvsCache *c, int64_t offset, int64_t bytes,
                                  const uint8_t *buf)
{
    CacheWrite w = {
        .c = c, .buf = buf, .bytes = bytes,
        .offset = c->id.data_offset + offset,
    };
    int ret;

    if (!take_room(c, bytes)) {
        return -ENOSPC;
    }
    qatomic_add(&c->filling, bytes);
    ret = co_write(c, &w);
    qatomic_sub(&c->filling, bytes);
    if (ret == -ENODATA) {
        pvs_cache_give_up(c);
    } else if (ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG) {
        qatomic_set(&c->no_space, true);
        qatomic_set(&c->full, true);
    } else if (ret == 0) {
        qatomic_add(&c->stored, bytes);
    }
    return ret;
}

static int coroutine_fn fill_run(PvsCache *c, int64_t offset, int64_t bytes,
                                 const uint8_t *buf, bool zero)
{
    uint64_t failures = pvs_cache_failures(c);
    int ret = zero ? 0 : write_run(c, offset, bytes, buf);

    if (ret == 0) {
        /* The bits come after the data, for readers in other processes */
        pvs_cache_set(c, offset / VDISK_GRANULE, bytes / VDISK_GRANULE,
                      zero ? VDISK_STATE_ZERO : VDISK_STATE_DATA, failures);
        qatomic_add(&c->filled_bytes, bytes);
    }
    return ret;
}

int coroutine_fn pvs_cache_co_fill(PvsCache *c, int64_t offset, int64_t bytes,
                                   const uint8_t *buf)
{
    int ret = 0;

    assert(c->owner && QEMU_IS_ALIGNED(offset | bytes, VDISK_GRANULE));
    while (bytes > 0 && ret >= 0) {
        bool zero = buffer_is_zero(buf, VDISK_GRANULE);
        int64_t n = VDISK_GRANULE;

        if (pvs_cache_is_dead(c)) {
            return -ENODATA;
        }
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

/* Caller holds the lock */
static void settle_runs(PvsCache *c, GArray *runs, bool lost)
{
    for (guint i = 0; i < runs->len; i++) {
        FillRun *run = &g_array_index(runs, FillRun, i);

        if (lost) {
            vdisk_map_set(&c->map, run->first, run->n, VDISK_STATE_BASE);
        }
        bitmap_clear(c->unsynced_bits, run->first, run->n);
    }
}

/* What is not durable by now; NULL if that is nothing, unless @force */
static GArray *sync_begin(PvsCache *c, bool force)
{
    GArray *runs;

    QEMU_LOCK_GUARD(&c->lock);
    runs = c->unsynced;
    if (runs->len == 0 && !force) {
        return NULL;
    }
    c->unsynced = g_array_new(false, false, sizeof(FillRun));
    qatomic_set(pvs_cache_flag(c, LIVE_MAP_SYNCING), 1);
    smp_mb();                   /* before the kernel tells how it went */
    return runs;
}

/* What was written since the last good sync may be lost, if this one failed */
static void sync_end(PvsCache *c, GArray *runs, int ret)
{
    WITH_QEMU_LOCK_GUARD(&c->lock) {
        settle_runs(c, runs, ret < 0);
        if (ret < 0) {
            c->failures++;
            settle_runs(c, c->unsynced, true);
            g_array_set_size(c->unsynced, 0);
        }
        smp_wmb();              /* after the bits are settled */
        qatomic_set(pvs_cache_flag(c, LIVE_MAP_SYNCING), 0);
    }
    g_array_unref(runs);
    if (ret < 0) {
        warn_report("Host cache '%s': what was written is lost: %s; it is "
                    "fetched again", c->data_name, g_strerror(-ret));
    }
}

/*
 * One at a time: of two the kernel would tell only one about an error, and the
 * other would take its own data for durable.
 */
static int coroutine_fn co_sync(PvsCache *c, bool force)
{
    GArray *runs;
    int ret = 0;

    qemu_co_mutex_lock(&c->sync_lock);
    runs = sync_begin(c, force);
    if (runs) {
        ret = thread_pool_submit_co(sync_file, c);
        sync_end(c, runs, ret);
    }
    qemu_co_mutex_unlock(&c->sync_lock);
    return ret;
}

int coroutine_fn pvs_cache_co_sync(PvsCache *c)
{
    return co_sync(c, false);
}

int pvs_cache_sync(PvsCache *c)
{
    GArray *runs = sync_begin(c, true);
    int ret = sync_file(c);

    sync_end(c, runs, ret);
    return ret;
}

static int drop_file(void *opaque)
{
    PvsCache *c = opaque;

    return -posix_fadvise(c->fd, 0, 0, POSIX_FADV_DONTNEED);
}

int coroutine_fn pvs_cache_co_drop(PvsCache *c)
{
    int ret = co_sync(c, true);

    return ret < 0 ? ret : thread_pool_submit_co(drop_file, c);
}

static void coroutine_fn sync_entry(void *opaque)
{
    PvsCache *c = opaque;

    pvs_cache_co_sync(c);
    c->syncing = false;
    c->running--;
    aio_wait_kick();
}

static void look_at_file(PvsCache *c)
{
    /* First: what is finished in between counts twice rather than never */
    uint64_t filling = qatomic_read(&c->filling);
    struct stat st;

    if (fstat(c->fd, &st) < 0) {
        return;
    }
    if (st.st_size < c->length) {
        pvs_cache_give_up(c);
    }
    qatomic_set(&c->taken, (uint64_t)st.st_blocks * 512 + filling);
}

/*
 * Full, or with room again? Near the limit that is known; else by trying, and
 * that there is room is said only after something was stored.
 */
static void look_at_room(PvsCache *c)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    bool over;

    look_at_file(c);
    over = c->limit && qatomic_read(&c->taken) + ROOM_MIN > c->limit;
    if (over) {
        qatomic_set(&c->full, true);
    } else if (!qatomic_read(&c->no_space)) {
        qatomic_set(&c->full, false);
    } else if (c->full_reported && now >= c->retry_at) {
        c->retry_at = now + FULL_RETRY;
        c->stored_before = qatomic_read(&c->stored);
        qatomic_set(&c->no_space, false);
        qatomic_set(&c->full, false);
        return;
    }
    if (pvs_cache_is_full(c) && !c->full_reported) {
        c->retry_at = now + FULL_RETRY;
        c->stored_before = qatomic_read(&c->stored);
        qatomic_set(&c->full_reported, true);
        c->ops->full_changed(c->opaque, true);
    } else if (!pvs_cache_is_full(c) && c->full_reported &&
               qatomic_read(&c->stored) != c->stored_before) {
        qatomic_set(&c->full_reported, false);
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
    qemu_mutex_destroy(&c->lock);
}
