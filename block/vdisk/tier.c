/*
 * RAM tier of a pooled layer: where its granules are, and their way to the file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-vdisk.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/aio_task.h"
#include "block/vdisk/layer.h"
#include "block/vdisk/ram.h"
#include "block/vdisk/tier.h"
#include "trace.h"

/* Granules copied under the lock: others wait microseconds */
#define COPY_GRANULES   16
/* Runs on their way to the file at once: enough to keep an SSD busy */
#define MOVERS          8
/* Moving goes on until this part of the slots is free */
#define FREE_PART       32
/* After a failure, moving is tried again this much later */
#define RETRY_NS        (1000 * 1000 * 1000LL)
/* Given back at once: a few milliseconds of work for the kernel */
#define TRIM_BYTES      (8 * MiB)

struct VdiskTier {
    /* Never changed after open */
    VdiskLayer *l;

    /* Held for short sections without I/O, by any thread */
    QemuMutex lock;
    VdiskRam ram;               /* under lock */
    unsigned told;              /* under lock; percent in the last event */

    bool mover_runs;            /* atomic */
    bool write_through;         /* atomic */
    int64_t retry_at;           /* atomic; CLOCK_REALTIME of QEMU, ns */
};

bool vdisk_tier_size_valid(uint64_t bytes, Error **errp)
{
    size_t host = qemu_get_host_physmem();

    if (bytes < VDISK_RAM_MIN || bytes > VDISK_RAM_MAX) {
        error_setg(errp, "write-cache-ram must be 0 for none, or from 1 MiB to "
                   "8 TiB, not %" PRIu64 " bytes", bytes);
        return false;
    }
    if (host && bytes >= host) {
        g_autofree char *has = size_to_str(host);

        error_setg(errp, "write-cache-ram is %" PRIu64 " bytes, but the host "
                   "has %s of memory for all that runs on it", bytes, has);
        return false;
    }
    return true;
}

bool vdisk_tier_open(VdiskLayer *l, uint64_t bytes, Error **errp)
{
    VdiskTier *t;

    t = g_new0(VdiskTier, 1);
    if (!vdisk_ram_init(&t->ram, bytes)) {
        error_setg(errp, "No address space for a write-cache-ram of %" PRIu64
                   " bytes", bytes);
        g_free(t);
        return false;
    }
    t->l = l;
    qemu_mutex_init(&t->lock);
    l->tier = t;
    return true;
}

void vdisk_tier_close(VdiskLayer *l)
{
    VdiskTier *t = l->tier;

    if (t) {
        assert(!qatomic_read(&t->mover_runs));
        l->tier = NULL;
        vdisk_ram_destroy(&t->ram);
        qemu_mutex_destroy(&t->lock);
        g_free(t);
    }
}

void vdisk_tier_clear(VdiskLayer *l)
{
    VdiskTier *t = l->tier;

    if (t) {
        QEMU_LOCK_GUARD(&t->lock);
        vdisk_ram_clear(&t->ram);
        t->told = 0;
    }
}

/* Length of the part of the range that is in its first granule */
static int64_t slice(int64_t offset, int64_t bytes)
{
    return MIN(bytes, VDISK_GRANULE - offset % VDISK_GRANULE);
}

int64_t vdisk_tier_read(VdiskLayer *l, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        VdiskPlace *place)
{
    VdiskTier *t = l->tier;
    uint64_t first = offset / VDISK_GRANULE;
    int64_t done = 0;
    uint64_t g;

    QEMU_LOCK_GUARD(&t->lock);
    for (g = first; done < bytes && g - first < COPY_GRANULES; g++) {
        int64_t n = slice(offset + done, bytes - done);
        uint8_t *memory = vdisk_ram_find(&t->ram, g);

        if (!memory) {
            break;
        }
        qemu_iovec_from_buf(qiov, qiov_offset + done,
                            memory + (offset + done) % VDISK_GRANULE, n);
        done += n;
    }
    *place = VDISK_PLACE_RAM;
    if (done > 0) {
        return done;
    }
    for (; done < bytes && !vdisk_ram_has(&t->ram, g); g++) {
        done += slice(offset + done, bytes - done);
    }
    /*
     * Who takes a granule out of state data does so before dropping it from
     * the tier. Without this look, a read that came in between would find
     * another session's data in the file.
     */
    *place = vdisk_map_all(&l->map, first, g - first, VDISK_STATE_DATA) ?
             VDISK_PLACE_FILE : VDISK_PLACE_CHANGED;
    return done;
}

