/*
 * mcs: a desktop's differencing disk over a shared master image
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_MCS_H
#define BLOCK_MCS_H

#include "block/vdisk/layer.h"

typedef struct BDRVMcsState {
    VdiskLayer layer;

    /* Main loop only; the base was compared with the header, once */
    bool base_accepted;
} BDRVMcsState;

/* create.c */
extern QemuOptsList mcs_create_opts;

int coroutine_fn GRAPH_UNLOCKED
mcs_co_create(BlockdevCreateOptions *options, Error **errp);
int coroutine_fn GRAPH_UNLOCKED
mcs_co_create_opts(BlockDriver *drv, const char *filename, QemuOpts *opts,
                   Error **errp);

/* base.c */

/* Is @base, as the header of @bs would name it, the file of @bs itself? */
bool GRAPH_RDLOCK mcs_is_own_base(BlockDriverState *bs, const char *base);

/* Refuse a disk that stands on itself, which would open itself for ever */
int GRAPH_RDLOCK mcs_check_loop(BlockDriverState *bs, Error **errp);

/* Refuse a base that is shorter than it was: another image, or a damaged one */
int GRAPH_RDLOCK mcs_check_perm(BlockDriverState *bs, uint64_t perm,
                                uint64_t shared, Error **errp);

/* Open what an assignment names. Main loop, not in a coroutine. */
BlockDriverState * GRAPH_UNLOCKED
mcs_open_image(BlockDriverState *bs, const VdiskImageName *image,
               Error **errp);

#endif /* BLOCK_MCS_H */
