/*
 * Take a version out of the store, as an image of a format
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "export.h"
#include "cli/store/content.h"
#include "cli/store/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool errno_error(GError **error, const char *what, const char *path)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot %s %s: %s", what, path, g_strerror(saved));
    return false;
}

/* A VHD's size counts cylinders, unless it is told not to */
static const char *create_options(const char *format)
{
    return g_str_equal(format, "vpc") ? "force_size=on" : NULL;
}

static bool is_zero(void *opaque, unsigned thread, uint64_t offset,
                    uint64_t bytes, const uint8_t *data, GError **error)
{
    uint64_t size = *(const uint64_t *)opaque;
    uint64_t skip = offset < size ? MIN(size - offset, bytes) : 0;

    for (uint64_t i = skip; data && i < bytes; i++) {
        if (data[i]) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "the image is longer, and not zero there");
            return false;
        }
    }
    return true;
}

static bool prove(const Manifest *m, const Version *v, const char *path,
                  const char *format, bool quiet, GError **error)
{
    g_autoptr(JsonObject) node =
        content_format_node(format, content_file_node(path, true), NULL);
    g_autoptr(Content) c = content_open(node, error);
    g_autoptr(Progress) progress = progress_new("reading it back", v->size,
                                                true, quiet);
    uint8_t root[VERITY_HASH_BYTES];
    uint64_t from = v->size / TREE_SPAN * TREE_SPAN, size = v->size;
    ContentRange tail = { from, 0 };

    if (!c || !content_tree(c, v->size, m->salt, NULL, -1, root, progress,
                            error)) {
        return false;
    }
    if (memcmp(root, v->root, sizeof(root)) != 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "what was written is not version %" PRIu64 ": verify the "
                    "store's ('deskcast vdisk verify %s'), then the medium "
                    "written to", v->number, m->vdisk);
        return false;
    }
    tail.bytes = content_size(c) - from;
    progress_done(progress);
    return tail.bytes == 0 ||
           content_read_ranges(c, &tail, 1, is_zero, &size, NULL, error);
}

static bool convert(const Store *s, const Manifest *m, const Version *v,
                    const char *path, const char *format, bool quiet,
                    GError **error)
{
    g_autoptr(JsonObject) chain = store_chain(s, m, v, 0);
    g_autoptr(Progress) progress = progress_new("converting", 100, false,
                                                quiet);
    int fd;
    bool ok;

    if (!convert_to_file(chain, path, format, create_options(format), progress,
                         error)) {
        return false;
    }
    progress_done(progress);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ok = fd >= 0 && fsync(fd) == 0;
    if (!ok) {
        errno_error(error, "make durable", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* Not all file systems know it: NFS does not. They know two names of a file. */
static bool rename_no_replace(const char *temp, const char *file)
{
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, file, RENAME_NOREPLACE) == 0) {
        return true;
    }
    return errno == EINVAL && link(temp, file) == 0 &&
           (g_unlink(temp) == 0 || errno == ENOENT);
}

static bool give_name(const char *temp, const char *file, bool force,
                      GError **error)
{
    return (force ? rename(temp, file) == 0 : rename_no_replace(temp, file)) ||
           errno_error(error, "make", file);
}

bool store_export(const Store *s, const Manifest *m, const Version *v,
                  const char *file, const char *format, bool force, bool quiet,
                  GError **error)
{
    g_autofree char *path = g_canonicalize_filename(file, NULL);
    g_autofree char *temp = g_strdup_printf("%s.part-XXXXXX", path);
    int fd;
    bool ok;

    if (!force && g_file_test(path, G_FILE_TEST_EXISTS)) {
        errno = EEXIST;
        return errno_error(error, "make", path);
    }
    fd = g_mkstemp_full(temp, O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0) {
        return errno_error(error, "make", temp);
    }
    close(fd);
    ok = convert(s, m, v, temp, format, quiet, error) &&
         prove(m, v, temp, format, quiet, error) &&
         give_name(temp, path, force, error);
    if (!ok) {
        g_unlink(temp);
    }
    return ok;
}
