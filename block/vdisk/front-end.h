/*
 * Who uses a vDisk, and when a pooled one may be used
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_FRONT_END_H
#define BLOCK_VDISK_FRONT_END_H

#include "block/vdisk/layer.h"

/*
 * In this process no system reset tells that a guest starts; vdisk-reset does.
 * Called before the first node is opened.
 */
void vdisk_reset_by_command(void);

/*
 * May clients of block exports use the disk? Main loop. Where resets come by
 * command, not before the first: the guest of a daemon that was restarted
 * would find a clean disk in the middle of its session.
 */
bool vdisk_admits_clients(const VdiskLayer *l);

/* As .bdrv_admit_client */
bool GRAPH_RDLOCK vdisk_admit_client(VdiskLayer *l, struct BlockExport *exp,
                                     Error **errp);

/* Reset a pooled vDisk that no front end uses, as a system reset does */
bool GRAPH_UNLOCKED vdisk_reset(VdiskLayer *l, Error **errp);

#endif /* BLOCK_VDISK_FRONT_END_H */
