/*
 * Waiting, without keeping QEMU from anything else
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "block/pvs/wait.h"

void pvs_waits_init(PvsWaits *waits)
{
    *waits = (PvsWaits) {};
    qemu_mutex_init(&waits->lock);
    QLIST_INIT(&waits->waiters);
}

void pvs_waits_destroy(PvsWaits *waits)
{
    assert(QLIST_EMPTY(&waits->waiters));
    qemu_mutex_destroy(&waits->lock);
}

Coroutine *pvs_wake(PvsWaiter *w)
{
    Coroutine *co = w->co;

    if (co) {
        w->co = NULL;
        QLIST_REMOVE(w, next);
    }
    return co;
}

static void wait_timeout(void *opaque)
{
    PvsWaiter *w = opaque;
    Coroutine *co;

    WITH_QEMU_LOCK_GUARD(&w->waits->lock) {
        co = pvs_wake(w);
    }
    pvs_wake_finish(co);
}

void coroutine_fn pvs_co_wait(PvsWaits *waits, PvsWaiter *w, int64_t until)
{
    w->waits = waits;
    w->co = qemu_coroutine_self();
    QLIST_INSERT_HEAD(&waits->waiters, w, next);
    /*
     * The timer belongs to the thread that runs this coroutine, so it cannot
     * go off between here and the yield, nor be running after timer_del().
     */
    if (until != INT64_MAX) {
        aio_timer_init(qemu_get_current_aio_context(), &w->timer,
                       QEMU_CLOCK_REALTIME, SCALE_NS, wait_timeout, w);
        timer_mod(&w->timer, until);
    }
    qemu_mutex_unlock(&waits->lock);
    qemu_coroutine_yield();
    if (until != INT64_MAX) {
        timer_del(&w->timer);
    }
    qemu_mutex_lock(&waits->lock);
}

void pvs_wake_all(PvsWaits *waits)
{
    PvsWaiter *w, *next;

    QLIST_FOREACH_SAFE(w, &waits->waiters, next, next) {
        Coroutine *co = pvs_wake(w);

        /* Not now: it would want the lock that the caller holds */
        aio_co_schedule(qemu_coroutine_get_aio_context(co), co);
    }
}

void pvs_waits_drain_begin(PvsWaits *waits)
{
    QEMU_LOCK_GUARD(&waits->lock);
    if (waits->drains++ == 0) {
        waits->drained_since = pvs_now();
        pvs_wake_all(waits);
    }
}

void pvs_waits_drain_end(PvsWaits *waits)
{
    QEMU_LOCK_GUARD(&waits->lock);
    /* A node that was opened inside of a drain did not see it begin */
    waits->drains -= waits->drains > 0;
}
