/*
 * A store as a server sees it
 *
 * Versions share the nodes of their parents, so a store of many versions
 * needs one node for each. A node's key tells all that it is made of, the
 * files by their inodes: an image that was replaced by merging is another
 * node, and the old one goes when its clients have gone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "store-view.h"
#include "report.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <string.h>

typedef struct VdiskView {
    char *name;
    char *stamp;            /* of the manifest when it was read; NULL: it could
                               not be read */
    Manifest *manifest;     /* the last one that could be read, or NULL */
    char *copy;             /* path of what is exported of it, or NULL */
    bool seen;              /* in this look */
} VdiskView;

struct StoreView {
    Store *store;
    char *stamp;            /* of its folder */
    char *private;
    GHashTable *vdisks;     /* name -> VdiskView */
};

static void vdisk_view_free(gpointer data)
{
    VdiskView *d = data;

    if (d->copy) {
        g_unlink(d->copy);
    }
    g_free(d->copy);
    g_free(d->name);
    g_free(d->stamp);
    g_clear_pointer(&d->manifest, manifest_free);
    g_free(d);
}

/* What changes when a file is replaced, and with @content when it is written */
static char *stamp_of(const char *path, bool content)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        return NULL;
    }
    if (!content) {
        return g_strdup_printf("%" PRIuMAX ":%" PRIuMAX, (uintmax_t)st.st_dev,
                               (uintmax_t)st.st_ino);
    }
    return g_strdup_printf("%" PRIuMAX ":%" PRIuMAX ":%" PRIdMAX ":%"
                           PRIdMAX ".%ld", (uintmax_t)st.st_dev,
                           (uintmax_t)st.st_ino, (intmax_t)st.st_size,
                           (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

StoreView *store_view_new(const char *folder, const char *private,
                          GError **error)
{
    Store *store = store_open(folder, STORE_READ, error);
    StoreView *v;

    if (!store) {
        return NULL;
    }
    v = g_new0(StoreView, 1);
    v->store = store;
    v->stamp = stamp_of(store_folder(store), false);
    v->private = g_strdup(private);
    v->vdisks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                      vdisk_view_free);
    return v;
}

void store_view_free(StoreView *v)
{
    if (v) {
        g_hash_table_unref(v->vdisks);
        store_close(v->store);
        g_free(v->stamp);
        g_free(v->private);
        g_free(v);
    }
}

/* True if there is another manifest now */
static bool look_at(StoreView *v, VdiskView *d)
{
    g_autofree char *path = store_path(v->store, d->name, "manifest.json");
    g_autofree char *stamp = stamp_of(path, true);
    g_autofree char *subject = g_strdup_printf("vDisk %s", d->name);
    g_autoptr(GError) error = NULL;
    Manifest *m;

    if (stamp && !g_strcmp0(stamp, d->stamp)) {
        return false;
    }
    g_clear_pointer(&d->stamp, g_free);
    m = store_manifest(v->store, d->name, &error);
    if (!m) {
        g_autofree char *text = g_strdup_printf(
            "%s; %s", error->message, d->manifest
            ? "its versions are served as they were" : "it is not served");

        report_state(subject, text);
        return false;
    }
    report_state(subject, NULL);
    g_clear_pointer(&d->manifest, manifest_free);
    d->manifest = m;
    d->stamp = g_steal_pointer(&stamp);
    return true;
}

static bool look_at_name(StoreView *v, const char *name)
{
    VdiskView *d = g_hash_table_lookup(v->vdisks, name);

    if (!d) {
        d = g_new0(VdiskView, 1);
        d->name = g_strdup(name);
        g_hash_table_insert(v->vdisks, d->name, d);
    }
    d->seen = true;
    return look_at(v, d);
}

/* Those that are not in the store any more; true if there were some */
static bool forget_unseen(StoreView *v)
{
    GHashTableIter iter;
    gpointer value;
    bool changed = false;

    g_hash_table_iter_init(&iter, v->vdisks);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        VdiskView *d = value;

        if (!d->seen) {
            g_autofree char *subject = g_strdup_printf("vDisk %s", d->name);

            report_forget(subject);
            changed |= d->manifest != NULL;
            g_hash_table_iter_remove(&iter);
        } else {
            d->seen = false;
        }
    }
    return changed;
}

/* The folder may be another one than it was: a file system that was mounted */
static bool reopen(StoreView *v, GError **error)
{
    g_autofree char *stamp = stamp_of(store_folder(v->store), false);
    Store *store;

    if (stamp && !g_strcmp0(stamp, v->stamp)) {
        return true;
    }
    store = store_open(store_folder(v->store), STORE_READ, error);
    if (!store) {
        return false;
    }
    store_close(v->store);
    v->store = store;
    g_free(v->stamp);
    v->stamp = g_steal_pointer(&stamp);
    return true;
}

bool store_view_look(StoreView *v)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) names = reopen(v, &error) ? store_vdisks(v->store, &error)
                                            : NULL;
    bool changed = false;

    if (!names) {
        report_state("store", error->message);
        return false;
    }
    report_state("store", NULL);
    for (char **name = names; *name; name++) {
        changed |= look_at_name(v, *name);
    }
    return forget_unseen(v) || changed;
}

