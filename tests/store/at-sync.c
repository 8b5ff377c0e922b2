/*
 * Preloaded into deskcast: something happens before a file is made durable
 *
 * At the first fdatasync() of a vDisk's file, the commands in AT_SYNC run in a
 * shell, with the name of the file in $target; their exit status other than 0 is
 * EIO. So a copy is wrong, or its source changes, once all of it was written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_flag done = ATOMIC_FLAG_INIT;

/* Of a vDisk, and not of the store */
static bool is_image(int fd, char target[PATH_MAX])
{
    char link[64];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, target, PATH_MAX - 1);
    target[n < 0 ? 0 : n] = 0;
    return strstr(target, "/vdisks/");
}

static int run(const char *target, const char *commands)
{
    unsetenv("LD_PRELOAD");
    setenv("target", target, 1);
    return system(commands);
}

int fdatasync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    const char *commands = getenv("AT_SYNC");
    char target[PATH_MAX];

    if (commands && is_image(fd, target) && !atomic_flag_test_and_set(&done) &&
        run(target, commands)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}
