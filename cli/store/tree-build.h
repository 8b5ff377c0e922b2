/*
 * Build the dm-verity tree of an image in one pass over its content
 *
 * The file that comes out is what "veritysetup format" would write, with
 * sha256, blocks of 4096 bytes and hash type 1 (block/pvs/verity.h has its
 * layout), except for the UUID in the superblock, which nothing uses.
 *
 * The image is taken in spans of 512 KiB, whose hashes fill one block of the
 * lowest level, in any order and by several threads. The caller writes these
 * blocks where tree_build_leaf_offset() says; this keeps one hash of each in
 * memory, and at the end all that is above: 1/16384 of the image's size.
 *
 *      image   | span 0 (512 KiB)  | span 1            | ...
 *      file    | head: superblock, upper levels | leaf 0 | leaf 1 | ...
 *
 * Nothing here does I/O.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_TREE_BUILD_H
#define CLI_STORE_TREE_BUILD_H

#include "block/pvs/verity.h"

/* Bytes of the image that one block of the lowest level speaks of */
#define TREE_SPAN               (VERITY_BLOCK * VERITY_FANOUT)
#define TREE_UUID_BYTES         16

typedef struct TreeBuild TreeBuild;

/*
 * For an image of @data_bytes, filled up with zeros to a multiple of 4096.
 * @salt is hexadecimal, "" for none. @uuid goes into the superblock. NULL with
 * *@why (to be freed) if there is no such tree.
 */
TreeBuild *tree_build_new(uint64_t data_bytes, const char *salt,
                          const uint8_t uuid[TREE_UUID_BYTES], char **why);
void tree_build_free(TreeBuild *t);

uint64_t tree_build_spans(const TreeBuild *t);
uint64_t tree_build_file_bytes(const TreeBuild *t);

/*
 * The block of the lowest level for span @n: @data is its content, @bytes of
 * it, less than TREE_SPAN only at the end of the image; NULL if it is all
 * zeros, which costs no hashing. Fills @leaf, VERITY_BLOCK bytes, to be
 * written to tree_build_leaf_offset(). Threads may do different spans at once;
 * a span that is given again replaces what it was.
 */
void tree_build_span(TreeBuild *t, uint64_t n, const uint8_t *data,
                     size_t bytes, uint8_t *leaf);

/*
 * Where @leaf belongs in the file. An image of one block has no levels: then
 * 0, and nothing is written.
 */
uint64_t tree_build_leaf_offset(const TreeBuild *t, uint64_t n);

/* The hash of @leaf as it was made last; for comparing two images */
const uint8_t *tree_build_span_hash(const TreeBuild *t, uint64_t n);

/*
 * After all spans: the root hash, and all of the file before the leaves, in
 * *@head (which stays the TreeBuild's) with *@head_bytes. False if a span is
 * missing.
 */
bool tree_build_finish(TreeBuild *t, uint8_t root[VERITY_HASH_BYTES],
                       const uint8_t **head, size_t *head_bytes);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TreeBuild, tree_build_free)

#endif /* CLI_STORE_TREE_BUILD_H */
