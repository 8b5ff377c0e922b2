/*
 * pvs, private image mode: events, and what query-vdisks tells
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-vdisk.h"
#include "qapi/qapi-types-vdisk.h"
#include "qemu/error-report.h"
#include "migration/blocker.h"
#include "block/pvs/private.h"
#include "block/pvs/resume.h"

/* The levels of J7, percent of the ring */
static const unsigned levels[] = { 50, 80, 95 };
/* A level is left when it is this much below; no to and fro at the edge */
#define HYSTERESIS      5

/* A lag is looked at so often; ns */
#define LAG_LOOK        (5 * NANOSECONDS_PER_SECOND)

/*
 * A lag that has grown from one look to the next, with the store there all the
 * time, will fill the buffer (J10). Caller holds the lock.
 */
static void look_at_lag(PvsPrivate *p)
{
    uint64_t lag = pvs_private_lag_bytes(p);
    bool same = p->state == PRIVATE_READY && p->lag_session == p->session;

    if (same && lag && pvs_now() < p->lag_looked + LAG_LOOK) {
        return;
    }
    p->lag_grows = same && (lag > p->lag_then || (p->lag_grows && lag)) &&
                   pvs_private_lag_ms(p) * SCALE_MS >= LAG_LOOK;
    p->lag_then = lag;
    p->lag_session = p->session;
    p->lag_looked = pvs_now();
}

/* Why less is shipped than is written, to be freed, or NULL; lock held */
static char *why_stuck(const PvsPrivate *p)
{
    return g_strdup(p->stuck ?: p->lag_grows
                    ? "the store is slower than the guest writes" : NULL);
}

/* Caller holds the lock */
static unsigned level_of(const PvsPrivate *p)
{
    uint64_t used = pvs_journal_used(&p->journal);
    unsigned percent = used / (p->journal.ring_size / 100);
    unsigned level = 0;

    for (int i = 0; i < ARRAY_SIZE(levels); i++) {
        unsigned leave = levels[i] - HYSTERESIS;

        if (percent >= (p->told_level >= levels[i] ? leave : levels[i])) {
            level = levels[i];
        }
    }
    return level;
}

static void tell_buffer(PvsPrivate *p)
{
    bool broken = qatomic_read(&p->journal.broken);
    bool durable;
    g_autofree char *stuck = NULL;
    unsigned level;
    uint64_t used, lag;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        level = broken ? 100 : level_of(p);
        used = pvs_journal_used(&p->journal);
        lag = pvs_private_lag_bytes(p);
        durable = pvs_private_store_durable(p);
        look_at_lag(p);
        stuck = why_stuck(p);
    }
    if (stuck && !p->told_stuck) {
        warn_report("Too little of the private disk '%s' is shipped: %s",
                    bdrv_get_node_name(p->bs), stuck);
    }
    if (level != p->told_level || !stuck != !p->told_stuck ||
        durable != p->told_durable) {
        p->told_level = level;
        p->told_stuck = stuck;
        p->told_durable = durable;
        qapi_event_send_vdisk_buffer(bdrv_get_node_name(p->bs), level, used,
                                     p->journal.ring_size, lag, broken, stuck,
                                     p->store_durability, durable);
    }
}

static void tell_state(PvsPrivate *p)
{
    PrivateState state;
    g_autofree char *reason = NULL;
    bool refused, doubted;
    int64_t away;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        doubted = p->doubted;
        state = p->state;
        refused = p->refused;
        reason = g_strdup(p->reason);
        away = pvs_now() - p->away_since;
    }
    if (doubted) {
        qemu_co_sleep_wake(&p->store_sleep);
        return;
    }
    /* Of a store that was never there, or that is back as another one, too */
    if (state != p->told_state || (reason && !p->told_reason) ||
        refused > p->told_refused) {
        qapi_event_send_vdisk_store(bdrv_get_node_name(p->bs), 0,
                                    p->store_name, false,
                                    state == PRIVATE_READY
                                    ? PVS_STORE_STATE_UP : PVS_STORE_STATE_DOWN,
                                    reason);
        p->told_state = state;
        p->told_reason = reason;
    }
    p->told_refused = refused;
    if (p->outage_told != (state != PRIVATE_READY) && p->session) {
        p->outage_told = !p->outage_told;
        qapi_event_send_vdisk_outage(bdrv_get_node_name(p->bs), p->outage_told,
                                     false, !p->outage_told,
                                     away / SCALE_MS);
    }
    if (state == PRIVATE_READY && qatomic_read(&p->gave_up)) {
        pvs_resume_soon();
    }
}

