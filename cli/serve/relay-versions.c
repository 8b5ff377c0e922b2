/*
 * The versions that a relay knows of, from their manifests
 *
 * Of each vDisk counts the manifest of the first store in the list. As long as
 * that has never answered, the next one's does. What is here is kept in the
 * cache's folder, so that a relay can start with all stores away.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "relay.h"
#include "report.h"
#include "service.h"
#include "watch.h"

#include <inttypes.h>
#include <string.h>

#define NO_STORE        G_MAXUINT

void relay_version_free(gpointer data)
{
    RelayVersion *v = data;

    g_free(v->export);
    g_free(v->vdisk);
    g_free(v->root);
    g_free(v->trace);
    g_free(v->trace_here);
    g_free(v);
}

char *relay_path(const Relay *r, const RelayVersion *v, const char *suffix)
{
    return g_strdup_printf("%s/%s.%s", r->cache, v->root, suffix);
}

/* 0: what desktops run on; 1: what is on trial; then the older ones */
static unsigned rank_of(const Manifest *m, uint64_t number, uint64_t current,
                        uint64_t newest)
{
    if (number == current) {
        return 0;
    }
    return number == newest ? 1
                            : 2 + MIN(m->next - number, MANIFEST_MAX_VERSIONS);
}

/* A release date may have come; true if something is ranked otherwise now */
static bool rank_vdisk(Relay *r, const RelayVdisk *d, int64_t now)
{
    const Version *current = manifest_current(d->manifest, now);
    const Version *newest = manifest_newest(d->manifest);
    bool changed = false;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, r->versions);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        RelayVersion *v = value;
        unsigned rank;

        if (!strcmp(v->vdisk, d->name)) {
            rank = rank_of(d->manifest, v->number, current ? current->number : 0,
                           newest ? newest->number : 0);
            changed |= rank != v->rank;
            v->rank = rank;
        }
    }
    return changed;
}

static void add_version(Relay *r, const Manifest *m, const Version *v)
{
    g_autofree char *export = g_strdup_printf("%s@%" PRIu64, m->vdisk,
                                              v->number);
    g_autofree char *root = version_root_text(v);
    RelayVersion *mine = g_hash_table_lookup(r->versions, export);

    if (mine && (strcmp(mine->root, root) || mine->size != v->size)) {
        /* Not even a replaced store may do that to those who read it */
        g_autofree char *text = g_strdup_printf(
            "it has another root hash than before, %s; the vDisk was made "
            "anew? It stays as it was until its clients have gone", root);

        report_state(export, text);
        mine->wanted = false;
        return;
    }
    if (!mine) {
        mine = g_new0(RelayVersion, 1);
        mine->export = g_strdup(export);
        mine->vdisk = g_strdup(m->vdisk);
        mine->number = v->number;
        mine->size = v->size;
        mine->root = g_strdup(root);
        g_hash_table_insert(r->versions, mine->export, mine);
    }
    if (g_strcmp0(mine->trace, v->trace)) {
        g_free(mine->trace);
        mine->trace = g_strdup(v->trace);
        mine->trace_again = mine->trace_wait = 0;
    }
    mine->wanted = true;
}

static int compare_rank(gconstpointer a, gconstpointer b)
{
    const RelayVersion *v = *(const RelayVersion *const *)a;
    const RelayVersion *w = *(const RelayVersion *const *)b;
    int names = strcmp(v->vdisk, w->vdisk);

    if (v->rank != w->rank) {
        return v->rank < w->rank ? -1 : 1;
    }
    return names ?: (v->number > w->number ? -1 : v->number < w->number);
}

static void sort_versions(Relay *r)
{
    GHashTableIter iter;
    gpointer value;

    g_ptr_array_set_size(r->order, 0);
    g_hash_table_iter_init(&iter, r->versions);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        g_ptr_array_add(r->order, value);
    }
    g_ptr_array_sort(r->order, compare_rank);
}

void relay_rank(Relay *r)
{
    int64_t now = g_get_real_time() / G_USEC_PER_SEC;
    bool changed = false;

    for (const RelayVdisk *d = r->vdisks; d->name; d++) {
        changed |= d->manifest && rank_vdisk(r, d, now);
    }
    if (changed) {
        sort_versions(r);
    }
}

