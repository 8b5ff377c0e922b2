/*
 * Does a VHDX end before its blocks do? QEMU looks at where they begin only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "source-check.h"

#define REGION_MAX_ENTRIES  2047
#define METADATA_MAX_ITEMS  2047
#define BLOCK_MAX           (256 << 20)

/* As in the file: little-endian */
static const uint8_t bat_guid[] = {
    0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
    0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
};
static const uint8_t metadata_guid[] = {
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
    0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
};
static const uint8_t parameters_guid[] = {
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
    0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
};

static uint32_t le32(const uint8_t *p)
{
    uint32_t n;

    memcpy(&n, p, sizeof(n));
    return GUINT32_FROM_LE(n);
}

static uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

bool source_vhdx_regions(SourceRegions *r, const uint8_t *table,
                         uint64_t file_bytes)
{
    uint32_t entries = le32(table + 8);

    *r = (SourceRegions) {};
    if (memcmp(table, "regi", 4) != 0 || entries > REGION_MAX_ENTRIES) {
        return false;
    }
    for (uint32_t i = 0; i < entries; i++) {
        const uint8_t *e = table + 16 + i * 32;

        if (memcmp(e, bat_guid, sizeof(bat_guid)) == 0) {
            r->table = le64(e + 16);
            r->table_bytes = le32(e + 24);
        } else if (memcmp(e, metadata_guid, sizeof(metadata_guid)) == 0) {
            r->metadata = le64(e + 16);
            r->metadata_bytes = MIN(le32(e + 24), SOURCE_METADATA_BYTES);
        }
    }
    return r->table && r->metadata && r->table < file_bytes &&
           r->metadata < file_bytes &&
           r->table_bytes <= MIN(file_bytes - r->table,
                                 SOURCE_MAX_TABLE_BYTES) &&
           r->metadata_bytes >= 65536 &&
           r->metadata_bytes <= file_bytes - r->metadata;
}

/* 0 if it does not say */
static uint32_t block_bytes(const uint8_t *metadata, uint32_t bytes)
{
    unsigned items = metadata[10] | metadata[11] << 8;

    if (memcmp(metadata, "metadata", 8) != 0 || items > METADATA_MAX_ITEMS) {
        return 0;
    }
    for (unsigned i = 0; i < items; i++) {
        const uint8_t *e = metadata + 32 + i * 32;
        uint32_t at = le32(e + 16);

        if (memcmp(e, parameters_guid, sizeof(parameters_guid)) == 0 &&
            at <= bytes - 8) {
            return le32(metadata + at);
        }
    }
    return 0;
}

char *source_vhdx_refused(const SourceRegions *r, const uint8_t *metadata,
                          const uint8_t *table, uint64_t file_bytes)
{
    uint32_t block = block_bytes(metadata, r->metadata_bytes);

    if (block < (1 << 20) || block > BLOCK_MAX) {
        return g_strdup("its metadata are damaged");
    }
    for (uint32_t at = 0; at + 8 <= r->table_bytes; at += 8) {
        uint64_t entry = le64(table + at);
        uint64_t offset = entry & ~UINT64_C(0xfffff);

        /* 6: all of the block is there; 7: of one that has a parent */
        if ((entry & 7) >= 6 &&
            (offset > file_bytes || file_bytes - offset < block)) {
            return source_cut_off(offset + block, file_bytes);
        }
    }
    return NULL;
}
