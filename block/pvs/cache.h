/*
 * Host cache: a host's copy of what its desktops read of a version
 *
 *   relay (owner) --- writes ---> data file, then its bits in the live map
 *   desktops      --- read -----> live map, then the data file
 *
 * One process owns a cache and writes it, which its lock on the data file
 * ensures; any number read it, without locks. Both files are used by
 * descriptors of their own, not by block nodes: a short read must be seen as
 * such, and what fills the cache does not hold the graph. The formats, and why
 * no crash of anybody makes a desktop read what is not there, are in
 * docs/interop/host-cache.rst.
 *
 * The address space is that of the image, with the tree's blocks behind it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_CACHE_H
#define BLOCK_PVS_CACHE_H

#include "block/block_int.h"
#include "block/vdisk/map.h"

typedef struct PvsCache PvsCache;

/* What it is a cache of; nothing in it is kept by the functions below */
typedef struct PvsCacheId {
    const char *vdisk;
    uint64_t version;
    const uint8_t *root;        /* 32 bytes; NULL: there is no tree */
    int64_t image_bytes;
    int64_t tree_bytes;         /* of the tree file; 0: none */
} PvsCacheId;

/*
 * Is @buf what belongs at @offset? It may be asked for one granule at a time,
 * in a coroutine in the main loop, and may wait.
 */
typedef bool coroutine_fn PvsCacheVerify(void *opaque, int64_t offset,
                                         int64_t bytes, const uint8_t *buf);

typedef struct PvsCacheOps {
    PvsCacheVerify *co_verify;  /* NULL: nothing older is trusted */
    /* It is full now, or has room again. Main loop. */
    void (*full_changed)(void *opaque, bool full);
} PvsCacheOps;

/* Bytes, since it was opened */
typedef struct PvsCacheUse {
    bool full;
    uint64_t hit_bytes, miss_bytes, filled_bytes;
} PvsCacheUse;

/*
 * A desktop's side. NULL with @errp set if there is no cache of @id there that
 * can be used now. Main loop.
 */
PvsCache *pvs_cache_attach(const char *data, const char *map,
                           const PvsCacheId *id, Error **errp);

/*
 * The relay's side: make it, or go on with what is there. @limit is what the
 * data file may take on the host in bytes; 0: no limit. Main loop.
 */
PvsCache *pvs_cache_own(const char *data, const char *map,
                        const PvsCacheId *id, uint64_t limit,
                        const PvsCacheOps *ops, void *opaque, Error **errp);

/* No request is in flight any more. Main loop; polls. NULL is allowed. */
void pvs_cache_close(PvsCache *c);

/* Has its owner replaced it by another one? */
bool pvs_cache_is_dead(PvsCache *c);

bool pvs_cache_is_full(PvsCache *c);
PvsCacheUse pvs_cache_use(PvsCache *c);

/* A guest's read found so much in it, and so much not. Any thread. */
void pvs_cache_count(PvsCache *c, uint64_t hit_bytes, uint64_t miss_bytes);

/*
 * State of granule @first: data and zero are hits, base is a miss. Returns how
 * many granules are in that state, at most @max. Any thread.
 */
uint64_t pvs_cache_run(PvsCache *c, uint64_t first, uint64_t max,
                       VdiskState *state);

/*
 * Read granules, or parts of them, that are in state data. 0, or -errno: a miss
 * in spite of the map, -ENODATA where the file has ended.
 */
int coroutine_fn pvs_cache_co_read(PvsCache *c, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, size_t qiov_offset);

/*
 * Owner: put whole granules into the cache, which were verified. That they are
 * not put there is no error to anybody; -errno says why. Several may fill the
 * same granule at once: they have the same bytes.
 */
int coroutine_fn pvs_cache_co_fill(PvsCache *c, int64_t offset, int64_t bytes,
                                   const uint8_t *buf);

/* Owner: make what was filled by now durable. 0 or -errno. */
int coroutine_fn pvs_cache_co_sync(PvsCache *c);

#endif /* BLOCK_PVS_CACHE_H */
