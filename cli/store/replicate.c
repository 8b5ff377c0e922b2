/*
 * Bring versions of a vDisk from another store into this one
 *
 * Reading from afar takes long, so it is done without the store's lock, into
 * the staging folder. The lock is held while a version's image is made from
 * that, checked, and named in the manifest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "replicate.h"
#include "cli/store/replicate-int.h"
#include "cli/store/staging.h"

#include <string.h>

static Version *nth(const Manifest *m, unsigned i)
{
    return g_ptr_array_index(m->versions, i);
}

bool replicate_same_vdisk(const Manifest *here, const Manifest *there,
                          GError **error)
{
    if (g_str_equal(here->uuid, there->uuid) &&
        g_str_equal(here->salt, there->salt)) {
        return true;
    }
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                "'%s' here is another vDisk of the same name: give one of "
                "them another name", here->vdisk);
    return false;
}

/* A version that both have is the same */
static bool check_versions(const Manifest *here, const Manifest *there,
                           GError **error)
{
    for (unsigned i = 0; i < there->versions->len; i++) {
        const Version *v = nth(there, i);
        const Version *own = manifest_version(here, v->number);

        if (own && version_sealed(v) &&
            (!version_sealed(own) || own->size != v->size ||
             memcmp(own->root, v->root, sizeof(v->root)) != 0)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS,
                        "version %" PRIu64 " of '%s' is another one here than "
                        "there: versions of a vDisk may be made in one store "
                        "only", v->number, here->vdisk);
            return false;
        }
    }
    return true;
}

/* The manifest here, or an empty one, not in the store yet */
static Manifest *own_manifest(const Store *s, const Manifest *there,
                              GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(Manifest) m = store_manifest(s, there->vdisk, &local);

    if (!m && !g_error_matches(local, G_IO_ERROR, G_IO_ERROR_NOT_FOUND)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return NULL;
    }
    if (!m) {
        m = manifest_new(there->vdisk);
        g_free(m->uuid);
        g_free(m->salt);
        m->uuid = g_strdup(there->uuid);
        m->salt = g_strdup(there->salt);
    }
    return replicate_same_vdisk(m, there, error) &&
           check_versions(m, there, error) ? g_steal_pointer(&m) : NULL;
}

Manifest *replicate_own_manifest(const Store *s, const Manifest *there,
                                 GError **error)
{
    return own_manifest(s, there, error);
}

static bool can_be_base(const Version *v)
{
    return version_sealed(v) && !v->failed;
}

/* The highest below @number; its tree has most in common, as a rule */
static const Version *version_below(const Manifest *m, uint64_t number)
{
    const Version *found = NULL;

    for (unsigned i = 0; i < m->versions->len; i++) {
        if (can_be_base(nth(m, i)) && nth(m, i)->number < number) {
            found = nth(m, i);
        }
    }
    return found;
}

static uint64_t total(GArray *ranges)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < ranges->len; i++) {
        bytes += g_array_index(ranges, ContentRange, i).bytes;
    }
    return bytes;
}

/* The version here that differs least: what the image will be an overlay on */
static bool choose_base(Staging *st, const Store *s, const Manifest *m,
                        const Version *v, GError **error)
{
    unsigned looked_at = 0;

    for (unsigned i = m->versions->len; i-- > 0 &&
         looked_at < REPLICATE_MAX_BASES; ) {
        const Version *base = nth(m, i);
        g_autoptr(TreeFile) tree = can_be_base(base) &&
            base->number < v->number ? tree_file_of(s, m, base, NULL) : NULL;
        g_autoptr(GArray) ranges = tree ? tree_file_diff(tree, st->tree, NULL)
                                        : NULL;

        if (ranges && (!st->ranges || total(ranges) < total(st->ranges))) {
            g_clear_pointer(&st->ranges, g_array_unref);
            st->ranges = g_steal_pointer(&ranges);
            st->base = base->number;
        }
        looked_at += tree != NULL;
    }
    if (!st->ranges) {
        st->ranges = tree_file_diff(NULL, st->tree, error);
        st->base = 0;
    }
    return st->ranges != NULL;
}

