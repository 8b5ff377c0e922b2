/*
 * Header of a layer file
 *
 * The file's layout is specified in docs/interop/mcs.rst:
 *
 *   0         4096      65536          data_offset
 *   +---------+---------+--------------+------------------------+
 *   | copy A  | copy B  | granule map  | data region (sparse)   |
 *   +---------+---------+--------------+------------------------+
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_HEADER_H
#define BLOCK_VDISK_HEADER_H

#include "block/vdisk/pure.h"

#define VDISK_HEADER_BYTES      4096
#define VDISK_HEADER_COPIES     2
#define VDISK_NAME_BYTES        1024    /* with its NUL; qcow2's limit */
#define VDISK_FORMAT_BYTES      32
#define VDISK_TOKEN_BYTES       16
#define VDISK_MAX_SIZE          (INT64_C(1) << 62)

typedef enum VdiskRole {
    VDISK_ROLE_MCS = 1,
} VdiskRole;

typedef enum VdiskLifetime {
    VDISK_DEDICATED = 1,
    VDISK_POOLED = 2,
} VdiskLifetime;

/* An image by name, as a header carries it. Empty name: no image. */
typedef struct VdiskImageName {
    char name[VDISK_NAME_BYTES];
    char format[VDISK_FORMAT_BYTES];    /* a QEMU block driver's name */
} VdiskImageName;

/* Sizes and offsets are in bytes */
typedef struct VdiskHeader {
    uint64_t generation;
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint64_t virtual_size;
    uint64_t map_offset;
    uint64_t map_capacity;
    uint64_t data_offset;
    uint64_t file_size;         /* length when made; it is never shorter */
    VdiskRole role;
    VdiskLifetime lifetime;
    uint8_t desktop[16];        /* UUID, zero if none */
    uint8_t token[VDISK_TOKEN_BYTES];   /* of the state the map belongs to */
    uint64_t base_size;         /* virtual, when named; 0: not known */
    VdiskImageName base;
    VdiskImageName assigned;
} VdiskHeader;

/*
 * Lay out a new file for a disk of @virtual_size bytes: sets the sizes and
 * offsets and leaves the rest alone. False if the disk would be too large.
 */
bool vdisk_header_layout(VdiskHeader *h, uint64_t virtual_size);

/* Largest virtual size that the file's map can grow to */
uint64_t vdisk_header_max_size(const VdiskHeader *h);

/* Does @buf, at least 8 bytes, begin like a layer file? */
bool vdisk_header_probe(const uint8_t *buf, size_t len);

void vdisk_header_encode(const VdiskHeader *h,
                         uint8_t buf[VDISK_HEADER_BYTES]);

/*
 * Decode one copy and bound every field of it. False, and in *@why what is
 * wrong (to be freed), if it is not valid. Features are not judged here.
 */
bool vdisk_header_decode(VdiskHeader *h, const uint8_t buf[VDISK_HEADER_BYTES],
                         char **why);

/*
 * Choose the header among the two copies, one behind the other in @buf.
 * Returns which copy it is in, or -1 with *@why set. Bit n of *@bad is set if
 * copy n is not valid.
 */
int vdisk_header_choose(VdiskHeader *h, const uint8_t *buf, unsigned *bad,
                        char **why);

/*
 * May @image be named in a header? False with *@why set for what could make
 * the opener probe, or take it for something else than a name.
 */
bool vdisk_image_name_valid(const char *name, const char *format, char **why);

#endif /* BLOCK_VDISK_HEADER_H */
