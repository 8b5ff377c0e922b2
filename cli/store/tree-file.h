/*
 * The file of a version's tree, read and checked against the root hash
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_TREE_FILE_H
#define CLI_STORE_TREE_FILE_H

#include "cli/store/store.h"

typedef struct TreeFile {
    int fd;
    Verity *verity;
    uint8_t root[VERITY_HASH_BYTES];
    uint8_t *head;              /* all blocks before the leaves */
    bool *good;                 /* for each of them: has its hash */
} TreeFile;

/*
 * Open @path, the tree of an image of @bytes with root hash @root. Blocks that
 * are damaged are no error, but a superblock is that does not fit.
 */
TreeFile *tree_file_open(const char *path, const uint8_t *root, uint64_t bytes,
                         GError **error);
TreeFile *tree_file_of(const Store *s, const Manifest *m, const Version *v,
                       GError **error);
void tree_file_close(TreeFile *t);

/*
 * The hashes of span @n, VERITY_BLOCK bytes, into @leaf. False if they are not
 * what the root hash says, or cannot be read. Any thread. An image of one
 * block has no leaves: false.
 */
bool tree_file_leaf(const TreeFile *t, uint64_t n, uint8_t *leaf);

/* The hash of data block @n. False likewise. */
bool tree_file_hash(const TreeFile *t, uint64_t n, uint8_t *hash);

/*
 * Ranges of @newer, in bytes, that are not the same in @older (NULL: none is);
 * an array of ContentRange, ascending. NULL with @error.
 */
GArray *tree_file_diff(const TreeFile *older, const TreeFile *newer,
                       GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(TreeFile, tree_file_close)

#endif /* CLI_STORE_TREE_FILE_H */
