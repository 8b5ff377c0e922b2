/*
 * pvs, private image mode: the content of an epoch on its way from the journal
 * to the store, and to the local copy
 *
 * What was read of it to be sent is kept for the copy, as long as there is
 * room. Main loop only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_SHIPMENT_H
#define BLOCK_PVS_SHIPMENT_H

#include "block/pvs/private.h"

struct PvsShipment {
    PvsPrivate *p;
    JournalEpoch *epoch;        /* closed; the journal's, which outlives this */
    JournalIndex *parts;        /* of each byte the newest content (J2) */
    GHashTable *kept;           /* of what was read; private to shipment.c */
};

PvsShipment *coroutine_fn pvs_shipment_new(PvsPrivate *p, JournalEpoch *e);
/* @s may be NULL; nothing of it is under way */
void pvs_shipment_free(PvsShipment *s);

/*
 * Each returns 0, -EINTR if a drain came before all of it was done, or -errno.
 * They let go of the graph lock meanwhile. When the journal cannot be read it
 * is broken from then on.
 */

/* The beginning of it, so that it is sent without a wait for the disk */
int coroutine_fn GRAPH_RDLOCK pvs_shipment_co_read_ahead(PvsShipment *s);

/* To the store, as requests of @session; not flushed */
int coroutine_fn GRAPH_RDLOCK pvs_shipment_co_send(PvsShipment *s,
                                                   uint64_t session);

/*
 * An epoch of @bytes was sent in @took ns; or the session broke before it was,
 * for which @bytes is 0. So much less, or more, is sent at once from now on, as
 * what a guest's read waits for behind it is to take a quarter of a second.
 */
void pvs_shipment_learn(PvsPrivate *p, int64_t bytes, int64_t took);

/* To the local copy, after the store has it durably (J6); not flushed */
int coroutine_fn GRAPH_RDLOCK pvs_shipment_co_copy(PvsShipment *s);

#endif /* BLOCK_PVS_SHIPMENT_H */
