/*
 * Assigning an image to a pooled vDisk, and taking it at a reset
 *
 *            vdisk-assign                  reset
 *   (none) ---------------> assigned ----------------> (none), on the image
 *      ^                     |  ^  |
 *      +---------------------+  +--+  the image cannot be taken: the disk stays
 *          vdisk-unassign             on what it has, tried again next time
 *
 * The header says what is assigned, so this outlives the process. While the
 * process runs, the image is kept open from the assignment on: what was
 * checked is what is taken, though its name may be gone by then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-vdisk.h"
#include "qemu/error-report.h"
#include "block/vdisk/layer.h"
#include "system/block-backend.h"

/* Does @image, or anything below it, need @bs or its file? */
static bool GRAPH_RDLOCK depends_on(BlockDriverState *image,
                                    BlockDriverState *bs)
{
    BdrvChild *child;

    if (image == bs ||
        vdisk_same_file(image->filename, bs->file->bs->filename)) {
        return true;
    }
    QLIST_FOREACH(child, &image->children, next) {
        if (depends_on(child->bs, bs)) {
            return true;
        }
    }
    return false;
}

/* Could everything that uses the disk see it grow? */
static bool can_grow(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_RESIZE, BLK_PERM_ALL,
                                        errp);

    if (!blk) {
        error_prepend(errp, "The image is larger than the disk, which cannot "
                      "grow in use: ");
        return false;
    }
    blk_unref(blk);
    return true;
}

static bool GRAPH_RDLOCK image_check(VdiskLayer *l, BlockDriverState *image,
                                     Error **errp)
{
    BlockDriverState *bs = l->bs;
    int64_t size = bdrv_getlength(image);
    uint64_t max = vdisk_header_max_size(&l->header);

    if (depends_on(image, bs)) {
        error_setg(errp, "The image depends on the disk itself");
        return false;
    }
    if (size < 0) {
        error_setg_errno(errp, -size, "Could not get the image's size");
        return false;
    }
    if (size < l->header.virtual_size) {
        error_setg(errp, "The image has %" PRId64 " bytes and is smaller than "
                   "the disk with %" PRIu64, size, l->header.virtual_size);
        return false;
    }
    if (size > max || !QEMU_IS_ALIGNED(size, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "The image has %" PRId64 " bytes; the disk's file "
                   "has room for %" PRIu64, size, max);
        return false;
    }
    return true;
}

/* Open what is to be assigned, and refuse what could not be taken */
static BlockDriverState *image_open(VdiskLayer *l, const VdiskImageName *image,
                                    Error **errp)
{
    BlockDriverState *bs = l->bs;
    BlockDriverState *opened = l->ops->open_image(bs, image, errp);
    int64_t size;
    bool ok;

    if (!opened) {
        return NULL;
    }
    bdrv_graph_rdlock_main_loop();
    ok = image_check(l, opened, errp);
    size = bdrv_getlength(opened);
    bdrv_graph_rdunlock_main_loop();
    if (ok && size > l->header.virtual_size) {
        ok = can_grow(bs, errp);
    }
    if (!ok) {
        bdrv_unref(opened);
        return NULL;
    }
    return opened;
}

static void header_set_assigned(VdiskHeader *h, const void *opaque)
{
    h->assigned = *(const VdiskImageName *)opaque;
}

/*
 * Make @opened, which is no image if it is NULL, the one that @image in the
 * header names
 */
static bool coroutine_fn GRAPH_UNLOCKED
co_set_assigned(VdiskLayer *l, const VdiskImageName *image,
                BlockDriverState *opened, Error **errp)
{
    BlockDriverState *drop = opened;
    int ret;

    if (l->bs->open_flags & BDRV_O_INACTIVE) {
        error_setg(errp, "The disk '%s' is inactive: another process may use "
                   "it", bdrv_get_node_name(l->bs));
        bdrv_co_unref(opened);
        return false;
    }
    /* Whoever closes the disk waits for this, also when the process ends */
    vdisk_background_begin(l);
    WITH_GRAPH_RDLOCK_GUARD() {
        ret = vdisk_layer_co_change_header(l, header_set_assigned, image);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the assignment into the "
                         "disk's file");
    } else {
        drop = l->assigned_bs;
        l->assigned_bs = opened;
    }
    bdrv_co_unref(drop);
    vdisk_background_end(l);
    return ret >= 0;
}

