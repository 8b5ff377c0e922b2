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
    off_t length;               /* of the data file; shorter: it was cut off */
    uint8_t *live;              /* the live map's file, mapped */
    size_t live_bytes;
    LiveMap id;
    VdiskMap map;               /* its words are in the live map */

    /* Atomic */
    uint64_t hit_bytes, miss_bytes, filled_bytes;
    bool full;                  /* nothing is filled now */
    bool full_reported;

    /* The owner's; never changed after open */
    char *data_name;
    char *map_name;
    uint64_t limit;             /* bytes that the data file may take; 0: any */
    bool made;                  /* the data file is new */
    const PvsCacheOps *ops;
    void *opaque;

    /* The owner's; atomic, bytes */
    uint64_t taken;             /* of the limit, as far as known */
    uint64_t filling;           /* being written now */
    uint64_t stored;            /* written since it was opened */
    bool no_space;              /* the file system said so */

    /* Held while a sync runs; taken before lock */
    CoMutex sync_lock;

    /* Under lock: bits change, and who has to be undone if a sync fails */
    QemuMutex lock;
    GArray *unsynced;           /* FillRun, not noted by a sync yet */
    unsigned long *unsynced_bits;   /* in the live map; those noted too */
    uint64_t failures;          /* of syncs */
    FillList to_write;
    bool writing;               /* somebody sees to what is to be written */

    /* Main loop */
    VdiskHeader header;
    int header_copy;
    QEMUTimer *timer;
    unsigned running;           /* coroutines */
    bool stopping;              /* atomic */
    bool scanning;              /* the live map says so too */
    bool syncing;
    uint64_t stored_before;     /* what stored was at the last retry */
    int64_t retry_at;           /* ns; when to try again after ENOSPC */
    QemuCoSleep scan_sleep;
};

/* cache.c */

LiveMap pvs_cache_live_id(const PvsCacheId *id, const struct stat *data,
                          const VdiskHeader *header);

/*
 * Map the live map of @fd, as @prot says, if it is what is wanted. False with
 * @errp set otherwise.
 */
bool pvs_cache_map(PvsCache *c, int fd, int prot, const LiveMap *wanted,
                   Error **errp);
void pvs_cache_unmap(PvsCache *c);

/* A flag of the live map, by its offset */
uint32_t *pvs_cache_flag(PvsCache *c, size_t offset);

/* All of it in a thread; 0 or -errno, -ENODATA where the file ends */
int coroutine_fn pvs_cache_co_pread(PvsCache *c, uint8_t *buf, size_t bytes,
                                    off_t offset);

/* cache-file.c */

/* The next header, durably, into the copy that is not in use */
bool pvs_cache_write_header(PvsCache *c, Error **errp);

/* Open and lock the data file, or make it; sets fd, length and header */
bool pvs_cache_own_data(PvsCache *c, const PvsCacheId *id, Error **errp);

/* Open the data file @name for reading; as above */
bool pvs_cache_open_data(PvsCache *c, const char *name, const PvsCacheId *id,
                         Error **errp);

/* cache-open.c */

/*
 * Whoever has mapped the live map @name reads no more from it. False with @errp
 * set if something else has that name.
 */
bool pvs_cache_kill_map(const char *name, Error **errp);

/* Leave the map in the data file, so that the next owner can trust it */
void pvs_cache_save(PvsCache *c);

/* cache-own.c */

/*
 * Put granules that are in state base into @state. Does nothing if syncs have
 * failed since there were @failures of them. Any thread.
 */
void pvs_cache_set(PvsCache *c, uint64_t first, uint64_t n, VdiskState state,
                   uint64_t failures);
uint64_t pvs_cache_failures(PvsCache *c);

/* The data file was cut off: nothing in it is trusted any more. Any thread. */
void pvs_cache_give_up(PvsCache *c);

/* As pvs_cache_co_sync(), but blocks; no coroutine is running */
int pvs_cache_sync(PvsCache *c);

/*
 * Flush the file, and let the kernel forget what it has in memory of it, so
 * that the medium is read. 0 or -errno.
 */
int coroutine_fn pvs_cache_co_drop(PvsCache *c);

void pvs_cache_own_start(PvsCache *c);
void pvs_cache_own_stop(PvsCache *c);

/* cache-scan.c */
void coroutine_fn pvs_cache_scan_entry(void *opaque);

#endif /* BLOCK_PVS_CACHE_INT_H */
