/*
 * Race test: requests of several threads on the same few granules
 *
 * Each round a small disk is driven from several IOThreads at once, over a slow
 * base and a slow file, so that a merge has the base read when other requests
 * come. Every sector tells which request wrote it. What a read shows, and what
 * the disk holds when all is quiet, must come from a request that could be the
 * last one: never an older one, nor the base under it, nor a mix (L3).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "block/vdisk/layer.h"
#include "iothread.h"
#include "../crash/fixture.h"

#define THREADS         3
#define JOBS            9       /* coroutines, dealt to the threads in turn */
#define OPS             8       /* one after the other in a job */
#define SETUP_OPS       4
#define MAX_GRANULES    6
#define MAX_SECTORS     (MAX_GRANULES * GRANULE / SECTOR)

typedef enum RaceKind {
    RACE_READ,
    RACE_WRITE,
    RACE_ZERO,
    RACE_UNMAP,
    RACE_DISCARD,
    RACE_FLUSH,
} RaceKind;

typedef struct RaceOp {
    RaceKind kind;
    unsigned sector, sectors;
    unsigned first, end;        /* of the sectors that change */
    Change change;
    uint8_t *buf;
    int ret;
} RaceOp;

typedef struct RaceJob {
    struct Race *race;
    RaceOp ops[OPS];
} RaceJob;

typedef struct Race {
    Rng rng;
    uint64_t clock;             /* atomic */
    unsigned running;           /* atomic: jobs */
    IOThread *threads[THREADS];

    /* This round */
    RamDisk *file, *base;
    BlockBackend *blk;
    bool pooled;
    VdiskLayer *tier;           /* the layer, if it has a RAM tier */
    unsigned sectors;
    RaceJob jobs[JOBS];
    RaceOp setup[SETUP_OPS];
    Change base_shows, zero;    /* a sector from the beginning */
    GPtrArray *history[MAX_SECTORS];

    uint64_t reads;             /* sectors that were judged */
    uint64_t wrong;
} Race;

static const VdiskLayerOps *mcs_ops;

/* A base that is far: who waits for it drops the graph lock */
static int coroutine_fn GRAPH_RDLOCK
far_co_read_base(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset)
{
    bdrv_graph_co_rdunlock();
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, offset % 7 * 10000);
    bdrv_graph_co_rdlock();
    return mcs_ops->co_read_base(bs, offset, bytes, qiov, qiov_offset);
}

static uint64_t tick(Race *r)
{
    return qatomic_fetch_inc(&r->clock) + 1;
}

static int coroutine_fn race_co_submit(Race *r, RaceOp *op)
{
    int64_t offset = op->sector * SECTOR;
    int64_t bytes = op->sectors * SECTOR;

    switch (op->kind) {
    case RACE_READ:
        return blk_co_pread(r->blk, offset, bytes, op->buf, 0);
    case RACE_WRITE:
        return blk_co_pwrite(r->blk, offset, bytes, op->buf, 0);
    case RACE_ZERO:
        return blk_co_pwrite_zeroes(r->blk, offset, bytes, 0);
    case RACE_UNMAP:
        return blk_co_pwrite_zeroes(r->blk, offset, bytes,
                                    BDRV_REQ_MAY_UNMAP);
    case RACE_DISCARD:
        return blk_co_pdiscard(r->blk, offset, bytes, 0);
    case RACE_FLUSH:
        return blk_co_flush(r->blk);
    }
    g_assert_not_reached();
}

static void coroutine_fn race_co_op(Race *r, RaceOp *op)
{
    op->change.begin = tick(r);
    op->ret = race_co_submit(r, op);
    op->change.end = tick(r);
}

static void coroutine_fn race_job_entry(void *opaque)
{
    RaceJob *job = opaque;
    Race *r = job->race;

    for (int i = 0; i < OPS; i++) {
        race_co_op(r, &job->ops[i]);
    }
    qatomic_dec(&r->running);
    aio_wait_kick();
}

static void race_wait(Race *r)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&r->running) > 0);
}

/* A discard leaves alone what is not a whole granule, but for the disk's end */
static void plan_changes(Race *r, RaceOp *op)
{
    const unsigned per = GRANULE / SECTOR;

    op->first = op->sector;
    op->end = op->sector + op->sectors;
    if (op->kind == RACE_DISCARD) {
        op->first = ROUND_UP(op->first, per);
        op->end = op->end == r->sectors ? op->end : ROUND_DOWN(op->end, per);
    } else if (op->kind == RACE_READ || op->kind == RACE_FLUSH) {
        op->end = op->first;
    }
}

