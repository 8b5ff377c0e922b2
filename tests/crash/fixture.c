/*
 * What the model check, the race test and the crash test have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qobject/qdict.h"
#include "fixture.h"

uint64_t rng_next(Rng *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t rng_below(Rng *r, uint64_t n)
{
    return n ? rng_next(r) % n : 0;
}

bool rng_chance(Rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

static void G_GNUC_PRINTF(2, 0)
print_line(const char *prefix, const char *fmt, va_list ap)
{
    printf("%s", prefix);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
}

bool report(bool ok, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    print_line(ok ? "ok - " : "not ok - ", fmt, ap);
    va_end(ap);
    return ok;
}

void note(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    print_line("# ", fmt, ap);
    va_end(ap);
}

uint64_t option_number(char **argv, const char *name, uint64_t preset)
{
    uint64_t value = preset;

    for (char **arg = argv + 1; *arg; arg++) {
        if (g_str_equal(*arg, name) &&
            (!arg[1] || qemu_strtou64(arg[1], NULL, 0, &value) < 0)) {
            fprintf(stderr, "%s needs a number\n", name);
            exit(2);
        }
    }
    return value;
}

void block_layer_init(void)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
}

/* Stamps */

#define STAMP_MAGIC     UINT64_C(0x6e6f697373655321)
#define STAMP_WORDS     4

static void stamp_words(uint64_t words[STAMP_WORDS], uint64_t sector,
                        uint64_t id)
{
    words[0] = STAMP_MAGIC;
    words[1] = id;
    words[2] = sector;
    words[3] = id ^ (sector << 32);
}

void stamp_fill(uint8_t *buf, uint64_t sector, uint64_t sectors, uint64_t id)
{
    uint64_t words[STAMP_WORDS];

    if (id == STAMP_ZERO) {
        memset(buf, 0, sectors * SECTOR);
        return;
    }
    for (uint64_t s = 0; s < sectors; s++, buf += SECTOR) {
        stamp_words(words, sector + s, id);
        for (int i = 0; i < SECTOR; i += sizeof(words)) {
            memcpy(buf + i, words, sizeof(words));
        }
    }
}

uint64_t stamp_read(const uint8_t *buf, uint64_t sector)
{
    uint64_t words[STAMP_WORDS];
    uint64_t found[STAMP_WORDS];

    memcpy(found, buf, sizeof(found));
    stamp_words(words, sector, found[1]);
    if (found[0] == 0) {
        memset(words, 0, sizeof(words));
    }
    if (memcmp(found, words, sizeof(words)) ||
        memcmp(buf, buf + sizeof(words), SECTOR - sizeof(words))) {
        return STAMP_TORN;
    }
    return found[1];
}

bool history_allows(const GPtrArray *history, uint64_t id, uint64_t settled,
                    uint64_t now)
{
    uint64_t floor = 0;

    for (guint i = 0; i < history->len; i++) {
        const Change *c = g_ptr_array_index(history, i);

        if (c->end <= settled) {
            floor = MAX(floor, c->begin);
        }
    }
    for (guint i = 0; i < history->len; i++) {
        const Change *c = g_ptr_array_index(history, i);

        if (c->id == id && c->begin <= now && c->end >= floor) {
            return true;
        }
    }
    return false;
}

/* The disk in memory */

static RamDisk *ram_disk(BlockDriverState *bs)
{
    return *(RamDisk **)bs->opaque;
}

static void coroutine_fn ram_wait(RamDisk *d)
{
    unsigned yields, wait_us;

    qemu_mutex_lock(&d->lock);
    yields = rng_below(&d->rng, d->max_yields + 1);
    wait_us = rng_below(&d->rng, d->max_wait_us + 1);
    qemu_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < yields; i++) {
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    if (wait_us) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, wait_us * SCALE_US);
    }
}

static uint64_t ram_begin(RamDisk *d)
{
    return d->events ? ++*d->clock : 0;
}

static void ram_end(RamDisk *d, RamRequest request, int64_t offset,
                    int64_t bytes, uint64_t begin)
{
    RamEvent e = { request, offset, bytes, begin };

    if (d->events) {
        e.end = ++*d->clock;
        if (d->keep_data && request == RAM_WRITE) {
            e.data = g_memdup2(d->data + offset, bytes);
        }
        g_array_append_val(d->events, e);
    }
}

static int coroutine_fn ram_co_preadv(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      BdrvRequestFlags flags)
{
    RamDisk *d = ram_disk(bs);

    ram_wait(d);
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        qemu_iovec_from_buf(qiov, 0, d->data + offset, bytes);
    }
    /* Time for others between reading and using what was read */
    ram_wait(d);
    return 0;
}

static int coroutine_fn ram_co_pwritev(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags)
{
    RamDisk *d = ram_disk(bs);
    uint64_t begin = ram_begin(d);

    if (offset + bytes > d->capacity) {
        return -ENOSPC;
    }
    ram_wait(d);
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        qemu_iovec_to_buf(qiov, 0, d->data + offset, bytes);
        d->length = MAX(d->length, offset + bytes);
    }
    ram_end(d, RAM_WRITE, offset, bytes, begin);
    return 0;
}

