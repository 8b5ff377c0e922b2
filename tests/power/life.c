/*
 * Power-cut test: a desktop at work, and what it was promised
 *
 * Several requests are under way at once and complete in random order, while
 * the store fails, comes back, and crashes. One thread does it all.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "life.h"

#define MIN_SIZE        (64 * 1024)
#define MAX_SIZE        (1024 * 1024)
#define MAX_OUTAGE_MS   90
#define MAX_NOTES       10

static uint64_t tick(Life *l)
{
    return log_tick(l->log);
}

static Change *change_new(Life *l, bool stamped)
{
    Change *c = g_new0(Change, 1);

    c->begin = tick(l);
    c->end = CHANGE_UNDER_WAY;
    g_ptr_array_add(l->changes, c);
    c->id = stamped ? l->first_id + l->changes->len - 1 : STAMP_ZERO;
    return c;
}

const Change *life_change(const Life *l, uint64_t id)
{
    return id >= l->first_id && id - l->first_id < l->changes->len
           ? g_ptr_array_index(l->changes, id - l->first_id) : NULL;
}

static void change_range(Life *l, Change *c, uint64_t first, uint64_t end)
{
    for (uint64_t s = first; s < end; s++) {
        g_ptr_array_add(l->history[s], c);
    }
}

/* Requests of the guest */

static void random_range(Life *l, int64_t *offset, int64_t *bytes)
{
    const unsigned per = GRANULE / SECTOR;
    uint64_t sector = rng_below(&l->rng, l->sectors);
    uint64_t most = MIN(l->max_bytes, l->size) / SECTOR;
    uint64_t n = 1 + rng_below(&l->rng, rng_chance(&l->rng, 50) ? 2 * per :
                               rng_chance(&l->rng, 75) ? 16 * per : most);

    if (rng_chance(&l->rng, 30)) {
        /* Some places are written again and again */
        sector %= 3 * per;
    }
    if (rng_chance(&l->rng, 60)) {
        sector = ROUND_DOWN(sector, per);
        n = ROUND_UP(n, per);
    }
    *offset = sector * SECTOR;
    *bytes = MIN(n, l->sectors - sector) * SECTOR;
}

/* The disk never fails; what stands in for a stock client's retry may */
static bool coroutine_fn again(Life *l, int ret, const char *what)
{
    if (ret >= 0) {
        return false;
    }
    if (l->subject->retries) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SCALE_MS);
        return true;
    }
    if (l->device[JOURNAL]->failed) {
        l->refused++;
        return false;
    }
    if (l->wrong++ < MAX_NOTES) {
        note("a guest's %s failed: %s", what, strerror(-ret));
    }
    return false;
}

/* After the journal has failed nothing is acknowledged any more (J1) */
static bool journal_failed(Life *l)
{
    return l->device[JOURNAL]->failed > 0;
}

static void judge_answer(Life *l, bool failed, int ret, const char *what)
{
    if (failed && ret >= 0 && l->wrong++ < MAX_NOTES) {
        note("a %s is acknowledged after the journal has failed", what);
    }
}

static void coroutine_fn co_write(Life *l)
{
    int64_t offset, bytes;
    Change *c = change_new(l, true);
    bool failed = journal_failed(l);
    g_autofree uint8_t *buf = NULL;
    int ret;

    random_range(l, &offset, &bytes);
    buf = g_malloc(bytes);
    stamp_fill(buf, offset / SECTOR, bytes / SECTOR, c->id);
    change_range(l, c, offset / SECTOR, (offset + bytes) / SECTOR);
    do {
        ret = blk_co_pwrite(l->blk, offset, bytes, buf, 0);
    } while (again(l, ret, "write"));
    judge_answer(l, failed, ret, "write");
    c->end = ret >= 0 ? tick(l) : CHANGE_UNDER_WAY;
}

static void coroutine_fn co_zero(Life *l)
{
    int64_t offset, bytes;
    Change *c = change_new(l, false);
    BdrvRequestFlags flags = rng_chance(&l->rng, 60) ? BDRV_REQ_MAY_UNMAP : 0;
    int ret;

    random_range(l, &offset, &bytes);
    change_range(l, c, offset / SECTOR, (offset + bytes) / SECTOR);
    do {
        ret = blk_co_pwrite_zeroes(l->blk, offset, bytes, flags);
    } while (again(l, ret, "write of zeroes"));
    c->end = ret >= 0 ? tick(l) : CHANGE_UNDER_WAY;
}

