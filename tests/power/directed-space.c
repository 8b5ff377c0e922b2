/*
 * Power-cut test: a ring that is full, and what is read of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "block/pvs/private.h"
#include "directed.h"

#define PART            (32 * 1024)
/* Of a condition that has to come true soon */
#define WAIT_SECONDS    12

/* Waiting */

typedef bool Condition(Row *r);

static bool wait_for(Row *r, Condition *condition, const char *what)
{
    int64_t end = g_get_monotonic_time() + WAIT_SECONDS * G_USEC_PER_SEC;

    while (!condition(r)) {
        if (g_get_monotonic_time() >= end) {
            row_wrong(r, "not after %d seconds: %s", WAIT_SECONDS, what);
            return false;
        }
        pause_ms(1);
    }
    return true;
}

static bool is_full(Row *r)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(r->l->blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    return p->journal.space_waiters > 0;
}

static bool is_empty(Row *r)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(r->l->blk));
    QEMU_LOCK_GUARD(&p->waits.lock);
    return QSIMPLEQ_EMPTY(&p->journal.epochs);
}

static bool is_drained(Row *r)
{
    return subject_private.drained(r->l->blk);
}

/* A guest's request, or several one after the other, in the background */

typedef struct Task {
    BlockBackend *blk;
    bool reads;
    int64_t offset, bytes;      /* PART at once at most, at the same place */
    uint8_t buf[PART];
    int ret;
    bool done;
} Task;

/* One of each kind; a row begins when those of the last one have ended */
static Task writer, reader;

static void coroutine_fn task_entry(void *opaque)
{
    Task *t = opaque;

    while (t->bytes > 0 && t->ret >= 0) {
        int64_t n = MIN(t->bytes, PART);

        t->ret = t->reads ? blk_co_pread(t->blk, t->offset, n, t->buf, 0)
                          : blk_co_pwrite(t->blk, t->offset, n, t->buf, 0);
        t->bytes -= n;
    }
    t->done = true;
    aio_wait_kick();
}

static void task_begin(Task *t, Row *r, int64_t offset, int64_t bytes,
                       uint8_t content)
{
    *t = (Task) {
        .blk = r->l->blk, .reads = t == &reader, .offset = offset,
        .bytes = bytes,
    };
    memset(t->buf, content, sizeof(t->buf));
    aio_co_schedule(qemu_get_aio_context(),
                    qemu_coroutine_create(task_entry, t));
}

static bool writer_done(Row *r)
{
    return writer.done;
}

static bool reader_done(Row *r)
{
    return reader.done;
}

static bool full_or_done(Row *r)
{
    return writer.done || is_full(r);
}

/* All is shipped that can be, and still there is no room; or there was */
static bool blocked_or_done(Row *r)
{
    return writer.done || (is_full(r) && is_empty(r));
}

/* Opened, and the store hears of nothing from now on: device_repair() */
static bool open_and_cut(Row *r, int64_t size)
{
    row_begin(r, size);
    if (!life_open(r->l) || !wait_drained(&subject_private, r->l->blk)) {
        return false;
    }
    device_plan_fault(r->l->device[STORE], FAULT_LINK, 1, 60000, false);
    return true;
}

/* More than there is room for */
static bool fill_ring(Row *r)
{
    task_begin(&writer, r, 0, 2 * JOURNAL_RING_MIN, 1);
    if (!wait_for(r, full_or_done, "the ring is full")) {
        return false;
    }
    if (writer.done) {
        row_wrong(r, "twice of what the ring has fits into it: %d",
                  writer.ret);
    }
    return !writer.done;
}

/* Tasks end with the disk at the latest. The life has no history of them. */
static void close_row(Row *r)
{
    if (r->l->blk) {
        device_repair(r->l->device[STORE]);
        r->l->device[JOURNAL]->held = false;
        blk_unref(r->l->blk);
    }
    row_end(r);
}

/* The rows */

/* Who waits for space goes on when an epoch has left (J7) */
void one_of_full(Row *r)
{
    if (open_and_cut(r, PART) && fill_ring(r)) {
        device_repair(r->l->device[STORE]);
        if (wait_for(r, writer_done, "writes go on once there is room") &&
            writer.ret < 0) {
            row_wrong(r, "a write fails: %s", strerror(-writer.ret));
        }
    }
    close_row(r);
}

/* Or fails when the journal has (J1) */
void one_of_broken(Row *r)
{
    if (open_and_cut(r, PART) && fill_ring(r)) {
        r->l->device[JOURNAL]->spares_reads = true;
        device_plan_fault(r->l->device[JOURNAL], FAULT_ERROR, 1, 0, false);
        if (blk_flush(r->l->blk) >= 0) {
            row_wrong(r, "a flush succeeds although the journal has failed");
        }
        if (wait_for(r, writer_done, "a write that waits hears of it") &&
            writer.ret >= 0) {
            row_wrong(r, "a write succeeds after the journal has failed");
        }
    }
    close_row(r);
}

/*
 * A read of the ring takes longer than all of the ring is written and shipped:
 * nothing goes over what it reads, and writes go on when it has ended (J7)
 */
