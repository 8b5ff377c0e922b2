/*
 * Small files in a folder, read bounded and replaced whole
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "cli/store/durable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool durable_errno(GError **error, const char *what, const char *name)
{
    int saved = errno;
    const char *hint = saved == ENOSPC || saved == EDQUOT
        ? "; make room in the store's file system" :
        saved == EROFS ? "; the store's file system is mounted read-only" : "";

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved),
                "cannot %s %s: %s%s", what, name, g_strerror(saved), hint);
    return false;
}

int durable_open_folder(int at, const char *name, GError **error)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        durable_errno(error, "open the folder", name);
    }
    return fd;
}

/* A file may change its size while it is read: what counts is the buffer */
static char *read_fd(int fd, const char *name, gsize max, gsize *length,
                     GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    guint8 buf[16384];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        if (bytes->len + n > max) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                        "%s is longer than %" G_GSIZE_FORMAT " bytes", name,
                        max);
            return NULL;
        }
        g_byte_array_append(bytes, buf, n);
    }
    if (n < 0) {
        durable_errno(error, "read", name);
        return NULL;
    }
    *length = bytes->len;
    g_byte_array_append(bytes, (const guint8 *)"", 1);
    return (char *)g_byte_array_free(g_steal_pointer(&bytes), false);
}

char *durable_read(int folder, const char *name, gsize max, gsize *length,
                   GError **error)
{
    /* A FIFO in its place does not hold us up */
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK |
                    O_NOFOLLOW);
    struct stat st;
    char *text = NULL;

    if (fd < 0) {
        durable_errno(error, "open", name);
        return NULL;
    }
    if (fstat(fd, &st) < 0) {
        durable_errno(error, "read", name);
    } else if (!S_ISREG(st.st_mode)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s is no regular file", name);
    } else {
        text = read_fd(fd, name, max, length, error);
    }
    close(fd);
    return text;
}

bool durable_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    const char *p = data;

    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes, offset);

        if (n < 0 && errno != EINTR) {
            return false;
        }
        if (n > 0) {
            p += n;
            bytes -= n;
            offset += n;
        }
    }
    return true;
}

static bool write_new(int folder, const char *new, const char *text)
{
    int fd, saved;
    bool ok;

    if (unlinkat(folder, new, 0) < 0 && errno != ENOENT) {
        return false;
    }
    fd = openat(folder, new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC |
                O_NOFOLLOW, 0644);
    if (fd < 0) {
        return false;
    }
    /* Durable before the rename: else a crash leaves an empty file there */
    ok = durable_pwrite(fd, text, strlen(text), 0) && fsync(fd) == 0;
    saved = errno;
    ok = close(fd) == 0 && ok;
    if (!ok) {
        unlinkat(folder, new, 0);
        errno = saved;
    }
    return ok;
}

bool durable_replace(int folder, const char *name, const char *text,
                     GError **error)
{
    g_autofree char *new = g_strconcat(".new-", name, NULL);

    if (!write_new(folder, new, text)) {
        return durable_errno(error, "write", name);
    }
    if (renameat(folder, new, folder, name) < 0) {
        durable_errno(error, "replace", name);
        unlinkat(folder, new, 0);
        return false;
    }
    return durable_sync_folder(folder, name, error);
}

bool durable_sync_folder(int folder, const char *name, GError **error)
{
    return fsync(folder) == 0 ||
           durable_errno(error, "make durable the folder of", name);
}

bool durable_remove(int folder, const char *name, GError **error)
{
    return unlinkat(folder, name, 0) == 0 || errno == ENOENT ||
           durable_errno(error, "remove", name);
}

bool durable_list(int folder, DurableEntry *entry, void *opaque,
                  GError **error)
{
    /* A descriptor of its own: reading moves its position */
    int fd = durable_open_folder(folder, ".", error);
    struct dirent *e;
    bool ok = true;
    DIR *dir;

    if (fd < 0) {
        return false;
    }
    dir = fdopendir(fd);
    if (!dir) {
        durable_errno(error, "list", "the folder");
        close(fd);
        return false;
    }
    /* cppcheck-suppress readdirCalled ; nobody else has this stream */
    while (ok && (errno = 0, e = readdir(dir))) { /* NOLINT(concurrency-*) */
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
            ok = entry(opaque, e->d_name, error);
        }
    }
    if (ok && errno) {
        ok = durable_errno(error, "list", "the folder");
    }
    closedir(dir);
    return ok;
}
