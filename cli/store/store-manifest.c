/*
 * The store's manifests, and what is made before they name it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/store/durable.h"
#include "block/vdisk/header.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST    "manifest.json"

char *store_path(const Store *s, const char *vdisk, const char *file)
{
    return g_build_filename(s->folder, "vdisks", vdisk, file, NULL);
}

static bool check_name(const char *vdisk, GError **error)
{
    g_autofree char *why = NULL;

    if (vdisk_name_valid(vdisk, &why)) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s", why);
    return false;
}

int store_vdisk_folder(const Store *s, const char *vdisk, GError **error)
{
    int fd;

    if (!check_name(vdisk, error)) {
        return -1;
    }
    fd = openat(s->vdisks, vdisk, O_RDONLY | O_DIRECTORY | O_CLOEXEC |
                O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "there is no vDisk '%s' in %s; 'deskcast vdisk list' has "
                    "those that there are", vdisk, s->folder);
    } else if (fd < 0) {
        durable_errno(error, "open the folder of vDisk", vdisk);
    }
    return fd;
}

static bool check_images(const Store *s, const Manifest *m, GError **error)
{
    for (guint i = 0; i < m->versions->len; i++) {
        if (!s->images->check(g_ptr_array_index(m->versions, i), error)) {
            return false;
        }
    }
    return true;
}

/*
 * On NFS, a client that replaces a file which a process of its own has open gives
 * that another name first. From then on, and for good if the client dies there,
 * the new manifest has only the name that it was made under: it is complete.
 */
static char *read_text(int folder, gsize *length, GError **error)
{
    static const char *const names[] = { MANIFEST, ".new-" MANIFEST, MANIFEST };
    g_autoptr(GError) local = NULL;
    char *text = NULL;

    for (size_t i = 0; !text && i < G_N_ELEMENTS(names); i++) {
        if (local && !g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
            break;
        }
        g_clear_error(&local);
        text = durable_read(folder, names[i], MANIFEST_MAX_BYTES, length,
                            &local);
    }
    if (!text) {
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return text;
}

/* @name is that of a folder in vdisks/ */
static Manifest *read_manifest(const Store *s, int folder, GError **error)
{
    g_autoptr(Manifest) m = NULL;
    g_autofree char *text = NULL;
    gsize length;

    text = read_text(folder, &length, error);
    m = text ? manifest_decode(text, length, error) : NULL;
    return m && check_images(s, m, error) ? g_steal_pointer(&m) : NULL;
}

Manifest *store_manifest(const Store *s, const char *vdisk, GError **error)
{
    int folder = store_vdisk_folder(s, vdisk, error);
    g_autoptr(Manifest) m = NULL;

    if (folder < 0) {
        return NULL;
    }
    m = read_manifest(s, folder, error);
    close(folder);
    if (m && strcmp(m->vdisk, vdisk)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "it is that of vDisk '%s'", m->vdisk);
        g_clear_pointer(&m, manifest_free);
    }
    if (!m) {
        g_prefix_error(error, "the manifest of '%s': ", vdisk);
    }
    return g_steal_pointer(&m);
}

/* Listing */

static bool add_vdisk(void *opaque, const char *name, GError **error)
{
    (void)error;
    /* Stray things that could not be a vDisk are not ours to speak of */
    if (check_name(name, NULL)) {
        g_ptr_array_add(opaque, g_strdup(name));
    }
    return true;
}

static gint compare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char **store_vdisks(const Store *s, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    if (!durable_list(s->vdisks, add_vdisk, names, error)) {
        return NULL;
    }
    g_ptr_array_sort(names, compare);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(g_steal_pointer(&names), false);
}

/* Changing */

/* The folder with its manifest appears at once */
static bool make_vdisk(Store *s, const Manifest *m, const char *text,
                       GError **error)
{
    g_autofree char *new = g_strconcat(".new-", m->vdisk, NULL);
    bool ok;
    int fd;

    if (mkdirat(s->vdisks, new, 0755) < 0) {
        return durable_errno(error, "make a folder for", m->vdisk);
    }
    fd = durable_open_folder(s->vdisks, new, error);
    ok = fd >= 0 && durable_replace(fd, MANIFEST, text, error);
    if (fd >= 0) {
        close(fd);
    }
    if (ok && renameat(s->vdisks, new, s->vdisks, m->vdisk) < 0) {
        ok = durable_errno(error, "make vDisk", m->vdisk);
    }
    if (!ok) {
        store_remove_folder(s, new, NULL);
        return false;
    }
    return durable_sync_folder(s->vdisks, m->vdisk, error);
}

static bool write_manifest(Store *s, const Manifest *m, GError **error)
{
    g_autofree char *text = manifest_encode(m);
    g_autoptr(GError) local = NULL;
    int folder = store_vdisk_folder(s, m->vdisk, &local);
    bool ok;

    if (folder < 0) {
        if (g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
            return make_vdisk(s, m, text, error);
        }
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    ok = durable_replace(folder, MANIFEST, text, error);
    close(folder);
    return ok;
}

/*
 * The lock keeps others out, unless its file system forgot it: NFS does when its
 * client was away for longer than its lease. Then somebody else had it since.
 */
static bool check_revision(const Store *s, const Manifest *m, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(Manifest) now = store_manifest(s, m->vdisk, &local);

    if (!now && !g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    if ((now ? now->revision : 0) != m->revision) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "somebody else has "
                    "changed vDisk '%s' meanwhile: the lock of the store was "
                    "lost; give the command again", m->vdisk);
        return false;
    }
    return true;
}

