/*
 * mcs: the base image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "block/mcs/mcs.h"

/* Deeper chains are a loop: a push makes no chain deeper than the master's */
#define MAX_DEPTH   200

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

/* A disk that is its own base would open itself until memory ends */
static int GRAPH_RDLOCK base_check_loop(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    int depth = 0;

    if (!bs->backing_file[0]) {
        return 0;
    }
    if (mcs_is_own_base(bs, bs->backing_file)) {
        error_setg(errp, "The disk '%s' names itself as its base image",
                   bs->file->bs->filename);
        error_append_hint(errp, "Name another one with 'qemu-img rebase -u -b "
                          "IMAGE -F FORMAT'.\n");
        return -ELOOP;
    }
    for (BlockDriverState *p = bs; p; p = p->inherits_from) {
        if (++depth > MAX_DEPTH) {
            error_setg(errp, "The base images of '%s' form a loop, or a chain "
                       "of more than %d", bs->file->bs->filename, MAX_DEPTH);
            error_append_hint(errp, "Name another base with 'qemu-img rebase "
                              "-u -b IMAGE -F FORMAT'.\n");
            return -ELOOP;
        }
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
