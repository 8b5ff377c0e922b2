/*
 * From the version that is wanted to the header of a desktop's disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "take.h"

#include <string.h>

static void parse_root(const char *text, uint8_t root[VDISK_ROOT_BYTES])
{
    for (int i = 0; i < VDISK_ROOT_BYTES; i++) {
        root[i] = g_ascii_xdigit_value(text[2 * i]) << 4 |
                  g_ascii_xdigit_value(text[2 * i + 1]);
    }
}

void take_name(const DesktopMetadata *d, VdiskImageName *name)
{
    const WantedVersion *w = &d->wanted;

    memset(name, 0, sizeof(*name));
    name->size = w->size;
    if (d->model == MODEL_MCS) {
        g_strlcpy(name->name, w->image, sizeof(name->name));
        g_strlcpy(name->format, w->format, sizeof(name->format));
        return;
    }
    g_strlcpy(name->name, d->vdisk, sizeof(name->name));
    name->version = w->number;
    if (w->root) {
        parse_root(w->root, name->root);
    }
}

static Take refuse(GError **error, const char *why)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, why);
    return TAKE_REFUSED;
}

static const char *unfit(const VdiskHeader *h, const DesktopMetadata *d)
{
    VdiskRole role = d->model == MODEL_MCS ? VDISK_ROLE_MCS
                                           : VDISK_ROLE_WRITE_CACHE;

    if (h->role != role) {
        return "its disk is of another kind than the desktop: remove the "
               "disk, and a new one is made";
    }
    if (h->lifetime != VDISK_POOLED) {
        return "its disk is dedicated and the desktop is not: remove the "
               "disk, and a new one is made";
    }
    if (d->model == MODEL_PVS && strcmp(h->base.name, d->vdisk) != 0) {
        return "its disk belongs to another vDisk: remove the disk, and a "
               "new one is made";
    }
    return NULL;
}

static const char *wrong_size(const VdiskHeader *h, uint64_t size)
{
    if (size < h->virtual_size) {
        return "the version is smaller than the disk, which cannot shrink: "
               "remove the disk, and a new one is made";
    }
    if (size > vdisk_header_max_size(h)) {
        return "the disk cannot grow to the size of the version: remove the "
               "disk, and a new one is made";
    }
    return NULL;
}

Take take_wanted(const VdiskHeader *h, const DesktopMetadata *d,
                 VdiskHeader *new, GError **error)
{
    VdiskImageName wanted;
    const char *bad;

    if (!d->wanted.number || d->lifetime != LIFETIME_POOLED) {
        return TAKE_NOTHING;
    }
    bad = unfit(h, d);
    if (bad) {
        return refuse(error, bad);
    }
    *new = *h;
    take_name(d, &wanted);
    if (vdisk_image_same(&h->base, &wanted)) {
        /* Pushed, and rolled back before it was ever taken */
        memset(&new->assigned, 0, sizeof(new->assigned));
        return *h->assigned.name ? TAKE_CHANGED : TAKE_NOTHING;
    }
    if (vdisk_image_same(&h->assigned, &wanted)) {
        return TAKE_NOTHING;
    }
    bad = wrong_size(h, wanted.size);
    if (bad) {
        return refuse(error, bad);
    }
    new->assigned = wanted;
    return TAKE_CHANGED;
}
