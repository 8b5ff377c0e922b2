/*
 * Stress of a private vDisk: requests of several threads, while the store fails
 *
 * Each round a small disk is driven from several IOThreads at once; the store
 * loses its link, crashes and forgets; and the main loop drains the disk now
 * and then. A request that fails is repeated, as a device with werror=stop
 * does; only a drain may make one fail. Every sector tells which request wrote
 * it: what a read shows, what the disk holds when all is quiet, what the store
 * holds after that, and what is there when it is opened again must come from a
 * request that could be the last one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "iothread.h"
#include "life.h"

#define THREADS         3
#define JOBS            9       /* coroutines, dealt to the threads in turn */
#define OPS             12      /* one after the other in a job */
#define MAX_SECTORS     (1024 * 1024 / SECTOR)
#define SECONDS_PER_ROUND   120

typedef enum StressKind {
    STRESS_READ,
    STRESS_WRITE,
    STRESS_ZERO,
    STRESS_UNMAP,
    STRESS_FLUSH,
} StressKind;

typedef struct StressOp {
    StressKind kind;
    unsigned sector, sectors;
    Change change;
    uint8_t *buf;
    int ret;
} StressOp;

typedef struct StressJob {
    struct Stress *stress;
    StressOp ops[OPS];
} StressJob;

typedef struct Stress {
    Rng rng;
    uint64_t clock;             /* atomic */
    unsigned running;           /* atomic: jobs */
    unsigned drains, drained;   /* atomic: begun, and ended */
    IOThread *threads[THREADS];

    /* This round */
    const Subject *subject;
    Start *start;
    Log *log;                   /* of the store, which has to forget */
    Device *device[DEVICES];
    BlockBackend *blk;
    unsigned sectors, max_sectors;
    StressJob jobs[JOBS];
    Change base_shows, zero;    /* a sector from the beginning */
    GPtrArray *history[MAX_SECTORS];

    uint64_t reads;             /* sectors that were judged */
    uint64_t repeated;          /* atomic: requests that a drain made fail */
    uint64_t faults[FAULT_CRASH + 1];
    uint64_t wrong;             /* atomic */
} Stress;

static uint64_t tick(Stress *s)
{
    return qatomic_fetch_inc(&s->clock) + 1;
}

/* Jobs */

static int coroutine_fn co_submit(Stress *s, StressOp *op)
{
    int64_t offset = op->sector * SECTOR;
    int64_t bytes = op->sectors * SECTOR;

    switch (op->kind) {
    case STRESS_READ:
        return blk_co_pread(s->blk, offset, bytes, op->buf, 0);
    case STRESS_WRITE:
        return blk_co_pwrite(s->blk, offset, bytes, op->buf, 0);
    case STRESS_ZERO:
        return blk_co_pwrite_zeroes(s->blk, offset, bytes, 0);
    case STRESS_UNMAP:
        return blk_co_pwrite_zeroes(s->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    case STRESS_FLUSH:
        return blk_co_flush(s->blk);
    }
    g_assert_not_reached();
}

static void coroutine_fn co_op(Stress *s, StressOp *op)
{
    unsigned drained;
    bool again;

    op->change.begin = tick(s);
    do {
        drained = qatomic_read(&s->drained);
        op->ret = co_submit(s, op);
        again = op->ret == -EIO && qatomic_read(&s->drains) > drained;
        if (again) {
            qatomic_inc(&s->repeated);
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
        }
    } while (again);
    op->change.end = tick(s);
}

static void coroutine_fn job_entry(void *opaque)
{
    StressJob *job = opaque;
    Stress *s = job->stress;

    for (int i = 0; i < OPS; i++) {
        co_op(s, &job->ops[i]);
    }
    qatomic_dec(&s->running);
    aio_wait_kick();
}

/* Beside them, in the main loop */
static void coroutine_fn trouble_entry(void *opaque)
{
    Stress *s = opaque;

    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, rng_below(&s->rng, 3) * SCALE_MS);
    qatomic_dec(&s->running);
    aio_wait_kick();
}

static void plan_fault(Stress *s)
{
    static const unsigned ms[] = { 0, 0, 20, 200 };

    if (rng_chance(&s->rng, 60)) {
        device_plan_fault(s->device[STORE], rng_below(&s->rng, FAULT_CRASH + 1),
                          1 + rng_below(&s->rng, 30),
                          ms[rng_below(&s->rng, 4)],
                          rng_chance(&s->rng, 30));
    }
}

static void drain(Stress *s)
{
    qatomic_inc(&s->drains);
    blk_drain(s->blk);
    if (rng_chance(&s->rng, 30)) {
        /* Longer than a request that waits is left alone */
        blk_set_disable_request_queuing(s->blk, true);
        bdrv_drained_begin(blk_bs(s->blk));
        g_usleep(rng_below(&s->rng, 3000));
        bdrv_drained_end(blk_bs(s->blk));
        blk_set_disable_request_queuing(s->blk, false);
    }
    qatomic_inc(&s->drained);
}

