/*
 * A manifest as an NBD export
 *
 * Exports have whole sectors, and a reader has to get the manifest that its
 * size was told of: so it is a copy that nobody changes, filled up with line
 * feeds. The name tells the revision, so a changed one is another node.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "store-view.h"

#include <glib/gstdio.h>
#include <inttypes.h>

#define SECTOR  512

static bool write_copy(const char *path, const char *text, GError **error)
{
    g_autoptr(GString) padded = g_string_new(text);

    while (padded->len % SECTOR) {
        g_string_append_c(padded, '\n');
    }
    return g_file_set_contents_full(path, padded->str, padded->len,
                                    G_FILE_SET_CONTENTS_CONSISTENT, 0600,
                                    error);
}

char *manifest_export(Wanted *w, const char *private, const Manifest *m,
                      GError **error)
{
    g_autofree char *text = manifest_encode(m);
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256,
                                                         text, -1);
    g_autofree char *file = g_strdup_printf("%s.manifest", sum);
    g_autofree char *path = g_build_filename(private, file, NULL);
    g_autofree char *name = g_strdup_printf("%s@manifest", m->vdisk);
    JsonObject *o;

    if (!g_file_test(path, G_FILE_TEST_EXISTS) &&
        !write_copy(path, text, error)) {
        return NULL;
    }
    o = json_object_new();
    json_object_set_string_member(o, "driver", "file");
    json_object_set_string_member(o, "filename", path);
    json_object_set_boolean_member(o, "read-only", TRUE);
    wanted_node(w, path, o, NULL);
    wanted_export(w, name, path, EXPORT_BRIEF);
    return g_steal_pointer(&path);
}
