/*
 * One administrator at a time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/store-int.h"
#include "cli/audit.h"
#include "cli/store/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WHO_BYTES   256

/* What the holder wrote, for people; it may not have come to it yet */
static char *read_holder(int fd)
{
    char who[WHO_BYTES + 1] = "";
    ssize_t n = pread(fd, who, WHO_BYTES, 0);

    who[MAX(n, 0)] = 0;
    g_strdelimit(g_strchomp(who), "\n\r\t\33", ' ');
    return *who ? g_utf8_make_valid(who, -1) : g_strdup("somebody else");
}

static void tell_holder(int fd, const char *path, GError **error)
{
    g_autofree char *who = read_holder(fd);

    g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "the store %s is being "
                "changed by %s; try again when that has ended", path, who);
}

char *store_lock_holder(const Store *s)
{
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = openat(s->fd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *who = fd >= 0 && fcntl(fd, F_OFD_GETLK, &l) == 0 &&
                l.l_type != F_UNLCK ? read_holder(fd) : NULL;

    if (fd >= 0) {
        close(fd);
    }
    return who;
}

/*
 * Only for people: a lock that cannot be written to still locks. On NFS the text
 * stays with this host until it is made durable, and nobody else could read it.
 */
static void write_holder(int fd)
{
    g_autofree char *user = audit_user();
    g_autofree char *who = g_strdup_printf(
        "process %d on %s, user %s: %s\n", getpid(), g_get_host_name(), user,
        g_get_prgname() ? g_get_prgname() : "deskcast");

    if (ftruncate(fd, 0) == 0 &&
        pwrite(fd, who, MIN(strlen(who), WHO_BYTES), 0) > 0) {
        fdatasync(fd);
    }
}

int store_lock(int folder, const char *path, GError **error)
{
    struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd;

    /*
     * QEMU's user reads what is made from here on, whatever the shell of the
     * administrator keeps to itself. The store's folder says who comes in.
     */
    umask(022);
    fd = openat(folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
                    0644);

    if (fd < 0) {
        durable_errno(error, "open the lock of the store", path);
        return -1;
    }
    if (fcntl(fd, F_OFD_SETLK, &l) < 0) {
        if (errno == EAGAIN || errno == EACCES) {
            tell_holder(fd, path, error);
        } else {
            durable_errno(error, "lock the store", path);
        }
        close(fd);
        return -1;
    }
    write_holder(fd);
    return fd;
}
