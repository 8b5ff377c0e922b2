/*
 * Power-cut test: a journal that fails, and what is there of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/pvs/private.h"
#include "directed.h"
#include "epochs.h"

/* Of two torn copies of the header none would be left (J11) */
static void judge_headers(Row *r)
{
    uint64_t written[JOURNAL_HEADER_COPIES] = {};

    for (guint i = 0; i < r->l->log->events->len; i++) {
        LogEvent *e = &g_array_index(r->l->log->events, LogEvent, i);
        bool header = e->request == DEVICE_WRITE &&
                      e->offset < JOURNAL_RING_OFFSET;

        for (int k = 0; k < JOURNAL_HEADER_COPIES; k++) {
            if (e->device != JOURNAL) {
                continue;
            }
            if (e->request == DEVICE_FLUSH && written[k] <= e->begin) {
                written[k] = 0;
            } else if (header && e->offset == k * JOURNAL_HEADER_BYTES) {
                written[k] = e->end;
            }
        }
        if (written[0] && written[1]) {
            row_wrong(r, "at %" PRIu64 " neither header is durable", e->end);
            return;
        }
    }
}

static void judge_refusal(Row *r)
{
    static const char *const names[] = { "journal", "copy", "store" };
    Error *err = NULL;
    BlockBackend *blk = subject_private.open(names, r->l->size, &err);

    if (blk) {
        row_wrong(r, "its journal has failed, and it is opened again");
        blk_unref(blk);
        return;
    }
    if (!strstr(error_get_pretty(err), "is broken")) {
        row_wrong(r, "its journal has failed: %s", error_get_pretty(err));
    }
    error_free(err);
}

/* The mark that it is broken never was. False if there is none. */
static bool take_back_mark(uint8_t *journal)
{
    g_autofree char *why = NULL;
    JournalHeader h;
    int copy = journal_header_choose(&h, journal, &why);

    if (copy < 0 || !h.broken) {
        return false;
    }
    memset(journal + copy * JOURNAL_HEADER_BYTES, 0, JOURNAL_HEADER_BYTES);
    return true;
}

/* The last flush that succeeded has it, or something newer is there */
static void judge_flushed(Row *r, const uint8_t *data, const char *what)
{
    uint64_t now = r->l->log->clock, settled = 0;

    for (guint i = 0; i < r->l->flushes->len; i++) {
        settled = MAX(settled,
                      g_array_index(r->l->flushes, Flush, i).begin);
    }
    for (uint64_t s = 0; s < r->l->sectors; s++) {
        uint64_t id = stamp_read(data + s * SECTOR, s);

        if (!history_allows(r->l->history[s], id, settled, now)) {
            row_wrong(r, "%s: sector %" PRIu64 " holds 0x%" PRIx64
                      "; flushed before %" PRIu64, what, s, id, settled);
            return;
        }
    }
}

/* Opened, read, shipped, and looked at on the store */
static void judge_left(Row *r, const Copy *c, const char *what)
{
    g_autofree uint8_t *buf = g_malloc0(r->l->size);
    BlockBackend *blk = open_copy(r);

    if (!blk) {
        return;
    }
    if (blk_pread(blk, 0, r->l->size, buf, 0) < 0) {
        row_wrong(r, "%s: it cannot be read", what);
    }
    judge_flushed(r, buf, what);
    if (!wait_drained(&subject_private, blk)) {
        row_wrong(r, "%s: it is not shipped", what);
    }
    judge_flushed(r, c->device[STORE]->data, what);
    blk_unref(blk);
}

/*
 * But for the mark that it is broken, all that was flushed is there: in
 * journal, copy and store as they are, and if what they did not have durably is
 * dropped, as a kernel may after an error (J1)
 */
static void judge_rest(Row *r, bool marked)
{
    static const char *const what[] = { "as it is", "what is durable" };
    Copy c;

    for (int i = 0; i < ARRAY_SIZE(what); i++) {
        copy_begin(&c, r->l);
        for (int k = JOURNAL; i && k <= COPY; k++) {
            memcpy(c.device[k]->data, r->l->device[k]->durable,
                   c.device[k]->length);
        }
        if (take_back_mark(c.device[JOURNAL]->data) != marked) {
            row_wrong(r, "%s: the header says %sthat it is broken", what[i],
                      marked ? "not " : "");
        }
        judge_left(r, &c, what[i]);
        copy_end(&c);
    }
}

