/*
 * A pool of stores that hold the same bytes: one connection or more to each
 *
 * The glue between store.h, which decides, and the block layer, which asks. A
 * pool is used by its image only, from any thread. What is not said to be the
 * main loop's is under the lock of the image's waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_POOL_H
#define BLOCK_PVS_POOL_H

#include "block/pvs/store.h"
#include "block/pvs/wait.h"
#include "qapi/qapi-types-vdisk.h"

#define PVS_CONNECTIONS_MAX     16

/*
 * To a store on a network: QEMU's client has 16 requests in flight on one
 * connection, which at 20 ms is 800 a second; and what is fetched ahead on one
 * does not hold up what somebody waits for on another.
 */
#define PVS_CONNECTIONS_FAR     4

/* What no store has right is asked for again after this time, ms */
#define PVS_RETRY_MS            500

typedef struct PvsPool PvsPool;

/* One connection to a store */
typedef struct PvsConn {
    BdrvChild *child;
    unsigned in_flight;
    bool broken;                /* failed last time: to be tried again */
    bool dial;                  /* at once: it broke just now */
    int64_t tried_at;           /* ns; when it was broken and tried again */
} PvsConn;

typedef struct PvsStore {
    char *name;                 /* what the administrator calls it */
    bool nbd;
    bool local;                 /* a file: its errors say nothing of a link */
    unsigned n_conns;
    PvsConn *conns;
    GHashTable *wrong;          /* offsets that it had wrong, which was told */
} PvsStore;

typedef enum PvsPoolKind {
    PVS_POOL_IMAGE,
    PVS_POOL_TREE,
} PvsPoolKind;

typedef struct PvsPoolOptions {
    StoreOptions store;
    unsigned connections;       /* to each NBD store; 0: what fits */
    int64_t length;             /* bytes of what they hold; -1: they tell */
    bool far;                   /* may be anything, not just NBD and files */
} PvsPoolOptions;

/*
 * Is @buf what the pool holds at @offset? 0 if so; -EBADMSG if not, with the
 * begin of the first block that is wrong in *@bad; another -errno, which the
 * read fails with, if that cannot be known. Runs in the coroutine that reads,
 * without any lock, and may wait.
 */
typedef int coroutine_fn PvsCheck(void *opaque, int64_t offset, int64_t bytes,
                                  const uint8_t *buf, int64_t *bad);

/*
 * Open the stores that @options has as "PREFIX.0" and so on, and take them out
 * of it; a single one as @prefix itself, if @single. Main loop. On failure the
 * block layer has the children that were opened so far.
 */
PvsPool * GRAPH_UNLOCKED
pvs_pool_open(BlockDriverState *bs, PvsWaits *waits, PvsPoolKind kind,
              QDict *options, const char *prefix, bool single,
              const PvsPoolOptions *o, Error **errp);

/* Main loop; no request is in flight. The block layer has the children. */
void pvs_pool_close(PvsPool *p);

/* Bytes that the stores hold */
int64_t pvs_pool_length(const PvsPool *p);

/*
 * Read from whichever store answers first, and gives what @check accepts. The
 * range is inside of what they hold. On success *@buf has it, to be freed with
 * qemu_vfree(), with zeros up to the next multiple of 4096. -EIO if it cannot
 * be had. What no store that is up has right is asked for again, for as long
 * as an outage may take, if @patient; else that is -ENODATA at once.
 */
int coroutine_fn GRAPH_UNLOCKED
pvs_pool_co_read(PvsPool *p, int64_t offset, int64_t bytes, bool patient,
                 PvsCheck *check, void *opaque, uint8_t **buf);

/* Is a store up? Takes the lock. */
bool pvs_pool_is_up(PvsPool *p);

/*
 * Is a store up? If none has answered yet, wait until request-timeout after
 * opening, at most two seconds, or until a drain begins.
 */
bool coroutine_fn GRAPH_UNLOCKED pvs_pool_co_wait_up(PvsPool *p);

/*
 * A drain is under way for so long that connections that owe an answer are to
 * be broken. Main loop.
 */
void pvs_pool_break(PvsPool *p);

/* Does a read fail now, because the outage took too long? Takes the lock. */
bool pvs_pool_fails_at_once(PvsPool *p);

/* The first store, if it is a local file; NULL otherwise */
BdrvChild *pvs_pool_local_child(PvsPool *p);

/* For query-vdisks. Main loop. */
unsigned pvs_pool_stores(const PvsPool *p);
Store pvs_pool_store(PvsPool *p, unsigned i);
PvsStoreState pvs_pool_state_told(StoreState state);
const char *pvs_pool_store_name(const PvsPool *p, unsigned i);

/* Begin of the outage that goes on, ns; 0: none */
int64_t pvs_pool_outage_since(PvsPool *p);

/* Since when a read waits that no store which is up has right; ns, 0: none */
int64_t pvs_pool_denied_since(PvsPool *p);

/* Its image is not used any more: an outage that was told ends. Main loop. */
void pvs_pool_end_outage(PvsPool *p);

#endif /* BLOCK_PVS_POOL_H */