static void plan_range(Race *r, RaceOp *op)
{
    const unsigned per = GRANULE / SECTOR;

    op->sector = rng_below(&r->rng, r->sectors);
    op->sectors = 1 + rng_below(&r->rng, rng_chance(&r->rng, 60) ? 4 : 2 * per);
    if (rng_chance(&r->rng, 40)) {
        op->sector = ROUND_DOWN(op->sector, per);
        op->sectors = ROUND_UP(op->sectors, per);
    }
    op->sectors = MIN(op->sectors, r->sectors - op->sector);
}

static void plan_op(Race *r, RaceOp *op, uint64_t id)
{
    static const RaceKind kinds[] = {
        RACE_WRITE, RACE_WRITE, RACE_WRITE, RACE_WRITE, RACE_WRITE,
        RACE_READ, RACE_READ, RACE_READ, RACE_ZERO, RACE_UNMAP, RACE_UNMAP,
        RACE_DISCARD, RACE_DISCARD, RACE_FLUSH,
    };

    *op = (RaceOp) { .kind = kinds[rng_below(&r->rng, ARRAY_SIZE(kinds))] };
    plan_range(r, op);
    plan_changes(r, op);
    op->change.id = op->kind == RACE_WRITE ? id : STAMP_ZERO;
    op->buf = g_malloc(op->sectors * SECTOR);
    stamp_fill(op->buf, op->sector, op->sectors, op->change.id);
}

static void add_history(Race *r, RaceOp *op)
{
    for (unsigned i = op->first; i < op->end; i++) {
        g_ptr_array_add(r->history[i], &op->change);
    }
}

static void race_run(Race *r)
{
    r->running = JOBS;
    for (int i = 0; i < JOBS; i++) {
        IOThread *t = r->threads[i % THREADS];

        aio_co_schedule(iothread_get_aio_context(t),
                        qemu_coroutine_create(race_job_entry, &r->jobs[i]));
    }
    if (r->tier && rng_chance(&r->rng, 30)) {
        vdisk_tier_write_through(r->tier, true);
    }
    race_wait(r);
    if (r->tier) {
        vdisk_tier_write_through(r->tier, false);
    }
}

/* Was each sector of @buf, read between these times, possible? */
static void judge(Race *r, const uint8_t *buf, unsigned sector,
                  unsigned sectors, uint64_t begin, uint64_t end,
                  const char *what)
{
    r->reads += sectors;
    for (unsigned i = 0; i < sectors; i++) {
        uint64_t id = stamp_read(buf + i * SECTOR, sector + i);

        if (history_allows(r->history[sector + i], id, begin, end)) {
            continue;
        }
        if (r->wrong++ < 10) {
            note("%s: sector %u holds 0x%" PRIx64 ", which is not one of:",
                 what, sector + i, id);
            for (guint n = 0; n < r->history[sector + i]->len; n++) {
                Change *c = g_ptr_array_index(r->history[sector + i], n);

                note("  0x%" PRIx64 " from %" PRIu64 " to %" PRIu64, c->id,
                     c->begin, c->end);
            }
        }
    }
}

static void judge_round(Race *r)
{
    for (int j = 0; j < JOBS; j++) {
        for (int i = 0; i < OPS; i++) {
            RaceOp *op = &r->jobs[j].ops[i];

            if (op->ret < 0) {
                note("request of kind %d: %s", op->kind, strerror(-op->ret));
                r->wrong++;
            } else if (op->kind == RACE_READ) {
                judge(r, op->buf, op->sector, op->sectors, op->change.begin,
                      op->change.end, "read");
            }
        }
    }
}

static void judge_disk(Race *r, const char *when)
{
    g_autofree uint8_t *buf = g_malloc(r->sectors * SECTOR);
    uint64_t now = tick(r);
    BdrvCheckResult result = {};

    blk_pread(r->blk, 0, r->sectors * SECTOR, buf, 0);
    judge(r, buf, 0, r->sectors, now, now, when);
    bdrv_check(blk_bs(r->blk), &result, 0);
    r->wrong += result.corruptions + result.leaks + result.check_errors;
}

static void coroutine_fn race_setup_entry(void *opaque)
{
    Race *r = opaque;

    for (int g = 0; g < SETUP_OPS; g++) {
        race_co_op(r, &r->setup[g]);
    }
    qatomic_dec(&r->running);
    aio_wait_kick();
}

/* Some granules are data or zero before the race begins */
static void race_setup(Race *r)
{
    for (unsigned g = 0; g < SETUP_OPS; g++) {
        RaceOp *op = &r->setup[g];

        plan_op(r, op, JOBS * OPS + 1 + g);
        add_history(r, op);
    }
    r->running = 1;
    qemu_coroutine_enter(qemu_coroutine_create(race_setup_entry, r));
    race_wait(r);
}

