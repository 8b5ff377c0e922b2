/*
 * The process dies at a chosen system call
 *
 * What is written to a file outlives a process at once, and what is sent to the
 * store, too: only in which order that happens makes a difference. The calls
 * that do it are taken over, to die right before or after any of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qemu/atomic.h"
#include "points.h"

static int points_left;     /* atomic */
void (*points_writing)(void);

void points_arm(unsigned n)
{
    qatomic_set(&points_left, n);
}

void kill_now(void)
{
    kill(getpid(), SIGKILL);
    abort();
}

static void point(void)
{
    if (qatomic_read(&points_left) > 0 &&
        qatomic_dec_fetch(&points_left) == 0) {
        kill_now();
    }
}

static void begin(void)
{
    if (points_writing) {
        points_writing();
    }
    point();
}

static long with_points(long ret)
{
    int error = errno;

    point();
    errno = error;
    return ret;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    begin();
    return with_points(syscall(SYS_pwrite64, fd, buf, n, offset));
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    begin();
    /* On a 64-bit host all of the offset is in the fourth argument */
    return with_points(syscall(SYS_pwritev, fd, iov, n, offset, 0));
}

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    begin();
    return with_points(syscall(SYS_fallocate, fd, mode, offset, bytes));
}

int fdatasync(int fd)
{
    begin();
    return with_points(syscall(SYS_fdatasync, fd));
}

int ftruncate(int fd, off_t length)
{
    begin();
    return with_points(syscall(SYS_ftruncate, fd, length));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    point();
    return with_points(syscall(SYS_sendmsg, fd, message, flags));
}
