/*
 * pvs-image: one version of a vDisk, as it is read
 *
 *   request --> host cache --> fetch in flight --> stores --> verity
 *
 * An internal, read-only node below each pvs node; an assignment opens another
 * one and a reset puts it in place. Its address space ends with the version;
 * behind it, from tree_base on, come the blocks of the tree file, for the cache
 * and for fetches only.
 *
 * Lock: waits.lock, for all that is not said to be something else's; a leaf
 * lock, nothing is called with it held that takes others or waits.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_IMAGE_H
#define BLOCK_PVS_IMAGE_H

#include "qemu/units.h"
#include "block/pvs/pool.h"
#include "block/pvs/verity.h"

/* What one fetch asks a store for at most; bytes */
#define PVS_FETCH_MAX       (512 * KiB)

/*
 * For so long who fetches in the background waits for what somebody else
 * fetches, who waits for as long as it takes; ns
 */
#define PVS_PATIENCE        (5 * NANOSECONDS_PER_SECOND)

typedef struct PvsTree PvsTree;
typedef struct PvsCache PvsCache;
typedef struct PvsFetch PvsFetch;
typedef struct PvsAhead PvsAhead;
typedef struct PvsDelta PvsDelta;

typedef enum PvsUrgency {
    PVS_DEMAND,                 /* somebody waits for it */
    PVS_AHEAD,                  /* somebody will, as it looks */
    PVS_BACKGROUND,
    PVS_URGENCIES,
} PvsUrgency;

/*
 * What the guest was last denied although stores are up: none of them has it
 * right. It is asked for again while the guest stands still. Under the lock.
 */
typedef struct PvsLack {
    int64_t offset;
    int64_t bytes;              /* 0: it was denied nothing so */
    int64_t at;                 /* ns */
    int64_t since;              /* ns; of the first one of this stop */
    bool asking;                /* a coroutine of resume-system.c does */
    bool told;                  /* by an event */
} PvsLack;

typedef struct PvsImage {
    /* Never changed after open */
    BlockDriverState *bs;
    char *node_name;            /* of the vDisk, for events */
    char *vdisk;                /* name; NULL if none was given */
    uint64_t version;
    char *root;                 /* root hash in hexadecimal; NULL: no tree */
    uint8_t root_hash[VERITY_HASH_BYTES];
    int64_t size;               /* bytes of the version */
    int64_t tree_base;          /* size in whole granules, bytes */
    bool owner;                 /* of the host cache: a relay */
    PvsPool *stores;
    PvsTree *tree;              /* NULL: nothing is verified */
    PvsAhead *ahead;            /* NULL: not the owner of a cache */
    StoreOutageAction outage_action;

    PvsWaits waits;
    QLIST_HEAD(, PvsFetch) fetches;     /* in flight */
    unsigned in_flight[PVS_URGENCIES];      /* how many, by urgency */

    PvsLack lack;

    /* Set in the main loop, read anywhere; what was there stays until close */
    PvsCache *cache;            /* atomic; NULL: none at present */

    /* Set under the lock in the main loop, and atomic; see pvs_delta_get() */
    PvsDelta *delta;            /* an older version; NULL: none */

    /* Main loop */
    QEMUTimer *break_timer;     /* runs from the begin of a drain on */
    char *cache_name;
    char *cache_map;
    QEMUTimer *attach_timer;    /* a desktop's: looks for the cache */
    GPtrArray *old_caches;      /* replaced, but may be in use */

    /* Atomic */
    bool gave_up;               /* failed a read for an outage or a drain */
    uint64_t corrupt;           /* answers that were not what was sealed */
} PvsImage;

/* image.c */

/* Where its address space ends, with that of the tree; bytes */
int64_t pvs_image_end(const PvsImage *img);

/* The image of a pvs node; @bs is its child */
PvsImage *pvs_image(BlockDriverState *bs);

/* Made before there are drains; breaks connections in one that takes long */
QEMUTimer *pvs_image_break_timer(PvsImage *img);