static void wait_for(Stress *s, unsigned running)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&s->running) > running);
}

static void run_jobs(Stress *s)
{
    unsigned troubles = rng_below(&s->rng, 4);

    s->running = JOBS;
    for (int i = 0; i < JOBS; i++) {
        IOThread *t = s->threads[i % THREADS];

        aio_co_schedule(iothread_get_aio_context(t),
                        qemu_coroutine_create(job_entry, &s->jobs[i]));
    }
    for (unsigned i = 0; i < troubles; i++) {
        plan_fault(s);
        qatomic_inc(&s->running);
        qemu_coroutine_enter(qemu_coroutine_create(trouble_entry, s));
        wait_for(s, JOBS);
        if (rng_chance(&s->rng, 40)) {
            drain(s);
        }
    }
    wait_for(s, 0);
}

/* Planning */

static void plan_range(Stress *s, StressOp *op)
{
    const unsigned per = GRANULE / SECTOR;

    op->sector = rng_below(&s->rng, s->sectors);
    op->sectors = 1 + rng_below(&s->rng, s->max_sectors);
    if (rng_chance(&s->rng, 40)) {
        op->sector = ROUND_DOWN(op->sector, per);
        op->sectors = ROUND_UP(op->sectors, per);
    }
    op->sectors = MIN(op->sectors, s->sectors - op->sector);
}

static void plan_op(Stress *s, StressOp *op, uint64_t id)
{
    static const StressKind kinds[] = {
        STRESS_WRITE, STRESS_WRITE, STRESS_WRITE, STRESS_WRITE, STRESS_WRITE,
        STRESS_READ, STRESS_READ, STRESS_READ, STRESS_ZERO, STRESS_UNMAP,
        STRESS_FLUSH,
    };
    bool writes;

    *op = (StressOp) { .kind = kinds[rng_below(&s->rng, ARRAY_SIZE(kinds))] };
    plan_range(s, op);
    op->change.id = op->kind == STRESS_WRITE ? id : STAMP_ZERO;
    op->buf = g_malloc(op->sectors * SECTOR);
    stamp_fill(op->buf, op->sector, op->sectors, op->change.id);
    writes = op->kind != STRESS_READ && op->kind != STRESS_FLUSH;
    for (unsigned i = 0; writes && i < op->sectors; i++) {
        g_ptr_array_add(s->history[op->sector + i], &op->change);
    }
}

/* Judging */

/* Was each sector of @buf, read between these times, possible? */
static void judge(Stress *s, const uint8_t *buf, unsigned sector,
                  unsigned sectors, uint64_t begin, uint64_t end,
                  const char *what)
{
    s->reads += sectors;
    for (unsigned i = 0; i < sectors; i++) {
        uint64_t id = stamp_read(buf + i * SECTOR, sector + i);

        if (history_allows(s->history[sector + i], id, begin, end)) {
            continue;
        }
        if (s->wrong++ < 10) {
            note("%s, %" PRIu64 " to %" PRIu64 ": sector %u holds 0x%" PRIx64
                 ", which is not one of:", what, begin, end, sector + i, id);
            for (guint n = 0; n < s->history[sector + i]->len; n++) {
                Change *c = g_ptr_array_index(s->history[sector + i], n);

                note("  0x%" PRIx64 " from %" PRIu64 " to %" PRIu64, c->id,
                     c->begin, c->end);
            }
        }
    }
}

static void judge_requests(Stress *s)
{
    for (int i = 0; i < JOBS * OPS; i++) {
        StressOp *op = &s->jobs[i / OPS].ops[i % OPS];

        if (op->ret < 0) {
            note("request of kind %d: %s", op->kind, strerror(-op->ret));
            s->wrong++;
        } else if (op->kind == STRESS_READ) {
            judge(s, op->buf, op->sector, op->sectors, op->change.begin,
                  op->change.end, "read");
        }
    }
}

static void read_disk(Stress *s, uint8_t *buf, const char *when)
{
    uint64_t now = tick(s);

    if (blk_pread(s->blk, 0, s->sectors * SECTOR, buf, 0) < 0) {
        note("reading the disk %s fails", when);
        s->wrong++;
        return;
    }
    judge(s, buf, 0, s->sectors, now, now, when);
}

static void must_equal(Stress *s, const uint8_t *a, const uint8_t *b,
                       const char *what)
{
    for (unsigned i = 0; i < s->sectors; i++) {
        if (memcmp(a + i * SECTOR, b + i * SECTOR, SECTOR) &&
            s->wrong++ < 10) {
            note("%s: sector %u holds 0x%" PRIx64 " instead of 0x%" PRIx64,
                 what, i, stamp_read(a + i * SECTOR, i),
                 stamp_read(b + i * SECTOR, i));
        }
    }
}

