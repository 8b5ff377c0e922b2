/*
 * Fuzz a manifest: what is read is valid, and the same when it is written and
 * read again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/manifest.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Manifest) m = manifest_decode((const char *)data, size, &error);
    g_autoptr(Manifest) again = NULL;
    g_autofree char *text = NULL, *same = NULL;

    if (!m) {
        assert(error && *error->message);
        return 0;
    }
    assert(!error && manifest_valid(m, NULL));
    for (guint i = 0; i < m->versions->len; i++) {
        const Version *v = g_ptr_array_index(m->versions, i);

        assert(!strchr(v->image, '/') && *v->image != '.');
        assert(!v->tree || (!strchr(v->tree, '/') && *v->tree != '.'));
        assert(!v->trace || (!strchr(v->trace, '/') && *v->trace != '.'));
        assert(v->parent < v->number && v->number < m->next);
        assert(v->size % 4096 == 0 && v->size <= MANIFEST_MAX_SIZE);
    }
    text = manifest_encode(m);
    again = manifest_decode(text, strlen(text), NULL);
    assert(again);
    same = manifest_encode(again);
    assert(!strcmp(text, same));
    return 0;
}
