/*
 * QEMU's image locks: the bytes, and as a writer takes them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CLI_WRITE_LOCK_H
#define CLI_WRITE_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * util/osdep.c, block/file-posix.c and BLK_PERM_* of QEMU: byte 100 + n is
 * locked by whoever uses permission n, byte 200 + n by whoever does not let
 * others use it. All locks are shared ones; a conflict is found by asking for
 * an exclusive one.
 */
enum {
    IMAGE_USED = 100, IMAGE_UNSHARED = 200,
    IMAGE_READ = 0, IMAGE_WRITE = 1, IMAGE_RESIZE = 3,
};

/* Lock a byte, shared, until @fd is closed. False with errno set. */
bool image_byte_lock(int fd, off_t byte);

/* Has somebody else a lock of it? 1, 0, or -1 if that cannot be told */
int image_byte_locked(int fd, off_t byte);

/*
 * Lock @fd as a QEMU that writes and shares reading only, until it is closed.
 * False if a VM or a tool has the file open, unless it only reads, shares
 * writing, and we need not be @alone.
 */
bool write_lock_take(int fd, bool alone);

#endif /* CLI_WRITE_LOCK_H */
