/*
 * Test of the host cache: system calls that fail
 *
 * These take the place of the C library's. Of an error in writing back, the
 * kernel tells whoever asks first, and nobody else; so does this.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "cache.h"

int fail_syncs;
int hold_syncs_ms;
bool die_in_sync;
int fail_writes;
uint64_t syncs;

int fdatasync(int fd)
{
    int hold = qatomic_read(&hold_syncs_ms);

    qatomic_inc(&syncs);
    if (hold) {
        /* All that come in this time overlap */
        g_usleep(hold * 1000);
    }
    if (qatomic_read(&fail_syncs) > 0) {
        qatomic_dec(&fail_syncs);
        if (die_in_sync) {
            kill(getpid(), SIGKILL);
        }
        errno = EIO;
        return -1;
    }
    return syscall(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *buf, size_t bytes, off64_t offset)
{
    int err = qatomic_read(&fail_writes);

    /* Not the headers, which are no more than 4 KiB from the begin */
    if (err && offset > 2 * VDISK_HEADER_BYTES) {
        errno = err;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, buf, bytes, offset);
}
