/*
 * When a pooled vDisk may be used by the clients of block exports
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/export.h"
#include "block/vdisk/front-end.h"

static bool by_command;

void vdisk_reset_by_command(void)
{
    by_command = true;
}

bool vdisk_admits_clients(const VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    /* What is read-only has no session that could be lost */
    if (!l->pooled || bdrv_is_read_only(l->bs)) {
        return true;
    }
    return !l->resetting && (l->resets > 0 || !by_command);
}

bool vdisk_admit_client(VdiskLayer *l, struct BlockExport *exp, Error **errp)
{
    if (!vdisk_admits_clients(l)) {
        error_setg(errp, "The pooled disk '%s' waits for vdisk-reset, export "
                   "'%s' admits no client before",
                   bdrv_get_node_name(l->bs), exp->id);
        return false;
    }
    if (l->pooled) {
        exp->pinned = true;
    }
    return true;
}
