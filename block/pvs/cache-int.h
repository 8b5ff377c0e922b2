/*
 * What the files of the host cache share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_CACHE_INT_H
#define BLOCK_PVS_CACHE_INT_H

#include "block/pvs/cache.h"
#include "block/pvs/live-map.h"
#include "block/vdisk/header.h"
#include "qemu/thread.h"

typedef struct FillRun {
    uint64_t first;
    uint64_t n;
} FillRun;

typedef struct FillItem FillItem;
typedef QSIMPLEQ_HEAD(FillList, FillItem) FillList;

struct PvsCache {
    /* Never changed after open */
    bool owner;
    int fd;                     /* of the data file */
    uint8_t *live;              /* the live map's file, mapped */
    size_t live_bytes;
    LiveMap id;
    VdiskMap map;               /* its words are in the live map */

    /* Atomic */
    uint64_t hit_bytes, miss_bytes, filled_bytes;
    bool full;

    /* The owner's; never changed after open */
    char *data_name;
    uint64_t limit;
    const PvsCacheOps *ops;
    void *opaque;

    /* Under lock: bits change, and who has to be undone if a sync fails */
    QemuMutex lock;
    GArray *unsynced;           /* FillRun, since the last good sync */
    bool all_unsynced;          /* all that was there when it was opened too */
    uint64_t failures;          /* of syncs */
    FillList to_write;
    bool writing;               /* somebody sees to what is to be written */

    /* Main loop */
    VdiskHeader header;
    int header_copy;
    QEMUTimer *timer;
    unsigned running;           /* coroutines */
    bool stopping;              /* atomic */
    bool scanning;
    bool syncing;
    int64_t retry_at;           /* ns; when to try again after ENOSPC */
    QemuCoSleep scan_sleep;
};

/* cache.c */

/* Id of the host's boot; random if the host does not tell */
void pvs_cache_boot_id(uint8_t boot[LIVE_MAP_BOOT_BYTES]);
LiveMap pvs_cache_live_id(const PvsCacheId *id, const struct stat *data,
                          uint64_t data_offset);

/*
 * Map the live map of @fd, as @prot says, if it is what is wanted. False with
 * @errp set otherwise. What differs in data_offset is taken from the file.
 */
bool pvs_cache_map(PvsCache *c, int fd, int prot, const LiveMap *wanted,
                   Error **errp);
void pvs_cache_unmap(PvsCache *c);
uint32_t *pvs_cache_dead_flag(PvsCache *c);

/* All of it in a thread; 0 or -errno, -ENODATA where the file ends */
int coroutine_fn pvs_cache_co_pread(PvsCache *c, uint8_t *buf, size_t bytes,
                                    off_t offset);

/* cache-own.c */

/* Put granules that are in state base into @state. Any thread. */
void pvs_cache_set(PvsCache *c, uint64_t first, uint64_t n, VdiskState state,
                   uint64_t failures);
void pvs_cache_own_start(PvsCache *c);
void pvs_cache_own_stop(PvsCache *c);

/* cache-open.c: with the map, so that the next owner can trust it */
void pvs_cache_save(PvsCache *c);

/* cache-scan.c */
void coroutine_fn pvs_cache_scan_entry(void *opaque);

#endif /* BLOCK_PVS_CACHE_INT_H */
