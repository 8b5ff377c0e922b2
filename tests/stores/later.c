/*
 * Preloaded into a program: time passes when a test says so
 *
 * The monotonic clock is ahead by as many seconds as the file that LATER names
 * has bytes; no file, no seconds. What waits for a time looks at the clock when
 * it is woken, so something has to wake it then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    static int (*real)(clockid_t, struct timespec *);
    const char *file = getenv("LATER");
    struct stat st;
    int ret;

    if (!real) {
        real = dlsym(RTLD_NEXT, "clock_gettime");
    }
    ret = real(clock, ts);
    if (ret == 0 && clock == CLOCK_MONOTONIC && file && stat(file, &st) == 0) {
        ts->tv_sec += st.st_size;
    }
    return ret;
}
