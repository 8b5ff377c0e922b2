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

/*
 * What was opened without its server is mostly connected in no time: until this
 * time after opening no outage is told; ns
 */
#define PVS_POOL_EARLY  (1000 * SCALE_MS)

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
    unsigned denied;            /* reads that no store which is up has right */
    int64_t denied_since;       /* the first of them; ns */

    /* Main loop */
    QSIMPLEQ_HEAD(, PvsAsk) to_start;
    bool outage_told;           /* its begin, and not its end */
    int64_t told_since;         /* when what was told began; ns */
};

/*
 * Something in the set has changed: pass on events, and set the timer. Caller
 * holds the lock.
 */
void pvs_pool_changed(PvsPool *p);

void pvs_pool_timer(void *opaque);
void pvs_pool_bh(void *opaque);

/* pool-tell.c */

/* @e says that a store is in another state. Main loop. */
void pvs_pool_tell_state(PvsPool *p, const StoreEvent *e);

/*
 * Tell what holds, if something else was told: so an image that is taken during
 * an outage begins with that, and none ends that nobody has heard of. In the
 * main loop.
 */
void pvs_pool_tell_outage(PvsPool *p);

/*
 * What @store had at @offset is not what was sealed. Told once, until it was
 * right in between. Takes the lock.
 */
void pvs_pool_tell_wrong(PvsPool *p, unsigned store, int64_t offset);

/* What it had there is. Caller holds the lock. */
void pvs_pool_note_right(PvsPool *p, unsigned store, int64_t offset,
                         int64_t bytes);

#endif /* BLOCK_PVS_POOL_INT_H */
