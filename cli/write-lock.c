/*
 * QEMU's image locks, as a writer takes them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "write-lock.h"

#include <fcntl.h>

bool image_byte_lock(int fd, off_t byte)
{
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };

    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

int image_byte_locked(int fd, off_t byte)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };

    return fcntl(fd, F_OFD_GETLK, &lock) < 0 ? -1 : lock.l_type != F_UNLCK;
}

/* What cannot be told is taken for locked */
static bool is_free(int fd, off_t byte)
{
    return image_byte_locked(fd, byte) == 0;
}

bool write_lock_take(int fd, bool alone)
{
    return image_byte_lock(fd, IMAGE_USED + IMAGE_READ) &&
           image_byte_lock(fd, IMAGE_USED + IMAGE_WRITE) &&
           image_byte_lock(fd, IMAGE_UNSHARED + IMAGE_WRITE) &&
           image_byte_lock(fd, IMAGE_UNSHARED + IMAGE_RESIZE) &&
           (!alone || is_free(fd, IMAGE_USED + IMAGE_READ)) &&
           is_free(fd, IMAGE_UNSHARED + IMAGE_READ) &&
           is_free(fd, IMAGE_UNSHARED + IMAGE_WRITE) &&
           is_free(fd, IMAGE_USED + IMAGE_WRITE) &&
           is_free(fd, IMAGE_USED + IMAGE_RESIZE);
}
