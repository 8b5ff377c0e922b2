/*
 * Making a layer file: what the drivers of vDisks share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_CREATE_H
#define BLOCK_VDISK_CREATE_H

#include "block/vdisk/layer.h"

/* Sizes and the desktop's UUID (NULL: none) of a new header */
bool vdisk_create_header(VdiskHeader *h, uint64_t size, const char *desktop,
                         Error **errp);

/* Make @bs an empty layer file with the header @h. 0 or -errno. */
int coroutine_fn GRAPH_UNLOCKED
vdisk_co_create_file(BlockDriverState *bs, VdiskHeader *h, Error **errp);

typedef struct VdiskCreate {
    const char *driver;
    QemuOptsList *opts;
    const struct QDictRenames *renames;     /* of qemu-img's options; or NULL */

    /* What can be refused is refused before a file that is there is emptied */
    bool coroutine_fn (*co_check)(BlockdevCreateOptions *options,
                                  const char *filename, Error **errp);
    int coroutine_fn (*co_create)(BlockdevCreateOptions *options,
                                  Error **errp);
} VdiskCreate;

/* A driver's .bdrv_co_create_opts */
int coroutine_fn GRAPH_UNLOCKED
vdisk_co_create_opts(const VdiskCreate *c, const char *filename,
                     QemuOpts *opts, Error **errp);

#endif /* BLOCK_VDISK_CREATE_H */
