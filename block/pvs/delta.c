/*
 * What the cache of an older version has in common with this one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/bitops.h"
#include "block/block-io.h"
#include "block/pvs/cache.h"
#include "block/pvs/delta.h"

#define CACHE_MAP_DIR   "/run/deskcast"

struct PvsDelta {
    unsigned refs;              /* under the image's lock */
    PvsCache *cache;
    int64_t image_bytes;
    int64_t tree_base;
    VerityGeometry g;
    uint64_t blocks;            /* atomic; taken so far */
};

/* Where the older version has what this one has at @offset; -1: nowhere */
static int64_t older_offset(PvsImage *img, const PvsDelta *d, int64_t offset)
{
    const VerityGeometry *g = pvs_tree_geometry(img->tree);
    uint64_t block;

    if (offset < img->tree_base) {
        return offset + VDISK_GRANULE <= d->image_bytes ? offset : -1;
    }
    block = (offset - img->tree_base) / VERITY_BLOCK;
    for (unsigned k = 0; k < MIN(g->levels, d->g.levels); k++) {
        uint64_t n = block - g->level_first[k];

        if (block >= g->level_first[k] && n < g->level_blocks[k] &&
            n < d->g.level_blocks[k]) {
            return d->tree_base + (d->g.level_first[k] + n) * VERITY_BLOCK;
        }
    }
    return -1;
}

/* One block, into @buf; is it the one that this version has too? */
static bool coroutine_fn older_block(PvsImage *img, PvsDelta *d,
                                     int64_t offset, PvsTreeHold *hold,
                                     uint8_t *buf)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, VDISK_GRANULE);
    int64_t from = older_offset(img, d, offset);
    PvsTreeHold one = *hold;
    VdiskState state;
    int64_t bad;

    if (from < 0) {
        return false;
    }
    pvs_cache_run(d->cache, from / VDISK_GRANULE, 1, &state);
    if (state == VDISK_STATE_ZERO) {
        memset(buf, 0, VDISK_GRANULE);
    } else if (state != VDISK_STATE_DATA ||
               pvs_cache_co_read(d->cache, from, VDISK_GRANULE, &qiov, 0) < 0) {
        return false;
    }
    one.offset = offset;
    return pvs_tree_check(&one, offset, VDISK_GRANULE, buf, &bad) == 0;
}

unsigned coroutine_fn
pvs_delta_co_read(PvsImage *img, PvsDelta *d, int64_t offset, int64_t bytes,
                  PvsTreeHold *hold, uint8_t *buf, unsigned long *have)
{
    unsigned n = 0;

    if (offset == img->tree_base) {
        return 0;       /* the head is what makes the difference */
    }
    for (int64_t pos = 0; pos < bytes; pos += VDISK_GRANULE) {
        if (older_block(img, d, offset + pos, hold, buf + pos)) {
            set_bit(pos / VDISK_GRANULE, have);
            n++;
        }
    }
    qatomic_set(&d->blocks, d->blocks + n);
    return n;
}

static bool delta_id(PvsCacheId *id, uint8_t *root, const PvsImage *img,
                     const VdiskDelta *from, Error **errp)
{
    g_autofree char *why = NULL;

    if (!verity_root_decode(root, from->verity_root, &why)) {
        error_setg(errp, "'verity-root': %s", why);
        return false;
    }
    *id = (PvsCacheId) {
        .vdisk = img->vdisk,
        .version = from->version,
        .root = root,
        .image_bytes = from->size,
        .tree_bytes = pvs_tree_bytes(from->size),
    };
    if (id->tree_bytes < 0) {
        error_setg(errp, "A version of %" PRIu64 " bytes has no tree",
                   from->size);
        return false;
    }
    return true;
}

bool pvs_delta_begin(PvsImage *img, const VdiskDelta *from, Error **errp)
{
    g_autofree char *base = g_path_get_basename(from->host_cache);
    g_autofree char *map = from->host_cache_map ?
        g_strdup(from->host_cache_map) :
        g_strdup_printf(CACHE_MAP_DIR "/%s.map", base);
    g_autofree char *why = NULL;
    uint8_t root[VERITY_HASH_BYTES];
    PvsDelta *d;
    PvsCacheId id;
    PvsCache *cache;

    if (!img->tree || img->delta) {
        error_setg(errp, img->tree ? "The version is being hydrated already"
                                   : "Without a verity tree nothing tells "
                                     "which blocks of two versions are alike");
        return false;
    }
    if (!delta_id(&id, root, img, from, errp)) {
        return false;
    }
    cache = pvs_cache_attach(from->host_cache, map, &id, errp);
    if (!cache) {
        return false;
    }
    d = g_new0(PvsDelta, 1);
    d->refs = 1;
    d->cache = cache;
    d->image_bytes = from->size;
    d->tree_base = ROUND_UP(from->size, VDISK_GRANULE);
    verity_geometry_init(&d->g, from->size, &why);
    qatomic_set(&img->delta, d);
    return true;
}

void pvs_delta_end(PvsImage *img)
{
    PvsDelta *d;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        d = img->delta;
        qatomic_set(&img->delta, NULL);
    }
    pvs_delta_put(img, d);
}

PvsDelta *pvs_delta_get(PvsImage *img)
{
    PvsDelta *d;

    QEMU_LOCK_GUARD(&img->waits.lock);
    d = img->delta;
    if (d) {
        d->refs++;
    }
    return d;
}

void pvs_delta_put(PvsImage *img, PvsDelta *d)
{
    bool last = false;

    WITH_QEMU_LOCK_GUARD(&img->waits.lock) {
        last = d && --d->refs == 0;
    }
    if (last) {
        pvs_cache_close(d->cache);
        g_free(d);
    }
}
