/*
 * Model check: the disk against an array that says what it should hold
 *
 * Random requests, one at a time, go to mcs on a real file and to an array.
 * Whatever is read is compared. A life is one disk, of a random size, lifetime
 * and base; after some thousand requests it ends and another one begins.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "qobject/qdict.h"
#include "block/vdisk/layer.h"
#include "../crash/fixture.h"

#define LIFE_OPS        2500
#define MAX_REQUEST     (96 * 1024)
#define MAX_SIZE        (3 * 1024 * 1024)
/* Two map pages: some lives are so large, and use the middle only */
#define MAP_PAGE_SPAN  (64 * 1024 * 1024)
#define MAX_SEGMENTS    6

typedef struct Model {
    Rng rng;
    uint64_t seed;
    uint64_t op;
    uint64_t fixed_size;        /* of every disk; 0: random */
    char *dir, *path, *base_path;
    uint8_t *scratch;           /* MAX_REQUEST, and room to misalign */

    /* This life */
    BlockBackend *blk;
    bool pooled;
    bool ram;                   /* with a RAM tier, smaller than the disk */
    bool unmap;                 /* discards are done, not ignored */
    int64_t size;
    int64_t from;               /* requests begin here or later */
    int64_t base_size;          /* 0: no base */
    uint8_t *base;
    uint8_t *ref;               /* what the disk should hold */
    uint8_t *local;             /* a byte a granule: not read from the base */

    uint64_t compared;          /* bytes */
    uint64_t lives;
} Model;

static void G_GNUC_PRINTF(2, 3) G_NORETURN
fail(Model *m, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    note("%s disk of %" PRId64 " bytes, base of %" PRId64 ", unmap %d, ram %d",
         m->pooled ? "pooled" : "dedicated", m->size, m->base_size, m->unmap,
         m->ram);
    report(false, "model: %s; operation %" PRIu64 ", --seed %" PRIu64, what,
           m->op, m->seed);
    exit(1);
}

static void check_ret(Model *m, int ret, const char *what)
{
    if (ret < 0) {
        fail(m, "%s failed: %s", what, strerror(-ret));
    }
}

static void compare(Model *m, const uint8_t *found, int64_t offset,
                    int64_t bytes)
{
    m->compared += bytes;
    if (memcmp(found, m->ref + offset, bytes)) {
        int64_t i = 0;

        while (found[i] == m->ref[offset + i]) {
            i++;
        }
        fail(m, "byte %" PRId64 " is 0x%02x instead of 0x%02x", offset + i,
             found[i], m->ref[offset + i]);
    }
}

/* Where a request goes. @align is the usual one; some have none at all. */
static int64_t random_range(Model *m, int64_t *offset, int64_t max)
{
    static const int aligns[] = { GRANULE, SECTOR, SECTOR, 1 };
    int align = aligns[rng_below(&m->rng, ARRAY_SIZE(aligns))];
    int64_t end;

    *offset = m->from + rng_below(&m->rng, m->size - m->from);
    max = rng_chance(&m->rng, 70) ? MIN(max, 3 * GRANULE) : max;
    end = MIN(*offset + 1 + (int64_t)rng_below(&m->rng, max), m->size);
    *offset = QEMU_ALIGN_DOWN(*offset, align);
    end = MIN(QEMU_ALIGN_UP(end, align), m->size);
    return MIN(end - *offset, max);
}

/* The whole request as several pieces of memory at odd addresses */
static uint8_t *random_vector(Model *m, QEMUIOVector *qiov, int64_t bytes)
{
    bool odd = rng_chance(&m->rng, 50);
    uint8_t *buf = m->scratch + (odd ? rng_below(&m->rng, SECTOR) : 0);
    unsigned segments = 1 + rng_below(&m->rng, MAX_SEGMENTS);
    int64_t done = 0;

    qemu_iovec_init(qiov, segments);
    while (done < bytes) {
        int64_t n = bytes - done;

        if (--segments > 0) {
            n = 1 + rng_below(&m->rng, n);
        }
        qemu_iovec_add(qiov, buf + done, n);
        done += n;
    }
    return buf;
}

