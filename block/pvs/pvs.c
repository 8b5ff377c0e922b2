/*
 * pvs: a desktop's disk that is streamed from shared stores
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qobject/qdict.h"
#include "block/pvs/pvs.h"
#include "block/pvs/resume.h"
#include "block/vdisk/front-end.h"
#include "block/vdisk/options.h"
#include "system/runstate.h"

static const char *const pvs_strong_runtime_opts[] = {
    "mode", "stores.", "vdisk", "version", "size", "verity-tree.",
    "verity-root", "host-cache", "journal.", "durability", NULL
};

static bool is_pvs(BlockDriverState *bs);

static int pvs_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    VdiskRole role;

    return vdisk_header_probe(buf, buf_size, &role) &&
           role == VDISK_ROLE_WRITE_CACHE ? 100 : 0;
}

PvsImage *pvs_image_of(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    return is_pvs(bs) && s->image ? pvs_image(s->image->bs) : NULL;
}

PvsPrivate *pvs_private_of(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    return is_pvs(bs) ? s->priv : NULL;
}

/* The layer */

static int coroutine_fn GRAPH_RDLOCK
pvs_co_read_base(BlockDriverState *bs, int64_t offset, int64_t bytes,
                 QEMUIOVector *qiov, size_t qiov_offset)
{
    BDRVPvsState *s = bs->opaque;
    int64_t size, n;
    int ret = 0;

    if (s->priv) {
        return pvs_private_co_read_base(s->priv, offset, bytes, qiov,
                                        qiov_offset);
    }
    if (!s->image) {
        return -EIO;
    }
    /* The disk may have grown past its image */
    size = pvs_image(s->image->bs)->size;
    n = MAX(MIN(bytes, size - offset), 0);
    if (n > 0) {
        ret = bdrv_co_preadv_part(s->image, offset, n, qiov, qiov_offset, 0);
    }
    if (ret >= 0 && n < bytes) {
        qemu_iovec_memset(qiov, qiov_offset + n, 0, bytes - n);
    }
    return ret;
}

/* A guest that the old image stopped goes on with the new one (resume.h) */
static int GRAPH_UNLOCKED pvs_set_base(BlockDriverState *bs,
                                       BlockDriverState *image, Error **errp)
{
    BDRVPvsState *s = bs->opaque;
    BlockDriverState *old = s->image->bs;
    int ret;

    bdrv_ref(old);
    ret = bdrv_replace_child_bs(s->image, image, errp);
    if (ret >= 0 && qatomic_read(&pvs_image(old)->gave_up)) {
        qatomic_set(&pvs_image(image)->gave_up, true);
        pvs_resume_soon();
    }
    if (ret >= 0) {
        pvs_image_end_outages(pvs_image(old));
    }
    bdrv_unref(old);
    return ret;
}

const VdiskLayerOps pvs_layer_ops = {
    .co_read_base = pvs_co_read_base,
    .set_base = pvs_set_base,
    .open_image = pvs_open_image,
    .co_image_usable = pvs_co_image_usable,
    .query = pvs_query,
};

/* Open and close */

static bool open_layer(BlockDriverState *bs, QDict *options, int flags,
                       Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    if (bdrv_open_file_child(NULL, options, "file", bs, errp) < 0) {
        return false;
    }
    if (vdisk_layer_open(&s->layer, bs, &pvs_layer_ops,
                         s->is_private ? VDISK_ROLE_LOCAL_COPY
                                       : VDISK_ROLE_WRITE_CACHE,
                         flags, errp) < 0) {
        return false;
    }
    s->layer.remote_base = true;
    s->has_layer = true;
    return true;
}

static bool take_mode(BDRVPvsState *s, QDict *options, Error **errp)
{
    Error *err = NULL;
    int mode = qapi_enum_parse(&PvsMode_lookup,
                               qdict_get_try_str(options, "mode"),
                               PVS_MODE_STANDARD, &err);

    if (err) {
        error_propagate(errp, err);
        return false;
    }
    qdict_del(options, "mode");
    s->is_private = mode == PVS_MODE_PRIVATE;
    return true;
}

/* The options of the node itself */
static bool take_options(BDRVPvsState *s, QDict *options, Error **errp)
{
    if (s->has_layer) {
        return vdisk_take_pooled_options(&s->layer, options, errp);
    }
    if (vdisk_has_pooled_options(options)) {
        error_setg(errp, "Without 'file' nothing is written, so there is "
                   "nothing to reset or to cache");
        return false;
    }
    return true;
}

