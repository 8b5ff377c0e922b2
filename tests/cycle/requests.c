/*
 * Cycle test: what the guest does, and what it reads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "desk.h"

#define BURST       8
#define IDLE_US     70000       /* longer than the background stands back */

typedef struct Range {
    uint32_t first, n;
} Range;

void desk_changes(Desk *d)
{
    if (d->r->saved == SAVED_YES) {
        qatomic_set_mb(&d->r->saved, SAVED_MAYBE);
    }
}

void desk_changed(Desk *d)
{
    qatomic_set_mb(&d->r->saved, SAVED_NO);
}

/* Somewhere between two sectors; every other one consists of granules */
static Range random_range(Desk *d, uint32_t from, uint32_t to)
{
    Rng *rng = &d->r->rng;
    uint32_t max = rng_chance(rng, 75) ? 40 : MAX_REQUEST;
    uint32_t first = from + rng_below(rng, to - from);
    uint32_t end = MIN(first + 1 + rng_below(rng, max), to);

    if (rng_chance(rng, 50)) {
        first = MAX(QEMU_ALIGN_DOWN(first, GRANULE_SECTORS), from);
        end = MIN(QEMU_ALIGN_UP(end, GRANULE_SECTORS), to);
    }
    return (Range) { first, MIN(end - first, MAX_REQUEST) };
}

void desk_flush(Desk *d)
{
    Record *r = d->r;

    desk_check(d, blk_flush(d->blk), "flush");
    memcpy(r->flushed, r->ref, sizeof(r->ref));
    /* Killed before this, both count */
    qatomic_set_mb(&r->log_n, 0);
}

/* @id is what the range is about to hold */
static void note_change(Desk *d, Range range, uint64_t id)
{
    Record *r = d->r;

    desk_changes(d);
    if (!r->pooled) {
        r->log[r->log_n] = (LogEntry) { range.first, range.n, id };
        qatomic_set_mb(&r->log_n, r->log_n + 1);
    }
}

static void note_done(Desk *d, Range range, uint64_t id)
{
    for (uint32_t i = 0; i < range.n; i++) {
        d->r->ref[range.first + i] = id;
    }
}

static void compare_range(Desk *d, Range range)
{
    Record *r = d->r;

    desk_check(d, blk_pread(d->blk, (int64_t)range.first * SECTOR,
                            (int64_t)range.n * SECTOR, d->buf, 0), "read");
    r->counts.sectors += range.n;
    for (uint32_t i = 0; i < range.n; i++) {
        uint32_t s = range.first + i;
        uint64_t id = stamp_read(d->buf + i * SECTOR, s);

        if (id != r->ref[s]) {
            desk_fail(d, "sector %u has 0x%" PRIx64 " instead of 0x%" PRIx64
                      "%s", s, id, r->ref[s],
                      id == STAMP_STALE || (id && id < r->session) ?
                      ", of an earlier session" : "");
        }
    }
}

static void do_read(Desk *d)
{
    compare_range(d, random_range(d, 0, desk_names(d)->sectors));
}

static void do_write(Desk *d)
{
    Range range = random_range(d, 0, desk_names(d)->sectors);
    uint64_t id = d->r->next_id++;
    BdrvRequestFlags flags = rng_chance(&d->r->rng, 3) ? BDRV_REQ_FUA : 0;

    stamp_fill(d->buf, range.first, range.n, id);
    note_change(d, range, id);
    desk_check(d, blk_pwrite(d->blk, (int64_t)range.first * SECTOR,
                             (int64_t)range.n * SECTOR, d->buf, flags),
               "write");
    note_done(d, range, id);
    desk_changed(d);
}

static void do_zero(Desk *d)
{
    Range range = random_range(d, 0, desk_names(d)->sectors);
    BdrvRequestFlags flags = rng_chance(&d->r->rng, 50) ? BDRV_REQ_MAY_UNMAP
                                                        : 0;

    note_change(d, range, STAMP_ZERO);
    desk_check(d, blk_pwrite_zeroes(d->blk, (int64_t)range.first * SECTOR,
                                    (int64_t)range.n * SECTOR, flags),
               "write zeroes");
    note_done(d, range, STAMP_ZERO);
    desk_changed(d);
}

/* Whole granules become zeros; what else the range touches stays as it is */
static void do_discard(Desk *d)
{
    uint32_t sectors = desk_names(d)->sectors;
    Range range = random_range(d, 0, sectors);
    uint32_t end = range.first + range.n;
    Range zero = { QEMU_ALIGN_UP(range.first, GRANULE_SECTORS) };

    end = end == sectors ? end : QEMU_ALIGN_DOWN(end, GRANULE_SECTORS);
    zero.n = d->unmap && end > zero.first ? end - zero.first : 0;
    note_change(d, zero, STAMP_ZERO);
    desk_check(d, blk_pdiscard(d->blk, (int64_t)range.first * SECTOR,
                               (int64_t)range.n * SECTOR, 0), "discard");
    note_done(d, zero, STAMP_ZERO);
    if (zero.n) {
        desk_changed(d);
    } else if (!d->unmap && d->r->saved == SAVED_MAYBE) {
        d->r->saved = SAVED_YES;    /* ignored by the block layer */
    }
}

typedef struct Aio {
    uint8_t *buf;
    QEMUIOVector qiov;
    Range range;
    uint64_t id;
    unsigned *left;
    int ret;
} Aio;

static void aio_done(void *opaque, int ret)
{
    Aio *a = opaque;

    a->ret = ret;
    (*a->left)--;
}

