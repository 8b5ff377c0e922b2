/*
 * QEMU's image locks, as a writer takes them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "write-lock.h"

#include <fcntl.h>

/*
 * QEMU's image locks (block/file-posix.c): byte 100 + n is locked by whoever
 * uses permission n, byte 200 + n by whoever does not let others use it. All
 * locks are shared ones; a conflict is found by asking for an exclusive one.
 */
#define LOCK_USED       100
#define LOCK_UNSHARED   200
#define PERM_READ       0
#define PERM_WRITE      1
#define PERM_RESIZE     3

static bool lock_byte(int fd, off_t byte)
{
    struct flock lock = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };

    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

static bool byte_is_locked(int fd, off_t byte)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };

    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool write_lock_take(int fd, bool alone)
{
    return lock_byte(fd, LOCK_USED + PERM_READ) &&
           lock_byte(fd, LOCK_USED + PERM_WRITE) &&
           lock_byte(fd, LOCK_UNSHARED + PERM_WRITE) &&
           lock_byte(fd, LOCK_UNSHARED + PERM_RESIZE) &&
           !(alone && byte_is_locked(fd, LOCK_USED + PERM_READ)) &&
           !byte_is_locked(fd, LOCK_UNSHARED + PERM_READ) &&
           !byte_is_locked(fd, LOCK_UNSHARED + PERM_WRITE) &&
           !byte_is_locked(fd, LOCK_USED + PERM_WRITE) &&
           !byte_is_locked(fd, LOCK_USED + PERM_RESIZE);
}