void one_of_read(Row *r)
{
    Device *journal;
    uint8_t old[PART];

    memset(old, 2, sizeof(old));
    if (open_and_cut(r, PART) &&
        blk_pwrite(r->l->blk, 0, PART, old, 0) >= 0) {
        journal = r->l->device[JOURNAL];
        journal->holds_read = true;
        task_begin(&reader, r, 0, PART, 0);
        while (!journal->held) {
            pause_ms(1);
        }
        device_repair(r->l->device[STORE]);
        task_begin(&writer, r, 0, 3 * JOURNAL_RING_MIN, 1);
        wait_for(r, blocked_or_done, "the ring is full");
        if (writer.done) {
            row_wrong(r, "what is being read is written over");
        }
        journal->held = false;
        if (wait_for(r, reader_done, "the read ends") &&
            (reader.ret < 0 || memcmp(reader.buf, old, PART))) {
            row_wrong(r, "the read shows 0x%x: %d", reader.buf[0], reader.ret);
        }
        wait_for(r, writer_done, "writes go on once it was read");
    }
    close_row(r);
}

/* Epochs of a guest that never flushes are of a bounded size and age (J2) */
void one_of_unflushed(Row *r)
{
    Tail t;

    if (open_and_cut(r, PART)) {
        /* The last one is not full */
        task_begin(&writer, r, 0, JOURNAL_RING_MIN / 2 + 2 * PART, 1);
        if (wait_for(r, writer_done, "half of the ring is written")) {
            read_tail(&t, r->l->device[JOURNAL]);
            if (t.epoch_space > JOURNAL_RING_MIN / 8 + 2 * PART) {
                row_wrong(r, "an epoch has %" PRIu64 " bytes of a ring of %d",
                          t.epoch_space, (int)JOURNAL_RING_MIN);
            }
            device_repair(r->l->device[STORE]);
            wait_for(r, is_drained, "what was not flushed is shipped");
            /* A new connection ends an epoch; this one comes during one */
            task_begin(&writer, r, 0, PART, 2);
            wait_for(r, writer_done, "a write ends");
            wait_for(r, is_drained, "it is shipped by itself");
        }
    }
    close_row(r);
}

/*
 * An epoch is closed, and its last record still on its way into the journal,
 * while the one before is sent: it is not read before it is there (J4)
 */
void one_of_ahead(Row *r)
{
    const int64_t at = JOURNAL_RING_MIN / 8;    /* an epoch's worth */
    uint8_t buf[PART];
    Device *journal, *store;

    memset(buf, 3, sizeof(buf));
    if (open_and_cut(r, 2 * at)) {
        journal = r->l->device[JOURNAL];
        store = r->l->device[STORE];
        for (int64_t offset = 0; offset < 2 * at - PART; offset += PART) {
            blk_pwrite(r->l->blk, offset, PART, buf, 0);
        }
        journal->holds_write = true;
        task_begin(&writer, r, 2 * at - PART, PART, 3);
        while (!journal->held) {
            pause_ms(1);
        }
        device_repair(store);
        for (int i = 0; i < WAIT_SECONDS * 100 && store->data[at - 1] != 3;
             i++) {
            pause_ms(10);
        }
        pause_ms(200);          /* time to read ahead */
        journal->held = false;
        if (wait_for(r, writer_done, "the write ends") &&
            wait_for(r, is_drained, "it is shipped") &&
            store->data[2 * at - PART] != 3) {
            row_wrong(r, "the store has 0x%x of it",
                      store->data[2 * at - PART]);
        }
    }
    close_row(r);
}

/*
 * The later of two records in flight is in the index when the other one gets
 * there: what is read is what the store will have (J2)
 */
void one_of_overtaken(Row *r)
{
    Device *journal;
    uint8_t later[PART], buf[PART];

    memset(later, 5, sizeof(later));
    if (open_and_cut(r, PART)) {
        journal = r->l->device[JOURNAL];
        journal->holds_write = true;
        task_begin(&writer, r, 0, PART, 4);
        while (!journal->held) {
            pause_ms(1);
        }
        blk_pwrite(r->l->blk, 0, PART, later, 0);
        journal->held = false;
        if (wait_for(r, writer_done, "the write ends") &&
            (blk_pread(r->l->blk, 0, PART, buf, 0) < 0 ||
             memcmp(buf, later, PART))) {
            row_wrong(r, "0x%x is read of it", buf[0]);
        }
        device_repair(r->l->device[STORE]);
        if (wait_for(r, is_drained, "both are shipped") &&
            memcmp(r->l->device[STORE]->data, later, PART)) {
            row_wrong(r, "the store has 0x%x of it",
                      r->l->device[STORE]->data[0]);
        }
    }
    close_row(r);
}

/* The process died: what is read of the second part? */
static void judge_second(Row *r, const uint8_t *wanted)
{
    uint8_t buf[PART] = {};
    BlockBackend *blk = open_copy(r);

    if (!blk) {
        return;
    }
    if (blk_pread(blk, PART, PART, buf, 0) < 0 || memcmp(buf, wanted, PART)) {
        row_wrong(r, "killed, and opened again: 0x%x is read", buf[0]);
    }
    blk_unref(blk);
}

