/*
 * A store of vDisks: its folder, its lock, its manifests, its images
 *
 * docs/interop/store.rst has the layout, and the order of steps by which a
 * crash at any of them leaves a store that is whole. What is made for nothing
 * is removed by whoever opens the store for changing next.
 *
 * A new version is made so:
 *
 *   store_draft()      the manifest notes the names; an empty image is there
 *   ...                the caller fills image and tree
 *   store_publish()    durable; then the manifest has the version
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_STORE_STORE_H
#define CLI_STORE_STORE_H

#include "cli/store/manifest.h"

#include <json-glib/json-glib.h>

#define STORE_FORMAT    1

typedef struct Store Store;

typedef enum StoreUse {
    STORE_READ,                 /* without the lock */
    STORE_CHANGE,               /* locked, and tidied up */
} StoreUse;

/* Where images of versions are: files if @pool is NULL */
typedef struct StoreImages {
    const char *pool;           /* of Ceph */
    const char *conf;           /* path of ceph.conf, or NULL */
    const char *user;           /* without "client.", or NULL */
} StoreImages;

/*
 * Make a store in @folder, which is made as well if need be; what an
 * interrupted try left is taken over. False with @error.
 */
bool store_create(const char *folder, const StoreImages *images,
                  GError **error);

/*
 * Open the store in @folder. For changing it fails with G_IO_ERROR_BUSY, at
 * once, while somebody else does. NULL with @error.
 */
Store *store_open(const char *folder, StoreUse use, GError **error);
void store_close(Store *s);

/* The folder to use when none is given: DESKCAST_STORE, or the usual one */
const char *store_default_folder(void);

const char *store_folder(const Store *s);       /* absolute */
const char *store_uuid(const Store *s);
bool store_on_rbd(const Store *s);

/* Names of vDisks, sorted; to be freed by g_strfreev() */
char **store_vdisks(const Store *s, GError **error);

/*
 * A vDisk's manifest, which is valid and fits the store. G_IO_ERROR_NOT_FOUND
 * if there is no such vDisk.
 */
Manifest *store_manifest(const Store *s, const char *vdisk, GError **error);

/*
 * Replace it durably; @m's revision goes up. G_IO_ERROR_BUSY if that is not the
 * one which is there. Makes the vDisk if it is not there. Files whose names are
 * in @m's unused are not touched.
 */
bool store_set_manifest(Store *s, Manifest *m, GError **error);

/* Path of @file in the folder of @vdisk; to be freed */
char *store_path(const Store *s, const char *vdisk, const char *file);

/*
 * What a child QEMU opens version @v by, all its parents inline: a blockdev
 * definition built from the manifest. Without node names, and read-only unless
 * it is for a writer; @direct goes past the page cache. To be freed by
 * json_object_unref().
 */
typedef enum StoreChain {
    STORE_CHAIN_DIRECT = 1 << 0,
    STORE_CHAIN_WRITABLE = 1 << 1,  /* the top image; parents never are */
} StoreChain;

JsonObject *store_chain(const Store *s, const Manifest *m, const Version *v,
                        unsigned flags);

/* Bytes of @v's image as it is, with a label if it has one */
bool store_image_size(const Store *s, const Manifest *m, const Version *v,
                      uint64_t *bytes, GError **error);

/*
 * Make an empty image for @v, which the manifest has not yet. Filled in by the
 * caller: access, parent, size, label. Here: number, image, format, and tree if
 * it is to be sealed. The tree's file is the caller's to make.
 */
bool store_draft(Store *s, Manifest *m, Version *v, GError **error);

/*
 * Make what @v has durable, read-only if it is sealed, and add it to the
 * manifest; takes @v over if it returns true. @m is as before otherwise.
 */
bool store_publish(Store *s, Manifest *m, Version *v, GError **error);

/* Remove what a draft made; errors are left to whoever locks the store next */
void store_discard(Store *s, Manifest *m, const Version *v);

/* Delete the vDisk and all its versions */
bool store_remove_vdisk(Store *s, const char *vdisk, GError **error);

/* Delete what stands in @m's unused, and write @m without them */
bool store_remove_unused(Store *s, Manifest *m, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Store, store_close)

#endif /* CLI_STORE_STORE_H */
