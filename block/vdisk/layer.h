/*
 * Layer: the local file that holds what a desktop wrote
 *
 * The glue between the granule map, the header and the block layer; used by
 * mcs for its differencing disk and by pvs for its write cache. The format and
 * its crash argument are in docs/interop/layer.rst.
 *
 * Lock order: header_lock, flush_gate, hold_lock. Child I/O goes on under the
 * first two, never under hold_lock. A granule hold is not a lock of this list:
 * who holds granules never waits for others, so holds cannot form a circle.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_LAYER_H
#define BLOCK_VDISK_LAYER_H

#include "block/block-io.h"
#include "block/block_int.h"
#include "block/reqlist.h"
#include "block/vdisk/header.h"
#include "block/vdisk/map.h"
#include "block/vdisk/tier.h"

typedef struct VdiskInfo VdiskInfo;
typedef struct VdiskTier VdiskTier;
typedef struct VdiskBackground VdiskBackground;

typedef BlockDriverState *VdiskOpenImage(BlockDriverState *bs,
                                         const VdiskImageName *image,
                                         Error **errp);

typedef struct VdiskLayerOps {
    /*
     * Read what the layer does not hold, from wherever the driver has it.
     * The range lies inside the disk. Zeros where the base has ended.
     */
    int coroutine_fn GRAPH_RDLOCK_PTR
    (*co_read_base)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset);

    /*
     * Read from @image instead from now on. Main loop; the node is idle or
     * drained. The caller keeps its reference to @image.
     */
    int GRAPH_UNLOCKED_PTR
    (*set_base)(BlockDriverState *bs, BlockDriverState *image, Error **errp);

    /* Open what the header names or shall name. Main loop, no coroutine. */
    VdiskOpenImage *open_image;

    /*
     * Can @image, which open_image gave, be read from? Waits for a bounded
     * time. NULL: what could be opened can be.
     */
    bool coroutine_fn GRAPH_UNLOCKED_PTR
    (*co_image_usable)(BlockDriverState *image, Error **errp);

    /* Tell what is particular to the driver. NULL: nothing. Main loop. */
    void GRAPH_RDLOCK_PTR
    (*query)(BlockDriverState *bs, VdiskInfo *info);
} VdiskLayerOps;

struct VdiskLayer {
    /* Never changed after open */
    BlockDriverState *bs;           /* the driver's; bs->file is the file */
    const VdiskLayerOps *ops;
    VdiskRole role;                 /* that the driver opens files of */
    bool pooled;
    VdiskTier *tier;                /* of a pooled layer; NULL if none */
    bool keep_space;                /* pooled: of the last session */
    /*
     * Reading the base can take for ever, so nobody who waits for that keeps
     * the graph lock
     */
    bool remote_base;

    /* Changed in open, under header_lock, and by resets in the main loop */
    CoMutex header_lock;
    VdiskHeader header;
    int header_copy;                /* where on disk the header above is */
    bool map_damaged;               /* some granules are in state BAD */

    /* Read by every request without a lock */
    VdiskMap map;
    int64_t data_offset;
    int sync_error;                 /* atomic; pooled: of the last sync */
    bool unsynced;                  /* atomic; pooled: written since then */
    bool saved;                     /* atomic; pooled: token is in the file */
    bool guest_active;              /* atomic; requests since last looked */

    /* Under hold_lock */
    CoMutex hold_lock;
    BlockReqList holds;

    /* One flush at a time: none returns on another's unfinished work */
    CoMutex flush_gate;

    /* Main loop only */
    bool reset_on_start;            /* forget at the first reset only */
    unsigned resets;                /* that this layer saw */
    bool resetting;                 /* no client may come in */
    VdiskBackground *background;    /* of an open pooled layer, else NULL */
    bool incoming;                  /* opened to resume a saved state */
    uint8_t own_token[VDISK_TOKEN_BYTES];   /* last one set by this process */
    BlockDriverState *assigned_bs;  /* the assigned image, if it is open */
    QLIST_ENTRY(VdiskLayer) nodes;
};

/* Granules held against everybody who would change their state */
typedef struct VdiskHold {
    BlockReq req;
} VdiskHold;

static inline uint64_t vdisk_granules(int64_t bytes)
{
    return DIV_ROUND_UP((uint64_t)bytes, VDISK_GRANULE);
}

