/*
 * mcs: a desktop's differencing disk over a shared master image
 *
 * The master is the backing file, the layer (block/vdisk) holds what the
 * desktop wrote. This file fits the layer into a block driver.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qobject/qdict.h"
#include "block/mcs/mcs.h"
#include "block/vdisk/front-end.h"
#include "block/vdisk/options.h"
#include "system/runstate.h"

static const char *const mcs_strong_runtime_opts[] = {
    VDISK_OPT_RESET_ON,
    NULL
};

static int mcs_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    VdiskRole role;

    /* Also of an unknown role, so that it is not taken for a raw image */
    return vdisk_header_probe(buf, buf_size, &role) &&
           g_strcmp0(vdisk_role_driver(role) ?: "mcs", "mcs") == 0 ? 100 : 0;
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_read_base(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset)
{
    if (!bs->backing) {
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
        return 0;
    }
    return bdrv_co_preadv_part(bs->backing, offset, bytes, qiov, qiov_offset,
                               0);
}

static int GRAPH_UNLOCKED mcs_set_base(BlockDriverState *bs,
                                       BlockDriverState *image, Error **errp)
{
    return bdrv_set_backing_hd(bs, image, errp);
}

static const VdiskLayerOps mcs_layer_ops = {
    .co_read_base = mcs_co_read_base,
    .set_base = mcs_set_base,
    .open_image = mcs_open_image,
};

/* Tell the block layer what the header says */
static void mcs_publish_header(BlockDriverState *bs)
{
    BDRVMcsState *s = bs->opaque;
    VdiskHeader *h = &s->layer.header;

    bs->total_sectors = h->virtual_size / BDRV_SECTOR_SIZE;
    if (!g_str_equal(h->base.name, bs->backing_file)) {
        pstrcpy(bs->backing_file, sizeof(bs->backing_file), h->base.name);
        pstrcpy(bs->auto_backing_file, sizeof(bs->auto_backing_file),
                h->base.name);
    }
    pstrcpy(bs->backing_format, sizeof(bs->backing_format), h->base.format);
}

static void GRAPH_UNLOCKED mcs_close(BlockDriverState *bs)
{
    BDRVMcsState *s = bs->opaque;

    vdisk_pooled_stop(&s->layer);
    vdisk_layer_close(&s->layer);
}

static int GRAPH_UNLOCKED mcs_open(BlockDriverState *bs, QDict *options,
                                   int flags, Error **errp)
{
    BDRVMcsState *s = bs->opaque;
    int ret = bdrv_open_file_child(NULL, options, "file", bs, errp);

    if (ret < 0) {
        return ret;
    }
    ret = vdisk_layer_open(&s->layer, bs, &mcs_layer_ops, VDISK_ROLE_MCS, flags,
                           errp);
    if (ret < 0) {
        return ret;
    }
    mcs_publish_header(bs);
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;

    ret = -EINVAL;
    if (vdisk_take_pooled_options(&s->layer, options, errp)) {
        bdrv_graph_rdlock_main_loop();
        ret = mcs_check_loop(bs, errp);
        bdrv_graph_rdunlock_main_loop();
    }
    if (ret < 0) {
        mcs_close(bs);
        return ret;
    }
    if (s->layer.pooled) {
        s->layer.incoming = (flags & BDRV_O_INACTIVE) &&
                            runstate_check(RUN_STATE_INMIGRATE);
        vdisk_pooled_start(&s->layer);
    }
    return 0;
}

static int mcs_reopen_prepare(BDRVReopenState *state,
                              BlockReopenQueue *queue, Error **errp)
{
    BDRVMcsState *s = state->bs->opaque;

    /* What was open read-only may be damaged; writing needs a sound map */
    if ((state->flags & BDRV_O_RDWR) && s->layer.map_damaged) {
        error_setg(errp, "The granule map is damaged; run 'qemu-img check -r "
                   "all' before writing");
        return -EINVAL;
    }
    return 0;
}

