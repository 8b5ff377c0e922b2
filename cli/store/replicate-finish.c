/*
 * What was staged becomes a version, if it reads back as what it should be
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "replicate-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool errno_error(GError **error, const char *what, const char *path)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot %s %s: %s", what, path, g_strerror(saved));
    return false;
}

/* Holes of the staged file are zeros, or were when it was read from afar */
static bool copy_piece(Content *to, const Staging *st, uint64_t offset,
                       uint64_t bytes, uint8_t *buf, GError **error)
{
    off_t data = lseek(st->data_fd, offset, SEEK_DATA);
    ssize_t n;

    if (data < 0 || (uint64_t)data >= offset + bytes) {
        return content_pzero(to, offset, bytes, error);
    }
    n = pread(st->data_fd, buf, bytes, offset);
    if (n != (ssize_t)bytes) {
        return errno_error(error, "read", st->data_path);
    }
    return content_pwrite(to, offset, bytes, buf, error);
}

static bool copy_ranges(Content *to, const Staging *st, GError **error)
{
    uint8_t *buf = content_buffer();
    bool ok = true;

    for (unsigned i = 0; ok && i < st->ranges->len; i++) {
        const ContentRange *r = &g_array_index(st->ranges, ContentRange, i);
        uint64_t now;

        for (uint64_t at = 0; ok && at < r->bytes; at += now) {
            now = MIN(r->bytes - at, CONTENT_RUN);
            ok = copy_piece(to, st, r->offset + at, now, buf, error);
        }
    }
    free(buf);
    return ok;
}

static bool fill_overlay(const Store *s, const Manifest *m, const Version *v,
                         const Staging *st, GError **error)
{
    g_autoptr(JsonObject) chain = store_chain(s, m, v, STORE_CHAIN_WRITABLE);
    g_autoptr(Content) to = content_open_writable(chain, error);

    return to && copy_ranges(to, st, error) && content_finish(to, error);
}

/* Without a base the staged file is the image */
static bool take_file(const Store *s, const Manifest *m, const Version *v,
                      const Staging *st, GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->image);

    if (fsync(st->data_fd) < 0) {
        return errno_error(error, "make durable", st->data_path);
    }
    return rename(st->data_path, path) == 0 ||
           errno_error(error, "make", path);
}

static bool take_tree(const Store *s, const Manifest *m, const Version *v,
                      const Staging *st, GError **error)
{
    g_autofree char *path = store_path(s, m->vdisk, v->tree);

    return rename(st->tree_path, path) == 0 || errno_error(error, "make", path);
}

/* The last word: all of it, from the medium */
static bool prove(const Store *s, const Manifest *m, const Version *v,
                  bool quiet, GError **error)
{
    g_autoptr(JsonObject) chain = store_chain(s, m, v, STORE_CHAIN_DIRECT);
    g_autoptr(Content) c = content_open(chain, error);
    g_autofree char *what = g_strdup_printf("checking %s version %" PRIu64,
                                            m->vdisk, v->number);
    g_autoptr(Progress) progress = progress_new(what, v->size, true, quiet);
    uint8_t root[VERITY_HASH_BYTES];

    if (!c || !content_tree(c, v->size, m->salt, NULL, -1, root, progress,
                            error)) {
        return false;
    }
    if (memcmp(root, v->root, sizeof(root)) != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "version %" PRIu64 " of '%s' does not read back as it was "
                    "sealed. What came was right, so the medium here is in "
                    "doubt%s", v->number, m->vdisk, v->parent ?
                    ", or the version it builds on is damaged: 'deskcast "
                    "vdisk verify' tells, and damaged ones are not built on"
                    : "");
        return false;
    }
    progress_done(progress);
    return true;
}

static bool fill(Store *s, Manifest *m, Version *v, const Staging *st,
                 bool quiet, GError **error)
{
    bool whole = v->parent == 0 && !store_on_rbd(s);

    return (whole ? take_file(s, m, v, st, error)
                  : fill_overlay(s, m, v, st, error)) &&
           prove(s, m, v, quiet, error) &&
           take_tree(s, m, v, st, error) &&
           store_publish(s, m, v, error);
}

static Version *copy_version(const Version *from, const Staging *st,
                             bool as_test)
{
    Version *v = version_new(from->number);

    v->access = as_test ? ACCESS_TEST : from->access;
    v->parent = st->base;
    v->size = from->size;
    v->created = from->created;
    v->sealed = from->sealed;
    v->released = as_test ? 0 : from->released;
    v->comment = g_strdup(from->comment);
    memcpy(v->root, from->root, sizeof(v->root));
    return v;
}

/* While it came the store was free to change */
static bool still_fits(const Manifest *m, const Version *v, const Staging *st,
                       GError **error)
{
    const Version *base = manifest_version(m, st->base);

    if (manifest_version(m, v->number) || v->number < m->next ||
        (st->base && (!base || base->failed))) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "'%s' was changed here meanwhile; start again, what came "
                    "is kept", m->vdisk);
        return false;
    }
    return true;
}

bool replicate_finish(const char *folder, Staging *st, const Manifest *there,
                      const Version *from, bool as_test, bool quiet,
                      GError **error)
{
    g_autoptr(Store) s = store_open(folder, STORE_CHANGE, error);
    g_autoptr(Manifest) m = s ? replicate_own_manifest(s, there, error) : NULL;
    g_autoptr(Version) v = copy_version(from, st, as_test);

    if (!m || !still_fits(m, from, st, error)) {
        return false;
    }
    m->next = from->number;
    if (!store_draft(s, m, v, error)) {
        return false;
    }
    if (!fill(s, m, v, st, quiet, error)) {
        store_discard(s, m, v);
        return false;
    }
    v = NULL;
    staging_remove(st);
    return true;
}
