/*
 * Layer: open, close, header and flush
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/memalign.h"
#include "qemu/units.h"
#include "block/vdisk/layer.h"
#include "trace.h"

#define MAP_CHUNK_PAGES     256     /* read and written at once: 1 MiB */

/* Both copies of the header, and which of them are damaged in *@bad */
static int coroutine_fn GRAPH_RDLOCK
layer_co_read_header(VdiskLayer *l, unsigned *bad, Error **errp)
{
    ERRP_GUARD();
    size_t size = VDISK_HEADER_COPIES * VDISK_HEADER_BYTES;
    g_autofree char *why = NULL;
    void *buf = qemu_blockalign0(l->bs->file->bs, size);
    int64_t length = bdrv_co_getlength(l->bs->file->bs);
    int ret = length < 0 ? length : 0;

    if (ret == 0 && length > 0) {
        ret = bdrv_co_pread(l->bs->file, 0, MIN(size, length), buf, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the layer's header");
    } else {
        l->header_copy = vdisk_header_choose(&l->header, buf, bad, &why);
        if (l->header_copy < 0) {
            error_setg(errp, "Image is not a usable layer file: %s", why);
            error_append_hint(errp, "Neither copy of its header is good. If "
                              "it is a layer file, restore it from a copy; if "
                              "not, name the format that it has.\n");
            ret = -EINVAL;
        }
    }
    qemu_vfree(buf);
    return ret;
}

/* A file of another role is another driver's, or nobody's to open */
static bool layer_check_role(VdiskLayer *l, Error **errp)
{
    ERRP_GUARD();
    static const char *const files[] = {
        [VDISK_ROLE_MCS] = "a differencing disk",
        [VDISK_ROLE_WRITE_CACHE] = "the write cache of a streamed vDisk",
        [VDISK_ROLE_HOST_CACHE] = "a host's cache of a streamed vDisk",
        [VDISK_ROLE_LOCAL_COPY] = "the local copy of a private vDisk",
    };
    VdiskRole role = l->header.role;

    if (role == l->role) {
        return true;
    }
    error_setg(errp, "The layer file is %s, not %s", files[role],
               files[l->role]);
    if (role == VDISK_ROLE_HOST_CACHE) {
        error_append_hint(errp, "It is named by the option host-cache of the "
                          "driver '%s'.\n", vdisk_role_driver(role));
    } else if (role == VDISK_ROLE_LOCAL_COPY) {
        error_append_hint(errp, "Open it with the driver '%s' and "
                          "mode=private.\n", vdisk_role_driver(role));
    } else {
        error_append_hint(errp, "Open it with the driver '%s'.\n",
                          vdisk_role_driver(role));
    }
    return false;
}

/* May this build and this process use the file that the header describes? */
static int coroutine_fn GRAPH_RDLOCK
layer_co_check_header(VdiskLayer *l, int flags, bool resume, Error **errp)
{
    ERRP_GUARD();
    int64_t length = bdrv_co_getlength(l->bs->file->bs);

    if (!layer_check_role(l, errp)) {
        return -EINVAL;
    }
    if (l->header.incompatible_features) {
        error_setg(errp, "The layer file uses features that this version does "
                   "not know (0x%" PRIx64 ")",
                   l->header.incompatible_features);
        error_append_hint(errp, "Use a newer version of Deskcast.\n");
        return -ENOTSUP;
    }
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get the layer's length");
        return length;
    }
    if (length < l->header.file_size && !(flags & BDRV_O_CHECK) &&
        !(l->header.lifetime == VDISK_POOLED && !resume)) {
        error_setg(errp, "The layer file was cut off: it has %" PRId64
                   " bytes of at least %" PRIu64, length,
                   l->header.file_size);
        error_append_hint(errp, "Restore it from a copy, or let 'qemu-img "
                          "check -r all' make it usable; what was cut off then "
                          "reads as zeros.\n");
        return -EINVAL;
    }
    return 0;
}

/* Load @bytes of the map from @offset on, which are known to be there */
static int coroutine_fn GRAPH_RDLOCK
layer_co_load_range(VdiskLayer *l, int64_t offset, int64_t bytes)
{
    size_t chunk = MIN(bytes, MAP_CHUNK_PAGES * VDISK_MAP_PAGE);
    uint8_t *buf = qemu_blockalign(l->bs->file->bs, chunk);
    int ret = 0;

    while (bytes > 0 && ret >= 0) {
        size_t n = MIN(bytes, chunk);

        ret = bdrv_co_pread(l->bs->file, l->header.map_offset + offset, n,
                            buf, 0);
        for (size_t i = 0; i < n && ret >= 0; i += VDISK_MAP_PAGE) {
            l->map_damaged |= !vdisk_map_load(&l->map,
                                              (offset + i) / VDISK_MAP_PAGE,
                                              buf + i);
        }
        offset += n;
        bytes -= n;
    }
    qemu_vfree(buf);
    return ret;
}