typedef struct ImageOpenCo {
    Coroutine *co;
    VdiskLayer *l;
    const VdiskImageName *image;
    Error **errp;
    BlockDriverState *opened;
} ImageOpenCo;

static void image_open_bh(void *opaque)
{
    ImageOpenCo *oc = opaque;
    BlockDriverState *bs = oc->l->bs;

    oc->opened = image_open(oc->l, oc->image, oc->errp);
    aio_co_wake(oc->co);
    bdrv_unref(bs);
}

/*
 * Images are opened outside of coroutines. Until then the disk is kept, and
 * when this returns, it is not yet closed.
 */
static BlockDriverState * coroutine_fn
co_image_open(VdiskLayer *l, const VdiskImageName *image, Error **errp)
{
    ImageOpenCo oc = {
        .co = qemu_coroutine_self(), .l = l, .image = image, .errp = errp,
    };

    bdrv_ref(l->bs);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), image_open_bh, &oc);
    qemu_coroutine_yield();
    return oc.opened;
}

static bool check_assignable(VdiskLayer *l, Error **errp)
{
    if (!l->pooled) {
        error_setg(errp, "The disk '%s' is dedicated: what it keeps belongs "
                   "to the image that it was written over",
                   bdrv_get_node_name(l->bs));
        return false;
    }
    if (bdrv_is_read_only(l->bs)) {
        error_setg(errp, "The disk '%s' is open read-only",
                   bdrv_get_node_name(l->bs));
        return false;
    }
    return true;
}

bool coroutine_fn vdisk_co_assign(VdiskLayer *l, const VdiskImageName *image,
                                  Error **errp)
{
    BlockDriverState *opened;
    bool ok;

    if (!check_assignable(l, errp)) {
        return false;
    }
    opened = co_image_open(l, image, errp);
    if (!opened) {
        return false;
    }
    /* Whoever closes the disk waits for this, also when the process ends */
    vdisk_background_begin(l);
    if (l->ops->co_image_usable && !l->ops->co_image_usable(opened, errp)) {
        bdrv_co_unref(opened);
        ok = false;
    } else {
        ok = co_set_assigned(l, image, opened, errp);
    }
    vdisk_background_end(l);
    return ok;
}

bool coroutine_fn vdisk_co_unassign(VdiskLayer *l, Error **errp)
{
    static const VdiskImageName none;

    return !l->header.assigned.name[0] ||
           (check_assignable(l, errp) &&
            co_set_assigned(l, &none, NULL, errp));
}

void vdisk_assign_release(VdiskLayer *l)
{
    bdrv_unref(l->assigned_bs);
    l->assigned_bs = NULL;
}

/* The disk grows before it takes the image: never smaller than what is read */
static bool grow_to(BlockDriverState *bs, int64_t size, Error **errp)
{
    BlockBackend *blk;
    int ret;

    if (size <= bs->total_sectors * BDRV_SECTOR_SIZE) {
        return true;
    }
    blk = blk_new_with_bs(bs, BLK_PERM_RESIZE, BLK_PERM_ALL, errp);
    if (!blk) {
        return false;
    }
    ret = blk_truncate(blk, size, false, PREALLOC_MODE_OFF, 0, errp);
    blk_unref(blk);
    return ret >= 0;
}

static bool is_assigned(const VdiskLayer *l, const VdiskImageName *name)
{
    const VdiskImageName *assigned = &l->header.assigned;

    return g_str_equal(assigned->name, name->name) &&
           g_str_equal(assigned->format, name->format) &&
           assigned->version == name->version &&
           !memcmp(assigned->root, name->root, sizeof(name->root));
}

