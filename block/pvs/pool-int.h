/*
 * What the files of a pool of stores share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_POOL_INT_H
#define BLOCK_PVS_POOL_INT_H

#include "block/pvs/pool.h"

typedef struct PvsRead PvsRead;
typedef struct PvsAsk PvsAsk;

struct PvsPool {
    /* Never changed after open */
    BlockDriverState *bs;
    PvsWaits *waits;
    PvsPoolKind kind;
    int64_t length;
    int64_t opened_at;          /* ns */
    QEMUTimer *timer;
    QEMUBH *bh;

    /* Under waits->lock */
    StoreSet set;
    PvsStore stores[STORE_MAX];
    int64_t armed;              /* ns; when the timer goes off */
    int64_t early_at;           /* ns; of the next early probes */
    GArray *events;             /* StoreEvent; for the bottom half */

    /* Main loop */
    QSIMPLEQ_HEAD(, PvsAsk) to_start;
    bool outage_told;           /* its begin, and not its end */
};

/*
 * Something in the set has changed: pass on events, and set the timer. Caller
 * holds the lock.
 */
void pvs_pool_changed(PvsPool *p);

void pvs_pool_timer(void *opaque);
void pvs_pool_bh(void *opaque);

/* pool-tell.c */

/*
 * What @store had at @offset is not what was sealed. Told once, until it was
 * right in between. Takes the lock.
 */
void pvs_pool_tell_wrong(PvsPool *p, unsigned store, int64_t offset);

/* What it had there is. Caller holds the lock. */
void pvs_pool_note_right(PvsPool *p, unsigned store, int64_t offset,
                         int64_t bytes);

#endif /* BLOCK_PVS_POOL_INT_H */