static void set_local(Model *m, int64_t offset, int64_t end)
{
    if (end > offset) {
        memset(m->local + offset / GRANULE, 1,
               DIV_ROUND_UP(end, GRANULE) - offset / GRANULE);
    }
}

static void op_read(Model *m)
{
    int64_t offset;
    int64_t bytes = random_range(m, &offset, MAX_REQUEST);
    QEMUIOVector qiov;
    uint8_t *buf = random_vector(m, &qiov, bytes);

    check_ret(m, blk_preadv(m->blk, offset, bytes, &qiov, 0), "read");
    compare(m, buf, offset, bytes);
    qemu_iovec_destroy(&qiov);
}

static void op_write(Model *m)
{
    int64_t offset;
    int64_t bytes = random_range(m, &offset, MAX_REQUEST);
    BdrvRequestFlags flags = rng_chance(&m->rng, 5) ? BDRV_REQ_FUA : 0;
    QEMUIOVector qiov;
    uint8_t *buf = random_vector(m, &qiov, bytes);

    for (int64_t i = 0; i < bytes; i += sizeof(uint64_t)) {
        uint64_t word = (m->op << 24) ^ i ^ 0x5a00000000000000;

        memcpy(buf + i, &word, MIN(sizeof(word), bytes - i));
    }
    memcpy(m->ref + offset, buf, bytes);
    check_ret(m, blk_pwritev(m->blk, offset, bytes, &qiov, flags), "write");
    set_local(m, offset, offset + bytes);
    qemu_iovec_destroy(&qiov);
}

static void op_zero(Model *m)
{
    int64_t offset;
    int64_t bytes = random_range(m, &offset, MAX_SIZE / 4);
    BdrvRequestFlags flags = rng_chance(&m->rng, 50) ? BDRV_REQ_MAY_UNMAP : 0;

    check_ret(m, blk_pwrite_zeroes(m->blk, offset, bytes, flags),
              "write zeroes");
    memset(m->ref + offset, 0, bytes);
    set_local(m, offset, offset + bytes);
}

/* Whole granules become zeros; what else the range touches stays as it is */
static void op_discard(Model *m)
{
    int64_t offset;
    int64_t bytes = random_range(m, &offset, MAX_SIZE / 4);
    int64_t end = offset + bytes;

    check_ret(m, blk_pdiscard(m->blk, offset, bytes, 0), "discard");
    offset = QEMU_ALIGN_UP(offset, GRANULE);
    end = end == m->size ? end : QEMU_ALIGN_DOWN(end, GRANULE);
    if (m->unmap && offset < end) {
        memset(m->ref + offset, 0, end - offset);
        set_local(m, offset, end);
    }
}

static void op_flush(Model *m)
{
    check_ret(m, blk_flush(m->blk), "flush");
}

static void op_status(Model *m)
{
    BlockDriverState *bs = blk_bs(m->blk);
    int64_t offset, n, at;
    int64_t bytes = random_range(m, &offset, MAX_SIZE / 4);
    int ret = bdrv_is_allocated(bs, offset, bytes, &n);

    check_ret(m, ret, "allocation status");
    for (int64_t i = 0; i < n; i++) {
        if (m->local[(offset + i) / GRANULE] != ret) {
            fail(m, "byte %" PRId64 " is%s said to be from the base",
                 offset + i, ret ? " not" : "");
        }
    }
    ret = bdrv_block_status(bs, offset, bytes, &n, &at, NULL);
    check_ret(m, ret, "block status");
    if (n == 0 || ((ret & BDRV_BLOCK_ZERO) &&
                   !buffer_is_zero(m->ref + offset, n))) {
        fail(m, "wrong status 0x%x of %" PRId64 " bytes at %" PRId64, ret, n,
             offset);
    }
}

static void compare_all(Model *m)
{
    for (int64_t at = m->from; at < m->size; at += MAX_REQUEST) {
        int64_t n = MIN(MAX_REQUEST, m->size - at);

        check_ret(m, blk_pread(m->blk, at, n, m->scratch, 0), "read");
        compare(m, m->scratch, at, n);
    }
}

