/*
 * Power-cut test: what random lives come to too rarely
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "directed.h"
#include "states.h"

#define SECONDS_PER_LIFE    40

void row_begin(Row *r, int64_t size)
{
    for (;;) {
        r->start = start_new(&subject_private, &r->rng);
        if (r->start->size >= size) {
            break;
        }
        start_free(r->start);
    }
    r->l = life_new(&subject_private, r->start, rng_next(&r->rng), false);
    r->l->slow = false;
}

void row_end(Row *r)
{
    r->requests += r->l->requests;
    r->wrong += r->l->wrong;
    life_free(r->l);
    start_free(r->start);
}

void row_wrong(Row *r, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    note("%s", what);
    r->wrong++;
}

/* The process dies as things are: what would be found? */

void copy_begin(Copy *c, const Life *l)
{
    for (int i = 0; i < DEVICES; i++) {
        const Device *d = l->device[i];

        c->device[i] = device_new(state_names[i], d->data, d->length, 1);
    }
}

void copy_end(Copy *c)
{
    for (int i = 0; i < DEVICES; i++) {
        device_free(c->device[i]);
    }
}

/* The last flush is the last thing that happened */
static void judge_content(Row *r, const uint8_t *data, const char *what)
{
    uint64_t now = r->l->log->clock;

    for (uint64_t s = 0; s < r->l->sectors; s++) {
        uint64_t id = stamp_read(data + s * SECTOR, s);

        if (!history_allows(r->l->history[s], id, now, now)) {
            row_wrong(r, "%s: sector %" PRIu64 " holds 0x%" PRIx64, what, s,
                      id);
            return;
        }
    }
}

BlockBackend *open_copy(Row *r)
{
    Error *err = NULL;
    BlockBackend *blk = subject_private.open(state_names, r->l->size, &err);

    if (!blk) {
        row_wrong(r, "killed, and opened again: %s", error_get_pretty(err));
        error_free(err);
    }
    return blk;
}

static void judge_copy(Row *r)
{
    g_autofree uint8_t *buf = g_malloc0(r->l->size);
    BlockBackend *blk = open_copy(r);

    if (!blk) {
        return;
    }
    if (blk_pread(blk, 0, r->l->size, buf, 0) < 0) {
        row_wrong(r, "killed, and opened again: cannot be read");
    } else {
        judge_content(r, buf, "killed, and opened again");
    }
    blk_unref(blk);
}

/*
 * A deep queue of records of any length, and a journal so slow that they
 * gather: batches end everywhere, also just before the end of the ring (J5)
 */
static void one_of_rounds(Row *r)
{
    Copy copy;

    row_begin(r, 0);
    r->l->phase_requests = 400;
    r->l->max_workers = 16;
    r->l->min_workers = 16;
    r->l->flush_percent = 2;
    r->l->read_percent = 0;
    r->l->max_bytes = 64 * 1024;
    r->l->batch_bytes = SECTOR << (4 + rng_below(&r->rng, 6));
    r->l->batch_records = 1 + rng_below(&r->rng, 8);
    r->l->device[JOURNAL]->max_yields = 40;
    r->l->device[COPY]->max_yields = r->l->device[STORE]->max_yields = 0;
    if (life_open(r->l)) {
        life_requests(r->l);
        life_flush(r->l);
        copy_begin(&copy, r->l);
        life_end(r->l);
        judge_copy(r);
        copy_end(&copy);
    }
    row_end(r);
}

typedef struct TailCo {
    Tail *t;
    uint64_t epoch, space;
} TailCo;

static void tail_record(void *opaque, const JournalRecord *r, uint64_t payload)
{
    TailCo *tc = opaque;
    Tail *t = tc->t;

    if (r->type == JOURNAL_START) {
        t->start_epoch = r->epoch;
        t->before_start = tc->epoch;
    } else if (r->type == JOURNAL_WRITE) {
        tc->space = (r->epoch == tc->epoch ? tc->space : 0) +
                    journal_record_space(r, t->h.unit);
        t->epoch_space = MAX(t->epoch_space, tc->space);
    }
    if (r->type != JOURNAL_PAD) {
        tc->epoch = r->epoch;
        t->last = *r;
    }
}

