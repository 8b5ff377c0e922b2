/*
 * Recovery of a reconnect buffer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/pvs/journal-scan.h"

void journal_scan_init(JournalScan *s, const JournalHeader *h)
{
    *s = (JournalScan) {
        .h = h,
        .next = h->tail,
        .durable = h->durable,
    };
}

uint64_t journal_scan_end(const JournalScan *s)
{
    return s->h->tail.pos + s->h->ring_size;
}

static bool range_fits(const JournalScan *s, const JournalRecord *r)
{
    uint64_t size = s->h->virtual_size;

    return r->length > 0 && r->length <= size &&
           r->offset <= size - r->length &&
           (r->offset | r->length) % 512 == 0;
}

static bool type_fits(const JournalScan *s, const JournalRecord *r)
{
    uint64_t rest = s->h->ring_size - s->next.pos % s->h->ring_size;

    switch (r->type) {
    case JOURNAL_WRITE:
        return range_fits(s, r) &&
               r->length <= journal_payload_max(s->h->ring_size) &&
               journal_record_space(r, s->h->unit) <= rest;
    case JOURNAL_ZERO:
        return range_fits(s, r);
    case JOURNAL_PAD:
        return r->length > 0 && r->length <= rest &&
               r->length % s->h->unit == 0;
    default:
        return true;
    }
}

/* All but the payload */
static bool is_next(const JournalScan *s, const JournalRecord *r)
{
    const JournalTail *n = &s->next;

    return !memcmp(r->nonce, n->nonce, sizeof(n->nonce)) &&
           r->seq == n->seq && r->link == n->link && r->durable < r->seq &&
           (r->epoch == n->epoch || r->epoch == n->epoch + 1) &&
           type_fits(s, r) &&
           journal_record_space(r, s->h->unit) <=
           journal_scan_end(s) - n->pos;
}

static void take(JournalScan *s, const JournalRecord *r)
{
    JournalTail *n = &s->next;

    if (r->type == JOURNAL_START) {
        s->ends_with_start = true;
        s->before_start = *n;
        memcpy(n->nonce, r->next_nonce, sizeof(n->nonce));
    } else if (r->type != JOURNAL_PAD) {
        s->ends_with_start = false;
    }
    n->pos += journal_record_space(r, s->h->unit);
    n->seq++;
    n->epoch = r->epoch;
    n->link = r->checksum;
    s->durable = MAX(s->durable, r->durable);
    s->records++;
}

bool journal_scan_records(JournalScan *s, const uint8_t *buf, size_t len,
                          JournalScanFunc *func, void *opaque)
{
    uint32_t unit = s->h->unit;
    uint64_t begin = s->next.pos;
    JournalRecord r;

    for (;;) {
        uint64_t at = s->next.pos - begin;

        if (s->next.pos + unit > journal_scan_end(s)) {
            return false;       /* the ring is full */
        }
        if (at + unit > len) {
            return true;
        }
        if (!journal_record_decode(&r, buf + at) || !is_next(s, &r)) {
            return false;
        }
        if (r.type == JOURNAL_WRITE) {
            if (at + unit + r.length > len) {
                return true;
            }
            if (journal_checksum(buf + at + unit, r.length) != r.payload) {
                return false;
            }
        }
        func(opaque, &r, s->next.pos + unit);
        take(s, &r);
    }
}

static void found(JournalScan *s, uint64_t pos, uint64_t durable)
{
    if (durable >= s->next.seq && !s->damaged) {
        s->damaged = true;
        s->proof_pos = pos;
        s->proof_durable = durable;
    }
}

bool journal_scan_knows(const JournalScan *s, const JournalRecord *r)
{
    return r->seq > s->next.seq &&
           (!memcmp(r->nonce, s->next.nonce, sizeof(r->nonce)) ||
            !memcmp(r->nonce, s->h->newest, sizeof(r->nonce)));
}

void journal_scan_proof(JournalScan *s, uint64_t pos, const uint8_t *buf,
                        size_t len)
{
    uint32_t unit = s->h->unit;
    JournalRecord r;

    found(s, UINT64_MAX, s->durable);
    for (size_t at = 0; at + unit <= len; at += unit) {
        if (journal_record_decode(&r, buf + at) && journal_scan_knows(s, &r)) {
            found(s, pos + at, r.durable);
        }
    }
}
