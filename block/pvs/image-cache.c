/*
 * pvs-image: its host cache
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-events-vdisk.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "block/pvs/cache.h"
#include "block/pvs/image.h"
#include "block/pvs/tree.h"
#include "trace.h"

#define CACHE_MAP_DIR   "/run/deskcast"

/* How often a desktop looks for a cache that its relay has not made yet, ms */
#define ATTACH_INTERVAL 2000

static PvsCacheId cache_id(const PvsImage *img)
{
    return (PvsCacheId) {
        .vdisk = img->vdisk,
        .version = img->version,
        .root = img->root ? img->root_hash : NULL,
        .image_bytes = img->size,
        .tree_bytes = img->tree ? pvs_tree_bytes(img->size) : 0,
    };
}

/* What an older cache has: is it what was sealed? */
static bool coroutine_fn cache_co_verify(void *opaque, int64_t offset,
                                         int64_t bytes, const uint8_t *buf)
{
    PvsImage *img = opaque;
    PvsTreeHold hold = {};
    int64_t bad;
    bool ok;

    if (!img->tree || pvs_tree_is_head(img->tree, offset)) {
        return false;
    }
    ok = pvs_tree_co_hold(img->tree, offset, bytes, false, &hold) >= 0 &&
         pvs_tree_check(&hold, offset, bytes, buf, &bad) == 0;
    pvs_tree_release(img->tree, &hold);
    return ok;
}

static void cache_full_changed(void *opaque, bool full)
{
    PvsImage *img = opaque;

    qapi_event_send_vdisk_host_cache(img->node_name, img->cache_name, full);
}

static const PvsCacheOps cache_ops = {
    .co_verify = cache_co_verify,
    .full_changed = cache_full_changed,
};

/*
 * Caches that were replaced keep their files, and the space of these. A request
 * counts as in flight before it looks which cache there is: if none is now,
 * none has an old one.
 */
static void let_go(PvsImage *img)
{
    smp_mb();                   /* what replaced them was set before */
    if (img->old_caches->len && qatomic_read(&img->bs->in_flight) == 0) {
        g_ptr_array_set_size(img->old_caches, 0);
    }
}

/* The relay may be started later, or make its cache anew */
static void attach(void *opaque)
{
    PvsImage *img = opaque;
    PvsCacheId id = cache_id(img);
    Error *err = NULL;
    PvsCache *cache;

    timer_mod(img->attach_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
              ATTACH_INTERVAL);
    let_go(img);
    if (img->cache && !pvs_cache_is_dead(img->cache)) {
        return;
    }
    cache = pvs_cache_attach(img->cache_name, img->cache_map, &id, &err);
    if (!cache) {
        trace_pvs_attach_failed(img->bs, error_get_pretty(err));
        error_free(err);
        return;
    }
    if (img->cache) {
        /* Requests may still read from it */
        g_ptr_array_add(img->old_caches, img->cache);
    }
    smp_wmb();                  /* what it points to comes first */
    qatomic_set(&img->cache, cache);
}

bool pvs_image_open_cache(PvsImage *img, const char *name, const char *map,
                          uint64_t limit, Error **errp)
{
    PvsCacheId id = cache_id(img);
    g_autofree char *base = NULL;

    if (!name) {
        return true;
    }
    base = g_path_get_basename(name);
    img->cache_name = g_strdup(name);
    img->cache_map = map ? g_strdup(map)
                         : g_strdup_printf(CACHE_MAP_DIR "/%s.map", base);
    if (img->owner) {
        img->cache = pvs_cache_own(img->cache_name, img->cache_map, &id, limit,
                                   &cache_ops, img, errp);
        return img->cache;
    }
    img->attach_timer = aio_timer_new(qemu_get_aio_context(),
                                      QEMU_CLOCK_REALTIME, SCALE_MS, attach,
                                      img);
    attach(img);
    return true;
}

void pvs_image_close_cache(PvsImage *img)
{
    timer_free(img->attach_timer);
    if (img->cache) {
        pvs_cache_close(img->cache);
    }
    g_ptr_array_unref(img->old_caches);
    g_free(img->cache_name);
    g_free(img->cache_map);
}

int64_t pvs_image_missing(const PvsImage *img)
{
    PvsCache *cache = pvs_image_cache(img);
    uint64_t end = pvs_image_end(img) / VDISK_GRANULE;
    uint64_t g = 0, n = 0;

    while (g < end) {
        VdiskState state = VDISK_STATE_BASE;
        uint64_t run = cache ? pvs_cache_run(cache, g, end - g, &state)
                             : end - g;

        n += state == VDISK_STATE_BASE ? run : 0;
        g += run;
    }
    return n * VDISK_GRANULE;
}
