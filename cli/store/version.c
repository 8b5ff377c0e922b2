/*
 * What becomes of a version: made, promoted, reverted, retired, deleted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/version-int.h"
#include "cli/store/durable.h"
#include "cli/units.h"

#include <fcntl.h>
#include <unistd.h>

int64_t store_now(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

bool version_refuse(GError **error, const Manifest *m, uint64_t number,
                    const char *format, ...)
{
    g_autofree char *why = NULL;
    va_list ap;

    va_start(ap, format);
    why = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                "version %" PRIu64 " of '%s' %s", number, m->vdisk, why);
    return false;
}

static Version *nth(const Manifest *m, guint i)
{
    return g_ptr_array_index(m->versions, i);
}

Version *version_find(const Manifest *m, uint64_t number, GError **error)
{
    Version *v = manifest_version(m, number);

    if (!v) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "'%s' has no version %" PRIu64 "; 'deskcast vdisk show "
                    "%s' has those that there are", m->vdisk, number, m->vdisk);
    }
    return v;
}

/* Begin */

/* The parent, NULL if it is to be none. False with @error. */
static bool choose_parent(const Manifest *m, uint64_t from, Version **parent,
                          GError **error)
{
    *parent = NULL;
    if (!from) {
        *parent = manifest_newest(m);
        if (!*parent && m->versions->len) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "all versions of '%s' are retired; --from names the "
                        "one to begin with", m->vdisk);
            return false;
        }
        return true;
    }
    *parent = version_find(m, from, error);
    if (*parent && !version_sealed(*parent)) {
        return version_refuse(error, m, from, "is not sealed yet");
    }
    return *parent;
}

static bool choose_size(const Manifest *m, const Version *parent,
                        uint64_t *size, GError **error)
{
    if (!*size && parent) {
        *size = parent->size;
    }
    if (!*size) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "'%s' would be new, and empty: --size says how large",
                    m->vdisk);
    } else if (*size % VDISK_GRANULE || *size > MANIFEST_MAX_SIZE) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "a vDisk's size is a multiple of 4096 bytes up to 1 PiB, "
                    "which %" PRIu64 " is not", *size);
    } else if (parent && *size < parent->size) {
        return version_refuse(error, m, parent->number, "has %" PRIu64
                              " bytes, and a vDisk cannot shrink",
                              parent->size);
    } else {
        return true;
    }
    return false;
}

Version *store_version_begin(Store *s, Manifest *m, const VersionPlan *plan,
                             GError **error)
{
    g_autoptr(Version) v = version_new(0);
    Version *parent, *writing = manifest_maintenance(m);

    if (writing) {
        version_refuse(error, m, writing->number, "is in maintenance, and "
                       "there can be one at a time; seal it, or delete it with "
                       "'deskcast version rm'");
        return NULL;
    }
    v->size = plan->size;
    if (!choose_parent(m, plan->from, &parent, error) ||
        !choose_size(m, parent, &v->size, error)) {
        return NULL;
    }
    v->access = ACCESS_MAINTENANCE;
    v->parent = parent ? parent->number : 0;
    v->label = plan->label;
    v->created = store_now();
    v->comment = g_strdup(plan->comment);
    if (!store_draft(s, m, v, error)) {
        return NULL;
    }
    if (!store_publish(s, m, v, error)) {
        store_discard(s, m, v);
        return NULL;
    }
    return g_steal_pointer(&v);
}

/* Promote */

static Version *newest_in(const Manifest *m, VersionAccess access)
{
    for (guint i = m->versions->len; i-- > 0;) {
        if (nth(m, i)->access == access) {
            return nth(m, i);
        }
    }
    return NULL;
}

static bool can_promote(const Manifest *m, const Version *v, GError **error)
{
    static const char *const why[] = {
        [ACCESS_MAINTENANCE] = "is still written to: 'deskcast version seal' "
                               "comes first",
        [ACCESS_PRODUCTION] = "is in production already",
        [ACCESS_RETIRED] = "is retired",
    };

    if (v->access != ACCESS_TEST) {
        return version_refuse(error, m, v->number, "%s", why[v->access]);
    }
    if (v->failed) {
        g_autofree char *when = units_format_local(v->failed);

        return version_refuse(error, m, v->number, "is damaged: at %s its "
                              "content was not what was sealed; retire it, or "
                              "have 'deskcast vdisk verify' find it sound",
                              when);
    }
    return true;
}

/* Is what it is made of there, and is its tree its own? Content is not read. */
static bool check_tree(const Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);
    g_autofree char *root = version_root_text(v);
    g_autofree char *why = NULL;
    uint8_t super[VERITY_SUPER_BYTES], top[VERITY_BLOCK];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    off_t bytes = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    Verity *tree = NULL;
    bool ok = false;

    if (fd < 0) {
        return durable_errno(error, "open", path);
    }
    if (pread(fd, super, sizeof(super), 0) != sizeof(super)) {
        why = g_strdup("it is too short");
    } else {
        tree = verity_new(super, root, v->size, bytes, &why);
    }
    if (tree) {
        const VerityGeometry *g = verity_geometry(tree);
        uint64_t at = g->levels ? g->level_first[g->levels - 1] : 0;

        ok = !g->levels ||
             (pread(fd, top, sizeof(top), at * VERITY_BLOCK) == sizeof(top) &&
              verity_check_tree(tree, at, top, NULL, &why));
        verity_free(tree);
    }
    close(fd);
    if (!ok) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the tree %s: %s; 'deskcast vdisk verify' tells more", path,
                    why ? why : "it is too short");
    }
    return ok;
}

