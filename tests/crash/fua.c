/*
 * FUA: a write is durable when it has ended, also the first one after a flush
 *
 * A disk in memory that has no FUA, and a file, whose system calls are counted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "fixture.h"

static unsigned syncs;

/* In place of the C library's */
int fdatasync(int fd)
{
    qatomic_inc(&syncs);
    return syscall(SYS_fdatasync, fd);
}

static unsigned flushes(const RamDisk *d)
{
    unsigned n = 0;

    for (guint i = 0; i < d->events->len; i++) {
        n += g_array_index(d->events, RamEvent, i).request == RAM_FLUSH;
    }
    return n;
}

static BlockBackend *open_node(BlockDriverState *bs)
{
    return blk_new_with_bs(bs, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
}

static bool test_memory(void)
{
    uint64_t clock = 0;
    RamDisk *d = ram_disk_new("ram", 1024 * 1024, 1024 * 1024, 1);
    BlockBackend *blk = open_node(d->bs);
    uint8_t buf[SECTOR] = { 1 };
    bool ok = true;

    d->events = g_array_new(false, false, sizeof(RamEvent));
    d->clock = &clock;
    for (int i = 0; i < 3; i++) {
        unsigned before = flushes(d);

        blk_pwrite(blk, i * SECTOR, SECTOR, buf, BDRV_REQ_FUA);
        ok &= flushes(d) == before + 1;
        blk_flush(blk);
        before = flushes(d);
        blk_pwrite_zeroes(blk, i * SECTOR, SECTOR, BDRV_REQ_FUA);
        ok &= flushes(d) == before + 1;
        blk_flush(blk);
    }
    blk_unref(blk);
    g_array_free(d->events, true);
    d->events = NULL;
    ram_disk_free(d);
    return report(ok, "FUA: a driver without it flushes after each write");
}

static bool test_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("fua-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "disk.raw", NULL);
    QDict *options = qdict_new();
    uint8_t buf[SECTOR] = { 1 };
    BlockDriverState *bs;
    BlockBackend *blk;
    bool ok = true;

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    g_assert_cmpint(truncate(path, 1024 * 1024), ==, 0);
    qdict_put_str(options, "driver", "file");
    qdict_put_str(options, "aio", "threads");
    bs = bdrv_open(path, NULL, options, BDRV_O_RDWR, &error_abort);
    blk = open_node(bs);
    for (int i = 0; i < 3; i++) {
        unsigned before = syncs;

        blk_pwrite(blk, i * SECTOR, SECTOR, buf, BDRV_REQ_FUA);
        ok &= syncs == before + 1;
        blk_flush(blk);
    }
    blk_unref(blk);
    bdrv_unref(bs);
    unlink(path);
    rmdir(dir);
    return report(ok, "FUA: a file is synced after each write");
}

int main(void)
{
    bool ok;

    block_layer_init();
    ok = test_memory();
    ok &= test_file();
    return !ok;
}