/*
 * The file follows what the process does, when the guest runs: to wait for it
 * now could take seconds. If the power fails before, or the header cannot be
 * written, the image is still assigned, and the next start takes it again.
 */
static void record_taken(VdiskLayer *l, const VdiskImageName *name,
                         int64_t size)
{
    l->header.base = *name;
    l->header.base.size = size;
    if (is_assigned(l, name)) {
        memset(&l->header.assigned, 0, sizeof(l->header.assigned));
        vdisk_assign_release(l);
    }
    vdisk_background_write_header(l);
}

/* The disk may have grown since the image was assigned */
static bool still_fits(VdiskLayer *l, int64_t size, Error **errp)
{
    if (size < (int64_t)l->header.virtual_size) {
        error_setg(errp, "The image has %" PRId64 " bytes and is smaller than "
                   "the disk with %" PRIu64, size, l->header.virtual_size);
        return false;
    }
    return true;
}

typedef struct UsableCo {
    VdiskLayer *l;
    BlockDriverState *image;
    Error **errp;
    bool ok, done;
} UsableCo;

static void coroutine_fn usable_entry(void *opaque)
{
    UsableCo *uc = opaque;

    uc->ok = uc->l->ops->co_image_usable(uc->image, uc->errp);
    uc->done = true;
    aio_wait_kick();
}

/* Takes a bounded time, see VdiskLayerOps */
static bool usable(VdiskLayer *l, BlockDriverState *image, Error **errp)
{
    UsableCo uc = { .l = l, .image = image, .errp = errp };

    if (!l->ops->co_image_usable) {
        return true;
    }
    qemu_coroutine_enter(qemu_coroutine_create(usable_entry, &uc));
    BDRV_POLL_WHILE(image, !uc.done);
    return uc.ok;
}

static void tell_failed(VdiskLayer *l, const VdiskImageName *name,
                        const char *reason)
{
    VdiskImage image = {
        .filename = (char *)name->name, .format = (char *)name->format,
    };
    bool streamed = l->role != VDISK_ROLE_MCS;

    qapi_event_send_vdisk_assign_failed(bdrv_get_node_name(l->bs),
                                        streamed ? NULL : &image, streamed,
                                        name->version, reason);
}

/* For the next time, unless another one was assigned meanwhile */
static void keep_image(VdiskLayer *l, const VdiskImageName *name,
                       BlockDriverState *image)
{
    if (!l->assigned_bs && is_assigned(l, name)) {
        l->assigned_bs = image;
    } else {
        bdrv_unref(image);
    }
}

bool vdisk_take_assigned(VdiskLayer *l)
{
    g_autofree VdiskImageName *name = NULL;
    BlockDriverState *image;
    Error *err = NULL;
    int64_t size;

    if (!l->header.assigned.name[0] || bdrv_is_read_only(l->bs)) {
        return false;
    }
    if (vdisk_is_migrating()) {
        return false;   /* the destination has the present image open */
    }
    name = g_memdup2(&l->header.assigned, sizeof(*name));
    /* All that follows polls, and vdisk-assign may end with another image */
    image = g_steal_pointer(&l->assigned_bs);
    if (!image) {
        image = image_open(l, name, &err);
    }
    size = image ? bdrv_getlength(image) : -1;
    if (image && usable(l, image, &err) && still_fits(l, size, &err) &&
        grow_to(l->bs, size, &err) &&
        l->ops->set_base(l->bs, image, &err) >= 0) {
        bdrv_unref(image);
        record_taken(l, name, size);
        return true;
    }
    /* It may have grown all the same */
    vdisk_background_write_header(l);
    /* A bad push never costs a boot: on with the image that it has */
    keep_image(l, name, image);
    tell_failed(l, name, error_get_pretty(err));
    warn_report_err(err);
    return false;
}