static void show_base(Model *m)
{
    memset(m->ref, 0, m->size);
    memset(m->local, 0, DIV_ROUND_UP(m->size, GRANULE));
    if (m->base) {
        memcpy(m->ref, m->base, MIN(m->base_size, m->size));
    }
}

static void life_open(Model *m)
{
    QDict *options = qdict_new();
    int flags = BDRV_O_RDWR | BDRV_O_RESIZE | (m->unmap ? BDRV_O_UNMAP : 0);

    qdict_put_str(options, "driver", "mcs");
    if (m->ram) {
        qdict_put_str(options, "write-cache-ram", "1M");
    }
    m->blk = blk_new_open(m->path, NULL, options, flags, &error_abort);
    if (blk_getlength(m->blk) != m->size) {
        fail(m, "the disk has %" PRId64 " bytes", blk_getlength(m->blk));
    }
}

static void op_reopen(Model *m)
{
    BdrvCheckResult result = {};

    blk_unref(m->blk);
    m->unmap = rng_chance(&m->rng, 75);
    life_open(m);
    if (m->pooled) {
        show_base(m);
    }
    check_ret(m, bdrv_check(blk_bs(m->blk), &result, 0), "check");
    if (result.corruptions || result.leaks || result.check_errors) {
        fail(m, "check finds %d corruptions, %d leaks", result.corruptions,
             result.leaks);
    }
    compare_all(m);
}

static void op_system_reset(Model *m)
{
    vdisk_pooled_reset_all();
    if (m->pooled) {
        show_base(m);
    }
    compare_all(m);
}

/* The array has room: see life_begin() */
static void op_grow(Model *m)
{
    int64_t old = m->size;
    int64_t room = (m->from ? MAP_PAGE_SPAN : 0) + MAX_SIZE - old;

    if (m->fixed_size || room < SECTOR) {
        return;
    }
    m->size += QEMU_ALIGN_UP(1 + rng_below(&m->rng, MIN(room, MAX_SIZE / 8)),
                             SECTOR);
    m->size = MIN(m->size, old + QEMU_ALIGN_DOWN(room, SECTOR));
    check_ret(m, blk_truncate(m->blk, m->size, true, PREALLOC_MODE_OFF, 0,
                              &error_abort), "grow");
    memset(m->ref + old, 0, m->size - old);
    memset(m->local + DIV_ROUND_UP(old, GRANULE), 0,
           DIV_ROUND_UP(m->size, GRANULE) - DIV_ROUND_UP(old, GRANULE));
    /* Only then is there anything that has to be kept from showing */
    if (m->base_size > old) {
        set_local(m, old, m->size);
    }
    compare_all(m);
}

static const struct {
    void (*func)(Model *m);
    unsigned weight;    /* of 10000 */
} ops[] = {
    { op_read,          3000 },
    { op_write,         4000 },
    { op_zero,           900 },
    { op_discard,        700 },
    { op_flush,          500 },
    { op_status,         700 },
    { compare_all,        80 },
    { op_reopen,          50 },
    { op_system_reset,    40 },
    { op_grow,            30 },
};

static void random_op(Model *m)
{
    unsigned n = rng_below(&m->rng, 10000);
    int i = 0;

    while (n >= ops[i].weight) {
        n -= ops[i++].weight;
    }
    ops[i].func(m);
}

static int64_t random_size(Model *m)
{
    int64_t sectors = rng_chance(&m->rng, 25) ? 40 : MAX_SIZE / SECTOR;

    if (m->fixed_size) {
        return m->fixed_size;
    }
    sectors = 1 + rng_below(&m->rng, sectors);
    if (rng_chance(&m->rng, 20)) {
        return QEMU_ALIGN_UP(sectors * SECTOR, GRANULE);
    }
    return sectors * SECTOR;
}

/*
 * At first not larger than the disk, or the disk could not be made; then the
 * base of some grows past it. Some do not end with a sector.
 */