void read_tail(Tail *t, const Device *d)
{
    g_autofree char *why = NULL;
    TailCo tc = { .t = t };
    uint64_t at, from;
    bool more;

    *t = (Tail) {};
    assert(journal_header_choose(&t->h, d->data, &why) >= 0);
    journal_scan_init(&t->scan, &t->h);
    do {
        from = t->scan.next.pos;
        at = from % t->h.ring_size;
        more = journal_scan_records(&t->scan,
                                    d->data + JOURNAL_RING_OFFSET + at,
                                    MIN(t->h.ring_size - at,
                                        journal_scan_end(&t->scan) - from),
                                    tail_record, &tc);
    } while (more && t->scan.next.pos > from);
}

/* A flush appends a commit even if the driver has closed the epoch (J1) */
static void one_of_commits(Row *r)
{
    int64_t bytes = JOURNAL_RING_MIN / 8;
    g_autofree uint8_t *buf = g_malloc0(bytes);
    Tail t = {};

    row_begin(r, bytes);
    if (life_open(r->l)) {
        device_plan_fault(r->l->device[STORE], FAULT_LINK, 1, 60000, false);
        blk_pwrite(r->l->blk, 0, bytes, buf, 0);
        life_flush(r->l);
        read_tail(&t, r->l->device[JOURNAL]);
        if (t.last.type != JOURNAL_COMMIT) {
            row_wrong(r, "the last record after a flush is of type %d",
                      t.last.type);
        }
        life_end(r->l);
    }
    row_end(r);
}

/* Openings alone do not fill the ring, and are never taken for damage (J5) */
static void one_of_openings(Row *r)
{
    uint8_t nonce[JOURNAL_NONCE_BYTES] = {};
    Life *l;
    Copy copy;
    Tail t = {};
    uint64_t used = 0;

    row_begin(r, 0);
    l = r->l;
    if (life_open(l) && wait_drained(&subject_private, l->blk)) {
        life_requests(l);
        life_flush(l);
    }
    for (int i = 0; i < 3; i++) {
        life_end(l);
        /* The label is made ours: the header is written */
        if (!life_open(l) || !wait_drained(&subject_private, l->blk)) {
            break;
        }
        read_tail(&t, l->device[JOURNAL]);
        if (i && t.scan.next.pos != used) {
            row_wrong(r, "an opening takes the ring from %" PRIu64 " to %"
                      PRIu64, used, t.scan.next.pos);
        }
        used = t.scan.next.pos;
        if (!t.scan.ends_with_start) {
            row_wrong(r, "the last record is no start");
        }
        if (memcmp(t.h.newest, t.scan.next.nonce, sizeof(nonce))) {
            row_wrong(r, "the header does not know the nonce");
        }
        if (!memcmp(t.h.newest, nonce, sizeof(nonce))) {
            row_wrong(r, "a generation has the nonce of the one before");
        }
        memcpy(nonce, t.h.newest, sizeof(nonce));
    }
    /* The next one writes over the start, and it is torn */
    copy_begin(&copy, l);
    copy.device[JOURNAL]->data[JOURNAL_RING_OFFSET + 64 +
                               t.scan.before_start.pos % t.h.ring_size] ^= 1;
    life_end(l);
    judge_copy(r);
    copy_end(&copy);
    row_end(r);
}

/*
 * Opened twice with something to ship, and the second start goes over the
 * first: what follows it is in an epoch behind, or the tail would pass it with
 * the one before (J4)
 */
static void one_of_lags(Row *r)
{
    Tail t = {};

    row_begin(r, 0);
    r->l->flush_percent = r->l->read_percent = 0;
    r->l->phase_requests = 5;
    r->l->max_bytes = 32 * 1024;
    r->l->no_discards = true;
    if (life_open(r->l) && wait_drained(&subject_private, r->l->blk)) {
        device_plan_fault(r->l->device[STORE], FAULT_LINK, 1, 60000, false);
        life_requests(r->l);
        life_flush(r->l);
        for (int i = 0; i < 2; i++) {
            life_end(r->l);
            if (!life_open(r->l)) {
                row_end(r);
                return;
            }
            read_tail(&t, r->l->device[JOURNAL]);
            if (t.start_epoch <= t.before_start) {
                row_wrong(r, "a start is in epoch %" PRIu64 ", and what was "
                          "written before it in %" PRIu64, t.start_epoch,
                          t.before_start);
            }
        }
        device_repair(r->l->device[STORE]);
        life_end(r->l);
    }
    row_end(r);
}

