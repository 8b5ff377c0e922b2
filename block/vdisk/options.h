/*
 * Options that the drivers of vDisks share: those of pooled disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_OPTIONS_H
#define BLOCK_VDISK_OPTIONS_H

#include "block/vdisk/layer.h"

#define VDISK_OPT_RESET_ON          "reset-on"
#define VDISK_OPT_WRITE_CACHE_RAM   "write-cache-ram"
#define VDISK_OPT_KEEP_SPACE        "keep-space"

/*
 * Take those options out of @options, and set up the open layer as they say.
 * A dedicated one has no use for them, and refuses what would be wrong. Main
 * loop.
 */
bool vdisk_take_pooled_options(VdiskLayer *l, QDict *options, Error **errp);

/* Is any of them given? */
bool vdisk_has_pooled_options(const QDict *options);

#endif /* BLOCK_VDISK_OPTIONS_H */
