/*
 * Host cache: a host's copy of what its desktops read of a version
 *
 * Not in this build yet: every lookup misses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_CACHE_H
#define BLOCK_PVS_CACHE_H

#include "qapi/error.h"
#include "block/block_int.h"
#include "block/vdisk/map.h"

typedef struct PvsCache {
    bool full;
} PvsCache;

typedef struct PvsCacheId {
    const char *vdisk;
    uint64_t version;
    const uint8_t *root;
    int64_t image_bytes;
    int64_t tree_bytes;
} PvsCacheId;

typedef bool coroutine_fn PvsCacheVerify(void *opaque, int64_t offset,
                                         int64_t bytes, const uint8_t *buf);

typedef struct PvsCacheOps {
    PvsCacheVerify *co_verify;
} PvsCacheOps;

typedef struct PvsCacheUse {
    bool full;
    uint64_t hit_bytes, miss_bytes, filled_bytes;
} PvsCacheUse;

static inline PvsCache *pvs_cache_attach(const char *data, const char *map,
                                         const PvsCacheId *id, Error **errp)
{
    error_setg(errp, "This build has no host cache");
    return NULL;
}

static inline PvsCache *pvs_cache_own(const char *data, const char *map,
                                      const PvsCacheId *id, uint64_t limit,
                                      const PvsCacheOps *ops, void *opaque,
                                      Error **errp)
{
    error_setg(errp, "This build has no host cache");
    return NULL;
}

static inline void pvs_cache_close(PvsCache *c)
{
}

static inline bool pvs_cache_is_dead(PvsCache *c)
{
    return false;
}

static inline bool pvs_cache_is_full(PvsCache *c)
{
    return c->full;
}

static inline PvsCacheUse pvs_cache_use(PvsCache *c)
{
    return (PvsCacheUse) {};
}

static inline uint64_t pvs_cache_run(PvsCache *c, uint64_t first, uint64_t max,
                                     VdiskState *state)
{
    *state = VDISK_STATE_BASE;
    return max;
}

static inline int coroutine_fn
pvs_cache_co_read(PvsCache *c, int64_t offset, int64_t bytes,
                  QEMUIOVector *qiov, size_t qiov_offset)
{
    return -ENODATA;
}

static inline int coroutine_fn
pvs_cache_co_fill(PvsCache *c, int64_t offset, int64_t bytes,
                  const uint8_t *buf)
{
    return 0;
}

static inline int coroutine_fn pvs_cache_co_sync(PvsCache *c)
{
    return 0;
}

#endif /* BLOCK_PVS_CACHE_H */
