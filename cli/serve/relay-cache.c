/*
 * A relay's cache: room, nodes, files
 *
 * A file in the cache's folder is named by the root hash of its version:
 * ROOT.tree, ROOT.cache, ROOT.trace. It is removed, never cut, when no version
 * that is wanted and no node has it: a desktop that has it open reads on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "plan.h"
#include "relay.h"
#include "report.h"
#include "store-view.h"
#include "tree-fetch.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <string.h>

/* The part of all room that caches leave to trees; a tree is 1/127 of a vDisk */
#define TREE_SHARE      32
/* Seconds without a store after which it says so to those who ask */
#define OUTAGE_WAIT     1
#define ROOT_DIGITS     (2 * VERITY_HASH_BYTES)

/*
 * What a cache file takes at most: header and map, data that is not zero, the
 * tree, and what the file system needs to know where all that is.
 */
static uint64_t need_of(const RelayVersion *v)
{
    uint64_t content = v->data_bytes + tree_file_bytes(v->size);

    return content + content / 64 + v->size / 8192 + (UINT64_C(2) << 20);
}

char *relay_node_key(const RelayVersion *v)
{
    return g_strdup_printf("%s:%" PRIu64 ":%" PRIu64, v->root, v->size,
                           v->grant);
}

/* What the node that is there now was granted */
static uint64_t held_by(const Relay *r, const RelayVersion *v)
{
    const char *key = board_export_key(r->board, v->export);

    return key ? g_ascii_strtoull(strrchr(key, ':') + 1, NULL, 10) : 0;
}

/* An earlier one in the list with the same content, and so the same cache */
static const RelayVersion *twin_of(const Relay *r, guint index)
{
    const RelayVersion *v = r->order->pdata[index];

    for (guint i = 0; i < index; i++) {
        const RelayVersion *o = r->order->pdata[i];

        if (!strcmp(o->root, v->root) && o->wanted >= v->wanted) {
            return o;
        }
    }
    return NULL;
}

/*
 * Bytes for trees: those that are here, then those that are to come, as far as
 * there is room. Without its tree a version cannot be served at all, so trees
 * come before caches. In *@here those that are.
 */
static uint64_t reserve_trees(Relay *r, uint64_t *here)
{
    uint64_t sum = 0;

    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *v = r->order->pdata[i];

        sum += v->tree == TREE_MISSING ? 0 : tree_file_bytes(v->size);
    }
    *here = sum;
    for (guint i = 0; i < r->order->len; i++) {
        RelayVersion *v = r->order->pdata[i];
        uint64_t bytes = tree_file_bytes(v->size);

        if (v->wanted && v->tree == TREE_MISSING) {
            v->tree_room = bytes <= r->size && sum <= r->size - bytes;
            sum += v->tree_room ? bytes : 0;
            if (!v->tree_room) {
                report_state(v->export, "it is not served: its hash tree does "
                             "not fit into what --size leaves");
            }
        }
    }
    return sum;
}

bool relay_plan(Relay *r)
{
    g_autofree PlanItem *items = g_new0(PlanItem, r->order->len + 1);
    uint64_t here, trees = reserve_trees(r, &here), held = 0;
    bool changed = false;

    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *v = r->order->pdata[i];

        if (twin_of(r, i)) {
            continue;
        }
        items[i].wanted = v->wanted && v->tree == TREE_HERE;
        items[i].need = need_of(v);
        items[i].held = held_by(r, v);
        held += items[i].held;
    }
    r->free = r->size > held + here ? r->size - held - here : 0;
    /* Caches in use keep their room: the next tree must not wait for it */
    plan_room(items, r->order->len,
              r->size - MIN(r->size, MAX(trees, r->size / TREE_SHARE)));
    for (guint i = 0; i < r->order->len; i++) {
        RelayVersion *v = r->order->pdata[i];
        const RelayVersion *twin = twin_of(r, i);
        uint64_t grant = twin ? twin->grant : items[i].grant;

        changed |= v->grant != grant;
        v->hydrated &= v->grant == grant;
        v->grant = grant;
        v->fits = grant >= items[i].need && !twin;
    }
    return changed;
}

