/*
 * A version's hash tree, fetched from far stores to a file
 *
 * From the top down, so that each block is checked as it comes; what another
 * tree of the vDisk has as well is taken from there, and a fetch that was cut
 * goes on where it was. The file has its name when it is complete and durable.
 *
 * All of this blocks, for minutes with a slow store: it is for a thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_SERVE_TREE_FETCH_H
#define CLI_SERVE_TREE_FETCH_H

#include "far.h"

typedef struct TreeFetch {
    char *path;                 /* of the tree */
    char *export;               /* its name at the stores */
    char *root;                 /* hexadecimal; trusted, like size */
    uint64_t size;              /* bytes of the version */
    GPtrArray *stores;          /* Far; asked in order */
    char *older;                /* path of another tree, or NULL */
    uint64_t older_size;        /* bytes of its version */
    uint64_t bandwidth;         /* bytes a second; 0: no limit */
} TreeFetch;

/*
 * Fetch it, or check it if it is there. In *@data_bytes how much of the version
 * is not zero. False with @error, which names the last store that was asked.
 */
bool tree_fetch(const TreeFetch *t, uint64_t *data_bytes, GError **error);

/* Bytes of the file of a version's tree */
uint64_t tree_file_bytes(uint64_t size);

#endif /* CLI_SERVE_TREE_FETCH_H */
