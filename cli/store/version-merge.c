/*
 * Giving a version an image of its own, without parents
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/version-int.h"
#include "cli/store/content.h"
#include "cli/store/durable.h"

#include <stdio.h>
#include <unistd.h>

/* By content: what was made is what was sealed */
static bool check_merged(const Store *s, const Manifest *m, const Version *v,
                         char *new, bool quiet, GError **error)
{
    g_autofree char *what = g_strdup_printf("checking %s@%" PRIu64, m->vdisk,
                                            v->number);
    g_autoptr(Progress) progress = progress_new(what, v->size, true, quiet);
    g_autoptr(JsonObject) chain = NULL;
    g_autoptr(Content) c = NULL;
    Version alone = *v;
    uint8_t root[VERITY_HASH_BYTES];

    alone.image = new;
    alone.parent = 0;
    chain = store_chain(s, m, &alone, STORE_CHAIN_DIRECT);
    c = content_open(chain, error);
    if (!c || !content_tree(c, v->size, m->salt, m->uuid, -1, root, progress,
                            error)) {
        return false;
    }
    if (memcmp(root, v->root, sizeof(root))) {
        return version_refuse(error, m, v->number, "does not read as it was "
                              "sealed; nothing was changed. 'deskcast vdisk "
                              "verify' tells whether it is damaged");
    }
    progress_done(progress);
    return true;
}

static bool put_in_place(const Store *s, const Manifest *m, const Version *v,
                         const char *new, GError **error)
{
    int folder = store_vdisk_folder(s, m->vdisk, error);
    bool ok;

    if (folder < 0) {
        return false;
    }
    ok = renameat(folder, new, folder, v->image) == 0
        ? durable_sync_folder(folder, v->image, error)
        : durable_errno(error, "replace", v->image);
    close(folder);
    return ok;
}

/* An image that others are clones of cannot go, and keeps its parents */
static bool has_clones(const Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    for (guint i = 0; store_on_rbd(s) && i < m->versions->len; i++) {
        const Version *child = g_ptr_array_index(m->versions, i);

        if (child->parent == v->number) {
            version_refuse(error, m, child->number, "is a clone of it on "
                           "Ceph: merge that one first, or remove it");
            return true;
        }
    }
    return false;
}

static bool can_merge(const Store *s, const Manifest *m, const Version *v,
                      GError **error)
{
    if (!version_sealed(v)) {
        return version_refuse(error, m, v->number, "is in maintenance: seal it "
                              "first");
    }
    if (!v->parent) {
        return version_refuse(error, m, v->number, "has no parent: there is "
                              "nothing to merge");
    }
    return !has_clones(s, m, v, error);
}

/* The new image takes the name of the old one, which readers have open still */
static bool merge_in_place(Store *s, Manifest *m, Version *v, bool quiet,
                           GError **error)
{
    g_autofree char *new = g_strconcat(".new-", v->image, NULL);
    uint64_t parent = v->parent;

    if (!s->images->flatten(s, m, v, error)) {
        return false;
    }
    if (!check_merged(s, m, v, new, quiet, error) ||
        !put_in_place(s, m, v, new, error)) {
        g_autofree char *path = store_path(s, m->vdisk, new);

        unlink(path);
        return false;
    }
    v->parent = 0;
    if (!store_set_manifest(s, m, error)) {
        v->parent = parent;
        return false;
    }
    return true;
}

/* Which of the two the version has; the other one is unused */
static void choose_image(Manifest *m, Version *v, char **other,
                         uint64_t parent)
{
    char *image = v->image;

    v->image = *other;
    *other = image;
    v->parent = parent;
    manifest_set_unused(m, v->image, false);
    manifest_set_unused(m, *other, true);
}

/* Where images cannot be replaced under their readers: one of another name. The
 * old one goes when nobody has it open any more. */
static bool merge_by_copy(Store *s, Manifest *m, Version *v, bool quiet,
                          GError **error)
{
    g_autofree char *other = g_strconcat(v->image, ".whole", NULL);
    g_autoptr(GError) left = NULL;
    uint64_t parent = v->parent;

    manifest_set_unused(m, other, true);
    if (!store_set_manifest(s, m, error)) {
        return false;
    }
    if (!s->images->copy_whole(s, v, other, error) ||
        !check_merged(s, m, v, other, quiet, error)) {
        store_remove_unused(s, m, NULL);
        return false;
    }
    choose_image(m, v, &other, 0);
    if (!store_set_manifest(s, m, error)) {
        choose_image(m, v, &other, parent);
        return false;
    }
    if (!store_remove_unused(s, m, &left)) {
        store_note_left(left);
    }
    return true;
}

Version *store_version_merge(Store *s, Manifest *m, uint64_t number, bool quiet,
                             GError **error)
{
    Version *v = version_find(m, number, error);

    return v && can_merge(s, m, v, error) &&
           (s->images->copy_whole ? merge_by_copy(s, m, v, quiet, error)
                                  : merge_in_place(s, m, v, quiet, error))
        ? v : NULL;
}
