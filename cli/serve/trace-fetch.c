/*
 * A version's boot trace, fetched from far stores to a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "trace-fetch.h"

#include "cli/store/trace-file.h"

static GBytes *from_store(const TraceFetch *t, const Far *far,
                          const uint8_t *root, GError **error)
{
    g_autoptr(Content) c = content_connect(&far->server, t->export, error);

    return c ? trace_file_fetch(c, t->size, root, error) : NULL;
}

static GBytes *from_stores(const TraceFetch *t, const uint8_t *root,
                           GError **error)
{
    for (guint i = 0; i < t->stores->len; i++) {
        const Far *far = t->stores->pdata[i];
        g_autoptr(GError) why = NULL;
        GBytes *trace = from_store(t, far, root, &why);

        if (trace) {
            return trace;
        }
        g_clear_error(error);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", far->uri,
                    why->message);
    }
    return NULL;
}

/* By a rename: the storage daemon reads it, and may write its own there */
static bool put(const TraceFetch *t, const uint8_t *root, GBytes *trace,
                GError **error)
{
    g_autoptr(GBytes) there = trace_file_read(t->path, t->size, root, NULL);
    const char *data;
    gsize bytes;

    if (there && g_bytes_equal(there, trace)) {
        return true;
    }
    data = g_bytes_get_data(trace, &bytes);
    return g_file_set_contents_full(t->path, data, bytes,
                                    G_FILE_SET_CONTENTS_CONSISTENT, 0644,
                                    error);
}

bool trace_fetch(const TraceFetch *t, GError **error)
{
    uint8_t root[VERITY_HASH_BYTES];
    g_autoptr(GBytes) trace = NULL;
    g_autofree char *why = NULL;

    if (!verity_root_decode(root, t->root, &why)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", t->export,
                    why);
        return false;
    }
    trace = from_stores(t, root, error);
    return trace && put(t, root, trace, error);
}
