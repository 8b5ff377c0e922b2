/*
 * pvs: making a desktop's local files
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-block-core.h"
#include "qemu/cutils.h"
#include "qemu/guest-random.h"
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
            .help = "Size of the version; of a reconnect buffer"
        },
        {
            .name = "role",
            .type = QEMU_OPT_STRING,
            .help = "'cache': for what a desktop in standard image mode "
                    "writes; 'copy', 'journal': local copy and reconnect "
                    "buffer of a private vDisk"
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

static bool check_names(BlockdevCreateOptionsPvs *o, Error **errp)
{
    g_autofree char *why = NULL;

    if (!vdisk_name_valid(o->vdisk, &why)) {
        error_setg(errp, "'vdisk': %s", why);
        return false;
    }
    if (o->version == 0 || o->version > VDISK_MAX_VERSION) {
        error_setg(errp, "'version' must be from 1 to %" PRIu64,
                   (uint64_t)VDISK_MAX_VERSION);
        return false;
    }
    if (o->verity_root && o->role != PVS_ROLE_CACHE) {
        error_setg(errp, "A private vDisk changes, so it has no verity-root");
        return false;
    }
    return true;
}

static bool create_header(VdiskHeader *h, BlockdevCreateOptionsPvs *o,
                          Error **errp)
{
    bool copy = o->role == PVS_ROLE_COPY;
    g_autofree char *why = NULL;

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
    h->role = copy ? VDISK_ROLE_LOCAL_COPY : VDISK_ROLE_WRITE_CACHE;
    h->lifetime = copy ? VDISK_DEDICATED : VDISK_POOLED;
    pstrcpy(h->base.name, sizeof(h->base.name), o->vdisk);
    h->base.version = o->version;
    h->base.size = o->size;
    if (!vdisk_header_valid(h, &why)) {
        error_setg(errp, "Cannot make a file for this version: %s", why);
        return false;
    }
    return true;
}

static bool journal_header(JournalHeader *h, BlockdevCreateOptionsPvs *o,
                           Error **errp)
{
    g_autofree char *why = NULL;
    QemuUUID uuid = {};

    if (o->desktop && qemu_uuid_parse(o->desktop, &uuid) < 0) {
        error_setg(errp, "'%s' is not a UUID", o->desktop);
        return false;
    }
    if (o->size < JOURNAL_RING_MIN || o->size > JOURNAL_RING_MAX ||
        o->size % JOURNAL_UNIT_MAX) {
        error_setg(errp, "A reconnect buffer has a multiple of 4096 bytes, "
                   "from %" PRId64 " to %" PRId64, JOURNAL_RING_MIN,
                   JOURNAL_RING_MAX);
        return false;
    }
    *h = (JournalHeader) {
        .unit = BDRV_SECTOR_SIZE,
        .ring_size = o->size,
        .tail = { .seq = 1, .epoch = 1 },
        .version = o->version,
    };
    pstrcpy(h->vdisk, sizeof(h->vdisk), o->vdisk);
    memcpy(h->desktop, uuid.data, sizeof(h->desktop));
    qemu_guest_getrandom_nofail(h->journal, sizeof(h->journal));
    qemu_guest_getrandom_nofail(h->tail.nonce, sizeof(h->tail.nonce));
    return journal_header_valid(h, &why);
}

/* All of it is written: no write or flush has to allocate anything later */
static int coroutine_fn GRAPH_UNLOCKED
create_journal(BlockDriverState *bs, JournalHeader *h, Error **errp)
{
    int64_t length = JOURNAL_RING_OFFSET + h->ring_size;
    BlockBackend *blk = blk_co_new_with_bs(bs, BLK_PERM_WRITE |
                                           BLK_PERM_RESIZE, BLK_PERM_ALL,
                                           errp);
    int ret;

    if (!blk) {
        return -EPERM;
    }
    h->unit = MAX(h->unit, bs->bl.request_alignment);
    if (h->unit > JOURNAL_UNIT_MAX) {
        error_setg(errp, "Sectors of %" PRIu32 " bytes are too large",
                   h->unit);
        ret = -ENOTSUP;
    } else {
        ret = blk_co_truncate(blk, 0, false, PREALLOC_MODE_OFF, 0, errp);
    }
    if (ret >= 0) {
        ret = blk_co_truncate(blk, length, false, PREALLOC_MODE_FULL, 0, errp);
    }
    if (ret >= 0) {
        ret = pvs_journal_co_format(blk, h, errp);
    }
    blk_co_unref(blk);
    return ret;
}

int coroutine_fn pvs_co_create(BlockdevCreateOptions *options, Error **errp)
{
    BlockdevCreateOptionsPvs *o = &options->u.pvs;
    bool journal = o->role == PVS_ROLE_JOURNAL;
    JournalHeader jh;
    VdiskHeader h = {};
    BlockDriverState *bs;
    int ret;

    if (!check_names(o, errp) ||
        !(journal ? journal_header(&jh, o, errp)
                  : create_header(&h, o, errp))) {
        return -EINVAL;
    }
    bs = bdrv_co_open_blockdev_ref(o->file, errp);
    if (!bs) {
        return -EIO;
    }
    ret = journal ? create_journal(bs, &jh, errp)
                  : vdisk_co_create_file(bs, &h, errp);
    bdrv_co_unref(bs);
    return ret;
}

static bool coroutine_fn check_early(BlockdevCreateOptions *options,
                                     const char *filename, Error **errp)
{
    BlockdevCreateOptionsPvs *o = &options->u.pvs;
    JournalHeader jh;
    VdiskHeader h = {};

    return check_names(o, errp) &&
           (o->role == PVS_ROLE_JOURNAL ? journal_header(&jh, o, errp)
                                        : create_header(&h, o, errp));
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
