/*
 * Fuzz the recovery of a reconnect buffer
 *
 * The input is a program that writes records, good ones and others, and damages
 * what is there. Nothing that is told lies outside of the vDisk or the ring,
 * sequences go up by one, and rot behind what was flushed is never taken.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/pvs/journal-scan.h"
#include "fuzz.h"

#define RING    ((uint64_t)JOURNAL_RING_MIN)
#define DISK    (UINT64_C(8) << 20)

static uint8_t ring[RING];

typedef struct Seen {
    const JournalHeader *h;
    uint64_t seq, epoch;
} Seen;

static void record(void *opaque, const JournalRecord *r, uint64_t payload)
{
    Seen *s = opaque;

    assert(r->seq == s->seq++);
    assert(r->epoch == s->epoch || r->epoch == s->epoch + 1);
    s->epoch = r->epoch;
    if (r->type == JOURNAL_WRITE || r->type == JOURNAL_ZERO) {
        assert(r->length > 0 && r->offset + r->length <= DISK);
    }
    if (r->type == JOURNAL_WRITE) {
        assert(payload % RING + r->length <= RING);
        assert(payload + r->length <= s->h->tail.pos + RING);
    }
}

static void scan(const JournalHeader *h, size_t step)
{
    Seen seen = { .h = h, .seq = h->tail.seq, .epoch = h->tail.epoch };
    JournalScan s;
    uint64_t from;
    bool more = true;

    journal_scan_init(&s, h);
    while (more) {
        uint64_t at = s.next.pos % RING;
        uint64_t left = journal_scan_end(&s) - s.next.pos;

        from = s.next.pos;
        more = journal_scan_records(&s, ring + at,
                                    MIN(MIN(step, RING - at), left), record,
                                    &seen) && s.next.pos > from;
    }
    assert(s.next.pos <= journal_scan_end(&s) && s.next.seq == seen.seq);
    for (from = s.next.pos; from < journal_scan_end(&s); from += h->unit) {
        journal_scan_proof(&s, from, ring + from % RING, h->unit);
    }
    journal_scan_proof(&s, from, ring, 0);
}

/* A record as it should be, but for what the input says */
static void put(Input *in, JournalTail *head, uint64_t *durable, uint32_t unit)
{
    uint8_t *at = ring + head->pos % RING;
    uint8_t what = input_take(in, 1);
    JournalRecord r = {
        .type = what % 7,
        .seq = head->seq, .epoch = head->epoch, .link = head->link,
        .durable = *durable,
        .offset = input_take(in, 2) * 512,
        .length = input_take(in, 1) * 512,
    };

    memcpy(r.nonce, head->nonce, sizeof(r.nonce));
    if (what & 0x80) {
        uint64_t *field[] = { &r.seq, &r.epoch, &r.link, &r.durable, &r.offset,
                              &r.length, &r.payload, &r.flags };

        *field[input_take(in, 1) % 8] = input_take(in, 8);
    }
    if (r.type == JOURNAL_WRITE && r.length <= RING - head->pos % RING - unit &&
        !(what & 0x40) && r.length < RING) {
        r.payload = journal_checksum(at + unit, r.length);
    }
    journal_record_encode(&r, at);
    if (journal_record_space(&r, unit) <= RING - head->pos % RING) {
        head->pos += journal_record_space(&r, unit);
        head->pos = ROUND_UP(head->pos, unit);
    }
    *durable = what & 0x20 ? head->seq : *durable;
    head->seq++;
    head->link = r.checksum;
    memcpy(head->nonce, r.type == JOURNAL_START ? r.next_nonce : head->nonce,
           sizeof(head->nonce));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = { data, size };
    JournalHeader h = {
        .unit = input_take(&in, 1) & 1 ? 512 : 4096,
        .virtual_size = DISK,
        .ring_size = RING,
    };
    JournalTail head;
    uint64_t durable = 0;

    h.tail = (JournalTail) {
        .pos = input_take(&in, 2) * 4096, .seq = 1, .epoch = 1,
    };
    h.durable = input_take(&in, 1);
    memset(ring, input_take(&in, 1), sizeof(ring));
    head = h.tail;
    while (in.size && head.pos + 2 * 4096 < h.tail.pos + RING) {
        if (head.pos % RING + h.unit + JOURNAL_RECORD_BYTES > RING) {
            break;
        }
        put(&in, &head, &durable, h.unit);
        if (in.size > 3 && (in.data[0] & 0xf0) == 0xf0) {
            ring[input_take(&in, 3) % RING] ^= input_take(&in, 1);
        }
    }
    scan(&h, journal_scan_window(&h));
    scan(&h, RING);
    return 0;
}
