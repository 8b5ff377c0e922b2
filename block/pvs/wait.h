/*
 * Waiting, without keeping QEMU from anything else
 *
 * A request in the block layer holds the graph lock, and draining waits for it.
 * A read that waits for a store can take for ever, so it lets go of the graph
 * while it waits, and gives up soon after a drain has begun: the device keeps
 * the request and repeats it (rerror=stop).
 *
 *   PVS_BREAK_MS after a drain has begun, connections that owe an answer are
 *   broken, so that their requests end and with them their hold on the graph;
 *   PVS_GRACE_MS after it, reads that still wait fail. A change of the graph
 *   drains too, but waits for holders of the graph lock only, so it is over
 *   before reads fail.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_WAIT_H
#define BLOCK_PVS_WAIT_H

#include "block/block_int.h"
#include "qemu/timer.h"

#define PVS_GRACE_MS    100
#define PVS_BREAK_MS    50

/* All waits for one image. Under lock, like what they wait for. */
typedef struct PvsWaits {
    QemuMutex lock;
    QLIST_HEAD(, PvsWaiter) waiters;
    unsigned drains;            /* that have begun and not ended */
    int64_t drained_since;      /* ns; of the first of them */
} PvsWaits;

/* One coroutine that waits; on its stack */
typedef struct PvsWaiter {
    PvsWaits *waits;
    Coroutine *co;              /* NULL once it was woken */
    QEMUTimer timer;
    QLIST_ENTRY(PvsWaiter) next;
} PvsWaiter;

/* The clock of all that waits: monotonic, ns */
static inline int64_t pvs_now(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

void pvs_waits_init(PvsWaits *waits);
void pvs_waits_destroy(PvsWaits *waits);

/*
 * Wait until woken, a drain begins, or @until (ns; INT64_MAX: never). The
 * caller holds the lock, which is released meanwhile, and not the graph lock;
 * it looks again at whatever it waits for.
 */
void coroutine_fn pvs_co_wait(PvsWaits *waits, PvsWaiter *w, int64_t until);

/*
 * Wake @w, if it waits. The caller holds the lock and, when it has released it,
 * passes the result to pvs_wake_finish(), soon.
 */
Coroutine *pvs_wake(PvsWaiter *w);
static inline void pvs_wake_finish(Coroutine *co)
{
    if (co) {
        aio_co_wake(co);
    }
}

/* Wake everybody. Caller holds the lock. */
void pvs_wake_all(PvsWaits *waits);

/* A drain begins or ends. Main loop; must not be called with the lock held. */
void pvs_waits_drain_begin(PvsWaits *waits);
void pvs_waits_drain_end(PvsWaits *waits);

/*
 * Until when a read may still wait; ns, INT64_MAX while there is no drain.
 * Caller holds the lock.
 */
static inline int64_t pvs_waits_limit(const PvsWaits *waits)
{
    return waits->drains ? waits->drained_since + PVS_GRACE_MS * SCALE_MS
                         : INT64_MAX;
}

#endif /* BLOCK_PVS_WAIT_H */