static bool GRAPH_UNLOCKED open_image(BlockDriverState *bs, Error **errp)
{
    BDRVPvsState *s = bs->opaque;
    BlockDriverState *image = s->has_layer
        ? pvs_open_image(bs, &s->layer.header.base, errp)
        : pvs_open_relay_image(bs, errp);

    if (!image) {
        return false;
    }
    bdrv_graph_wrlock();
    s->image = bdrv_attach_child(bs, image, "image", &child_of_bds,
                                 BDRV_CHILD_DATA, errp);
    bdrv_graph_wrunlock();
    return s->image;
}

static bool has_node(const QDict *options, const char *name)
{
    size_t len = strlen(name);

    for (const QDictEntry *e = qdict_first(options); e;
         e = qdict_next(options, e)) {
        const char *key = qdict_entry_key(e);

        if (g_str_has_prefix(key, name) && (!key[len] || key[len] == '.')) {
            return true;
        }
    }
    return false;
}

static void GRAPH_UNLOCKED pvs_close(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        pvs_private_close(s->priv);
        s->priv = NULL;
        vdisk_layer_close(&s->layer);
    } else if (s->has_layer) {
        vdisk_pooled_stop(&s->layer);
        vdisk_layer_close(&s->layer);
    } else if (s->layer.bs) {
        vdisk_node_remove(&s->layer);
    }
    qobject_unref(s->image_options);
}

static bool GRAPH_UNLOCKED open_all(BlockDriverState *bs, QDict *options,
                                    int flags, Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    if (!take_options(s, options, errp)) {
        return false;
    }
    if (qdict_size(s->image_options) == 0 &&
        (flags & (BDRV_O_NO_IO | BDRV_O_CHECK | BDRV_O_NO_BACKING))) {
        return true;        /* qemu-img looks at the file, no more */
    }
    return open_image(bs, errp);
}

static int GRAPH_UNLOCKED open_private(BlockDriverState *bs, QDict *options,
                                       int flags, Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    if (!has_node(options, "file")) {
        error_setg(errp, "A private vDisk needs 'file', its local copy");
        return -EINVAL;
    }
    if (!(flags & BDRV_O_RDWR)) {
        error_setg(errp, "A private vDisk cannot be opened read-only");
        return -EACCES;
    }
    if (!open_layer(bs, options, flags, errp)) {
        return -EINVAL;
    }
    s->priv = pvs_private_open(bs, &s->layer, options, flags, errp);
    if (!s->priv) {
        vdisk_layer_close(&s->layer);
        return -EINVAL;
    }
    bs->total_sectors = s->layer.header.virtual_size / BDRV_SECTOR_SIZE;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    pvs_resume_register();
    return 0;
}

static bool GRAPH_UNLOCKED make_read_only(BlockDriverState *bs, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_apply_auto_read_only(bs, "Without 'file', a pvs node is "
                                     "read-only", errp) >= 0;
}

static int GRAPH_UNLOCKED pvs_open(BlockDriverState *bs, QDict *options,
                                   int flags, Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    if (!take_mode(s, options, errp)) {
        return -EINVAL;
    }
    if (s->is_private) {
        return open_private(bs, options, flags, errp);
    }
    if (has_node(options, "journal") &&
        !pvs_private_check_drained(bs, options, errp)) {
        return -EBUSY;
    }
    if (has_node(options, "file")) {
        if (!open_layer(bs, options, flags, errp)) {
            return -EINVAL;
        }
    } else if (!make_read_only(bs, errp)) {
        return -EACCES;
    } else {
        s->layer = (VdiskLayer) {
            .bs = bs,
            .ops = &pvs_layer_ops,
            .role = VDISK_ROLE_WRITE_CACHE,
        };
        vdisk_node_add(&s->layer);
    }
    s->image_options = pvs_take_image_options(options);
    if (!open_all(bs, options, flags, errp)) {
        pvs_close(bs);
        return -EINVAL;
    }
    if (s->has_layer) {
        bs->total_sectors = s->layer.header.virtual_size / BDRV_SECTOR_SIZE;
        bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
        bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
        s->layer.incoming = (flags & BDRV_O_INACTIVE) &&
                            runstate_check(RUN_STATE_INMIGRATE);
        vdisk_pooled_start(&s->layer);
    } else {
        bs->total_sectors = pvs_image(s->image->bs)->size / BDRV_SECTOR_SIZE;
    }
    pvs_resume_register();
    return 0;
}

