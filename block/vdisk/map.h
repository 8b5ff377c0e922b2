/*
 * Granule map: where each granule of a vDisk is read from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_MAP_H
#define BLOCK_VDISK_MAP_H

#include "block/vdisk/pure.h"

typedef enum VdiskState {
    VDISK_STATE_BASE = 0,
    VDISK_STATE_DATA = 1,
    VDISK_STATE_ZERO = 2,
    VDISK_STATE_BAD = 3,        /* not a state: damage */
} VdiskState;

/* A map page is the unit in which the map is loaded and written */
#define VDISK_MAP_PAGE              4096
#define VDISK_MAP_PAGE_GRANULES     (VDISK_MAP_PAGE * 4)

/* Bytes of map for @granules granules, whole pages */
#define VDISK_MAP_BYTES(granules) \
    (DIV_ROUND_UP((uint64_t)(granules), VDISK_MAP_PAGE_GRANULES) * \
     VDISK_MAP_PAGE)

/*
 * Reading needs no lock. Whoever changes the state of a granule holds that
 * granule (see region.h), so two threads never change the same bits at once;
 * their neighbours in a word are left alone by atomic operations.
 *
 * Memory is reserved for the whole capacity and used by the page, so what was
 * never written costs nothing.
 */
typedef struct VdiskMap {
    /* Never changed after init */
    uint64_t *words;        /* 32 granules each, little-endian bytes */
    uint64_t *dirty;        /* a bit for each map page */
    size_t words_bytes;     /* reserved, whole pages */
    size_t dirty_bytes;

    /* Changes only while nobody else uses the map */
    uint64_t granules;
} VdiskMap;

/*
 * Make an empty map (all base) of @granules that can grow to @capacity of
 * them. False if the address space for it cannot be had.
 */
bool vdisk_map_init(VdiskMap *m, uint64_t granules, uint64_t capacity);
void vdisk_map_destroy(VdiskMap *m);

/* Whole capacity in granules */
uint64_t vdisk_map_capacity(const VdiskMap *m);

/* Let the map cover @granules, at least as many as now */
void vdisk_map_grow(VdiskMap *m, uint64_t granules);

/*
 * State of granule @g in *@state; returns how many granules from @g on, at
 * most @max and at least 1, are in that state.
 */
uint64_t vdisk_map_run(const VdiskMap *m, uint64_t g, uint64_t max,
                       VdiskState *state);

/* Are all @n granules from @g on in @state? */
bool vdisk_map_all(const VdiskMap *m, uint64_t g, uint64_t n,
                   VdiskState state);

/* Put @n granules from @g on into @state. Caller holds them. */
void vdisk_map_set(VdiskMap *m, uint64_t g, uint64_t n, VdiskState state);

/*
 * All granules to base, and no page dirty. Returns the memory. The caller sees
 * to it that nobody else uses the map.
 */
void vdisk_map_clear(VdiskMap *m);

/* Number of map pages that cover the granules */
uint64_t vdisk_map_pages(const VdiskMap *m);

/* First dirty page at or after @page; vdisk_map_pages() if there is none */
uint64_t vdisk_map_next_dirty(const VdiskMap *m, uint64_t page);
void vdisk_map_mark_dirty(VdiskMap *m, uint64_t page);

/*
 * Copy @page as it goes to disk and mark it clean. A state set while this runs
 * is in the copy, or its page is dirty again afterwards; or both.
 */
void vdisk_map_take(VdiskMap *m, uint64_t page, uint8_t *buf);

/*
 * Fill @page from disk. Nobody else uses the map. Does not make it dirty. False
 * if there are granules in state BAD, which count as loaded all the same.
 */
bool vdisk_map_load(VdiskMap *m, uint64_t page, const uint8_t *buf);

/* First granule at or after @g in state BAD; m->granules if there is none */
uint64_t vdisk_map_next_bad(const VdiskMap *m, uint64_t g);

/* Add up how many granules are in each state */
void vdisk_map_count(const VdiskMap *m, uint64_t count[4]);

/*
 * Set to base what lies past the last granule in the last page. Returns how
 * many were not; only marks the page dirty and changes it if @fix.
 */
uint64_t vdisk_map_trim(VdiskMap *m, bool fix);

#endif /* BLOCK_VDISK_MAP_H */
