/*
 * pvs-image: open and close
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_IMAGE_OPEN_H
#define BLOCK_PVS_IMAGE_OPEN_H

#include "block/pvs/image.h"

/* Options that pvs gives besides those of its own that are passed on */
#define PVS_IMAGE_OPT_OWNER     "owner"         /* of the host cache */
#define PVS_IMAGE_OPT_VDISK     "for-node"      /* node name, for events */

int GRAPH_UNLOCKED pvs_image_open(BlockDriverState *bs, QDict *options,
                                  int flags, Error **errp);
void GRAPH_UNLOCKED pvs_image_close(BlockDriverState *bs);

/* Timeouts, and what to do in an outage; bounded */
bool pvs_read_store_options(StoreOptions *s, QemuOpts *opts, Error **errp);

#endif /* BLOCK_PVS_IMAGE_OPEN_H */
