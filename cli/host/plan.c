/*
 * Which version a desktop is to take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "plan.h"

#include <string.h>

void wanted_clear(WantedVersion *w)
{
    g_free(w->root);
    g_free(w->image);
    g_free(w->format);
    *w = (WantedVersion){ 0 };
}

void wanted_set(WantedVersion *to, const WantedVersion *from)
{
    WantedVersion copy = {
        .number = from->number,
        .size = from->size,
        .root = g_strdup(from->root),
        .image = g_strdup(from->image),
        .format = g_strdup(from->format),
    };

    wanted_clear(to);
    *to = copy;
}

bool wanted_same(const WantedVersion *a, const WantedVersion *b)
{
    return a->number == b->number && a->size == b->size &&
           !g_strcmp0(a->root, b->root) && !g_strcmp0(a->image, b->image) &&
           !g_strcmp0(a->format, b->format);
}

bool plan_push(DesktopMetadata *d, const WantedVersion *target)
{
    if (wanted_same(&d->wanted, target)) {
        return false;
    }
    /* The same version by another path is no step that could be gone back */
    if (d->wanted.number != target->number && d->wanted.number) {
        wanted_set(&d->previous, &d->wanted);
    }
    wanted_set(&d->wanted, target);
    return true;
}

bool plan_rollback(DesktopMetadata *d)
{
    WantedVersion w = d->wanted;

    if (!d->previous.number || d->previous.number >= d->wanted.number) {
        return false;
    }
    d->wanted = d->previous;
    d->previous = w;
    return true;
}

bool plan_follows(const DesktopMetadata *d, uint64_t number)
{
    return number > d->wanted.number && number > d->previous.number;
}

bool plan_held(const CatalogMetadata *catalog, uint64_t number,
               uint64_t released)
{
    return catalog->back == number && catalog->back_released == released;
}

bool plan_note_back(CatalogMetadata *catalog, uint64_t number,
                    uint64_t released, bool went_back, bool follow)
{
    if (went_back) {
        bool changed = !plan_held(catalog, number, released);

        catalog->back = number;
        catalog->back_released = released;
        return changed;
    }
    /* An older one, pushed by hand, does not make the newer one good */
    if (!catalog->back || (number < catalog->back && !follow)) {
        return false;
    }
    catalog->back = catalog->back_released = 0;
    return true;
}

static const char *model_text(DesktopModel model)
{
    return model == MODEL_PVS ? "pvs" : "mcs";
}

bool plan_fits(const CatalogMetadata *catalog, const DesktopMetadata *d,
               GError **error)
{
    if (d->model != catalog->model) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "is a desktop of the model %s, the catalog is %s",
                    model_text(d->model), model_text(catalog->model));
    } else if (g_strcmp0(d->vdisk, catalog->vdisk)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "runs on the vDisk '%s', the catalog on '%s'", d->vdisk,
                    catalog->vdisk);
    } else if (d->lifetime != LIFETIME_POOLED) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "is not pooled: what it keeps belongs to the version it "
                    "was written over");
    } else {
        return true;
    }
    return false;
}
