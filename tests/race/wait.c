/*
 * Wait test: requests of a layer whose base does not answer
 *
 * QEMU cannot stop, reset or change its block graph while a request keeps the
 * graph lock. So none may keep it that waits for the base, for whoever holds a
 * granule and waits for the base, or for a part of itself that does. They are
 * brought to wait here, all at once, and the holders of the lock are counted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/vdisk/layer.h"
#include "../crash/fixture.h"

#define GRANULES    16

typedef enum WaitKind {
    WAIT_READ,
    WAIT_WRITE,
    WAIT_ZERO,
} WaitKind;

typedef struct WaitOp {
    const char *name;
    WaitKind kind;
    int64_t offset, bytes;
    uint8_t fill;           /* what it writes */
    /* While it is under way */
    uint8_t *buf;
    int ret;
} WaitOp;

static BlockBackend *blk;
static const VdiskLayerOps *mcs_ops;
static CoQueue gate;
static bool shut;
static unsigned at_gate, running;

/* A base that is far: it drops the lock for as long as it does not answer */
static int coroutine_fn GRAPH_RDLOCK
far_co_read_base(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset)
{
    bdrv_graph_co_rdunlock();
    at_gate++;
    while (shut) {
        qemu_co_queue_wait(&gate, NULL);
    }
    at_gate--;
    bdrv_graph_co_rdlock();
    return mcs_ops->co_read_base(bs, offset, bytes, qiov, qiov_offset);
}

/* Who holds the graph lock in this thread: first member of a private type */
static uint32_t lock_holders(void)
{
    return *(uint32_t *)qemu_get_current_aio_context()->bdrv_graph;
}

static void coroutine_fn op_entry(void *opaque)
{
    WaitOp *op = opaque;

    switch (op->kind) {
    case WAIT_READ:
        op->ret = blk_co_pread(blk, op->offset, op->bytes, op->buf, 0);
        break;
    case WAIT_WRITE:
        op->ret = blk_co_pwrite(blk, op->offset, op->bytes, op->buf, 0);
        break;
    case WAIT_ZERO:
        op->ret = blk_co_pwrite_zeroes(blk, op->offset, op->bytes, 0);
        break;
    }
    running--;
}

static void op_start(WaitOp *op)
{
    op->buf = g_malloc(op->bytes);
    memset(op->buf, op->fill, op->bytes);
    op->ret = -EINPROGRESS;
    running++;
    qemu_coroutine_enter(qemu_coroutine_create(op_entry, op));
}

/* Run what can run */
static void settle(void)
{
    for (int i = 0; i < 1000; i++) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

static bool all_are(const uint8_t *buf, size_t n, uint8_t value)
{
    for (size_t i = 0; i < n; i++) {
        if (buf[i] != value) {
            return false;
        }
    }
    return true;
}

/* Two parts of granule 0, zeros in 1, 4 written before, the rest is base */
static bool disk_is_right(void)
{
    g_autofree uint8_t *buf = g_malloc(GRANULES * GRANULE);

    blk_pread(blk, 0, GRANULES * GRANULE, buf, 0);
    return all_are(buf, SECTOR, 0xa1) && all_are(buf + SECTOR, SECTOR, 0xa2) &&
           all_are(buf + 2 * SECTOR, GRANULE - 2 * SECTOR, 0x11) &&
           all_are(buf + GRANULE, GRANULE, 0) &&
           all_are(buf + 2 * GRANULE, 2 * GRANULE, 0x11) &&
           all_are(buf + 4 * GRANULE, GRANULE, 0x44) &&
           all_are(buf + 5 * GRANULE, (GRANULES - 5) * GRANULE, 0x11);
}

/* Start @ops while the base is silent: they wait, and hold nothing */
static bool wait_all(WaitOp *ops, size_t n, unsigned expected_at_gate)
{
    bool ok = true;

    shut = true;
    for (size_t i = 0; i < n; i++) {
        op_start(&ops[i]);
        settle();
        ok &= report(lock_holders() == 0, "%s: %" PRIu32 " hold the graph lock",
                     ops[i].name, lock_holders());
    }
    ok &= report(running == n, "all of them wait: %u of %zu", running, n);
    ok &= report(at_gate == expected_at_gate, "%u of them for the base itself",
                 at_gate);

    shut = false;
    qemu_co_enter_all(&gate, NULL);
    while (running) {
        aio_poll(qemu_get_aio_context(), true);
    }
    for (size_t i = 0; i < n; i++) {
        ok &= ops[i].ret >= 0;
    }
    ok &= report(ok && lock_holders() == 0, "they end when it answers");
    return ok;
}

static bool status_is(int64_t granule, int expected)
{
    BlockDriverState *bs = blk_bs(blk), *file = NULL;
    int64_t pnum, map;
    int ret;

    bdrv_graph_rdlock_main_loop();
    ret = bdrv_block_status(bs, granule * GRANULE, GRANULE, &pnum, &map, &file);
    bdrv_graph_rdunlock_main_loop();
    return (ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO |
                   BDRV_BLOCK_OFFSET_VALID)) == expected;
}

