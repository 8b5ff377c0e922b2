/*
 * How a version is: its files, who reads it, what is wrong with it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_VERSION_STATUS_H
#define CLI_STORE_VERSION_STATUS_H

#include "cli/store/store.h"

typedef enum TreeState {
    TREE_NONE,                  /* not sealed */
    TREE_FITS,                  /* its upper levels hash to the root */
    TREE_DAMAGED,
    TREE_MISSING,
} TreeState;

typedef struct VersionStatus {
    uint64_t image_bytes;       /* that its files take; 0: on Ceph */
    uint64_t tree_bytes;
    TreeState tree;
    unsigned readers;           /* programs that have the image open, at least */
    bool written;               /* one of them writes to it */
    unsigned children;          /* versions that have it as parent */
    bool waits;                 /* for its release date */
    char *trouble;              /* or NULL */
} VersionStatus;

/* Only what is quick: no data are read, and of the tree its upper levels */
void version_status_find(VersionStatus *status, const Store *s,
                         const Manifest *m, const Version *v, int64_t now);
void version_status_clear(VersionStatus *status);

const char *version_status_tree(const VersionStatus *status);

#endif /* CLI_STORE_VERSION_STATUS_H */
