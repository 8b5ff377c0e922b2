/*
 * pvs: what query-vdisks and 'qemu-img info' tell
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-vdisk.h"
#include "block/pvs/ahead.h"
#include "block/pvs/cache.h"
#include "block/pvs/pvs.h"
#include "block/pvs/tree.h"
#include "system/block-backend.h"

static void add_stores(PvsStoreInfoList ***tail, PvsPool *pool, bool tree)
{
    for (unsigned i = 0; i < pvs_pool_stores(pool); i++) {
        PvsStoreInfo *info = g_new0(PvsStoreInfo, 1);
        Store s = pvs_pool_store(pool, i);

        info->name = g_strdup(pvs_pool_store_name(pool, i));
        info->tree = tree;
        info->state = pvs_pool_state_told(s.state);
        info->latency = s.latency / SCALE_US;
        info->reads = s.reads;
        info->bytes = s.bytes;
        info->errors = s.errors;
        QAPI_LIST_APPEND(*tail, info);
    }
}

static uint64_t cached_bytes(const PvsImage *img)
{
    uint64_t end = img->tree_base / VDISK_GRANULE;
    uint64_t g = 0, n = 0;

    while (img->cache && g < end) {
        VdiskState state;
        uint64_t run = pvs_cache_run(img->cache, g, end - g, &state);

        n += state == VDISK_STATE_BASE ? 0 : run;
        g += run;
    }
    return MIN(n * VDISK_GRANULE, img->size);
}

static PvsCacheInfo *cache_info(const PvsImage *img)
{
    PvsCacheInfo *info;

    if (!img->cache_name) {
        return NULL;
    }
    info = g_new0(PvsCacheInfo, 1);
    info->filename = g_strdup(img->cache_name);
    info->owner = img->owner;
    info->usable = img->cache && !pvs_cache_is_dead(img->cache);
    if (img->cache) {
        PvsCacheUse use = pvs_cache_use(img->cache);

        info->full = use.full;
        info->hit_bytes = use.hit_bytes;
        info->miss_bytes = use.miss_bytes;
        info->filled_bytes = use.filled_bytes;
    }
    return info;
}

static PvsBudget *budget(const PvsImage *img)
{
    PvsBudget *b = g_new0(PvsBudget, 1);
    uint64_t boot, cached;

    b->local_bytes = cached_bytes(img);
    if (pvs_ahead_boot(img->ahead, &boot, &cached)) {
        b->has_boot_bytes = b->has_boot_local_bytes = true;
        b->boot_bytes = boot * VDISK_GRANULE;
        b->boot_local_bytes = cached * VDISK_GRANULE;
    }
    return b;
}

/* The earlier of two times; 0: there is none */
static int64_t earlier(int64_t a, int64_t b)
{
    return a && b ? MIN(a, b) : a + b;
}

/* Of the image's stores or its tree's, whichever began first; ns, 0: none */
static int64_t first_of_pools(PvsImage *img, int64_t (*since)(PvsPool *p))
{
    return earlier(since(img->stores),
                   img->tree ? since(pvs_tree_pool(img->tree)) : 0);
}

/* The same of a block that no store which is up has right */
static int64_t denied_since(PvsImage *img)
{
    int64_t since = first_of_pools(img, pvs_pool_denied_since);

    QEMU_LOCK_GUARD(&img->waits.lock);
    return img->lack.told ? earlier(since, img->lack.since) : since;
}

static void add_outage(PvsInfo *info, PvsImage *img)
{
    static const PvsOutageAction actions[] = {
        [STORE_OUTAGE_WAIT] = PVS_OUTAGE_ACTION_WAIT,
        [STORE_OUTAGE_PAUSE] = PVS_OUTAGE_ACTION_PAUSE,
        [STORE_OUTAGE_ERROR] = PVS_OUTAGE_ACTION_ERROR,
    };
    int64_t since = first_of_pools(img, pvs_pool_outage_since);
    int64_t denied = denied_since(img);

    info->outage_action = actions[img->outage_action];
    info->has_outage_ms = since;
    info->outage_ms = since ? (pvs_now() - since) / SCALE_MS : 0;
    info->has_denied_ms = denied;
    info->denied_ms = denied ? (pvs_now() - denied) / SCALE_MS : 0;
    info->corrupt = qatomic_read(&img->corrupt);
}

/* Does the device on the node keep requests that fail, and stop the guest? */
static bool GRAPH_RDLOCK stops_on_error(BlockDriverState *bs, bool *stops)
{
    bool found = false;

    *stops = true;
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (blk_bs(blk) == bs && blk_get_attached_dev(blk)) {
            found = true;
            *stops &= blk_get_on_error(blk, true) == BLOCKDEV_ON_ERROR_STOP &&
                      blk_get_on_error(blk, false) == BLOCKDEV_ON_ERROR_STOP;
        }
    }
    return found;
}

void pvs_query(BlockDriverState *bs, VdiskInfo *all)
{
    BDRVPvsState *s = bs->opaque;
    PvsImage *img = s->image ? pvs_image(s->image->bs) : NULL;
    PvsInfo *info;
    PvsStoreInfoList **tail;

    if (s->priv) {
        all->pvs = g_new0(PvsInfo, 1);
        pvs_private_query(s->priv, all->pvs);
        all->pvs->has_stops_on_error =
            stops_on_error(bs, &all->pvs->stops_on_error);
        return;
    }
    if (!img) {
        return;
    }
    info = all->pvs = g_new0(PvsInfo, 1);
    tail = &info->stores;
    info->mode = PVS_MODE_STANDARD;
    info->vdisk = *img->vdisk ? g_strdup(img->vdisk) : NULL;
    info->version = img->version;
    info->verity_root = g_strdup(img->root);
    if (s->has_layer && s->layer.header.assigned.name[0]) {
        info->has_assigned_version = true;
        info->assigned_version = s->layer.header.assigned.version;
    }
    add_stores(&tail, img->stores, false);
    if (img->tree) {
        add_stores(&tail, pvs_tree_pool(img->tree), true);
    }
    info->host_cache = cache_info(img);
    info->budget = budget(img);
    add_outage(info, img);
    info->has_stops_on_error = stops_on_error(bs, &info->stops_on_error);
}

ImageInfoSpecific *pvs_get_specific_info(BlockDriverState *bs, Error **errp)
{
    BDRVPvsState *s = bs->opaque;
    const VdiskHeader *h = &s->layer.header;
    ImageInfoSpecific *info;
    ImageInfoSpecificPvs *pvs;

    if (!s->has_layer) {
        return NULL;
    }
    info = g_new0(ImageInfoSpecific, 1);
    pvs = g_new0(ImageInfoSpecificPvs, 1);
    pvs->role = s->is_private ? PVS_ROLE_COPY : PVS_ROLE_CACHE;
    pvs->vdisk = g_strdup(h->base.name);
    pvs->version = h->base.version;
    pvs->verity_root = s->is_private ? NULL : pvs_root_hex(h->base.root);
    pvs->desktop = vdisk_desktop(&s->layer);
    pvs->has_assigned_version = h->assigned.name[0];
    pvs->assigned_version = h->assigned.version;
    info->type = IMAGE_INFO_SPECIFIC_KIND_PVS;
    info->u.pvs.data = pvs;
    return info;
}
