/*
 * Live map: what a host cache has, shared between a relay and its desktops
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "block/vdisk/pure.h"
#include "block/vdisk/map.h"
#include "block/pvs/live-map.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAP_MAGIC       "DSKLIVEM"
#define MAP_VERSION     1
/* Three of them are a file's offset still */
#define MAX_BYTES       (UINT64_C(1) << 61)

/* As in the file, little-endian */
typedef struct QEMU_PACKED DiskMap {
    char magic[8];
    uint64_t checksum;          /* XXH3 of the fields behind it */
    uint32_t version;
    uint32_t granule_bits;
    uint8_t boot[LIVE_MAP_BOOT_BYTES];
    uint8_t root[LIVE_MAP_ROOT_BYTES];
    uint64_t dev;
    uint64_t ino;
    uint64_t image_bytes;
    uint64_t tree_bytes;
    uint64_t data_offset;
    uint8_t file_id[LIVE_MAP_ID_BYTES];
    uint8_t reserved[16];
} DiskMap;

QEMU_BUILD_BUG_ON(sizeof(DiskMap) != 144);
QEMU_BUILD_BUG_ON(sizeof(DiskMap) > LIVE_MAP_DEAD);
QEMU_BUILD_BUG_ON(LIVE_MAP_HEADER_BYTES % VDISK_MAP_PAGE);

uint64_t live_map_granules(const LiveMap *m)
{
    return DIV_ROUND_UP(m->image_bytes, VDISK_GRANULE) +
           m->tree_bytes / VDISK_GRANULE;
}

uint64_t live_map_unsynced_offset(const LiveMap *m)
{
    return LIVE_MAP_HEADER_BYTES + VDISK_MAP_BYTES(live_map_granules(m));
}

uint64_t live_map_unsynced_bytes(const LiveMap *m)
{
    return ROUND_UP(DIV_ROUND_UP(live_map_granules(m), 8), VDISK_MAP_PAGE);
}

uint64_t live_map_file_bytes(const LiveMap *m)
{
    return live_map_unsynced_offset(m) + live_map_unsynced_bytes(m);
}

bool live_map_probe(const uint8_t *buf, size_t len)
{
    return len >= strlen(MAP_MAGIC) &&
           memcmp(buf, MAP_MAGIC, strlen(MAP_MAGIC)) == 0;
}

static uint64_t checksum(const DiskMap *d)
{
    size_t skip = offsetof(DiskMap, version);

    return XXH3_64bits((const uint8_t *)d + skip, sizeof(*d) - skip);
}

void live_map_encode(const LiveMap *m, uint8_t buf[LIVE_MAP_HEADER_BYTES])
{
    DiskMap d = {
        .version = GUINT32_TO_LE(MAP_VERSION),
        .granule_bits = GUINT32_TO_LE(VDISK_GRANULE_BITS),
        .dev = GUINT64_TO_LE(m->dev),
        .ino = GUINT64_TO_LE(m->ino),
        .image_bytes = GUINT64_TO_LE(m->image_bytes),
        .tree_bytes = GUINT64_TO_LE(m->tree_bytes),
        .data_offset = GUINT64_TO_LE(m->data_offset),
    };

    memcpy(d.magic, MAP_MAGIC, sizeof(d.magic));
    memcpy(d.boot, m->boot, sizeof(d.boot));
    memcpy(d.root, m->root, sizeof(d.root));
    memcpy(d.file_id, m->file_id, sizeof(d.file_id));
    d.checksum = GUINT64_TO_LE(checksum(&d));
    memset(buf, 0, LIVE_MAP_HEADER_BYTES);
    memcpy(buf, &d, sizeof(d));
}

static const char *bad_fields(const LiveMap *m, uint64_t file_bytes)
{
    if (m->image_bytes == 0 || m->image_bytes % 512 ||
        m->image_bytes > MAX_BYTES || m->tree_bytes % VDISK_GRANULE ||
        m->tree_bytes > MAX_BYTES) {
        return "a size in it is not possible";
    }
    if (m->data_offset % VDISK_GRANULE || m->data_offset > MAX_BYTES) {
        return "the offset of the data is not possible";
    }
    if (file_bytes < live_map_file_bytes(m)) {
        return "it was cut off";
    }
    return NULL;
}

bool live_map_decode(LiveMap *m, const uint8_t buf[LIVE_MAP_HEADER_BYTES],
                     uint64_t file_bytes, char **why)
{
    const char *bad = NULL;
    DiskMap d;

    memcpy(&d, buf, sizeof(d));
    if (!live_map_probe(buf, sizeof(d))) {
        bad = "it does not begin like one";
    } else if (GUINT32_FROM_LE(d.version) != MAP_VERSION ||
               GUINT32_FROM_LE(d.granule_bits) != VDISK_GRANULE_BITS) {
        bad = "its format is of a version that is not known";
    } else if (GUINT64_FROM_LE(d.checksum) != checksum(&d)) {
        bad = "its checksum does not match";
    } else {
        *m = (LiveMap) {
            .dev = GUINT64_FROM_LE(d.dev),
            .ino = GUINT64_FROM_LE(d.ino),
            .image_bytes = GUINT64_FROM_LE(d.image_bytes),
            .tree_bytes = GUINT64_FROM_LE(d.tree_bytes),
            .data_offset = GUINT64_FROM_LE(d.data_offset),
        };
        memcpy(m->boot, d.boot, sizeof(m->boot));
        memcpy(m->root, d.root, sizeof(m->root));
        memcpy(m->file_id, d.file_id, sizeof(m->file_id));
        bad = bad_fields(m, file_bytes);
    }
    *why = g_strdup(bad);
    return !bad;
}

bool live_map_matches(const LiveMap *found, const LiveMap *wanted, char **why)
{
    const char *bad = NULL;

    if (memcmp(found->boot, wanted->boot, sizeof(found->boot)) != 0) {
        bad = "it is from before the host was started";
    } else if (memcmp(found->root, wanted->root, sizeof(found->root)) != 0 ||
               found->image_bytes != wanted->image_bytes ||
               found->tree_bytes != wanted->tree_bytes) {
        bad = "it is of another version";
    } else if (found->dev != wanted->dev || found->ino != wanted->ino ||
               found->data_offset != wanted->data_offset ||
               memcmp(found->file_id, wanted->file_id,
                      sizeof(found->file_id)) != 0) {
        bad = "it belongs to another cache file";
    }
    *why = g_strdup(bad);
    return !bad;
}