static bool check_parts(const Store *s, const Manifest *m, const Version *v,
                        GError **error)
{
    if (!check_tree(s, m, v, error)) {
        return false;
    }
    for (; v; v = v->parent ? manifest_version(m, v->parent) : NULL) {
        uint64_t bytes;

        if (!store_image_size(s, m, v, &bytes, error)) {
            return false;
        }
        if (bytes != v->size) {
            return version_refuse(error, m, v->number, "has an image of %"
                                  PRIu64 " bytes, and was sealed with %" PRIu64,
                                  bytes, v->size);
        }
    }
    return true;
}

/* Write the manifest after a change of @v; it is as @before if that fails */
static bool change(Store *s, Manifest *m, Version *v, const Version *before,
                   GError **error)
{
    if (store_set_manifest(s, m, error)) {
        return true;
    }
    v->access = before->access;
    v->released = before->released;
    v->failed = before->failed;
    return false;
}

Version *store_version_promote(Store *s, Manifest *m, uint64_t number,
                               int64_t release, GError **error)
{
    Version *v = number ? version_find(m, number, error)
                        : newest_in(m, ACCESS_TEST);
    Version before;

    if (!v && !number) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "'%s' has no version in test to promote", m->vdisk);
    }
    if (!v || !can_promote(m, v, error) || !check_parts(s, m, v, error)) {
        return NULL;
    }
    before = *v;
    v->access = ACCESS_PRODUCTION;
    v->released = release;
    return change(s, m, v, &before, error) ? v : NULL;
}

/* Revert and retire */

Version *store_version_revert(Store *s, Manifest *m, bool force,
                              GError **error)
{
    Version *v = newest_in(m, ACCESS_PRODUCTION);
    Version before;

    if (!v) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND,
                    "'%s' has no version in production", m->vdisk);
        return NULL;
    }
    before = *v;
    v->access = ACCESS_TEST;
    v->released = 0;
    if (!manifest_current(m, store_now()) && before.released <= store_now() &&
        !force) {
        v->access = before.access;
        v->released = before.released;
        version_refuse(error, m, v->number, "is the only one in production: "
                       "without it desktops have none to take; --force does it "
                       "all the same");
        return NULL;
    }
    return change(s, m, v, &before, error) ? v : NULL;
}

Version *store_version_retire(Store *s, Manifest *m, uint64_t number,
                              GError **error)
{
    Version *v = version_find(m, number, error);
    Version before;

    if (!v) {
        return NULL;
    }
    if (!version_sealed(v) || v->access == ACCESS_RETIRED) {
        version_refuse(error, m, number, version_sealed(v)
                       ? "is retired already" : "is in maintenance: 'deskcast "
                       "version rm' deletes it");
        return NULL;
    }
    if (v == manifest_current(m, store_now())) {
        version_refuse(error, m, number, "is what desktops take: promote "
                       "another one, or revert, first");
        return NULL;
    }
    before = *v;
    v->access = ACCESS_RETIRED;
    return change(s, m, v, &before, error) ? v : NULL;
}

bool store_version_set_failed(Store *s, Manifest *m, uint64_t number,
                              bool failed, GError **error)
{
    Version *v = version_find(m, number, error);
    Version before;

    if (!v || !version_sealed(v)) {
        return v && version_refuse(error, m, number, "is not sealed");
    }
    if (failed == !!v->failed) {
        return true;
    }
    before = *v;
    v->failed = failed ? store_now() : 0;
    return change(s, m, v, &before, error);
}

/* Delete */

/* Deleted, it would be there for who has it open, and not at their next start */
bool version_unread(const Store *s, const Manifest *m, const Version *v,
                    GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->image);

    return !image_lock_is_read(path) ||
           version_refuse(error, m, v->number, "is in use: a desktop or a "
                          "server has %s open; desktops take another version "
                          "when they are reset", path);
}

static bool can_remove(Store *s, const Manifest *m, const Version *v,
                       GError **error)
{
    if (version_sealed(v) && v->access != ACCESS_RETIRED) {
        return version_refuse(error, m, v->number, "is in %s; 'deskcast "
                              "version retire' comes first",
                              version_access_text(v->access));
    }
    for (guint i = 0; i < m->versions->len; i++) {
        if (nth(m, i)->parent == v->number) {
            return version_refuse(error, m, v->number, "is the parent of "
                                  "version %" PRIu64 "; 'deskcast version "
                                  "merge %s %" PRIu64 "' makes that "
                                  "independent", nth(m, i)->number, m->vdisk,
                                  nth(m, i)->number);
        }
    }
    return version_sealed(v) ? version_unread(s, m, v, error)
                             : version_no_writer(s, m, v, error);
}

bool store_version_remove(Store *s, Manifest *m, uint64_t number,
                          GError **error)
{
    Version *v = version_find(m, number, error);
    g_autoptr(GError) local = NULL;
    guint at;

    if (!v || !can_remove(s, m, v, error)) {
        return false;
    }
    if (m->versions->len == 1) {
        return store_remove_vdisk(s, m->vdisk, error);
    }
    g_ptr_array_find(m->versions, v, &at);
    v = g_ptr_array_steal_index(m->versions, at);
    manifest_set_unused(m, v->image, true);
    manifest_set_unused(m, v->tree, true);
    manifest_set_unused(m, v->trace, true);
    if (!store_set_manifest(s, m, error)) {
        manifest_set_unused(m, v->image, false);
        manifest_set_unused(m, v->tree, false);
        manifest_set_unused(m, v->trace, false);
        manifest_add(m, v);
        return false;
    }
    version_free(v);
    /* What cannot be deleted yet goes when the store is changed next */
    if (!store_remove_unused(s, m, &local)) {
        store_note_left(local);
    }
    return true;
}
