/*
 * Asking the nodes below an export whether a client may use them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/block_int.h"
#include "block/export.h"
#include "system/block-backend.h"

static bool GRAPH_RDLOCK node_admits(BlockDriverState *bs, BlockExport *exp,
                                     Error **errp)
{
    BdrvChild *child;

    /* No driver: an image that was found corrupt while it was in use */
    if (bs->drv && bs->drv->bdrv_admit_client &&
        !bs->drv->bdrv_admit_client(bs, exp, errp)) {
        return false;
    }
    QLIST_FOREACH(child, &bs->children, next) {
        if (!node_admits(child->bs, exp, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * May a client use @exp now? To be asked for each client, in the main loop.
 * The answer counts until the main loop runs, or the caller has taken a
 * reference to @exp for the client.
 */
bool coroutine_fn blk_exp_co_admit_client(BlockExport *exp, Error **errp)
{
    assert(qemu_in_main_thread());
    GRAPH_RDLOCK_GUARD();
    return node_admits(blk_bs(exp->blk), exp, errp);
}

/*
 * Take a reference to @exp for a client, which returns it with blk_exp_unref().
 * False, with a warning, if it must not use @exp now. Main loop, not in a
 * coroutine.
 */
bool blk_exp_connect(BlockExport *exp)
{
    Error *err = NULL;
    bool admitted;

    bdrv_graph_rdlock_main_loop();
    admitted = node_admits(blk_bs(exp->blk), exp, &err);
    bdrv_graph_rdunlock_main_loop();
    if (!admitted) {
        warn_report_err(err);
        return false;
    }
    blk_exp_ref(exp);
    return true;
}