static void make_disks(Race *r, unsigned base_sectors)
{
    static const unsigned waits_us[] = { 0, 20, 100, 400 };

    r->file = ram_disk_new("file", 0, 128 * 1024 * 1024, rng_next(&r->rng));
    r->base = ram_disk_new("base", base_sectors * SECTOR,
                           MAX_GRANULES * GRANULE, rng_next(&r->rng));
    stamp_fill(r->base->data, 0, base_sectors, STAMP_BASE);
    mcs_make("file", r->sectors * SECTOR,
             r->pooled ? MCS_LIFETIME_POOLED : MCS_LIFETIME_DEDICATED,
             "/nonexistent/base");
    r->file->max_yields = rng_below(&r->rng, 4);
    r->base->max_yields = rng_below(&r->rng, 6);
    r->file->max_wait_us = waits_us[rng_below(&r->rng, 3)];
    r->base->max_wait_us = waits_us[rng_below(&r->rng, 4)];
}

/*
 * A few slots, so that granules come and go, over a file that still has what an
 * earlier session wrote
 */
static void make_tier(Race *r)
{
    VdiskLayer *l = vdisk_node_next(NULL);

    r->tier = NULL;
    if (r->pooled) {
        stamp_fill(r->file->data + l->data_offset, 0, r->sectors, STAMP_STALE);
    }
    if (r->pooled && rng_chance(&r->rng, 70)) {
        vdisk_tier_open(l, (1 + rng_below(&r->rng, MAX_GRANULES)) * GRANULE,
                        &error_abort);
        r->tier = l;
    }
}

static void move_base_away(void)
{
    static VdiskLayerOps far_ops;
    VdiskLayer *l = vdisk_node_next(NULL);

    mcs_ops = l->ops;
    far_ops = *mcs_ops;
    far_ops.co_read_base = far_co_read_base;
    l->ops = &far_ops;
    l->remote_base = true;
}

static void round_begin(Race *r)
{
    const unsigned per = GRANULE / SECTOR;
    unsigned base_sectors;

    r->sectors = per * (1 + rng_below(&r->rng, MAX_GRANULES));
    if (rng_chance(&r->rng, 50)) {
        r->sectors -= rng_below(&r->rng, per);
    }
    base_sectors = rng_chance(&r->rng, 70) ? r->sectors :
                   rng_below(&r->rng, r->sectors);
    r->pooled = rng_chance(&r->rng, 50);
    make_disks(r, base_sectors);
    r->blk = mcs_open("file", "base", BDRV_O_RDWR | BDRV_O_UNMAP,
                      &error_abort);
    make_tier(r);
    if (rng_chance(&r->rng, 40)) {
        move_base_away();
    }
    for (unsigned i = 0; i < r->sectors; i++) {
        r->history[i] = g_ptr_array_new();
        g_ptr_array_add(r->history[i],
                        i < base_sectors ? &r->base_shows : &r->zero);
    }
    race_setup(r);
    for (int i = 0; i < JOBS * OPS; i++) {
        RaceOp *op = &r->jobs[i / OPS].ops[i % OPS];

        plan_op(r, op, i + 1);
        add_history(r, op);
    }
}

static void round_end(Race *r)
{
    blk_unref(r->blk);
    ram_disk_free(r->file);
    ram_disk_free(r->base);
    for (unsigned i = 0; i < r->sectors; i++) {
        g_ptr_array_free(r->history[i], true);
    }
    for (int i = 0; i < JOBS * OPS; i++) {
        g_free(r->jobs[i / OPS].ops[i % OPS].buf);
    }
    for (int i = 0; i < SETUP_OPS; i++) {
        g_free(r->setup[i].buf);
    }
}

static void race_round(Race *r)
{
    round_begin(r);
    race_run(r);
    judge_round(r);
    judge_disk(r, "afterwards");
    if (!r->pooled) {
        /* What is in the file, not only in this process's map */
        blk_unref(r->blk);
        r->blk = mcs_open("file", "base", 0, &error_abort);
        judge_disk(r, "reopened");
    }
    round_end(r);
}

int main(int argc, char **argv)
{
    uint64_t seconds = option_number(argv, "--seconds", 20);
    uint64_t seed = option_number(argv, "--seed", 1);
    uint64_t rounds = 0;
    int64_t end;
    Race r = {
        .rng.state = seed,
        .base_shows.id = STAMP_BASE,
    };

    block_layer_init();
    for (int i = 0; i < THREADS; i++) {
        r.threads[i] = iothread_new();
    }
    for (int i = 0; i < JOBS; i++) {
        r.jobs[i].race = &r;
    }
    end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    while (g_get_monotonic_time() < end && !r.wrong) {
        race_round(&r);
        rounds++;
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_join(r.threads[i]);
    }
    return !report(!r.wrong, "race: %" PRIu64 " rounds of %d requests from %d "
                   "threads, %" PRIu64 " sectors judged, %" PRIu64 " wrong, "
                   "--seed %" PRIu64, rounds, JOBS * OPS, THREADS, r.reads,
                   r.wrong, seed);
}
