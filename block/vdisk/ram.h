/*
 * RAM tier: granules that a pooled vDisk holds in memory
 *
 * A slot holds one granule. It is in one of these states:
 *
 *              add                   take
 *   (free) -----------> resident ------------> moving
 *      ^                 |  ^                   |  |
 *      |      drop       |  +-------------------+  | moved, and neither
 *      +-----------------+    moved, but written   | written nor failed
 *      +------------------    meanwhile or failed -+
 *
 * A copy of a moving slot is being written to the file. The slot can be read,
 * written and dropped like any other, but stays until that write has ended: two
 * writes of one granule to the file at once could end in the wrong order.
 *
 * Nothing here locks or waits; the caller sees to it that calls do not overlap.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_RAM_H
#define BLOCK_VDISK_RAM_H

#include "block/vdisk/pure.h"

/*
 * Granules that are moved with one request: at most 256 KiB, and of a small
 * tier no more than this part of its slots, since each is copied on its way
 */
#define VDISK_RAM_RUN       64
#define VDISK_RAM_RUN_PART  256

/* Limits in bytes for users; 32-bit slot numbers could name twice as much */
#define VDISK_RAM_MIN       (UINT64_C(1) << 20)
#define VDISK_RAM_MAX       (UINT64_C(1) << 43)

typedef struct VdiskRamSlot VdiskRamSlot;

typedef struct VdiskRam {
    /* Never changed after init */
    uint8_t *memory;            /* a granule for each slot */
    VdiskRamSlot *slots;
    uint32_t *buckets;          /* of slots by granule; slot number + 1 */
    uint32_t size;              /* slots */
    uint32_t bucket_mask;

    uint32_t used;              /* slots that are not free */
    uint32_t moving;            /* of those, on their way to the file */
    uint32_t fresh;             /* slots from here on were not used yet */
    uint32_t touched;           /* slots from here on have no memory */
    uint32_t free;              /* list of free slots below fresh */
    uint32_t newest, oldest;    /* list of resident slots by last use */
    uint64_t clock;             /* uses of slots */
} VdiskRam;

/* Granules on their way to the file */
typedef struct VdiskRamRun {
    uint64_t first;
    unsigned n;
    const void *memory[VDISK_RAM_RUN];  /* of each; owned by the tier */
} VdiskRamRun;

/*
 * Make room for @bytes, from a granule to VDISK_RAM_MAX. Only address space is
 * taken; memory comes with use. False if it cannot be had.
 */
bool vdisk_ram_init(VdiskRam *r, uint64_t bytes);
void vdisk_ram_destroy(VdiskRam *r);

/* Forget all granules; none is moving. Keeps the memory, see vdisk_ram_trim. */
void vdisk_ram_clear(VdiskRam *r);

/* Content of granule @g, or NULL if it is not here. Counts as a use. */
void *vdisk_ram_find(VdiskRam *r, uint64_t g);

/*
 * The same to change it in part or whole. Whoever calls this writes before the
 * next call of any function here.
 */
void *vdisk_ram_change(VdiskRam *r, uint64_t g);

/*
 * Room for granule @g, which the caller overwrites whole; NULL if it has no
 * slot, moving ones counted, and @more is false or all slots are in use.
 */
void *vdisk_ram_add(VdiskRam *r, uint64_t g, bool more);

/* Is granule @g here? No use. */
bool vdisk_ram_has(const VdiskRam *r, uint64_t g);

/* Is it here, or an old content of it on its way to the file? */
bool vdisk_ram_has_slot(const VdiskRam *r, uint64_t g);

/* Forget granule @g, if it is here */
void vdisk_ram_drop(VdiskRam *r, uint64_t g);

/*
 * Choose the granule that was not used for the longest time, and those next to
 * it that are nearly as cold, and mark them moving. False if there is none.
 */
bool vdisk_ram_take(VdiskRam *r, VdiskRamRun *run);

/* The granules of @run are in the file, or, if @failed, they are not */
void vdisk_ram_moved(VdiskRam *r, const VdiskRamRun *run, bool failed);

/* Bytes of memory that the tier takes now, with all its tables */
uint64_t vdisk_ram_memory(const VdiskRam *r);

/*
 * Give memory of slots that are not used back to the host, up to about @bytes
 * of it. False when there is no more.
 */
bool vdisk_ram_trim(VdiskRam *r, uint64_t bytes);

#endif /* BLOCK_VDISK_RAM_H */
