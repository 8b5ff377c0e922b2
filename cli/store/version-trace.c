/*
 * Giving a version a boot trace
 *
 * A trace that takes the place of another one is another file: a server closes
 * the old one when nobody reads it any more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/version-int.h"
#include "cli/store/durable.h"
#include "cli/store/trace-file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A stranger with the name of ours is nobody's to write over */
static bool check_free(const Store *s, const Manifest *m, const char *name,
                       GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, name);

    if (access(path, F_OK) == 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_EXISTS, "%s is there, and "
                    "belongs to no version; move it away", path);
        return false;
    }
    return true;
}

static bool write_in(int folder, const char *name, GBytes *trace,
                     GError **error)
{
    gsize bytes;
    const void *data = g_bytes_get_data(trace, &bytes);
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC |
                    O_NOFOLLOW, 0644);
    bool ok;

    if (fd < 0) {
        return durable_errno(error, "make", name);
    }
    ok = durable_pwrite(fd, data, bytes, 0) && fchmod(fd, 0444) == 0 &&
         fsync(fd) == 0;
    if (!ok) {
        durable_errno(error, "write", name);
    }
    close(fd);
    return ok && durable_sync_folder(folder, name, error);
}

static bool write_file(const Store *s, const Manifest *m, const char *name,
                       GBytes *trace, GError **error)
{
    int folder = store_vdisk_folder(s, m->vdisk, error);
    bool ok = folder >= 0 && write_in(folder, name, trace, error);

    if (folder >= 0) {
        close(folder);
    }
    return ok;
}

/* Which of the two the version has; the other one is unused */
static void choose(Manifest *m, Version *v, char **other)
{
    char *now = *other;

    *other = v->trace;
    v->trace = now;
    manifest_set_unused(m, v->trace, false);
    manifest_set_unused(m, *other, true);
}

static bool put_in_place(Store *s, Manifest *m, Version *v, char **name,
                         GError **error)
{
    g_autoptr(GError) left = NULL;

    choose(m, v, name);
    if (!store_set_manifest(s, m, error)) {
        choose(m, v, name);
        return false;
    }
    /* The old one */
    if (*name && !store_remove_unused(s, m, &left)) {
        store_note_left(left);
    }
    return true;
}

Version *store_version_set_trace(Store *s, Manifest *m, uint64_t number,
                                 GBytes *trace, GError **error)
{
    Version *v = version_find(m, number, error);
    g_autofree char *name = trace_file_name(number, trace);

    if (!v || !g_strcmp0(v->trace, name)) {
        return v;
    }
    if (!check_free(s, m, name, error)) {
        return NULL;
    }
    manifest_set_unused(m, name, true);
    if (!store_set_manifest(s, m, error)) {
        manifest_set_unused(m, name, false);
        return NULL;
    }
    if (write_file(s, m, name, trace, error) &&
        put_in_place(s, m, v, &name, error)) {
        return v;
    }
    /* Named as unused before it is deleted, whatever is there by now */
    if (store_set_manifest(s, m, NULL)) {
        store_remove_unused(s, m, NULL);
    }
    return NULL;
}
