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
    g_autofree char *stuck = NULL;
    unsigned level;
    uint64_t used, lag;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        level = broken ? 100 : level_of(p);
        used = pvs_journal_used(&p->journal);
        lag = pvs_private_lag_bytes(p);
        stuck = g_strdup(p->stuck);
    }
    if (stuck && !p->told_stuck) {
        warn_report("Nothing of the private disk '%s' is shipped: %s",
                    bdrv_get_node_name(p->bs), stuck);
    }
    if (level != p->told_level || !stuck != !p->told_stuck) {
        p->told_level = level;
        p->told_stuck = stuck;
        qapi_event_send_vdisk_buffer(bdrv_get_node_name(p->bs), level, used,
                                     p->journal.ring_size, lag, broken, stuck);
    }
}

static void tell_state(PvsPrivate *p)
{
    PrivateState state;
    g_autofree char *reason = NULL;
    int64_t away;

    WITH_QEMU_LOCK_GUARD(&p->waits.lock) {
        state = p->state;
        reason = g_strdup(p->reason);
        away = pvs_now() - p->away_since;
    }
    if (state != p->told_state) {
        qapi_event_send_vdisk_store(bdrv_get_node_name(p->bs), 0,
                                    p->store_name, false,
                                    state == PRIVATE_READY
                                    ? PVS_STORE_STATE_UP : PVS_STORE_STATE_DOWN,
                                    reason);
        p->told_state = state;
    }
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
    b->stuck = g_strdup(p->stuck);
    b->window = j->header.window;
    b->has_reserve = b->window;
    b->reserve = j->header.reserve;
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
