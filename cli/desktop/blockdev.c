/*
 * A desktop's disk as QEMU's -blockdev takes it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "blockdev.h"

#include <inttypes.h>
#include <json-glib/json-glib.h>
#include <string.h>

#define TLS_ID          "deskcast-tls"

static char *to_text(JsonObject *object)
{
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(root, object);
    return json_to_string(root, FALSE);
}

static JsonObject *file_node(const char *path)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "driver", "file");
    json_object_set_string_member(o, "filename", path);
    json_object_set_string_member(o, "discard", "unmap");
    return o;
}

/* In options of pvs a percent sign stands for something */
static char *escape_percent(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "%", -1);

    return g_strjoinv("%%", parts);
}

static JsonObject *server(GUri *uri, bool escape)
{
    JsonObject *o = json_object_new();
    g_autofree char *port = NULL, *path = NULL;

    if (!strcmp(g_uri_get_scheme(uri), "nbd+unix")) {
        path = g_strdup(g_uri_get_query(uri) + strlen("socket="));
        if (escape) {
            char *plain = path;

            path = escape_percent(plain);
            g_free(plain);
        }
        json_object_set_string_member(o, "type", "unix");
        json_object_set_string_member(o, "path", path);
        return o;
    }
    port = g_strdup_printf("%d", g_uri_get_port(uri));
    json_object_set_string_member(o, "type", "inet");
    json_object_set_string_member(o, "host", g_uri_get_host(uri));
    json_object_set_string_member(o, "port", port);
    return o;
}

/* An NBD export; metadata was checked when it was read */
static JsonObject *nbd_node(const char *store, const char *export)
{
    g_autoptr(GUri) uri = g_uri_parse(store, G_URI_FLAGS_NONE, NULL);
    JsonObject *o = json_object_new();

    g_assert(uri);
    json_object_set_string_member(o, "driver", "nbd");
    json_object_set_object_member(o, "server", server(uri, true));
    json_object_set_string_member(o, "export", export);
    if (!strcmp(g_uri_get_scheme(uri), "nbds")) {
        json_object_set_string_member(o, "tls-creds", TLS_ID);
        json_object_set_string_member(o, "tls-hostname",
                                      g_uri_get_host(uri));
    }
    return o;
}

static void add_stores(JsonObject *o, const DesktopMetadata *d,
                       const char *export)
{
    JsonArray *stores = json_array_new();

    for (char **s = d->stores; *s; s++) {
        json_array_add_object_element(stores, nbd_node(*s, export));
    }
    json_object_set_array_member(o, "stores", stores);
}

static void add_standard(JsonObject *o, const DesktopMetadata *d)
{
    g_autofree char *image = g_strdup_printf("%s@%%v", d->vdisk);
    g_autofree char *tree = g_strdup_printf("%s@%%v.tree", d->vdisk);

    add_stores(o, d, image);
    if (d->wanted.root) {
        json_object_set_object_member(o, "verity-tree",
                                      nbd_node(d->stores[0], tree));
    }
    if (d->host_cache) {
        g_autofree char *folder = escape_percent(d->host_cache);
        g_autofree char *cache = g_strconcat(folder, "/%r.cache", NULL);

        json_object_set_string_member(o, "host-cache", cache);
    }
}

static void add_private(JsonObject *o, const DesktopMetadata *d)
{
    g_autofree char *image = g_strdup_printf("%s@%" PRIu64, d->vdisk,
                                             d->wanted.number);
    g_autofree char *label = g_strconcat(image, ".label", NULL);

    json_object_set_string_member(o, "mode", "private");
    add_stores(o, d, image);
    json_object_set_object_member(o, "label", nbd_node(d->stores[0], label));
    json_object_set_object_member(o, "journal", file_node(d->journal));
}

static bool enough(const DesktopMetadata *d, GError **error)
{
    const char *bad = NULL;

    if (d->model == MODEL_MCS) {
        return true;
    }
    if (!d->stores) {
        bad = "names no source that it reads from";
    } else if (d->lifetime == LIFETIME_PRIVATE && d->stores[1]) {
        bad = "is private and has more than one source: it has one writer, "
              "and one place that it is written to";
    } else if (d->lifetime == LIFETIME_PRIVATE && !d->wanted.number) {
        bad = "is private and has no version that it writes";
    }
    if (bad) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the desktop %s", bad);
    }
    return !bad;
}

char *desktop_blockdev(const DesktopMetadata *d, GError **error)
{
    JsonObject *o;

    if (!enough(d, error)) {
        return NULL;
    }
    o = json_object_new();
    json_object_set_string_member(o, "driver",
                                  d->model == MODEL_MCS ? "mcs" : "pvs");
    json_object_set_string_member(o, "node-name", d->node);
    json_object_set_string_member(o, "discard", "unmap");
    json_object_set_object_member(o, "file", file_node(d->disk));
    if (d->ram && d->lifetime == LIFETIME_POOLED) {
        json_object_set_int_member(o, "write-cache-ram", d->ram);
    }
    if (d->lifetime == LIFETIME_PRIVATE) {
        add_private(o, d);
    } else if (d->model == MODEL_PVS) {
        add_standard(o, d);
    }
    return to_text(o);
}

char *desktop_tls_object(const DesktopMetadata *d)
{
    JsonObject *o;
    bool needed = false;

    for (char **s = d->stores; s && *s; s++) {
        needed |= g_str_has_prefix(*s, "nbds:");
    }
    if (!needed) {
        return NULL;
    }
    o = json_object_new();
    json_object_set_string_member(o, "qom-type", "tls-creds-x509");
    json_object_set_string_member(o, "id", TLS_ID);
    json_object_set_string_member(o, "dir", DESKTOP_TLS_DIR);
    json_object_set_string_member(o, "endpoint", "client");
    json_object_set_boolean_member(o, "verify-peer", TRUE);
    return to_text(o);
}
