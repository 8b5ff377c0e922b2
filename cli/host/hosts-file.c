/*
 * The file that lists hosts: read, and changed in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "hosts.h"

static const char *file_name(const HostOptions *options)
{
    const char *file = options->file ?: g_getenv("DESKCAST_HOSTS");

    return file ?: HOSTS_FILE;
}

static char *read_file(const char *name, gsize *length, GError **error)
{
    char *text;

    if (!g_file_get_contents(name, &text, length, error)) {
        g_prefix_error(error, "no list of hosts (give --hosts FILE or "
                       "--connect URI): ");
        return NULL;
    }
    if (*length > HOSTS_MAX_BYTES) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s: too large for a list of hosts", name);
        g_free(text);
        return NULL;
    }
    return text;
}

static GPtrArray *one_host(const char *uri)
{
    GPtrArray *hosts = g_ptr_array_new_with_free_func(
        (GDestroyNotify)host_free);
    Host *host = g_new0(Host, 1);

    host->name = g_strdup(uri);
    host->uri = g_strdup(uri);
    g_ptr_array_add(hosts, host);
    return hosts;
}

GPtrArray *hosts_load(const HostOptions *options, GError **error)
{
    g_autofree char *text = NULL;
    GPtrArray *hosts;
    gsize length;

    if (options->connect) {
        return one_host(options->connect);
    }
    text = read_file(file_name(options), &length, error);
    hosts = text ? hosts_parse(text, length, error) : NULL;
    if (text && !hosts) {
        g_prefix_error(error, "%s: ", file_name(options));
    }
    return hosts;
}

bool hosts_set_drained(const HostOptions *options, const char *name,
                       bool drained, GError **error)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autoptr(GPtrArray) hosts = NULL;
    g_autofree char *text = NULL, *changed = NULL;
    gsize length;

    if (options->connect) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "draining is noted in the list of hosts; give --hosts "
                    "and not --connect");
        return false;
    }
    hosts = hosts_load(options, error);
    if (!hosts || !hosts_find(hosts, name, error)) {
        return false;
    }
    text = read_file(file_name(options), &length, error);
    if (!text || !g_key_file_load_from_data(file, text, length,
                                            G_KEY_FILE_KEEP_COMMENTS, error)) {
        return false;
    }
    g_key_file_set_boolean(file, name, "drained", drained);
    changed = g_key_file_to_data(file, &length, NULL);
    return g_file_set_contents_full(file_name(options), changed, length,
                                    G_FILE_SET_CONTENTS_CONSISTENT |
                                    G_FILE_SET_CONTENTS_DURABLE, 0644, error);
}