static int pvs_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue,
                              Error **errp)
{
    BDRVPvsState *s = state->bs->opaque;

    if ((state->flags & BDRV_O_RDWR) && !s->has_layer) {
        error_setg(errp, "Without 'file', a pvs node is read-only");
        return -EACCES;
    }
    if (s->is_private && !(state->flags & BDRV_O_RDWR)) {
        error_setg(errp, "A private vDisk cannot be made read-only: what is in "
                   "its reconnect buffer is shipped all the time");
        return -EACCES;
    }
    return 0;
}

static void pvs_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = BDRV_SECTOR_SIZE;
    bs->bl.pwrite_zeroes_alignment = VDISK_GRANULE;
    bs->bl.pdiscard_alignment = VDISK_GRANULE;
}

static void GRAPH_RDLOCK
pvs_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
               BlockReopenQueue *queue, uint64_t perm, uint64_t shared,
               uint64_t *nperm, uint64_t *nshared)
{
    BDRVPvsState *s = bs->opaque;

    if (role & (BDRV_CHILD_PRIMARY | BDRV_CHILD_METADATA)) {
        bdrv_default_perms(bs, c, role, queue, perm, shared, nperm, nshared);
        return;
    }
    if (s->is_private && !(role & BDRV_CHILD_DATA)) {
        /* The label is not the disk's data, and looked at only */
        *nperm = BLK_PERM_CONSISTENT_READ;
        *nshared = BLK_PERM_ALL;
        return;
    }
    if (s->is_private) {
        /* Nobody else writes to the store (J9); inactive, we do not either */
        bool active = !(bs->open_flags & BDRV_O_INACTIVE);

        *nperm = active ? BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE : 0;
        *nshared = active ? BLK_PERM_CONSISTENT_READ : BLK_PERM_ALL;
        return;
    }
    *nperm = BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
}

/* Requests below wait in the image, which hears of its own drains only */
static void pvs_drain_begin(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (s->priv) {
        pvs_private_drain_begin(s->priv);
    }
    if (s->image) {
        pvs_image_drain_begin(pvs_image(s->image->bs));
    }
}

static void pvs_drain_end(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    if (s->priv) {
        pvs_private_drain_end(s->priv);
    }
    if (s->image) {
        pvs_image_drain_end(pvs_image(s->image->bs));
    }
}

/* Requests */

static int coroutine_fn GRAPH_RDLOCK
pvs_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                   QEMUIOVector *qiov, size_t qiov_offset,
                   BdrvRequestFlags flags)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        return pvs_private_co_preadv(s->priv, offset, bytes, qiov,
                                     qiov_offset);
    }
    if (!s->has_layer) {
        return bdrv_co_preadv_part(s->image, offset, bytes, qiov, qiov_offset,
                                   0);
    }
    return vdisk_layer_co_preadv(&s->layer, offset, bytes, qiov, qiov_offset);
}

static int coroutine_fn GRAPH_RDLOCK
pvs_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                    QEMUIOVector *qiov, size_t qiov_offset,
                    BdrvRequestFlags flags)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        return pvs_private_co_pwritev(s->priv, offset, bytes, qiov,
                                      qiov_offset);
    }
    return vdisk_layer_co_pwritev(&s->layer, offset, bytes, qiov, qiov_offset);
}

static int coroutine_fn GRAPH_RDLOCK
pvs_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                     BdrvRequestFlags flags)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        return pvs_private_co_zero(s->priv, offset, bytes,
                                   flags & BDRV_REQ_MAY_UNMAP);
    }
    return vdisk_layer_co_zero(&s->layer, offset, bytes,
                               flags & BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn GRAPH_RDLOCK
pvs_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        return pvs_private_co_zero(s->priv, offset, bytes, true);
    }
    return vdisk_layer_co_zero(&s->layer, offset, bytes, true);
}

static int coroutine_fn GRAPH_RDLOCK pvs_co_flush(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        return pvs_private_co_flush(s->priv);
    }
    return s->has_layer ? vdisk_layer_co_flush(&s->layer) : 0;
}

