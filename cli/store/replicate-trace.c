/*
 * Boot traces follow their versions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "replicate-int.h"
#include "cli/store/version.h"

static bool is_wanted(const Manifest *here, const Version *v)
{
    const Version *own = manifest_version(here, v->number);

    return v->trace && v->access != ACCESS_RETIRED && own &&
           version_sealed(own) && g_strcmp0(own->trace, v->trace) != 0;
}

static bool bring_trace(const char *folder, Origin *o, const Manifest *there,
                        const Version *v, GError **error)
{
    g_autoptr(GBytes) trace = origin_trace(o, there, v, error);
    g_autoptr(Store) s = trace ? store_open(folder, STORE_CHANGE, error) : NULL;
    g_autoptr(Manifest) m = s ? replicate_own_manifest(s, there, error) : NULL;

    return m && store_version_set_trace(s, m, v->number, trace, error);
}

void replicate_traces(const char *folder, Origin *o, const Manifest *there,
                      Replication *result)
{
    g_autoptr(Store) s = store_open(folder, STORE_READ, NULL);
    g_autoptr(Manifest) here = s ? replicate_own_manifest(s, there, NULL)
                                 : NULL;

    for (unsigned i = 0; here && i < there->versions->len; i++) {
        const Version *v = g_ptr_array_index(there->versions, i);
        g_autoptr(GError) error = NULL;

        if (!is_wanted(here, v)) {
            continue;
        }
        if (bring_trace(folder, o, there, v, &error)) {
            result->traces++;
        } else {
            g_printerr("deskcast: %s@%" PRIu64 " has no boot trace here: %s; "
                       "the next time it is tried again\n", there->vdisk,
                       v->number, error->message);
        }
    }
}
