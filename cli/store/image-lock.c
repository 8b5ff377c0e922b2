/*
 * QEMU's image locks: keep writers away from an image
 *
 * A QEMU that opens an image takes a read lock of byte 100 + n for each
 * permission n that it uses, and of byte 200 + n for each that it does not
 * share; then it looks whether somebody has the other byte. We use none and
 * do not share writing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/store/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* util/osdep.c, block/file-posix.c and BLK_PERM_* of QEMU */
enum { USED = 100, NOT_SHARED = 200, READ = 0, WRITE = 1, RESIZE = 3 };

static bool take(int fd, int byte)
{
    struct flock l = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };

    return fcntl(fd, F_OFD_SETLK, &l) == 0;
}

/* Has somebody a lock of that byte? */
static bool taken(int fd, int byte)
{
    struct flock l = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };

    return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

int image_lock_writers_out(const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        durable_errno(error, "open", path);
        return -1;
    }
    if (!take(fd, NOT_SHARED + WRITE) || !take(fd, NOT_SHARED + RESIZE)) {
        durable_errno(error, "lock", path);
    } else if (taken(fd, USED + WRITE) || taken(fd, USED + RESIZE)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "%s is open for "
                    "writing; shut down who writes to it", path);
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

bool image_lock_is_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool read = fd >= 0 && taken(fd, USED + READ);

    if (fd >= 0) {
        close(fd);
    }
    return read;
}
