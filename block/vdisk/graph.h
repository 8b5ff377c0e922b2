/*
 * Letting go of the graph lock while waiting for what can take for ever
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VDISK_GRAPH_H
#define BLOCK_VDISK_GRAPH_H

#include "block/graph-lock.h"

/*
 * A request holds the graph lock, and everything that changes the graph waits
 * for it. So a coroutine that waits for a store lets go of it, and takes it
 * again afterwards. It must be the only holder in its coroutine: a node that
 * does this stands directly under its front end, so nobody above holds pointers
 * into the graph beyond the nodes that the request itself keeps alive. The
 * caller looks again at everything it knew of the graph.
 */
static inline void coroutine_fn TSA_RELEASE_SHARED(graph_lock)
vdisk_graph_co_release(void)
{
    bdrv_graph_co_rdunlock();
}

static inline void coroutine_fn TSA_ACQUIRE_SHARED(graph_lock)
vdisk_graph_co_retake(void)
{
    bdrv_graph_co_rdlock();
}

#endif /* BLOCK_VDISK_GRAPH_H */