static JsonObject *file_node(const char *path)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "driver", "file");
    json_object_set_string_member(o, "filename", path);
    json_object_set_boolean_member(o, "read-only", TRUE);
    return o;
}

static void set_cache(const Relay *r, JsonObject *o, const RelayVersion *v)
{
    g_autofree char *folder = far_escape(r->cache);
    g_autofree char *cache = g_strconcat(folder, "/%r.cache", NULL);
    g_autofree char *trace = g_strconcat(folder, "/%r.trace", NULL);

    json_object_set_string_member(o, "host-cache", cache);
    json_object_set_int_member(o, "host-cache-limit", v->grant);
    json_object_set_string_member(o, "boot-trace", trace);
    if (r->map_folder) {
        g_autofree char *where = far_escape(r->map_folder);
        g_autofree char *map = g_strconcat(where, "/%r.cache.map", NULL);

        json_object_set_string_member(o, "host-cache-map", map);
    }
}

/*
 * What cannot be had is told those who asked, and not kept: they wait as they
 * think right, and ask again. A request that is held here they would take for a
 * relay that hangs, and break the connection, again and again.
 */
static void set_outage(JsonObject *o)
{
    json_object_set_string_member(o, "outage-action", "error");
    json_object_set_int_member(o, "outage-wait", OUTAGE_WAIT);
}

static JsonObject *version_node(const Relay *r, const RelayVersion *v)
{
    g_autofree char *path = relay_path(r, v, "tree");
    g_autofree char *tree = far_escape(path);
    JsonArray *stores = json_array_new();
    JsonObject *o = json_object_new();

    for (guint i = 0; r->stores->pdata[i]; i++) {
        json_array_add_object_element(stores, far_node(r->stores->pdata[i],
                                                       v->export));
    }
    json_object_set_string_member(o, "driver", "pvs");
    json_object_set_boolean_member(o, "read-only", TRUE);
    json_object_set_string_member(o, "vdisk", v->vdisk);
    json_object_set_int_member(o, "version", v->number);
    json_object_set_int_member(o, "size", v->size);
    json_object_set_string_member(o, "verity-root", v->root);
    json_object_set_object_member(o, "verity-tree", file_node(tree));
    json_object_set_array_member(o, "stores", stores);
    set_outage(o);
    if (v->grant) {
        set_cache(r, o, v);
    }
    return o;
}

/* The store's, for relays that read from this one; never one of our own */
static void add_trace(const Relay *r, Wanted *w, const RelayVersion *v)
{
    g_autofree char *export = g_strdup_printf("%s.trace", v->export);
    g_autofree char *path = relay_path(r, v, "trace");
    g_autofree char *key = g_strdup_printf("%s:%s", path, v->trace_here);

    if (v->trace_here && !g_strcmp0(v->trace, v->trace_here)) {
        wanted_node(w, key, file_node(path), NULL);
        wanted_export(w, export, key, EXPORT_BRIEF);
    }
}

static void add_version(const Relay *r, Wanted *w, const RelayVersion *v)
{
    g_autofree char *key = relay_node_key(v);
    g_autofree char *tree = g_strdup_printf("%s.tree", v->export);
    g_autofree char *path = relay_path(r, v, "tree");

    wanted_node(w, key, version_node(r, v), NULL);
    wanted_export(w, v->export, key, EXPORT_READ);
    wanted_node(w, path, file_node(path), NULL);
    wanted_export(w, tree, path, EXPORT_READ);
    add_trace(r, w, v);
}

/* Who reads relays that feed relays reads manifests, too */
static void add_manifest(const Relay *r, Wanted *w, RelayVdisk *d)
{
    g_autofree char *subject = g_strdup_printf("export %s@manifest", d->name);
    g_autoptr(GError) error = NULL;
    char *copy = manifest_export(w, r->private, d->manifest, &error);

    if (!copy) {
        report_state(subject, error->message);
        return;
    }
    if (d->copy && strcmp(copy, d->copy)) {
        g_unlink(d->copy);
    }
    g_free(d->copy);
    d->copy = copy;
}

