/*
 * Host cache: trust what is in the file again
 *
 * After its owner did not end properly nothing tells which granules reached the
 * disk, so none counts. Each one is compared with the tree, the tree's own
 * blocks first, and counts again if it is what was sealed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/block-io.h"
#include "block/pvs/cache-int.h"
#include "trace.h"

#define SCAN_BYTES      (256 * KiB)

/* The next part of the file that was ever written; false: there is none */
static bool next_extent(PvsCache *c, int64_t *offset, int64_t end,
                        int64_t *bytes)
{
    off_t base = c->id.data_offset;
    off_t data = lseek(c->fd, base + *offset, SEEK_DATA);
    off_t hole;

    if (data < 0 || data >= base + end) {
        return false;
    }
    hole = lseek(c->fd, data, SEEK_HOLE);
    *offset = QEMU_ALIGN_DOWN(data - base, VDISK_GRANULE);
    hole = hole < 0 ? base + end : hole;
    *bytes = MIN(ROUND_UP(hole - base, VDISK_GRANULE), end) - *offset;
    return true;
}

/* Not what a hole reads as: that would be as good as nothing */
static bool coroutine_fn is_good(PvsCache *c, int64_t offset,
                                 const uint8_t *buf)
{
    VdiskState state;

    vdisk_map_run(&c->map, offset / VDISK_GRANULE, 1, &state);
    return state == VDISK_STATE_BASE && !buffer_is_zero(buf, VDISK_GRANULE) &&
           c->ops->co_verify(c->opaque, offset, VDISK_GRANULE, buf);
}

static uint64_t coroutine_fn scan_chunk(PvsCache *c, int64_t offset,
                                        int64_t bytes, uint8_t *buf)
{
    uint64_t failures = pvs_cache_failures(c);
    uint64_t good = 0;

    if (pvs_cache_co_pread(c, buf, bytes, c->id.data_offset + offset) < 0) {
        return 0;
    }
    for (int64_t n = 0; n < bytes && !qatomic_read(&c->stopping);
         n += VDISK_GRANULE) {
        if (is_good(c, offset + n, buf + n)) {
            pvs_cache_set(c, (offset + n) / VDISK_GRANULE, 1,
                          VDISK_STATE_DATA, failures);
            good++;
        }
    }
    return good;
}

static uint64_t coroutine_fn scan_range(PvsCache *c, int64_t offset,
                                        int64_t end, uint8_t *buf)
{
    uint64_t good = 0;
    int64_t bytes;

    while (!qatomic_read(&c->stopping) &&
           next_extent(c, &offset, end, &bytes)) {
        while (bytes > 0 && !qatomic_read(&c->stopping)) {
            int64_t n = MIN(bytes, SCAN_BYTES);

            good += scan_chunk(c, offset, n, buf);
            offset += n;
            bytes -= n;
        }
    }
    return good;
}

void coroutine_fn pvs_cache_scan_entry(void *opaque)
{
    PvsCache *c = opaque;
    int64_t end = c->map.granules * VDISK_GRANULE;
    int64_t tree = end - c->id.tree_bytes;
    uint8_t *buf = qemu_memalign(VDISK_GRANULE, SCAN_BYTES);
    uint64_t good;

    /* Whoever opens the cache is to be done with it before it is used */
    qemu_co_sleep_ns_wakeable(&c->scan_sleep, QEMU_CLOCK_REALTIME, SCALE_MS);
    /* What a failed write-back has left in memory is not on the medium */
    if (!qatomic_read(&c->stopping)) {
        pvs_cache_co_drop(c);
    }
    good = scan_range(c, tree, end, buf);
    good += scan_range(c, 0, tree, buf);
    trace_pvs_cache_scan(c, good);
    qemu_vfree(buf);
    if (!qatomic_read(&c->stopping)) {
        c->scanning = false;
        qatomic_set(pvs_cache_flag(c, LIVE_MAP_SCANNING), 0);
    }
    c->running--;
    aio_wait_kick();
}