/* Whether a discard touches a granule that it does not cover is not said */
static void coroutine_fn co_discard(Life *l)
{
    const unsigned per = GRANULE / SECTOR;
    int64_t offset, bytes;
    uint64_t first, end, head, tail;
    Change *c = change_new(l, false), *maybe = change_new(l, false);
    int ret;

    random_range(l, &offset, &bytes);
    first = offset / SECTOR;
    end = (offset + bytes) / SECTOR;
    head = MIN(ROUND_UP(first, per), end);
    tail = MAX(ROUND_DOWN(end, per), head);
    change_range(l, maybe, first, head);
    change_range(l, c, head, tail);
    change_range(l, maybe, tail, end);
    do {
        ret = blk_co_pdiscard(l->blk, offset, bytes, 0);
    } while (again(l, ret, "discard"));
    c->end = ret >= 0 ? tick(l) : CHANGE_UNDER_WAY;
}

static void coroutine_fn co_flush(Life *l)
{
    Flush f = { .begin = tick(l) };
    bool failed = journal_failed(l);
    int ret;

    do {
        ret = blk_co_flush(l->blk);
    } while (again(l, ret, "flush"));
    judge_answer(l, failed, ret, "flush");
    f.end = tick(l);
    if (ret >= 0) {
        g_array_append_val(l->flushes, f);
    }
}

static void judge_read(Life *l, const uint8_t *buf, uint64_t sector,
                       uint64_t begin, uint64_t now)
{
    const GPtrArray *history = l->history[sector];
    uint64_t id = stamp_read(buf, sector);

    l->reads++;
    if (history_allows(history, id, begin, now) || l->wrong++ >= MAX_NOTES ||
        l->subject->retries) {
        return;
    }
    note("a read at %" PRIu64 " shows 0x%" PRIx64 " in sector %" PRIu64 ":",
         begin, id, sector);
    for (guint i = 0; i < history->len; i++) {
        Change *c = g_ptr_array_index(history, i);

        note("  0x%" PRIx64 " from %" PRIu64 " to %" PRIu64, c->id, c->begin,
             c->end);
    }
}

static void coroutine_fn co_read(Life *l)
{
    int64_t offset, bytes;
    uint64_t begin = tick(l);
    g_autofree uint8_t *buf = NULL;
    int ret;

    random_range(l, &offset, &bytes);
    buf = g_malloc(bytes);
    do {
        ret = blk_co_pread(l->blk, offset, bytes, buf, 0);
    } while (again(l, ret, "read"));
    for (int64_t at = 0; ret >= 0 && at < bytes; at += SECTOR) {
        judge_read(l, buf + at, (offset + at) / SECTOR, begin, tick(l));
    }
}

/* At the next of the store's requests, or much later */
static void plan_fault(Life *l)
{
    static const unsigned far[] = { 3, 12, 50 };
    DeviceFault fault = rng_below(&l->rng, FAULT_CRASH + 1);
    unsigned ms = rng_chance(&l->rng, 60) ? 0 :
                  rng_below(&l->rng, MAX_OUTAGE_MS);

    bool on_read = rng_chance(&l->rng, 40);
    unsigned in = on_read ? 1 : 1 + rng_below(&l->rng,
                                              far[rng_below(&l->rng, 3)]);

    if (!l->device[STORE]->fault_in || l->device[STORE]->fault_on_read) {
        device_plan_fault(l->device[STORE], fault, in, ms, on_read);
    }
}

static void coroutine_fn co_request(Life *l)
{
    unsigned dice = rng_below(&l->rng, 100);

    l->requests++;
    l->full += l->subject->full && l->subject->full(l->blk);
    if (rng_chance(&l->rng, l->fault_percent)) {
        plan_fault(l);
    }
    if (dice < l->flush_percent) {
        co_flush(l);
        return;
    }
    if (rng_chance(&l->rng, l->read_percent)) {
        co_read(l);
        return;
    }
    dice = rng_below(&l->rng, 100);
    if (dice < 10) {
        co_zero(l);
    } else if (dice < 20 && l->subject->discards && !l->no_discards) {
        co_discard(l);
    } else {
        co_write(l);
    }
}

static void coroutine_fn worker_entry(void *opaque)
{
    Life *l = opaque;

    while (l->to_start > 0) {
        l->to_start--;
        co_request(l);
    }
    l->running--;
    aio_wait_kick();
}

