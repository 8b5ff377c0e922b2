/*
 * mcs: the base image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "block/mcs/mcs.h"

bool mcs_is_own_base(BlockDriverState *bs, const char *base)
{
    const char *file = bs->file->bs->filename;
    g_autofree char *name =
        bdrv_get_full_backing_filename_from_filename(file, base, NULL);

    return name && vdisk_same_file(name, file);
}

/*
 * Who opens a base inherits its options to it, so the disks above are known.
 * Only names are looked at: whether the base is wanted at all is not known yet
 * ("backing": null), but what names itself is damaged in any case.
 */
int mcs_check_loop(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    const char *file = bs->file->bs->filename;
    g_autofree char *name = NULL;

    if (!bs->backing_file[0] || (bs->open_flags & BDRV_O_NO_BACKING)) {
        return 0;
    }
    name = bdrv_get_full_backing_filename(bs, errp);
    if (!name) {
        return -EINVAL;
    }
    for (BlockDriverState *p = bs; p; p = p->inherits_from) {
        if (!p->file || !vdisk_same_file(name, p->file->bs->filename)) {
            continue;
        }
        if (p == bs) {
            error_setg(errp, "The disk '%s' names itself as its base image",
                       file);
        } else {
            error_setg(errp, "The base images form a loop: '%s' names '%s', "
                       "which stands on it", file, name);
        }
        error_append_hint(errp, "Name another one with 'qemu-img rebase -u -b "
                          "IMAGE -F FORMAT'.\n");
        return -ELOOP;
    }
    return 0;
}

/*
 * The one callback that sees the base when it is attached and can refuse it.
 * It is called for other changes of the graph too, which must not fail any more
 * then: jobs put filters between, or leave a smaller base when they are done.
 */
int mcs_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                   Error **errp)
{
    ERRP_GUARD();
    BDRVMcsState *s = bs->opaque;
    BlockDriverState *base = bs->backing ? bdrv_skip_filters(bs->backing->bs)
                                         : NULL;
    int64_t size;

    /* A filter that a job is about to insert may have no size yet */
    if (!base || s->base_accepted || (base->drv && base->drv->is_filter)) {
        return 0;
    }
    size = base->total_sectors * BDRV_SECTOR_SIZE;
    if (size < s->layer.header.base.size) {
        error_setg(errp, "The base image '%s' has %" PRId64 " bytes, but had "
                   "%" PRIu64 " when the disk was made on it",
                   base->filename, size, s->layer.header.base.size);
        error_append_hint(errp, "It was replaced or cut off. Bring the right "
                          "one back, or accept this one with 'qemu-img rebase "
                          "-u'; the disk itself is unchanged.\n");
        return -EINVAL;
    }
    s->base_accepted = true;
    return 0;
}

/* The name of the disk's file; it stays as long as the disk is open */
static const char *file_name(BlockDriverState *bs)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bs->file->bs->filename;
}

BlockDriverState *mcs_open_image(BlockDriverState *bs,
                                 const VdiskImageName *image, Error **errp)
{
    const char *file = file_name(bs);
    g_autofree char *name =
        bdrv_get_full_backing_filename_from_filename(file, image->name, errp);
    QDict *options;

    if (!name) {
        return NULL;
    }
    if (vdisk_same_file(name, file)) {
        error_setg(errp, "'%s' is the disk itself", image->name);
        return NULL;
    }
    options = qdict_new();
    qdict_put_str(options, "driver", image->format);
    return bdrv_open(name, NULL, options, 0, errp);
}
