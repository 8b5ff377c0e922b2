/*
 * mcs: making a differencing disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "qemu/option.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "qapi/qobject-input-visitor.h"
#include "block/qdict.h"
#include "block/mcs/mcs.h"
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
    QemuUUID uuid;

    if (!QEMU_IS_ALIGNED(o->size, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "The size must be a multiple of 512 bytes");
        return false;
    }
    if (!vdisk_header_layout(h, o->size)) {
        error_setg(errp, "A disk of %" PRIu64 " bytes is too large", o->size);
        return false;
    }
    h->role = VDISK_ROLE_MCS;
    h->lifetime = o->lifetime == MCS_LIFETIME_POOLED ? VDISK_POOLED :
                                                       VDISK_DEDICATED;
    if (o->desktop) {
        if (qemu_uuid_parse(o->desktop, &uuid) < 0) {
            error_setg(errp, "'%s' is not a UUID", o->desktop);
            return false;
        }
        memcpy(h->desktop, uuid.data, sizeof(h->desktop));
    }
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

/* An empty file of full length, or a device whose map is empty */
static int coroutine_fn GRAPH_UNLOCKED
create_make_room(BlockBackend *blk, VdiskHeader *h, Error **errp)
{
    int64_t length;
    int ret = blk_co_truncate(blk, 0, false, PREALLOC_MODE_OFF, 0, errp);

    if (ret < 0) {
        return ret;
    }
    length = blk_co_getlength(blk);
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the file's length");
        return length;
    }
    if (length > 0) {
        /* A device keeps what it had: the map must not be made of that */
        if (length < h->file_size) {
            error_setg(errp, "The device has %" PRId64 " bytes; %" PRIu64
                       " are needed", length, h->file_size);
            return -ENOSPC;
        }
        ret = blk_co_pwrite_zeroes(blk, 0, h->map_offset +
                                   VDISK_MAP_BYTES(vdisk_granules(
                                       h->virtual_size)), 0);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not clear the device");
        }
        return ret;
    }
    ret = blk_co_truncate(blk, h->file_size, false, PREALLOC_MODE_OFF, 0, NULL);
    if (ret == -EFBIG) {
        warn_report("This file system cannot hold a file of %" PRIu64 " bytes; "
                    "writes past its limit will fail", h->file_size);
        h->file_size = h->data_offset;
        ret = blk_co_truncate(blk, h->file_size, false, PREALLOC_MODE_OFF, 0,
                              NULL);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not make the file %" PRIu64
                         " bytes long", h->file_size);
    }
    return ret;
}

static int coroutine_fn GRAPH_UNLOCKED
create_write_header(BlockBackend *blk, VdiskHeader *h, Error **errp)
{
    size_t size = VDISK_HEADER_COPIES * VDISK_HEADER_BYTES;
    uint8_t *buf = qemu_memalign(qemu_real_host_page_size(), size);
    int ret;

    for (int i = 0; i < VDISK_HEADER_COPIES; i++) {
        h->generation = VDISK_HEADER_COPIES - i;
        vdisk_header_encode(h, buf + i * VDISK_HEADER_BYTES);
    }
    ret = blk_co_pwrite(blk, 0, size, buf, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the layer's header");
    }
    qemu_vfree(buf);
    return MIN(ret, 0);
}

int coroutine_fn mcs_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsMcs *o = &options->u.mcs;
    VdiskHeader h = {};
    BlockBackend *blk = NULL;
    BlockDriverState *bs;
    int ret = -EINVAL;

    if (!create_check_base(o, errp) || !create_header(&h, o, errp)) {
        return -EINVAL;
    }
    bs = bdrv_co_open_blockdev_ref(o->file, errp);
    if (!bs) {
        return -EIO;
    }
    if (!create_note_base_size(&h, bs->filename, errp)) {
        goto out;
    }
    blk = blk_co_new_with_bs(bs, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                             BLK_PERM_ALL, errp);
    if (!blk) {
        ret = -EPERM;
        goto out;
    }
    blk_set_allow_write_beyond_eof(blk, true);
    ret = create_make_room(blk, &h, errp);
    if (ret >= 0) {
        ret = create_write_header(blk, &h, errp);
    }