void life_requests(Life *l)
{
    l->to_start = 1 + rng_below(&l->rng, 2 * l->phase_requests);
    l->running = MAX(1 + rng_below(&l->rng, l->max_workers), l->min_workers);
    for (unsigned i = l->running; i > 0; i--) {
        aio_co_schedule(qemu_get_aio_context(),
                        qemu_coroutine_create(worker_entry, l));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, l->running > 0);
}

/* The disk as a whole */

bool life_open(Life *l)
{
    const char *const names[] = { "journal", "copy", "store" };

    Error *err = NULL;

    l->blk = l->subject->open(names, l->size, &err);
    if (!l->blk) {
        l->wrong++;
        note("opened again, without a cut: %s", error_get_pretty(err));
        error_free(err);
        return false;
    }
    l->opened = l->opened ?: tick(l);
    blk_set_force_allow_inactivate(l->blk);
    if (l->batch_bytes) {
        l->subject->limit_batches(l->blk, l->batch_bytes, l->batch_records);
    }
    if (l->subject->durable_store) {
        /* From now on */
        wait_drained(l->subject, l->blk);
    }
    return true;
}

void life_flush(Life *l)
{
    Flush f = { .begin = tick(l) };
    int ret = blk_flush(l->blk);

    f.end = tick(l);
    if (ret >= 0) {
        g_array_append_val(l->flushes, f);
    }
}

void life_judge_store(Life *l, const char *when)
{
    uint64_t now = tick(l);

    for (uint64_t s = 0; s < l->sectors; s++) {
        uint64_t id = stamp_read(l->device[STORE]->data + s * SECTOR, s);

        if (!history_allows(l->history[s], id, now, now)) {
            l->wrong++;
            note("%s: sector %" PRIu64 " of the store holds 0x%" PRIx64, when,
                 s, id);
            return;
        }
    }
}

/* As for a migration: it is refused, or the store has all (J12) */
static void inactivate(Life *l)
{
    BlockDriverState *bs = blk_bs(l->blk);
    Error *err = NULL;
    int ret;

    bdrv_drain_all_begin();
    ret = bdrv_inactivate(bs, NULL);
    bdrv_drain_all_end();
    if (ret < 0) {
        return;
    }
    l->inactive++;
    life_judge_store(l, "while the node is inactive");
    if (bdrv_activate(bs, &err) < 0) {
        l->wrong++;
        note("active again: %s", error_get_pretty(err));
        error_free(err);
    } else if (l->subject->durable_store) {
        wait_drained(l->subject, l->blk);
    }
}

static bool label_written_since(const Life *l, uint64_t begin)
{
    for (guint i = l->log->events->len; i > 0; i--) {
        LogEvent *e = &g_array_index(l->log->events, LogEvent, i - 1);

        if (e->end < begin) {
            break;
        }
        if (e->device == STORE && e->request == DEVICE_WRITE &&
            e->offset >= l->size && e->begin > begin) {
            return true;
        }
    }
    return false;
}

/* A close that writes the label says the truth (J8) */
void life_end(Life *l)
{
    uint64_t begin = tick(l);

    blk_unref(l->blk);
    l->blk = NULL;
    if (l->subject->label_closed && label_written_since(l, begin) &&
        l->subject->label_closed(l->device[STORE]->data, l->size)) {
        life_judge_store(l, "closed, the label says that it has all");
    }
}

static void one_phase(Life *l)
{
    life_requests(l);
    if (rng_chance(&l->rng, 30)) {
        pause_ms(rng_below(&l->rng, 5));
    }
    if (rng_chance(&l->rng, 15)) {
        /* All is shipped; what is not flushed is when the driver thinks so */
        life_flush(l);
        if (!wait_drained(l->subject, l->blk)) {
            l->wrong++;
            note("what was flushed is not on the store after a minute");
        }
        if (l->subject->drained && rng_chance(&l->rng, 50)) {
            inactivate(l);
        }
    } else if (l->subject->drained && rng_chance(&l->rng, 10)) {
        inactivate(l);          /* with a lag, mostly */
    }
    if (rng_chance(&l->rng, 20)) {
        life_end(l);
        life_open(l);
    }
}

/* Making it all */

