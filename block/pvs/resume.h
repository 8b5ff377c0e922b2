/*
 * Letting a guest go on that was stopped for want of a store
 *
 * A read that fails in a drain or an outage stops the guest, by rerror=stop,
 * with the request kept in the device. Nobody has to tell it to go on: it is
 * done here, if an error of ours was the only reason for the stop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_RESUME_H
#define BLOCK_PVS_RESUME_H

#include "block/pvs/image.h"

/* Is there a guest in this process? Not in tools and storage daemons. */
bool pvs_has_guest(void);

/* Does it stand still, or begins to? Any thread. */
bool pvs_guest_is_stopped(void);

/* Look soon whether the guest can go on. Main loop. */
void pvs_resume_soon(void);

/* Called once there is a pvs node; main loop */
void pvs_resume_register(void);

/* pvs.c: the image of @bs if that is a pvs node, else NULL. Main loop. */
PvsImage *GRAPH_RDLOCK pvs_image_of(BlockDriverState *bs);

#endif /* BLOCK_PVS_RESUME_H */
