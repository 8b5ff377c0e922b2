/*
 * Where versions are replicated from: a store's folder, or a server of one
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "origin.h"
#include "trace-file.h"
#include "block/vdisk/header.h"
#include "cli/desktop/blockdev.h"

#include <glib/gstdio.h>
#include <libnbd.h>
#include <string.h>
#include <unistd.h>

#define NBD_PORT        "10809"
#define MANIFEST_SUFFIX "@manifest"

struct Origin {
    Store *store;               /* NULL: a server */
    ContentServer server;
};

static bool bad_address(const char *from, GError **error)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "'%s' is no nbd://HOST:PORT, nbds://HOST:PORT or "
                "nbd+unix:///?socket=PATH", from);
    return false;
}

/* Nothing but the server's address: which exports it has is known */
static bool parse_address(ContentServer *s, const char *from, GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(from, G_URI_FLAGS_NONE, NULL);
    const char *scheme = uri ? g_uri_get_scheme(uri) : "";
    g_autoptr(GHashTable) params = uri && g_uri_get_query(uri) ?
        g_uri_parse_params(g_uri_get_query(uri), -1, "&", G_URI_PARAMS_NONE,
                           NULL) : NULL;
    const char *path = params ? g_hash_table_lookup(params, "socket") : NULL;
    int port = uri ? g_uri_get_port(uri) : -1;

    s->tls = g_str_has_prefix(scheme, "nbds");
    if (g_str_equal(scheme, "nbd+unix") || g_str_equal(scheme, "nbds+unix")) {
        s->socket = g_strdup(path);
        return path || bad_address(from, error);
    }
    if ((!g_str_equal(scheme, "nbd") && !g_str_equal(scheme, "nbds")) ||
        !g_uri_get_host(uri) || !*g_uri_get_host(uri) ||
        strlen(g_uri_get_path(uri)) > 1 || g_uri_get_query(uri)) {
        return bad_address(from, error);
    }
    s->host = g_strdup(g_uri_get_host(uri));
    s->port = port > 0 ? g_strdup_printf("%d", port) : g_strdup(NBD_PORT);
    return true;
}

/* Nothing is said of TLS: with what desktops of this host have, if we may read
 * it */
static char *own_certificates(const OriginTls *tls)
{
    bool is_there = g_access(DESKTOP_TLS_DIR "/ca-cert.pem", R_OK) == 0;

    return is_there && !tls->psk_file ? g_strdup(DESKTOP_TLS_DIR) : NULL;
}

Origin *origin_new(const char *from, const OriginTls *tls, GError **error)
{
    g_autoptr(Origin) o = g_new0(Origin, 1);

    if (!strstr(from, "://")) {
        o->store = store_open(from, STORE_READ, error);
        return o->store ? g_steal_pointer(&o) : NULL;
    }
    if (!parse_address(&o->server, from, error)) {
        return NULL;
    }
    o->server.certificates = tls->certificates ? g_strdup(tls->certificates)
                                               : own_certificates(tls);
    o->server.psk_file = g_strdup(tls->psk_file);
    o->server.user = g_strdup(tls->user);
    return g_steal_pointer(&o);
}

void origin_tls_clear(OriginTls *tls)
{
    g_free(tls->certificates);
    g_free(tls->psk_file);
    g_free(tls->user);
}

void origin_free(Origin *o)
{
    if (o) {
        g_clear_pointer(&o->store, store_close);
        g_free(o->server.socket);
        g_free(o->server.host);
        g_free(o->server.port);
        g_free(o->server.certificates);
        g_free(o->server.psk_file);
        g_free(o->server.user);
        g_free(o);
    }
}

char **origin_exports(Origin *o, GError **error)
{
    return o->store ? g_new0(char *, 1) : content_exports(&o->server, error);
}

