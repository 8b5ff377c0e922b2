/*
 * pvs: making a desktop's write cache
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/cutils.h"
#include "qemu/option.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "block/pvs/pvs.h"
#include "block/vdisk/create.h"
#include "system/block-backend.h"

QemuOptsList pvs_create_opts = {
    .name = "pvs-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(pvs_create_opts.head),
    .desc = {
        {
            .name = BLOCK_OPT_SIZE,
            .type = QEMU_OPT_SIZE,
            .help = "Size of the version"
        },
        {
            .name = "role",
            .type = QEMU_OPT_STRING,
            .help = "'cache': for what a desktop in standard image mode writes"
        },
        {
            .name = "vdisk",
            .type = QEMU_OPT_STRING,
            .help = "Name of the vDisk"
        },
        {
            .name = "version",
            .type = QEMU_OPT_NUMBER,
            .help = "Version of the vDisk"
        },
        {
            .name = "verity-root",
            .type = QEMU_OPT_STRING,
            .help = "Root hash of the version's verity tree, in hexadecimal"
        },
        {
            .name = "desktop",
            .type = QEMU_OPT_STRING,
            .help = "UUID of the desktop that the file belongs to"
        },
        { /* end of list */ }
    }
};

static bool create_header(VdiskHeader *h, BlockdevCreateOptionsPvs *o,
                          Error **errp)
{
    g_autofree char *why = NULL;

    if (!vdisk_name_valid(o->vdisk, &why)) {
        error_setg(errp, "'vdisk': %s", why);
        return false;
    }
    if (o->verity_root &&
        !verity_root_decode(h->base.root, o->verity_root, &why)) {
        error_setg(errp, "'verity-root': %s", why);
        return false;
    }
    if (o->size == 0) {
        error_setg(errp, "The size of the version is needed");
        return false;
    }
    if (!vdisk_create_header(h, o->size, o->desktop, errp)) {
        return false;
    }
    h->role = VDISK_ROLE_WRITE_CACHE;
    h->lifetime = VDISK_POOLED;
    pstrcpy(h->base.name, sizeof(h->base.name), o->vdisk);
    h->base.version = o->version;
    h->base.size = o->size;
    if (!vdisk_header_valid(h, &why)) {
        error_setg(errp, "Cannot make a write cache of this version: %s", why);
        return false;
    }
    return true;
}

int coroutine_fn pvs_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsPvs *o = &options->u.pvs;
    VdiskHeader h = {};
    BlockDriverState *bs;
    int ret;

    if (!create_header(&h, o, errp)) {
        return -EINVAL;
    }
    bs = bdrv_co_open_blockdev_ref(o->file, errp);
    if (!bs) {
        return -EIO;
    }
    ret = vdisk_co_create_file(bs, &h, errp);
    bdrv_co_unref(bs);
    return ret;
}

static bool coroutine_fn check_early(BlockdevCreateOptions *options,
                                     const char *filename, Error **errp)
{
    VdiskHeader h = {};

    return create_header(&h, &options->u.pvs, errp);
}

int coroutine_fn pvs_co_create_opts(BlockDriver *drv, const char *filename,
                                    QemuOpts *opts, Error **errp)
{
    static const VdiskCreate create = {
        .driver = "pvs",
        .opts = &pvs_create_opts,
        .co_check = check_early,
        .co_create = pvs_co_create,
    };

    return vdisk_co_create_opts(&create, filename, opts, errp);
}