/* The versions of a vDisk are those of its manifest now */
static void take_versions(Relay *r, const RelayVdisk *d)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, r->versions);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        RelayVersion *v = value;

        if (!strcmp(v->vdisk, d->name)) {
            v->wanted = false;
        }
    }
    for (guint i = 0; i < d->manifest->versions->len; i++) {
        const Version *v = d->manifest->versions->pdata[i];

        if (version_sealed(v) && v->access != ACCESS_RETIRED) {
            add_version(r, d->manifest, v);
        }
    }
    sort_versions(r);
    r->changed = true;
}

static char *manifest_path(const Relay *r, const RelayVdisk *d)
{
    return g_strdup_printf("%s/%s.manifest", r->cache, d->name);
}

static bool save_manifest(const Relay *r, const RelayVdisk *d, GError **error)
{
    g_autofree char *path = manifest_path(r, d);
    g_autofree char *text = manifest_encode(d->manifest);

    return g_file_set_contents_full(
        path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT |
        G_FILE_SET_CONTENTS_DURABLE, 0644, error);
}

static Manifest *load_manifest(const Relay *r, const RelayVdisk *d,
                               GError **error)
{
    g_autofree char *path = manifest_path(r, d);
    g_autofree char *text = NULL;
    g_autoptr(Manifest) m = NULL;
    gsize length;

    if (!g_file_get_contents(path, &text, &length, error)) {
        return NULL;
    }
    m = manifest_decode(text, length, error);
    if (m && strcmp(m->vdisk, d->name)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "it is the manifest of another vDisk");
        return NULL;
    }
    return g_steal_pointer(&m);
}

bool relay_load_manifests(Relay *r, GError **error)
{
    unsigned n = g_strv_length(r->vdisk_names);

    r->vdisks = g_new0(RelayVdisk, n + 1);
    for (unsigned i = 0; i < n; i++) {
        RelayVdisk *d = &r->vdisks[i];
        g_autoptr(GError) why = NULL;

        d->name = r->vdisk_names[i];
        d->store = NO_STORE;
        d->manifest = load_manifest(r, d, &why);
        if (d->manifest) {
            d->store = 0;
            take_versions(r, d);
        } else if (!g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOENT)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "%s/%s.manifest cannot be used: %s; remove it, and it "
                        "is fetched again", r->cache, d->name, why->message);
            return false;
        }
    }
    return true;
}

static RelayVdisk *find_vdisk(Relay *r, const char *name)
{
    for (RelayVdisk *d = r->vdisks; d->name; d++) {
        if (!strcmp(d->name, name)) {
            return d;
        }
    }
    g_assert_not_reached();
}

static void take_manifest(Relay *r, RelayVdisk *d, Manifest *m, unsigned store)
{
    g_autofree char *subject = g_strdup_printf("manifest of %s", d->name);
    g_autofree char *before = d->manifest ? manifest_encode(d->manifest) : NULL;
    g_autofree char *now = manifest_encode(m);
    g_autoptr(GError) error = NULL;

    d->store = store;
    g_clear_pointer(&d->manifest, manifest_free);
    d->manifest = m;
    if (!g_strcmp0(before, now)) {
        return;
    }
    report("%s: revision %" PRIu64 ", from %s", d->name, m->revision,
           ((Far *)r->stores->pdata[store])->uri);
    report_state(subject, save_manifest(r, d, &error) ? NULL : error->message);
    take_versions(r, d);
    service_tick_soon();
}

static void found(void *opaque, unsigned store, const char *vdisk, Manifest *m,
                  const GError *error)
{
    Relay *r = opaque;
    const Far *far = r->stores->pdata[store];
    RelayVdisk *d = find_vdisk(r, vdisk);
    g_autofree char *subject = g_strdup_printf("%s at %s", vdisk, far->uri);

    report_state(subject, m ? NULL : error->message);
    r->reachable[store] = m != NULL;
    if (m && store <= d->store) {
        take_manifest(r, d, m, store);
    } else if (m) {
        manifest_free(m);
    }
}

void relay_watch(Relay *r)
{
    watch_begin((Far *const *)r->stores->pdata, r->vdisk_names,
                r->interval * 1000, found, r);
}