/* Holes are skipped: a map of gigabytes loads as fast as it is filled */
static int coroutine_fn GRAPH_RDLOCK layer_co_load_map(VdiskLayer *l)
{
    BlockDriverState *file = l->bs->file->bs;
    int64_t bytes = vdisk_map_pages(&l->map) * VDISK_MAP_PAGE;
    int64_t offset = 0;
    int64_t hole, n;
    int ret;

    while (offset < bytes) {
        ret = bdrv_co_block_status_above(file, NULL,
                                         l->header.map_offset + offset,
                                         bytes - offset, &n, NULL, NULL);
        if (ret < 0) {
            return ret;
        }
        if (n == 0) {
            break;      /* end of a file that was cut off */
        }
        /* A hole may end inside a page: file systems have smaller blocks */
        hole = ret & BDRV_BLOCK_ZERO ? QEMU_ALIGN_DOWN(n, VDISK_MAP_PAGE) : 0;
        n = MIN(hole ?: QEMU_ALIGN_UP(n, VDISK_MAP_PAGE), bytes - offset);
        if (!hole) {
            ret = layer_co_load_range(l, offset, n);
            if (ret < 0) {
                return ret;
            }
        }
        offset += n;
    }
    return 0;
}

static int layer_check_map(VdiskLayer *l, int flags, Error **errp)
{
    ERRP_GUARD();

    if (flags & BDRV_O_CHECK) {
        return 0;
    }
    /* Bits past the end would come alive when the disk grows */
    vdisk_map_trim(&l->map, true);
    if (l->map_damaged && (flags & BDRV_O_RDWR)) {
        error_setg(errp, "The granule map is damaged, first at byte %" PRIu64
                   " of the disk",
                   vdisk_map_next_bad(&l->map, 0) * VDISK_GRANULE);
        error_append_hint(errp, "Opened read-only, the disk still gives what "
                          "is sound; 'qemu-img check -r all' repairs what can "
                          "be.\n");
        return -EINVAL;
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK
layer_co_clear_features(VdiskLayer *l, int flags, Error **errp)
{
    VdiskHeader h;
    int ret;

    if (!l->header.autoclear_features || !(flags & BDRV_O_RDWR) ||
        (flags & BDRV_O_INACTIVE)) {
        return 0;
    }
    qemu_co_mutex_lock(&l->header_lock);
    h = l->header;
    h.autoclear_features = 0;
    ret = vdisk_layer_co_set_header(l, &h);
    qemu_co_mutex_unlock(&l->header_lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update the layer's header");
    }
    return ret;
}

/*
 * A pooled disk grows without waiting for the file's length to be durable. What
 * the file holds does not count then, so it only has to be long enough.
 */
static int coroutine_fn GRAPH_RDLOCK
layer_co_lengthen(VdiskLayer *l, int flags, Error **errp)
{
    int64_t length = bdrv_co_getlength(l->bs->file->bs);

    if (!l->pooled || !(flags & BDRV_O_RDWR) || (flags & BDRV_O_INACTIVE) ||
        length < 0 || length >= l->header.file_size) {
        return MIN(length, 0);
    }
    return bdrv_co_truncate(l->bs->file, l->header.file_size, false,
                            PREALLOC_MODE_OFF, 0, errp);
}

/* With @before, the header that it had, a saved state is resumed */
static int coroutine_fn GRAPH_RDLOCK
layer_co_load(VdiskLayer *l, int flags, const VdiskHeader *before,
              Error **errp)
{
    unsigned bad;
    int ret = layer_co_read_header(l, &bad, errp);

    if (ret < 0) {
        return ret;
    }
    ret = layer_co_check_header(l, flags, before, errp);
    if (ret < 0) {
        return ret;
    }
    if (before && !vdisk_saved_check(l, before, errp)) {
        return -EINVAL;
    }
    l->pooled = l->header.lifetime == VDISK_POOLED;
    l->data_offset = l->header.data_offset;
    l->map_damaged = false;
    if (!vdisk_map_init(&l->map, vdisk_granules(l->header.virtual_size),
                        l->header.map_capacity * 4)) {
        error_setg(errp, "No address space for the granule map of a disk of "
                   "%" PRIu64 " bytes", l->header.virtual_size);
        return -ENOMEM;
    }
    /* The map of a pooled layer counts only with the token of a saved state */
    if (!l->pooled || before) {
        ret = layer_co_load_map(l);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not read the granule map");
        } else {
            ret = layer_check_map(l, flags, errp);
        }
    }
    if (ret == 0) {
        ret = layer_co_lengthen(l, flags, errp);
    }
    if (ret == 0) {
        ret = layer_co_clear_features(l, flags, errp);
    }
    if (ret < 0) {
        vdisk_map_destroy(&l->map);
        return ret;
    }
    vdisk_saved_loaded(l);
    return 0;
}

int coroutine_fn vdisk_layer_co_reload(VdiskLayer *l, int flags, Error **errp)
{
    VdiskMap old_map = l->map;
    VdiskHeader old_header = l->header;
    int old_copy = l->header_copy;
    bool resume = vdisk_saved_resumes(l);
    bool old_damaged = l->map_damaged;
    int ret = layer_co_load(l, flags, resume ? &old_header : NULL, errp);

    if (ret == 0 && l->header.lifetime != old_header.lifetime) {
        /* What the node was set up for, or not: background work, a tier */
        error_setg(errp, "The layer file was replaced by one with another "
                   "lifetime");
        vdisk_map_destroy(&l->map);
        ret = -EINVAL;
    }
    if (ret < 0) {
        /* The node stays, so it must not be left without a map */
        l->map = old_map;
        l->map_damaged = old_damaged;
        l->header = old_header;
        l->header_copy = old_copy;
        l->pooled = old_header.lifetime == VDISK_POOLED;
        l->data_offset = old_header.data_offset;
        vdisk_saved_loaded(l);
        return ret;
    }
    vdisk_map_destroy(&old_map);
    if (resume) {
        vdisk_saved_resumed(l);
    }
    return 0;
}

typedef struct LayerOpenCo {
    VdiskLayer *l;
    int flags;
    Error **errp;
    int ret;
} LayerOpenCo;

static void coroutine_fn layer_open_entry(void *opaque)
{
    LayerOpenCo *oc = opaque;

    GRAPH_RDLOCK_GUARD();
    oc->ret = layer_co_load(oc->l, oc->flags, NULL, oc->errp);
}

int vdisk_layer_open(VdiskLayer *l, BlockDriverState *bs,
                     const VdiskLayerOps *ops, VdiskRole role, int flags,
                     Error **errp)
{
    LayerOpenCo oc = {
        .l = l, .flags = flags, .errp = errp, .ret = -EINPROGRESS,
    };

    *l = (VdiskLayer) { .bs = bs, .ops = ops, .role = role };
    qemu_co_mutex_init(&l->header_lock);
    qemu_co_mutex_init(&l->hold_lock);
    qemu_co_mutex_init(&l->flush_gate);
    QLIST_INIT(&l->holds);

    qemu_coroutine_enter(qemu_coroutine_create(layer_open_entry, &oc));
    BDRV_POLL_WHILE(bs, oc.ret == -EINPROGRESS);
    if (oc.ret >= 0) {
        vdisk_node_add(l);
    }
    return oc.ret;
}

void vdisk_layer_close(VdiskLayer *l)
{
    assert(QLIST_EMPTY(&l->holds));
    vdisk_node_remove(l);
    vdisk_assign_release(l);
    vdisk_tier_close(l);
    vdisk_map_destroy(&l->map);
}

/* Write @new as the next header; the one in memory only gets its generation */
static int coroutine_fn GRAPH_RDLOCK
layer_co_put_header(VdiskLayer *l, const VdiskHeader *new)
{
    int copy = (l->header_copy + 1) % VDISK_HEADER_COPIES;
    VdiskHeader h = *new;
    uint8_t *buf;
    int ret;

    if (l->header.generation == UINT64_MAX) {
        return -EOVERFLOW;      /* forged; the next would count as older */
    }
    buf = qemu_blockalign(l->bs->file->bs, VDISK_HEADER_BYTES);
    h.generation = l->header.generation + 1;
    vdisk_header_encode(&h, buf);
    /*
     * Into the copy that is not in use: torn or lost, this write leaves the
     * header as it was. Durable before it is relied on, or the next update
     * would overwrite the only copy that is known to be whole. Not with FUA:
     * QEMU 10.0 follows such a write by a flush that it skips if all before the
     * write was flushed.
     */
    ret = bdrv_co_pwrite_sync(l->bs->file, copy * VDISK_HEADER_BYTES,
                              VDISK_HEADER_BYTES, buf, 0);
    if (ret >= 0) {
        l->header.generation = h.generation;
        l->header_copy = copy;
        ret = 0;
    }
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn vdisk_layer_co_set_header(VdiskLayer *l,
                                           const VdiskHeader *new)
{
    int ret = layer_co_put_header(l, new);

    if (ret == 0) {
        uint64_t generation = l->header.generation;

        l->header = *new;
        l->header.generation = generation;
    }
    return ret;
}

int coroutine_fn vdisk_layer_co_change_header(VdiskLayer *l,
                                              VdiskHeaderChange *change,
                                              const void *opaque)
{
    VdiskHeader h;
    int ret;

    qemu_co_mutex_lock(&l->header_lock);
    h = l->header;
    change(&h, opaque);
    ret = layer_co_put_header(l, &h);
    if (ret == 0) {
        /* Not as a whole: a reset may have changed the rest meanwhile */
        change(&l->header, opaque);
    }
    qemu_co_mutex_unlock(&l->header_lock);
    return ret;
}

static void header_no_change(VdiskHeader *h, const void *opaque)
{
}

int coroutine_fn vdisk_layer_co_write_header(VdiskLayer *l)
{
    return vdisk_layer_co_change_header(l, header_no_change, NULL);
}

/*
 * Take up to MAP_CHUNK_PAGES dirty pages from *@page on into @buf, and note
 * them in @taken. Returns how many.
 */
static int layer_take_pages(VdiskLayer *l, uint64_t *page, uint8_t *buf,
                            GArray *taken)
{
    uint64_t pages = vdisk_map_pages(&l->map);
    int n = 0;

    while (n < MAP_CHUNK_PAGES) {
        *page = vdisk_map_next_dirty(&l->map, *page);
        if (*page == pages) {
            break;
        }
        vdisk_map_take(&l->map, *page, buf + n * VDISK_MAP_PAGE);
        g_array_append_val(taken, *page);
        (*page)++;
        n++;
    }
    return n;
}

/* Write the @n pages in @buf, neighbours together; @taken are their numbers */
static int coroutine_fn GRAPH_RDLOCK
layer_co_write_pages(VdiskLayer *l, const uint64_t *taken, int n,
                     const uint8_t *buf)
{
    int i = 0;

    while (i < n) {
        int run = 1;
        int ret;

        while (i + run < n && taken[i + run] == taken[i] + run) {
            run++;
        }
        ret = bdrv_co_pwrite(l->bs->file,
                             l->header.map_offset + taken[i] * VDISK_MAP_PAGE,
                             run * VDISK_MAP_PAGE, buf + i * VDISK_MAP_PAGE, 0);
        if (ret < 0) {
            return ret;
        }
        i += run;
    }
    return 0;
}

static int coroutine_fn GRAPH_RDLOCK
layer_co_flush_map(VdiskLayer *l, GArray *taken)
{
    BlockDriverState *file = l->bs->file->bs;
    uint8_t *buf = NULL;
    uint64_t page = vdisk_map_next_dirty(&l->map, 0);
    int n = 0;
    int ret;

    if (page < vdisk_map_pages(&l->map)) {
        buf = qemu_blockalign(file, MAP_CHUNK_PAGES * VDISK_MAP_PAGE);
    }
    do {
        /*
         * Copy first: a bit that is set from here on belongs to the next
         * flush, because this one's barrier may not cover its data.
         */
        if (buf) {
            n = layer_take_pages(l, &page, buf, taken);
        }
        /*
         * Data before the bits that vouch for it: without this barrier a bit
         * could survive a crash that its data did not, and show stale data.
         * The last time round it makes the bits themselves durable.
         */
        ret = bdrv_co_flush(file);
        if (ret >= 0 && n > 0) {
            BLKDBG_CO_EVENT(l->bs->file, BLKDBG_L2_UPDATE);
            ret = layer_co_write_pages(l, &g_array_index(taken, uint64_t,
                                                         taken->len - n),
                                       n, buf);
        }
    } while (ret >= 0 && n > 0);
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn vdisk_layer_co_flush(VdiskLayer *l)
{
    g_autoptr(GArray) taken = NULL;
    int ret;

    if (l->pooled) {
        /* Nothing outlives the session; lost writes must not go unnoticed */
        return qatomic_read(&l->sync_error);
    }
    taken = g_array_new(false, false, sizeof(uint64_t));
    qemu_co_mutex_lock(&l->flush_gate);
    ret = layer_co_flush_map(l, taken);
    /* What may not have reached the disk is changed still */
    for (guint i = 0; ret < 0 && i < taken->len; i++) {
        vdisk_map_mark_dirty(&l->map, g_array_index(taken, uint64_t, i));
    }
    trace_vdisk_layer_flush(l->bs, taken->len, ret);
    qemu_co_mutex_unlock(&l->flush_gate);
    return ret;
}

int coroutine_fn vdisk_layer_co_write_map(VdiskLayer *l)
{
    int64_t bytes = vdisk_map_pages(&l->map) * VDISK_MAP_PAGE;
    g_autoptr(GArray) taken = g_array_new(false, false, sizeof(uint64_t));
    int ret;

    qemu_co_mutex_lock(&l->flush_gate);
    ret = bdrv_co_pwrite_zeroes(l->bs->file, l->header.map_offset, bytes,
                                BDRV_REQ_MAY_UNMAP);
    if (ret >= 0) {
        vdisk_layer_mark_map_dirty(l);
        ret = layer_co_flush_map(l, taken);
    }
    qemu_co_mutex_unlock(&l->flush_gate);
    return ret;
}