/* While something is not on the store, the desktop stays here (J12) */
static void update_blocker(PvsPrivate *p)
{
    bool lag;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        lag = !QSIMPLEQ_EMPTY(&p->journal.epochs);
    }
    if (lag && !p->blocker) {
        error_setg(&p->blocker, "The private disk '%s' has writes that its "
                   "store does not have yet; 'vdisk-drain' ships them",
                   bdrv_get_node_name(p->bs));
        /* If it fails, a migration is under way: inactivate looks again */
        migrate_add_blocker_normal(&p->blocker, NULL);
    } else if (!lag) {
        pvs_private_unblock(p);
    }
}

void pvs_private_unblock(PvsPrivate *p)
{
    migrate_del_blocker(&p->blocker);
}

void pvs_private_tell(void *opaque)
{
    PvsPrivate *p = opaque;

    if (!p->journal.open) {
        return;
    }
    tell_state(p);
    tell_buffer(p);
    update_blocker(p);
    if (!p->waits.drains && qatomic_read(&p->gave_up)) {
        pvs_resume_soon();
    }
    qemu_co_sleep_wake(&p->replay_sleep);
}

static PvsBudget *budget(PvsPrivate *p)
{
    PvsBudget *b = g_new0(PvsBudget, 1);
    uint64_t count[4];

    vdisk_map_count(&p->layer->map, count);
    b->local_bytes = MIN((count[VDISK_STATE_DATA] + count[VDISK_STATE_ZERO]) *
                         VDISK_GRANULE, p->virtual_size);
    return b;
}

static PvsBufferInfo *buffer_info(PvsPrivate *p)
{
    PvsBufferInfo *b = g_new0(PvsBufferInfo, 1);
    PvsJournal *j = &p->journal;

    QEMU_LOCK_GUARD(&p->waits.lock);
    b->size = j->ring_size;
    b->used = pvs_journal_used(j);
    b->lag_bytes = pvs_private_lag_bytes(p);
    b->lag_ms = pvs_private_lag_ms(p);
    b->epochs_shipped = p->epochs_shipped;
    b->bytes_shipped = p->bytes_shipped;
    b->broken = j->broken;
    b->stuck = why_stuck(p);
    b->window = j->header.window;
    b->has_reserve = b->window;
    b->reserve = j->header.reserve;
    b->has_store_durable = p->store_durability;
    b->store_durable = pvs_private_store_durable(p);
    return b;
}

void pvs_private_query(PvsPrivate *p, PvsInfo *info)
{
    PvsStoreInfo *s = g_new0(PvsStoreInfo, 1);
    PvsStoreInfoList **tail = &info->stores;

    info->mode = PVS_MODE_PRIVATE;
    info->vdisk = g_strdup(p->layer->header.base.name);
    info->version = p->layer->header.base.version;
    info->budget = budget(p);
    s->name = g_strdup(p->store_name);
    QAPI_LIST_APPEND(tail, s);
    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        s->state = p->state == PRIVATE_READY ? PVS_STORE_STATE_UP
                                             : PVS_STORE_STATE_DOWN;
        s->reason = g_strdup(p->reason);
        info->has_outage_ms = p->state != PRIVATE_READY;
        info->outage_ms = (pvs_now() - p->away_since) / SCALE_MS;
        info->has_fenced = true;
        info->fenced = p->state == PRIVATE_FENCED;
    }
    info->outage_action = p->outage_action == STORE_OUTAGE_WAIT
                          ? PVS_OUTAGE_ACTION_WAIT
                          : p->outage_action == STORE_OUTAGE_PAUSE
                          ? PVS_OUTAGE_ACTION_PAUSE : PVS_OUTAGE_ACTION_ERROR;
    if (p->journal.open) {
        info->buffer = buffer_info(p);
    }
}