/*
 * A guest may change its memory while it is written. Either is as good, but it
 * is a whole record, and what was flushed behind it is there (J1)
 */
void one_of_changed(Row *r)
{
    uint8_t later[PART];
    Device *journal;
    Copy copy;

    memset(later, 7, sizeof(later));
    if (open_and_cut(r, 2 * PART)) {
        journal = r->l->device[JOURNAL];
        journal->holds_write = true;
        task_begin(&writer, r, 0, PART, 6);
        while (!journal->held) {
            pause_ms(1);
        }
        memset(writer.buf + PART / 2, 5, PART / 2);
        journal->held = false;
        wait_for(r, writer_done, "the write ends");
        if (blk_pwrite(r->l->blk, PART, PART, later, 0) < 0 ||
            blk_flush(r->l->blk) < 0) {
            row_wrong(r, "the next one fails");
        }
        copy_begin(&copy, r->l);
        blk_unref(r->l->blk);
        r->l->blk = NULL;
        judge_second(r, later);
        copy_end(&copy);
    }
    close_row(r);
}

static bool store_held(Row *r)
{
    return r->l->device[STORE]->held;
}

static bool store_crashed(Row *r)
{
    return r->l->device[STORE]->faults[FAULT_CRASH];
}

/*
 * The store has what was sent, and its flush is still on its way when it
 * crashes and comes back. A read of the guest is all that hears of it: the
 * flush vouches for nothing that was sent before (J3)
 */
void one_of_heard(Row *r)
{
    uint8_t buf[PART];
    Device *store;

    memset(buf, 8, sizeof(buf));
    row_begin(r, 2 * PART);
    store = r->l->device[STORE];
    if (life_open(r->l) && wait_drained(&subject_private, r->l->blk)) {
        store->holds_flush = true;
        blk_pwrite(r->l->blk, 0, PART, buf, 0);
        blk_flush(r->l->blk);
        wait_for(r, store_held, "the store is flushed");
        device_plan_fault(store, FAULT_CRASH, 1, 0, true);
        task_begin(&reader, r, PART, PART, 0);
        wait_for(r, store_crashed, "the store crashes");
        pause_ms(20);           /* until the reader has heard of it */
        store->held = false;
        if (wait_for(r, reader_done, "the read ends") &&
            wait_for(r, is_drained, "it is shipped") &&
            memcmp(store->durable, buf, PART)) {
            row_wrong(r, "the store has 0x%x of it, durably",
                      store->durable[0]);
        }
    }
    close_row(r);
}

/* One sector is read each time the event loop goes round */
typedef struct Watch {
    BlockBackend *blk;
    int64_t offset;
    uint8_t wanted[SECTOR];
    uint64_t reads, wrong;
    bool stop, done;
} Watch;

static void coroutine_fn watch_entry(void *opaque)
{
    Watch *w = opaque;
    uint8_t buf[SECTOR];

    while (!w->stop) {
        int ret = blk_co_pread(w->blk, w->offset, SECTOR, buf, 0);

        w->reads++;
        w->wrong += ret < 0 || memcmp(buf, w->wanted, SECTOR);
        aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    w->done = true;
    aio_wait_kick();
}

/* So many that others get their turn twice before they are all retired */
#define ZEROS           130
#define SECTORS         60

/* An epoch of them: zeros, which take an entry only, and then what is read */
static void write_many(Row *r, const uint8_t *content)
{
    for (int i = 0; i < ZEROS; i++) {
        blk_pwrite_zeroes(r->l->blk, PART + i * SECTOR, SECTOR, 0);
    }
    for (int i = 0; i < SECTORS; i++) {
        blk_pwrite(r->l->blk, PART + (ZEROS + i) * SECTOR, SECTOR, content, 0);
    }
    blk_flush(r->l->blk);
}

/*
 * An epoch of many records is retired in steps, while somebody waits for its
 * space and somebody reads: nothing goes over it before the index lets go (J4)
 */
void one_of_retired(Row *r)
{
    Watch w = { .offset = PART + (ZEROS + 5) * SECTOR };
    Tail t;

    memset(w.wanted, 7, SECTOR);
    if (!open_and_cut(r, 5 * PART)) {
        close_row(r);
        return;
    }
    read_tail(&t, r->l->device[JOURNAL]);
    r->l->device[JOURNAL]->max_yields = 0;
    if (t.h.unit == SECTOR) {   /* else an epoch has room for a few only */
        write_many(r, w.wanted);
        fill_ring(r);
        w.blk = r->l->blk;
        aio_co_schedule(qemu_get_aio_context(),
                        qemu_coroutine_create(watch_entry, &w));
        device_repair(r->l->device[STORE]);
        wait_for(r, writer_done, "writes go on");
        w.stop = true;
        AIO_WAIT_WHILE_UNLOCKED(NULL, !w.done);
        if (w.wrong) {
            row_wrong(r, "%" PRIu64 " of %" PRIu64 " reads show what was "
                      "written over it", w.wrong, w.reads);
        }
    }
    close_row(r);
}
