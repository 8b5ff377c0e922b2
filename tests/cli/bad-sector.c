/*
 * Preloaded into deskcast: a disk that cannot read one sector
 *
 * Reads of the sector at byte BAD_SECTOR of any file fail with EIO; the first
 * BAD_AFTER of them (default 0) do not.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define SECTOR 512

static off64_t number(const char *name, off64_t other)
{
    const char *text = getenv(name);

    return text ? atoll(text) : other;
}

ssize_t pread64(int fd, void *buf, size_t bytes, off64_t offset)
{
    ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    off64_t bad = number("BAD_SECTOR", -SECTOR);
    static off64_t reads;

    if (offset < bad + SECTOR && offset + (off64_t)bytes > bad &&
        reads++ >= number("BAD_AFTER", 0)) {
        errno = EIO;
        return -1;
    }
    return real(fd, buf, bytes, offset);
}