/* layer.c: open, close, header and flush */

/*
 * Open @bs->file as a layer of role @role; another one is an error. With
 * BDRV_O_CHECK in @flags, damage that vdisk_layer_co_check() can tell of does
 * not fail it. Main loop, not in a coroutine. On failure nothing is to be
 * closed.
 */
int GRAPH_UNLOCKED vdisk_layer_open(VdiskLayer *l, BlockDriverState *bs,
                                    const VdiskLayerOps *ops, VdiskRole role,
                                    int flags, Error **errp);
void vdisk_layer_close(VdiskLayer *l);

/*
 * Read header and map again, as another process left them. Those of a pooled
 * layer must belong to the saved state that is resumed.
 */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_reload(VdiskLayer *l, int flags, Error **errp);

/*
 * Make @new the header, durably; its generation is set here. After an error
 * the old one still counts. Called with header_lock held, since before @new was
 * copied from the header.
 */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_set_header(VdiskLayer *l, const VdiskHeader *new);

typedef void VdiskHeaderChange(VdiskHeader *h, const void *opaque);

/*
 * Change the header, durably and then in memory. @change must touch nothing
 * else than what is to change: a reset may come in between.
 */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_change_header(VdiskLayer *l, VdiskHeaderChange *change,
                             const void *opaque);

/* Make the header that is in memory the one on disk, durably */
int coroutine_fn GRAPH_RDLOCK vdisk_layer_co_write_header(VdiskLayer *l);

/* Make everything that was written before the call durable (L1, L2) */
int coroutine_fn GRAPH_RDLOCK vdisk_layer_co_flush(VdiskLayer *l);

/*
 * Make the file's map the one in memory, and durable, with the data that it
 * vouches for, whatever the file had before. The layer is drained.
 */
int coroutine_fn GRAPH_RDLOCK vdisk_layer_co_write_map(VdiskLayer *l);

/* The map in the file is not known any more: all that is not base is written */
void vdisk_layer_mark_map_dirty(VdiskLayer *l);

/* layer-io.c: requests */

/*
 * Hold granules @first up to but not including @end; waits for others, and may
 * let go of the graph lock meanwhile
 */
void coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_hold(VdiskLayer *l, VdiskHold *hold, uint64_t first,
                    uint64_t end);
void coroutine_fn vdisk_layer_co_release(VdiskLayer *l, VdiskHold *hold);

/* A request has come: work in the background stands back */
static inline void vdisk_note_guest(VdiskLayer *l)
{
    if (!qatomic_read(&l->guest_active)) {
        qatomic_set(&l->guest_active, true);
    }
}

int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_preadv(VdiskLayer *l, int64_t offset, int64_t bytes,
                      QEMUIOVector *qiov, size_t qiov_offset);
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_pwritev(VdiskLayer *l, int64_t offset, int64_t bytes,
                       QEMUIOVector *qiov, size_t qiov_offset);

/*
 * Write whole granules, @first up to but not including @end, which the caller
 * holds; @buf has zeros where the last one is behind the end of the disk.
 */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_put(VdiskLayer *l, uint64_t first, uint64_t end, void *buf);

/*
 * Put the range into state zero and, with @punch, give back the space. -ENOTSUP
 * unless the range consists of granules, or ends with the disk.
 */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_zero(VdiskLayer *l, int64_t offset, int64_t bytes, bool punch);

/* Result as of .bdrv_co_block_status */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_block_status(VdiskLayer *l, int64_t offset, int64_t bytes,
                            int64_t *pnum, int64_t *map,
                            BlockDriverState **file);

/* layer-admin.c: what an administrator does to a layer */

/*
 * Grow the disk to @size. With @zero, what the base would show between the
 * old and the new end reads as zeros.
 */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_grow(VdiskLayer *l, int64_t size, bool zero, Error **errp);

/* Forget everything that was written, durably, and give the space back */
int GRAPH_RDLOCK vdisk_layer_empty(VdiskLayer *l);

/* Verify, and repair what can be. As .bdrv_co_check. */
int coroutine_fn GRAPH_RDLOCK
vdisk_layer_co_check(VdiskLayer *l, BdrvCheckResult *result,
                     BdrvCheckMode fix);

