/*
 * Making a layer file: what the drivers of vDisks share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "qemu/option.h"
#include "qemu/uuid.h"
#include "qobject/qdict.h"
#include "block/qdict.h"
#include "block/vdisk/create.h"
#include "system/block-backend.h"

bool vdisk_create_header(VdiskHeader *h, uint64_t size, const char *desktop,
                         Error **errp)
{
    QemuUUID uuid;

    if (!QEMU_IS_ALIGNED(size, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "The size must be a multiple of 512 bytes");
        return false;
    }
    if (!vdisk_header_layout(h, size)) {
        error_setg(errp, "A disk of %" PRIu64 " bytes is too large", size);
        return false;
    }
    if (desktop) {
        if (qemu_uuid_parse(desktop, &uuid) < 0) {
            error_setg(errp, "'%s' is not a UUID", desktop);
            return false;
        }
        memcpy(h->desktop, uuid.data, sizeof(h->desktop));
    }
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

int coroutine_fn vdisk_co_create_file(BlockDriverState *bs, VdiskHeader *h,
                                      Error **errp)
{
    BlockBackend *blk = blk_co_new_with_bs(bs, BLK_PERM_WRITE |
                                           BLK_PERM_RESIZE, BLK_PERM_ALL,
                                           errp);
    int ret;

    if (!blk) {
        return -EPERM;
    }
    blk_set_allow_write_beyond_eof(blk, true);
    ret = create_make_room(blk, h, errp);
    if (ret >= 0) {
        ret = create_write_header(blk, h, errp);
    }
    blk_co_unref(blk);
    return ret;
}

/* Turn the options of qemu-img into those of blockdev-create */
static BlockdevCreateOptions *convert_opts(const VdiskCreate *c, QDict *qdict,
                                           const char *file, Error **errp)
{
    BlockdevCreateOptions *options = NULL;
    uint64_t size;
    Visitor *v;

    if (c->renames && !qdict_rename_keys(qdict, c->renames, errp)) {
        return NULL;
    }
    qdict_put_str(qdict, "driver", c->driver);
    qdict_put_str(qdict, "file", file);
    if (qdict_haskey(qdict, "size") &&
        qemu_strtosz(qdict_get_try_str(qdict, "size") ?: "0", NULL,
                     &size) == 0) {
        g_autofree char *rounded =
            g_strdup_printf("%" PRIu64,
                            (uint64_t)ROUND_UP(size, BDRV_SECTOR_SIZE));

        qdict_put_str(qdict, "size", rounded);
    }
    v = qobject_input_visitor_new_flat_confused(qdict, errp);
    if (!v) {
        return NULL;
    }
    visit_type_BlockdevCreateOptions(v, NULL, &options, errp);
    visit_free(v);
    return options;
}

static bool coroutine_fn GRAPH_UNLOCKED
check_early(const VdiskCreate *c, QDict *qdict, const char *filename,
            Error **errp)
{
    g_autoptr(QDict) copy = qdict_clone_shallow(qdict);
    BlockdevCreateOptions *options = convert_opts(c, copy, "not-open-yet",
                                                  errp);
    bool ok = options && c->co_check(options, filename, errp);

    qapi_free_BlockdevCreateOptions(options);
    return ok;
}

int coroutine_fn vdisk_co_create_opts(const VdiskCreate *c,
                                      const char *filename, QemuOpts *opts,
                                      Error **errp)
{
    BlockdevCreateOptions *options = NULL;
    BlockDriverState *bs = NULL;
    QDict *qdict;
    int ret = -EINVAL;

    qdict = qemu_opts_to_qdict_filtered(opts, NULL, c->opts, true);
    if (!check_early(c, qdict, filename, errp)) {
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
    options = convert_opts(c, qdict, bs->node_name, errp);
    ret = options ? c->co_create(options, errp) : -EINVAL;
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