/* The start and its pad are one write: only the pad of it gets there */
static void tear_start(Row *r, Copy *copy, int64_t pos)
{
    uint8_t *ring = copy->device[JOURNAL]->data + JOURNAL_RING_OFFSET;
    uint8_t old[SECTOR];
    BlockBackend *blk;

    memcpy(old, ring + pos, sizeof(old));
    device_plan_fault(copy->device[STORE], FAULT_LINK, 1, 60000, false);
    blk = open_copy(r);
    if (!blk) {
        return;
    }
    if (!memcmp(old, ring + pos, sizeof(old))) {
        row_wrong(r, "the start was not written over");
    }
    ring = device_dup(copy->device[JOURNAL]->data,
                      copy->device[JOURNAL]->length);
    blk_unref(blk);
    memcpy(copy->device[JOURNAL]->data, ring, copy->device[JOURNAL]->length);
    memcpy(copy->device[JOURNAL]->data + JOURNAL_RING_OFFSET + pos, old,
           sizeof(old));
    device_free_data(ring, copy->device[JOURNAL]->length);
}

/*
 * Two cuts in a row. Of two writes behind a start the first is lost in the one,
 * so the next opening writes over the start; of that, in the other, comes only
 * the pad to the disk. What the second write says is durable was before the
 * start, or else the pad would be missed (J5).
 */
static void one_of_starts(Row *r)
{
    uint8_t buf[SECTOR] = {};
    BlockBackend *blk;
    Copy copy;
    Tail t = {};
    int64_t at = 0;

    do {
        if (at++) {
            row_end(r);
        }
        row_begin(r, 0);
        read_tail(&t, r->l->device[JOURNAL]);
    } while (t.h.unit != SECTOR);
    if (!life_open(r->l) || !wait_drained(&subject_private, r->l->blk)) {
        row_end(r);
        return;
    }
    read_tail(&t, r->l->device[JOURNAL]);
    if (!t.scan.ends_with_start) {
        row_wrong(r, "the last record is no start");
    }
    at = t.scan.before_start.pos % t.h.ring_size;
    device_plan_fault(r->l->device[STORE], FAULT_LINK, 1, 60000, false);
    blk_pwrite(r->l->blk, 0, SECTOR, buf, 0);
    blk_pwrite(r->l->blk, SECTOR, SECTOR, buf, 0);
    copy_begin(&copy, r->l);
    life_end(r->l);
    copy.device[JOURNAL]->data[JOURNAL_RING_OFFSET + 64 +
                               t.scan.next.pos % t.h.ring_size] ^= 1;
    tear_start(r, &copy, at);
    device_repair(copy.device[STORE]);
    blk = open_copy(r);
    if (blk) {
        blk_unref(blk);
    }
    copy_end(&copy);
    row_end(r);
}

/* A request of the local copy fails now and then: it is made up for (J6) */
static void one_of_copies(Row *r)
{
    g_autofree uint8_t *buf = NULL;
    Life *l;
    Copy copy;

    row_begin(r, 0);
    l = r->l;
    l->device[COPY]->spares_reads = true;
    buf = g_malloc0(l->size);
    if (!life_open(l)) {
        row_end(r);
        return;
    }
    for (int i = 0; i < 4; i++) {
        device_plan_fault(l->device[COPY], FAULT_ERROR,
                          1 + rng_below(&r->rng, 20), 0, false);
        life_requests(l);
    }
    life_flush(l);
    if (!wait_drained(&subject_private, l->blk)) {
        row_wrong(r, "the journal is not empty after a minute");
    }
    life_judge_store(l, "drained");
    if (blk_pread(l->blk, 0, l->size, buf, 0) < 0) {
        row_wrong(r, "it cannot be read");
    }
    judge_content(r, buf, "drained");
    copy_begin(&copy, l);
    life_end(l);
    judge_copy(r);
    copy_end(&copy);
    row_end(r);
}

