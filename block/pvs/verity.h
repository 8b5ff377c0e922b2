/*
 * dm-verity trees: is a block of a version what was sealed?
 *
 * A tree file is what "veritysetup format" writes, superblock at its start,
 * with sha256, blocks of 4096 bytes and hash type 1. Blocks of the file are
 * counted from 0, the superblock's:
 *
 *   block 0      1            2 ...                        ... last
 *   +------------+-----------+-----------------+----------------+
 *   | superblock | top level | next level      | level 0        |
 *   +------------+-----------+-----------------+----------------+
 *
 * A tree block has 128 entries of 32 bytes. Entry n of a block of level 0 is
 * the hash of a data block, of a higher level that of a block one level below.
 * The root hash is that of the only block of the top level. An image of one
 * block has no levels: its hash is the root hash.
 *
 * Trusted are the root hash and the size of the image, which must come from
 * where the root hash does: dm-verity does not mark what is data and what is
 * tree, so with another size the blocks of a level would pass for an image.
 * The superblock must agree with both. Its UUID is not used.
 *
 * An image whose size is no multiple of 4096 counts as filled up with zeros.
 * veritysetup leaves a last part of a block out of the tree: whoever runs it
 * fills the image up first.
 *
 * Nothing here does I/O, locks or waits. All functions on a Verity may be
 * called by several threads at once, except verity_free().
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_VERITY_H
#define BLOCK_PVS_VERITY_H

#include "block/vdisk/pure.h"

#define VERITY_BLOCK            4096    /* bytes of a data or tree block */
#define VERITY_SUPER_BYTES      512
#define VERITY_HASH_BYTES       32
#define VERITY_FANOUT           (VERITY_BLOCK / VERITY_HASH_BYTES)
#define VERITY_MAX_SALT         256     /* bytes */
#define VERITY_MAX_SIZE         (UINT64_C(1) << 62) /* bytes of an image */
#define VERITY_MAX_LEVELS       8       /* for that size */

QEMU_BUILD_BUG_ON(VERITY_BLOCK != VDISK_GRANULE);

/* What a superblock says beyond what is always the same */
typedef struct VeritySuper {
    uint64_t data_blocks;
    unsigned salt_bytes;
    uint8_t salt[VERITY_MAX_SALT];
} VeritySuper;

/* Where things are in a tree file; level 0 is the one next to the data */
typedef struct VerityGeometry {
    uint64_t data_bytes;                        /* of the image */
    uint64_t data_blocks;                       /* the last one may be part */
    uint64_t file_blocks;                       /* with the superblock's */
    unsigned levels;
    uint64_t level_first[VERITY_MAX_LEVELS];    /* block of the file */
    uint64_t level_blocks[VERITY_MAX_LEVELS];
} VerityGeometry;

/* Where a hash stands */
typedef struct VerityEntry {
    uint64_t block;             /* of the file; its byte offset / 4096 */
    unsigned offset;            /* bytes from the begin of that block */
} VerityEntry;

typedef struct Verity Verity;

/*
 * Read a superblock and bound every field of it. False, and in *@why what is
 * wrong (to be freed), if it is not valid.
 */
bool verity_super_decode(VeritySuper *s, const uint8_t buf[VERITY_SUPER_BYTES],
                         char **why);

/* Read a root hash: 64 hexadecimal digits. False with *@why set otherwise. */
bool verity_root_decode(uint8_t root[VERITY_HASH_BYTES], const char *hex,
                        char **why);

/*
 * The tree of an image of @data_bytes bytes. False with *@why set if there is
 * none: the image is empty or larger than VERITY_MAX_SIZE.
 */
bool verity_geometry_init(VerityGeometry *g, uint64_t data_bytes, char **why);

/*
 * The hashes between data block @n and the root: in path[0] its own, in
 * path[k] that of the tree block that path[k - 1] is in. Returns how many they
 * are, the number of levels; path[levels - 1] is in the top block.
 */
unsigned verity_path(const VerityGeometry *g, uint64_t n,
                     VerityEntry path[VERITY_MAX_LEVELS]);

/*
 * A tree by its superblock, and the root hash in hexadecimal, for an image of
 * @data_bytes. The file has @file_bytes, or more, which are ignored. NULL with
 * *@why set if they do not belong together. A wrong root hash shows when the
 * top block is checked, or the data block where there is none.
 */
Verity *verity_new(const uint8_t super[VERITY_SUPER_BYTES], const char *root,
                   uint64_t data_bytes, uint64_t file_bytes, char **why);
void verity_free(Verity *v);

const VerityGeometry *verity_geometry(const Verity *v);

/* The hash of a block of VERITY_BLOCK bytes, as the tree has it */
void verity_hash(const Verity *v, const uint8_t *block,
                 uint8_t hash[VERITY_HASH_BYTES]);

/*
 * Is @buf, VERITY_BLOCK bytes, block @block of the tree file? @parent is the
 * tree block with its entry, itself checked; ignored for the top block, which
 * is checked against the root hash. False with *@why set if it is not.
 */
bool verity_check_tree(const Verity *v, uint64_t block, const uint8_t *buf,
                       const uint8_t *parent, char **why);

/*
 * Is @buf data block @n? Of the last one only the bytes that the image has are
 * looked at. @leaf is the tree block with its entry, itself checked; ignored
 * if the tree has no levels. False with *@why set if it is not.
 */
bool verity_check_data(const Verity *v, uint64_t n, const uint8_t *buf,
                       const uint8_t *leaf, char **why);

/*
 * Which blocks of the tree file the caller holds checked. A block that is
 * read anew from where others can write is not the one that was checked.
 * Whoever sees a block marked also sees what its marker wrote before.
 */
bool verity_is_checked(const Verity *v, uint64_t block);
void verity_mark_checked(Verity *v, uint64_t block);
void verity_forget(Verity *v, uint64_t block);

typedef enum VerityRead {
    VERITY_READ_DONE,
    VERITY_READ_NONE,           /* of the older tree: it is not held */
    VERITY_READ_STOP,
} VerityRead;

typedef struct VerityDiffOps {
    /*
     * Put a block of the tree file of the newer or the older version into
     * @buf, VERITY_BLOCK bytes. Need not be checked.
     */
    VerityRead (*read)(void *opaque, bool newer, uint64_t block, uint8_t *buf);
    /* @n data blocks from @first on differ. False to stop. */
    bool (*differ)(void *opaque, uint64_t first, uint64_t n);
} VerityDiffOps;

/*
 * Tell which data blocks of @newer are not the same in @older, in ascending
 * order, neighbours together. Blocks that only @newer has differ; those that
 * only @older has are not told. Equal parts of the trees are not read. Where
 * the older tree is not held, or damaged, the data counts as different.
 *
 * False with *@why set if the trees have different salts, the newer one is
 * damaged or cannot be read, or @ops stopped.
 */
bool verity_diff(const Verity *older, const Verity *newer,
                 const VerityDiffOps *ops, void *opaque, char **why);

#endif /* BLOCK_PVS_VERITY_H */
