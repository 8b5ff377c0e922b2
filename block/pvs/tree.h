/*
 * The verity tree of a version, as it is used
 *
 * Blocks of the tree are fetched when something below them is, verified
 * against the block above them, and kept in memory: those of the higher levels
 * always, those of the lowest one as long as there is room. They come from the
 * tree's own store, or from the host cache; both are verified.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_PVS_TREE_H
#define BLOCK_PVS_TREE_H

#include "block/pvs/image.h"

/* Blocks of one level that are fetched together: 64 KiB, for 8 MiB of data */
#define PVS_TREE_CHUNK      16

/*
 * Leaves that are kept: 32 MiB, for 4 GiB of data, several times what a
 * desktop touches in a session
 */
#define PVS_TREE_CHUNKS_MAX 512

typedef struct PvsTreeChunk PvsTreeChunk;

/* What a fetch is verified against. Zeroed before use. */
typedef struct PvsTreeHold {
    PvsTree *tree;
    int64_t offset;             /* in the image's address space */
    PvsTreeChunk *chunks[2];    /* a fetch is below two of them at most */
} PvsTreeHold;

/* Root hash and size must come from the same trusted place. Main loop. */
PvsTree *pvs_tree_new(PvsImage *img, PvsPool *pool, Error **errp);
void pvs_tree_free(PvsTree *t);

PvsPool *pvs_tree_pool(const PvsTree *t);
const VerityGeometry *pvs_tree_geometry(const PvsTree *t);

/* Bytes of the tree file of an image of @size bytes; -1 if it has none */
int64_t pvs_tree_bytes(int64_t size);

/*
 * If the tree is in a local file: does it belong to the version? What comes by
 * a network is judged when it comes. Main loop.
 */
bool GRAPH_UNLOCKED pvs_tree_check_local(PvsTree *t, Error **errp);

/*
 * Have in memory what the range @offset, @bytes is verified against, which may
 * be data or a part of the tree. 0 or -errno, -ENODATA as pvs_pool_co_read();
 * to be released in all cases.
 */
int coroutine_fn GRAPH_UNLOCKED
pvs_tree_co_hold(PvsTree *t, int64_t offset, int64_t bytes, bool patient,
                 PvsTreeHold *hold);

/* The same, if it is in memory already; else false, and nothing to release */
bool pvs_tree_try_hold(PvsTree *t, int64_t offset, int64_t bytes,
                       PvsTreeHold *hold);
void pvs_tree_release(PvsTree *t, PvsTreeHold *hold);

/* A PvsCheck; @opaque is a PvsTreeHold for the range */
int coroutine_fn pvs_tree_check(void *opaque, int64_t offset, int64_t bytes,
                                const uint8_t *buf, int64_t *bad);

/* Is it a part of what vouches for itself, as a whole only? */
bool pvs_tree_is_head(const PvsTree *t, int64_t offset);

/*
 * How many bytes from @offset on, which is behind tree_base, and below @end,
 * are to be fetched as one
 */
int64_t pvs_tree_unit(PvsTree *t, int64_t offset, int64_t end);

#endif /* BLOCK_PVS_TREE_H */