/* node.c: the vDisks that are open in this process; main loop only */

void vdisk_node_add(VdiskLayer *l);
void vdisk_node_remove(VdiskLayer *l);

/* The first one after NULL, NULL after the last one */
VdiskLayer *vdisk_node_next(VdiskLayer *l);
VdiskLayer *vdisk_node_find(const char *node_name, Error **errp);

/*
 * Do both names lead to one local file? False for what is not a local file, or
 * not there.
 */
bool vdisk_same_file(const char *name, const char *other);

/* UUID of the desktop that the disk belongs to, to be freed; NULL if none */
char *vdisk_desktop(const VdiskLayer *l);

/* assign.c: the image that a pooled vDisk takes at a reset; main loop only */

/*
 * Coroutines: that the header is durable can take seconds on a busy disk.
 * @image is one that the driver can have.
 */
bool coroutine_fn GRAPH_UNLOCKED
vdisk_co_assign(VdiskLayer *l, const VdiskImageName *image, Error **errp);
bool coroutine_fn GRAPH_UNLOCKED vdisk_co_unassign(VdiskLayer *l, Error **errp);

/*
 * Take the assigned image, if there is one. False if the disk stays on the
 * image that it has; if that is a failure, an event has told so.
 */
bool GRAPH_UNLOCKED vdisk_take_assigned(VdiskLayer *l);

/* Close the assigned image; the header keeps the assignment */
void GRAPH_UNLOCKED vdisk_assign_release(VdiskLayer *l);

/* pooled.c: what makes a layer forget */

/* A pooled layer: take part in resets. Undone by stop. */
void vdisk_pooled_start(VdiskLayer *l);
void vdisk_pooled_stop(VdiskLayer *l);

/* Forget, and take the assigned image. Main loop; the caller holds the node. */
void vdisk_pooled_reset(VdiskLayer *l);

/* Reset every pooled layer that is active in this process. Main loop. */
void vdisk_pooled_reset_all(void);

/* Called once there is a pooled layer; see reset-system.c */
void vdisk_reset_register(void);

/* background.c: pooled layers, main loop only */

void vdisk_background_start(VdiskLayer *l);
void vdisk_background_stop(VdiskLayer *l);

/* What a coroutine in the main loop does in between is background work */
void vdisk_background_begin(VdiskLayer *l);
void vdisk_background_end(VdiskLayer *l);

/* Wait until nothing goes on in the background, and keep it so until resume */
void vdisk_background_pause(VdiskLayer *l);
void vdisk_background_resume(VdiskLayer *l);

/* Write the header that is in memory, some time soon */
void vdisk_background_write_header(VdiskLayer *l);

/* Begin to give back what the file holds of the last session */
void vdisk_reclaim_start(VdiskLayer *l);

/* saved.c: pooled layers on their way to another process */

/* The header was read: is there a saved state that it belongs to? */
void vdisk_saved_loaded(VdiskLayer *l);

/* Save the disk, for whoever gets the token in the header. Main loop. */
int GRAPH_RDLOCK vdisk_saved_suspend(VdiskLayer *l);

/* Make the saved state void, durably, before anything changes (L6) */
int coroutine_fn GRAPH_RDLOCK vdisk_layer_co_forget_saved(VdiskLayer *l);
/* The same from the main loop, not in a coroutine */
int vdisk_saved_forget(VdiskLayer *l);

/* Does activating the layer resume a saved state? Else it begins clean. */
bool vdisk_saved_resumes(const VdiskLayer *l);

/*
 * Is the header that was just read that of the state to resume? @before is
 * what the process knew of it.
 */
bool GRAPH_RDLOCK vdisk_saved_check(const VdiskLayer *l,
                                    const VdiskHeader *before, Error **errp);
void vdisk_saved_resumed(VdiskLayer *l);

/* saved-system.c; tools have neither machine nor migration */

void vdisk_saved_register(void);
bool vdisk_saved_received(const uint8_t *token);
bool vdisk_is_migrating(void);

/*
 * A disk cannot be made inactive: @err is reported, and is what the migration
 * failed for if it is for one. Takes @err.
 */
void vdisk_report_inactivate(Error *err);

#endif /* BLOCK_VDISK_LAYER_H */
