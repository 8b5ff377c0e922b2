/*
 * A pool of stores: what is told of them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/pvs/image.h"
#include "block/pvs/pool-int.h"
#include "qapi/qapi-events-vdisk.h"
#include "trace.h"

/* Of one store; of one that has more of them wrong, some may be told again */
#define WRONG_MAX   4096

static bool is_new(PvsPool *p, unsigned store, int64_t offset)
{
    GHashTable *wrong = p->stores[store].wrong;

    QEMU_LOCK_GUARD(&p->waits->lock);
    if (g_hash_table_size(wrong) == WRONG_MAX) {
        g_hash_table_remove_all(wrong);
    }
    return g_hash_table_add(wrong, g_memdup2(&offset, sizeof(offset)));
}

/* Who waits for a block that no store has right asks again and again */
void pvs_pool_tell_wrong(PvsPool *p, unsigned store, int64_t offset)
{
    PvsImage *img = pvs_image(p->bs);

    if (is_new(p, store, offset)) {
        pvs_image_report_corrupt(img, p->kind == PVS_POOL_TREE,
                                 p->stores[store].name, offset, VDISK_GRANULE);
    } else {
        qatomic_inc(&img->corrupt);
    }
}

void pvs_pool_note_right(PvsPool *p, unsigned store, int64_t offset,
                         int64_t bytes)
{
    GHashTable *wrong = p->stores[store].wrong;
    int64_t end = offset + bytes;

    for (; g_hash_table_size(wrong) && offset < end; offset += VDISK_GRANULE) {
        g_hash_table_remove(wrong, &offset);
    }
}

PvsStoreState pvs_pool_state_told(StoreState state)
{
    static const PvsStoreState states[] = {
        [STORE_UP] = PVS_STORE_STATE_UP,
        [STORE_SUSPECT] = PVS_STORE_STATE_SUSPECT,
        [STORE_DOWN] = PVS_STORE_STATE_DOWN,
    };

    return states[state];
}

void pvs_pool_tell_state(PvsPool *p, const StoreEvent *e)
{
    PvsStoreState state = pvs_pool_state_told(e->state);
    int error = p->set.stores[e->store].error;

    trace_pvs_store_state(p->bs, p->stores[e->store].name,
                          PvsStoreState_str(state));
    qapi_event_send_vdisk_store(pvs_image(p->bs)->node_name, e->store,
                                p->stores[e->store].name,
                                p->kind == PVS_POOL_TREE, state,
                                e->state != STORE_UP && error ?
                                g_strerror(-error) : NULL);
}

static void send_outage(PvsPool *p, bool active)
{
    int64_t ns = active ? 0 : MAX(pvs_now() - p->told_since, 0);

    p->outage_told = active;
    qapi_event_send_vdisk_outage(pvs_image(p->bs)->node_name, active,
                                 p->kind == PVS_POOL_TREE, !active,
                                 ns / SCALE_MS);
}

void pvs_pool_tell_outage(PvsPool *p)
{
    bool active;
    int64_t since;

    WITH_QEMU_LOCK_GUARD(&p->waits->lock) {
        active = p->set.outage && pvs_now() >= p->opened_at + PVS_POOL_EARLY;
        /* Of the others it is told when they have stopped the guest */
        active |= p->denied && p->set.outage_action == STORE_OUTAGE_WAIT;
        since = p->set.outage ? p->set.outage_since : p->denied_since;
    }
    if (active != p->outage_told) {
        p->told_since = active ? since : p->told_since;
        send_outage(p, active);
    }
}

void pvs_pool_end_outage(PvsPool *p)
{
    if (p->outage_told) {
        send_outage(p, false);
    }
}