char **origin_vdisks(Origin *o, GError **error)
{
    g_auto(GStrv) exports = NULL;
    GPtrArray *names;

    if (o->store) {
        return store_vdisks(o->store, error);
    }
    exports = content_exports(&o->server, error);
    if (!exports) {
        return NULL;
    }
    names = g_ptr_array_new();
    for (char **e = exports; *e; e++) {
        g_autofree char *name = g_str_has_suffix(*e, MANIFEST_SUFFIX)
            ? g_strndup(*e, strlen(*e) - strlen(MANIFEST_SUFFIX)) : NULL;
        g_autofree char *why = NULL;

        /* What is no name of a vDisk is none of a store's exports */
        if (name && vdisk_name_valid(name, &why)) {
            g_ptr_array_add(names, g_steal_pointer(&name));
        }
    }
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, false);
}

/* An export has whole sectors: zeros may follow the text */
static Manifest *fetch_manifest(Origin *o, const char *vdisk, GError **error)
{
    g_autofree char *export = g_strconcat(vdisk, MANIFEST_SUFFIX, NULL);
    g_autoptr(Content) c = content_connect(&o->server, export, error);
    g_autofree char *text = NULL;
    uint64_t bytes = c ? content_size(c) : 0;

    if (!c) {
        return NULL;
    }
    if (bytes > MANIFEST_MAX_BYTES + 512) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "it is too long");
        return NULL;
    }
    text = g_malloc0(bytes + 1);
    return content_pread(c, 0, bytes, text, error) ?
           manifest_decode(text, strlen(text), error) : NULL;
}

Manifest *origin_manifest(Origin *o, const char *vdisk, GError **error)
{
    g_autoptr(Manifest) m = o->store ? store_manifest(o->store, vdisk, error)
                                     : fetch_manifest(o, vdisk, error);

    if (!m) {
        g_prefix_error(error, "where it comes from, '%s': ", vdisk);
    } else if (!g_str_equal(m->vdisk, vdisk)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the manifest that is served as '%s' is of '%s'", vdisk,
                    m->vdisk);
        return NULL;
    }
    return g_steal_pointer(&m);
}

static Content *checked(Content *c, uint64_t bytes, GError **error)
{
    if (c && content_size(c) < bytes) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "what is served has %" PRIu64 " bytes, not %" PRIu64,
                    content_size(c), bytes);
        g_clear_pointer(&c, content_close);
    }
    return c;
}

Content *origin_version(Origin *o, const Manifest *m, const Version *v,
                        GError **error)
{
    g_autoptr(JsonObject) chain = o->store ?
        store_chain(o->store, m, v, 0) : NULL;
    g_autofree char *export = g_strdup_printf("%s@%" PRIu64, m->vdisk,
                                              v->number);

    return checked(chain ? content_open(chain, error)
                         : content_connect(&o->server, export, error),
                   v->size, error);
}

Content *origin_tree(Origin *o, const Manifest *m, const Version *v,
                     GError **error)
{
    g_autofree char *path = o->store ? store_path(o->store, m->vdisk, v->tree)
                                     : NULL;
    g_autoptr(JsonObject) node = path ?
        content_format_node("raw", content_file_node(path, false), NULL) : NULL;
    g_autofree char *export = g_strdup_printf("%s@%" PRIu64 ".tree", m->vdisk,
                                              v->number);

    return checked(node ? content_open(node, error)
                        : content_connect(&o->server, export, error),
                   VERITY_BLOCK, error);
}

GBytes *origin_trace(Origin *o, const Manifest *m, const Version *v,
                     GError **error)
{
    g_autofree char *export = g_strdup_printf("%s@%" PRIu64 ".trace", m->vdisk,
                                              v->number);
    g_autoptr(Content) c = NULL;

    if (o->store) {
        g_autofree char *path = store_path(o->store, m->vdisk, v->trace);

        return trace_file_read(path, v->size, v->root, error);
    }
    c = content_connect(&o->server, export, error);
    return c ? trace_file_fetch(c, v->size, v->root, error) : NULL;
}