static int coroutine_fn GRAPH_RDLOCK
pvs_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                    int64_t bytes, int64_t *pnum, int64_t *map,
                    BlockDriverState **file)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        *pnum = bytes;
        return BDRV_BLOCK_DATA;
    }
    if (s->has_layer) {
        return vdisk_layer_co_block_status(&s->layer, offset, bytes, pnum, map,
                                           file);
    }
    *pnum = bytes;
    *map = offset;
    *file = s->image->bs;
    return BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
}

static int64_t coroutine_fn GRAPH_RDLOCK pvs_co_getlength(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    return s->has_layer ? (int64_t)s->layer.header.virtual_size
                        : pvs_image(s->image->bs)->size;
}

static int coroutine_fn GRAPH_RDLOCK
pvs_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        error_setg(errp, "A private vDisk has the size that its store has");
        return -ENOTSUP;
    }
    if (!s->has_layer || prealloc != PREALLOC_MODE_OFF ||
        offset < s->layer.header.virtual_size) {
        error_setg(errp, "A streamed disk can only grow, and without "
                   "preallocation");
        return -ENOTSUP;
    }
    return offset == s->layer.header.virtual_size
           ? 0 : vdisk_layer_co_grow(&s->layer, offset,
                                     flags & BDRV_REQ_ZERO_WRITE, errp);
}

static int coroutine_fn GRAPH_RDLOCK
pvs_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckMode fix)
{
    BDRVPvsState *s = bs->opaque;

    return s->has_layer ? vdisk_layer_co_check(&s->layer, result, fix)
                        : -ENOTSUP;
}

static bool GRAPH_RDLOCK pvs_admit_client(BlockDriverState *bs,
                                          struct BlockExport *exp,
                                          Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    return !s->has_layer || s->priv ||
           vdisk_admit_client(&s->layer, exp, errp);
}

static void coroutine_fn GRAPH_RDLOCK
pvs_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    BDRVPvsState *s = bs->opaque;

    if (s->has_layer &&
        vdisk_layer_co_reload(&s->layer, bs->open_flags, errp) == 0 &&
        s->priv) {
        pvs_private_co_activate(s->priv, errp);
    }
}

static int GRAPH_RDLOCK pvs_inactivate(BlockDriverState *bs)
{
    BDRVPvsState *s = bs->opaque;

    if (s->priv) {
        return pvs_private_inactivate(s->priv);
    }
    return s->has_layer && !bdrv_is_read_only(bs)
           ? vdisk_saved_suspend(&s->layer) : 0;
}

static BlockDriver bdrv_pvs = {
    .format_name                = "pvs",
    .instance_size              = sizeof(BDRVPvsState),
    .create_opts                = &pvs_create_opts,
    .is_format                  = true,
    .strong_runtime_opts        = pvs_strong_runtime_opts,

    .bdrv_probe                 = pvs_probe,
    .bdrv_open                  = pvs_open,
    .bdrv_close                 = pvs_close,
    .bdrv_reopen_prepare        = pvs_reopen_prepare,
    .bdrv_child_perm            = pvs_child_perm,
    .bdrv_refresh_limits        = pvs_refresh_limits,
    .bdrv_drain_begin           = pvs_drain_begin,
    .bdrv_drain_end             = pvs_drain_end,
    .bdrv_co_create             = pvs_co_create,
    .bdrv_co_create_opts        = pvs_co_create_opts,

    .bdrv_co_preadv_part        = pvs_co_preadv_part,
    .bdrv_co_pwritev_part       = pvs_co_pwritev_part,
    .bdrv_co_pwrite_zeroes      = pvs_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = pvs_co_pdiscard,
    .bdrv_co_flush              = pvs_co_flush,
    .bdrv_co_block_status       = pvs_co_block_status,
    .bdrv_co_getlength          = pvs_co_getlength,
    .bdrv_co_truncate           = pvs_co_truncate,
    .bdrv_co_check              = pvs_co_check,
    .bdrv_get_specific_info     = pvs_get_specific_info,
    .bdrv_co_invalidate_cache   = pvs_co_invalidate_cache,
    .bdrv_inactivate            = pvs_inactivate,
    .bdrv_admit_client          = pvs_admit_client,
};

static bool is_pvs(BlockDriverState *bs)
{
    return bs->drv == &bdrv_pvs;
}

static void pvs_register(void)
{
    bdrv_register(&bdrv_pvs);
}

block_init(pvs_register);
