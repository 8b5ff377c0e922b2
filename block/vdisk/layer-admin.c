/*
 * Layer: growing and emptying it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/vdisk/layer.h"

/*
 * Zero the disk from its end @old up to @end. The granule that @old is in is
 * rewritten, all others only change their state.
 */
static int coroutine_fn GRAPH_RDLOCK
layer_co_zero_tail(VdiskLayer *l, int64_t old, int64_t end)
{
    int64_t aligned = MIN(QEMU_ALIGN_UP(old, VDISK_GRANULE), end);
    int ret = 0;

    if (aligned > old) {
        int64_t bytes = aligned - old;
        g_autofree void *zeros = g_malloc0(bytes);
        QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, zeros, bytes);

        ret = vdisk_layer_co_pwritev(l, old, bytes, &qiov, 0);
    }
    if (ret >= 0 && end > aligned) {
        ret = vdisk_layer_co_zero(l, aligned, end - aligned, false);
    }
    return ret;
}

/* Room in the map and in the file, before anything says that it is there */
static int coroutine_fn GRAPH_RDLOCK
layer_co_make_room(VdiskLayer *l, VdiskHeader *h, Error **errp)
{
    ERRP_GUARD();
    int64_t length = bdrv_co_getlength(l->bs->file->bs);
    int64_t map_used = vdisk_map_pages(&l->map) * VDISK_MAP_PAGE;
    int64_t map_bytes = VDISK_MAP_BYTES(vdisk_granules(h->virtual_size));
    int ret;

    if (h->virtual_size > vdisk_header_max_size(h)) {
        error_setg(errp, "The layer file has no room for a disk of %" PRIu64
                   " bytes; it can grow to %" PRIu64, h->virtual_size,
                   vdisk_header_max_size(h));
        error_append_hint(errp, "Make a new file of that size and copy the "
                          "disk with qemu-img convert.\n");
        return -EFBIG;
    }
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the layer's length");
        return length;
    }
    h->file_size = h->data_offset + ROUND_UP(h->virtual_size, VDISK_GRANULE);
    if (length < h->file_size) {
        ret = bdrv_co_truncate(l->bs->file, h->file_size, false,
                               PREALLOC_MODE_OFF, 0, errp);
        if (ret < 0) {
            return ret;
        }
    }
    if (map_bytes > map_used) {
        /* A device has what was there before: not to be taken for states */
        ret = bdrv_co_pwrite_zeroes(l->bs->file, h->map_offset + map_used,
                                    map_bytes - map_used, BDRV_REQ_MAY_UNMAP);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not clear the new map");
            return ret;
        }
    }
    return 0;
}

/* Called with header_lock held */
static int coroutine_fn GRAPH_RDLOCK
layer_co_grow_locked(VdiskLayer *l, int64_t size, bool zero, Error **errp)
{
    VdiskHeader old = l->header;
    VdiskHeader new = old;
    int ret;

    new.virtual_size = size;
    if (!QEMU_IS_ALIGNED(size, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "The size must be a multiple of 512 bytes");
        return -EINVAL;
    }
    ret = layer_co_make_room(l, &new, errp);
    if (ret < 0) {
        return ret;
    }
    /* The guest sees the new size when this has returned, and not before */
    vdisk_map_grow(&l->map, vdisk_granules(size));
    l->header.virtual_size = size;
    if (zero) {
        ret = layer_co_zero_tail(l, old.virtual_size, size);
    }
    /*
     * The zero bits before the size: else a crash could leave a disk whose new
     * end shows the base.
     */
    if (ret >= 0) {
        ret = vdisk_layer_co_flush(l);
    }
    if (ret >= 0 && l->resetting) {
        /* Written when the guest runs: see vdisk_take_assigned() */
        l->header = new;
    } else if (ret >= 0) {
        ret = vdisk_layer_co_set_header(l, &new);
    }
    if (ret < 0) {
        l->header.virtual_size = old.virtual_size;
        error_setg_errno(errp, -ret, "Could not grow the disk");
    }
    return ret;
}

int coroutine_fn vdisk_layer_co_grow(VdiskLayer *l, int64_t size, bool zero,
                                     Error **errp)
{
    int ret = vdisk_layer_co_forget_saved(l);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not void the disk's saved state");
        return ret;
    }
    qemu_co_mutex_lock(&l->header_lock);
    ret = layer_co_grow_locked(l, size, zero, errp);
    qemu_co_mutex_unlock(&l->header_lock);
    return ret;
}

void vdisk_layer_mark_map_dirty(VdiskLayer *l)
{
    VdiskState state;
    uint64_t run;

    for (uint64_t g = 0; g < l->map.granules; g += run) {
        run = vdisk_map_run(&l->map, g, l->map.granules - g, &state);
        if (state != VDISK_STATE_BASE) {
            run = MIN(run, VDISK_MAP_PAGE_GRANULES -
                           g % VDISK_MAP_PAGE_GRANULES);
            vdisk_map_mark_dirty(&l->map, g / VDISK_MAP_PAGE_GRANULES);
        }
    }
}

int vdisk_layer_empty(VdiskLayer *l)
{
    BlockDriverState *bs = l->bs;
    int64_t bytes = vdisk_map_pages(&l->map) * VDISK_MAP_PAGE;
    int ret = 0;

    /*
     * Writes in place hold nothing, so a granule must not become base under
     * them: the write would be lost. Draining polls, so the graph may change
     * meanwhile: nothing was read of it yet.
     */
    bdrv_graph_rdunlock_main_loop();
    bdrv_drained_begin(bs);
    bdrv_graph_rdlock_main_loop();
    if (l->pooled) {
        ret = vdisk_saved_forget(l);
    } else {
        /*
         * The base has everything durably by now, so whichever bits of the
         * map a crash leaves, they read the same.
         */
        ret = bdrv_pwrite_zeroes(bs->file, l->header.map_offset, bytes,
                                 BDRV_REQ_MAY_UNMAP);
        if (ret >= 0) {
            ret = bdrv_flush(bs->file->bs);
        }
    }
    if (ret >= 0) {
        vdisk_tier_clear(l);
        vdisk_map_clear(&l->map);
        /* Only space: what is left in the data region cannot be read (L5) */
        bdrv_pdiscard(bs->file, l->data_offset, l->header.virtual_size);
        ret = 0;
    } else {
        vdisk_layer_mark_map_dirty(l);
    }
    bdrv_drained_end(bs);
    return ret;
}
