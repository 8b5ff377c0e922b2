/*
 * Header of a layer file
 *
 * The file's layout is specified in docs/interop/layer.rst:
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
#define VDISK_ROOT_BYTES        32      /* of a verity tree: SHA-256 */
#define VDISK_NAME_CHARS        127     /* at most, in the name of a vDisk */
#define VDISK_MAX_VERSION       INT64_MAX   /* more is no number in JSON */
#define VDISK_MAX_SIZE          (INT64_C(1) << 62)

/* What a layer is to the driver that opens it */
typedef enum VdiskRole {
    VDISK_ROLE_MCS = 1,         /* mcs: a differencing disk */
    VDISK_ROLE_WRITE_CACHE = 2, /* pvs: what a desktop writes; pooled */
    VDISK_ROLE_HOST_CACHE = 3,  /* pvs: a version on its host; dedicated */
    VDISK_ROLE_LOCAL_COPY = 4,  /* pvs: of a private vDisk; dedicated */
} VdiskRole;

typedef enum VdiskLifetime {
    VDISK_DEDICATED = 1,
    VDISK_POOLED = 2,
} VdiskLifetime;

/*
 * An image, as a header names it. Empty name: no image, and all else is zero.
 * In a differencing disk it is a file or URI with its format. In the other
 * roles it is a version of a vDisk.
 */
typedef struct VdiskImageName {
    char name[VDISK_NAME_BYTES];        /* of the file, or of the vDisk */
    char format[VDISK_FORMAT_BYTES];    /* QEMU driver of the file, or empty */
    uint64_t version;                   /* of the vDisk, from 1; 0: none */
    uint8_t root[VDISK_ROOT_BYTES];     /* of its verity tree; zero: none */
    uint64_t size;                      /* virtual, when named; 0: not known */
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

/*
 * Does @buf, of @len bytes, begin like a layer file? If so, *@role is what it
 * says of its role, which may be none that is known. Nothing else is judged.
 */
bool vdisk_header_probe(const uint8_t *buf, size_t len, VdiskRole *role);

/* Block driver that opens files of this role; NULL for a role not known */
const char *vdisk_role_driver(VdiskRole role);

/* Would it be read again? False with *@why set (to be freed) if not. */
bool vdisk_header_valid(const VdiskHeader *h, char **why);

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
 * Returns which copy it is in, or -1 with *@why set: there is none, or a newer
 * release has written one. Bit n of *@bad is set if copy n is not valid.
 */
int vdisk_header_choose(VdiskHeader *h, const uint8_t *buf, unsigned *bad,
                        char **why);

/*
 * May @image be named in a header? False with *@why set for what could make
 * the opener probe, or take it for something else than a name.
 */
bool vdisk_image_name_valid(const char *name, const char *format, char **why);

/*
 * Can a vDisk have this name? Such a name can stand in a file name, a URI and
 * an option without quoting. False with *@why set if not.
 */
bool vdisk_name_valid(const char *name, char **why);

/* Do both mean the same image? Their sizes do not matter. */
bool vdisk_image_same(const VdiskImageName *a, const VdiskImageName *b);

/* @image for people to read: its name, and its version if it has one */
char *vdisk_image_text(const VdiskImageName *image);

/* Is there a hash in @root? */
bool vdisk_root_is_set(const uint8_t root[VDISK_ROOT_BYTES]);

#endif /* BLOCK_VDISK_HEADER_H */