static void open_disk(Stress *s)
{
    static const char *const names[] = { "journal", "copy", "store" };

    s->blk = s->subject->open(names, s->sectors * SECTOR, &error_abort);
}

static void judge_disk(Stress *s)
{
    size_t bytes = s->sectors * SECTOR;
    g_autofree uint8_t *before = g_malloc0(bytes);
    g_autofree uint8_t *after = g_malloc0(bytes);

    read_disk(s, before, "afterwards");
    if (rng_chance(&s->rng, 30)) {
        blk_unref(s->blk);
        open_disk(s);
    }
    blk_flush(s->blk);
    if (!wait_drained(s->subject, s->blk)) {
        note("the journal is not empty after a minute");
        s->wrong++;
    }
    must_equal(s, s->device[STORE]->data, before, "the store, drained");
    read_disk(s, after, "drained");
    must_equal(s, after, before, "the disk, drained");
    blk_unref(s->blk);
    open_disk(s);
    read_disk(s, after, "opened again");
    must_equal(s, after, before, "the disk, opened again");
}

/* Rounds */

static void make_devices(Stress *s)
{
    static const char *const names[] = { "journal", "copy", "store" };
    static const unsigned waits_us[] = { 0, 20, 100, 400 };

    for (int i = 0; i < DEVICES; i++) {
        s->device[i] = device_new(names[i], s->start->device[i],
                                  s->start->length[i], rng_next(&s->rng));
        s->device[i]->max_yields = rng_below(&s->rng, 4);
        s->device[i]->max_wait_us = waits_us[rng_below(&s->rng, 4)];
    }
    s->log = log_new();
    device_start_log(s->device[STORE], s->log, STORE);
}

static void make_history(Stress *s)
{
    for (unsigned i = 0; i < s->sectors; i++) {
        s->history[i] = g_ptr_array_new();
        g_ptr_array_add(s->history[i], s->start->content[i] == STAMP_BASE ?
                        &s->base_shows : &s->zero);
    }
}

static void round_begin(Stress *s)
{
    s->subject = rng_chance(&s->rng, 80) ? &subject_private : &subject_store;
    s->start = start_new(s->subject, &s->rng);
    s->sectors = s->start->size / SECTOR;
    s->max_sectors = rng_chance(&s->rng, 60) ? 16 : 256;
    make_devices(s);
    make_history(s);
    open_disk(s);
    for (int i = 0; i < JOBS * OPS; i++) {
        plan_op(s, &s->jobs[i / OPS].ops[i % OPS], i + 1);
    }
}

static void round_end(Stress *s)
{
    blk_unref(s->blk);
    for (int i = 0; i <= FAULT_CRASH; i++) {
        s->faults[i] += s->device[STORE]->faults[i];
    }
    for (int i = 0; i < DEVICES; i++) {
        device_free(s->device[i]);
    }
    log_free(s->log);
    start_free(s->start);
    for (unsigned i = 0; i < s->sectors; i++) {
        g_ptr_array_free(s->history[i], true);
    }
    for (int i = 0; i < JOBS * OPS; i++) {
        g_free(s->jobs[i / OPS].ops[i % OPS].buf);
    }
}

static void stress_round(Stress *s)
{
    alarm(SECONDS_PER_ROUND);
    round_begin(s);
    run_jobs(s);
    device_repair(s->device[STORE]);
    judge_requests(s);
    judge_disk(s);
    round_end(s);
}

int main(int argc, char **argv)
{
    uint64_t seconds = option_number(argv, "--seconds", 20);
    uint64_t seed = option_number(argv, "--seed", 1);
    uint64_t rounds = 0;
    int64_t end;
    Stress s = {
        .rng.state = seed,
        .base_shows.id = STAMP_BASE,
    };

    block_layer_init();
    watch_for_ends();
    device_init();
    for (int i = 0; i < THREADS; i++) {
        s.threads[i] = iothread_new();
    }
    for (int i = 0; i < JOBS; i++) {
        s.jobs[i].stress = &s;
    }
    end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    while (g_get_monotonic_time() < end && !s.wrong) {
        stress_round(&s);
        rounds++;
    }
    for (int i = 0; i < THREADS; i++) {
        iothread_join(s.threads[i]);
    }
    note("stress: of the store %" PRIu64 " errors, %" PRIu64 " lost links, %"
         PRIu64 " crashes; %u drains, %" PRIu64 " requests repeated",
         s.faults[FAULT_ERROR], s.faults[FAULT_LINK], s.faults[FAULT_CRASH],
         s.drains, s.repeated);
    return !report(!s.wrong, "stress: %" PRIu64 " rounds of %d requests from "
                   "%d threads, %" PRIu64 " sectors judged, %" PRIu64 " wrong, "
                   "--seed %" PRIu64, rounds, JOBS * OPS, THREADS, s.reads,
                   s.wrong, seed);
}