/* What is written now is not sent: it would be, again and again (J4) */
static void judge_stuck_store(Row *r)
{
    uint64_t before;

    life_requests(r->l);
    life_flush(r->l);
    pause_ms(500);
    before = r->l->device[STORE]->requests;
    pause_ms(1000);
    if (r->l->device[STORE]->requests != before) {
        row_wrong(r, "the store is sent more although nothing is settled");
    }
}

/*
 * The copy fails for good, so nothing goes on: what is durable is told all the
 * same, or rot in it would be taken for a torn tail (J5)
 */
static void one_of_stuck(Row *r)
{
    const uint64_t *faults;
    Tail t = {};

    row_begin(r, 0);
    faults = r->l->device[COPY]->faults;
    r->l->flush_percent = r->l->read_percent = 0;
    r->l->phase_requests = 5;   /* they must not fill the journal */
    r->l->max_bytes = 32 * 1024;
    r->l->device[COPY]->spares_reads = true;
    if (life_open(r->l) && wait_drained(&subject_private, r->l->blk)) {
        r->l->device[COPY]->fault_stays = true;
        device_plan_fault(r->l->device[COPY], FAULT_ERROR, 1, 0, false);
        /* The copy needs nothing of requests that cover no granule of it */
        for (int i = 0; i < 5 && !faults[FAULT_ERROR]; i++) {
            life_requests(r->l);
            life_flush(r->l);
            pause_ms(1800);
        }
        read_tail(&t, r->l->device[JOURNAL]);
        if (subject_private.drained(r->l->blk)) {
            row_wrong(r, "it is shipped although the copy fails");
        }
        if (faults[FAULT_ERROR]) {
            judge_stuck_store(r);
        }
        if (t.h.durable < t.last.seq) {
            row_wrong(r, "the header says that %" PRIu64 " are durable; the "
                      "last commit is %" PRIu64, t.h.durable, t.last.seq);
        }
        life_end(r->l);
    }
    row_end(r);
}

static bool run_row(const char *what, void (*one)(Row *r), uint64_t lives,
                    uint64_t seed)
{
    Row r = { .rng.state = seed };

    for (uint64_t i = 0; i < lives && !r.wrong; i++) {
        alarm(SECONDS_PER_LIFE);
        one(&r);
    }
    return report(!r.wrong, "%s: %" PRIu64 " lives, %" PRIu64 " requests, %"
                  PRIu64 " wrong, --seed %" PRIu64, what, lives, r.requests,
                  r.wrong, seed);
}

bool run_directed(uint64_t lives, uint64_t seed, uint64_t row)
{
    static const struct {
        const char *what;
        void (*one)(Row *r);
        uint64_t most;          /* lives: of some one is like the other */
    } rows[] = {
        { "the end of the ring", one_of_rounds, UINT64_MAX },
        { "a flush behind a full epoch", one_of_commits, UINT64_MAX },
        { "openings", one_of_openings, UINT64_MAX },
        { "openings with something to ship", one_of_lags, UINT64_MAX },
        { "two cuts around a start", one_of_starts, UINT64_MAX },
        { "the journal fails", one_of_failures, UINT64_MAX },
        { "the local copy fails", one_of_copies, UINT64_MAX },
        { "a full ring", one_of_full, 4 },
        { "a full ring, and the journal fails", one_of_broken, 4 },
        { "a full ring, and it is being read", one_of_read, 4 },
        { "an epoch is read ahead while it is written", one_of_ahead, 4 },
        /* Each takes seconds */
        { "a guest that does not flush", one_of_unflushed, 2 },
        { "the local copy fails for good", one_of_stuck, 2 },
        { "of two writes at once the later one is done first",
          one_of_overtaken, 2 },
        { "a cut after what the copy had was written again",
          one_of_rewrites, 2 },
        { "two cuts of openings", one_of_adoptions, 4 },
        { "the journal fails for good", one_of_silent, UINT64_MAX },
        { "the journal cannot be read to be shipped", one_of_unreadable,
          UINT64_MAX },
        { "a guest changes what it writes", one_of_changed, 4 },
        { "a read hears that the store was away before its flush",
          one_of_heard, 8 },
        { "an epoch is retired while it is read", one_of_retired, 4 },
    };
    bool ok = true;

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        if (row && row != i + 1) {
            continue;
        }
        ok = run_row(rows[i].what, rows[i].one, MIN(lives, rows[i].most),
                     seed) && ok;
    }
    return ok;
}
