/*
 * Is a sealed version what was sealed?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_VERIFY_H
#define CLI_STORE_VERIFY_H

#include "cli/progress.h"
#include "cli/store/store.h"

typedef struct VerifyRange {
    uint64_t offset, bytes;     /* of the vDisk, or of the tree's file */
    char *file;                 /* in the vDisk's folder */
} VerifyRange;

typedef struct Verification {
    bool content;               /* its content has the root hash */
    bool tree;                  /* so has the file of its tree */
    char *tree_why;             /* what is wrong with all of that, or NULL */
    GArray *bad;                /* VerifyRange of the vDisk: not what was
                                   sealed */
    GArray *unknown;            /* VerifyRange: cannot be told, because the
                                   tree is damaged as well */
    GArray *bad_tree;           /* VerifyRange of the tree's file */
} Verification;

/*
 * Read all of @v from the medium and compare it with its tree. NULL with
 * @error if it cannot be read; damage is no error.
 */
Verification *store_verify(const Store *s, const Manifest *m, const Version *v,
                           Progress *progress, GError **error);
void verification_free(Verification *v);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Verification, verification_free)

#endif /* CLI_STORE_VERIFY_H */