static int coroutine_fn ram_co_pwrite_zeroes(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    RamDisk *d = ram_disk(bs);
    uint64_t begin = ram_begin(d);

    ram_wait(d);
    WITH_QEMU_LOCK_GUARD(&d->lock) {
        memset(d->data + offset, 0, bytes);
        d->length = MAX(d->length, offset + bytes);
    }
    ram_end(d, RAM_ZERO, offset, bytes, begin);
    return 0;
}

/* What a medium shows after a discard is not defined: the test makes it up */
static int coroutine_fn ram_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes)
{
    RamDisk *d = ram_disk(bs);
    uint64_t begin = ram_begin(d);

    ram_wait(d);
    ram_end(d, RAM_DISCARD, offset, bytes, begin);
    return 0;
}

static int coroutine_fn ram_co_flush_to_disk(BlockDriverState *bs)
{
    RamDisk *d = ram_disk(bs);
    uint64_t begin = ram_begin(d);

    ram_wait(d);
    ram_end(d, RAM_FLUSH, 0, 0, begin);
    return 0;
}

static int64_t coroutine_fn ram_co_getlength(BlockDriverState *bs)
{
    return bs->opaque && ram_disk(bs) ? ram_disk(bs)->length : 0;
}

static int coroutine_fn ram_co_truncate(BlockDriverState *bs, int64_t offset,
                                        bool exact, PreallocMode prealloc,
                                        BdrvRequestFlags flags, Error **errp)
{
    RamDisk *d = ram_disk(bs);
    uint64_t begin = ram_begin(d);

    if (d->fixed_length) {
        return offset <= d->length && !exact ? 0 : -ENOTSUP;
    }
    ram_wait(d);
    if (offset < d->length) {
        memset(d->data + offset, 0, d->length - offset);
    }
    d->length = offset;
    ram_end(d, RAM_TRUNCATE, offset, 0, begin);
    return 0;
}

static BlockDriver ram_driver = {
    .format_name            = "test-ram",
    .instance_size          = sizeof(RamDisk *),
    .bdrv_co_preadv         = ram_co_preadv,
    .bdrv_co_pwritev        = ram_co_pwritev,
    .bdrv_co_pwrite_zeroes  = ram_co_pwrite_zeroes,
    .bdrv_co_pdiscard       = ram_co_pdiscard,
    .bdrv_co_flush_to_disk  = ram_co_flush_to_disk,
    .bdrv_co_getlength      = ram_co_getlength,
    .bdrv_co_truncate       = ram_co_truncate,
};

void ram_disk_set_length(RamDisk *d, int64_t length)
{
    assert(length <= d->capacity);
    d->length = length;
    d->bs->total_sectors = length / SECTOR;
}

RamDisk *ram_disk_new(const char *node_name, int64_t length, int64_t capacity,
                      uint64_t seed)
{
    RamDisk *d = g_new0(RamDisk, 1);

    d->capacity = ROUND_UP(capacity, GRANULE);
    d->data = mmap(NULL, d->capacity, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(d->data != MAP_FAILED);
    d->rng.state = seed;
    qemu_mutex_init(&d->lock);
    d->bs = bdrv_new_open_driver(&ram_driver, node_name,
                                 BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP,
                                 &error_abort);
    *(RamDisk **)d->bs->opaque = d;
    d->bs->bl.request_alignment = SECTOR;
    d->bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    ram_disk_set_length(d, length);
    return d;
}

void ram_disk_copy(RamDisk *d, const RamDisk *from)
{
    madvise(d->data, d->capacity, MADV_DONTNEED);
    for (int64_t at = 0; at < from->length; at += GRANULE) {
        if (!buffer_is_zero(from->data + at, GRANULE)) {
            memcpy(d->data + at, from->data + at, GRANULE);
        }
    }
    ram_disk_set_length(d, from->length);
}

void ram_disk_free(RamDisk *d)
{
    bdrv_unref(d->bs);
    munmap(d->data, d->capacity);
    qemu_mutex_destroy(&d->lock);
    g_free(d);
}

/* mcs */

typedef struct McsMake {
    BlockdevCreateOptions *options;
    bool done;
} McsMake;

static void coroutine_fn mcs_make_entry(void *opaque)
{
    McsMake *m = opaque;
    BlockDriver *drv = bdrv_find_format("mcs");

    drv->bdrv_co_create(m->options, &error_abort);
    m->done = true;
    aio_wait_kick();
}

void mcs_make(const char *node, int64_t size, McsLifetime lifetime,
              const char *base)
{
    BlockdevRef file = {
        .type = QTYPE_QSTRING,
        .u.reference = (char *)node,
    };
    BlockdevCreateOptions options = {
        .driver = BLOCKDEV_DRIVER_MCS,
        .u.mcs = {
            .file = &file,
            .size = size,
            .backing_file = (char *)base,
            .has_backing_fmt = base != NULL,
            .backing_fmt = BLOCKDEV_DRIVER_RAW,
            .has_lifetime = true,
            .lifetime = lifetime,
        },
    };
    McsMake m = { .options = &options };

    qemu_coroutine_enter(qemu_coroutine_create(mcs_make_entry, &m));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !m.done);
}

BlockBackend *mcs_open(const char *node, const char *base, int flags,
                       Error **errp)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "mcs");
    qdict_put_str(options, "file", node);
    if (base) {
        qdict_put_str(options, "backing", base);
    } else {
        flags |= BDRV_O_NO_BACKING;
    }
    return blk_new_open(NULL, NULL, options, flags, errp);
}
