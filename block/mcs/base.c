/*
 * mcs: the base image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "block/mcs/mcs.h"

bool mcs_same_file(const char *name, const char *other)
{
    struct stat a, b;

    strstart(name, "file:", &name);
    strstart(other, "file:", &other);
    return stat(name, &a) == 0 && stat(other, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool mcs_is_own_base(BlockDriverState *bs, const char *base)
{
    const char *file = bs->file->bs->filename;
    g_autofree char *name =
        bdrv_get_full_backing_filename_from_filename(file, base, NULL);

    return name && mcs_same_file(name, file);
}

/*
 * A disk that is among its own bases would open itself until memory ends. Who
 * opens a base inherits its options to it, so the disks above are known.
 */
static int GRAPH_RDLOCK base_check_loop(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    const char *file = bs->file->bs->filename;
    g_autofree char *name = NULL;

    if (!bs->backing_file[0]) {
        return 0;
    }
    name = bdrv_get_full_backing_filename(bs, errp);
    if (!name) {
        return -EINVAL;
    }
    for (BlockDriverState *p = bs; p; p = p->inherits_from) {
        if (!p->file || !mcs_same_file(name, p->file->bs->filename)) {
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

/* A base that is shorter than it was is another image, or a damaged one */
static int GRAPH_RDLOCK base_check_size(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    BDRVMcsState *s = bs->opaque;
    uint64_t expected = s->layer.header.base_size;
    int64_t size = bdrv_getlength(bs->backing->bs);

    if (size < 0) {
        error_setg_errno(errp, -size, "Could not get the base image's size");
        return size;
    }
    if (size < expected) {
        error_setg(errp, "The base image '%s' has %" PRId64 " bytes, but had "
                   "%" PRIu64 " when the disk was made on it",
                   bs->backing->bs->filename, size, expected);
        error_append_hint(errp, "It was replaced or cut off. Bring the right "
                          "one back, or accept this one with 'qemu-img rebase "
                          "-u'; the disk itself is unchanged.\n");
        return -EINVAL;
    }
    return 0;
}

int mcs_open_base(BlockDriverState *bs, QDict *options, Error **errp)
{
    int ret;

    if (bs->open_flags & BDRV_O_NO_BACKING) {
        return 0;
    }
    bdrv_graph_rdlock_main_loop();
    ret = base_check_loop(bs, errp);
    bdrv_graph_rdunlock_main_loop();
    if (ret < 0) {
        return ret;
    }
    /* The block layer does this after .bdrv_open, and could not be refused */
    ret = bdrv_open_backing_file(bs, options, "backing", errp);
    if (ret < 0) {
        return ret;
    }
    bdrv_graph_rdlock_main_loop();
    ret = bs->backing ? base_check_size(bs, errp) : 0;
    bdrv_graph_rdunlock_main_loop();
    return ret;
}
