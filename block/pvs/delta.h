/*
 * What the cache of an older version has in common with this one
 *
 * A block of the older version that has the hash that the tree of this one asks
 * for is a block of this one, so it need not be fetched. The same holds for the
 * blocks of the trees; hence parts that are equal are not fetched at all.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_DELTA_H
#define BLOCK_PVS_DELTA_H

#include "qapi/qapi-types-vdisk.h"
#include "block/pvs/image.h"
#include "block/pvs/tree.h"

/*
 * Use the cache that @from tells of, until the end. Main loop. Fetches that are
 * on their way then go on with it: who waits for them is not disturbed.
 */
bool pvs_delta_begin(PvsImage *img, const VdiskDelta *from, Error **errp);
void pvs_delta_end(PvsImage *img);

/* A reference to what is used now; NULL: nothing. Any thread; take the lock. */
PvsDelta *pvs_delta_get(PvsImage *img);
void pvs_delta_put(PvsImage *img, PvsDelta *d);

/*
 * Put into @buf what the older version has of [@offset, @offset + @bytes) of
 * this one's address space, block by block, verified by @hold. Sets bit n of
 * @have for block n. Returns how many blocks it has.
 */
unsigned coroutine_fn
pvs_delta_co_read(PvsImage *img, PvsDelta *d, int64_t offset, int64_t bytes,
                  PvsTreeHold *hold, uint8_t *buf, unsigned long *have);

#endif /* BLOCK_PVS_DELTA_H */