bool store_is_current(const Store *s, const Manifest *m)
{
    return check_revision(s, m, NULL);
}

/* It could not be made durable; but it may be there, for who backs out */
static bool is_there(const Store *s, const Manifest *m)
{
    g_autoptr(Manifest) now = store_manifest(s, m->vdisk, NULL);

    return now && now->revision == m->revision;
}

bool store_set_manifest(Store *s, Manifest *m, GError **error)
{
    g_assert(s->lock >= 0);
    if (!check_revision(s, m, error)) {
        return false;
    }
    m->revision++;
    /* What cannot be read again must not get there */
    if (!manifest_valid(m, error) || !check_images(s, m, error) ||
        !write_manifest(s, m, error)) {
        m->revision -= !is_there(s, m);
        g_prefix_error(error, "the manifest of '%s': ", m->vdisk);
        return false;
    }
    return true;
}

/* Versions that are being made */

JsonObject *store_chain(const Store *s, const Manifest *m, const Version *v,
                        unsigned flags)
{
    return s->images->chain(s, m, v, flags);
}

bool store_image_size(const Store *s, const Manifest *m, const Version *v,
                      uint64_t *bytes, GError **error)
{
    return s->images->size(s, m, v, bytes, error);
}

/* A stranger with the name of ours: an earlier store, a manifest cut by hand */
static bool check_free(const Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    g_autofree char *tree = v->tree ? store_path(s, m->vdisk, v->tree) : NULL;
    g_autoptr(GError) local = NULL;
    uint64_t bytes;

    if (tree && access(tree, F_OK) == 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s is there, and "
                    "belongs to no version; move it away", tree);
        return false;
    }
    if (s->images->size(s, m, v, &bytes, &local) ||
        (!store_on_rbd(s) &&
         g_error_matches(local, G_IO_ERROR, G_IO_ERROR_INVALID_DATA))) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "the image %s of "
                    "vDisk '%s' is there, and belongs to no version; move it "
                    "away", v->image, m->vdisk);
        return false;
    }
    if (!g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    return true;
}

bool store_draft(Store *s, Manifest *m, Version *v, GError **error)
{
    const char *format;

    v->number = m->next;
    g_free(v->image);
    v->image = s->images->name(m, v, &format);
    g_free(v->format);
    v->format = g_strdup(format);
    if (version_sealed(v)) {
        g_free(v->tree);
        v->tree = g_strdup_printf("%" PRIu64 ".tree", v->number);
    }
    if (!check_free(s, m, v, error)) {
        return false;
    }
    manifest_set_unused(m, v->image, true);
    manifest_set_unused(m, v->tree, true);
    if (!store_set_manifest(s, m, error) ||
        !s->images->create(s, m, v, error)) {
        store_discard(s, m, v);
        return false;
    }
    return true;
}

static bool settle_tree(const Store *s, const Manifest *m, const Version *v,
                        GError **error)
{
    int folder = store_vdisk_folder(s, m->vdisk, error);
    bool ok = false;
    int fd;

    if (folder < 0) {
        return false;
    }
    fd = openat(folder, v->tree, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fchmod(fd, 0444) < 0 || fsync(fd) < 0) {
        durable_errno(error, "make durable", v->tree);
    } else {
        ok = durable_sync_folder(folder, v->tree, error);
    }
    if (fd >= 0) {
        close(fd);
    }
    close(folder);
    return ok;
}

/* Before a manifest has it: all it is made of is durable */
bool store_settle_version(Store *s, const Manifest *m, const Version *v,
                          GError **error)
{
    return (!version_sealed(v) || settle_tree(s, m, v, error)) &&
           s->images->settle(s, m, v, version_sealed(v), error);
}

bool store_publish(Store *s, Manifest *m, Version *v, GError **error)
{
    if (!store_settle_version(s, m, v, error)) {
        return false;
    }
    manifest_add(m, v);
    manifest_set_unused(m, v->image, false);
    manifest_set_unused(m, v->tree, false);
    m->next = v->number + 1;
    if (store_set_manifest(s, m, error)) {
        return true;
    }
    m->next = v->number;
    manifest_set_unused(m, v->image, true);
    manifest_set_unused(m, v->tree, true);
    /* It stays the caller's */
    g_ptr_array_steal_index(m->versions, m->versions->len - 1);
    return false;
}

/* By the manifest that is there, whatever the caller's says */
void store_discard(Store *s, Manifest *m, const Version *v)
{
    g_autoptr(Manifest) now = store_manifest(s, m->vdisk, NULL);

    if (!now) {
        return;
    }
    if (!now->versions->len) {
        store_remove_vdisk(s, m->vdisk, NULL);
    } else if (store_remove_unused(s, now, NULL)) {
        manifest_set_unused(m, v->image, false);
        manifest_set_unused(m, v->tree, false);
        m->revision = now->revision;
    }
}
