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
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qobject/qdict.h"
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
    BlockDriverState *opened;
    g_autofree char *name = NULL;
    QDict *options;
    int64_t size;
    bool ok;

    name = bdrv_get_full_backing_filename_from_filename(bs->file->bs->filename,
                                                        image->name, errp);
    if (!name) {
        return NULL;
    }
    if (vdisk_same_file(name, bs->file->bs->filename)) {
        error_setg(errp, "'%s' is the disk itself", image->name);
        return NULL;
    }
    options = qdict_new();
    qdict_put_str(options, "driver", image->format);
    opened = bdrv_open(name, NULL, options, 0, errp);
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

static bool set_assigned(VdiskLayer *l, const VdiskImageName *image,
                         Error **errp)
{
    int ret = vdisk_layer_change_header(l, header_set_assigned, image);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the assignment into the "
                         "disk's file");
        return false;
    }
    return true;
}

bool vdisk_assign(VdiskLayer *l, const char *name, const char *format,
                  Error **errp)
{
    g_autofree VdiskImageName *image = g_new0(VdiskImageName, 1);
    g_autofree char *why = NULL;
    BlockDriverState *opened;

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
    if (!*name || !vdisk_image_name_valid(name, format, &why)) {
        error_setg(errp, "Cannot assign '%s': %s", name,
                   why ?: "an image is needed");
        return false;
    }
    pstrcpy(image->name, sizeof(image->name), name);
    pstrcpy(image->format, sizeof(image->format), format);
    opened = image_open(l, image, errp);
    if (!opened) {
        return false;
    }
    if (!set_assigned(l, image, errp)) {
        bdrv_unref(opened);
        return false;
    }
    bdrv_unref(l->assigned_bs);
    l->assigned_bs = opened;
    return true;
}

bool vdisk_unassign(VdiskLayer *l, Error **errp)
{
    static const VdiskImageName none;

    if (l->header.assigned.name[0] && !set_assigned(l, &none, errp)) {
        return false;
    }
    vdisk_assign_release(l);
    return true;
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

static void header_set_taken(VdiskHeader *h, const void *opaque)
{
    h->base = h->assigned;
    h->base_size = *(const int64_t *)opaque;
    memset(h->token, 0, sizeof(h->token));
    memset(&h->assigned, 0, sizeof(h->assigned));
}

/*
 * The file follows what the process does: if the header cannot be written, or
 * the power fails before it is, the next start takes the image again.
 */
static void record_taken(VdiskLayer *l, int64_t size)
{
    int ret = vdisk_layer_change_header(l, header_set_taken, &size);

    if (ret < 0) {
        l->header.base = l->header.assigned;
        l->header.base_size = size;
        warn_report("Could not write to '%s' which image the disk runs on: "
                    "%s; it is taken again at the next start",
                    l->bs->file->bs->filename, strerror(-ret));
    }
}

bool vdisk_take_assigned(VdiskLayer *l)
{
    BlockDriverState *image = l->assigned_bs;
    g_autofree VdiskImageName *name = NULL;
    Error *err = NULL;
    int64_t size;

    if (!l->header.assigned.name[0] || bdrv_is_read_only(l->bs)) {
        return false;
    }
    if (vdisk_is_migrating()) {
        return false;   /* the destination has the present image open */
    }
    name = g_memdup2(&l->header.assigned, sizeof(*name));
    if (!image) {
        image = image_open(l, name, &err);
    }
    size = image ? bdrv_getlength(image) : -1;
    if (image && grow_to(l->bs, size, &err) &&
        l->ops->set_base(l->bs, image, &err) >= 0) {
        bdrv_unref(image);
        l->assigned_bs = NULL;
        record_taken(l, size);
        return true;
    }
    /* A bad push never costs a boot: on with the image that it has */
    l->assigned_bs = image;
    qapi_event_send_vdisk_assign_failed(bdrv_get_node_name(l->bs),
                                        &(VdiskImage) {
                                            .filename = name->name,
                                            .format = name->format,
                                        }, error_get_pretty(err));
    warn_report_err(err);
    return false;
}