static void mcs_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = BDRV_SECTOR_SIZE;
    bs->bl.pwrite_zeroes_alignment = VDISK_GRANULE;
    bs->bl.pdiscard_alignment = VDISK_GRANULE;
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset,
                   BdrvRequestFlags flags)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_preadv(&s->layer, offset, bytes, qiov, qiov_offset);
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset,
                    BdrvRequestFlags flags)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_pwritev(&s->layer, offset, bytes, qiov, qiov_offset);
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     BdrvRequestFlags flags)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_zero(&s->layer, offset, bytes,
                               flags & BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_zero(&s->layer, offset, bytes, true);
}

static int coroutine_fn GRAPH_RDLOCK mcs_co_flush(BlockDriverState *bs)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_flush(&s->layer);
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                    int64_t bytes, int64_t *pnum, int64_t *map,
                    BlockDriverState **file)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_block_status(&s->layer, offset, bytes, pnum, map,
                                       file);
}

static int64_t coroutine_fn mcs_co_getlength(BlockDriverState *bs)
{
    BDRVMcsState *s = bs->opaque;

    return s->layer.header.virtual_size;
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    ERRP_GUARD();
    BDRVMcsState *s = bs->opaque;

    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Unsupported preallocation mode '%s'",
                   PreallocMode_str(prealloc));
        return -ENOTSUP;
    }
    if (offset < s->layer.header.virtual_size) {
        error_setg(errp, "A differencing disk cannot be shrunk");
        error_append_hint(errp, "Copy it into a smaller one with qemu-img "
                          "convert after shrinking what is on it.\n");
        return -ENOTSUP;
    }
    if (offset == s->layer.header.virtual_size) {
        return 0;
    }
    return vdisk_layer_co_grow(&s->layer, offset,
                               flags & BDRV_REQ_ZERO_WRITE, errp);
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_change_backing_file(BlockDriverState *bs, const char *backing_file,
                           const char *backing_fmt)
{
    BDRVMcsState *s = bs->opaque;
    g_autofree char *why = NULL;
    VdiskHeader h;
    int ret;

    backing_file = backing_file ?: "";
    backing_fmt = backing_fmt ?: "";
    if (!vdisk_image_name_valid(backing_file, backing_fmt, &why)) {
        error_report("Cannot use '%s' as the base image: %s", backing_file,
                     why);
        return -EINVAL;
    }
    if (mcs_is_own_base(bs, backing_file)) {
        error_report("'%s' cannot be its own base image",
                     bs->file->bs->filename);
        return -EINVAL;
    }
    qemu_co_mutex_lock(&s->layer.header_lock);
    h = s->layer.header;
    memset(&h.base, 0, sizeof(h.base));     /* size: not known until opened */
    pstrcpy(h.base.name, sizeof(h.base.name), backing_file);
    if (*backing_file) {
        pstrcpy(h.base.format, sizeof(h.base.format), backing_fmt);
    }
    memset(h.token, 0, sizeof(h.token));    /* it moves on */
    ret = vdisk_layer_co_set_header(&s->layer, &h);
    vdisk_saved_loaded(&s->layer);
    qemu_co_mutex_unlock(&s->layer.header_lock);
    return ret;
}

static int GRAPH_RDLOCK mcs_make_empty(BlockDriverState *bs)
{
    BDRVMcsState *s = bs->opaque;
    int ret = 0;

    /*
     * After a commit the base may have it all in volatile caches only, while
     * what is about to be forgotten here was flushed by the guest.
     */
    if (bs->backing) {
        ret = bdrv_flush(bs->backing->bs);
    }
    return ret < 0 ? ret : vdisk_layer_empty(&s->layer);
}

static int coroutine_fn GRAPH_RDLOCK
mcs_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckMode fix)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_layer_co_check(&s->layer, result, fix);
}

static int coroutine_fn mcs_co_get_info(BlockDriverState *bs,
                                        BlockDriverInfo *bdi)
{
    bdi->cluster_size = VDISK_GRANULE;
    return 0;
}

