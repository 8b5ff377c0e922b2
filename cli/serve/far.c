/*
 * A far store
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "far.h"
#include "listen.h"

#include <string.h>

#define SOCKET_QUERY    "socket="

static bool wrong(GError **error, const char *uri, const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "%s: %s", uri,
                why);
    return false;
}

char *far_escape(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "%", -1);

    return g_strjoinv("%%", parts);
}

static bool set_unix(Far *f, GUri *uri, GError **error)
{
    const char *query = g_uri_get_query(uri);
    g_autofree char *escaped = NULL;

    if (!query || !g_str_has_prefix(query, SOCKET_QUERY) ||
        query[strlen(SOCKET_QUERY)] != '/') {
        return wrong(error, f->uri, "it has to be nbd+unix:///?socket=/PATH");
    }
    f->server.socket = g_strdup(query + strlen(SOCKET_QUERY));
    escaped = far_escape(f->server.socket);
    json_object_set_string_member(f->address, "type", "unix");
    json_object_set_string_member(f->address, "path", escaped);
    return true;
}

static bool set_inet(Far *f, GUri *uri, GError **error)
{
    const char *host = g_uri_get_host(uri);
    const char *path = g_uri_get_path(uri);
    int port = g_uri_get_port(uri);

    if (!host || !*host || strchr(host, '%')) {
        return wrong(error, f->uri, "it names no host");
    }
    if (*path && strcmp(path, "/")) {
        return wrong(error, f->uri, "an export is not to be named");
    }
    f->server.host = g_strdup(host);
    f->server.port = g_strdup_printf("%d", port > 0 ? port : LISTEN_PORT);
    json_object_set_string_member(f->address, "type", "inet");
    json_object_set_string_member(f->address, "host", f->server.host);
    json_object_set_string_member(f->address, "port", f->server.port);
    return true;
}

static void set_tls(Far *f, const TlsClient *tls)
{
    f->server.tls = true;
    f->server.certificates = g_strdup(tls->x509);
    f->server.psk_file = tls->psk
        ? g_build_filename(tls->psk, "keys.psk", NULL) : NULL;
    f->server.user = g_strdup(tls->user);
}

static bool set(Far *f, const TlsClient *tls, GError **error)
{
    g_autoptr(GUri) uri = g_uri_parse(f->uri, G_URI_FLAGS_NONE, NULL);
    const char *scheme = uri ? g_uri_get_scheme(uri) : "";

    if (!strcmp(scheme, "nbd+unix")) {
        return set_unix(f, uri, error);
    }
    if (!strcmp(scheme, "nbds")) {
        if (!tls_client_valid(tls, true, error)) {
            return false;
        }
        set_tls(f, tls);
        return set_inet(f, uri, error);
    }
    if (!strcmp(scheme, "nbd")) {
        return set_inet(f, uri, error);
    }
    return wrong(error, f->uri, "a store is nbds://HOST:PORT, nbd://HOST:PORT "
                 "or nbd+unix:///?socket=PATH");
}

Far *far_new(const char *uri, const TlsClient *tls, GError **error)
{
    g_autoptr(Far) f = g_new0(Far, 1);

    f->uri = g_strdup(uri);
    f->address = json_object_new();
    return set(f, tls, error) ? g_steal_pointer(&f) : NULL;
}

void far_free(Far *f)
{
    if (f) {
        json_object_unref(f->address);
        g_free(f->server.socket);
        g_free(f->server.host);
        g_free(f->server.port);
        g_free(f->server.certificates);
        g_free(f->server.psk_file);
        g_free(f->server.user);
        g_free(f->uri);
        g_free(f);
    }
}

JsonObject *far_node(const Far *f, const char *export)
{
    JsonObject *o = json_object_new();

    json_object_set_string_member(o, "driver", "nbd");
    json_object_set_object_member(o, "server", json_object_ref(f->address));
    json_object_set_string_member(o, "export", export);
    if (f->server.tls) {
        json_object_set_string_member(o, "tls-creds", TLS_CREDENTIALS);
    }
    return o;
}

Manifest *far_manifest(const Far *f, const char *vdisk, GError **error)
{
    g_autofree char *export = g_strdup_printf("%s@manifest", vdisk);
    g_autoptr(Content) c = content_connect(&f->server, export, error);
    g_autofree char *text = NULL;
    g_autoptr(Manifest) m = NULL;
    uint64_t size;

    if (!c) {
        return NULL;
    }
    size = content_size(c);
    /* Line feeds fill it up to a sector, at the most */
    if (size > MANIFEST_MAX_BYTES + 512) {
        wrong(error, export, "it is too large for a manifest");
        return NULL;
    }
    text = g_malloc(size + 1);
    if (!content_pread(c, 0, size, text, error)) {
        return NULL;
    }
    while (size && text[size - 1] == '\n') {
        size--;
    }
    text[size] = 0;
    m = manifest_decode(text, size, error);
    if (m && strcmp(m->vdisk, vdisk)) {
        wrong(error, export, "it is the manifest of another vDisk");
        return NULL;
    }
    return g_steal_pointer(&m);
}