static bool stage(Staging *st, const Store *s, const Manifest *m, Origin *o,
                  const Manifest *there, const Version *v, bool quiet,
                  GError **error)
{
    g_autofree char *what = g_strdup_printf("bringing %s version %" PRIu64,
                                            m->vdisk, v->number);
    const Version *below = version_below(m, v->number);
    /* One that is damaged is of no use, and no reason to stop */
    g_autoptr(TreeFile) base = below ? tree_file_of(s, m, below, NULL) : NULL;

    return staging_fetch_tree(st, o, there, v, base, NULL, error) &&
           choose_base(st, s, m, v, error) &&
           staging_fetch_data(st, o, there, v, what, quiet, error);
}

/* Bring @v, which is not here, or by now is */
static bool bring(const char *folder, Origin *o, const Manifest *there,
                  const Version *v, bool as_test, bool quiet,
                  Replication *result, GError **error)
{
    g_autoptr(Store) s = store_open(folder, STORE_READ, error);
    g_autoptr(Manifest) m = s ? own_manifest(s, there, error) : NULL;
    g_autoptr(Staging) st = m ? staging_open(s, m, v, error) : NULL;
    bool ok;

    if (!st) {
        return false;
    }
    ok = stage(st, s, m, o, there, v, quiet, error);
    result->moved += st->moved;
    result->kept += st->kept;
    ok = ok && replicate_finish(folder, st, there, v, as_test, quiet, error);
    if (ok) {
        result->versions++;
        result->newest = MAX(result->newest, v->number);
        result->bytes += v->size;
    }
    return ok;
}

static bool is_wanted(const Manifest *here, const Version *v)
{
    return version_sealed(v) && v->access != ACCESS_RETIRED && !v->failed &&
           !manifest_version(here, v->number);
}

/* Access of those that both have */
static bool follow(const char *folder, const Manifest *there,
                   Replication *result, GError **error)
{
    g_autoptr(Store) s = store_open(folder, STORE_CHANGE, error);
    g_autoptr(Manifest) m = s ? own_manifest(s, there, error) : NULL;
    unsigned changes = 0;

    if (!m) {
        return false;
    }
    for (unsigned i = 0; i < m->versions->len; i++) {
        Version *own = nth(m, i);
        const Version *v = manifest_version(there, own->number);

        if (v && version_sealed(v) && version_sealed(own) && !own->failed &&
            (own->access != v->access || own->released != v->released)) {
            own->access = v->access;
            own->released = v->released;
            changes++;
        }
    }
    if (changes && !store_set_manifest(s, m, error)) {
        return false;
    }
    result->changes += changes;
    return true;
}

static bool needs_follow(const Manifest *here, const Manifest *there)
{
    for (unsigned i = 0; i < there->versions->len; i++) {
        const Version *v = nth(there, i);
        const Version *own = manifest_version(here, v->number);

        if (own && version_sealed(own) && !own->failed && version_sealed(v) &&
            (own->access != v->access || own->released != v->released)) {
            return true;
        }
    }
    return false;
}

static Manifest *look(const char *folder, const Manifest *there,
                      GError **error)
{
    g_autoptr(Store) s = store_open(folder, STORE_READ, error);

    return s ? own_manifest(s, there, error) : NULL;
}

bool store_replicate(const char *folder, Origin *o, const char *vdisk,
                     bool as_test, bool quiet, Replication *result,
                     GError **error)
{
    g_autoptr(Manifest) there = origin_manifest(o, vdisk, error);
    g_autoptr(Manifest) here = there ? look(folder, there, error) : NULL;

    if (!here) {
        return false;
    }
    for (unsigned i = 0; i < there->versions->len; i++) {
        const Version *v = nth(there, i);

        if (!is_wanted(here, v)) {
            continue;
        }
        if (v->number < here->next) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "version %" PRIu64 " of '%s' was here once, or a later "
                        "one was made here: it cannot be brought again",
                        v->number, vdisk);
            return false;
        }
        if (!bring(folder, o, there, v, as_test, quiet, result, error)) {
            return false;
        }
    }
    replicate_traces(folder, o, there, result);
    return as_test || !needs_follow(here, there) ||
           follow(folder, there, result, error);
}
