/*
 * What pool.c and pool-open.c share
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
    bool outage_held;           /* it began, and was not told yet */
    GArray *events;             /* StoreEvent; for the bottom half */

    /* Main loop */
    QSIMPLEQ_HEAD(, PvsAsk) to_start;
};

/*
 * Something in the set has changed: pass on events, and set the timer. Caller
 * holds the lock.
 */
void pvs_pool_changed(PvsPool *p);

void pvs_pool_timer(void *opaque);
void pvs_pool_bh(void *opaque);

#endif /* BLOCK_PVS_POOL_INT_H */