out:
    blk_co_unref(blk);
    bdrv_co_unref(bs);
    return ret;
}

/* Turn the options of qemu-img into those of blockdev-create */
static BlockdevCreateOptions *create_convert_opts(QDict *qdict, Error **errp)
{
    static const QDictRenames renames[] = {
        { BLOCK_OPT_BACKING_FILE,   "backing-file" },
        { BLOCK_OPT_BACKING_FMT,    "backing-fmt" },
        { NULL, NULL },
    };
    BlockdevCreateOptions *options = NULL;
    Visitor *v;

    if (!qdict_rename_keys(qdict, renames, errp)) {
        return NULL;
    }
    qdict_put_str(qdict, "driver", "mcs");
    v = qobject_input_visitor_new_flat_confused(qdict, errp);
    if (!v) {
        return NULL;
    }
    visit_type_BlockdevCreateOptions(v, NULL, &options, errp);
    visit_free(v);
    if (options) {
        options->u.mcs.size = ROUND_UP(options->u.mcs.size, BDRV_SECTOR_SIZE);
    }
    return options;
}

/*
 * What can be refused is refused before the file is made, because making it
 * empties one that is there.
 */
static bool coroutine_fn GRAPH_UNLOCKED
create_check_early(QDict *qdict, const char *filename, Error **errp)
{
    g_autoptr(QDict) copy = qdict_clone_shallow(qdict);
    BlockdevCreateOptions *options;
    g_autofree char *base = NULL;
    VdiskHeader h = {};
    bool ok = false;

    qdict_put_str(copy, "file", "not-open-yet");
    options = create_convert_opts(copy, errp);
    if (!options) {
        return false;
    }
    if (!create_check_base(&options->u.mcs, errp) ||
        !create_header(&h, &options->u.mcs, errp) ||
        !create_note_base_size(&h, filename, errp)) {
        goto out;
    }
    if (h.base.name[0]) {
        base = bdrv_get_full_backing_filename_from_filename(filename,
                                                            h.base.name, errp);
        if (!base) {
            goto out;
        }
        if (vdisk_same_file(base, filename)) {
            error_setg(errp, "'%s' cannot be its own master image", filename);
            goto out;
        }
    }
    ok = true;
out:
    qapi_free_BlockdevCreateOptions(options);
    return ok;
}

int coroutine_fn mcs_co_create_opts(BlockDriver *drv, const char *filename,
                                    QemuOpts *opts, Error **errp)
{
    BlockdevCreateOptions *options = NULL;
    BlockDriverState *bs = NULL;
    QDict *qdict;
    int ret = -EINVAL;

    qdict = qemu_opts_to_qdict_filtered(opts, NULL, &mcs_create_opts, true);
    if (!create_check_early(qdict, filename, errp)) {
        goto out;
    }
    ret = bdrv_co_create_file(filename, opts, errp);
    if (ret < 0) {
        goto out;
    }
    bs = bdrv_co_open(filename, NULL, NULL,
                      BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
    if (!bs) {
        ret = -EIO;
        goto out;
    }
    qdict_put_str(qdict, "file", bs->node_name);
    options = create_convert_opts(qdict, errp);
    ret = options ? mcs_co_create(options, errp) : -EINVAL;
out:
    if (ret < 0 && bs) {
        bdrv_graph_co_rdlock();
        bdrv_co_delete_file_noerr(bs);
        bdrv_graph_co_rdunlock();
    }
    qobject_unref(qdict);
    bdrv_co_unref(bs);
    qapi_free_BlockdevCreateOptions(options);
    return ret;
}