/* What its image is, without those below; NULL if it is not there */
static char *image_stamp(const StoreView *v, const Manifest *m,
                         const Version *version)
{
    g_autofree char *path = NULL;

    if (store_on_rbd(v->store)) {
        return g_strdup(version->image);
    }
    path = store_path(v->store, m->vdisk, version->image);
    return stamp_of(path, version_sealed(version));
}

/*
 * The node of a version over that of its parent, whose key @below is. Its key,
 * to be freed, or NULL if the image is missing.
 */
static char *add_node(const StoreView *v, Wanted *w, const Manifest *m,
                      const Version *version, const char *below)
{
    g_autofree char *subject = g_strdup_printf("export %s@%" PRIu64, m->vdisk,
                                               version->number);
    g_autofree char *stamp = image_stamp(v, m, version);
    g_autofree char *all = NULL;
    bool writable = !version_sealed(version);
    g_autoptr(GError) error = NULL;
    uint64_t bytes;
    JsonObject *o;
    char *key;

    if (!stamp || (version->parent && !below)) {
        g_autofree char *text = g_strdup_printf(
            "the store has no image %s", version->image);

        report_state(subject, stamp ? "an image below it is missing" : text);
        return NULL;
    }
    /* By its header: QEMU would open what that names */
    if (!store_on_rbd(v->store) &&
        !store_image_size(v->store, m, version, &bytes, &error)) {
        report_state(subject, error->message);
        return NULL;
    }
    all = g_strdup_printf("%s/%" PRIu64 "/%s/%d/%s", m->vdisk, version->number,
                          stamp, writable, below ?: "");
    key = g_compute_checksum_for_string(G_CHECKSUM_SHA256, all, -1);
    o = store_chain(v->store, m, version, writable ? STORE_CHAIN_WRITABLE : 0);
    if (version->parent && json_object_has_member(o, "backing")) {
        json_object_remove_member(o, "backing");
        wanted_node(w, key, o, below);
    } else {
        wanted_node(w, key, o, NULL);
    }
    return key;
}

/* What belongs to a sealed version beside its image, as NAME.@suffix */
static void add_file(const StoreView *v, Wanted *w, const Manifest *m,
                     const char *file, const char *name, const char *suffix,
                     ExportUse use)
{
    g_autofree char *path = store_path(v->store, m->vdisk, file);
    g_autofree char *stamp = stamp_of(path, true);
    g_autofree char *key = g_strdup_printf("%s:%s", path, stamp ?: "");
    g_autofree char *export = g_strdup_printf("%s.%s", name, suffix);
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "driver", "file");
    json_object_set_string_member(o, "filename", path);
    json_object_set_boolean_member(o, "read-only", TRUE);
    wanted_node(w, key, o, NULL);
    wanted_export(w, export, key, use);
}

static void add_version(const StoreView *v, Wanted *w, const Manifest *m,
                        const Version *version, const char *key)
{
    g_autofree char *name = g_strdup_printf("%s@%" PRIu64, m->vdisk,
                                            version->number);
    g_autofree char *label = g_strdup_printf("%s.label", name);

    if (version->access == ACCESS_RETIRED) {
        return;
    }
    if (version_sealed(version)) {
        wanted_export(w, name, key, EXPORT_READ);
        add_file(v, w, m, version->tree, name, "tree", EXPORT_READ);
        if (version->trace) {
            add_file(v, w, m, version->trace, name, "trace", EXPORT_BRIEF);
        }
    } else if (version->label) {
        wanted_export(w, name, key, EXPORT_WRITE);
        wanted_export(w, label, key, EXPORT_READ);
    }
}

static void add_vdisk(const StoreView *v, Wanted *w, VdiskView *d)
{
    g_autoptr(GHashTable) keys = g_hash_table_new_full(
        g_int64_hash, g_int64_equal, NULL, g_free);
    g_autofree char *subject = g_strdup_printf("export %s@manifest", d->name);
    g_autoptr(GError) error = NULL;
    const Manifest *m = d->manifest;
    char *copy;

    /* Parents come first */
    for (guint i = 0; i < m->versions->len; i++) {
        Version *version = m->versions->pdata[i];
        const char *below = g_hash_table_lookup(keys, &version->parent);
        char *key = add_node(v, w, m, version, below);

        if (key) {
            g_hash_table_insert(keys, &version->number, key);
            add_version(v, w, m, version, key);
        }
    }
    copy = manifest_export(w, v->private, m, &error);
    if (!copy) {
        report_state(subject, error->message);
        return;
    }
    if (g_strcmp0(copy, d->copy) && d->copy) {
        g_unlink(d->copy);
    }
    g_free(d->copy);
    d->copy = copy;
}

Wanted *store_view_wanted(const StoreView *v)
{
    Wanted *w = wanted_new();
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, v->vdisks);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((VdiskView *)value)->manifest) {
            add_vdisk(v, w, value);
        }
    }
    return w;
}

void store_view_count(const StoreView *v, unsigned *vdisks, unsigned *versions)
{
    GHashTableIter iter;
    gpointer value;

    *vdisks = *versions = 0;
    g_hash_table_iter_init(&iter, v->vdisks);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const VdiskView *d = value;

        if (d->manifest) {
            ++*vdisks;
            for (guint i = 0; i < d->manifest->versions->len; i++) {
                const Version *version = d->manifest->versions->pdata[i];

                *versions += version->access != ACCESS_RETIRED;
            }
        }
    }
}
