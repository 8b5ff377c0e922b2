/*
 * mcs: making a differencing disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/cutils.h"
#include "qemu/option.h"
#include "qobject/qdict.h"
#include "block/qdict.h"
#include "block/mcs/mcs.h"
#include "block/vdisk/create.h"
#include "system/block-backend.h"

QemuOptsList mcs_create_opts = {
    .name = "mcs-create-opts",
    .head = QTAILQ_HEAD_INITIALIZER(mcs_create_opts.head),
    .desc = {
        {
            .name = BLOCK_OPT_SIZE,
            .type = QEMU_OPT_SIZE,
            .help = "Virtual disk size"
        },
        {
            .name = BLOCK_OPT_BACKING_FILE,
            .type = QEMU_OPT_STRING,
            .help = "File name of the master image"
        },
        {
            .name = BLOCK_OPT_BACKING_FMT,
            .type = QEMU_OPT_STRING,
            .help = "Image format of the master image"
        },
        {
            .name = "lifetime",
            .type = QEMU_OPT_STRING,
            .help = "'dedicated' keeps what is written (default), 'pooled' "
                    "forgets it at a reset"
        },
        {
            .name = "desktop",
            .type = QEMU_OPT_STRING,
            .help = "UUID of the desktop that the disk belongs to"
        },
        { /* end of list */ }
    }
};

static bool create_check_base(BlockdevCreateOptionsMcs *o, Error **errp)
{
    const char *fmt = o->has_backing_fmt ?
                      BlockdevDriver_str(o->backing_fmt) : "";
    g_autofree char *why = NULL;

    if (!o->backing_file) {
        if (o->lifetime == MCS_LIFETIME_POOLED) {
            error_setg(errp, "A pooled disk needs a master image to go back "
                       "to; give one with '-b IMAGE -F FORMAT'");
            return false;
        }
        return true;
    }
    if (!vdisk_image_name_valid(o->backing_file, fmt, &why)) {
        error_setg(errp, "Cannot use '%s' as the master image: %s",
                   o->backing_file, why);
        return false;
    }
    return true;
}

static bool create_header(VdiskHeader *h, BlockdevCreateOptionsMcs *o,
                          Error **errp)
{
    if (!vdisk_create_header(h, o->size, o->desktop, errp)) {
        return false;
    }
    h->role = VDISK_ROLE_MCS;
    h->lifetime = o->lifetime == MCS_LIFETIME_POOLED ? VDISK_POOLED :
                                                       VDISK_DEDICATED;
    if (o->backing_file) {
        pstrcpy(h->base.name, sizeof(h->base.name), o->backing_file);
        pstrcpy(h->base.format, sizeof(h->base.format),
                BlockdevDriver_str(o->backing_fmt));
    }
    return true;
}

/*
 * Note the base's size, so that a base that shrinks later is noticed. With
 * 'qemu-img create -u' it need not exist; then its size stays unknown.
 */
static bool coroutine_fn GRAPH_UNLOCKED
create_note_base_size(VdiskHeader *h, const char *filename, Error **errp)
{
    g_autofree char *name = NULL;
    BlockDriverState *base;
    QDict *options;
    int64_t size;

    if (!h->base.name[0]) {
        return true;
    }
    name = bdrv_get_full_backing_filename_from_filename(filename, h->base.name,
                                                        errp);
    if (!name) {
        return false;
    }
    options = qdict_new();
    qdict_put_str(options, "driver", h->base.format);
    qdict_put_bool(options, BDRV_OPT_FORCE_SHARE, true);
    base = bdrv_co_open(name, NULL, options, BDRV_O_NO_BACKING, NULL);
    if (!base) {
        return true;
    }
    bdrv_graph_co_rdlock();
    size = bdrv_co_getlength(base);
    bdrv_graph_co_rdunlock();
    bdrv_co_unref(base);
    if (size > 0 && size > h->virtual_size) {
        error_setg(errp, "The disk's size (%" PRIu64 ") is smaller than the "
                   "master image (%" PRId64 ") and would cut off its end; "
                   "leave the size out", h->virtual_size, size);
        return false;
    }
    h->base.size = MAX(size, 0);
    return true;
}

int coroutine_fn mcs_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsMcs *o = &options->u.mcs;
    VdiskHeader h = {};
    BlockDriverState *bs;
    int ret = -EINVAL;

    if (!create_check_base(o, errp) || !create_header(&h, o, errp)) {
        return -EINVAL;
    }
    bs = bdrv_co_open_blockdev_ref(o->file, errp);
    if (!bs) {
        return -EIO;
    }
    if (create_note_base_size(&h, bs->filename, errp)) {
        ret = vdisk_co_create_file(bs, &h, errp);
    }
    bdrv_co_unref(bs);
    return ret;
}

static bool coroutine_fn GRAPH_UNLOCKED
check_early(BlockdevCreateOptions *options, const char *filename,
            Error **errp)
{
    BlockdevCreateOptionsMcs *o = &options->u.mcs;
    g_autofree char *base = NULL;
    VdiskHeader h = {};

    if (!create_check_base(o, errp) || !create_header(&h, o, errp) ||
        !create_note_base_size(&h, filename, errp)) {
        return false;
    }
    if (!h.base.name[0]) {
        return true;
    }
    base = bdrv_get_full_backing_filename_from_filename(filename, h.base.name,
                                                        errp);
    if (!base) {
        return false;
    }
    if (vdisk_same_file(base, filename)) {
        error_setg(errp, "'%s' cannot be its own master image", filename);
        return false;
    }
    return true;
}

int coroutine_fn mcs_co_create_opts(BlockDriver *drv, const char *filename,
                                    QemuOpts *opts, Error **errp)
{
    static const QDictRenames renames[] = {
        { BLOCK_OPT_BACKING_FILE,   "backing-file" },
        { BLOCK_OPT_BACKING_FMT,    "backing-fmt" },
        { NULL, NULL },
    };
    static const VdiskCreate create = {
        .driver = "mcs",
        .opts = &mcs_create_opts,
        .renames = renames,
        .co_check = check_early,
        .co_create = mcs_co_create,
    };

    return vdisk_co_create_opts(&create, filename, opts, errp);
}