/* Once it has failed it is evidence: the mark is all that is written (J11) */
static void judge_evidence(Row *r)
{
    const Device *d = r->l->device[JOURNAL];

    for (guint i = 0; i < r->l->log->events->len; i++) {
        LogEvent *e = &g_array_index(r->l->log->events, LogEvent, i);
        g_autofree char *why = NULL;
        JournalHeader h;

        if (e->device == JOURNAL && e->request == DEVICE_WRITE &&
            e->begin > d->failed_at &&
            (e->offset >= JOURNAL_RING_OFFSET ||
             !journal_header_decode(&h, e->data, &why) || !h.broken)) {
            row_wrong(r, "byte %" PRId64 " of the journal is written at %"
                      PRIu64 ", and it had failed at %" PRIu64, e->offset,
                      e->begin, d->failed_at);
            return;
        }
    }
}

/* A request to the journal fails, or all from it on, while the guest works */
static void fail_journal(Row *r, bool stays)
{
    Device *journal;

    row_begin(r, 0);
    journal = r->l->device[JOURNAL];
    journal->spares_reads = true;
    journal->fault_stays = stays;
    r->l->no_discards = true;
    r->l->flush_percent = 20;
    r->l->phase_requests = 60;
    if (life_open(r->l)) {
        device_plan_fault(journal, FAULT_ERROR, 1 + rng_below(&r->rng, 60), 0,
                          false);
        life_requests(r->l);
        life_requests(r->l);
        life_end(r->l);
        if (journal->failed) {
            judge_evidence(r);
        }
    }
}

/* An append, a flush or a header fails: nothing is acknowledged then (J1) */
void one_of_failures(Row *r)
{
    fail_journal(r, false);
    if (r->l->device[JOURNAL]->failed) {
        judge_refusal(r);
        judge_rest(r, true);
    }
    judge_headers(r);
    row_end(r);
}

/* Nor can it be marked: whoever opens it finds all that was flushed (J1) */
void one_of_silent(Row *r)
{
    fail_journal(r, true);
    if (r->l->device[JOURNAL]->failed) {
        judge_rest(r, false);
    }
    row_end(r);
}

static bool is_broken(Life *l)
{
    PvsPrivate *p;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    p = pvs_private_of(blk_bs(l->blk));
    return qatomic_read(&p->journal.broken);
}

/* What went to the store is a part of what the journal says (J2) */
static void judge_prefix(Row *r)
{
    g_autofree char *why = NULL;
    Epochs *e = epochs_new(r->l);

    if (!epochs_allow(e, r->l->device[STORE]->data, &why)) {
        row_wrong(r, "%s", why);
    }
    epochs_free(e);
}

/*
 * What was acknowledged cannot be read to be shipped: that is the end of the
 * journal, too, and the store has what it had, or a part of the epoch (J1, J2)
 */
void one_of_unreadable(Row *r)
{
    Life *l;

    row_begin(r, 0);
    l = r->l;
    l->read_percent = 0;
    l->phase_requests = 8;      /* they must not fill the journal */
    l->max_bytes = 32 * 1024;
    l->no_discards = true;
    l->device[JOURNAL]->spares_changes = true;
    if (life_open(l) && wait_drained(&subject_private, l->blk)) {
        device_plan_fault(l->device[STORE], FAULT_LINK, 1, 60000, false);
        life_requests(l);
        life_flush(l);
        device_plan_fault(l->device[JOURNAL], FAULT_ERROR,
                          1 + rng_below(&r->rng, 4), 0, false);
        device_repair(l->device[STORE]);
        while (!is_broken(l) && !subject_private.drained(l->blk)) {
            pause_ms(1);
        }
        if (is_broken(l)) {
            life_requests(l);
            judge_prefix(r);
        }
        life_end(l);
        if (l->device[JOURNAL]->failed) {
            judge_evidence(r);
            judge_refusal(r);
            judge_rest(r, true);
        }
    }
    row_end(r);
}
