/*
 * A version on its way into a store: STORE/staging/NAME.N.tree and .raw
 *
 * Both are kept when the way is cut, and gone on with: what is in them counts
 * only if it has the hash it should have. The version's image is an overlay on
 * another version, so the raw file has only what is not in that, in its place.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_STAGING_H
#define CLI_STORE_STAGING_H

#include "cli/store/origin.h"
#include "cli/store/tree-file.h"

typedef struct Staging {
    char *tree_path, *data_path;
    int tree_fd, data_fd;       /* the first one is locked */
    TreeFile *tree;             /* all of it checked, after staging_fetch_tree() */
    GArray *ranges;             /* ContentRange of the version that are not in
                                   the base, zeros as well */
    uint64_t base;              /* number of that version, or 0 */
    uint64_t moved;             /* bytes that were read from the origin */
    uint64_t kept;              /* that an earlier try had read */
} Staging;

/* G_IO_ERROR_BUSY if somebody else is at it. NULL with @error. */
Staging *staging_open(const Store *s, const Manifest *m, const Version *v,
                      GError **error);
void staging_close(Staging *st);

/* Remove its files: the version is there */
void staging_remove(const Staging *st);

/*
 * Bring the tree of @v; equal parts come from @base, NULL for none. All of it
 * leads up to the root hash then. False with @error.
 */
bool staging_fetch_tree(Staging *st, Origin *o, const Manifest *m,
                        const Version *v, const TreeFile *base,
                        Progress *progress, GError **error);

/*
 * Bring what is in st->ranges and not zeros, each block checked. False with
 * @error; what came until then is kept.
 */
bool staging_fetch_data(Staging *st, Origin *o, const Manifest *m,
                        const Version *v, const char *what, bool quiet,
                        GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Staging, staging_close)

#endif /* CLI_STORE_STAGING_H */