/*
 * Room for the @n bytes in granule @g, or NULL if they belong in the file. A
 * whole granule never goes into the file while an old one is on its way there.
 */
static uint8_t *tier_room(VdiskTier *t, uint64_t g, int64_t n, bool more)
{
    return n == VDISK_GRANULE ? vdisk_ram_add(&t->ram, g, more) :
                                vdisk_ram_change(&t->ram, g);
}

/* Level that was reached and not yet told of, or 0. Called with lock held. */
static unsigned tier_new_level(VdiskTier *t)
{
    unsigned percent = t->ram.used * UINT64_C(100) / t->ram.size;
    unsigned level = percent >= 100 ? 100 : percent >= 80 ? 80 : 0;

    if (level > t->told) {
        t->told = level;
        return level;
    }
    /* Told again when it was down for good, not when it moves to and fro */
    if (percent < 70) {
        t->told = 0;
    }
    return 0;
}

/* Is there more in the tier than shall stay there, or is leaving it already? */
static bool tier_must_move(VdiskTier *t)
{
    uint32_t keep = t->ram.size - DIV_ROUND_UP(t->ram.size, FREE_PART);

    QEMU_LOCK_GUARD(&t->lock);
    return t->ram.used - t->ram.moving >
           (qatomic_read(&t->write_through) ? 0 : keep);
}

/*
 * Copy the run as it is now. Sent from where it is, it could be written at the
 * same time, and a read from the file find half of either in one sector.
 */
static uint8_t *GRAPH_RDLOCK tier_copy(VdiskTier *t, const VdiskRamRun *run)
{
    uint8_t *buf = qemu_blockalign(t->l->bs->file->bs,
                                   run->n * VDISK_GRANULE);

    for (unsigned i = 0; i < run->n; ) {
        unsigned end = MIN(i + COPY_GRANULES, run->n);

        QEMU_LOCK_GUARD(&t->lock);
        for (; i < end; i++) {
            memcpy(buf + i * VDISK_GRANULE, run->memory[i], VDISK_GRANULE);
        }
    }
    return buf;
}

/* Move one run. Returns 0 if there is none. */
static int coroutine_fn GRAPH_RDLOCK tier_co_move(VdiskTier *t)
{
    VdiskLayer *l = t->l;
    VdiskRamRun run;
    uint8_t *buf;
    int ret;

    WITH_QEMU_LOCK_GUARD(&t->lock) {
        if (!vdisk_ram_take(&t->ram, &run)) {
            return 0;
        }
    }
    buf = tier_copy(t, &run);
    ret = bdrv_co_pwrite(l->bs->file,
                         l->data_offset + run.first * VDISK_GRANULE,
                         run.n * VDISK_GRANULE, buf, 0);
    qemu_vfree(buf);
    qatomic_set(&l->unsynced, true);
    WITH_QEMU_LOCK_GUARD(&t->lock) {
        vdisk_ram_moved(&t->ram, &run, ret < 0);
    }
    trace_vdisk_tier_move(l->bs, run.first, run.n, ret);
    return ret < 0 ? ret : 1;
}

typedef struct TierTask {
    AioTask task;
    VdiskTier *t;
    bool all;           /* rather than what must be moved */
} TierTask;

static int coroutine_fn tier_co_task(AioTask *task)
{
    TierTask *tt = container_of(task, TierTask, task);
    BlockDriverState *bs = tt->t->l->bs;
    int ret = 1;

    while (ret > 0 && (tt->all || (tier_must_move(tt->t) &&
                                   !qatomic_read(&bs->quiesce_counter)))) {
        GRAPH_RDLOCK_GUARD();
        ret = tier_co_move(tt->t);
    }
    return MIN(ret, 0);
}

static int coroutine_fn tier_co_move_many(VdiskTier *t, bool all)
{
    AioTaskPool *pool = aio_task_pool_new(MOVERS);
    int ret;

    for (int i = 0; i < MOVERS; i++) {
        TierTask *tt = g_new(TierTask, 1);

        *tt = (TierTask) { .task.func = tier_co_task, .t = t, .all = all };
        aio_task_pool_start_task(pool, &tt->task);
    }
    aio_task_pool_wait_all(pool);
    ret = aio_task_pool_status(pool);
    aio_task_pool_free(pool);
    return ret;
}

/*
 * After a failure nothing is lost: the granules stay in memory, and writes
 * that find no room there hear of it from the file.
 */
