/*
 * A raw image in a file or on a block device: its content is its bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "content-int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR  512

/* With options that we do not know it is QEMU's to open */
static bool only_members(JsonObject *o, const char *const *names)
{
    g_autoptr(GList) members = json_object_get_members(o);

    for (GList *m = members; m; m = m->next) {
        if (!g_strv_contains(names, m->data)) {
            return false;
        }
    }
    return true;
}

static const char *driver(JsonObject *o)
{
    return json_object_get_string_member_with_default(o, "driver", "");
}

bool content_is_plain(JsonObject *definition)
{
    static const char *const raw[] = { "driver", "file", "read-only", NULL };
    static const char *const protocol[] = { "driver", "filename", "cache",
                                            "read-only", NULL };
    JsonObject *file;

    if (!g_str_equal(driver(definition), "raw") ||
        !json_object_has_member(definition, "file") ||
        !only_members(definition, raw)) {
        return false;
    }
    file = json_object_get_object_member(definition, "file");
    return (g_str_equal(driver(file), "file") ||
            g_str_equal(driver(file), "host_device")) &&
           only_members(file, protocol);
}

static bool is_direct(JsonObject *file)
{
    JsonObject *cache = json_object_has_member(file, "cache") ?
        json_object_get_object_member(file, "cache") : NULL;

    return cache && json_object_get_boolean_member_with_default(cache, "direct",
                                                                false);
}

static bool errno_error(const Content *c, const char *what, GError **error)
{
    int saved = errno;

    g_set_error(error, G_IO_ERROR, g_io_error_from_errno(saved), "%s: %s: %s",
                c->name, what, g_strerror(saved));
    return false;
}

bool content_open_plain(Content *c, JsonObject *definition, GError **error)
{
    JsonObject *file = json_object_get_object_member(definition, "file");
    const char *path = json_object_get_string_member(file, "filename");
    struct stat st;

    c->direct = is_direct(file);
    c->fd = open(path, O_RDONLY | O_CLOEXEC | (c->direct ? O_DIRECT : 0));
    if (c->fd < 0 || fstat(c->fd, &st) < 0) {
        return errno_error(c, "cannot open it", error);
    }
    c->size = st.st_size;
    if (S_ISBLK(st.st_mode) && ioctl(c->fd, BLKGETSIZE64, &c->size) < 0) {
        return errno_error(c, "cannot tell its size", error);
    }
    /* As the block layer sees it */
    c->size = ROUND_UP(c->size, SECTOR);
    return true;
}

/* What is past the end of the file, less than a sector, reads as zeros */
bool content_read_plain(Content *c, uint64_t offset, size_t bytes,
                        uint8_t *buf, GError **error)
{
    size_t done = 0;

    while (done < bytes) {
        /* O_DIRECT wants whole blocks, also at the end of a file */
        size_t want = c->direct ? ROUND_UP(bytes - done, VERITY_BLOCK)
                                : bytes - done;
        ssize_t n = pread(c->fd, buf + done, want, offset + done);

        if (n < 0 && errno != EINTR) {
            return errno_error(c, "cannot read it", error);
        }
        if (n == 0) {
            break;
        }
        done += MAX(n, 0);
    }
    if (done < bytes && offset + done + SECTOR <= c->size) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "%s became shorter while it was read", c->name);
        return false;
    }
    memset(buf + MIN(done, bytes), 0, bytes - MIN(done, bytes));
    return true;
}

uint64_t content_zeros_at(Content *c, uint64_t offset, uint64_t bytes)
{
    off_t data;

    /* Why it will not be there is told to who reads it then */
    if (c->fd < 0 || (c->wait && !c->wait(c->waiting, offset + bytes, NULL))) {
        return 0;
    }
    data = lseek(c->fd, offset, SEEK_DATA);
    if (data < 0) {
        /* ENXIO: all of the rest is a hole, if the file is that long */
        return errno == ENXIO && offset + bytes <= c->size ? bytes : 0;
    }
    return MIN((uint64_t)data - offset, bytes);
}

void content_wait_for(Content *c, ContentWait *wait, void *opaque)
{
    c->wait = wait;
    c->waiting = opaque;
}

uint8_t *content_buffer(void)
{
    void *p = aligned_alloc(VERITY_BLOCK, CONTENT_RUN);

    if (!p) {
        g_error("no memory for a buffer");
    }
    return p;
}
