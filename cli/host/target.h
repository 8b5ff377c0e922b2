/*
 * The version that a push brings, from the manifest in the catalog's store
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_HOST_TARGET_H
#define CLI_HOST_TARGET_H

#include "hosts.h"

#include "cli/desktop/metadata.h"
#include "cli/store/manifest.h"

/* The manifest of @vdisk in the store. NULL with @error. */
Manifest *target_manifest(const char *folder, const char *vdisk,
                          GError **error);

/*
 * Version @number; 0: what is current at @now. One that is not released to all
 * is for pilots only. It belongs to @m; NULL with @error.
 */
const Version *target_version(const Manifest *m, uint64_t number,
                              bool for_pilots, int64_t now, GError **error);

/*
 * What a desktop on @host is to want for it. mcs: the image is in the host's
 * own store if it has one, else in the catalog's. False with @error if it
 * cannot be; to be cleared with wanted_clear().
 */
bool target_wanted(const CatalogMetadata *catalog, const Version *v,
                   const Host *host, WantedVersion *w, GError **error);

/* Folder of a vDisk in a store */
char *target_folder(const char *store, const char *vdisk);

/*
 * Two pushes of a catalog at once would undo each other. A file descriptor,
 * to be closed at the end; -1 with @error: G_IO_ERROR_BUSY, which says who
 * pushes, or another one if the store cannot be locked.
 */
int target_lock(const CatalogMetadata *catalog, GError **error);

#endif /* CLI_HOST_TARGET_H */
