/*
 * QMP commands on vDisks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vdisk.h"
#include "qapi/util.h"
#include "qemu/cutils.h"
#include "block/pvs/verity.h"
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
    info->driver = qapi_enum_parse(&BlockdevDriver_lookup,
                                   l->bs->drv->format_name, 0, &error_abort);
    info->virtual_size = l->bs->total_sectors * BDRV_SECTOR_SIZE;
    info->resets = l->resets;
    info->admits_clients = vdisk_admits_clients(l);
    if (l->bs->file) {
        info->has_lifetime = true;
        info->lifetime = l->pooled ? MCS_LIFETIME_POOLED
                                   : MCS_LIFETIME_DEDICATED;
        info->desktop = vdisk_desktop(l);
        info->layer_bytes =
            MAX(bdrv_get_allocated_file_size(l->bs->file->bs), 0);
    }
    if (l->role == VDISK_ROLE_MCS) {
        info->image = image_info(&h->base);
        info->assigned = image_info(&h->assigned);
    }
    if (l->ops->query) {
        l->ops->query(l->bs, info);
    }
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

static bool name_file(VdiskImageName *image, const char *filename,
                      const char *format, Error **errp)
{
    g_autofree char *why = NULL;

    if (!*filename || !vdisk_image_name_valid(filename, format, &why)) {
        error_setg(errp, "Cannot assign '%s': %s", filename,
                   why ?: "an image is needed");
        return false;
    }
    pstrcpy(image->name, sizeof(image->name), filename);
    pstrcpy(image->format, sizeof(image->format), format);
    return true;
}

static bool name_version(VdiskImageName *image, const VdiskLayer *l,
                         uint64_t version, const char *root, uint64_t size,
                         Error **errp)
{
    g_autofree VdiskHeader *h = g_memdup2(&l->header, sizeof(*h));
    g_autofree char *why = NULL;

    pstrcpy(image->name, sizeof(image->name), l->header.base.name);
    image->version = version;
    image->size = size;
    if (root && !verity_root_decode(image->root, root, &why)) {
        error_setg(errp, "'verity-root': %s", why);
        return false;
    }
    h->assigned = *image;
    if (!vdisk_header_valid(h, &why)) {
        error_setg(errp, "Cannot assign this version: %s", why);
        return false;
    }
    return true;
}

void coroutine_fn qmp_vdisk_assign(const char *node_name,
                                   const char *filename, bool has_format,
                                   BlockdevDriver format, bool has_version,
                                   uint64_t version, const char *verity_root,
                                   bool has_size, uint64_t size, Error **errp)
{
    g_autofree VdiskImageName *image = g_new0(VdiskImageName, 1);
    VdiskLayer *l = vdisk_node_find(node_name, errp);
    bool streamed, named;

    if (!l) {
        return;
    }
    streamed = l->role != VDISK_ROLE_MCS;
    if (streamed ? !has_version || filename || has_format
                 : !filename || !has_format || has_version || verity_root ||
                   has_size) {
        error_setg(errp, streamed ? "A streamed vDisk is assigned a 'version', "
                                    "and no 'filename'"
                                  : "An mcs disk is assigned a 'filename' with "
                                    "its 'format', and nothing else");
        return;
    }
    named = streamed ? name_version(image, l, version, verity_root,
                                    has_size ? size : l->header.base.size,
                                    errp)
                     : name_file(image, filename, BlockdevDriver_str(format),
                                 errp);
    if (named) {
        vdisk_co_assign(l, image, errp);
    }
}

void coroutine_fn qmp_vdisk_unassign(const char *node_name, Error **errp)
{
    VdiskLayer *l = vdisk_node_find(node_name, errp);

    if (l) {
        vdisk_co_unassign(l, errp);
    }
}