static void choose_kind(Life *l, bool faults)
{
    static const unsigned flushes[] = { 0, 2, 15, 15, 40 };

    l->phases = 1 + rng_below(&l->rng, 5);
    l->phase_requests = 10 + rng_below(&l->rng, 40);
    l->max_workers = 1 + rng_below(&l->rng, 8);
    l->flush_percent = flushes[rng_below(&l->rng, ARRAY_SIZE(flushes))];
    l->read_percent = rng_chance(&l->rng, 30) ? 50 : 15;
    l->fault_percent = faults && rng_chance(&l->rng, 75) ?
                       2 + rng_below(&l->rng, 10) : 0;
    l->max_bytes = rng_chance(&l->rng, 30) ? MAX_SIZE : 128 * 1024;
    if (rng_chance(&l->rng, 25)) {
        /* It writes more than a slow store can take */
        l->slow = true;
        l->max_workers = 12;
        l->flush_percent = rng_below(&l->rng, 5);
        l->max_bytes = MAX_SIZE;
    }
    if (l->subject->limit_batches && rng_chance(&l->rng, 50)) {
        /* What gathers is divided all the time, also at the end of the ring */
        l->batch_bytes = SECTOR << rng_below(&l->rng, 10);
        l->batch_records = 1 + rng_below(&l->rng, 8);
        l->max_workers = MAX(l->max_workers, 12);
    }
}

static void make_devices(Life *l)
{
    static const char *const names[] = { "journal", "copy", "store" };

    l->log = log_new();
    for (int i = 0; i < DEVICES; i++) {
        l->device[i] = device_new(names[i], l->start->device[i],
                                  l->start->length[i], rng_next(&l->rng));
        device_start_log(l->device[i], l->log, i);
        l->device[i]->max_yields = l->slow && i == STORE ? 200 :
                                   2 + rng_below(&l->rng, 12);
    }
}

static void make_history(Life *l)
{
    l->changes = g_ptr_array_new_with_free_func(g_free);
    l->flushes = g_array_new(false, false, sizeof(Flush));
    l->history = g_new(GPtrArray *, l->sectors);
    for (uint64_t s = 0; s < l->sectors; s++) {
        Change *c = g_new0(Change, 1);

        c->id = l->start->content[s];
        l->history[s] = g_ptr_array_new();
        g_ptr_array_add(l->history[s], c);
    }
}

Life *life_new(const Subject *subject, Start *start, uint64_t seed, bool faults)
{
    Life *l = g_new0(Life, 1);

    l->rng.state = seed;
    l->subject = subject;
    l->start = start;
    l->size = start->size;
    l->sectors = l->size / SECTOR;
    l->first_id = start->next_id;
    choose_kind(l, faults);
    make_devices(l);
    make_history(l);
    return l;
}

Life *life_record(const Subject *subject, Start *start, uint64_t seed,
                  bool faults)
{
    Life *l = life_new(subject, start, seed, faults);

    life_open(l);
    for (unsigned i = 0; i < l->phases && l->blk; i++) {
        one_phase(l);
    }
    life_end(l);
    device_repair(l->device[STORE]);
    return l;
}

void life_free(Life *l)
{
    for (uint64_t s = 0; s < l->sectors; s++) {
        g_free(g_ptr_array_index(l->history[s], 0));
        g_ptr_array_free(l->history[s], true);
    }
    for (int i = 0; i < DEVICES; i++) {
        device_free(l->device[i]);
    }
    log_free(l->log);
    g_ptr_array_free(l->changes, true);
    g_array_free(l->flushes, true);
    g_free(l->history);
    g_free(l);
}

/* The store has a version; the desktop has never run */
Start *start_new(const Subject *subject, Rng *rng)
{
    Start *s = g_new0(Start, 1);
    uint64_t sectors = (MIN_SIZE + rng_below(rng, MAX_SIZE - MIN_SIZE)) /
                       SECTOR;

    if (rng_chance(rng, 40)) {
        sectors = ROUND_UP(sectors, GRANULE / SECTOR);
    }
    s->size = sectors * SECTOR;
    s->next_id = 1;
    s->content = g_new(uint64_t, sectors);
    subject->make(s, rng);
    for (uint64_t n = 0; n < sectors; n++) {
        s->content[n] = rng_chance(rng, 90) ? STAMP_BASE : STAMP_ZERO;
        stamp_fill(s->device[STORE] + n * SECTOR, n, 1, s->content[n]);
    }
    return s;
}

void start_free(Start *s)
{
    for (int i = 0; i < DEVICES; i++) {
        device_free_data(s->device[i], s->length[i]);
    }
    g_free(s->content);
    g_free(s);
}
