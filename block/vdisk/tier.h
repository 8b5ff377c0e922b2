/*
 * RAM tier of a pooled layer: where its granules are, and their way to the file
 *
 * A granule in state data is in the tier if the tier has it, else in the file.
 * What the file holds for a granule that the tier has is stale: of an older
 * write, or of another session.
 *
 * A write goes into the tier if there is room, else into the file, at the
 * file's speed: it never waits for granules to be moved. When the tier is full,
 * the coldest granules are moved to the file in the background.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_TIER_H
#define BLOCK_VDISK_TIER_H

#include "qemu/iov.h"
#include "block/graph-lock.h"

typedef struct VdiskLayer VdiskLayer;

typedef enum VdiskPlace {
    VDISK_PLACE_RAM,
    VDISK_PLACE_FILE,
    VDISK_PLACE_CHANGED,    /* not in state data any more: look again */
} VdiskPlace;

/* Sizes in bytes */
typedef struct VdiskTierUse {
    uint64_t size;          /* the limit, as set by write-cache-ram */
    uint64_t used;          /* by granules */
    uint64_t memory;        /* taken from the host, with all tables */
} VdiskTierUse;

/* Does a tier of @bytes make sense on this host? */
bool vdisk_tier_size_valid(uint64_t bytes, Error **errp);

/* A tier of @bytes, at least a granule, for @l, which is pooled. Main loop. */
bool vdisk_tier_open(VdiskLayer *l, uint64_t bytes, Error **errp);
/* No request is under way. Without a tier these do nothing. */
void vdisk_tier_close(VdiskLayer *l);
void vdisk_tier_clear(VdiskLayer *l);

/*
 * From the front of the range, copy what the tier has. Returns how many bytes
 * of the range have the same *@place, at least 1; what is in the file is left
 * to the caller to read. The granules were in state data when it looked.
 */
int64_t vdisk_tier_read(VdiskLayer *l, int64_t offset, int64_t bytes,
                        QEMUIOVector *qiov, size_t qiov_offset,
                        VdiskPlace *place);

/*
 * From the front of the range, take in what the tier has room for. Returns how
 * many bytes have the same *@place; the caller writes what belongs in the file.
 * Granules that are not in state data are held by the caller, and covered
 * whole by the range.
 */
int64_t vdisk_tier_write(VdiskLayer *l, int64_t offset, int64_t bytes,
                         QEMUIOVector *qiov, size_t qiov_offset,
                         VdiskPlace *place);

/* Forget granules that are not in state data any more */
void vdisk_tier_drop(VdiskLayer *l, uint64_t first, uint64_t n);

/* How many of @n granules from @first on have the same place as the first */
uint64_t vdisk_tier_run(VdiskLayer *l, uint64_t first, uint64_t n);

/* Move everything to the file. The layer is drained. */
int coroutine_fn GRAPH_RDLOCK vdisk_tier_co_empty(VdiskLayer *l);

/*
 * With @on, take in nothing new and move what there is to the file in the
 * background: soon it has to be there anyway.
 */
void vdisk_tier_write_through(VdiskLayer *l, bool on);

/* Give memory that is not used any more back, a bit of it. False if no more. */
bool vdisk_tier_trim(VdiskLayer *l);

VdiskTierUse vdisk_tier_use(VdiskLayer *l);

#endif /* BLOCK_VDISK_TIER_H */
