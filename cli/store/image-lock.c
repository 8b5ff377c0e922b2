/*
 * QEMU's image locks: keep writers away from an image
 *
 * Of the permissions in write-lock.h we use none, and do not share writing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/store/durable.h"
#include "cli/write-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Has somebody a lock of that byte? What cannot be told is taken for free. */
static bool taken(int fd, int byte)
{
    return image_byte_locked(fd, byte) > 0;
}

static bool is_written(int fd)
{
    return taken(fd, IMAGE_USED + IMAGE_WRITE) ||
           taken(fd, IMAGE_USED + IMAGE_RESIZE);
}

int image_lock_writers_out(const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        durable_errno(error, "open", path);
        return -1;
    }
    if (!image_byte_lock(fd, IMAGE_UNSHARED + IMAGE_WRITE) ||
        !image_byte_lock(fd, IMAGE_UNSHARED + IMAGE_RESIZE)) {
        durable_errno(error, "lock", path);
    } else if (is_written(fd)) {
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
    bool written = fd >= 0 && is_written(fd);

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
        n += locks_byte(*l, &st, IMAGE_USED + IMAGE_READ);
    }
    return MAX(n, 1);
}

bool image_lock_is_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool read = fd >= 0 && taken(fd, IMAGE_USED + IMAGE_READ);

    if (fd >= 0) {
        close(fd);
    }
    return read;
}
