/*
 * The vDisks that are open in this process
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/uuid.h"
#include "block/vdisk/layer.h"

/* Main loop only */
static QLIST_HEAD(, VdiskLayer) nodes = QLIST_HEAD_INITIALIZER(nodes);

void vdisk_node_add(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    QLIST_INSERT_HEAD(&nodes, l, nodes);
}

void vdisk_node_remove(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    QLIST_REMOVE(l, nodes);
}

VdiskLayer *vdisk_node_next(VdiskLayer *l)
{
    GLOBAL_STATE_CODE();
    return l ? QLIST_NEXT(l, nodes) : QLIST_FIRST(&nodes);
}

VdiskLayer *vdisk_node_find(const char *node_name, Error **errp)
{
    for (VdiskLayer *l = vdisk_node_next(NULL); l; l = vdisk_node_next(l)) {
        if (g_str_equal(bdrv_get_node_name(l->bs), node_name)) {
            return l;
        }
    }
    if (bdrv_find_node(node_name)) {
        error_setg(errp, "Block node '%s' is not a vDisk", node_name);
    } else {
        error_setg(errp, "There is no block node '%s'", node_name);
    }
    return NULL;
}

char *vdisk_desktop(const VdiskLayer *l)
{
    QemuUUID uuid;

    memcpy(uuid.data, l->header.desktop, sizeof(uuid.data));
    return qemu_uuid_is_null(&uuid) ? NULL : qemu_uuid_unparse_strdup(&uuid);
}

bool vdisk_same_file(const char *name, const char *other)
{
    struct stat a, b;

    strstart(name, "file:", &name);
    strstart(other, "file:", &other);
    return stat(name, &a) == 0 && stat(other, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}
