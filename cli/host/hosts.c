/*
 * The hosts that desktops run on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hosts.h"

#include "cli/units.h"

#include <string.h>

static const char *const keys[] = {
    "uri", "store", "drained", "write-cache", "ram", "relay-bandwidth", NULL
};

void host_free(Host *host)
{
    g_free(host->name);
    g_free(host->uri);
    g_free(host->store);
    g_free(host);
}

void host_options_clear(HostOptions *o)
{
    g_clear_pointer(&o->file, g_free);
    g_clear_pointer(&o->connect, g_free);
}

static bool wrong(GError **error, const char *group, const char *key,
                  const char *what)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "[%s] %s: %s",
                group, key, what);
    return false;
}

static bool get_bytes(GKeyFile *file, const char *group, const char *key,
                      uint64_t *bytes, GError **error)
{
    g_autofree char *text = g_key_file_get_string(file, group, key, NULL);

    return !text || units_parse_size(g_strstrip(text), bytes, NULL) ||
           wrong(error, group, key, "not a size like 200G");
}

static bool check_keys(GKeyFile *file, const char *group, GError **error)
{
    g_auto(GStrv) found = g_key_file_get_keys(file, group, NULL, NULL);

    for (char **k = found; k && *k; k++) {
        if (!g_strv_contains(keys, *k)) {
            return wrong(error, group, *k, "there is no such key");
        }
    }
    return true;
}

static bool get_drained(GKeyFile *file, Host *host, GError **error)
{
    g_autoptr(GError) bad = NULL;

    host->drained = g_key_file_get_boolean(file, host->name, "drained", &bad);
    return !bad ||
           g_error_matches(bad, G_KEY_FILE_ERROR,
                           G_KEY_FILE_ERROR_KEY_NOT_FOUND) ||
           wrong(error, host->name, "drained", "neither true nor false");
}

static Host *parse_host(GKeyFile *file, const char *group, GError **error)
{
    g_autoptr(Host) host = g_new0(Host, 1);

    host->name = g_strdup(group);
    host->uri = g_key_file_get_string(file, group, "uri", NULL);
    host->store = g_key_file_get_string(file, group, "store", NULL);
    if (!check_keys(file, group, error) || !get_drained(file, host, error) ||
        !get_bytes(file, group, "write-cache", &host->write_cache, error) ||
        !get_bytes(file, group, "ram", &host->ram, error) ||
        !get_bytes(file, group, "relay-bandwidth", &host->relay_bandwidth,
                   error)) {
        return NULL;
    }
    if (!host->uri || !strchr(host->uri, ':')) {
        wrong(error, group, "uri", host->uri ? "not a URI" : "is missing");
        return NULL;
    }
    if (host->store && !g_path_is_absolute(host->store)) {
        wrong(error, group, "store", "not an absolute path");
        return NULL;
    }
    return g_steal_pointer(&host);
}

static GPtrArray *parse_groups(GKeyFile *file, GError **error)
{
    g_autoptr(GPtrArray) hosts = g_ptr_array_new_with_free_func(
        (GDestroyNotify)host_free);
    g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

    for (char **g = groups; *g; g++) {
        Host *host = parse_host(file, *g, error);

        if (!host) {
            return NULL;
        }
        g_ptr_array_add(hosts, host);
    }
    if (!hosts->len || hosts->len > HOSTS_MAX) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    hosts->len ? "it lists more than %d hosts"
                               : "it lists no host (1 to %d)", HOSTS_MAX);
        return NULL;
    }
    return g_steal_pointer(&hosts);
}

GPtrArray *hosts_parse(const char *text, gsize length, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();

    if (!g_key_file_load_from_data(file, text, length, G_KEY_FILE_NONE,
                                   error)) {
        return NULL;
    }
    return parse_groups(file, error);
}

const Host *hosts_find(GPtrArray *hosts, const char *name, GError **error)
{
    for (guint i = 0; i < hosts->len; i++) {
        const Host *host = g_ptr_array_index(hosts, i);

        if (!strcmp(host->name, name)) {
            return host;
        }
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                "there is no host '%s' in the list", name);
    return NULL;
}

bool host_is_local(const Host *host)
{
    g_autoptr(GUri) uri = g_uri_parse(host->uri, G_URI_FLAGS_NONE, NULL);
    const char *name = uri ? g_uri_get_host(uri) : NULL;

    return uri && (!name || !*name);
}
