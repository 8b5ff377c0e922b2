/*
 * Is an image that somebody brought what its format says, and nothing else?
 *
 * QEMU's drivers follow names that an image's header gives, and read what is
 * past the end of a file as zeros. An import must do neither: a header could
 * name a file of the host, and a download that was cut off would pass.
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_SOURCE_CHECK_H
#define CLI_STORE_SOURCE_CHECK_H

#include "block/vdisk/pure.h"

#define SOURCE_HEAD_BYTES       65536   /* of the file are looked at */

/* The format that @name's suffix stands for; NULL if it is not known */
const char *source_format_of_name(const char *name);

/* "qcow2" for one of the formats an import takes; NULL for others */
const char *source_format_known(const char *format);

/* What an image that begins with @head seems to be; NULL: nothing known */
const char *source_looks_like(const uint8_t *head, size_t bytes);

/*
 * @head: the first @bytes, up to SOURCE_HEAD_BYTES, of a file of @file_bytes.
 * NULL if @format may be opened; else why not, to be freed.
 */
char *source_head_refused(const char *format, const uint8_t *head,
                          size_t bytes, uint64_t file_bytes);

/* Files that a VMDK descriptor names; none for other VMDKs. g_strfreev() */
char **source_vmdk_extents(const uint8_t *head, size_t bytes);

/* How long the descriptor says that @name is at least; 0: it does not say */
uint64_t source_vmdk_flat_bytes(const uint8_t *head, size_t bytes,
                                const char *name);

/* Where a dynamic VHD says that its table of blocks is */
typedef struct SourceTable {
    uint64_t offset;
    uint32_t entries;           /* of 4 bytes; at most 2^21 */
    uint32_t block_bytes;
} SourceTable;

/* False if @head is no dynamic VHD, or *@why is set: it is a bad one */
bool source_vhd_table(SourceTable *t, const uint8_t *head, size_t bytes,
                      uint64_t file_bytes, char **why);

/* NULL if no block of @table ends past the file */
char *source_vhd_refused(const SourceTable *t, const uint8_t *table,
                         uint64_t file_bytes);

/* Where a VHDX says that its metadata and its table of blocks are */
#define SOURCE_REGIONS_OFFSET   196608  /* of the table of regions */
#define SOURCE_REGIONS_BYTES    65536
#define SOURCE_METADATA_BYTES   (1 << 20)
#define SOURCE_MAX_TABLE_BYTES  (64 << 20)

typedef struct SourceRegions {
    uint64_t metadata, table;
    uint32_t metadata_bytes, table_bytes;
} SourceRegions;

/* False if @table, SOURCE_REGIONS_BYTES, does not say, or nothing possible */
bool source_vhdx_regions(SourceRegions *r, const uint8_t *table,
                         uint64_t file_bytes);

/* NULL if no block of @table ends past the file */
char *source_vhdx_refused(const SourceRegions *r, const uint8_t *metadata,
                          const uint8_t *table, uint64_t file_bytes);

/* That it should have @needed bytes */
char *source_cut_off(uint64_t needed, uint64_t file_bytes);

#endif /* CLI_STORE_SOURCE_CHECK_H */
