/*
 * A layer file that no process runs: its header, read and changed in place
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "layer-file.h"
#include "write-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <sys/stat.h>
#include <unistd.h>

static bool set_errno(GError **error, const char *what)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "%s: %s",
                what, g_strerror(saved));
    return false;
}

static bool read_header(LayerFile *file, GError **error)
{
    uint8_t buf[VDISK_HEADER_COPIES * VDISK_HEADER_BYTES] = {};
    g_autofree char *why = NULL;
    unsigned bad;

    if (pread(file->fd, buf, sizeof(buf), 0) < 0) {
        return set_errno(error, "cannot read its header");
    }
    file->header_copy = vdisk_header_choose(&file->header, buf, &bad, &why);
    if (file->header_copy < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "not a usable layer file: %s", why);
        return false;
    }
    if (file->header.incompatible_features) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
                    "uses features that this version does not know "
                    "(0x%" PRIx64 ")", file->header.incompatible_features);
        return false;
    }
    return true;
}

static bool prepare(LayerFile *file, const char *path, GError **error)
{
    struct stat st;

    file->fd = open(path, O_RDWR | O_CLOEXEC);
    if (file->fd < 0 || fstat(file->fd, &st) < 0) {
        return set_errno(error, "cannot open it");
    }
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_REGULAR_FILE,
                    "neither a file nor a block device");
        return false;
    }
    file->device = st.st_dev;
    file->inode = st.st_ino;
    if (!write_lock_take(file->fd, false)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY,
                    "in use; on a running desktop use vdisk-assign over QMP");
        return false;
    }
    return read_header(file, error);
}

LayerFile *layer_file_open(const char *path, GError **error)
{
    g_autoptr(LayerFile) file = g_new0(LayerFile, 1);

    file->fd = -1;
    return prepare(file, path, error) ? g_steal_pointer(&file) : NULL;
}

void layer_file_close(LayerFile *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    g_free(file);
}

bool layer_file_set_header(LayerFile *file, const VdiskHeader *new,
                           GError **error)
{
    int copy = (file->header_copy + 1) % VDISK_HEADER_COPIES;
    VdiskHeader h = *new;
    uint8_t buf[VDISK_HEADER_BYTES];
    ssize_t written;

    h.generation = file->header.generation + 1;
    h.autoclear_features = 0;
    vdisk_header_encode(&h, buf);
    /* Into the copy that is not in use; torn or lost, the other one counts */
    written = pwrite(file->fd, buf, sizeof(buf), copy * VDISK_HEADER_BYTES);
    if (written != sizeof(buf)) {
        errno = written < 0 ? errno : ENOSPC;
        return set_errno(error, "cannot write its header");
    }
    if (fdatasync(file->fd) < 0) {
        return set_errno(error, "cannot flush its header");
    }
    file->header = h;
    file->header_copy = copy;
    return true;
}
