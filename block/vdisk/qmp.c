/*
 * QMP commands on vDisks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vdisk.h"
#include "block/vdisk/front-end.h"

static VdiskImage *image_info(const VdiskImageName *image)
{
    VdiskImage *info;

    if (!image->name[0]) {
        return NULL;
    }
    info = g_new0(VdiskImage, 1);
    info->filename = g_strdup(image->name);
    info->format = g_strdup(image->format);
    return info;
}

static VdiskInfo * GRAPH_RDLOCK vdisk_info(VdiskLayer *l)
{
    VdiskInfo *info = g_new0(VdiskInfo, 1);
    const VdiskHeader *h = &l->header;

    info->node_name = g_strdup(bdrv_get_node_name(l->bs));
    info->driver = BLOCKDEV_DRIVER_MCS;
    info->lifetime = l->pooled ? MCS_LIFETIME_POOLED : MCS_LIFETIME_DEDICATED;
    info->desktop = vdisk_desktop(l);
    info->virtual_size = h->virtual_size;
    info->image = image_info(&h->base);
    info->assigned = image_info(&h->assigned);
    info->layer_bytes = MAX(bdrv_get_allocated_file_size(l->bs->file->bs), 0);
    info->resets = l->resets;
    info->admits_clients = vdisk_admits_clients(l);
    if (l->tier) {
        VdiskTierUse use = vdisk_tier_use(l);

        info->write_cache_ram = g_new0(VdiskRamInfo, 1);
        info->write_cache_ram->size = use.size;
        info->write_cache_ram->used = use.used;
        info->write_cache_ram->memory = use.memory;
    }
    return info;
}

VdiskInfoList *qmp_query_vdisks(Error **errp)
{
    VdiskInfoList *list = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (VdiskLayer *l = vdisk_node_next(NULL); l; l = vdisk_node_next(l)) {
        QAPI_LIST_PREPEND(list, vdisk_info(l));
    }
    return list;
}

void coroutine_fn qmp_vdisk_assign(const char *node_name,
                                   const char *filename,
                                   BlockdevDriver format, Error **errp)
{
    VdiskLayer *l = vdisk_node_find(node_name, errp);

    if (l) {
        vdisk_co_assign(l, filename, BlockdevDriver_str(format), errp);
    }
}

void coroutine_fn qmp_vdisk_unassign(const char *node_name, Error **errp)
{
    VdiskLayer *l = vdisk_node_find(node_name, errp);

    if (l) {
        vdisk_co_unassign(l, errp);
    }
}
