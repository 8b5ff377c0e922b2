/*
 * vdisk-reset: reset of a pooled vDisk by command
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-export.h"
#include "qapi/qapi-commands-vdisk.h"
#include "block/export.h"
#include "block/vdisk/front-end.h"
#include "system/block-backend.h"

static bool GRAPH_RDLOCK reads_from(BlockDriverState *top,
                                    BlockDriverState *bs)
{
    BdrvChild *child;

    if (top == bs) {
        return true;
    }
    QLIST_FOREACH(child, &top->children, next) {
        if (reads_from(child->bs, bs)) {
            return true;
        }
    }
    return false;
}

static bool GRAPH_RDLOCK has_device(VdiskLayer *l, Error **errp)
{
    const char *name = bdrv_get_node_name(l->bs);
    BlockBackend *blk = NULL;

    while ((blk = blk_all_next(blk))) {
        BlockDriverState *top = blk_bs(blk);

        if (top && blk_get_attached_dev(blk) && reads_from(top, l->bs)) {
            g_autofree char *id = blk_get_attached_dev_id(blk);

            error_setg(errp, "The disk '%s' belongs to the guest device '%s'",
                       name, id);
            error_append_hint(errp, "A running guest's disk is reset by "
                              "resetting the guest: system_reset\n");
            return true;
        }
    }
    return false;
}

static bool GRAPH_RDLOCK has_client(VdiskLayer *l, Error **errp)
{
    g_autoptr(BlockExportInfoList) all = qmp_query_block_exports(NULL);

    for (BlockExportInfoList *el = all; el; el = el->next) {
        BlockExport *exp = blk_exp_find(el->value->id);

        /* All references but the user's are those of clients */
        if (qatomic_read(&exp->refcount) > exp->user_owned &&
            reads_from(blk_bs(exp->blk), l->bs)) {
            error_setg(errp, "A client of export '%s' uses the disk '%s'",
                       exp->id, bdrv_get_node_name(l->bs));
            error_append_hint(errp, "End the guest first: it would see its "
                              "disk change\n");
            return true;
        }
    }
    return false;
}

static bool GRAPH_RDLOCK can_reset(VdiskLayer *l, Error **errp)
{
    const char *name = bdrv_get_node_name(l->bs);

    if (!l->pooled) {
        error_setg(errp, "The disk '%s' is dedicated: it keeps what is "
                   "written to it", name);
        return false;
    }
    if (bdrv_is_read_only(l->bs)) {
        error_setg(errp, "The disk '%s' is open read-only, and has nothing to "
                   "forget", name);
        return false;
    }
    if (l->bs->open_flags & BDRV_O_INACTIVE) {
        error_setg(errp, "The disk '%s' is inactive: another process may use "
                   "it", name);
        error_append_hint(errp, "Activate it with blockdev-set-active\n");
        return false;
    }
    return !has_device(l, errp) && !has_client(l, errp);
}

bool vdisk_reset(VdiskLayer *l, Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *bs = l->bs;
    bool ok;

    GLOBAL_STATE_CODE();
    bdrv_graph_rdlock_main_loop();
    ok = can_reset(l, errp);
    bdrv_graph_rdunlock_main_loop();
    if (!ok) {
        return false;
    }
    bdrv_ref(bs);
    vdisk_pooled_reset(l);
    bdrv_unref(bs);
    return true;
}

void qmp_vdisk_reset(const char *node_name, Error **errp)
{
    VdiskLayer *l = vdisk_node_find(node_name, errp);

    if (l) {
        vdisk_reset(l, errp);
    }
}
