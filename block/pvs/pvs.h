/*
 * pvs: a desktop's disk that is streamed from shared stores
 *
 *   with file:  front end --> pvs (layer: what the desktop wrote) --> pvs-image
 *   without:    NBD export -> pvs (a relay, read-only)            --> pvs-image
 *   private:    front end --> pvs (layer: the local copy), see private.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_H
#define BLOCK_PVS_H

#include "block/vdisk/layer.h"
#include "block/pvs/image.h"
#include "block/pvs/private.h"

typedef struct BDRVPvsState {
    /* Without a file only what query-vdisks needs of it is there */
    VdiskLayer layer;
    bool has_layer;

    /* Main loop; NULL in tools that look at the file only */
    BdrvChild *image;
    QDict *image_options;       /* for any version: with %v and %r in them */

    /* Private image mode; then there is no image */
    bool is_private;
    PvsPrivate *priv;
} BDRVPvsState;

extern const VdiskLayerOps pvs_layer_ops;

/* version.c */

/*
 * Take what is not for the node itself out of @options, as a pattern of the
 * options of its images; NULL if there is none of it.
 */
QDict *pvs_take_image_options(QDict *options);

/* Open the image of @bs that @name says. Main loop, not in a coroutine. */
BlockDriverState * GRAPH_UNLOCKED
pvs_open_image(BlockDriverState *bs, const VdiskImageName *name, Error **errp);

/* The same of a relay, which has it in its options */
BlockDriverState * GRAPH_UNLOCKED
pvs_open_relay_image(BlockDriverState *bs, Error **errp);

/* Is there a store for what pvs_open_image() gave, or is it all local? */
bool coroutine_fn GRAPH_UNLOCKED
pvs_co_image_usable(BlockDriverState *image, Error **errp);

/* In hexadecimal, to be freed; NULL if it is none */
char *pvs_root_hex(const uint8_t root[VDISK_ROOT_BYTES]);

/* info.c */
void GRAPH_RDLOCK pvs_query(BlockDriverState *bs, VdiskInfo *info);
ImageInfoSpecific * GRAPH_RDLOCK
pvs_get_specific_info(BlockDriverState *bs, Error **errp);

/* create.c */
extern QemuOptsList pvs_create_opts;

int coroutine_fn GRAPH_UNLOCKED
pvs_co_create(BlockdevCreateOptions *options, Error **errp);
int coroutine_fn GRAPH_UNLOCKED
pvs_co_create_opts(BlockDriver *drv, const char *filename, QemuOpts *opts,
                   Error **errp);

#endif /* BLOCK_PVS_H */
