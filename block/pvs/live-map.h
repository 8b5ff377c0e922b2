/*
 * Live map: what a host cache has, shared between a relay and its desktops
 *
 * The file is specified in docs/interop/host-cache.rst:
 *
 *   0        2048    4096
 *   +--------+-------+-----------------------+-------------------------+
 *   | header | flags | granule map, 2 bits   | not durable yet, 1 bit  |
 *   +--------+-------+-----------------------+-------------------------+
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_LIVE_MAP_H
#define BLOCK_PVS_LIVE_MAP_H

#include "block/vdisk/pure.h"

#define LIVE_MAP_HEADER_BYTES   4096
#define LIVE_MAP_BOOT_BYTES     16
#define LIVE_MAP_ROOT_BYTES     32
#define LIVE_MAP_ID_BYTES       16

/* Offsets of flags, each a uint32_t */
#define LIVE_MAP_DEAD           2048    /* what is here counts no more */
#define LIVE_MAP_SCANNING       2052    /* the data file may hold more */
#define LIVE_MAP_SYNCING        2056    /* how a sync ends is not known yet */

typedef struct LiveMap {
    uint8_t boot[LIVE_MAP_BOOT_BYTES];  /* id of the host's boot */
    uint8_t root[LIVE_MAP_ROOT_BYTES];  /* of the version; zero: none */
    uint8_t file_id[LIVE_MAP_ID_BYTES]; /* of the data file */
    uint64_t dev, ino;                  /* of the data file */
    uint64_t image_bytes;
    uint64_t tree_bytes;                /* 0: no tree */
    uint64_t data_offset;               /* of granule 0 in the data file */
} LiveMap;

/* Granules that it covers: those of the image, and of the tree behind it */
uint64_t live_map_granules(const LiveMap *m);

/* Where the bits of what is not durable are, and their bytes: whole pages */
uint64_t live_map_unsynced_offset(const LiveMap *m);
uint64_t live_map_unsynced_bytes(const LiveMap *m);

/* Size of the file */
uint64_t live_map_file_bytes(const LiveMap *m);

/* Does @buf begin like a live map, of whatever version? */
bool live_map_probe(const uint8_t *buf, size_t len);

/* The header, with all flags 0 */
void live_map_encode(const LiveMap *m, uint8_t buf[LIVE_MAP_HEADER_BYTES]);

/*
 * Read a header, and bound every field of it. @file_bytes is the size of the
 * file it is in. False with *@why set (to be freed) if it is not valid.
 */
bool live_map_decode(LiveMap *m, const uint8_t buf[LIVE_MAP_HEADER_BYTES],
                     uint64_t file_bytes, char **why);

/* Is @found what is @wanted? False with *@why set (to be freed) if not. */
bool live_map_matches(const LiveMap *found, const LiveMap *wanted, char **why);

#endif /* BLOCK_PVS_LIVE_MAP_H */