static void base_write(Model *m)
{
    for (int64_t i = 0; i < m->base_size; i++) {
        m->base[i] = m->base_size - i < MAX_SIZE ? rng_next(&m->rng) | 1 : 0;
    }
    g_file_set_contents(m->base_path, (char *)m->base, m->base_size, NULL);
}

static void base_make(Model *m)
{
    int64_t full = QEMU_ALIGN_DOWN(m->size, SECTOR);

    m->base_size = 0;
    if (!m->pooled && rng_chance(&m->rng, 30)) {
        return;
    }
    m->base_size = rng_chance(&m->rng, 40) ? full :
                   full - rng_below(&m->rng, MIN(full, MAX_SIZE));
    if (rng_chance(&m->rng, 80)) {
        m->base_size = QEMU_ALIGN_UP(m->base_size, SECTOR);
    }
    m->base = g_malloc0(m->base_size + MAX_SIZE);
    base_write(m);
}

static void base_lengthen(Model *m)
{
    if (m->base_size && rng_chance(&m->rng, 30)) {
        m->base_size = QEMU_ALIGN_UP(m->size, SECTOR) +
                       SECTOR * rng_below(&m->rng, 400);
        m->base = g_realloc(m->base, m->base_size);
        base_write(m);
    }
}

static void life_begin(Model *m)
{
    int64_t room;

    m->pooled = rng_chance(&m->rng, 60);
    m->ram = m->pooled && rng_chance(&m->rng, 60);
    m->unmap = rng_chance(&m->rng, 75);
    m->size = random_size(m);
    m->from = 0;
    if (!m->fixed_size && rng_chance(&m->rng, 8)) {
        m->from = MAP_PAGE_SPAN - MIN(m->size / 2, 64 * GRANULE);
        m->from = QEMU_ALIGN_DOWN(m->from, GRANULE);
        m->size += m->from;
    }
    room = MAX(m->size, m->from ? MAP_PAGE_SPAN + MAX_SIZE : MAX_SIZE);
    m->ref = g_malloc0(room);
    m->local = g_malloc0(DIV_ROUND_UP(room, GRANULE));
    base_make(m);
    bdrv_img_create(m->path, "mcs", m->base_size ? m->base_path : NULL,
                    m->base_size ? "raw" : NULL,
                    (char *)(m->pooled ? "lifetime=pooled" :
                                         "lifetime=dedicated"),
                    m->size, BDRV_O_RDWR, true, &error_abort);
    base_lengthen(m);
    show_base(m);
    life_open(m);
    m->lives++;
}

static void life_end(Model *m)
{
    op_reopen(m);
    blk_unref(m->blk);
    g_clear_pointer(&m->ref, g_free);
    g_clear_pointer(&m->local, g_free);
    g_clear_pointer(&m->base, g_free);
    unlink(m->path);
    unlink(m->base_path);
}

int main(int argc, char **argv)
{
    uint64_t total = option_number(argv, "--ops", 200000);
    Model m = {
        .seed = option_number(argv, "--seed", 1),
        .fixed_size = option_number(argv, "--size", 0),
        .dir = g_dir_make_tmp("mcs-model-XXXXXX", NULL),
    };

    if (m.fixed_size % SECTOR || !m.dir) {
        note("--size must be a multiple of 512, and $TMPDIR writable");
        return 2;
    }
    block_layer_init();
    m.rng.state = m.seed;
    m.path = g_build_filename(m.dir, "disk.mcs", NULL);
    m.base_path = g_build_filename(m.dir, "base.raw", NULL);
    m.scratch = qemu_memalign(GRANULE, MAX_REQUEST + GRANULE);
    while (m.op < total) {
        life_begin(&m);
        for (int i = 0; i < LIFE_OPS && m.op < total; i++, m.op++) {
            random_op(&m);
        }
        life_end(&m);
    }
    rmdir(m.dir);
    report(true, "model: %" PRIu64 " operations on %" PRIu64 " disks, %" PRIu64
           " MiB read and compared, 0 wrong", m.op, m.lives,
           m.compared / (1024 * 1024));
    return 0;
}