/* The node above begins and ends a drain. Main loop. */
void pvs_image_drain_begin(PvsImage *img);
void pvs_image_drain_end(PvsImage *img);

/*
 * A drain or an outage is over: let the guest go on, if it was stopped for that
 */
void pvs_image_store_is_back(PvsImage *img);

/* Forget what it was denied before @before, ns, and tell that. Main loop. */
void pvs_image_forget_lack(PvsImage *img, int64_t before);

/* Another image has taken its place: no outage of it goes on. Main loop. */
void pvs_image_end_outages(PvsImage *img);

/* Would a read fail at once, for an outage that takes too long? */
bool pvs_image_fails_at_once(PvsImage *img);

/*
 * Read whatever the cache says. As pvs_pool_co_read(); *@buf begins with the
 * granule that @offset is in.
 */
int coroutine_fn GRAPH_UNLOCKED
pvs_image_co_read_past_cache(PvsImage *img, int64_t offset, int64_t bytes,
                             uint8_t **buf);

/* An answer of store @store, or of a tree's, was not what was sealed */
void pvs_image_report_corrupt(PvsImage *img, bool tree, const char *store,
                              int64_t offset, int64_t bytes);

/* image-cache.c */

/* The cache, or NULL if there is none at present. Any thread. */
static inline PvsCache *pvs_image_cache(const PvsImage *img)
{
    PvsCache *cache = qatomic_read(&img->cache);

    smp_rmb();                  /* before what it points to */
    return cache;
}

/*
 * Own the host cache @name, or attach to it as soon as it is there. Either name
 * may be NULL: no cache, or the default. @limit is in bytes; 0: none.
 */
bool pvs_image_open_cache(PvsImage *img, const char *name, const char *map,
                          uint64_t limit, Error **errp);
void pvs_image_close_cache(PvsImage *img);

/* Bytes of image and tree that are not in the cache */
int64_t pvs_image_missing(const PvsImage *img);

/* fetch.c */

/*
 * Begin to fetch from @offset on, or find who does already, and how many bytes
 * up to @bytes that covers in *@n. NULL if they are in the cache by now. The
 * caller has an in-flight count on the node, unless nobody waits for it, and
 * one reference to the result. *@n is 0 if the node is being drained, which
 * work in the background has to wait for.
 */
PvsFetch * coroutine_fn pvs_fetch_begin(PvsImage *img, int64_t offset,
                                       int64_t bytes, PvsUrgency urgency,
                                       int64_t *n);

/*
 * Wait until @f has its data; 0 or -errno. -ENODATA means that it was begun in
 * the background, and no store that is up has all of it right: what somebody
 * wants of it is to be read past it. Without the graph lock.
 */
int coroutine_fn GRAPH_UNLOCKED pvs_fetch_co_wait(PvsImage *img, PvsFetch *f);

/* As above, but no longer than until @until, ns: then -ECANCELED */
int coroutine_fn GRAPH_UNLOCKED
pvs_fetch_co_wait_until(PvsImage *img, PvsFetch *f, int64_t until);

/*
 * As above, and no longer than until *@stop is set under the lock, and all who
 * wait are woken.
 */
int coroutine_fn GRAPH_UNLOCKED
pvs_fetch_co_wait_unless(PvsImage *img, PvsFetch *f, const bool *stop,
                         int64_t until);

/* Does it go on for as long as no store has it right? */
bool pvs_fetch_is_patient(const PvsFetch *f);

/* Has it? Then the rest needs no waiting: 0 or -errno. */
bool pvs_fetch_is_done(PvsFetch *f);
int pvs_fetch_result(PvsFetch *f);

/* What it fetched at @offset, once it is done with success */
const uint8_t *pvs_fetch_data(const PvsFetch *f, int64_t offset);
void pvs_fetch_unref(PvsImage *img, PvsFetch *f);

/* Wait until what was fetched is in the cache too, then as pvs_fetch_unref */
void coroutine_fn pvs_fetch_co_settle(PvsImage *img, PvsFetch *f);

#endif /* BLOCK_PVS_IMAGE_H */