static void aio_submit(Desk *d, Aio *a)
{
    size_t bytes = a->range.n * SECTOR;

    a->buf = blk_blockalign(d->blk, bytes);
    a->id = d->r->next_id++;
    stamp_fill(a->buf, a->range.first, a->range.n, a->id);
    qemu_iovec_init_buf(&a->qiov, a->buf, bytes);
    note_change(d, a->range, a->id);
    blk_aio_pwritev(d->blk, (int64_t)a->range.first * SECTOR, &a->qiov, 0,
                    aio_done, a);
}

/* Several writes at once, each in its own part of the disk */
static void do_burst(Desk *d)
{
    uint32_t part = desk_names(d)->sectors / BURST;
    unsigned left = BURST;
    Aio aio[BURST] = {};

    for (int i = 0; i < BURST; i++) {
        aio[i].left = &left;
        aio[i].range = random_range(d, i * part, (i + 1) * part);
        aio_submit(d, &aio[i]);
    }
    while (left > 0) {
        aio_poll(qemu_get_aio_context(), true);
    }
    for (int i = 0; i < BURST; i++) {
        desk_check(d, aio[i].ret, "write");
        note_done(d, aio[i].range, aio[i].id);
        qemu_vfree(aio[i].buf);
    }
    desk_changed(d);
}

/* Time for what goes on in the background */
static void do_idle(Desk *d)
{
    int64_t end = g_get_monotonic_time() + IDLE_US;

    while (g_get_monotonic_time() < end) {
        main_loop_wait(true);
        g_usleep(500);
    }
}

static const struct {
    void (*func)(Desk *d);
    unsigned weight;    /* of 1000 */
} requests[] = {
    { do_write,     450 },
    { do_read,      200 },
    { do_zero,      100 },
    { do_discard,   100 },
    { do_burst,     100 },
    { desk_flush,    49 },
    { do_idle,        1 },
};

static void random_request(Desk *d)
{
    unsigned n = rng_below(&d->r->rng, 1000);
    int i = 0;

    while (n >= requests[i].weight) {
        n -= requests[i++].weight;
    }
    if (d->r->log_n + BURST > LOG_ENTRIES) {
        desk_flush(d);
    }
    requests[i].func(d);
}

void desk_random_requests(Desk *d, unsigned n)
{
    d->r->counts.requests += n;
    d->r->names[!d->r->now] = *desk_names(d);
    d->r->doing = DOING_REQUEST;
    for (unsigned i = 0; i < n; i++) {
        random_request(d);
    }
    main_loop_wait(true);
    d->r->doing = DOING_NOTHING;
    if (d->l->tier) {
        VdiskTierUse use = vdisk_tier_use(d->l);

        d->r->counts.overflowed += use.used > use.size / 16 * 15;
    }
}

/* What block status says must fit what is read */
static void compare_status(Desk *d, bool fresh)
{
    const Names *names = desk_names(d);
    int64_t end = (int64_t)names->sectors * SECTOR;
    int64_t n, n_zero;

    for (int64_t at = 0; at < end; at += n) {
        int own = bdrv_is_allocated(blk_bs(d->blk), at, end - at, &n);
        int ret = bdrv_block_status_above(blk_bs(d->blk), NULL, at, n, &n_zero,
                                          NULL, NULL);

        desk_check(d, own, "allocation status");
        desk_check(d, ret, "block status");
        n = MIN(n, n_zero);
        if (n == 0 || n % SECTOR || (fresh && own)) {
            desk_fail(d, "status: %" PRId64 " bytes at %" PRId64 " are its own",
                      n, at);
        }
        for (uint32_t s = at / SECTOR; s < (at + n) / SECTOR; s++) {
            if ((!own && d->r->ref[s] != image_content(names->base, s)) ||
                ((ret & BDRV_BLOCK_ZERO) && d->r->ref[s])) {
                desk_fail(d, "status: wrong 0x%x of sector %u", ret, s);
            }
        }
    }
}

void desk_compare(Desk *d, bool fresh)
{
    uint32_t sectors = desk_names(d)->sectors;

    for (uint32_t s = 0; s < sectors; s += MAX_REQUEST) {
        compare_range(d, (Range) { s, MIN(MAX_REQUEST, sectors - s) });
    }
    compare_status(d, fresh);
}

/* Had the sector @id since the last flush, or was it flushed? */
static bool allowed(const Record *r, uint32_t s, uint64_t id)
{
    if (r->flushed[s] == id) {
        return true;
    }
    for (unsigned i = 0; i < r->log_n; i++) {
        const LogEntry *e = &r->log[i];

        if (e->id == id && s >= e->first && s < e->first + e->n) {
            return true;
        }
    }
    return false;
}

void desk_accept(Desk *d)
{
    Record *r = d->r;
    uint32_t sectors = desk_names(d)->sectors;

    for (uint32_t s = 0; s < sectors; s++) {
        if (s % MAX_REQUEST == 0) {
            int64_t n = MIN(MAX_REQUEST, sectors - s) * SECTOR;

            desk_check(d, blk_pread(d->blk, (int64_t)s * SECTOR, n, d->buf, 0),
                       "read");
        }
        r->ref[s] = stamp_read(d->buf + s % MAX_REQUEST * SECTOR, s);
        if (!allowed(r, s, r->ref[s])) {
            desk_fail(d, "after a crash sector %u has 0x%" PRIx64 ", flushed "
                      "was 0x%" PRIx64, s, r->ref[s], r->flushed[s]);
        }
    }
    memcpy(r->flushed, r->ref, sizeof(r->ref));
    r->log_n = 0;
}
