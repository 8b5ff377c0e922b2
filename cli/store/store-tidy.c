/*
 * Removing: vDisks, files that no version has, and what a crash left
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/store/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST    "manifest.json"

/* Trees and boot traces are files wherever images are */
static bool is_image(const char *name)
{
    return !g_str_has_suffix(name, ".tree") && !g_str_has_suffix(name, ".trace");
}

static bool remove_file(const Store *s, const char *vdisk, const char *name,
                        GError **error)
{
    const ImageOps *ops = is_image(name) ? s->images : &store_files;

    return ops->remove(s, vdisk, name, error);
}

bool store_remove_unused(Store *s, Manifest *m, GError **error)
{
    bool ok = true;

    /* The others all the same, when one is still in use */
    for (guint i = m->unused->len; i-- > 0;) {
        g_autoptr(GError) local = NULL;

        if (remove_file(s, m->vdisk, g_ptr_array_index(m->unused, i),
                        &local)) {
            g_ptr_array_remove_index(m->unused, i);
        } else if (ok) {
            ok = false;
            g_propagate_error(error, g_steal_pointer(&local));
        }
    }
    return store_set_manifest(s, m, ok ? error : NULL) && ok;
}

/* Folders of vDisks that are gone, or never were */

static bool unlink_entry(void *opaque, const char *name, GError **error)
{
    /* Last: it tells where the images are */
    return !strcmp(name, MANIFEST) ||
           durable_remove(*(int *)opaque, name, error);
}

/* Children first */
static bool remove_images(const Store *s, int folder, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(Manifest) m = NULL;
    gsize length;

    if (!store_on_rbd(s)) {
        return true;
    }
    text = durable_read(folder, MANIFEST, MANIFEST_MAX_BYTES, &length, NULL);
    m = text ? manifest_decode(text, length, NULL) : NULL;
    for (guint i = m ? m->versions->len : 0; i-- > 0;) {
        const Version *v = g_ptr_array_index(m->versions, i);

        if (!s->images->remove(s, m->vdisk, v->image, error)) {
            return false;
        }
    }
    for (guint i = 0; m && i < m->unused->len; i++) {
        const char *name = g_ptr_array_index(m->unused, i);

        if (is_image(name) && !s->images->remove(s, m->vdisk, name, error)) {
            return false;
        }
    }
    return true;
}

bool store_remove_folder(Store *s, const char *name, GError **error)
{
    int fd = openat(s->vdisks, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC |
                    O_NOFOLLOW);
    bool ok;

    if (fd < 0) {
        return errno == ENOENT || durable_errno(error, "remove", name);
    }
    ok = remove_images(s, fd, error) &&
         durable_list(fd, unlink_entry, &fd, error) &&
         durable_remove(fd, MANIFEST, error);
    close(fd);
    return ok &&
           (unlinkat(s->vdisks, name, AT_REMOVEDIR) == 0 ||
            durable_errno(error, "remove the folder", name)) &&
           durable_sync_folder(s->vdisks, name, error);
}

bool store_remove_vdisk(Store *s, const char *vdisk, GError **error)
{
    g_autofree char *old = g_strconcat(".old-", vdisk, NULL);
    g_autoptr(GError) local = NULL;

    g_assert(s->lock >= 0);
    if (renameat(s->vdisks, vdisk, s->vdisks, old) < 0) {
        return durable_errno(error, "remove vDisk", vdisk);
    }
    if (!durable_sync_folder(s->vdisks, vdisk, error)) {
        return false;
    }
    /* It is gone, whatever becomes of what it was made of */
    if (!store_remove_folder(s, old, &local)) {
        store_note_left(local);
    }
    return true;
}

void store_note_left(const GError *error)
{
    g_printerr("deskcast: done, but some files are still there: %s; the next "
               "command that changes the store deletes them\n",
               error->message);
}

/* What a crash left */

static bool tidy_file(void *opaque, const char *name, GError **error)
{
    (void)error;
    if (g_str_has_prefix(name, ".new-")) {
        unlinkat(*(int *)opaque, name, 0);
    }
    return true;
}

/*
 * A file that was being replaced on NFS when its host died may have no name but
 * that of the new one: see read_text(). An image that is complete is read-only.
 */
static void finish_replacing(int folder, const char *name, bool image)
{
    g_autofree char *new = g_strconcat(".new-", name, NULL);
    struct stat st;

    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0 &&
        errno == ENOENT &&
        fstatat(folder, new, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !(image && st.st_mode & 0222) &&
        renameat(folder, new, folder, name) == 0) {
        durable_sync_folder(folder, name, NULL);
    }
}

static void finish_all_replacing(const Manifest *m, int folder)
{
    finish_replacing(folder, MANIFEST, false);
    for (guint i = 0; i < m->versions->len; i++) {
        const Version *v = g_ptr_array_index(m->versions, i);

        finish_replacing(folder, v->image, true);
    }
}

/*
 * Sealing that was cut short: the image may be read-only already, and its
 * label not cut off yet, which its private desktop needs to go on.
 */
static void tidy_writing(Store *s, Manifest *m, int folder)
{
    Version *v = manifest_maintenance(m);
    struct stat st;
    uint64_t bytes;

    if (!v || store_on_rbd(s)) {
        return;
    }
    if (fstatat(folder, v->image, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        !(st.st_mode & 0200)) {
        s->images->settle(s, m, v, false, NULL);
    }
    if (!v->label && store_image_size(s, m, v, &bytes, NULL) &&
        bytes == v->size + VDISK_GRANULE) {
        v->label = true;
        store_set_manifest(s, m, NULL);
    }
}

static void tidy_vdisk(Store *s, const char *vdisk)
{
    /* One that is damaged is left to the eyes of an administrator */
    g_autoptr(Manifest) m = store_manifest(s, vdisk, NULL);
    int folder;

    if (!m) {
        return;
    }
    if (!m->versions->len) {
        store_remove_vdisk(s, vdisk, NULL);
        return;
    }
    folder = store_vdisk_folder(s, vdisk, NULL);
    if (folder >= 0) {
        finish_all_replacing(m, folder);
        durable_list(folder, tidy_file, &folder, NULL);
        tidy_writing(s, m, folder);
        close(folder);
    }
    if (m->unused->len) {
        store_remove_unused(s, m, NULL);
    }
}

static bool add_leftover(void *opaque, const char *name, GError **error)
{
    (void)error;
    if (g_str_has_prefix(name, ".new-") || g_str_has_prefix(name, ".old-")) {
        g_ptr_array_add(opaque, g_strdup(name));
    }
    return true;
}

void store_tidy(Store *s)
{
    g_autoptr(GPtrArray) folders = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) vdisks = NULL;

    durable_list(s->vdisks, add_leftover, folders, NULL);
    for (guint i = 0; i < folders->len; i++) {
        store_remove_folder(s, g_ptr_array_index(folders, i), NULL);
    }
    unlinkat(s->fd, ".new-store.json", 0);
    vdisks = store_vdisks(s, NULL);
    for (char **v = vdisks; v && *v; v++) {
        tidy_vdisk(s, *v);
    }
}
