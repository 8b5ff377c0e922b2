/*
 * Recovery of a reconnect buffer: which records are valid, and is it damaged?
 *
 * The caller reads the ring and shows what it reads. See "Recovery" in
 * docs/interop/reconnect-buffer.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_JOURNAL_SCAN_H
#define BLOCK_PVS_JOURNAL_SCAN_H

#include "block/pvs/journal-format.h"

typedef struct JournalScan {
    const JournalHeader *h;     /* the caller's */
    JournalTail next;           /* the head so far; epoch: of the last record */
    uint64_t records;           /* valid ones */
    uint64_t durable;           /* highest sequence that these or h say */

    /* If the last record but for pads is a start: the head as it was before */
    bool ends_with_start;
    JournalTail before_start;

    /* Proof that something from next.seq on was durable */
    bool damaged;
    uint64_t proof_pos;         /* of a record; UINT64_MAX: the header */
    uint64_t proof_durable;
} JournalScan;

/* A valid record; its payload, of a write, is at ring position @payload */
typedef void JournalScanFunc(void *opaque, const JournalRecord *r,
                             uint64_t payload);

/* Bytes to show at once at least, unless the ring ends before: any record */
static inline size_t journal_scan_window(const JournalHeader *h)
{
    return h->unit + ROUND_UP(journal_payload_max(h->ring_size), h->unit);
}

void journal_scan_init(JournalScan *s, const JournalHeader *h);

/*
 * Take the valid records in @buf, which has the @len bytes of the ring from
 * s->next.pos on. True if there may be more: show what is at the new
 * s->next.pos. False at the first one that is not valid.
 */
bool journal_scan_records(JournalScan *s, const uint8_t *buf, size_t len,
                          JournalScanFunc *func, void *opaque);

/*
 * Is @r, found beyond the head, ours? Then it is of the generation at the head,
 * or of the newest one; nothing else of it is known.
 */
bool journal_scan_knows(const JournalScan *s, const JournalRecord *r);

/* Position at which the ring is over: that of the tail, one round later */
uint64_t journal_scan_end(const JournalScan *s);

/*
 * After the last record: look for proof in @buf, which has the @len bytes of
 * the ring from @pos on. To be called for all from s->next.pos to the end, and
 * at least once.
 */
void journal_scan_proof(JournalScan *s, uint64_t pos, const uint8_t *buf,
                        size_t len);

#endif /* BLOCK_PVS_JOURNAL_SCAN_H */