Wanted *relay_wanted(Relay *r)
{
    Wanted *w = wanted_new();

    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *v = r->order->pdata[i];

        if (v->wanted && v->tree == TREE_HERE) {
            add_version(r, w, v);
        }
    }
    for (RelayVdisk *d = r->vdisks; d->name; d++) {
        if (d->manifest) {
            add_manifest(r, w, d);
        }
    }
    return w;
}

/* Files */

/* The root hash that a file's name begins with; NULL if it is not of ours */
static char *root_of_file(const char *name)
{
    static const char *const suffixes[] = {
        ".cache", ".tree", ".trace", ".cache.new", ".tree.new",
    };

    if (strspn(name, "0123456789abcdef") != ROOT_DIGITS) {
        return NULL;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        if (!strcmp(name + ROOT_DIGITS, suffixes[i])) {
            return g_strndup(name, ROOT_DIGITS);
        }
    }
    /* Left by whoever was killed while it wrote one */
    return g_str_has_prefix(name + ROOT_DIGITS, ".trace.")
        ? g_strndup(name, ROOT_DIGITS) : NULL;
}

/* Is there a node of it, with a cache if @cache? */
static bool has_node(const Relay *r, const RelayVersion *v, bool cache)
{
    g_autofree char *tree = g_strdup_printf("%s.tree", v->export);

    if (cache) {
        return held_by(r, v) > 0;
    }
    return board_export_key(r->board, v->export) ||
        board_export_key(r->board, tree);
}

/* May nobody have use for it? @cache: it is one, and not the tree or a trace */
static bool is_needless(const Relay *r, const char *root, bool cache)
{
    for (guint i = 0; i < r->order->len; i++) {
        const RelayVersion *v = r->order->pdata[i];

        if (!strcmp(v->root, root) &&
            (has_node(r, v, cache) ||
             (v->wanted && (!cache || v->grant || v->tree != TREE_HERE)))) {
            return false;
        }
    }
    return true;
}

static void remove_map(const Relay *r, const char *root)
{
    g_autofree char *path = g_strdup_printf(
        "%s/%s.cache.map", r->map_folder ?: "/run/deskcast", root);

    g_unlink(path);
}

static bool all_known(const Relay *r)
{
    for (const RelayVdisk *d = r->vdisks; d->name; d++) {
        if (!d->manifest) {
            return false;
        }
    }
    return true;
}

static void forget_trace(const RelayVersion *v)
{
    g_autofree char *subject = g_strdup_printf("boot trace of %s", v->export);

    report_forget(subject);
}

static void forget_gone(Relay *r)
{
    for (guint i = r->order->len; i-- > 0;) {
        RelayVersion *v = r->order->pdata[i];

        if (!v->wanted && !has_node(r, v, false) && v->tree != TREE_COMING) {
            report("%s is not served any more", v->export);
            report_forget(v->export);
            forget_trace(v);
            g_ptr_array_remove_index(r->order, i);
            g_hash_table_remove(r->versions, v->export);
        }
    }
}

void relay_sweep(Relay *r)
{
    g_autoptr(GDir) dir = NULL;
    const char *name;

    /* A vDisk whose store is away may own what looks like nobody's */
    if (!all_known(r) || !(dir = g_dir_open(r->cache, 0, NULL))) {
        return;
    }
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *root = root_of_file(name);
        bool cache = root && g_str_has_prefix(name + ROOT_DIGITS, ".cache");

        if (root && is_needless(r, root, cache)) {
            g_autofree char *path = g_build_filename(r->cache, name, NULL);

            g_unlink(path);
            if (cache) {
                remove_map(r, root);
            }
        }
    }
    forget_gone(r);
}

uint64_t relay_used(const Relay *r)
{
    g_autoptr(GDir) dir = g_dir_open(r->cache, 0, NULL);
    uint64_t bytes = 0;
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(r->cache, name, NULL);
        struct stat st;

        if (lstat(path, &st) == 0) {
            bytes += st.st_blocks * UINT64_C(512);
        }
    }
    return bytes;
}