static void coroutine_fn tier_mover_entry(void *opaque)
{
    VdiskTier *t = opaque;
    BlockDriverState *bs = t->l->bs;

    if (tier_co_move_many(t, false) < 0) {
        qatomic_set(&t->retry_at,
                    qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + RETRY_NS);
    }
    qatomic_set(&t->mover_runs, false);
    bdrv_dec_in_flight(bs);
}

static void tier_start_mover(VdiskTier *t)
{
    BlockDriverState *bs = t->l->bs;

    if (qatomic_read(&bs->quiesce_counter) ||
        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) < qatomic_read(&t->retry_at) ||
        qatomic_xchg(&t->mover_runs, true)) {
        return;
    }
    /* In flight: whoever drains the disk waits for it, and stops it soon */
    bdrv_inc_in_flight(bs);
    aio_co_enter(bdrv_get_aio_context(bs),
                 qemu_coroutine_create(tier_mover_entry, t));
}

static void tier_tell(VdiskTier *t, unsigned level)
{
    VdiskTierUse use = vdisk_tier_use(t->l);

    qapi_event_send_vdisk_write_cache(bdrv_get_node_name(t->l->bs), level,
                                      use.used, use.size);
}

int64_t vdisk_tier_write(VdiskLayer *l, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset,
                         VdiskPlace *place)
{
    VdiskTier *t = l->tier;
    uint64_t g = offset / VDISK_GRANULE;
    int64_t done = 0;
    unsigned level = 0;
    bool through = qatomic_read(&t->write_through);
    bool full;

    WITH_QEMU_LOCK_GUARD(&t->lock) {
        for (int i = 0; done < bytes && i < COPY_GRANULES; i++, g++) {
            int64_t n = slice(offset + done, bytes - done);
            uint8_t *memory = tier_room(t, g, n, !through);

            if (!memory) {
                break;
            }
            qemu_iovec_to_buf(qiov, qiov_offset + done,
                              memory + (offset + done) % VDISK_GRANULE, n);
            done += n;
        }
        *place = done ? VDISK_PLACE_RAM : VDISK_PLACE_FILE;
        full = t->ram.used == t->ram.size;
        if (!done) {
            /* With the first at least: others may find room in the tier */
            do {
                done += slice(offset + done, bytes - done);
                g++;
            } while (done < bytes && !vdisk_ram_has_slot(&t->ram, g) &&
                     (full || through));
        }
        level = tier_new_level(t);
    }
    if (level) {
        tier_tell(t, level);
    }
    if (full || (through && tier_must_move(t))) {
        tier_start_mover(t);
    }
    return done;
}

void vdisk_tier_drop(VdiskLayer *l, uint64_t first, uint64_t n)
{
    VdiskTier *t = l->tier;

    if (t) {
        QEMU_LOCK_GUARD(&t->lock);
        for (uint64_t g = first; g < first + n && t->ram.used; g++) {
            vdisk_ram_drop(&t->ram, g);
        }
    }
}

uint64_t vdisk_tier_run(VdiskLayer *l, uint64_t first, uint64_t n)
{
    VdiskTier *t = l->tier;
    uint64_t i;
    bool here;

    QEMU_LOCK_GUARD(&t->lock);
    here = vdisk_ram_has(&t->ram, first);
    for (i = 1; i < n; i++) {
        if (vdisk_ram_has(&t->ram, first + i) != here) {
            break;
        }
    }
    return i;
}

int coroutine_fn vdisk_tier_co_empty(VdiskLayer *l)
{
    return l->tier ? tier_co_move_many(l->tier, true) : 0;
}

void vdisk_tier_write_through(VdiskLayer *l, bool on)
{
    if (l->tier) {
        qatomic_set(&l->tier->write_through, on);
        if (on) {
            tier_start_mover(l->tier);
        }
    }
}

bool vdisk_tier_trim(VdiskLayer *l)
{
    VdiskTier *t = l->tier;

    if (!t) {
        return false;
    }
    QEMU_LOCK_GUARD(&t->lock);
    return vdisk_ram_trim(&t->ram, TRIM_BYTES);
}

VdiskTierUse vdisk_tier_use(VdiskLayer *l)
{
    VdiskTier *t = l->tier;

    QEMU_LOCK_GUARD(&t->lock);
    return (VdiskTierUse) {
        .size = t->ram.size * (uint64_t)VDISK_GRANULE,
        .used = t->ram.used * (uint64_t)VDISK_GRANULE,
        .memory = vdisk_ram_memory(&t->ram) +
                  t->ram.moving * (uint64_t)VDISK_GRANULE,
    };
}