static ImageInfoSpecific * GRAPH_RDLOCK
mcs_get_specific_info(BlockDriverState *bs, Error **errp)
{
    BDRVMcsState *s = bs->opaque;
    VdiskHeader *h = &s->layer.header;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificMcs *mcs = g_new0(ImageInfoSpecificMcs, 1);

    mcs->lifetime = s->layer.pooled ? MCS_LIFETIME_POOLED :
                                      MCS_LIFETIME_DEDICATED;
    mcs->desktop = vdisk_desktop(&s->layer);
    if (h->assigned.name[0]) {
        mcs->assigned = g_strdup(h->assigned.name);
    }
    info->type = IMAGE_INFO_SPECIFIC_KIND_MCS;
    info->u.mcs.data = mcs;
    return info;
}

static bool GRAPH_RDLOCK mcs_admit_client(BlockDriverState *bs,
                                          struct BlockExport *exp,
                                          Error **errp)
{
    BDRVMcsState *s = bs->opaque;

    return vdisk_admit_client(&s->layer, exp, errp);
}

/* Another process may have written the file until now */
static void coroutine_fn GRAPH_RDLOCK
mcs_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVMcsState *s = bs->opaque;

    if (vdisk_layer_co_reload(&s->layer, bs->open_flags, errp) == 0) {
        mcs_publish_header(bs);
    }
}

/* The next process reads the map from the file */
static int GRAPH_RDLOCK mcs_inactivate(BlockDriverState *bs)
{
    BDRVMcsState *s = bs->opaque;

    if (s->layer.pooled && !bdrv_is_read_only(bs)) {
        return vdisk_saved_suspend(&s->layer);
    }
    return bdrv_flush(bs);
}

static BlockDriver bdrv_mcs = {
    .format_name                    = "mcs",
    .instance_size                  = sizeof(BDRVMcsState),
    .create_opts                    = &mcs_create_opts,
    .is_format                      = true,
    .supports_backing               = true,
    .strong_runtime_opts            = mcs_strong_runtime_opts,

    .bdrv_probe                     = mcs_probe,
    .bdrv_open                      = mcs_open,
    .bdrv_close                     = mcs_close,
    .bdrv_reopen_prepare            = mcs_reopen_prepare,
    .bdrv_child_perm                = bdrv_default_perms,
    .bdrv_check_perm                = mcs_check_perm,
    .bdrv_refresh_limits            = mcs_refresh_limits,
    .bdrv_co_create                 = mcs_co_create,
    .bdrv_co_create_opts            = mcs_co_create_opts,
    .bdrv_has_zero_init             = bdrv_has_zero_init_1,

    .bdrv_co_preadv_part            = mcs_co_preadv_part,
    .bdrv_co_pwritev_part           = mcs_co_pwritev_part,
    .bdrv_co_pwrite_zeroes          = mcs_co_pwrite_zeroes,
    .bdrv_co_pdiscard               = mcs_co_pdiscard,
    .bdrv_co_flush                  = mcs_co_flush,
    .bdrv_co_block_status           = mcs_co_block_status,
    .bdrv_co_getlength              = mcs_co_getlength,
    .bdrv_co_truncate               = mcs_co_truncate,

    .bdrv_co_change_backing_file    = mcs_co_change_backing_file,
    .bdrv_make_empty                = mcs_make_empty,
    .bdrv_co_check                  = mcs_co_check,
    .bdrv_co_get_info               = mcs_co_get_info,
    .bdrv_get_specific_info         = mcs_get_specific_info,
    .bdrv_co_invalidate_cache       = mcs_co_invalidate_cache,
    .bdrv_inactivate                = mcs_inactivate,
    .bdrv_admit_client              = mcs_admit_client,
};

static void mcs_register(void)
{
    bdrv_register(&bdrv_mcs);
}

block_init(mcs_register);