static bool run_tests(void)
{
    WaitOp data = { "a granule", WAIT_WRITE, 4 * GRANULE, GRANULE, 0x44 };
    WaitOp ops[] = {
        { "a part of a granule", WAIT_WRITE, 0, SECTOR, 0xa1 },
        { "another part of it", WAIT_WRITE, SECTOR, SECTOR, 0xa2 },
        { "a part of the next", WAIT_WRITE, GRANULE, SECTOR, 0xa3 },
        { "zeros over that one", WAIT_ZERO, GRANULE, GRANULE, 0 },
        { "a read in one piece", WAIT_READ, 8 * GRANULE, GRANULE, 0 },
        { "a read in pieces", WAIT_READ, 2 * GRANULE, 4 * GRANULE, 0 },
    };
    const uint8_t *pieces;
    bool ok;

    op_start(&data);
    settle();
    /* Of the last one two pieces are in the base */
    ok = wait_all(ops, ARRAY_SIZE(ops), 5);
    pieces = ops[5].buf;
    ok &= report(all_are(pieces, 2 * GRANULE, 0x11) &&
                 all_are(pieces + 2 * GRANULE, GRANULE, 0x44) &&
                 all_are(pieces + 3 * GRANULE, GRANULE, 0x11),
                 "the pieces are those of the disk");
    ok &= report(disk_is_right(), "the disk has what was written, in order");
    ok &= report(status_is(2, BDRV_BLOCK_DATA), "the base is data, of no file");
    ok &= report(status_is(1, BDRV_BLOCK_ZERO), "zeros are zeros");
    ok &= report(status_is(4, BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID),
                 "what was written is in the file");
    g_free(data.buf);
    for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
        g_free(ops[i].buf);
    }
    return ok;
}

int main(int argc, char **argv)
{
    RamDisk *file, *base;
    VdiskLayerOps ops;
    VdiskLayer *l;
    bool ok;

    block_layer_init();
    qemu_co_queue_init(&gate);
    file = ram_disk_new("file", 0, 128 * 1024 * 1024, 1);
    base = ram_disk_new("base", GRANULES * GRANULE, GRANULES * GRANULE, 2);
    memset(base->data, 0x11, GRANULES * GRANULE);
    mcs_make("file", GRANULES * GRANULE, MCS_LIFETIME_DEDICATED,
             "/nonexistent/base");
    blk = mcs_open("file", "base", BDRV_O_RDWR | BDRV_O_UNMAP, &error_abort);
    l = vdisk_node_next(NULL);
    mcs_ops = l->ops;
    ops = *mcs_ops;
    ops.co_read_base = far_co_read_base;
    l->ops = &ops;
    l->remote_base = true;
    ok = run_tests();
    blk_unref(blk);
    ram_disk_free(file);
    ram_disk_free(base);
    return !ok;
}
