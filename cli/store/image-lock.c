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
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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

bool image_lock_is_written(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool written = fd >= 0 && (taken(fd, USED + WRITE) ||
                               taken(fd, USED + RESIZE));

    if (fd >= 0) {
        close(fd);
    }
    return written;
}

/* A line of /proc/locks: "1: OFDLCK ADVISORY READ -1 fe:00:1234 100 101" */
static bool locks_byte(const char *line, const struct stat *st, int byte)
{
    unsigned major_id, minor_id;
    unsigned long long inode, start;
    char end[24];

    return sscanf(line, "%*u: %*s %*s %*s %*d %x:%x:%llu %llu %23s", &major_id,
                  &minor_id, &inode, &start, end) == 5 &&
           makedev(major_id, minor_id) == st->st_dev && inode == st->st_ino &&
           start <= byte &&
           (!strcmp(end, "EOF") || g_ascii_strtoull(end, NULL, 10) >= byte);
}

unsigned image_lock_readers(const char *path)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    struct stat st;
    unsigned n = 0;

    if (stat(path, &st) < 0 || !image_lock_is_read(path)) {
        return 0;
    }
    /* Some file systems have other numbers there: one reader at least */
    if (g_file_get_contents("/proc/locks", &text, NULL, NULL)) {
        lines = g_strsplit(text, "\n", -1);
    }
    for (char **l = lines; l && *l; l++) {
        n += locks_byte(*l, &st, USED + READ);
    }
    return MAX(n, 1);
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
