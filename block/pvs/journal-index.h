/*
 * Where in the reconnect buffer the newest content of a range is
 *
 * Extents that do not overlap, by their offset. A byte is taken over only by a
 * record with a higher sequence, so the order of insertion does not matter.
 * About 110 bytes of memory for each extent. The caller locks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_JOURNAL_INDEX_H
#define BLOCK_PVS_JOURNAL_INDEX_H

#include "block/vdisk/pure.h"

/* Instead of a position: these bytes are zero */
#define JOURNAL_POS_ZERO    UINT64_MAX

typedef struct JournalExtent {
    uint64_t offset;            /* in the vDisk, bytes */
    uint64_t length;
    uint64_t pos;               /* of the content in the ring */
    uint64_t seq;               /* from 1 */
    bool unmap;                 /* zero: the space may be given back */
} JournalExtent;

typedef struct JournalIndex JournalIndex;

JournalIndex *journal_index_new(void);
void journal_index_free(JournalIndex *x);

void journal_index_insert(JournalIndex *x, JournalExtent e);

/*
 * What is at @offset? Returns for how many bytes, at most @length, the answer
 * holds: all of them in *@e, or in none, and then e->seq is 0.
 */
uint64_t journal_index_find(const JournalIndex *x, uint64_t offset,
                            uint64_t length, JournalExtent *e);

/* Take out of the range what has a sequence up to @seq */
void journal_index_remove(JournalIndex *x, uint64_t offset, uint64_t length,
                          uint64_t seq);

uint64_t journal_index_extents(const JournalIndex *x);

#endif /* BLOCK_PVS_JOURNAL_INDEX_H */
