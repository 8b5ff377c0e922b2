/*
 * The header of a layer file that may be in use
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "actual.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

bool layer_header_peek(const char *path, VdiskHeader *h, GError **error)
{
    uint8_t buf[VDISK_HEADER_COPIES * VDISK_HEADER_BYTES] = {};
    g_autofree char *why = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    ssize_t got = -1;
    unsigned bad;

    if (fd >= 0) {
        got = fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) ||
                                      S_ISBLK(st.st_mode))
              ? pread(fd, buf, sizeof(buf), 0) : 0;
        close(fd);
    }
    if (got < 0) {
        g_set_error(error, G_IO_ERROR, g_io_error_from_errno(errno),
                    "cannot read '%s': %s", path, g_strerror(errno));
        return false;
    }
    if (vdisk_header_choose(h, buf, &bad, &why) < 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "'%s' is no usable layer file: %s", path, why);
        return false;
    }
    return true;
}
