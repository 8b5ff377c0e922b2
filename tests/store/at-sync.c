/*
 * Preloaded into deskcast: something happens before a file is made durable
 *
 * At the first fdatasync() of a process, the commands in AT_SYNC run in a shell,
 * with the name of the file in $target; their exit status other than 0 is EIO.
 * So a copy is wrong, or its source changes, once all of it was written.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_flag done = ATOMIC_FLAG_INIT;

static int run(int fd, const char *commands)
{
    char link[64], target[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, target, sizeof(target) - 1);
    if (n < 0) {
        return -1;
    }
    target[n] = 0;
    unsetenv("LD_PRELOAD");
    setenv("target", target, 1);
    return system(commands);
}

int fdatasync(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    const char *commands = getenv("AT_SYNC");

    if (commands && !atomic_flag_test_and_set(&done) && run(fd, commands)) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}
